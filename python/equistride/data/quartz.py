"""alpha-quartz: the structure, and reference trajectories of it under a published SiO2 potential."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.spacegroup import crystal

from equistride.data.recipe import Condition, Recipe, generate, write
from equistride.errors import EquistrideError

__all__ = ["LATTICE", "MASSES", "RECIPES", "Condition", "QuartzRecipe", "generate", "quartz", "repeats_for", "write"]

MASSES = {"O": 15.999, "Si": 28.085}
"""Standard atomic weights [amu]."""
LATTICE = {"SiO.1990.vashishta": (4.846, 5.316), "SiO.1994.vashishta": (5.06, 5.38)}
"""Equilibrium a, c [A] of alpha-quartz at 300 K under each potential file of LAMMPS."""


def quartz(repeats: tuple[int, int, int] = (1, 1, 1), *, a: float = 4.846, c: float = 5.316) -> Atoms:
    """Return alpha-quartz (P3_221) as ``repeats`` of the 9-atom cell with lattice constants a, c [A].

    Fractional coordinates are those of Levien, Prewitt & Weidner, Am. Mineral. 65, 920 (1980).
    Their origin is moved by 2c/3 to that of the International Tables. The cell is lower triangular:
    (a, 0, 0), (-a/2, a sqrt(3)/2, 0), (0, 0, c).
    """
    atoms = crystal(
        ["Si", "O"],
        [(0.4697, 0.0, 2 / 3), (0.4133, 0.2672, 0.1188 + 2 / 3)],
        spacegroup=154,
        cellpar=[a, a, c, 90, 90, 120],
    )
    atoms.info.clear()
    atoms = atoms.repeat(repeats)
    del atoms.arrays["spacegroup_kinds"]
    return atoms


def repeats_for(num_atoms: int) -> tuple[int, int, int]:
    """Return the repeats (n, n, m) of the most cubic quartz cell with ``num_atoms`` atoms.

    Raises
    ------
    EquistrideError
        Where the number is not 9 n^2 m.
    """
    cells, rest = divmod(num_atoms, 9)
    found = [(n, n, cells // n**2) for n in range(1, 200) if not rest and cells and cells % n**2 == 0]
    if not found:
        raise EquistrideError(
            f"a cell of quartz cannot have {num_atoms} atoms", expected="9 n^2 m atoms, for example 72, 162, 576, 4374"
        )
    return min(found, key=lambda r: abs(np.log(r[0] * 4.85 / (r[2] * 5.32))))


@dataclass(frozen=True)
class QuartzRecipe(Recipe):
    """Reference data of alpha-quartz, of 9 n^2 m atoms."""

    potential_file: str = "SiO.1990.vashishta"
    lattice: tuple[float, float] | None = None
    """a and c [A]; those at 300 K where left out."""

    def ideal(self) -> Atoms:
        """Return the crystal with the lattice constants of the potential."""
        a, c = self.lattice or LATTICE.get(self.potential_file, LATTICE["SiO.1990.vashishta"])
        return quartz(repeats_for(self.num_atoms), a=a, c=c)


RECIPES = {
    "quartz72": QuartzRecipe(
        72,
        (Condition(300.0, 240), Condition(300.0, 60, 0.015), Condition(600.0, 60, 0.01), Condition(900.0, 40, 0.01)),
        seed=72,
    ),
    # larger than the propagator's network reaches through
    "quartz162": QuartzRecipe(162, (Condition(300.0, 140), Condition(200.0, 20), Condition(400.0, 30)), seed=162),
    # from the ideal crystal with twice the kinetic energy, as simulations are begun: states that no equilibrium run visits
    "quartz72-starts": QuartzRecipe(
        72,
        (
            Condition(300.0, 60, 0.004),
            Condition(200.0, 20, 0.004),
            Condition(400.0, 20, 0.004),
            Condition(150.0, 30, 0.004),
        ),
        equilibrate_fs=0.0,
        decorrelate_fs=0.0,
        seed=3072,
    ),
    # strained cells with little thermal motion, which tell the elastic constants
    "quartz72-cold": QuartzRecipe(
        72,
        (Condition(10.0, 40, 0.008), Condition(100.0, 40, 0.012), Condition(300.0, 60, 0.02)),
        frames=8,
        equilibrate_fs=600.0,
        decorrelate_fs=200.0,
        seed=172,
    ),
    "quartz9-cold": QuartzRecipe(
        9,
        (Condition(2.0, 500, 0.01), Condition(60.0, 400, 0.015)),
        frames=3,
        equilibrate_fs=1500.0,
        decorrelate_fs=200.0,
        seed=109,
    ),
    # around the crystal at rest: this teacher's stiffness changes by a tenth within strains of 1 %
    "quartz9-rest": QuartzRecipe(
        9,
        (Condition(2.0, 400, 0.004), Condition(20.0, 200, 0.006)),
        frames=3,
        equilibrate_fs=1500.0,
        decorrelate_fs=200.0,
        lattice=(4.829, 5.309),
        seed=209,
    ),
    "quartz72-test": QuartzRecipe(72, (Condition(300.0, 20),), seed=1072),
    "quartz162-test": QuartzRecipe(162, (Condition(300.0, 20),), seed=1162),
}
"""The reference data of the released quartz models, by the name of the file that holds them."""
