"""How fast teacher and student are here, measured before it is fixed how much they do."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from statistics import median
from typing import Any

import torch
from ase import Atoms

from equistride.distillation.settings import Settings
from equistride.distillation.teacher import Teacher
from equistride.training.config import AnyConfig, PropagatorConfig
from equistride.training.propagator import roll
from equistride.training.task import potential_task, propagator_task

LONG_ENOUGH_S, REPEATS = 0.5, 3
MOST_STEPS = 400
BATCHES = 6
"""Steps of a training that are timed, after two that are not."""


def of_teacher(teacher: Teacher, atoms: Atoms, settings: Settings) -> float:
    """Return the seconds of a time step of the teacher."""
    run = teacher.run(atoms, settings.step_fs(atoms.get_chemical_symbols()))
    try:
        run.thermalise(settings.temperature, 0, damping_fs=100.0, seed=1, fresh=True)
        run.nve(2)
        times, steps = list[float](), 2
        while sum(times) * steps < LONG_ENOUGH_S or len(times) < REPEATS:
            begun = time.perf_counter()
            run.nve(steps)
            times.append((time.perf_counter() - begun) / steps)
            if times[-1] * steps < LONG_ENOUGH_S / REPEATS and steps < MOST_STEPS:
                times, steps = [], 4 * steps
        return median(times)  # other work on the machine stops one of them now and then
    finally:
        run.close()


def of_student(config: AnyConfig, root: Path) -> tuple[float, float]:
    """Return the seconds of a step of the training, of one stride deep, and of one evaluation of a frame without a gradient.

    That of an exported model is at most this.
    """
    torch.set_num_threads(config.trainer.threads)
    strides = isinstance(config, PropagatorConfig)
    task = propagator_task(config, root) if isinstance(config, PropagatorConfig) else potential_task(config, root)
    model: Any = task.module.model
    times, alone = [], []
    batches = iter(task.training)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # there is no trainer that would keep what is logged
        for count in range(2 + BATCHES):
            batch = next(batches, None) or next(batches := iter(task.training))
            begun = time.perf_counter()
            loss: Any = task.module.training_step(batch, count)
            loss.backward()
            times.append(time.perf_counter() - begun)
            task.module.zero_grad()
            if strides:
                begun = time.perf_counter()
                with torch.no_grad():
                    roll(model, batch)
                alone.append((time.perf_counter() - begun) / config.data.batch_size)
    step = median(times[2:])
    return step, median(alone[2:]) if strides else step / 3 / config.data.batch_size
