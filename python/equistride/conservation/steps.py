"""Time steps that suit a system: its fastest vibration is found by a few forces, and a step is a share of it."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from numpy.typing import NDArray

from equistride.units import ACCELERATION

Array = NDArray[np.float64]
LONGEST = 2.0
"""fs: the longest step of the scaling runs, for slow systems too."""
SHARE = 0.55
"""Largest angle, in radians, by which the fastest vibration turns in a step: beyond it the energy error is no longer a power 2 of
the step (velocity Verlet is unstable at 2)."""
EVALUATIONS = 24
DISPLACEMENT = 0.01
"""A."""
WAVENUMBER = 1e15 / (299_792_458 * 100)
"""cm-1 of a vibration with a period of 1 fs."""


def highest_frequency(atoms: Atoms, calculator: Calculator, seed: int = 0) -> float:
    """Return the highest angular frequency of a structure [rad/fs], within about a per cent.

    Lanczos's method on the mass-weighted Hessian, whose products with a vector are differences of forces: two evaluations each.

    Parameters
    ----------
    atoms
        The structure, at rest or near it.
    calculator
        An ASE calculator.
    seed
        Of the first vector.
    """
    weights = np.sqrt(ACCELERATION / atoms.get_masses())[:, None]

    def curvature(vector: Array) -> Array:
        direction = weights * vector.reshape(-1, 3)
        step = DISPLACEMENT / np.abs(direction).max()
        forces = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.set_constraint()
            moved.positions += sign * step * direction
            moved.calc = calculator
            forces.append(moved.get_forces())
        return (weights * (forces[1] - forces[0])).ravel() / (2 * step)

    vector = np.random.default_rng(seed).normal(size=3 * len(atoms))
    basis = [vector / np.linalg.norm(vector)]
    matrix = np.zeros((0, 0))
    for k in range(min(EVALUATIONS // 2, 3 * len(atoms))):
        image = curvature(basis[k])
        matrix = np.pad(matrix, (0, 1))
        matrix[:, k] = matrix[k, :] = [image @ b for b in basis]
        rest = image - np.array(basis).T @ (np.array(basis) @ image)
        size = float(np.linalg.norm(rest))
        if size < 1e-9 * float(np.linalg.norm(image)) or size == 0:
            break
        basis.append(rest / size)
    return float(np.sqrt(max(np.linalg.eigvalsh(matrix)[-1], 0.0)))


def scaling_steps(frequency: float) -> tuple[float, float, float]:
    """Return three time steps [fs], each twice the last, of which the longest follows a vibration of ``frequency`` [rad/fs].

    Halves of 2 fs: 0.5, 1 and 2 fs where no atom is light, 0.125, 0.25 and 0.5 fs for bonds of hydrogen.
    """
    longest = LONGEST
    while longest * frequency > SHARE:
        longest /= 2
    return longest / 4, longest / 2, longest


def too_long(frequency: float, steps: set[float]) -> list[str]:
    """Return a note where a time step [fs] is too long for the fastest vibration [rad/fs]; nothing where none is."""
    if max(steps) * frequency <= SHARE * 1.01:
        return []
    period = 2 * np.pi / frequency
    return [
        f"the fastest vibration has a period of {period:.1f} fs ({WAVENUMBER / period:.0f} cm-1), which {max(steps):g} fs does "
        f"not follow; steps of {SHARE / frequency:.2g} fs or less do"
    ]
