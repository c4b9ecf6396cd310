"""Reading checkpoints of fairchem-core, without fairchem and without running anything that they bring along.

Two generations are known: the inference checkpoints of version 2 (a pickled ``MLIPInferenceCheckpoint`` with configurations of
OmegaConf) and the training checkpoints of version 1 (a dictionary). :mod:`equistride.importers.foreign` reads both.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from equistride.errors import EquistrideError
from equistride.importers import foreign
from equistride.importers.common import averaged
from equistride.importers.fairchem_config import (
    MODEL_USED,
    MODEL_WITHOUT_EFFECT,
    check_interpolations,
    check_keys,
    kind_of,
    need,
)
from equistride.importers.foreign import Record, plain

MEND = "give an inference checkpoint of fairchem-core 2 or a training checkpoint of fairchem-core 1"


@dataclass
class Normalisation:
    """How energies [eV] follow from the network's: ``rmsd * out + references[Z]`` summed over atoms; the others likewise."""

    rmsd: float = 1.0
    force_rmsd: float | None = None
    stress_rmsd: float | None = None
    references: list[float] = field(default_factory=list)


@dataclass
class Checkpoint:
    """What an import needs of a checkpoint."""

    generation: int
    """Major version of fairchem-core."""
    backbone: dict[str, Any]
    """Keyword arguments of the backbone."""
    state: dict[str, Tensor]
    """Averaged weights where there are any, without ``module.`` in front; they lie in the file until they are read."""
    datasets: dict[str, Normalisation]
    """By dataset; one entry with an empty name where a checkpoint knows none."""
    name: str = ""
    """What it calls itself, as UMA-S-1.2."""
    heads: dict[str, Any] = field(default_factory=dict)
    """Configurations of the output heads by their names; empty where the file has none."""


def _number(value: Any) -> float:
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, Tensor) and value.numel() == 1:
        return float(value)
    if isinstance(value, int | float):
        return float(torch.tensor(value, dtype=torch.float32))  # what fairchem makes of a number in a configuration
    raise EquistrideError("a normaliser is not a number", expected="one number", found=repr(value)[:60])


ROUNDED = {"torch.DoubleTensor": False, "torch.FloatTensor": True, "torch.Tensor": True, "torch.tensor": True}
"""What makes a tensor of numbers in a configuration, and whether it rounds them to float32."""


def _references(value: Any) -> list[float]:
    """Return the energy of each element by its number; none where the checkpoint has none."""
    found: Any = value
    if isinstance(value, Mapping):
        rest = set(value) - {"_target_"}
        if rest == {"element_references"}:
            return _references(value["element_references"])
        if rest == {"_args_"} and value.get("_target_") in ROUNDED and len(value["_args_"]) == 1:
            numbers = _references(value["_args_"][0])
            kind = torch.float32 if ROUNDED[value["_target_"]] else torch.float64
            return torch.tensor(numbers, dtype=torch.float64).to(kind).double().tolist()
        found = ", ".join(f"{key}: {value[key]}" for key in sorted(rest))[:100]
    elif value is None:
        return []
    elif isinstance(value, Tensor):
        return value.flatten().double().tolist()
    elif isinstance(value, list) and value and all(isinstance(item, int | float) for item in value):
        return [float(item) for item in value]
    raise EquistrideError(
        "the checkpoint does not hold the elements' reference energies", expected="a list of numbers", found=found,
        hint="write the numbers into its configuration, and save it again",
    )  # fmt: skip


def _scale(normaliser: Any, quantity: str) -> float:
    """Return the rmsd of a normaliser; a mean of energies would not be extensive."""
    if normaliser is None:
        return 1.0
    names = ("rmsd", "std", "stdev")
    if not isinstance(normaliser, Mapping) or set(normaliser) - {"_target_", "mean", *names}:
        raise EquistrideError(
            f"the checkpoint does not hold the normaliser of its {quantity}", expected="mean and rmsd",
            found=repr(normaliser)[:80], hint="write the numbers into its configuration, and save it again",
        )  # fmt: skip
    mean = _number(normaliser.get("mean") if normaliser.get("mean") is not None else 0.0)
    if mean != 0.0:
        raise EquistrideError(
            f"the {quantity} of the checkpoint have a mean of {mean:g} a structure, which cannot be shared among atoms",
            expected="a mean of 0",
        )
    for key in names:
        if normaliser.get(key) is not None:
            return _number(normaliser[key])
    return 1.0


def _stress_scale(normaliser: Any) -> float:
    """Return the rmsd of stresses; not a number where it is none that a virial could be scaled by."""
    try:
        return _scale(normaliser, "stresses")
    except EquistrideError:
        return math.nan


def _weights(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors by their names in the model, without what wrappers of training and compiling put in front."""
    weights = {}
    for key, value in state.items():
        if isinstance(value, Tensor):
            name = key.replace("_orig_mod.", "")
            while name.startswith("module."):
                name = name.removeprefix("module.")
            weights[name] = value
    return weights


def _sections(model: Any, generation: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the configurations of backbone and heads, which stand in the file themselves and hold no unknown keys."""
    backbone = model.get("backbone") if isinstance(model, Mapping) else None
    if not isinstance(backbone, Mapping):
        found = ", ".join(map(str, model)) if isinstance(model, Mapping) else repr(model)[:40]
        raise EquistrideError(
            "the configuration of the checkpoint's model has no section backbone", expected="backbone and heads",
            found=found or "nothing", hint=MEND,
        )  # fmt: skip
    kind_of(backbone, generation)
    check_keys(model, MODEL_USED | set(MODEL_WITHOUT_EFFECT), "model")
    heads = model.get("heads") or {}
    need(isinstance(heads, Mapping), "the heads of the checkpoint are not known by their names", found=repr(heads)[:40])
    for name, section in (("backbone", backbone), ("heads", heads)):
        check_interpolations(section, name)
    return dict(backbone), dict(heads)


def _second_generation(content: Mapping[str, Any]) -> Checkpoint:
    model, tasks = plain(content["model_config"]), plain(content.get("tasks_config") or [])
    backbone, heads = _sections(model, 2)
    state = _weights(content.get("ema_state_dict") or {})
    state = {key: value for key, value in state.items() if key != "n_averaged"}
    datasets: dict[str, Normalisation] = {}
    for task in tasks.values() if isinstance(tasks, Mapping) else tasks:
        kind = task.get("property")
        if kind not in ("energy", "forces", "stress"):
            continue
        for key in ("datasets", "normalizer", "element_references"):
            check_interpolations(task.get(key), f"{task.get('name') or kind}.{key}")
        normaliser = task.get("normalizer")
        for dataset in task.get("datasets") or [""]:
            facts = datasets.setdefault(dataset, Normalisation())
            if kind == "energy":
                facts.rmsd = _scale(normaliser, "energies")
                facts.references = _references(task.get("element_references"))
            elif kind == "forces":
                facts.force_rmsd = _scale(normaliser, "forces")
            else:
                facts.stress_rmsd = _stress_scale(normaliser)
    return Checkpoint(
        2, backbone, state or _weights(content["model_state_dict"]), datasets or {"": Normalisation()},
        str(model.get("model_id") or ""), heads,
    )  # fmt: skip


def _first_generation(content: Mapping[str, Any]) -> Checkpoint:
    config = plain(content["config"])
    model = config.get("model")
    if not isinstance(model, Mapping):
        model = config.get("model_attributes")
    backbone, heads = _sections(model, 1)
    state = _weights(content["state_dict"])
    ema = content.get("ema")
    if isinstance(ema, Mapping) and ema.get("shadow_params"):
        tables = re.compile(r"(Jd_\d+|offset|balance_degree_weight|expand_index|_grid_mat|coefficient_idx\w*)$")
        names = [name for name in state if not tables.search(name)]
        state = averaged(
            state, names, ema["shadow_params"], "save the model under its averaged weights, without the key 'ema'"
        )
    normalisers, references = content.get("normalizers") or {}, content.get("elementrefs") or {}
    facts = Normalisation()
    for key in ("energy", "target"):
        if key in normalisers:
            facts.rmsd = _scale(normalisers[key], "energies")
    for key in ("forces", "grad_target"):
        if key in normalisers:
            facts.force_rmsd = _scale(normalisers[key], "forces")
    if "stress" in normalisers:
        facts.stress_rmsd = _stress_scale(normalisers["stress"])
    if "energy" in references:
        facts.references = _references(references["energy"])
    return Checkpoint(1, backbone, state, {"": facts}, heads=heads)


def read_checkpoint(path: Path) -> Checkpoint:
    """Return what an import needs of a checkpoint of fairchem-core; no code of it runs.

    Raises
    ------
    EquistrideError
        Where the file is missing, cannot be read, or is of another kind.
    """
    content = foreign.read_file(path, MEND)
    if isinstance(content, Record) and isinstance(content.state, Mapping) and "model_config" in content.state:
        return _second_generation(content.state)
    if isinstance(content, Mapping) and "model_config" in content:
        return _second_generation(content)
    if isinstance(content, Mapping) and "state_dict" in content and "config" in content:
        return _first_generation(content)
    raise EquistrideError(
        f"{path} is not a checkpoint of fairchem-core", expected="a model and its configuration",
        found=foreign.kind_of(content), hint=MEND,
    )  # fmt: skip
