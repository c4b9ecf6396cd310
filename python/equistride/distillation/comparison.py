"""Student beside teacher: runs of both in one ensemble from one start, and what they say."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units

from equistride.data.frames import Frames, load
from equistride.distillation.crystal import moved
from equistride.distillation.settings import Settings
from equistride.distillation.teacher import Teacher
from equistride.distillation.walks import frames_of
from equistride.engines.thermostat import FRICTION_STRIDES
from equistride.errors import EquistrideError
from equistride.simulation import Settings as Simulation
from equistride.simulation import simulate
from equistride.simulation.checkpoint import NAMES, read_checkpoint
from equistride.simulation.settings import FRICTION
from equistride.trajectories.readers import trajectory_of
from equistride.trajectories.thermo import read_state_csv
from equistride.trajectories.trajectory import Trajectory
from equistride.units import FS_PER_PS

PIECE = 100
"""Frames of the teacher's run that are kept together: after a stop no more is done again."""
MOST_FRAMES = 2000
"""Of a student's run that is read frame by frame; what comes after is a run of its own that is kept now and then."""
KEPT = 200
"""Frames of that."""


def start_of(path: Path, atoms: Atoms) -> Atoms:
    """Return the atoms as the last frame of the test walks has them, with velocities."""
    frames = load(path)[0]
    assert frames.velocities is not None
    return moved(atoms, frames.positions[-1], frames.velocities[-1])


def friction_fs(settings: Settings, stride_fs: float) -> float:
    """Return 1 / friction [fs] of the student's thermostat, which the teacher's run has too."""
    return FRICTION_STRIDES * stride_fs if settings.strides_through else FS_PER_PS / FRICTION


def teacher_run(
    teacher: Teacher, start: Atoms, settings: Settings, stride_fs: float, frames: int, folder: Path,
    progress: Callable[[int, int], None],
) -> Trajectory:  # fmt: skip
    """Return ``frames`` of the teacher's Langevin dynamics, a stride apart; pieces that are in the folder are not made again."""
    folder.mkdir(parents=True, exist_ok=True)
    dt = settings.step_fs(start.get_chemical_symbols())
    last, pieces = (start.positions, start.get_velocities() * units.fs), list[Frames]()
    for number, first in enumerate(range(0, frames, PIECE)):
        path, count = folder / f"teacher-{number}.npz", min(PIECE, frames - first)
        if not path.is_file():
            run = teacher.run(start, dt)
            run.place(*last)
            shots = []
            moving = run.langevin(
                settings.temperature, count, round(stride_fs / dt), damping_fs=friction_fs(settings, stride_fs),
                seed=settings.seed + 1000 + number,
            )  # fmt: skip
            for shot in moving:
                shots.append(shot)
                progress(first + len(shots), frames)
            run.close()
            made = frames_of(shots, start, number=0, stride_fs=stride_fs, temperature=settings.temperature)
            time = stride_fs * np.arange(first, first + count, dtype=float)
            replace(made, time_fs=time, temperature_K=None).save(path)
        (found,) = load(path)
        assert found.velocities is not None
        pieces.append(found)
        last = found.positions[-1], found.velocities[-1]
        progress(first + count, frames)
    return trajectory_of(replace(Frames.concatenate(pieces), segment=None), "teacher")


def student_run(
    artifact: Path, start: Atoms, simulation: Simulation, folder: Path, progress: Callable[[int, int], None]
) -> dict[str, Any]:  # fmt: skip
    """Run the student, or go on where it was stopped; return steps made, and what ended it before its time.

    Raises
    ------
    KeyboardInterrupt
        On a stop, after which the folder holds a checkpoint.
    """
    begun = any((folder / name).is_file() for name in NAMES)
    if begun and read_checkpoint(folder).step >= simulation.steps:
        return {"steps": simulation.steps, "failure": ""}
    if folder.is_dir() and not begun:
        shutil.rmtree(folder)

    def show(time: float, *_: Any) -> None:
        progress(round(time / simulation.step_fs), simulation.steps)

    try:
        result = simulate(artifact, start, simulation, folder, resume=begun, report=show)
    except EquistrideError as error:
        table = folder / "state.csv"
        if not table.is_file():  # nothing has moved: this is no instability
            raise
        moved = len(table.read_text().splitlines()) > 1
        time = float(read_state_csv(table).time[-1]) if moved else 0.0
        return {"steps": round(time / simulation.step_fs), "failure": error.what}
    if result.stopped:
        raise KeyboardInterrupt
    return {"steps": result.step, "failure": ""}


def simulations(settings: Settings, stride_fs: float, strides: int, step_fs: float) -> Iterator[tuple[str, Simulation]]:
    """Yield the student's runs by the names of their folders: one that is read frame by frame, and the rest of a long one."""
    every = 1 if settings.strides_through else round(stride_fs / step_fs)
    step = stride_fs if settings.strides_through else step_fs
    bath: dict[str, Any] = {"timestep_fs": step, "temperature": settings.temperature, "seed": settings.seed}
    first = min(strides, MOST_FRAMES)
    yield "rollout", Simulation(time_fs=first * stride_fs, every=every, trajectory="extxyz", **bath)
    if strides > first:
        rest = strides - first
        yield "stability", Simulation(
            time_fs=rest * stride_fs, every=every * max(1, rest // KEPT), trajectory="extxyz", **bath
        )  # fmt: skip
