"""How much is done in each stage: as it is told, or by a budget and measured speeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from equistride.distillation.network import DEPTH, PARTS
from equistride.distillation.settings import Settings
from equistride.distillation.walks import FRAMES as FRAMES_A_SEGMENT
from equistride.distillation.walks import TEST_WALKS, walk_steps
from equistride.errors import EquistrideError

DATA, COMPARISON, VALIDATION, CORRECTIONS = 0.15, 0.08, 0.12, 0.05
"""Shares of the budget for the walks, the teacher's run that the student is compared with, the student's runs, and what the
teacher does for the corrections."""
RESERVE = 0.08
"""Share that nothing is planned for: exporting, checks, errors during the training."""
WALKS, STEPS, FRAMES, STRIDES, STATES = (4, 60), (50, 50_000), (60, 2000), (100, 10_000), (16, 200)
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


def states_of(settings: Settings, step_s: float, stride_steps: int) -> int:
    """Return from how many states of the student the teacher goes on; as many as there are walks where that is told."""
    if settings.walks is not None:
        return max(STATES[0], 2 * settings.walks)
    parts = sum(part.apart > 0 for part in PARTS)
    return _between(CORRECTIONS * settings.budget / parts / ((FRAMES_A_SEGMENT - 1) * stride_steps * step_s), STATES)


@dataclass(frozen=True)
class Work:
    """What is left after the data.

    Attributes
    ----------
    steps, checkpoint_every
        Of the training.
    frames, strides
        Of the comparison; see :class:`Settings`.
    states
        Of the student, from which the teacher goes on.
    training_s, comparison_s, strides_s
        Seconds that they will take, as far as could be told.
    """

    steps: int
    checkpoint_every: int
    frames: int
    strides: int
    states: int
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
    budget, deep = settings.budget, DEPTH if settings.strides_through else 1.0
    one = stride_s if settings.strides_through else stride_s * stride_steps
    frames = settings.frames or _between(COMPARISON * budget / (step_s * stride_steps), FRAMES)
    strides = settings.strides or _between(VALIDATION * budget / one, STRIDES)
    comparison, moving = frames * stride_steps * step_s, strides * one
    states, correcting = states_of(settings, step_s, stride_steps), 0.0
    if settings.strides_through:
        one_state = (FRAMES_A_SEGMENT - 1) * stride_steps * step_s
        correcting = sum(states * (one_state + part.apart * stride_s) for part in PARTS if part.apart)
    left = budget * (1 - RESERVE) - spent - comparison - moving - correcting
    steps = settings.steps or _between(left / (deep * training_s), STEPS)
    every = _between(CHECKPOINT_S / (deep * training_s), (5, 1000))
    return Work(
        steps,
        every,
        frames,
        strides,
        states,
        round(steps * deep * training_s, 1),
        round(comparison, 1),
        round(moving, 1),
    )
