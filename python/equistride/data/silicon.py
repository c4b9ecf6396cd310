"""Silicon in the diamond structure, and reference trajectories of it under Stillinger and Weber's potential."""

from __future__ import annotations

from dataclasses import dataclass

from ase import Atoms
from ase.build import bulk

from equistride.data.recipe import Condition, Recipe
from equistride.errors import EquistrideError

LATTICE = {"Si.sw": 5.431, "Si.tersoff": 5.432}
"""Lattice constant [A] at rest under each potential file of LAMMPS."""


def silicon(repeats: int = 1, *, a: float = 5.431) -> Atoms:
    """Return silicon as ``repeats``^3 of the 8-atom cubic cell with the lattice constant ``a`` [A]."""
    atoms = bulk("Si", "diamond", a=a, cubic=True)
    return atoms.repeat(repeats)


def repeats_for(num_atoms: int) -> int:
    """Return the repeats of the cubic silicon cell with ``num_atoms`` atoms.

    Raises
    ------
    EquistrideError
        Where the number is not 8 n^3.
    """
    repeats = round((num_atoms / 8) ** (1 / 3))
    if repeats < 1 or 8 * repeats**3 != num_atoms:
        raise EquistrideError(
            f"a cubic cell of silicon cannot have {num_atoms} atoms", expected="8 n^3 atoms, for example 64, 216, 512"
        )
    return repeats


@dataclass(frozen=True)
class SiliconRecipe(Recipe):
    """Reference data of silicon, of 8 n^3 atoms.

    The potential is that of Stillinger and Weber, Phys. Rev. B 31, 5262 (1985), as LAMMPS ships it.
    """

    potential_file: str = "Si.sw"

    def ideal(self) -> Atoms:
        """Return the crystal with the lattice constant of the potential."""
        return silicon(repeats_for(self.num_atoms), a=LATTICE.get(self.potential_file, LATTICE["Si.sw"]))


RECIPES = {
    "silicon64": SiliconRecipe(
        64,
        (
            Condition(30.0, 120, 0.01),
            Condition(100.0, 40),
            Condition(300.0, 80),
            Condition(300.0, 140, 0.01),
            Condition(600.0, 60, 0.015),
            Condition(1000.0, 30, 0.01),
        ),
        frames=6,
        stride_fs=50.0,
        seed=64,
    ),
    "silicon64-test": SiliconRecipe(64, (Condition(300.0, 20),), frames=6, stride_fs=50.0, seed=1064),
    "silicon216-test": SiliconRecipe(216, (Condition(300.0, 20),), frames=6, stride_fs=50.0, seed=1216),
}
"""The reference data of the released silicon model, by the name of the file that holds them: strained cells and small
displacements beside thermal ones, for elastic constants and lattice dynamics."""
