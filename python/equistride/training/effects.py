"""Settings that have no effect beside the others, each said in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def without_effect(config: Any) -> Iterator[str]:
    """Yield a sentence for each setting of a configuration that changes nothing, or not what its name says.

    Parameters
    ----------
    config
        Of :mod:`equistride.training.config`, for a potential or a propagator.
    """
    steps, warmup = config.trainer.steps, config.optimiser.warmup_steps
    if warmup >= steps:
        yield (
            f"optimiser.warmup_steps ({warmup}) is not below trainer.steps ({steps}): the learning rate rises to the end and "
            "never reaches optimiser.learning_rate"
        )
    if config.optimiser.amsgrad and config.optimiser.method != "adamw":
        yield "optimiser.amsgrad has no effect with optimiser.method: soap"
    if config.trainer.validate_every > steps and "validate_every" in config.trainer.model_fields_set:
        yield f"trainer.validate_every is above trainer.steps ({steps}): errors are measured at the end alone"
    twice = sorted(set(config.data.files) & set(config.data.test_files))
    if twice:
        yield f"{', '.join(twice)} is trained on and tested on: its test errors say nothing of other data"
    yield from _of_propagator(config) if config.model.architecture == "trajcast" else _of_potential(config)


def _of_potential(config: Any) -> Iterator[str]:
    asked = config.loss.virial > 0 and "virial" in config.loss.model_fields_set
    if asked and config.model.forces == "direct":
        yield "loss.virial has no effect with model.forces: direct, whose forces belong to no virial"
    frames = config.frames
    if frames is None:
        return
    others = sorted(frames.model_fields_set - {"weight"})
    if frames.weight == 0 and others:
        yield f"frames.{', frames.'.join(others)} has no effect with frames.weight: 0"
    elif "noise" in frames.model_fields_set and frames.control != "dens":
        yield f"frames.noise has no effect with frames.control: {frames.control}; it is of control: dens"


def _of_propagator(config: Any) -> Iterator[str]:
    for key, without in (("devices", ("auto", 1)), ("bfloat16", (False,))):
        if getattr(config.trainer, key) not in without:
            yield f"trainer.{key} has no effect on a propagator, which trains on one device in trainer.precision"
    late = [stage.from_step for stage in config.curriculum if stage.from_step >= config.trainer.steps]
    if late:
        yield f"the stage of the curriculum from step {late[0]} is never reached in trainer.steps ({config.trainer.steps})"
