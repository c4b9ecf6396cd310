"""The training configuration: one YAML file, checked before anything runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from equistride.errors import EquistrideError, tell
from equistride.models.equiformer import EquiformerConfig
from equistride.models.esen import ESENConfig
from equistride.models.mace_config import MACEConfig
from equistride.models.nequip import NequIPConfig
from equistride.models.trajcast import TrajCastConfig
from equistride.training.effects import without_effect
from equistride.training.frames_loss import FramesConfig

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
    """AdamW or SOAP with warm-up and cosine decay."""

    method: Literal["adamw", "soap"] = "adamw"
    """SOAP (arXiv 2409.11321) is Adam in directions of its own for each matrix of weights. Its learning rate is two to three
    times that of AdamW, and a step of a small propagator takes an eighth more time."""
    learning_rate: Positive = 2e-3
    weight_decay: NotNegative = 1e-3
    warmup_steps: Count = 200
    final_fraction: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Learning rate at the end, as a fraction of the peak."""
    clip_norm: Positive = 10.0
    beta2: Annotated[float, Field(gt=0, lt=1)] = 0.999
    """Decay of the mean square of the gradient; lower ones forget the start of a short run sooner."""
    amsgrad: bool = False
    """Of AdamW."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999


class TrainerConfig(_Section):
    """How long, how often, how precisely."""

    steps: AtLeastOne = 10_000
    validate_every: AtLeastOne = 500
    checkpoint_every: AtLeastOne = 500
    precision: Literal["float32", "float64"] = "float32"
    threads: AtLeastOne = 1
    seed: Count = 1
    devices: AtLeastOne | Literal["auto"] = "auto"
    """Devices, or processes on CPUs, that share each step's frames (potentials; DDP): each takes a batch of its own."""
    bfloat16: bool = False
    """Matrix products in bfloat16, where hardware has it: for pretraining with direct forces."""


class DenoisingConfig(_Section):
    """Denoising of displaced atoms beside direct forces (DeNS, arXiv 2403.09549)."""

    probability: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the batches."""
    sigma: Positive = 0.1
    """Standard deviation of a displacement along each axis [A]."""
    weight: NotNegative = 10.0
    """Of the denoising loss, which takes the place of the force loss."""


class _RunConfig(_Section):
    """What every run has."""

    name: str
    initialise_from: str | None = None
    """Checkpoint whose weights the run begins with; relative paths start at the config file."""
    trainer: TrainerConfig = TrainerConfig()


class TrainConfig(_RunConfig):
    """The whole configuration of ``equistride train`` for a potential."""

    model: ESENConfig
    data: DataConfig
    loss: LossConfig = LossConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    denoising: DenoisingConfig | None = None
    frames: FramesConfig | None = None
    """An auxiliary loss on frames that follow each other; without this section there is none."""

    @model_validator(mode="after")
    def _pretraining(self) -> Self:
        if self.model.forces == "gradient" and (self.trainer.bfloat16 or self.denoising is not None):
            raise ValueError("trainer.bfloat16 and denoising only with model.forces: direct")
        if self.trainer.bfloat16 and self.trainer.precision != "float32":
            raise ValueError("trainer.bfloat16 only with trainer.precision: float32")
        if not (self.loss.energy or self.loss.force or self.loss.virial):
            raise ValueError("one weight of loss above 0, or nothing is learnt")
        if getattr(self.model, "global_sums", 0):
            raise ValueError("no model.charge_channels and spin_channels: frames are joined, and share no total")
        return self


class EquiformerTrainConfig(TrainConfig):
    """The same for an Equiformer."""

    model: EquiformerConfig  # type: ignore[assignment]


class NequIPTrainConfig(TrainConfig):
    """The same for a NequIP."""

    model: NequIPConfig  # type: ignore[assignment]


class MACETrainConfig(TrainConfig):
    """The same for a MACE."""

    model: MACEConfig  # type: ignore[assignment]

    @model_validator(mode="after")
    def _without(self) -> Self:
        if self.frames is not None:
            raise ValueError("no section frames with a MACE, whose features it cannot read")
        if self.model.features or self.model.agnostic or self.model.caveats:
            raise ValueError("no model.features, no model.agnostic, and an envelope that ends bond weights smoothly")
        return self


class TrajCastModel(TrajCastConfig):
    """A TrajCast network, of which some sizes may be left to the training data."""

    max_speed: float = Field(0.0, ge=0)
    """A/fs; 0: four times the rms speed of the fastest element, and 1.3 times the fastest atom at least."""
    avg_num_neighbors: float = Field(0.0, ge=0)
    """0: the average of the training data."""


class PairsConfig(DataConfig):
    """Which pairs of frames."""

    stride_fs: Positive
    """Time from the one frame to the other: that of one step of the propagator. A list makes one network of several strides."""
    strides_fs: list[Positive] = []
    """Those of a list, the shortest first; ``stride_fs`` is then the longest."""
    reversal: bool = True
    """Learn each pair backwards too: from the later frame with its velocities turned round."""
    max_temperature_K: Positive | None = None
    """Leave out frames of hotter runs, where the files say how hot (``temperature_K``)."""
    masses: dict[str, Positive] = {}
    """amu by element, where the files do not say; standard atomic weights otherwise."""

    @model_validator(mode="before")
    @classmethod
    def _several(cls, given: Any) -> Any:
        """Take a list of strides apart."""
        if not isinstance(given, dict) or not isinstance(given.get("stride_fs"), list):
            return given
        listed = given["stride_fs"]
        if not listed or not all(type(stride) in (int, float) and 0 < stride < math.inf for stride in listed):
            raise ValueError("data.stride_fs to be a number above 0, or a list of such numbers")
        strides = sorted(set(map(float, listed)))
        return given | {"stride_fs": strides[-1], "strides_fs": strides if len(strides) > 1 else []}

    @model_validator(mode="after")
    def _of_the_list(self) -> Self:
        if self.strides_fs and (
            self.strides_fs != sorted(set(self.strides_fs)) or self.strides_fs[-1] != self.stride_fs
        ):
            raise ValueError("data.stride_fs to be the list of all strides, of which strides_fs is made")
        return self

    @property
    def strides(self) -> list[float]:
        """All strides [fs], the shortest first."""
        return self.strides_fs or [self.stride_fs]


class StrideLossConfig(_Section):
    """Weights of the mean squared errors, each in units of the rms in the training data (arXiv 2503.23794)."""

    displacement: NotNegative = 0.5
    velocity: NotNegative = 0.5
    by_element: bool = False
    """Measure each element by its own rms, so that a heavy one counts as much as a light one."""
    bond_weights: NotNegative = 0.0
    """Of the mean square of what multiplies messages, at lengths from zero to the cutoff: it stays small where the data have no
    bonds, at lengths that only an accident reaches."""


class StageConfig(_Section):
    """From which step on, how far and how many strides deep the network learns."""

    from_step: Count = 0
    stride_fs: Positive | None = None
    """That of the data where left out; shorter ones are easier to begin with. One network of several strides learns all of them
    in each stage."""
    rollout: AtLeastOne = 1
    """Strides in a row through the network, each from its own result; the gradient goes through all."""


class PropagatorConfig(_RunConfig):
    """The whole configuration of ``equistride train`` for a propagator."""

    model: TrajCastModel
    data: PairsConfig
    loss: StrideLossConfig = StrideLossConfig()
    curriculum: list[StageConfig] = Field([StageConfig()], min_length=1)
    """Stages in the order of their first steps."""
    optimiser: OptimiserConfig = OptimiserConfig(learning_rate=1e-2, weight_decay=0.0)

    @model_validator(mode="after")
    def _stages(self) -> Self:
        if not (self.loss.displacement or self.loss.velocity):
            raise ValueError("one weight of loss above 0, or nothing is learnt")
        starts = [stage.from_step for stage in self.curriculum]
        if starts[0] != 0 or sorted(set(starts)) != starts:
            raise ValueError(
                f"the stages of the curriculum to begin at step 0 and each after the last, not at {starts}"
            )
        if self.data.strides_fs and any(stage.stride_fs for stage in self.curriculum):
            raise ValueError(
                "no stride_fs in the curriculum of one network of several strides, which learns all at once"
            )
        if (self.curriculum[-1].stride_fs or self.data.stride_fs) != self.data.stride_fs:
            raise ValueError("the last stage of the curriculum to have the stride of the data, data.stride_fs")
        return self


AnyConfig = TrainConfig | PropagatorConfig
KINDS: dict[str, type[TrainConfig] | type[PropagatorConfig]] = {
    "esen": TrainConfig,
    "equiformer": EquiformerTrainConfig,
    "nequip": NequIPTrainConfig,
    "mace": MACETrainConfig,
    "trajcast": PropagatorConfig,
}
"""The configuration of a network, by its architecture."""


def _kind(tree: dict[str, Any], path: Path) -> type[TrainConfig] | type[PropagatorConfig]:
    """Choose by ``model.architecture``; the sections of the file mean different things for either kind."""
    model = tree.get("model")
    architecture = model.get("architecture", "esen") if isinstance(model, dict) else "esen"
    if not isinstance(architecture, str) or architecture not in KINDS:
        raise EquistrideError(
            f"{path}: 'model.architecture' is not valid",
            expected=" or ".join(map(repr, KINDS)),
            found=repr(architecture),
        )
    return KINDS[architecture]


def _sentence(error: ValidationError, path: Path, kind: type[BaseModel]) -> EquistrideError:
    first = error.errors()[0]
    where = ".".join(str(p) for p in first["loc"]) or "the file"
    if first["type"] == "extra_forbidden":
        return EquistrideError(f"{path} has an unknown key {where!r}", hint=_near(first["loc"], kind))
    if first["type"] == "missing":
        return EquistrideError(f"{path} lacks the key {where!r}", hint="add it; examples are in models/*/config.yaml")
    if first["type"] == "value_error" and not first["loc"]:
        return EquistrideError(
            f"{path} has settings that contradict each other", expected=first["msg"].removeprefix("Value error, ")
        )
    expected = first["msg"].lower()
    if first["type"] in ("model_type", "model_attributes_type", "dict_type"):
        expected = "keys with values, as in `key: value`, or the section left out"
    return EquistrideError(f"{path}: {where!r} is not valid", expected=expected, found=repr(first["input"])[:80])


def _check_numbers(given: Any, taken: Any, path: Path, where: str = "") -> None:
    """Refuse true and false, and what is not finite, where a number is expected; they would pass as 1, 0 and no bound."""
    if isinstance(given, dict) and isinstance(taken, dict):
        for key, value in given.items():
            _check_numbers(value, taken.get(key), path, f"{where}.{key}" if where else str(key))
    elif isinstance(given, list) and isinstance(taken, list | tuple):
        for k, (value, one) in enumerate(zip(given, taken, strict=False)):
            _check_numbers(value, one, path, f"{where}.{k}")
    elif (isinstance(given, bool) and type(taken) in (int, float)) or (
        isinstance(taken, float) and not math.isfinite(taken)
    ):
        raise EquistrideError(f"{path}: {where!r} is not valid", expected="a finite number", found=repr(given))


class _UniqueKeys(yaml.SafeLoader):
    """YAML in which a key stands once; of two, the plain loader takes the last in silence. Aliases may not make it endless."""

    def get_single_node(self) -> Any:
        """Refuse a document that holds itself, or that is large once its aliases are written out."""
        node = super().get_single_node()
        if node is not None:
            self._size(node, {})
        return node

    def _size(self, node: Any, sizes: dict[int, int]) -> int:
        if id(node) not in sizes:
            sizes[id(node)] = MOST_NODES  # met again within itself
            parts = [] if isinstance(node, yaml.ScalarNode) else node.value
            flat = [part for item in parts for part in (item if isinstance(item, tuple) else (item,))]
            sizes[id(node)] = 1 + sum(self._size(part, sizes) for part in flat)
        if sizes[id(node)] >= MOST_NODES:
            raise yaml.YAMLError(f"its aliases make more than {MOST_NODES} values of it, or a circle")
        return sizes[id(node)]

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """Refuse a key that stands twice."""
        seen: set[str] = set()
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)
            if isinstance(name, str):
                if name in seen:
                    raise yaml.YAMLError(f"the key {name!r} stands twice, again in line {key.start_mark.line + 1}")
                seen.add(name)
        return super().construct_mapping(node, deep)


MOST_NODES = 100_000
"""Values of a configuration, its aliases written out."""
ELSEWHERE = {
    "r_max": "cutoff", "rcut": "cutoff", "lr": "learning_rate", "max_steps": "steps", "max_epochs": "steps", "epochs": "steps",
    "max_num_epochs": "steps", "num_channels": "channels", "num_interactions": "num_layers", "forces": "force",
    "virials": "virial", "stress": "virial", "train_file": "files", "test_file": "test_files",
    "valid_fraction": "validation_fraction", "default_dtype": "precision",
}  # fmt: skip
"""Names of other trainers for keys of ours."""


def _near(place: tuple[int | str, ...], section: Any) -> str:
    """Name the known keys beside a wrong one, the likeliest first."""
    import difflib

    *parents, last = map(str, place)
    if "." in last:
        return "in a file keys stand indented below their section; with dots they are overrides of the command line"
    for parent in parents:
        if not parent.isdigit():
            section = section.model_fields[parent].annotation
            section = get_args(section)[0] if get_args(section) else section
    names = list(section.model_fields)
    if (ours := ELSEWHERE.get(last)) in names:
        return f"check its spelling: it is {ours!r} here"
    close = difflib.get_close_matches(last, names, n=1)
    known = f"did you mean {close[0]!r}?" if close else f"known keys are {', '.join(names)}"
    return f"check its spelling: {known}"


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
        tree[last] = yaml.load(value, _UniqueKeys)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise EquistrideError(f"the override {assignment!r} is not an assignment of a YAML value: {reason}") from error


def load_config(path: str | Path, overrides: list[str] | None = None) -> AnyConfig:
    """Read a YAML config; ``overrides`` are ``key.key=value`` strings that win over the file.

    Raises
    ------
    EquistrideError
        One sentence for the first thing that is wrong: missing file, not YAML, missing, unknown or twofold key, bad value.
        Settings that have no effect beside the others are told.
    """
    path = Path(path)
    if not path.is_file():
        raise EquistrideError(f"the config {path} does not exist", hint="see models/*/config.yaml for examples")
    try:
        tree = yaml.load(path.read_text(), _UniqueKeys)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise EquistrideError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise EquistrideError(f"{path} is not a configuration", expected="a mapping of keys", found=type(tree).__name__)
    for assignment in overrides or []:
        _set(tree, assignment)
    kind = _kind(tree, path)
    try:
        config = kind.model_validate(tree)
    except ValidationError as error:
        raise _sentence(error, path, kind) from error
    _check_numbers(tree, config.model_dump(), path)
    for sentence in without_effect(config):
        tell(f"{path}: {sentence}")
    return config
