"""PDB files as ASE can read them: one place for each atom, elements where the format has them, no box that stands for none."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ase.data import atomic_numbers

from equistride.elements import ISOTOPES, element_of, missing_element
from equistride.errors import EquistrideError, tell

_HINT = "write its symbol into columns 77 and 78 of the file"

AMINO_ACIDS = {
    "ALA", "ARG", "ASN", "ASP", "CYS", "GLN", "GLU", "GLY", "HIS", "ILE",
    "LEU", "LYS", "MET", "PHE", "PRO", "SER", "THR", "TRP", "TYR", "VAL",
}  # fmt: skip
WATERS = {"HOH", "WAT", "SOL", "TIP"}


@dataclass
class CleanPDB:
    """The text of a file for ASE's reader; masses [amu] of isotopes and formal charges by the row of the atom, a model after the
    other."""

    lines: list[str] = field(default_factory=list)
    isotopes: dict[int, float] = field(default_factory=dict)
    charges: dict[int, int] = field(default_factory=dict)


def clean_pdb(path: Path) -> CleanPDB:
    """Read a PDB file and tell what is chosen: of alternate locations the fullest, no box for CRYST1 of 1 x 1 x 1 A.

    Raises
    ------
    EquistrideError
        For an atom without an element or with an unknown one: a name alone does not tell calcium from an alpha carbon.
    """
    text = path.read_text(errors="replace").splitlines()
    clean, box, rows, partial, begun = CleanPDB(), "", 0, 0, False
    dropped = set(_other_locations(text))
    for number, line in enumerate(text):
        if line.startswith("CRYST1"):
            box = _box(line, path)
            clean.lines += [box] if box else []
        elif line.startswith("END") and begun:
            clean.lines += ["END", box]  # models share the box, which stands once
            begun = False
        elif not line.startswith(("ATOM", "HETATM", "END")):
            clean.lines.append(line)
        elif begun or not line.startswith("END"):
            if number in dropped:
                continue
            begun = True
            partial += not line[16:17].strip() and 0.0 < _occupancy(line) < 1.0
            symbol = line[76:78].strip().capitalize()
            _check_element(symbol, f"atom {rows} of {path}", line[12:16].strip())
            if symbol in ISOTOPES:
                clean.isotopes[rows] = ISOTOPES[symbol]
            if charge := _formal_charge(line):
                clean.charges[rows] = charge
            residue = line[22:26] if line[22:26].strip().lstrip("-").isdigit() else "   1"  # letters beyond 9999
            clean.lines.append(f"{line[:16]} {line[17:22]}{residue}{line[26:76]:50s}{element_of(symbol):>2s}")
            rows += 1
    if dropped:
        tell(
            f"{path} has atoms at alternate locations; those of the largest occupancy are read, {len(dropped)} others are not"
        )
    if bare := _without_hydrogen(clean.lines):
        tell(
            f"{path} has {bare} and no hydrogen, as crystallographers leave it out; models need all atoms: add them first"
        )
    if partial:
        tell(
            f"{path} has {partial} atoms of an occupancy below 1 without an alternate location; they are read as whole atoms"
        )
    return clean


def _without_hydrogen(lines: list[str]) -> str:
    """Name residues that have hydrogen in matter, where a file has none at all; nothing where it has some."""
    atoms = [line for line in lines if line.startswith(("ATOM", "HETATM"))]
    names = {line[17:20].strip() for line in atoms}
    if any(line[76:78].strip() == "H" for line in atoms):
        return ""
    amino = names & AMINO_ACIDS
    return ", ".join(["amino acids"] * bool(amino) + ["water"] * bool(names & WATERS))


def _check_element(symbol: str, what: str, name: str) -> None:
    if not symbol:
        raise missing_element(what, name, _HINT)
    if element_of(symbol) not in atomic_numbers or symbol == "X":
        raise EquistrideError(f"{what} ({name}) has an element that does not exist", found=symbol, hint=_HINT)


def _box(line: str, path: Path) -> str:
    """Return the line of a box, or nothing where it stands for none."""
    try:
        edges = [float(line[a : a + 9]) for a in (6, 15, 24)]
    except ValueError:
        raise EquistrideError(
            f"{path} has a box that cannot be read", found=line[:54], hint="repair the file"
        ) from None
    if edges in ([1.0] * 3, [0.0] * 3):
        size = " x ".join(f"{edge:g}" for edge in edges)
        tell(f"{path} has the box {size} A, which in PDB files stands for none; it is read without a box")
        return ""
    group = line[55:66].strip()
    if group not in ("", "P 1", "P1", "1"):
        tell(
            f"{path} names the space group {group}, whose copies of its atoms a PDB file does not list; "
            "its box is read with the listed atoms alone"
        )
    return line


def _formal_charge(line: str) -> int:
    """Return the charge in columns 79 and 80, as ``2+``, also as ``+2``; 0 where there is something else."""
    found = re.fullmatch(r"(\d)([+-])|([+-])(\d)", line[78:80])
    return int((found[2] or found[3]) + (found[1] or found[4])) if found else 0


def _occupancy(line: str) -> float:
    try:
        return float(line[54:60])
    except ValueError:
        return 1.0


def _other_locations(text: list[str]) -> Iterator[int]:
    """Yield the numbers of the lines that are not read: of each residue one location is, that of the largest occupancy."""
    residues: dict[tuple[int, str], list[int]] = {}
    model = 0
    for number, line in enumerate(text):
        model += line.startswith("END")
        if line.startswith(("ATOM", "HETATM")) and line[16:17].strip():
            residues.setdefault((model, line[21:27]), []).append(number)
    for numbers in residues.values():
        share: dict[str, list[float]] = {}
        for number in numbers:
            share.setdefault(text[number][16], []).append(_occupancy(text[number]))
        best = max(share, key=lambda letter: sum(share[letter]) / len(share[letter]))
        kept = {(text[n][12:16], text[n][17:21]) for n in numbers if text[n][16] == best}
        residue = {name for _, name in kept}
        for number in numbers:
            atom = (text[number][12:16], text[number][17:21])
            if text[number][16] == best:
                continue
            if atom in kept or atom[1] not in residue:
                yield number
            kept.add(atom)
