"""Structures from files, by ASE, with errors that a user can read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase import Atoms

from equistride.errors import EquistrideError


def read_atoms(path: str | Path) -> Atoms:
    """Read one structure (any format that ASE knows); refuses missing files, empty systems and NaN positions."""
    import ase.io

    path = Path(path)
    if not path.is_file():
        raise EquistrideError(f"the structure {path} does not exist")
    try:
        atoms = ase.io.read(path)
    except Exception as error:  # ASE's readers raise what they like on damaged files
        raise EquistrideError(f"{path} cannot be read as a structure ({type(error).__name__}: {error})") from error
    if isinstance(atoms, list) or len(atoms) == 0:
        raise EquistrideError(f"{path} holds no atoms", expected="one atom or more", found="an empty system")
    if not np.isfinite(atoms.positions).all():
        raise EquistrideError(f"{path} has positions that are not finite", hint="repair the file")
    return atoms
