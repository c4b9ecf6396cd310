"""Isomers of C4H8O2 in motion: reference data in the form of ISO17, made with GFN2-xTB (tblite)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_masses
from ase.units import Bohr, Hartree
from numpy.typing import NDArray

from equistride.data.frames import Frames
from equistride.data.molecules import build, same_bonds
from equistride.errors import EquistrideError
from equistride.units import ACCELERATION, BOLTZMANN

Array = NDArray[np.float64]
ISOMERS = {
    "butanoic-acid": "CCCC(=O)O", "isobutyric-acid": "CC(C)C(=O)O", "ethyl-acetate": "CCOC(=O)C",
    "methyl-propanoate": "COC(=O)CC", "propyl-formate": "CCCOC=O", "isopropyl-formate": "CC(C)OC=O",
    "1,4-dioxane": "C1COCCO1", "1,3-dioxane": "C1COCOC1", "acetoin": "CC(O)C(=O)C",
    "4-hydroxy-2-butanone": "CC(=O)CCO", "1-hydroxy-2-butanone": "CCC(=O)CO", "3-hydroxybutanal": "CC(O)CC=O",
    "2-hydroxybutanal": "CCC(O)C=O", "4-hydroxybutanal": "OCCCC=O", "3-hydroxyoxolane": "OC1CCOC1",
    "2-hydroxyoxolane": "OC1CCCO1", "cyclobutane-1,2-diol": "OC1CCC1O", "2-methyl-1,3-dioxolane": "CC1OCCO1",
    "4-methyl-1,3-dioxolane": "CC1COCO1", "methoxyacetone": "COCC(=O)C", "3-methoxypropanal": "COCCC=O",
    "ethoxyacetaldehyde": "CCOCC=O", "but-2-ene-1,4-diol": "OCC=CCO", "oxetane-3-methanol": "OCC1COC1",
    "glycidyl-methyl-ether": "COCC1CO1", "3-hydroxy-2-methylpropanal": "OCC(C)C=O",
}  # fmt: skip
"""The molecules: name and bonds, in SMILES without hydrogen."""
UNKNOWN = (
    "isopropyl-formate",
    "1,3-dioxane",
    "1-hydroxy-2-butanone",
    "cyclobutane-1,2-diol",
    "ethoxyacetaldehyde",
    "glycidyl-methyl-ether",
)
"""Molecules that no training frame is of."""


class TightBinding:
    """Energy and forces of a molecule under GFN2-xTB, each step from the density of the last.

    Raises
    ------
    EquistrideError
        Where tblite is not installed, or the electrons do not converge.
    """

    def __init__(self, numbers: NDArray[np.int64], positions: Array) -> None:
        os.environ.setdefault(
            "OMP_NUM_THREADS", "1"
        )  # more threads are slower for molecules; read when tblite is loaded
        try:
            from tblite.interface import Calculator
        except ImportError:
            raise EquistrideError(
                "tblite is needed for GFN2-xTB and is not installed", mend="pip install 'equistride[isomers]'"
            ) from None
        self._calculator: Any = Calculator("GFN2-xTB", numbers, positions / Bohr)
        self._calculator.set("verbosity", 0)
        self._last: Any = None

    def __call__(self, positions: Array) -> tuple[float, Array]:
        """Return the energy [eV] and the forces [N, 3] (eV/A)."""
        self._calculator.update(positions / Bohr)
        try:
            self._last = self._calculator.singlepoint(self._last)
        except RuntimeError as error:
            raise EquistrideError(f"GFN2-xTB does not converge ({error})", mend="lower the temperature") from error
        return float(self._last.get("energy")) * Hartree, -np.asarray(self._last.get("gradient")) * (Hartree / Bohr)


def relax(evaluate: TightBinding, positions: Array, steps: int = 500, force: float = 0.05) -> Array:
    """Return positions at which no force component exceeds ``force`` [eV/A], by FIRE (Bitzek et al., PRL 97, 170201)."""
    positions, velocity, dt, mix, downhill = positions.copy(), np.zeros_like(positions), 0.1, 0.1, 0
    for _ in range(steps):
        forces = evaluate(positions)[1]
        if np.abs(forces).max() < force:
            break
        if (forces * velocity).sum() > 0:
            velocity = (1 - mix) * velocity + mix * forces * np.linalg.norm(velocity) / np.linalg.norm(forces)
            downhill += 1
            if downhill > 5:
                dt, mix = min(1.1 * dt, 0.4), 0.99 * mix
        else:
            velocity, dt, mix, downhill = np.zeros_like(velocity), 0.5 * dt, 0.1, 0
        velocity = velocity + dt * forces
        step = dt * velocity
        positions = positions + step * min(1.0, 0.1 / max(1e-12, float(np.abs(step).max())))
    return positions


@dataclass(frozen=True)
class IsomerRecipe:
    """How each molecule's trajectory is made: relaxed, thermalised with Langevin (BAOAB), then followed in NVE, every step kept.

    ``frames`` in one trajectory, ``timestep_fs`` apart; ``test_fraction`` at its end goes to the test frames of known
    molecules, with ``guard`` frames left out before them; ``segment`` frames stay together in training or validation.
    """

    frames: int = 1000
    timestep_fs: float = 1.0
    temperature_K: float = 500.0
    equilibrate_fs: float = 1000.0
    friction_fs: float = 50.0
    test_fraction: float = 0.2
    guard: int = 20
    segment: int = 20
    seed: int = 1


def trajectory(name: str, recipe: IsomerRecipe) -> Frames:
    """Return the trajectory of one isomer: positions, velocities, energies, forces, one frame a step.

    Raises
    ------
    EquistrideError
        Where the name is not known, or a bond breaks on the way.
    """
    if name not in ISOMERS:
        raise EquistrideError(f"there is no isomer {name!r}", expected=", ".join(ISOMERS), found=name)
    rng = np.random.default_rng((recipe.seed, list(ISOMERS).index(name)))
    molecule = build(ISOMERS[name], rng)
    numbers, mass = molecule.numbers, atomic_masses[molecule.numbers][:, None]
    evaluate = TightBinding(numbers, molecule.positions)
    r = relax(evaluate, molecule.positions)
    _check_bonds(name, same_bonds(molecule, r), "relaxing")
    dt, thermal = recipe.timestep_fs, BOLTZMANN * recipe.temperature_K * ACCELERATION
    v = rng.normal(size=r.shape) * np.sqrt(thermal / mass)
    f = evaluate(r)[1]
    decay = np.exp(-dt / recipe.friction_fs)
    for _ in range(round(recipe.equilibrate_fs / dt)):
        v = v + 0.5 * dt * ACCELERATION * f / mass
        r = r + 0.5 * dt * v
        v = decay * v + np.sqrt((1 - decay**2) * thermal / mass) * rng.normal(size=r.shape)
        r = r + 0.5 * dt * v
        f = evaluate(r)[1]
        v = v + 0.5 * dt * ACCELERATION * f / mass
    v = v - (mass * v).sum(0) / mass.sum()
    r = r - (mass * r).sum(0) / mass.sum()
    rows: list[tuple[Array, Array, float, Array]] = []
    energy, f = evaluate(r)
    for step in range(recipe.frames):
        rows.append((r, v, energy, f))
        if step + 1 < recipe.frames:
            v = v + 0.5 * dt * ACCELERATION * f / mass
            r = r + dt * v
            energy, f = evaluate(r)
            v = v + 0.5 * dt * ACCELERATION * f / mass
    _check_bonds(name, same_bonds(molecule, r), "molecular dynamics")
    positions, velocities, energies, forces = (np.array(x) for x in zip(*rows, strict=True))
    kinetic = 0.5 * (mass * velocities**2).sum((1, 2)) / ACCELERATION
    return Frames(
        numbers=numbers, pbc=np.zeros(3, bool), positions=positions, cell=np.zeros((len(rows), 3, 3)), energy=energies,
        forces=forces, velocities=velocities, segment=np.zeros(len(rows), np.int64),
        time_fs=np.arange(len(rows), dtype=float) * dt, total_energy=energies + kinetic,
        temperature_K=2 * kinetic / (3 * (len(numbers) - 1) * BOLTZMANN),
        masses=mass[:, 0].copy(),
    )  # fmt: skip


def _check_bonds(name: str, whole: bool, where: str) -> None:
    if not whole:
        raise EquistrideError(f"{name} has broken a bond in {where}", mend="lower the temperature or take another seed")


def generate(
    folder: Path, recipe: IsomerRecipe, names: Sequence[str] | None = None, progress: Callable[[int, int], None] | None = None
) -> dict[str, Frames]:  # fmt: skip
    """Make the trajectories of the isomers that are not there yet, and from all of them the sets of ISO17's form.

    Each molecule has a file, so that a run that was stopped goes on where it was.

    Returns
    -------
    dict
        ``reference`` (training frames of known molecules), ``test_within`` (later frames of them), ``test_other`` (unknown
        molecules), as written to ``folder``; a set without molecules is left out.
    """
    from equistride.data.frames import load

    names = list(names or ISOMERS)
    parts: dict[str, Frames] = {}
    for k, name in enumerate(names):
        path = folder / "molecules" / f"{name}.npz"
        if not path.is_file():
            trajectory(name, recipe).save(path)
        parts[name] = load(path)[0]
        if len(parts[name]) != recipe.frames:
            raise EquistrideError(
                f"{path} is of another recipe", expected=f"{recipe.frames} frames", found=len(parts[name]),
                mend="choose another folder, or delete the file",
            )  # fmt: skip
        if progress is not None:
            progress(k + 1, len(names))
    sets: dict[str, list[Frames]] = {"reference": [], "test_within": [], "test_other": []}
    first_test = round(recipe.frames * (1 - recipe.test_fraction))
    for name, frames in parts.items():
        if name in UNKNOWN:
            sets["test_other"].append(frames)
        else:
            sets["reference"].append(frames[: max(1, first_test - recipe.guard)])
            sets["test_within"].append(frames[first_test:])
    written = {}
    for title, members in sets.items():
        if members:
            written[title] = _join(members, recipe.segment)
            written[title].save(folder / f"{title}.npz")
    return written


def _join(members: Sequence[Frames], length: int) -> Frames:
    """Join trajectories; a segment is ``length`` frames of one molecule."""
    parts, first = [], 0
    for frames in members:
        segment = first + np.arange(len(frames)) // length
        first = int(segment[-1]) + 1
        parts.append(replace(frames, segment=segment))
    return Frames.concatenate(parts)
