"""The system that is distilled: a structure that is checked, relaxed under the teacher, and repeated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.io import write
from numpy.typing import NDArray

from equistride.data import structures
from equistride.data.structures import columns_of, read_atoms
from equistride.distillation.settings import Settings
from equistride.distillation.teacher import Teacher
from equistride.engines.nve import standard
from equistride.errors import EquistrideError, tell
from equistride.properties.lattice import supercell_for
from equistride.properties.relax import Progress, relax, require_free
from equistride.writing import whole_file

Array = NDArray[np.float64]
LARGEST_FORCE = 1e-3
"""eV/A, where a relaxation ends."""
MOST_STEPS = 1000
"""Of a relaxation."""


def check(atoms: Atoms, teacher: Teacher) -> None:
    """Refuse a structure that cannot be distilled.

    Raises
    ------
    EquistrideError
        For atoms that are held, a box along some axes alone, a missing cell, a single atom without a box, and what the teacher
        does not take.
    """
    require_free(atoms, "a distillation")
    if atoms.pbc.any() and not atoms.pbc.all():
        raise EquistrideError(
            "a distillation needs a box along all three axes or none", found=f"pbc = {atoms.pbc.tolist()}",
            hint="give the open axes a cell that leaves room, and mark them periodic",
        )  # fmt: skip
    if atoms.pbc.all() and atoms.cell.rank < 3:
        raise EquistrideError(
            "a periodic structure needs a cell",
            expected="three lattice vectors",
            found=f"a cell of rank {atoms.cell.rank}",
        )
    if not atoms.pbc.any() and len(atoms) < 2:
        raise EquistrideError("an atom alone has nothing to learn", expected="a crystal, or a molecule")
    teacher.check(atoms)


def relaxed(atoms: Atoms, teacher: Teacher, settings: Settings, path: Path, progress: Progress) -> Atoms:
    """Return the structure at rest under the teacher, its cell lower triangular; kept in ``path``."""
    if path.is_file():
        return read_atoms(path)
    still = atoms.copy()
    still.set_velocities(np.zeros(atoms.positions.shape))
    wanted = settings.relax or ("all" if atoms.pbc.all() else "atoms")
    if wanted == "all" and atoms.pbc.all() and "stress" not in teacher.calculator.implemented_properties:
        tell(f"the teacher {teacher.name} has no stress: the cell stays as it is given")
        wanted = "atoms"
    if wanted != "none":
        still = relax(
            still, teacher.calculator, cell="all" if wanted == "all" else "fixed", max_force=LARGEST_FORCE,
            steps=MOST_STEPS, progress=progress,
        ).atoms  # fmt: skip
    turned = standard(still)
    with whole_file(path) as partial:
        write(partial, turned, format="extxyz", columns=columns_of(turned))
    return relaxed(
        atoms, teacher, settings, path, progress
    )  # with the digits of the file, as a run that goes on has it


def repeated(atoms: Atoms, settings: Settings) -> Atoms:
    """Return the system of the runs: repeats of a crystal, or the molecule."""
    if not atoms.pbc.any():
        return atoms
    return structures.repeated(atoms, settings.supercell or supercell_for(atoms))


def box_of(atoms: Atoms) -> Array:
    """Return the cell [3, 3] A, zeros of what has no box."""
    return np.array(atoms.cell) if atoms.pbc.any() else np.zeros((3, 3))


def moved(atoms: Atoms, positions: Array, velocities: Array) -> Atoms:
    """Return the atoms in another state: positions [N, 3] A, velocities [N, 3] A/fs."""
    found = atoms.copy()
    found.positions = positions
    found.set_velocities(velocities / units.fs)
    return found
