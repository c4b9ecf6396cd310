"""Begin a run with the weights of another: conservative fine-tuning after direct-force pretraining (arXiv 2502.12147, section 4).

The backbone and the energy head are taken over. A head for direct forces is dropped, or begins anew, with the choice of
``model.forces``; neighbour cap and envelope may change too, because they have no weights. An eSEN may have more layers than
before: the new ones come last and add nothing at first, so that a trained network goes on with a longer range.
A propagator goes on from the weights of another with the same sizes, at another stride or with deeper roll-outs; one of several
strides from another of the same strides.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from equistride.artifact.checkpoint import read_checkpoint, unreadable, weights_of
from equistride.artifact.export import PotentialConfig, model_config
from equistride.elements import species_index
from equistride.errors import EquistrideError
from equistride.models.esen import ESEN, ESENConfig
from equistride.models.trajcast import TrajCastConfig

MAY_CHANGE = {"forces", "max_neighbors", "neighbor_slack", "envelope"}
"""Keys of the model that have no weights in the backbone."""
PROPAGATOR_FACTS = ("species", "masses", "rms_displacement", "rms_velocity", "rms_by_element")
"""What a propagator's weights were trained with, and keeps."""


def _check(path: Path, before: dict[str, Any], now: dict[str, Any], may_change: set[str]) -> None:
    """Refuse weights of a model of other sizes."""
    other = [k for k in now if k not in may_change and before.get(k) != now[k]]
    if other:
        raise EquistrideError(
            f"the weights of {path} do not fit the model", expected=", ".join(f"{k} = {before.get(k)}" for k in other),
            found=", ".join(f"{k} = {now[k]}" for k in other), hint="give both runs the same sizes",
        )  # fmt: skip


def _check_species(path: Path, known: list[str], wanted: list[str]) -> None:
    """Refuse weights that do not know an element of the data."""
    species_index(wanted, known, who=f"the model of {path}", hint="pretrain on data with all elements")


def check_masses(whose: Path | str, known: list[float], found: list[float]) -> None:
    """Refuse data whose atoms are lighter or heavier than those that the weights of ``whose`` file or run were trained with."""
    if known != found:
        raise EquistrideError(
            f"the weights of {whose} belong to other masses", expected=", ".join(f"{m:g} amu" for m in known),
            found=", ".join(f"{m:g} amu" for m in found), hint="train on data with the same isotopes",
        )  # fmt: skip


def check_strides(whose: Path | str, earlier: dict[str, Any], strides_fs: list[float]) -> None:
    """Refuse several strides for weights that have learned others; ``earlier`` are their facts."""
    known = [stride["stride_fs"] for stride in earlier.get("strides", [])]
    if known != strides_fs:
        raise EquistrideError(
            f"the weights of {whose} have learned other strides", expected=f"data.stride_fs of {known or 'one number'}",
            found=strides_fs or "one number", hint="begin anew for other strides",
        )  # fmt: skip


def take_over_propagator(
    path: Path, config: TrajCastConfig, species: list[str], strides_fs: list[float]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return an earlier run's facts (with the configuration of its model) and weights, to begin a propagator with.

    Elements, masses, scales, the speeds covered and the mean number of neighbours stay those of the earlier run. Stride, data
    and loss may be others.

    Parameters
    ----------
    path
        Checkpoint of ``equistride train``.
    config
        The new run's model; ``max_speed`` and ``avg_num_neighbors`` may be 0: as before.
    species
        Element symbols of the new run's data.
    strides_fs
        Of the new run, where there are several.

    Raises
    ------
    EquistrideError
        Where the file is not a checkpoint of a propagator, is of a model of other sizes or several strides that are not these,
        or does not know an element.
    """
    content = read_checkpoint(path)
    earlier = content["equistride"]
    before = earlier.get("config", {}).get("model", {})
    if before.get("architecture") != config.architecture:
        raise EquistrideError(f"{path} is not a checkpoint of a propagator", hint="check initialise_from")
    try:  # with the defaults of keys that came later
        before = TrajCastConfig.model_validate(before).model_dump(mode="json")
    except ValidationError as error:
        raise unreadable(path, error) from None
    now = config.model_dump(mode="json")
    _check(path, before, now, {k for k in ("max_speed", "avg_num_neighbors") if not now[k]})
    _check_species(path, earlier["species"], species)
    check_strides(path, earlier, strides_fs)
    facts = {key: earlier[key] for key in PROPAGATOR_FACTS} | ({"strides": earlier["strides"]} if strides_fs else {})
    if "fastest" in earlier:
        facts["fastest"] = earlier["fastest"]
    origin = {"model": before, "provenance": {"initialised_from": earlier.get("provenance", {})}}
    return facts | origin, weights_of(content)


def take_over(path: Path, config: PotentialConfig, facts: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the facts of a new run and the weights to begin it with.

    Elements, scale and reference energies are those of the earlier run, so that the model starts as it was left.

    Parameters
    ----------
    path
        Checkpoint of ``equistride train``.
    config, facts
        The new run's model, and its facts as its own data give them.

    Raises
    ------
    EquistrideError
        Where the file is no checkpoint, is of a model of other sizes, or does not know an element of the data.
    """
    content = read_checkpoint(path)
    earlier = content["equistride"]
    try:
        before = model_config(earlier["config"]["model"]).model_dump()
    except (ValidationError, KeyError, TypeError):
        raise EquistrideError(f"{path} is not a checkpoint of a potential", hint="check initialise_from") from None
    now = config.model_dump()
    silent: dict[str, Tensor] = {}
    if isinstance(config, ESENConfig) and config.num_layers > before.get("num_layers", config.num_layers):
        silent = _silent_layers(config, len(earlier["species"]), before["num_layers"])
    measured = {"avg_num_neighbors"} if now.get("avg_num_neighbors") == 0 else set()
    _check(path, before, now, MAY_CHANGE | measured | ({"num_layers"} if silent else set()))
    _check_species(path, earlier["species"], facts["species"])
    taken = {key: earlier[key] for key in ("species", "scale", "references")} | {key: before[key] for key in measured}
    provenance = facts["provenance"] | {"initialised_from": earlier.get("provenance", {})}
    weights = weights_of(content)
    if getattr(config, "forces", "gradient") == "gradient":
        weights = {k: v for k, v in weights.items() if not k.startswith("network.force_head.")}
    return facts | taken | {"provenance": provenance}, weights | silent


def _silent_layers(config: ESENConfig, num_species: int, first: int) -> dict[str, Tensor]:
    """Return zeros for the last weights of eSEN's layers from ``first`` on: their residual branches then add nothing."""
    silent = re.compile(r"blocks\.(\d+)\.(edgewise\.second|feed_forward\.(?:down|last))\.")
    return {
        f"network.{name}": torch.zeros_like(value)
        for name, value in ESEN(config, num_species).state_dict().items()
        if (found := silent.match(name)) and int(found[1]) >= first
    }
