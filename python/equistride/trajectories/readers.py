"""Trajectories from files: npz, extended XYZ, DCD and XTC."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from equistride.errors import EquistrideError
from equistride.series import Floats
from equistride.trajectories.trajectory import Trajectory
from equistride.units import ANGSTROM_PER_NM, FS_PER_PS

_AKMA_TIME_FS = 48.88821
"""CHARMM's unit of time [fs], in which OpenMM writes the time step of a DCD file."""


def read_trajectory(
    path: str | Path,
    *,
    topology: str | Path | Sequence[str] | None = None,
    interval: float | None = None,
    name: str | None = None,
) -> Trajectory:
    """Read a trajectory by the ending of its name.

    Parameters
    ----------
    path
        ``.npz`` (equistride's keys), ``.xyz`` or ``.extxyz``, ``.dcd`` or ``.xtc``.
    topology
        For DCD and XTC, which hold no elements: a structure file (PDB, CIF, XYZ, ...) or the N symbols.
    interval
        Time between frames [fs]; needed where the file does not tell (extended XYZ without ``time``, DCD not
        from OpenMM).
    name
        What to call it; the file's name without ending otherwise.

    Returns
    -------
    Trajectory

    Raises
    ------
    EquistrideError
        For a file that is missing, unknown, empty or does not fit its topology.
    """
    file = _existing(path)
    label = name or file.stem
    ending = file.suffix.lower()
    if ending == ".npz":
        return read_npz(file, name=label)
    if ending in (".xyz", ".extxyz"):
        return read_extxyz(file, interval=interval, name=label)
    if ending in (".dcd", ".xtc"):
        if topology is None:
            raise EquistrideError(
                f"{file.name} holds no elements",
                expected="a topology",
                found="none",
                hint="pass the PDB file of the system or its symbols",
            )
        read = read_dcd if ending == ".dcd" else read_xtc
        return read(file, topology, interval=interval, name=label)
    raise EquistrideError(
        f"{file.name} is not of a known type",
        expected=".npz, .extxyz, .xyz, .dcd or .xtc",
        found=ending or "no ending",
        hint="convert it, with ASE or mdtraj for instance",
    )


def read_npz(path: str | Path, *, name: str = "trajectory") -> Trajectory:
    """Read equistride's own arrays.

    Keys: positions [F, N, 3] A; numbers or z [N]; cell [3, 3] or [F, 3, 3] A; and where there: velocities
    A/fs, energy [F] eV, temperature [F] K, segment [F], masses [N] amu, time [F] fs, or else stride_fs or
    dt_fs.
    """
    from ase.data import chemical_symbols

    try:
        with np.load(_existing(path), allow_pickle=False) as archive:
            data = {key: archive[key] for key in archive.files}
    except (ValueError, OSError) as error:
        raise EquistrideError(
            f"{Path(path).name} cannot be read as npz",
            found=str(error),
            hint="write it again, without pickles",
        ) from error
    numbers = data.get("numbers", data.get("z"))
    if "positions" not in data or numbers is None:
        raise EquistrideError(
            f"{Path(path).name} lacks arrays",
            expected="positions and numbers",
            found=", ".join(sorted(data)) or "none",
            hint="write them with equistride.trajectories.write_npz",
        )
    frames = len(data["positions"])
    time = next((data[key] for key in ("time", "time_fs") if key in data), None)
    if time is None:
        interval = data.get("stride_fs", data.get("dt_fs"))
        if interval is None:
            raise EquistrideError(
                f"{Path(path).name} does not tell the time between frames",
                expected="time_fs, time, stride_fs or dt_fs",
                hint="add one of them",
            )
        time = np.arange(frames) * float(interval)
    energies = data.get("energy")
    return Trajectory(
        positions=data["positions"],
        symbols=tuple(chemical_symbols[int(n)] for n in numbers),
        time=time,
        cell=data.get("cell", np.zeros((3, 3))),
        velocities=data.get("velocities"),
        energies=None if energies is None else energies.reshape(frames, -1)[:, 0],
        temperature=data.get("temperature"),
        pieces_of=data.get("segment"),
        masses=data.get("masses", np.zeros(0)),
        name=name,
    )


def write_npz(path: str | Path, trajectory: Trajectory) -> Path:
    """Write what :func:`read_npz` reads; returns the path."""
    from ase.data import atomic_numbers

    optional: dict[str, Any] = {
        "velocities": trajectory.velocities,
        "energy": trajectory.energies,
        "temperature": trajectory.temperature,
        "segment": trajectory.pieces_of,
    }
    target = Path(path)
    np.savez_compressed(
        target,
        positions=trajectory.positions,
        numbers=np.array([atomic_numbers[s] for s in trajectory.symbols]),
        masses=trajectory.masses,
        cell=trajectory.cell,
        pbc=np.full(3, trajectory.periodic),
        time=trajectory.time,
        **{key: value for key, value in optional.items() if value is not None},
    )
    return target if target.suffix == ".npz" else target.with_name(target.name + ".npz")


def read_extxyz(path: str | Path, *, interval: float | None = None, name: str = "trajectory") -> Trajectory:
    """Read extended XYZ through ASE; momenta give velocities, ``time`` [fs] in the comment gives the time."""
    import ase.io
    import ase.units

    file = _existing(path)
    try:
        frames: list[Any] = list(ase.io.iread(file, index=":", format="extxyz"))
    except Exception as error:
        raise EquistrideError(
            f"{file.name} cannot be read as extended XYZ",
            found=str(error) or type(error).__name__,
            hint="look at the file",
        ) from error
    if not frames:
        raise EquistrideError(f"{file.name} is empty", expected="one frame or more", found=0, hint="run again")
    symbols = frames[0].get_chemical_symbols()
    for k, atoms in enumerate(frames):
        if atoms.get_chemical_symbols() != symbols:
            raise EquistrideError(
                f"{file.name} mixes systems",
                expected=f"{len(symbols)} atoms in one order",
                found=f"others in frame {k}",
                hint="split the file by system",
            )
    if all("time" in atoms.info for atoms in frames):
        time = np.array([float(atoms.info["time"]) for atoms in frames])
    elif interval is not None:
        time = np.arange(len(frames)) * interval
    else:
        raise EquistrideError(
            f"{file.name} does not tell the time",
            expected="time=... in every comment line, or an interval",
            hint="pass interval (fs)",
        )
    moving = all(atoms.has("momenta") for atoms in frames)
    known = all(atoms.calc is not None and "energy" in atoms.calc.results for atoms in frames)
    return Trajectory(
        positions=np.stack([atoms.positions for atoms in frames]),
        symbols=tuple(symbols),
        time=time,
        cell=np.stack([np.asarray(atoms.cell) * atoms.pbc.any() for atoms in frames]),
        velocities=np.stack([a.get_velocities() * ase.units.fs for a in frames]) if moving else None,
        energies=np.array([a.calc.results["energy"] for a in frames]) if known else None,
        masses=frames[0].get_masses(),
        name=name,
    )


def read_dcd(
    path: str | Path,
    topology: str | Path | Sequence[str],
    *,
    interval: float | None = None,
    name: str = "trajectory",
) -> Trajectory:
    """Read a DCD file through mdtraj (float32, A); the interval comes from the header where OpenMM wrote it.

    mdtraj reads edges and angles, so a cell comes back with a along x and b in the xy plane, as OpenMM has
    it.
    """
    from mdtraj.formats import DCDTrajectoryFile
    from mdtraj.utils import lengths_and_angles_to_box_vectors

    file = _existing(path)
    try:
        with DCDTrajectoryFile(str(file)) as handle:
            positions, lengths, angles = handle.read()
    except (OSError, RuntimeError, ValueError) as error:
        raise EquistrideError(
            f"{file.name} cannot be read as DCD", found=str(error).strip(), hint="write it again"
        ) from error
    cell = np.zeros((3, 3))
    if lengths is not None and len(lengths) and float(np.min(lengths)) > 0.0:
        cell = np.stack(lengths_and_angles_to_box_vectors(*lengths.T, *angles.T), axis=1).astype(np.float64)
    step = interval if interval is not None else _dcd_interval(file)
    if step is None:
        raise EquistrideError(
            f"{file.name} does not tell the time between frames",
            expected="a header that OpenMM wrote",
            found="another program's",
            hint="pass interval (fs)",
        )
    return Trajectory(
        positions=positions,
        symbols=_symbols(topology),
        time=np.arange(len(positions)) * step,
        cell=cell,
        name=name,
    )


def read_xtc(
    path: str | Path,
    topology: str | Path | Sequence[str],
    *,
    interval: float | None = None,
    name: str = "trajectory",
) -> Trajectory:
    """Read an XTC file through mdtraj (rounded to 0.01 A by the format)."""
    from mdtraj.formats import XTCTrajectoryFile

    file = _existing(path)
    try:
        with XTCTrajectoryFile(str(file)) as handle:
            positions, time, _, cell = handle.read()
    except (OSError, RuntimeError, ValueError) as error:
        raise EquistrideError(
            f"{file.name} cannot be read as XTC", found=str(error).strip(), hint="write it again"
        ) from error
    return Trajectory(
        positions=positions.astype(np.float64) * ANGSTROM_PER_NM,
        symbols=_symbols(topology),
        time=np.arange(len(time)) * interval if interval is not None else _regular(time) * FS_PER_PS,
        cell=cell.astype(np.float64) * ANGSTROM_PER_NM,
        name=name,
    )


def _existing(path: str | Path) -> Path:
    file = Path(path)
    if not file.is_file():
        raise EquistrideError(f"there is no file {file}", hint="check the path")
    return file


def _symbols(topology: str | Path | Sequence[str]) -> tuple[str, ...]:
    if not isinstance(topology, str | Path):
        return tuple(topology)
    import ase.io

    file = _existing(topology)
    if file.suffix.lower() == ".npz":
        return read_npz(file).symbols
    try:
        if file.suffix.lower() == ".pdb":
            import mdtraj

            atoms = list(mdtraj.load_topology(str(file)).atoms)
            symbols = tuple(a.element.symbol for a in atoms if a.element is not None)
        else:
            first: Any = ase.io.read(file, index=0)
            symbols = tuple(first.get_chemical_symbols())
    except Exception as error:  # the readers raise what they like on other files
        reason = " ".join(f"{type(error).__name__} {error}".split())
        raise EquistrideError(
            f"{file.name} cannot be read as a topology ({reason})",
            expected="a structure",
            hint="pass the PDB file of the system, for instance",
        ) from error
    if not symbols:
        raise EquistrideError(f"{file.name} holds no atoms", hint="pass the structure of the system")
    return symbols


def _regular(time: Floats) -> Floats:
    """Equal steps in place of float32 ones, where the two differ by rounding alone."""
    exact = np.linspace(float(time[0]), float(time[-1]), len(time)) if len(time) else np.zeros(0)
    rounding = 4.0 * np.finfo(np.float32).eps * float(np.abs(exact).max(initial=0.0))
    return exact if np.abs(exact - time).max(initial=0.0) <= rounding else np.asarray(time, dtype=np.float64)


def _dcd_interval(path: Path) -> float | None:
    """Time between frames [fs] by the header, where OpenMM wrote it."""
    with path.open("rb") as handle:
        head = handle.read(276)
    if len(head) < 276 or head[4:8] != b"CORD" or b"OpenMM" not in head[96:276]:
        return None
    every = struct.unpack_from("<i", head, 16)[0]
    step = struct.unpack_from("<f", head, 44)[0]
    return float(every * step * _AKMA_TIME_FS)
