"""Trajectories that LAMMPS wrote: text dumps with positions and velocities."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from equistride.data.frames import Frames, tell_broken_off
from equistride.elements import atomic_numbers_of, masses_of
from equistride.errors import EquistrideError
from equistride.units import EV_PER_KCAL_MOL, FS_PER_PS

Floats = NDArray[np.float64]
UNITS = {"metal": (FS_PER_PS, 1.0), "real": (1.0, EV_PER_KCAL_MOL)}
"""LAMMPS's units of time [fs] and energy [eV]; lengths are in angstrom in both."""


@dataclass
class _Frame:
    """One frame as it stands in the file, atoms by their id."""

    step: int
    time: float | None
    units: str | None
    cell: Floats
    periodic: bool
    columns: dict[str, NDArray[np.str_]] = field(default_factory=dict)

    def numbers(self, *names: str) -> Floats | None:
        """Return some columns [N, len(names)], or nothing where one is missing."""
        if not all(name in self.columns for name in names):
            return None
        try:
            return np.stack([self.columns[name].astype(np.float64) for name in names], 1)
        except ValueError as error:
            raise EquistrideError(
                f"the dump has what is no number in {' '.join(names)} of step {self.step}",
                found=error,
                hint="dump it again",
            ) from None


def _cell(label: list[str], rows: list[list[float]]) -> Floats:
    """Return lattice vectors [3, 3] of LAMMPS's box bounds, orthogonal, tilted or general."""
    if "abc" in label:
        return np.array([row[:3] for row in rows])
    bounds = np.array([row[:2] for row in rows])
    xy, xz, yz = (row[2] for row in rows) if len(rows[0]) > 2 else (0.0, 0.0, 0.0)
    low, high = bounds.T.copy()
    low[0] -= min(0.0, xy, xz, xy + xz)
    high[0] -= max(0.0, xy, xz, xy + xz)
    low[1] -= min(0.0, yz)
    high[1] -= max(0.0, yz)
    lengths = high - low
    return np.array([[lengths[0], 0.0, 0.0], [xy, lengths[1], 0.0], [xz, yz, lengths[2]]])


def _frames(handle: TextIO, path: Path) -> Iterator[_Frame]:
    units, time, step, count = None, None, 0, 0
    cell, periodic = np.zeros((3, 3)), False
    begun = False
    for line in handle:
        item = line.strip()
        begun = begun or bool(item)
        if not line.endswith("\n"):
            break
        if item == "ITEM: UNITS":
            units = next(handle).strip()
        elif item == "ITEM: TIME":
            time = float(next(handle))
        elif item == "ITEM: TIMESTEP":
            step = int(next(handle))
        elif item == "ITEM: NUMBER OF ATOMS":
            count = int(next(handle))
        elif item.startswith("ITEM: BOX BOUNDS"):
            label = item.split()[3:]
            flags = [word for word in label if len(word) == 2 and set(word) <= set("pfsm")]
            if not all(flag == "pp" for flag in flags) and any(flag == "pp" for flag in flags):
                raise EquistrideError(
                    f"{path.name} has a box that is open along some axes", expected="pp pp pp, or none", found=item
                )
            periodic = all(flag == "pp" for flag in flags)
            cell = _cell(label, [[float(word) for word in next(handle).split()] for _ in range(3)])
        elif item.startswith("ITEM: ATOMS"):
            names = item.split()[2:]
            rows = [next(handle) for _ in range(count)]
            if rows and not rows[-1].endswith("\n"):
                raise EOFError("the last number may be cut short")
            table = np.array([row.split() for row in rows])
            if "id" not in names:
                raise EquistrideError(
                    f"{path.name} has no atom ids, so atoms cannot be followed", expected="a column id", hint="dump id too"
                )  # fmt: skip
            table = table[np.argsort(table[:, names.index("id")].astype(np.int64), kind="stable")]
            columns = {name: table[:, k] for k, name in enumerate(names)}
            yield _Frame(step, time, units, cell if periodic else np.zeros((3, 3)), periodic, columns)
            begun = False
        elif item:
            raise EquistrideError(
                f"{path.name} is not a text dump of LAMMPS", expected="lines of ITEM: ...", found=repr(item[:40])
            )
    if begun:
        raise EOFError("the file ends within a frame")


def _positions(frame: _Frame, path: Path) -> Floats:
    """Return positions, unwrapped where the file says how."""
    scaled = frame.numbers("xs", "ys", "zs")
    found = frame.numbers("xu", "yu", "zu")
    if found is not None:
        return found
    found = frame.numbers("x", "y", "z")
    if found is None and scaled is not None:
        found = scaled @ frame.cell
    if found is None:
        raise EquistrideError(
            f"{path.name} has no positions", expected="columns x y z, xu yu zu or xs ys zs", found=" ".join(frame.columns)
        )  # fmt: skip
    images = frame.numbers("ix", "iy", "iz")
    return found if images is None else found + images @ frame.cell


def _elements(frame: _Frame, elements: Sequence[str], path: Path) -> list[str]:
    """Return the element of each atom: the column, or its type's."""
    if "element" in frame.columns:
        return [str(symbol) for symbol in frame.columns["element"]]
    if not elements or "type" not in frame.columns:
        raise EquistrideError(
            f"{path.name} does not name the elements", expected="a column element, or the elements of the types",
            found=" ".join(frame.columns), hint="give --elements, for example Si,O for types 1 and 2",
        )  # fmt: skip
    types = frame.columns["type"].astype(np.int64)
    if types.max() > len(elements):
        raise EquistrideError(
            f"{path.name} has more types than elements were given", expected=types.max(), found=len(elements)
        )
    return [elements[t - 1] for t in types]


def read_dump(
    path: Path, *, elements: Sequence[str] = (), units: str | None = None, timestep_fs: float | None = None
) -> Frames:
    """Read a text dump, plain or gzipped; atoms are put in the order of their ids.

    Parameters
    ----------
    path
        Columns: id; x y z, xu yu zu or xs ys zs, with ix iy iz where there are; vx vy vz; and where there are fx fy fz, element
        (or type), mass.
    elements
        Symbols of types 1, 2, ...; not needed where there is a column ``element``.
    units
        ``"metal"`` or ``"real"``; not needed after ``dump_modify units yes``.
    timestep_fs
        Of the run; not needed after ``dump_modify time yes``.

    Returns
    -------
    Frames
        Positions A, velocities A/fs (None where there are none), forces eV/A, time fs, masses amu.

    Raises
    ------
    EquistrideError
        Where units, times, ids or elements are unknown, or the file is damaged.
    """
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as handle:
        frames: list[_Frame] = []
        try:
            frames.extend(_frames(handle, path))
        except EquistrideError:
            raise
        except (StopIteration, RuntimeError, ValueError, IndexError, EOFError, OSError) as error:
            if not frames or not _at_end(handle):
                raise EquistrideError(
                    f"{path.name} is damaged ({type(error).__name__} after {len(frames)} frames)", hint="dump it again"
                ) from None
            tell_broken_off(path, len(frames))
    if not frames:
        raise EquistrideError(f"{path.name} holds no frames")
    first = frames[0]
    name = first.units or units
    if name not in UNITS:
        raise EquistrideError(
            f"the units of {path.name} are not known", expected="metal or real", found=name or "none",
            hint="give --units, or dump with dump_modify units yes",
        )  # fmt: skip
    if units is not None and name != units:
        raise EquistrideError(f"{path.name} is in other units than were given", expected=name, found=units)
    time_unit, energy_unit = UNITS[name]
    symbols = _elements(first, elements, path)
    numbers = atomic_numbers_of(symbols, path.name)
    if any(len(f.columns["id"]) != len(symbols) or _changed(f, first) for f in frames):
        raise EquistrideError(
            f"the atoms of {path.name} change", expected=f"{len(symbols)} atoms with the same ids throughout"
        )
    if all(f.time is not None for f in frames):
        time = np.array([f.time for f in frames], float) * time_unit
    elif timestep_fs is not None:
        time = np.array([f.step for f in frames]) * timestep_fs
    else:
        raise EquistrideError(
            f"{path.name} does not tell the time",
            expected="ITEM: TIME",
            hint="give --timestep-fs, or dump_modify time yes",
        )
    velocities = [f.numbers("vx", "vy", "vz") for f in frames]
    forces = [f.numbers("fx", "fy", "fz") for f in frames]
    mass = first.numbers("mass")
    positions = np.stack([_positions(f, path) for f in frames])
    moving = [v for v in velocities if v is not None]
    return Frames(
        numbers=numbers,
        positions=positions,
        cell=np.stack([f.cell for f in frames]),
        pbc=np.full(3, first.periodic),
        energy=np.full(len(frames), np.nan),
        forces=np.stack([np.full_like(positions[0], np.nan) if f is None else f * energy_unit for f in forces]),
        velocities=np.stack(moving) / time_unit if len(moving) == len(frames) else None,
        time_fs=time,
        masses=masses_of(symbols, path.name) if mass is None else mass[:, 0],
    )


def _at_end(handle: TextIO) -> bool:
    """Tell whether nothing follows; a compressed file that was cut ends with an error."""
    try:
        return not handle.read(1)
    except (EOFError, OSError):
        return True


def _changed(frame: _Frame, first: _Frame) -> bool:
    return not np.array_equal(frame.columns["id"], first.columns["id"])
