"""The structures that speed is measured on: quartz, water, a molecule, and files of the user's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase import Atoms

from equistride.data.molecules import build
from equistride.data.quartz import quartz, repeats_for
from equistride.data.structures import read_atoms
from equistride.errors import EquistrideError

FAMILIES = ("quartz", "water", "aspirin")
FILE = "file:"
"""Before the path of a structure of the user's."""
QUARTZ = (72, 162, 576, 4374, 34992)
WATER = (192, 648, 5184)
WATER_DENSITY = 0.0334
"""Molecules in a cubic angstrom at 300 K (0.997 g/cm^3)."""
RATTLE = 0.05
"""Displacement of the atoms of a crystal where kernels alone are timed [A], so that no two bonds are equal."""
ASPIRIN = "CC(=O)OC1=CC=CC=C1C(=O)O"


def standard_systems() -> list[str]:
    """Return the names of the systems that ``--test all`` runs."""
    return [*(f"quartz-{n}" for n in QUARTZ), *(f"water-{n}" for n in WATER), "aspirin"]


def split(name: str) -> tuple[str, int | None]:
    """Return family and number of atoms of a system's name; ``("file", None)`` for a structure of the user's.

    Raises
    ------
    EquistrideError
        For a name that is no system's, and for a number of atoms that the family does not have.
    """
    if name.startswith(FILE):
        return "file", None
    family, _, count = name.partition("-")
    if family not in FAMILIES or (family == "aspirin") != (not count) or (count and not count.isdigit()):
        raise EquistrideError(
            f"there is no system {name!r}", expected="quartz-N, water-N (N atoms) or aspirin", hint="see --list"
        )
    if family == "quartz":
        repeats_for(int(count))
    if family == "water" and (int(count) == 0 or int(count) % 3):
        raise EquistrideError(
            f"a box of water cannot have {count} atoms", expected="a multiple of 3 above 0", hint="try water-648"
        )
    return family, int(count) if count else None


def title_of(name: str) -> str:
    """Return what tables call a system: its name, or that of its file."""
    return Path(name.removeprefix(FILE)).name if name.startswith(FILE) else name


def structure(name: str, seed: int = 1) -> Atoms:
    """Return a system: alpha-quartz, molecules of water on a jittered lattice at the liquid's density, aspirin, or a file's.

    Parameters
    ----------
    name
        ``quartz-N``, ``water-N`` with N atoms, ``aspirin`` (21 atoms, no box), or ``file:PATH`` of what ASE reads.
    seed
        Of the orientations of the water molecules, and of aspirin's conformer.
    """
    family, count = split(name)
    if family == "file":
        return _read(Path(name.removeprefix(FILE)))
    rng = np.random.default_rng(seed)
    if family == "quartz":
        return quartz(repeats_for(count or 0))
    if family == "water":
        return _water((count or 0) // 3, rng)
    molecule = build(ASPIRIN, rng)
    return Atoms(molecule.numbers, molecule.positions)


def _read(path: Path) -> Atoms:
    atoms = read_atoms(path)
    if atoms.pbc.any() and not atoms.pbc.all():
        raise EquistrideError(
            f"{path.name} is periodic along some axes alone",
            expected="a box along all three, or none",
            found="".join("FT"[int(axis)] for axis in atoms.pbc),
            hint="give it a box with vacuum, or none",
        )
    return Atoms(atoms.numbers, atoms.positions, cell=atoms.cell if atoms.pbc.all() else None, pbc=atoms.pbc)


def _water(molecules: int, rng: np.random.Generator) -> Atoms:
    """Rigid molecules, turned at random, on the sites of a cubic lattice: a start, no liquid in equilibrium."""
    edge = (molecules / WATER_DENSITY) ** (1 / 3)
    per_edge = int(np.ceil(molecules ** (1 / 3) - 1e-9))
    sites = np.array(np.meshgrid(*[np.arange(per_edge)] * 3, indexing="ij")).reshape(3, -1).T[:, :]
    chosen = np.sort(rng.permutation(len(sites))[:molecules])
    oxygen = (sites[chosen] + 0.5) * edge / per_edge
    half = np.deg2rad(104.52 / 2)
    shape = 0.9572 * np.array([[0.0, 0, 0], [np.sin(half), np.cos(half), 0], [-np.sin(half), np.cos(half), 0]])
    turns = np.linalg.qr(rng.normal(size=(molecules, 3, 3)))[0]
    positions = (oxygen[:, None] + shape @ turns.transpose(0, 2, 1)).reshape(-1, 3)
    return Atoms("OHH" * molecules, positions, cell=np.eye(3) * edge, pbc=True)


def smallest(name: str) -> str:
    """Return the smallest system of the family that still has its density, for what is counted once and scaled."""
    family, _ = split(name)
    return {"quartz": "quartz-72", "water": "water-192"}.get(family, name)
