"""Labelled frames of copper by ASE's EMT potential, strained or in one cell, for tests of labels."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator


def copper(count: int, *, strain: float = 0.01, rattle: float = 0.05) -> list[Atoms]:
    """Return frames of 8 atoms with energy, forces and stress (eV/A^3, ASE's sign)."""
    rng = np.random.default_rng(11)
    made = []
    for k in range(count):
        atoms = bulk("Cu", cubic=True).repeat((2, 1, 1))
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain * rng.normal(size=(3, 3))), scale_atoms=True)
        atoms.rattle(rattle, seed=k)
        atoms.calc = EMT()
        found = {name: atoms.calc.get_property(name, atoms) for name in ("energy", "forces", "stress")}
        atoms.calc = SinglePointCalculator(atoms, **found)
        made.append(atoms)
    return made
