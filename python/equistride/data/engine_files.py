"""Trajectories as OpenMM, GROMACS and Amber write them: HDF5, TRR, XTC, DCD, NetCDF."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equistride.data.frames import Frames, load, tell_broken_off
from equistride.data.hdf5 import most_bytes, read_arrays
from equistride.data.structures import read_kinds
from equistride.elements import atomic_numbers_of, masses_of, missing_element
from equistride.errors import EquistrideError
from equistride.units import ANGSTROM_PER_NM, EV_PER_KJ_MOL, FS_PER_PS

Floats = NDArray[np.float64]
Topology = Path | Sequence[str] | None
Kinds = tuple[NDArray[np.int64], Floats | None]
"""Atomic numbers [N] and masses [N] (amu, None for the standard ones)."""
AMBER_VELOCITY = 20.455
"""Amber's unit of velocity is 1/20.455 ps; its files say so as a scale factor."""
DCD_BLOCK = 84
"""Bytes of the first block of a DCD file, its first number: it tells the order of bytes."""
AKMA_TIME_FS = 48.88821
"""CHARMM's unit of time [fs], in which OpenMM writes the time step of a DCD file."""


def read_engine_file(path: Path, topology: Topology, interval_fs: float | None) -> Frames:
    """Read a file of an engine by its ending, one of :data:`READERS`.

    Parameters
    ----------
    path
        The file.
    topology
        Structure file with the elements, or the N symbols; not needed for HDF5.
    interval_fs
        Time between frames of a DCD or XTC file, in place of that in the file.

    Raises
    ------
    EquistrideError
        Where the file does not fit its topology, or does not say what is needed. Damaged files raise what their readers raise.
    """
    return READERS[path.suffix.lower()](path, topology, interval_fs)


def _frames(kinds: Kinds, positions: Any, time: Any, box: Any, velocities: Any = None, forces: Any = None) -> Frames:
    """Return frames of nm, ps and kJ/mol."""
    count, shape = len(positions), np.shape(positions)
    periodic = box is not None and bool((np.abs(np.linalg.det(box)) > 1e-9).all())
    exact = np.asarray(time, np.float64) * FS_PER_PS
    if count > 1:  # single precision in the file: equal steps where the two differ by rounding alone
        even = np.linspace(exact[0], exact[-1], count)
        rounding = 4 * np.finfo(np.float32).eps * np.abs(even).max()
        exact = even if np.abs(even - exact).max() <= rounding else exact
    return Frames(
        numbers=kinds[0],
        masses=kinds[1],
        positions=np.asarray(positions, np.float64) * ANGSTROM_PER_NM,
        cell=np.asarray(box, np.float64) * ANGSTROM_PER_NM if periodic else np.zeros((count, 3, 3)),
        pbc=np.full(3, periodic),
        energy=np.full(count, np.nan),
        forces=np.broadcast_to(np.nan, shape)
        if forces is None
        else np.asarray(forces) * EV_PER_KJ_MOL / ANGSTROM_PER_NM,
        velocities=None if velocities is None else np.asarray(velocities, np.float64) * ANGSTROM_PER_NM / FS_PER_PS,
        time_fs=exact,
    )


def _elements(path: Path, topology: Topology, count: int) -> Kinds:
    """Return the kinds of the atoms of a file with ``count`` atoms that does not tell them itself."""
    if topology is None:
        raise EquistrideError(f"{path.name} holds no elements", hint="give --topology, a structure file of the system")
    if isinstance(topology, Path):
        kinds = _read_topology(topology)
    else:
        kinds = atomic_numbers_of(topology, "the topology"), masses_of(topology, "the topology")
    if len(kinds[0]) != count:
        raise EquistrideError(f"{path.name} does not fit its topology", expected=f"{len(kinds[0])} atoms", found=count)
    return kinds


def _read_topology(file: Path) -> Kinds:
    if not file.is_file():
        raise EquistrideError(f"the topology {file} does not exist", hint="check the path")
    if file.suffix.lower() == ".npz":
        (frames, *_) = load(file, labelled=False)
        return frames.numbers, frames.masses
    return read_kinds(file)


def _all_frames(kind: Any, path: Path) -> list[Any]:
    """Return what mdtraj's ``read`` gives for the whole file, or for the frames before the place where it breaks off."""
    try:
        with kind(str(path)) as handle:
            return list(handle.read())
    except RuntimeError:
        frames: list[Any] = []
        with kind(str(path)) as handle:
            try:
                while len((one := handle.read(1))[0]):
                    frames.append(one)
            except RuntimeError:
                pass
        if not frames:
            raise
        tell_broken_off(path, len(frames))
        return [np.concatenate(parts) for parts in zip(*frames, strict=True)]


def _box(lengths: Any, angles: Any) -> Floats | None:
    """Return cells [F, 3, 3] of edges [F, 3] and angles [F, 3] in degrees; None where there are none."""
    from mdtraj.utils import lengths_and_angles_to_box_vectors

    if lengths is None or angles is None or np.size(lengths) == 0 or float(np.min(lengths)) <= 0:
        return None
    rows = lengths_and_angles_to_box_vectors(*np.asarray(lengths, float).T, *np.asarray(angles, float).T)
    return np.stack(rows, 1).astype(np.float64)


def _from_hdf5(path: Path, _: Topology, __: float | None) -> Frames:
    arrays, atoms = read_arrays(path)
    for k, (symbol, name) in enumerate(atoms):
        if symbol in ("", "VS"):
            raise missing_element(f"atom {k} of the topology of {path.name}", name)
    symbols = [symbol for symbol, _ in atoms]
    kinds = atomic_numbers_of(symbols, path.name), masses_of(symbols, path.name)
    box = _box(arrays.get("cell_lengths"), arrays.get("cell_angles"))
    return _frames(kinds, arrays["coordinates"], arrays["time"], box, arrays.get("velocities"))


def _from_trr(path: Path, topology: Topology, _: float | None) -> Frames:
    from mdtraj.formats import TRRTrajectoryFile

    positions, time, _step, box, _lambda = _all_frames(TRRTrajectoryFile, path)
    count = len(positions)
    found = {}
    for what in ("velocities", "forces"):  # asking for what the file lacks is an error of the reader
        with TRRTrajectoryFile(str(path)) as handle:
            try:
                found[what] = handle._read(count, None, **{f"get_{what}": True})[5 if what == "velocities" else 6]
            except (RuntimeError, OSError):
                found[what] = None
    kinds = _elements(path, topology, np.shape(positions)[1])
    return _frames(kinds, positions, time, box, found["velocities"], found["forces"])


class _Lengthened(io.BufferedReader):
    """A file that goes on with zeros beyond its end; where such reads began, and their sizes, are noted."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self.beyond: list[tuple[int, int]] = []
        self._most = most_bytes(path)

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:
            return super().read(size)
        if size > self._most:
            raise ValueError(f"it announces {size} bytes in one place, more than it can hold")
        begun, found = self.tell(), super().read(size)
        if len(found) < size:
            self.beyond.append((begun, size))
        return found.ljust(size, b"\0")


def _from_netcdf(path: Path, topology: Topology, _: float | None) -> Frames:
    """Frames are records at the end of the file, all of a size, so that those before a cut are whole."""
    from scipy.io import netcdf_file

    with _Lengthened(path) as source, netcdf_file(source, mmap=False) as data:
        whole = len(data.variables["time"][:])
        if source.beyond:
            (begun, size), *more = source.beyond
            whole = 0 if more or not whole or size % whole else (path.stat().st_size - begun) // (size // whole)
            if whole < 1:
                raise ValueError("the file ends before its first frame does")
            tell_broken_off(path, whole)
        variables = data.variables
        positions = np.array(variables["coordinates"][:whole], np.float64)
        time = np.array(variables["time"][:whole], np.float64)
        velocities = None
        if "velocities" in variables:
            scale = float(getattr(variables["velocities"], "scale_factor", AMBER_VELOCITY))
            velocities = np.array(variables["velocities"][:whole], np.float64) * scale / ANGSTROM_PER_NM
        box = None
        if "cell_lengths" in variables:
            lengths, angles = variables["cell_lengths"][:whole], variables["cell_angles"][:whole]
            box = _box(np.array(lengths) / ANGSTROM_PER_NM, np.array(angles))
    kinds = _elements(path, topology, positions.shape[1])
    return _frames(kinds, positions / ANGSTROM_PER_NM, time, box, velocities)


def _from_dcd(path: Path, topology: Topology, interval_fs: float | None) -> Frames:
    """Positions of float32; mdtraj reads edges and angles, so that a lies along x and b in the xy plane."""
    from mdtraj.formats import DCDTrajectoryFile

    with DCDTrajectoryFile(str(path)) as handle:
        positions, lengths, angles = handle.read()
    kinds = _elements(path, topology, np.shape(positions)[1])
    announced, told = _dcd_header(path)
    if len(positions) < announced:
        tell_broken_off(path, len(positions))
    step = told if interval_fs is None else interval_fs
    if step is None:
        raise EquistrideError(
            f"{path.name} does not tell the time between frames",
            expected="a header that OpenMM wrote",
            hint="give it: --interval-fs, in a report --interval",
        )
    box = None if lengths is None else _box(np.asarray(lengths, float) / ANGSTROM_PER_NM, angles)
    time = np.arange(len(positions)) * (step / FS_PER_PS)
    return _frames(kinds, np.asarray(positions, np.float64) / ANGSTROM_PER_NM, time, box)


def _dcd_header(path: Path) -> tuple[int, float | None]:
    """Return how many frames the header announces, and the time between them [fs] where OpenMM wrote it."""
    with path.open("rb") as handle:
        head = handle.read(276).ljust(276, b"\0")
    order = "<" if struct.unpack_from("<i", head)[0] == DCD_BLOCK else ">"
    frames, _, every = struct.unpack_from(f"{order}3i", head, 8)
    if head[4:8] != b"CORD" or b"OpenMM" not in head[96:]:
        return frames, None
    return frames, float(every * struct.unpack_from(f"{order}f", head, 44)[0] * AKMA_TIME_FS)


def _from_xtc(path: Path, topology: Topology, interval_fs: float | None) -> Frames:
    """Positions are rounded to 0.01 A by the format."""
    from mdtraj.formats import XTCTrajectoryFile

    positions, time, _, box = _all_frames(XTCTrajectoryFile, path)
    kinds = _elements(path, topology, np.shape(positions)[1])
    if interval_fs is not None:
        time = np.arange(len(positions)) * (interval_fs / FS_PER_PS)
    return _frames(kinds, positions, time, box)


READERS: dict[str, Callable[[Path, Topology, float | None], Frames]] = {
    ".h5": _from_hdf5, ".hdf5": _from_hdf5, ".trr": _from_trr, ".nc": _from_netcdf, ".dcd": _from_dcd, ".xtc": _from_xtc,
}  # fmt: skip
"""Readers by the ending of the file."""
LEAPFROG = {".h5": "OpenMM", ".hdf5": "OpenMM", ".trr": "GROMACS", ".nc": "Amber"}
"""Endings of files whose velocities are usually half a time step old."""
