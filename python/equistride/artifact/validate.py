"""Is an artifact right? Finite differences, symmetries and precision, on any structure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from equistride.artifact.model import Model, Outputs, load
from equistride.artifact.reference import reference_structure

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Check:
    """One check: its name, the error found, the bound, and what the error is measured in."""

    name: str
    error: float
    bound: float
    unit: str

    @property
    def passed(self) -> bool:
        """Whether the error is a number within the bound."""
        return bool(self.error <= self.bound)


@dataclass(frozen=True)
class Structure:
    """Positions [N, 3] A, species index [N], cell [3, 3] A, pbc [3]."""

    positions: Array
    species: NDArray[np.int64]
    cell: Array
    pbc: NDArray[np.bool_]

    def evaluate(self, model: Model, positions: Array | None = None, cell: Array | None = None) -> Outputs:
        """Evaluate the model on this structure, with other positions or another cell where given."""
        return model.compute(
            self.positions if positions is None else positions,
            self.species,
            self.cell if cell is None else cell,
            self.pbc,
        )


def read_structure(path: Path | None, model: Model) -> Structure:
    """Read a structure with ASE, or take the artifact's reference frame where there is no path."""
    if path is None:
        frame = reference_structure(len(model.metadata.species), model.metadata.cutoff)
        positions, kinds, lattice = (array.numpy() for array in frame)
        return Structure(positions, kinds, lattice, np.ones(3, bool))
    from equistride.data.structures import read_atoms

    atoms = read_atoms(path)
    species = model.species_index(atoms.get_chemical_symbols()).numpy()
    return Structure(atoms.positions, species, atoms.cell.array, np.asarray(atoms.pbc))


def _energy(outputs: Outputs) -> float:
    return float(outputs.atomic_energies.double().sum())


def force_error(model: Model, structure: Structure, samples: int = 12, step: float = 1e-3) -> float:
    """Return the largest deviation of forces from finite differences, relative to the rms force.

    Fourth-order central differences of the energy along single coordinates, ``samples`` of them, evenly spread.
    """
    forces = structure.evaluate(model).forces.double().numpy()
    flat = np.unique(np.linspace(0, forces.size - 1, min(samples, forces.size)).astype(int))
    worst = 0.0
    for k in flat:

        def energy(h: float, k: int = int(k)) -> float:
            moved = structure.positions.copy()
            moved.ravel()[k] += h
            return _energy(structure.evaluate(model, positions=moved))

        slope = (8 * (energy(step) - energy(-step)) - (energy(2 * step) - energy(-2 * step))) / (12 * step)
        worst = max(worst, abs(-slope - forces.ravel()[k]))
    return worst / max(float(np.sqrt(np.mean(forces**2))), 1e-12)


def virial_error(model: Model, structure: Structure, step: float = 2e-4) -> float:
    """Return the largest deviation of the virial from -dE/d(strain), relative to its largest component."""
    virial = structure.evaluate(model).virial.double().numpy()
    numeric = np.zeros((3, 3))
    for a in range(3):
        for b in range(a, 3):

            def energy(h: float, a: int = a, b: int = b) -> float:
                strain = np.eye(3)
                strain[a, b] += h / 2
                strain[b, a] += h / 2
                return _energy(structure.evaluate(model, structure.positions @ strain, structure.cell @ strain))

            slope = (8 * (energy(step) - energy(-step)) - (energy(2 * step) - energy(-2 * step))) / (12 * step)
            numeric[a, b] = numeric[b, a] = -slope
    return float(np.abs(numeric - virial).max() / max(np.abs(virial).max(), 1e-12))


def _rotation(seed: int, improper: bool) -> Array:
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return -q if (np.linalg.det(q) < 0) != improper else q


def symmetry_errors(model: Model, structure: Structure) -> dict[str, float]:
    """Return deviations under rotation, reflection, reordering and lattice translation.

    Energies relative to max(1, |E|), forces to their rms; the larger of the two.
    """
    base = structure.evaluate(model)
    energy, forces = _energy(base), base.forces.double().numpy()
    rms = max(float(np.sqrt(np.mean(forces**2))), 1e-12)

    def deviation(outputs: Outputs, expected: Array) -> float:
        of_energy = abs(_energy(outputs) - energy) / max(1.0, abs(energy))
        return max(of_energy, float(np.abs(outputs.forces.double().numpy() - expected).max()) / rms)

    result = {}
    for name, improper in (("rotation", False), ("reflection", True)):
        q = _rotation(7, improper)
        result[name] = deviation(structure.evaluate(model, structure.positions @ q, structure.cell @ q), forces @ q)
    order = np.random.default_rng(11).permutation(len(structure.species))
    shuffled = model.compute(structure.positions[order], structure.species[order], structure.cell, structure.pbc)
    result["reordering of atoms"] = deviation(shuffled, forces[order])
    if structure.pbc.any():
        whole = np.random.default_rng(13).integers(-2, 3, size=(len(order), 3)) * structure.pbc
        result["lattice translations"] = deviation(
            structure.evaluate(model, structure.positions + whole @ structure.cell), forces
        )
    return result


def validate(path: Path, structure_path: Path | None = None) -> list[Check]:
    """Check an artifact of kind potential; loading it has already run its reference frame.

    Parameters
    ----------
    path
        The artifact.
    structure_path
        A structure that ASE can read; the artifact's reference frame where there is none.

    Returns
    -------
    list of Check
        Finite differences of forces and virial (in float64), symmetries (in float64), float32 against float64.
    """
    precise = load(path, dtype=torch.float64)
    structure = read_structure(structure_path, precise)
    checks = [
        Check("forces against finite differences", force_error(precise, structure), 1e-6, "of rms force"),
        Check("virial against strain derivative", virial_error(precise, structure), 1e-6, "of largest component"),
    ]
    checks += [Check(f"invariance: {n}", e, 1e-10, "relative") for n, e in symmetry_errors(precise, structure).items()]
    single = load(path, dtype=torch.float32)
    exact, rounded = structure.evaluate(precise), structure.evaluate(single)
    rms = exact.forces.square().mean().sqrt().item()
    difference = (exact.forces - rounded.forces.double()).abs().max().item() / max(rms, 1e-12)
    checks.append(Check("float32 forces against float64", difference, 1e-4, "of rms force"))
    per_atom = abs(_energy(exact) - _energy(rounded)) / len(structure.species)
    checks.append(Check("float32 energy against float64", per_atom, 1e-5, "eV/atom"))
    return checks
