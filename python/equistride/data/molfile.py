"""Molecules of MDL files (``.mol``, ``.sdf``), V2000: atoms with the isotopes, formal charges and radicals that the file names.

Format: BIOVIA, CTfile Formats (2020). ASE's reader takes the positions and symbols of the first molecule.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms

from equistride.elements import ISOTOPES, atomic_numbers_of, masses_of
from equistride.errors import EquistrideError, tell

_CHARGE_CODES = {1: 3, 2: 2, 3: 1, 4: 0, 5: -1, 6: -2, 7: -3}
"""Charges by the code in the line of an atom; 4 is a doublet radical."""
_UNPAIRED = {0: 0, 1: 0, 2: 1, 3: 2}
"""Unpaired electrons by the code of a radical: singlet, doublet, triplet."""
_HYDROGEN = {2: ISOTOPES["D"], 3: ISOTOPES["T"]}


def read_molecules(path: Path) -> Iterator[Atoms]:
    """Yield the molecules of a file; ``info`` has their charge and spin where the file gives formal charges or radicals.

    Raises
    ------
    EquistrideError
        For V3000, drawings in two dimensions, names that are no elements, and what is cut off.
    """
    for k, record in enumerate(path.read_text(errors="replace").split("$$$$")):
        lines = (record.removeprefix("\n") if k else record).splitlines()
        if any(line.strip() for line in lines):
            yield _molecule(lines, path)


def _molecule(lines: list[str], path: Path) -> Atoms:
    counts = lines[3] if len(lines) > 3 else ""
    if counts.rstrip().endswith("V3000"):
        raise EquistrideError(f"{path} is a V3000 file, which is not read", hint="write it as V2000, PDB or XYZ")
    try:
        number = int(counts[:3])
        rows = lines[4 : 4 + number]
        if len(rows) < number:
            raise ValueError
        positions = np.array([[float(row[a : a + 10]) for a in (0, 10, 20)] for row in rows]).reshape(-1, 3)
        charges, radicals, isotopes = (_pairs(lines[4:], key, number) for key in ("CHG", "RAD", "ISO"))
        codes = [int(row[36:39] or 0) for row in rows]
        shifts = [int(row[34:36] or 0) for row in rows]
    except (ValueError, IndexError):
        raise EquistrideError(
            f"{path} cannot be read as a molecule",
            expected="a whole V2000 table of atoms",
            hint="copy or make it again",
        ) from None
    if lines[1][20:22] == "2D" and number > 2 and not positions[:, 2].any():
        raise EquistrideError(
            f"{path} is a drawing in two dimensions, whose positions are not those of the atoms",
            hint="make a structure in three dimensions of it, as RDKit and Open Babel do",
        )
    symbols = [row[31:34].strip() for row in rows]
    atoms = Atoms(atomic_numbers_of(symbols, str(path)), positions)
    if not charges and not radicals:  # either list overrides all codes of the lines of atoms
        charges = {k: _CHARGE_CODES.get(code, 0) for k, code in enumerate(codes)}
        radicals = {k: 2 for k, code in enumerate(codes) if code == 4}
    if any(charges.values()):
        atoms.info["charge"] = sum(charges.values())
    if unpaired := sum(_UNPAIRED.get(code, 0) for code in radicals.values()):
        atoms.info["spin"] = 1 + unpaired
    masses = masses_of(symbols, str(path))
    isotopes = {k: round(masses[k]) + shift for k, shift in enumerate(shifts) if shift} | isotopes
    for k, mass in isotopes.items():
        masses[k] = _HYDROGEN.get(mass, 1.008) if atoms.numbers[k] == 1 else float(mass)
    if isotopes or set(symbols) & set(ISOTOPES):
        atoms.set_masses(masses)
    if number > 1 and (atoms.numbers == 6).any() and not (atoms.numbers == 1).any():
        tell(f"{path} has carbon and no hydrogen, as drawings leave it out; models need all atoms: add them first")
    return atoms


def _pairs(lines: list[str], key: str, number: int) -> dict[int, int]:
    """Return what the lines ``M  KEY`` say of atoms, by their index; ValueError for none of the ``number`` atoms."""
    found: dict[int, int] = {}
    for line in lines:
        if line.startswith(f"M  {key}"):
            words = [int(word) for word in line[9:].split()]
            found |= {atom - 1: value for atom, value in zip(words[::2], words[1::2], strict=True)}
    if not set(found) <= set(range(number)):
        raise ValueError
    return found
