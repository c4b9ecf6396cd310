"""The training configuration: one YAML file, checked before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from equistride.errors import EquistrideError
from equistride.models.esen import ESENConfig

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
AtLeastOne = Annotated[int, Field(ge=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(_Section):
    """Which frames, and how they are split."""

    files: list[str] = Field(min_length=1)
    """npz, extxyz or ASE databases; relative paths start at the config file."""
    test_files: list[str] = []
    """Held-out files, evaluated at the end."""
    validation_fraction: float = Field(0.05, gt=0, lt=1)
    """Share of segments (frames, where there are no segments) kept for validation."""
    thin: int = Field(1, ge=1)
    """Keep every n-th frame of the training data."""
    batch_size: int = Field(2, ge=1)


class LossConfig(_Section):
    """Weights of the loss: per-atom energy MAE, L2 norm of the force error, virial MAE per atom."""

    energy: NotNegative = 20.0
    force: NotNegative = 2.0
    virial: NotNegative = 1.0


class OptimiserConfig(_Section):
    """AdamW with warm-up and cosine decay."""

    learning_rate: Positive = 2e-3
    weight_decay: NotNegative = 1e-3
    warmup_steps: Count = 200
    final_fraction: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Learning rate at the end, as a fraction of the peak."""
    clip_norm: Positive = 10.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999


class TrainerConfig(_Section):
    """How long, how often, how precisely."""

    steps: AtLeastOne = 10_000
    validate_every: AtLeastOne = 500
    checkpoint_every: AtLeastOne = 500
    precision: Literal["float32", "float64"] = "float32"
    threads: AtLeastOne = 1
    seed: Count = 1


class TrainConfig(_Section):
    """The whole configuration of ``equistride train``."""

    name: str
    model: ESENConfig
    data: DataConfig
    loss: LossConfig = LossConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    trainer: TrainerConfig = TrainerConfig()


def _sentence(error: ValidationError, path: Path) -> EquistrideError:
    first = error.errors()[0]
    where = ".".join(str(p) for p in first["loc"]) or "the file"
    kind = first["type"]
    if kind == "extra_forbidden":
        return EquistrideError(f"{path} has an unknown key {where!r}", mend=f"check its spelling: {_near(where)}")
    if kind == "missing":
        return EquistrideError(f"{path} lacks the key {where!r}", mend="add it; examples are in models/*/config.yaml")
    return EquistrideError(
        f"{path}: {where!r} is not valid", expected=first["msg"].lower(), found=repr(first["input"])[:80]
    )


def _near(key: str) -> str:
    """Name the known keys beside a wrong one, the likeliest first."""
    import difflib

    section: Any = TrainConfig
    *parents, last = key.split(".")
    for parent in parents:
        section = section.model_fields[parent].annotation
    names = list(section.model_fields)
    close = difflib.get_close_matches(last, names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known keys are {', '.join(names)}"


def _set(tree: dict[str, Any], assignment: str) -> None:
    key, equals, value = assignment.partition("=")
    if not equals or not key:
        raise EquistrideError(f"the override {assignment!r} is not an assignment", expected="key.key=value")
    *parents, last = key.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise EquistrideError(f"the override {assignment!r} does not fit", expected=f"{parent!r} to hold keys")
    try:
        tree[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise EquistrideError(f"the override {assignment!r} is not an assignment of a YAML value: {reason}") from error


def load_config(path: str | Path, overrides: list[str] | None = None) -> TrainConfig:
    """Read a YAML config; ``overrides`` are ``key.key=value`` strings that win over the file.

    Raises
    ------
    EquistrideError
        One sentence for the first thing that is wrong: missing file, not YAML, missing or unknown key, bad value.
    """
    path = Path(path)
    if not path.is_file():
        raise EquistrideError(f"the config {path} does not exist", mend="see models/*/config.yaml for examples")
    try:
        tree = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise EquistrideError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise EquistrideError(f"{path} is not a configuration", expected="a mapping of keys", found=type(tree).__name__)
    for assignment in overrides or []:
        _set(tree, assignment)
    try:
        return TrainConfig.model_validate(tree)
    except ValidationError as error:
        raise _sentence(error, path) from error
