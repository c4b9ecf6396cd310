"""A structure as a model takes it, and what several checks ask of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from equistride.artifact.model import Model, Outputs
from equistride.artifact.reference import reference_structure

Array = NDArray[np.float64]


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


def read_structure(like: Path | Atoms | None, model: Model) -> Structure:
    """Return a structure, of a file that ASE reads it; the artifact's reference frame where there is none."""
    if like is None:
        frame = reference_structure(len(model.metadata.species), model.metadata.cutoff, counts=model.metadata.counts)
        positions, kinds, lattice = (array.numpy() for array in frame)
        return Structure(positions, kinds, lattice, np.ones(3, bool))
    if isinstance(like, Atoms):
        return structure_of(like, model)
    from equistride.data.structures import leave_out_system, read_atoms

    atoms = read_atoms(like)
    leave_out_system(atoms, like)
    return structure_of(atoms, model)


def structure_of(atoms: Atoms, model: Model) -> Structure:
    """Return ASE's atoms as a model takes them."""
    species = model.species_index(atoms.get_chemical_symbols()).numpy()
    return Structure(atoms.positions, species, atoms.cell.array, np.asarray(atoms.pbc))


def total_energy(outputs: Outputs) -> float:
    """Return the total energy in eV."""
    return float(outputs.atomic_energies.double().sum())


def scale_of(forces: Array, floor: float) -> float:
    """Return the rms of forces [N, 3] (eV/A), with which errors are compared; ``floor`` where it is less."""
    return max(float(np.sqrt(np.mean(forces**2))), floor)


def force_deviations(
    model: Model, structure: Structure, samples: int = 12, step: float = 1e-3, floor: float = 1e-12
) -> Array:
    """Return deviations [K] of forces from finite differences, relative to the rms force or ``floor`` [eV/A].

    Fourth-order central differences of the energy along single coordinates, at most ``samples`` of them, evenly spread, with
    points ``step`` [A] apart.
    """
    forces = structure.evaluate(model).forces.double().cpu().numpy()
    flat = np.unique(np.linspace(0, forces.size - 1, min(samples, forces.size)).astype(int))
    deviations = []
    for k in flat:

        def energy(h: float, k: int = int(k)) -> float:
            moved = structure.positions.copy()
            moved.ravel()[k] += h
            return total_energy(structure.evaluate(model, positions=moved))

        slope = (8 * (energy(step) - energy(-step)) - (energy(2 * step) - energy(-2 * step))) / (12 * step)
        deviations.append(abs(-slope - forces.ravel()[k]))
    return np.array(deviations) / scale_of(forces, floor)
