"""Corrections: where a student that has learned from the walks alone goes by itself, and what the teacher does from there.

Errors of strides add up, and lead to states that no walk of the teacher visits, of which the student has learned nothing: a run
may stay there, far too hot in some vibrations, without ever failing. The teacher continues from such states, and the student
learns that too (Ross, Gordon, Bagnell, arXiv:1011.0686).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from ase import Atoms

from equistride.artifact.metadata import metadata_of
from equistride.data.frames import Frames, load
from equistride.data.pairs import join
from equistride.distillation.comparison import student_run
from equistride.distillation.crystal import moved
from equistride.distillation.settings import Settings
from equistride.distillation.teacher import Teacher
from equistride.distillation.walks import frames_of, segment
from equistride.simulation import Settings as Simulation
from equistride.trajectories.readers import read_trajectory

HELD = 0.9
"""Share of the speed range of the student that atoms of a correction may reach."""


def made(
    artifact: Path, teacher: Teacher, atoms: Atoms, settings: Settings, stride_fs: float, count: int, apart: int,
    folder: Path, path: Path,
    progress: Callable[[int, int], None],
) -> int:  # fmt: skip
    """Let a student stride, and the teacher go on from ``count`` of its states; return how many segments that gave.

    Parameters
    ----------
    artifact
        The student so far.
    teacher, atoms, settings, stride_fs
        Of the distillation; the student begins at a frame of the training walks, at the first temperature.
    count, apart
        States wanted, of which a student that fails gives fewer, and strides from one to the next.
    folder, path
        Of the student's run, and the file of the segments, which is written where there is one.
    progress
        Told what is done and its total, strides and segments together.
    """
    frames = load(path.with_name("train.npz"))[0]
    assert frames.velocities is not None
    assert frames.temperature_K is not None
    like_first = (frames.temperature_K == frames.temperature_K[0]) & (frames.cell == frames.cell[0]).all((1, 2))
    last = int(np.flatnonzero(like_first)[-1])
    start = moved(atoms, frames.positions[last], frames.velocities[last])
    strides = Simulation(
        time_fs=count * apart * stride_fs, timestep_fs=stride_fs, every=apart, trajectory="extxyz",
        temperature=settings.temperature, seed=settings.seed,
    )  # fmt: skip
    whole = 2 * strides.steps
    student_run(artifact, start, strides, folder, lambda done, _: progress(done, whole))
    table = folder / "trajectory.extxyz"
    if not table.is_file() or not table.stat().st_size:
        return 0
    states = read_trajectory(table)
    dt = settings.step_fs(atoms.get_chemical_symbols())
    student = metadata_of(artifact)
    fastest = HELD * (student.max_speed if student is not None and student.max_speed else np.inf)
    run, parts = teacher.run(atoms, dt), list[Frames]()
    assert states.velocities is not None
    for k in range(states.frames):
        run.place(states.positions[k], states.velocities[k])
        shots = segment(run, stride_fs, dt)
        if max(float(np.linalg.norm(s.velocities, axis=1).max()) for s in shots) < fastest:
            parts.append(
                frames_of(shots, atoms, number=len(parts), stride_fs=stride_fs, temperature=settings.temperature)
            )
        progress(round(strides.steps * (1 + (k + 1) / states.frames)), whole)
    run.close()
    if parts:
        join(parts).save(path)
    return len(parts)
