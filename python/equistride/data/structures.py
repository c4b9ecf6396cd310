"""Structures from files, by ASE: what a file says beyond atoms and cell is used, refused or told, here for every reader."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii
from numpy.typing import NDArray

from equistride.data.labels import CHARGES, SPINS
from equistride.data.molfile import read_molecules
from equistride.data.pdb import CleanPDB, clean_pdb
from equistride.elements import ISOTOPES, missing_element
from equistride.errors import EquistrideError, reading, tell
from equistride.graph import edge_vectors, neighbor_list

_BEYOND = 1000
"""Atomic numbers from here on stand for isotopes while ASE reads a file."""
FORMAL_CHARGES = {".pdb", ".ent", ".sdf", ".mol"}
"""Endings of files whose atoms may have formal charges."""
TOO_NEAR = 0.6
"""Share of the sum of covalent radii below which no two atoms are, at any pressure."""


@contextmanager
def _isotopes_known() -> Iterator[None]:
    """Let ASE's readers take D and T for elements, of numbers that no element has."""
    strangers = {symbol: _BEYOND + k for k, symbol in enumerate(ISOTOPES) if symbol not in atomic_numbers}
    atomic_numbers.update(strangers)
    try:
        yield
    finally:
        for symbol in strangers:
            del atomic_numbers[symbol]


def _as_hydrogen(atoms: Atoms) -> Atoms:
    """Return the atoms with isotopes as hydrogen of their own mass."""
    kinds = atoms.numbers - _BEYOND
    if (kinds >= 0).any():
        atoms.numbers[kinds >= 0] = 1
        masses = atoms.get_masses()
        for k, mass in enumerate(ISOTOPES.values()):
            masses[kinds == k] = mass
        atoms.set_masses(masses)
    return atoms


def read_images(path: Path, form: str | None = None) -> Iterator[Atoms]:
    """Yield the structures of a file, one after the other; deuterium and tritium are hydrogen with their own mass. Formal charges
    of atoms are summed to ``info["charge"]``.

    Parameters
    ----------
    path
        The file.
    form
        ASE's name of its format; by the name and the content of the file where left out.

    Raises
    ------
    EquistrideError
        For what is no element, and as :func:`equistride.data.pdb.clean_pdb`. Damaged files raise what ASE raises.
    """
    import ase.io
    from ase.io.formats import filetype

    if form is None and path.suffix.lower() in (".pdb", ".ent"):
        form = "proteindatabank"
    elif form is None:
        form = filetype(str(path))
    if form in ("sdf", "mol"):
        yield from read_molecules(path)
        return
    _refuse_types(form, path)
    if form == "extxyz":
        _refuse_counts(path)
    pdb = clean_pdb(path) if form == "proteindatabank" else CleanPDB()
    source: Any = io.StringIO("\n".join(pdb.lines)) if form == "proteindatabank" else str(path)
    images, first = ase.io.iread(source, index=":", format=form, do_not_split_by_at_sign=True), 0
    while True:
        try:
            with _isotopes_known():
                atoms = _as_hydrogen(next(images))
        except StopIteration:
            return
        except KeyError as error:
            if len(error.args) == 1 and isinstance(error.args[0], str) and error.args[0] not in atomic_numbers:
                raise EquistrideError(
                    f"{path} has a name that is no element", found=error.args[0], hint="use symbols such as Si"
                ) from None
            raise
        if form == "gromacs" and first == 0:
            _tell_guesses(atoms, path)
        if pdb.isotopes:
            masses = atoms.get_masses()
            for row in range(len(atoms)):
                masses[row] = pdb.isotopes.get(first + row, masses[row])
            atoms.set_masses(masses)
        charges = [charge for row, charge in pdb.charges.items() if first <= row < first + len(atoms)]
        if charges:
            atoms.info["charge"] = sum(charges)
        first += len(atoms)
        yield atoms


def _refuse_counts(path: Path) -> None:
    """Refuse an XYZ file that announces more atoms or columns than it has bytes: ASE's reader would count them all."""
    size = path.stat().st_size
    with path.open("rb") as handle:
        for head in handle:
            if head.lstrip().startswith(b"VEC"):  # lattice vectors after the atoms
                continue
            try:
                count = int(head)
            except ValueError:  # which ASE's reader tells
                return
            columns = [int(number[:20]) for number in re.findall(rb":[SRIL]:(\d+)", handle.readline())]
            for what, number in (("atoms", count), ("columns", max(columns, default=0))):
                if number > size:
                    raise EquistrideError(
                        f"{path} announces {str(number)[:20]} {what}, more than it has bytes",
                        hint="the file is damaged",
                    )
            for _ in islice(handle, max(0, count)):  # ends with the file
                pass


def _refuse_types(form: str, path: Path) -> None:
    """Refuse LAMMPS's files that number their types: readers take type 1 for hydrogen, 2 for helium."""
    with path.open("rb") as handle:
        head = handle.read(4096).decode(errors="replace").splitlines()
    dump = next((line for line in head if line.startswith("ITEM: ATOMS")), "element")
    data = any(line.split()[1:] in (["atoms"], ["atom", "types"]) for line in head[:12])
    if (form.startswith("lammps-dump") and "element" not in dump.split()) or (
        form in ("lammps-data", "runnerdata") and data
    ):
        raise EquistrideError(
            f"{path} is a file of LAMMPS that numbers the types of its atoms and names no elements",
            hint="dump with the column element (dump_modify element), or write the structure as extended XYZ",
        )


def _tell_guesses(atoms: Atoms, path: Path) -> None:
    names = atoms.arrays.get("atomtypes", atoms.symbols)
    pairs = sorted({f"{name} is {symbol}" for name, symbol in zip(names, atoms.symbols, strict=True) if name != symbol})
    if pairs:
        more = f" and {len(pairs) - 8} more" if len(pairs) > 8 else ""
        tell(f"{path} names no elements; they are guessed from the names of the atoms: {', '.join(pairs[:8])}{more}")


def _last(path: Path) -> tuple[Atoms, int]:
    """Return the last structure of a file and their number; refuse a file that holds none, and atoms without an element."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise EquistrideError(f"the structure {path} {what}", expected="a file", hint="check the path")
    atoms, count = Atoms(), 0
    with reading(path, "a structure"):
        for atoms in read_images(path):  # noqa: B007  (the last one is wanted)
            count += 1
    if len(atoms) == 0:
        raise EquistrideError(f"{path} holds no atoms", expected="one atom or more", found="an empty system")
    if (atoms.numbers == 0).any():
        raise missing_element(f"atom {int(np.argmin(atoms.numbers))} of {path}", "X")
    return atoms, count


def read_kinds(path: Path) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return atomic numbers [N] and masses [N] (amu) of the atoms of a structure, whatever its positions and box are."""
    atoms, _ = _last(path)
    return atoms.numbers.astype(np.int64), atoms.get_masses()


def read_atoms(path: str | Path, *, keep_fixed: bool = False, moving: bool = False) -> Atoms:
    """Read one structure (any format that ASE knows): all atoms free, as a model sees them.

    Of a file with several the last is read. Its constraints are taken off, its isotopes are hydrogen with their own mass;
    what nobody uses (velocities, magnetic moments) is told.

    Parameters
    ----------
    path
        The file.
    keep_fixed
        Keep the constraints that the file has (selective dynamics, ``move_mask``).
    moving
        The caller uses velocities.

    Raises
    ------
    EquistrideError
        For missing files, empty systems, atoms without an element, sites that are partly occupied, NaN in positions, and a box
        in which atoms lie upon images of others.
    """
    path = Path(path)
    atoms, count = _last(path)
    if not np.isfinite(atoms.positions).all() or not np.isfinite(atoms.cell.array).all():
        raise EquistrideError(f"{path} has positions or a cell that are not finite", hint="repair the file")
    if count > 1:
        tell(f"{path} holds {count} structures; the last is read")
    if path.suffix.lower() in FORMAL_CHARGES and "charge" in atoms.info:
        charge = atoms.info["charge"]
        tell(f"the formal charges of atoms in {path} sum to {charge:d}, which is taken for the total charge")
    _check_occupancies(atoms, path)
    _check_box(atoms, path)
    if atoms.constraints and not keep_fixed:
        tell(f"{path} fixes {len(fixed_atoms(atoms))} of its {len(atoms)} atoms, wholly or in part; all are free here")
        atoms.set_constraint()
    if atoms.has("initial_magmoms") and atoms.get_initial_magnetic_moments().any():
        tell(f"{path} has magnetic moments, which no model here knows; they are not used")
    if atoms.has("momenta") and atoms.get_momenta().any() and not moving:
        tell(f"{path} has velocities; they are not used")
    return atoms


def leave_out_system(atoms: Atoms, path: Path) -> None:
    """Take the total charge and spin off, and tell, where a verb computes with those of the artifact."""
    given = {key: atoms.info.pop(key) for key in (*CHARGES, *SPINS) if np.size(atoms.info.get(key, ())) == 1}
    said = [f"{key} {value}" for key, value in given.items() if value not in (0, 1 if key in SPINS else 0)]
    if said:
        tell(
            f"{path} says {', '.join(said)}; charge and spin are those of the artifact here (`equistride system` sets them)"
        )


def columns_of(atoms: Atoms, *more: str) -> list[str]:
    """Return the columns of an extended XYZ file that these atoms need: masses where they are not the elements' own, with which
    momenta alone would be read."""
    own = not np.array_equal(atoms.get_masses(), Atoms(atoms.numbers).get_masses())
    return ["symbols", "positions", *more, *(["masses"] if own else [])]


def repeated(atoms: Atoms, repeats: tuple[int, int, int]) -> Atoms:
    """Return a supercell; a total charge is that of a cell, and is multiplied.

    Raises
    ------
    EquistrideError
        For several cells of an open shell: how their spins combine is not known.
    """
    made, cells = atoms.repeat(repeats), int(np.prod(repeats))
    for key in CHARGES:
        if np.size(atoms.info.get(key, ())) == 1:
            made.info[key] = atoms.info[key] * cells
    for key in SPINS:
        if cells > 1 and np.size(atoms.info.get(key, ())) == 1 and atoms.info[key] > 1:
            raise EquistrideError(
                "the spins of the cells of a supercell may combine in several ways", found=f"{key} {atoms.info[key]} in each",
                hint="make a file of the supercell, with its own charge and spin",
            )  # fmt: skip
    return made


def fixed_atoms(atoms: Atoms) -> list[int]:
    """Return the indices of the atoms that constraints hold, wholly or in part."""
    return sorted({int(k) for constraint in atoms.constraints for k in constraint.get_indices()})


def _check_occupancies(atoms: Atoms, path: Path) -> None:
    """Refuse a crystal whose sites are partly occupied: one of its elements on all of them is another crystal."""
    for site in atoms.info.get("occupancy", {}).values():
        if len(site) > 1 or any(abs(share - 1) > 1e-3 for share in site.values()):
            raise EquistrideError(
                f"{path} has sites that are partly occupied or shared by elements",
                expected="one whole atom on each site",
                found=", ".join(f"{symbol} {share:g}" for symbol, share in site.items()),
                hint="make an ordered structure of it, a supercell for instance",
            )


def _check_box(atoms: Atoms, path: Path) -> None:
    """Refuse a box that is none, or too small for its atoms; tell of atoms nearer than they can be."""
    if atoms.pbc.any() and not atoms.cell.array.any():
        tell(f"{path} is periodic by its flags and has no box; it is read without one")
        atoms.pbc = False
    vectors = atoms.cell.array
    lacking = [axis for axis, vector, on in zip("abc", vectors, atoms.pbc, strict=True) if on and not vector.any()]
    if lacking:
        raise EquistrideError(
            f"{path} is periodic along {', '.join(lacking)} and has no lattice vector there",
            hint="give the file its box, or make it open along that axis (pbc F)",
        )
    positions, cell = torch.from_numpy(atoms.positions), torch.from_numpy(vectors * atoms.pbc[:, None])
    reach = TOO_NEAR * 2 * float(covalent_radii[atoms.numbers].max())
    edges, shifts = neighbor_list(positions, cell, torch.from_numpy(atoms.pbc), reach)
    if not edges.size(1):
        return
    radii = torch.from_numpy(covalent_radii[atoms.numbers])
    distance = torch.linalg.vector_norm(edge_vectors(positions, cell, edges, shifts), dim=1)
    near = distance < TOO_NEAR * (radii[edges[0]] + radii[edges[1]])
    through = near & shifts.any(1)
    if bool(through.any()):
        k = int(torch.where(through, distance, torch.inf).argmin())
        i, j = edges[:, k].tolist()
        raise EquistrideError(
            f"the box of {path} is too small for its atoms: atom {i} and an image of atom {j} are "
            f"{float(distance[k]):.2f} A apart",
            expected="a box that holds its atoms",
            found=f"edges of {', '.join(f'{x:.4g}' for x in atoms.cell.lengths())} A",
            hint="give the file its true box, or none",
        )
    if bool(near.any()):
        k = int(torch.where(near, distance, torch.inf).argmin())
        i, j = edges[:, k].tolist()
        tell(
            f"atoms {i} and {j} of {path} are {float(distance[k]):.3f} A apart, nearer than atoms can be; "
            "are its positions in angstrom?"
        )
