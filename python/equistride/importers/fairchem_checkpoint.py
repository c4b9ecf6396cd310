"""Reading checkpoints of fairchem-core, without fairchem and without running anything that they bring along.

Two generations are known: the inference checkpoints of version 2 (a pickled ``MLIPInferenceCheckpoint`` with configurations of
OmegaConf) and the training checkpoints of version 1 (a dictionary). Tensors and plain values are read by torch's own restricted
unpickler; every class and function that it does not know becomes an :class:`Inert` object, which keeps its arguments and
does nothing.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from equistride.errors import EquistrideError

MEND = "give an inference checkpoint of fairchem-core 2 or a training checkpoint of fairchem-core 1"


class Inert:
    """Stands for an object of a foreign class: it keeps what it was given."""

    origin = ""

    def __new__(cls, *_: Any, **__: Any) -> Inert:
        """Make an empty object, whatever the arguments."""
        return super().__new__(cls)

    def __init__(self, *arguments: Any, **__: Any) -> None:
        self.arguments = arguments
        self.state: Any = {}

    def __setstate__(self, state: Any) -> None:
        """Keep the state that the foreign class would have taken."""
        self.arguments = ()
        self.state = state


def _stand_ins(names: Sequence[str]) -> list[Any]:
    """Return pairs of an inert class and the name that it stands for, as torch's allow-list takes them."""
    return [(type("Inert", (Inert,), {"origin": name}), name) for name in names]


def plain(value: Any) -> Any:
    """Return nested plain values: containers of OmegaConf and inert dataclasses become dictionaries and lists."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if not isinstance(value, Inert):
        return value
    state = value.state
    if isinstance(state, tuple):  # (attributes, slots)
        state = {**(state[0] or {}), **(state[1] or {})}
    if not isinstance(state, Mapping):
        return value
    for key in ("_content", "_val"):  # OmegaConf's containers and leaves
        if key in state:
            return plain(state[key])
    return plain(state) if state else value


def read_file(path: Path) -> Any:
    """Return the content of a file written by ``torch.save``; no code of it runs.

    Raises
    ------
    EquistrideError
        Where the file is missing or cannot be read so.
    """
    path = Path(path)
    if not path.is_file():
        raise EquistrideError(f"the checkpoint {path} does not exist", hint=MEND)
    if not zipfile.is_zipfile(path):
        raise EquistrideError(
            f"{path} is truncated or no checkpoint", expected="a zip archive of torch.save", hint=MEND
        )
    try:
        foreign = _stand_ins(torch.serialization.get_unsafe_globals_in_checkpoint(path))
        with torch.serialization.safe_globals(foreign):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, ValueError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise EquistrideError(f"{path} cannot be read as a checkpoint ({reason})", hint=MEND) from None


@dataclass
class Normalisation:
    """How energies [eV] follow from the network's: ``rmsd * out + references[Z]`` summed over atoms; forces likewise."""

    rmsd: float = 1.0
    force_rmsd: float | None = None
    references: list[float] = field(default_factory=list)


@dataclass
class Checkpoint:
    """What an import needs of a checkpoint."""

    generation: int
    """Major version of fairchem-core."""
    backbone: dict[str, Any]
    """Keyword arguments of the backbone."""
    state: dict[str, Tensor]
    """Averaged weights where there are any, without ``module.`` in front."""
    datasets: dict[str, Normalisation]
    """By dataset; one entry with an empty name where a checkpoint knows none."""
    name: str = ""


def _number(value: Any) -> float:
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, Tensor) and value.numel() == 1:
        return float(value)
    if isinstance(value, int | float):
        return float(torch.tensor(value, dtype=torch.float32))  # what fairchem makes of a number in a configuration
    raise EquistrideError("a normaliser is not a number", expected="one number", found=repr(value)[:60])


def _numbers(value: Any) -> list[float]:
    """Return the first list of numbers within nested configuration."""
    if isinstance(value, Tensor):
        return value.flatten().double().tolist()
    if isinstance(value, list) and value and all(isinstance(item, int | float) for item in value):
        return [float(item) for item in value]
    for item in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else []:
        if found := _numbers(item):
            return found
    return []


def _scale(normaliser: Any, quantity: str) -> float:
    """Return the rmsd of a normaliser; a mean of energies would not be extensive."""
    if normaliser is None:
        return 1.0
    mean = _number(normaliser.get("mean") if normaliser.get("mean") is not None else 0.0)
    if mean != 0.0:
        raise EquistrideError(
            f"the {quantity} of the checkpoint have a mean of {mean:g} a structure, which cannot be shared among atoms",
            expected="a mean of 0",
        )
    for key in ("rmsd", "std", "stdev"):
        if normaliser.get(key) is not None:
            return _number(normaliser[key])
    return 1.0


def _weights(state: Mapping[str, Any]) -> dict[str, Tensor]:
    return {re.sub(r"^(module\.)+", "", key): value for key, value in state.items() if isinstance(value, Tensor)}


def _second_generation(content: Mapping[str, Any]) -> Checkpoint:
    model, tasks = plain(content["model_config"]), plain(content.get("tasks_config") or [])
    state = _weights(content.get("ema_state_dict") or {})
    state = {key: value for key, value in state.items() if key != "n_averaged"}
    backbone = dict(model.get("backbone") or {})
    datasets: dict[str, Normalisation] = {}
    for task in tasks.values() if isinstance(tasks, Mapping) else tasks:
        for dataset in task.get("datasets") or [""]:
            facts = datasets.setdefault(dataset, Normalisation())
            if task.get("property") == "energy":
                facts.rmsd = _scale(task.get("normalizer"), "energies")
                facts.references = _numbers(task.get("element_references"))
            elif task.get("property") == "forces":
                facts.force_rmsd = _scale(task.get("normalizer"), "forces")
    return Checkpoint(
        2, backbone, state or _weights(content["model_state_dict"]), datasets or {"": Normalisation()},
        str(model.get("model_id") or ""),
    )  # fmt: skip


def _first_generation(content: Mapping[str, Any]) -> Checkpoint:
    config = plain(content["config"])
    model = config.get("model")
    if not isinstance(model, Mapping):
        model = config.get("model_attributes")
    backbone = model.get("backbone") if isinstance(model, Mapping) else None
    if not isinstance(backbone, Mapping):
        raise EquistrideError(
            "the checkpoint is of a model without a backbone", expected="an eSEN model of fairchem-core 1", hint=MEND
        )
    state = _weights(content["state_dict"])
    ema = content.get("ema")
    if isinstance(ema, Mapping) and ema.get("shadow_params"):
        tables = re.compile(r"(Jd_\d+|offset|balance_degree_weight|expand_index|_grid_mat|coefficient_idx\w*)$")
        names = [name for name in state if not tables.search(name)]
        averages = ema["shadow_params"]
        if len(names) == len(averages) and all(state[n].shape == a.shape for n, a in zip(names, averages, strict=True)):
            state = state | dict(zip(names, averages, strict=True))
        else:
            raise EquistrideError(
                "the averaged weights of the checkpoint do not fit its model", expected=f"{len(names)} tensors",
                found=len(averages), hint="save the model under its averaged weights, without the key 'ema'",
            )  # fmt: skip
    normalisers, references = content.get("normalizers") or {}, content.get("elementrefs") or {}
    facts = Normalisation()
    for key in ("energy", "target"):
        if key in normalisers:
            facts.rmsd = _scale(normalisers[key], "energies")
    for key in ("forces", "grad_target"):
        if key in normalisers:
            facts.force_rmsd = _scale(normalisers[key], "forces")
    if "energy" in references:
        facts.references = _numbers(references["energy"])
    return Checkpoint(1, dict(backbone), state, {"": facts})


def read_checkpoint(path: Path) -> Checkpoint:
    """Return what an import needs of a checkpoint of fairchem-core; no code of it runs.

    Raises
    ------
    EquistrideError
        Where the file is missing, cannot be read, or is of another kind.
    """
    content = read_file(path)
    if isinstance(content, Inert) and isinstance(content.state, Mapping) and "model_config" in content.state:
        return _second_generation(content.state)
    if isinstance(content, Mapping) and "model_config" in content:
        return _second_generation(content)
    if isinstance(content, Mapping) and "state_dict" in content and "config" in content:
        return _first_generation(content)
    found = getattr(content, "origin", None) or type(content).__name__
    if isinstance(content, Mapping):
        found = "the keys " + ", ".join(map(str, list(content)[:4]))
    raise EquistrideError(f"{path} is not a checkpoint of fairchem-core", expected="a model and its configuration", found=found,
                          hint=MEND)  # fmt: skip
