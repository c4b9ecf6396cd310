"""Trajectories from files and into them, as the data room reads and writes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from equistride.data.frames import Frames
from equistride.data.trajectories import Source, read_motion
from equistride.elements import atomic_numbers_of
from equistride.errors import reading
from equistride.series import Floats
from equistride.trajectories.trajectory import Trajectory


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
        ``.npz`` (equistride's keys), ``.xyz`` or ``.extxyz``, ``.dcd``, ``.xtc``, and the others that
        :func:`equistride.data.trajectories.read_motion` reads.
    topology
        For files that hold no elements, as DCD and XTC: a structure file (PDB, CIF, XYZ, ...) or the N symbols.
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
    file = Path(path)
    where = Path(topology) if isinstance(topology, str) else topology
    with reading(file.name, "a trajectory"):
        return trajectory_of(read_motion(file, Source(topology=where, interval_fs=interval)), name or file.stem)


def write_npz(path: str | Path, trajectory: Trajectory) -> Path:
    """Write the arrays of :class:`equistride.data.frames.Frames`, which :func:`read_trajectory` reads; returns the path."""
    target = Path(path)
    target = target if target.suffix == ".npz" else target.with_name(target.name + ".npz")
    frames_of(trajectory).save(target)
    return target


def trajectory_of(frames: Frames, name: str = "trajectory") -> Trajectory:
    """Return frames with times as a trajectory; energies are kept where every frame has one."""
    return Trajectory(
        positions=frames.positions,
        symbols=tuple(chemical_symbols[z] for z in frames.numbers),
        time=np.zeros(0) if frames.time_fs is None else frames.time_fs,
        cell=frames.cell,
        velocities=frames.velocities,
        energies=None if np.isnan(frames.energy).any() else frames.energy,
        temperature=frames.temperature_K,
        pieces_of=frames.segment,
        masses=np.zeros(0) if frames.masses is None else frames.masses,
        name=name,
    )


def _double(values: Floats | None) -> NDArray[np.float64] | None:
    return None if values is None else np.asarray(values, np.float64)


def frames_of(trajectory: Trajectory) -> Frames:
    """Return a trajectory as frames, without forces."""
    shape = trajectory.positions.shape
    energies = trajectory.energies
    return Frames(
        numbers=atomic_numbers_of(trajectory.symbols, trajectory.name),
        positions=np.asarray(trajectory.positions, np.float64),
        cell=np.array(trajectory.cells, np.float64),
        pbc=np.full(3, trajectory.periodic),
        energy=np.full(shape[0], np.nan) if energies is None else np.asarray(energies, np.float64),
        forces=np.broadcast_to(np.nan, shape),
        velocities=_double(trajectory.velocities),
        segment=trajectory.pieces_of,
        time_fs=_double(trajectory.time),
        temperature_K=_double(trajectory.temperature),
        masses=_double(trajectory.masses),
    )
