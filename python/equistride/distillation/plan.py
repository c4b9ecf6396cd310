"""How much is done in each stage: as it is told, or by a budget and measured speeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from equistride.distillation.network import MEAN_ROLLOUT
from equistride.distillation.settings import Settings
from equistride.distillation.walks import TEST_WALKS, walk_steps
from equistride.errors import EquistrideError

DATA, COMPARISON, VALIDATION = 0.15, 0.08, 0.12
"""Shares of the budget for the walks, for the teacher's run that the student is compared with, and for the student's runs."""
RESERVE = 0.08
"""Share that nothing is planned for: exporting, checks, errors during the training."""
WALKS, STEPS, FRAMES, STRIDES = (4, 60), (50, 50_000), (60, 2000), (100, 10_000)
"""Least and most of each, where the budget decides."""
CHECKPOINT_S = 20.0
"""Seconds of training between checkpoints."""


def _between(value: float, bounds: tuple[int, int]) -> int:
    return int(min(max(value, bounds[0]), bounds[1]))


def walks(settings: Settings, step_s: float, stride_steps: int, step_fs: float) -> dict[str, Any]:
    """Return ``walks``, those for training, and the seconds that all will take.

    Parameters
    ----------
    settings
        Of the distillation.
    step_s
        Seconds of a time step of the teacher.
    stride_steps, step_fs
        Time steps of a stride, and their length [fs].

    Raises
    ------
    EquistrideError
        Where the fewest walks alone would take more than half of the budget.
    """
    one = walk_steps(stride_steps, step_fs) * step_s
    count = settings.walks
    if count is None:
        least = (WALKS[0] + TEST_WALKS) * one
        if least > 0.5 * settings.budget:
            raise EquistrideError(
                f"the budget is too short for this teacher, whose time step takes {step_s:.2g} s here",
                expected=f"{2 * least / 60:.0f} min or more", found=f"{settings.budget / 60:.3g} min",
                hint="give a longer --budget, or a smaller --supercell",
            )  # fmt: skip
        count = _between(DATA * settings.budget / one - TEST_WALKS, WALKS)
    return {"walks": count, "expected_s": round((count + TEST_WALKS) * one, 1)}


@dataclass(frozen=True)
class Work:
    """What is left after the data.

    Attributes
    ----------
    steps, checkpoint_every
        Of the training.
    frames, strides
        Of the comparison; see :class:`Settings`.
    training_s, comparison_s, strides_s
        Seconds that they will take, as far as could be told.
    """

    steps: int
    checkpoint_every: int
    frames: int
    strides: int
    training_s: float
    comparison_s: float
    strides_s: float


def work(
    settings: Settings, spent: float, step_s: float, stride_steps: int, training_s: float, stride_s: float
) -> Work:  # fmt: skip
    """Return the work that a budget leaves room for.

    Parameters
    ----------
    settings
        Of the distillation.
    spent
        Seconds that were used.
    step_s, stride_steps
        Seconds of a time step of the teacher, and time steps of a stride.
    training_s, stride_s
        Seconds of a step of the training of one stride, and of one stride (of a potential: one evaluation).
    """
    budget, deep = settings.budget, MEAN_ROLLOUT if settings.strides_through else 1.0
    one = stride_s if settings.strides_through else stride_s * stride_steps
    frames = settings.frames or _between(COMPARISON * budget / (step_s * stride_steps), FRAMES)
    strides = settings.strides or _between(VALIDATION * budget / one, STRIDES)
    comparison, moving = frames * stride_steps * step_s, strides * one
    left = budget * (1 - RESERVE) - spent - comparison - moving
    steps = settings.steps or _between(left / (deep * training_s), STEPS)
    every = _between(CHECKPOINT_S / (deep * training_s), (5, 1000))
    return Work(
        steps, every, frames, strides, round(steps * deep * training_s, 1), round(comparison, 1), round(moving, 1)
    )
