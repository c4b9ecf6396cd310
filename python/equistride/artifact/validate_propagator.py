"""Is a propagator right? Symmetries, momenta, precision and the range that it takes, on any structure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from ase import Atoms, units
from numpy.typing import NDArray

from equistride.artifact.check import Check, random_rotation
from equistride.artifact.model import Model, load
from equistride.artifact.reference import SPACINGS, reference_structure, reference_velocities
from equistride.artifact.structure import Structure, structure_of
from equistride.data.structures import read_atoms
from equistride.errors import EquistrideError
from equistride.graph import neighbor_list
from equistride.models.propagator import LINEAR, POINT
from equistride.units import ACCELERATION, BOLTZMANN

Array = NDArray[np.float64]
SYMMETRY = 1e-9
"""Bound of a symmetry, in float64: 1e-15 of rounding in bonds, through layers and splines that amplify it, with a wide margin."""
MOMENTUM = 1e-12
"""Bound of a momentum: kept in double precision whatever the network's; sums over thousands of atoms round by 1e-14."""
PRECISION = 1e-3
"""Bound of float32: rounding of 1e-7 grows through the layers, and stays below the errors of any network."""
TEMPERATURE = 300.0
"""K, of the velocities that a structure without any is given."""
SLOWER, MARGIN = 0.999, 0.01
"""Speed just inside the range, as a share of the limit; how far beside the shortest bond lengths are tried, likewise."""
THROWN = ("would move", "would leave the stride")
"""In the refusal of a stride that went out of hand: the model took its input, which a structure far from its data may cause."""
TINY = 1e-300


@dataclass(frozen=True)
class Motion:
    """A structure with velocities [N, 3] in A/fs."""

    structure: Structure
    velocities: Array

    def stride(self, model: Model) -> tuple[Array, Array]:
        """Return the displacements [N, 3] A of one stride and the velocities [N, 3] A/fs after it."""
        s = self.structure
        out = model.propagate(s.positions, self.velocities, s.species, s.cell, s.pbc)
        return out.displacements.double().cpu().numpy(), out.velocities.double().cpu().numpy()

    def turned(self, q: Array) -> Motion:
        """Return the same with positions, cell and velocities turned."""
        s = self.structure
        return Motion(replace(s, positions=s.positions @ q, cell=s.cell @ q), self.velocities @ q)

    def moved(self, positions: Array) -> Motion:
        """Return the same at other positions."""
        return replace(self, structure=replace(self.structure, positions=positions))

    def without_box(self) -> Motion:
        """Return the same atoms in an open system."""
        return replace(self, structure=replace(self.structure, cell=np.zeros((3, 3)), pbc=np.zeros(3, bool)))


def reference_motion(model: Model) -> Motion:
    """Return the reference frame with its velocities, at the density at which the model throws atoms least."""
    metadata = model.metadata
    best: Motion | None = None
    least, refusal = np.inf, None
    for spacing in SPACINGS:
        positions, species, cell = reference_structure(len(metadata.species), metadata.cutoff, spacing)
        velocities = reference_velocities(len(positions), metadata.max_speed or 0.0).numpy()
        motion = Motion(Structure(positions.numpy(), species.numpy(), cell.numpy(), np.ones(3, bool)), velocities)
        try:
            farthest = float(np.abs(motion.stride(model)[0]).max())
        except EquistrideError as error:  # a density that is out of the model's range
            refusal = error
            continue
        if farthest < least:
            best, least = motion, farthest
    if best is None:
        raise EquistrideError(
            f"the model cannot stride from the frame that its file carries ({refusal})",
            hint="give a structure of the kind that it was trained on: --structure FILE",
        )
    return best


def read_motion(like: Path | Atoms | None, model: Model) -> Motion:
    """Return a structure with its velocities, of a file that ASE reads it; the reference frame where there is none.

    A structure without velocities is given those of 300 K, by the model's masses.
    """
    if like is None:
        return reference_motion(model)
    atoms = like if isinstance(like, Atoms) else read_atoms(like, moving=True)
    structure = structure_of(atoms, model)
    velocities = atoms.get_velocities() * units.fs
    if not velocities.any():
        thermal = BOLTZMANN * TEMPERATURE * ACCELERATION / _masses(model, structure)
        velocities = np.random.default_rng(17).normal(size=velocities.shape) * np.sqrt(thermal)
    return Motion(structure, velocities)


def _masses(model: Model, structure: Structure) -> Array:
    return np.array(model.metadata.masses)[structure.species][:, None]


def _rms(values: Array) -> float:
    return max(float(np.sqrt(np.mean(values**2))), TINY)


def symmetry_errors(model: Model, motion: Motion) -> dict[str, float]:
    """Return deviations of a stride under rotation, reflection, reordering and lattice translations of single atoms.

    Displacements relative to the largest of them, velocities likewise; the larger of the two.
    """
    base, s = motion.stride(model), motion.structure

    def deviation(changed: Motion, expected: tuple[Array, ...]) -> float:
        pairs = zip(changed.stride(model), expected, strict=True)
        return float(np.max([np.abs(found - right).max() / max(np.abs(right).max(), TINY) for found, right in pairs]))

    result = {}
    for name, improper in (("rotation", False), ("reflection", True)):
        q = random_rotation(7, improper)
        result[name] = deviation(motion.turned(q), tuple(out @ q for out in base))
    order = np.random.default_rng(11).permutation(len(s.species))
    shuffled = Motion(replace(s, positions=s.positions[order], species=s.species[order]), motion.velocities[order])
    result["reordering of atoms"] = deviation(shuffled, tuple(out[order] for out in base))
    if s.pbc.any():
        whole = np.random.default_rng(13).integers(-2, 3, size=(len(order), 3)) * s.pbc
        result["lattice translations"] = deviation(motion.moved(s.positions + whole @ s.cell), base)
    return result


def momentum_errors(model: Model, motion: Motion) -> dict[str, float]:
    """Return errors of the total momentum, relative to the sum of the atoms' own, and of the way of the centre of mass,
    relative to the rms displacement."""
    masses, stride = _masses(model, motion.structure), float(model.metadata.stride_fs or 0.0)
    displacements, after = motion.stride(model)
    momentum = (masses * motion.velocities).sum(0)
    lost = np.linalg.norm((masses * after).sum(0) - momentum)
    own = (masses[:, 0] * np.linalg.norm(motion.velocities, axis=1)).sum()
    astray = np.linalg.norm((masses * displacements).sum(0) - momentum * stride) / masses.sum()
    return {
        "total momentum is kept": float(lost / max(own, TINY)),
        "centre of mass moves by its velocity": float(astray / _rms(displacements)),
    }


def angular_momentum_error(model: Model, motion: Motion) -> float:
    """Return the change of the angular momentum about the centre of mass in an open system, relative to the sum of the atoms'
    own; about the axis of a linear molecule, where atoms cannot set it, it does not count."""
    masses = _masses(model, motion.structure)
    positions = motion.structure.positions
    displacements, after = motion.stride(model)

    def arms(at: Array) -> Array:
        return at - (masses * at).sum(0) / masses.sum()

    before, now = arms(positions), arms(positions + displacements)
    change = np.cross(now, masses * after).sum(0) - np.cross(before, masses * motion.velocities).sum(0)
    inertia = (masses * now**2).sum() * np.eye(3) - now.T @ (masses * now)
    moments, axes = np.linalg.eigh(inertia)
    free = moments > LINEAR * max(float(moments.max()), POINT)
    speeds = np.linalg.norm(motion.velocities, axis=1)
    own = (masses[:, 0] * np.linalg.norm(before, axis=1) * speeds).sum()
    return float(np.linalg.norm((change @ axes)[free]) / max(own, TINY))


def _takes(model: Model, motion: Motion) -> bool:
    """Whether the model takes this as its input, though it may throw atoms then."""
    try:
        motion.stride(model)
    except EquistrideError as error:
        return any(words in str(error) for words in THROWN)
    return True


def _wrong_answers(model: Model, inside: Motion, outside: Motion) -> float:
    return float(not _takes(model, inside)) + float(_takes(model, outside))


def _with_speed(motion: Motion, speed: float) -> Motion:
    velocities = motion.velocities.copy()
    velocities[0] = [speed, 0.0, 0.0]  # along an axis: the norm is exact
    return replace(motion, velocities=velocities)


def _lengths(structure: Structure, cutoff: float) -> tuple[Array, NDArray[np.int64]]:
    """Return lengths [E] of bonds below the cutoff, sorted, and their ends [E, 2]."""
    positions, cell = torch.as_tensor(structure.positions), np.where(structure.pbc[:, None], structure.cell, 0.0)
    edges, shifts = neighbor_list(positions, torch.as_tensor(cell), torch.as_tensor(structure.pbc), cutoff)
    ends = edges.numpy().T
    vectors = structure.positions[ends[:, 1]] - structure.positions[ends[:, 0]] + shifts.numpy() @ cell
    lengths = np.linalg.norm(vectors, axis=1)
    order = np.argsort(lengths)
    return lengths[order], ends[order]


def _with_bond(motion: Motion, length: float, cutoff: float) -> Motion | None:
    """Return the same with one bond of this length, away from the other atoms; None where the structure has no room for it."""
    s = motion.structure
    if len(s.species) < 2:
        return None
    ends = _lengths(s, cutoff)[1]
    pairs = ends[ends[:, 0] != ends[:, 1]]
    i, j = pairs[0] if len(pairs) else (0, 1)
    best, room = None, length
    for direction in np.random.default_rng(19).normal(size=(40, 3)):
        positions = s.positions.copy()
        positions[j] = positions[i] + length * direction / np.linalg.norm(direction)
        moved = motion.moved(positions)
        others = _lengths(moved.structure, cutoff)[0][2:]  # the bond itself comes twice
        nearest = float(others[0]) if len(others) else np.inf
        if nearest > room:
            best, room = moved, nearest
    return best


def range_errors(model: Model, motion: Motion) -> dict[str, float]:
    """Return how many of two answers are wrong: just inside a limit the model takes an atom or a bond, beyond it it refuses."""
    limits, result = model.metadata.limits, {}
    if limits.fastest_atom:
        inside, at = (_with_speed(motion, share * limits.fastest_atom) for share in (SLOWER, 1.0))
        result["range of speeds"] = _wrong_answers(model, inside, at)
    if limits.shortest_bond:
        longer, shorter = (
            _with_bond(motion, share * limits.shortest_bond, model.metadata.cutoff)
            for share in (1 + MARGIN, 1 - MARGIN)
        )
        if longer is not None and shorter is not None:
            result["range of bonds"] = _wrong_answers(model, longer, shorter)
    return result


def propagator_checks(path: Path, precise: Model, like: Path | Atoms | None = None) -> list[Check]:
    """Check an artifact of kind propagator.

    Parameters
    ----------
    path, precise
        The artifact, and the same loaded in float64.
    like
        A structure of the kind that it knows, or a file of one that ASE can read, with velocities or without; the artifact's
        reference frame where there is none.

    Returns
    -------
    list of Check
        Symmetries (in float64), momenta (in the precision that engines run), float32 against float64, the range of inputs.
    """
    motion = read_motion(like, precise)
    metadata = precise.metadata
    served = precise if metadata.dtype == "float64" else load(path)
    errors = symmetry_errors(precise, motion)
    checks = [Check(f"equivariance: {n}", e, SYMMETRY, "of largest output") for n, e in errors.items()]
    lost, astray = momentum_errors(served, motion).items()
    checks.append(Check(*lost, MOMENTUM, "of sum of atoms' own"))
    checks.append(Check(*astray, MOMENTUM, "of rms displacement"))
    # the reference frame has a box, and angular momentum is kept without one
    unboxed = motion.without_box() if like is None and metadata.periodic == "any" else motion
    if metadata.capabilities.angular_momentum and not unboxed.structure.pbc.any():
        error = angular_momentum_error(served, unboxed)
        checks.append(Check("angular momentum is kept (no box)", error, MOMENTUM, "of sum of atoms' own"))
    single = load(path, dtype=torch.float32)
    for what, exact, rounded in zip(
        ("displacements", "velocities"), motion.stride(precise), motion.stride(single), strict=True
    ):
        difference = float(np.abs(exact - rounded).max()) / _rms(exact)
        checks.append(Check(f"float32 {what} against float64", difference, PRECISION, "of rms"))
    checks += [Check(n, e, 0.0, "wrong answers of 2") for n, e in range_errors(precise, motion).items()]
    return checks
