"""Is an artifact right? Finite differences, symmetries and precision, on any structure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray

from equistride.artifact.check import Check, random_rotation
from equistride.artifact.model import Model, Outputs, load
from equistride.artifact.structure import Structure, force_deviations, read_structure, scale_of, total_energy
from equistride.artifact.validate_propagator import propagator_checks

Array = NDArray[np.float64]
LEAST_FORCE = 1.0
"""eV/A: at rest the terms of single bonds, some eV/A each, cancel, and what is left is no scale for their rounding."""


def force_error(model: Model, structure: Structure, samples: int = 12, step: float = 1e-3) -> float:
    """Return the largest deviation of forces from finite differences, relative to the rms force or 1 eV/A."""
    return float(force_deviations(model, structure, samples, step, LEAST_FORCE).max())


def virial_error(model: Model, structure: Structure, step: float = 2e-4) -> float:
    """Return the largest deviation of the virial from -dE/d(strain), relative to its largest component or 1 eV."""
    virial = structure.evaluate(model).virial.double().numpy()
    numeric = np.zeros((3, 3))
    for a in range(3):
        for b in range(a, 3):

            def energy(h: float, a: int = a, b: int = b) -> float:
                strain = np.eye(3)
                strain[a, b] += h / 2
                strain[b, a] += h / 2
                return total_energy(structure.evaluate(model, structure.positions @ strain, structure.cell @ strain))

            slope = (8 * (energy(step) - energy(-step)) - (energy(2 * step) - energy(-2 * step))) / (12 * step)
            numeric[a, b] = numeric[b, a] = -slope
    return float(np.abs(numeric - virial).max() / max(np.abs(virial).max(), 1.0))


def symmetry_errors(model: Model, structure: Structure) -> dict[str, float]:
    """Return deviations under rotation, reflection, reordering and lattice translation.

    Energies relative to max(1, |E|), forces to their rms or 1 eV/A; the larger of the two.
    """
    base = structure.evaluate(model)
    energy, forces = total_energy(base), base.forces.double().numpy()
    rms = scale_of(forces, LEAST_FORCE)

    def deviation(outputs: Outputs, expected: Array) -> float:
        of_energy = abs(total_energy(outputs) - energy) / max(1.0, abs(energy))
        return max(of_energy, float(np.abs(outputs.forces.double().numpy() - expected).max()) / rms)

    result = {}
    for name, improper in (("rotation", False), ("reflection", True)):
        q = random_rotation(7, improper)
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


def validate(path: Path, like: Path | Atoms | None = None) -> list[Check]:
    """Check an artifact; loading it has already run its reference frame.

    Parameters
    ----------
    path
        The artifact.
    like
        A structure of the kind that it knows, or a file of one that ASE can read; the artifact's reference frame where there
        is none.

    Returns
    -------
    list of Check
        Of a potential: finite differences of forces and virial (in float64), symmetries (in float64), float32 against float64.
        Of a propagator: see :func:`equistride.artifact.validate_propagator.propagator_checks`.
    """
    precise = load(path, dtype=torch.float64)
    if precise.metadata.kind == "propagator":
        return propagator_checks(path, precise, like)
    structure = read_structure(like, precise)
    checks = [
        Check("forces against finite differences", force_error(precise, structure), 1e-6, "of rms force, or of 1 eV/A"),
        Check("virial against strain derivative", virial_error(precise, structure), 1e-6, "of largest component"),
    ]
    checks += [Check(f"invariance: {n}", e, 1e-10, "relative") for n, e in symmetry_errors(precise, structure).items()]
    single = load(path, dtype=torch.float32)
    exact, rounded = structure.evaluate(precise), structure.evaluate(single)
    difference = (exact.forces - rounded.forces.double()).abs().max().item() / scale_of(
        exact.forces.numpy(), LEAST_FORCE
    )
    checks.append(Check("float32 forces against float64", difference, 1e-4, "of rms force, or of 1 eV/A"))
    per_atom = abs(total_energy(exact) - total_energy(rounded)) / len(structure.species)
    checks.append(Check("float32 energy against float64", per_atom, 1e-5, "eV/atom"))
    return checks
