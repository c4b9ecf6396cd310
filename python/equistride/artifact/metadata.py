"""What an artifact says of itself: ``metadata.json``."""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from equistride.errors import EquistrideError, not_valid

FORMAT_VERSION = 2
"""The format version that this package writes; readers refuse newer ones."""


Container = Literal["torchscript", "aoti"]
"""How the model lies in an artifact: as TorchScript, which runs everywhere, or compiled for one machine by AOTInductor."""


SAME_STRIDE = 1e-6
"""Share by which a time step may differ from the stride that it stands for; as in csrc/artifact/metadata.h."""


def one_of(numbers: Sequence[float]) -> str:
    """Return numbers in words: ``5, 10 or 30``."""
    *first, last = (f"{number:.10g}" for number in numbers)
    return f"{', '.join(first)} or {last}" if first else last


class Units(BaseModel):
    """Units of everything inside an artifact."""

    length: Literal["angstrom"] = "angstrom"
    energy: Literal["eV"] = "eV"
    time: Literal["fs"] = "fs"
    mass: Literal["amu"] = "amu"


class Compiled(BaseModel):
    """What the program of a compiled artifact runs on, and what its container must know of it."""

    model_config = ConfigDict(extra="allow", frozen=True)

    torch: str
    """Version; another minor version refuses it."""
    device: Literal["cpu"] = "cpu"
    machine: str
    """Kind of processor, as ``uname -m`` says it."""
    instruction_set: Literal["portable", "avx2", "avx512"]
    cutoff: float | None = None
    """A, of the program."""
    exchanges: int = 0
    """Calls of ``equistride::exchange`` in the program."""


class Capabilities(BaseModel):
    """What a model can do; what is not declared is not used."""

    model_config = ConfigDict(extra="allow", frozen=True)

    decomposable: bool = False
    """Energies (or strides) of some atoms from edge vectors; forces are the gradient. Atoms may be divided among processes."""
    padded: bool = False
    """Spare atoms and edges change nothing: a step may be captured on a GPU."""
    batched: bool = False
    """Frames may be joined in one graph."""
    uncertainty: bool = False
    """An ensemble, which says how far its members disagree."""
    angular_momentum: bool = False
    """A propagator keeps it in systems without a box."""


class Limits(BaseModel):
    """What a model takes; None where it takes everything."""

    model_config = ConfigDict(extra="allow", frozen=True)

    shortest_bond: float | None = None
    """A."""
    fastest_atom: float | None = None
    """A/fs."""
    smallest_box: float | None = None
    """Cutoffs, between opposite faces."""


class Composition(BaseModel):
    """The only system that a model holds for: whole numbers of atoms by element, and where size counts how many in all."""

    model_config = ConfigDict(extra="allow", frozen=True)

    elements: dict[str, int]
    atoms: int | None = None


class Metadata(BaseModel):
    """Facts of an artifact, checked on reading and on writing."""

    model_config = ConfigDict(extra="allow", frozen=True)

    format: Literal["equistride"] = "equistride"
    format_version: int = FORMAT_VERSION
    kind: Literal["potential", "propagator"]
    architecture: str
    description: str = ""
    species: list[str] = Field(min_length=1)
    """Element symbols; a species index points in here."""
    masses: list[float] = []
    """amu, one an element; a propagator needs exactly these."""
    cutoff: float = Field(gt=0)
    """A."""
    message_passing_steps: int = Field(default=1, ge=1)
    """Sums over neighbours that follow one another; an engine's halo is this times the cutoff."""
    interaction_range: float | Literal["all"] | None = None
    """A; how far an atom's energy looks: the cutoff times the steps, or "all" where it looks at all atoms."""
    capabilities: Capabilities = Capabilities()
    global_sums: int = Field(default=0, ge=0)
    """Reductions over all atoms in one evaluation."""
    limits: Limits = Limits()
    operators: dict[str, int] = {}
    """Our native operators that the module calls, each with the version of its schema."""
    charge_spin: Literal["none", "input", "fixed"] = "none"
    """Whether the model depends on total charge and spin multiplicity, and whether they can be set; values: ``system``."""
    composition: Composition | None = None
    """The only composition that the model holds for."""
    dtype: Literal["float32", "float64"]
    units: Units = Units()
    periodic: Literal["any", "required"] = "any"
    """"required": trained on periodic systems alone, a system without a box is refused."""
    stride_fs: float | None = None
    """fs, propagators only; of several, the one in effect: that which a file begins with."""
    strides_fs: list[float] = []
    """fs, where a propagator makes several: all of them, the shortest first."""
    ensemble: str | None = None
    """Ensemble of a propagator's training data."""
    conservative: bool = True
    """Whether the forces are the gradient of a continuous energy."""
    caveats: list[str] = []
    """Why they are not."""
    system: dict[str, float] = {}
    """Total charge [e] and spin multiplicity that the file computes with, where the model knows them (see
    :func:`equistride.artifact.system.with_system`)."""
    members: int = Field(default=1, ge=1)
    """Sets of weights in the file; with two or more, an ensemble that knows its uncertainty."""
    fused: bool = False
    """Whether the network runs through equistride's fused operators on a CPU."""
    spline_error: float | None = None
    """Largest error of the splines that stand for radial networks, as a share of their largest value."""
    compiled: Compiled | None = None
    """Of the AOTInductor container alone."""
    digest: Literal["sha256"] | None = None
    """Whether the file names the hash of each of its records; then one without is refused."""
    num_parameters: int = 0
    provenance: dict[str, Any] = {}
    """Package and torch versions, hashes of config and data."""
    weights: dict[str, Any] = {}
    """Where they came from: program, file's hash, licence, task or head or modal."""
    licence: str = ""
    references: list[str] = []
    accuracy: dict[str, float] = {}
    """Measured errors, with the unit in the name."""

    @model_validator(mode="before")
    @classmethod
    def _earlier_names(cls, given: Any) -> Any:
        """Take the names of format 1: ``num_layers`` is gone, ``max_speed`` is a limit."""
        if not isinstance(given, dict):
            return given
        given = dict(given)
        given.pop("num_layers", None)
        speed = given.pop("max_speed", None)
        if speed is not None:
            given["limits"] = Limits(fastest_atom=speed)
        if isinstance(given.get("interaction_range"), (int, float)) and "message_passing_steps" not in given:
            given["message_passing_steps"] = max(1, round(given["interaction_range"] / given["cutoff"]))
        return given

    @property
    def counts(self) -> list[int] | None:
        """Atoms of each species in a small system that the model holds for; None where it holds for any."""
        if self.composition is None:
            return None
        numbers = [self.composition.elements.get(symbol, 0) for symbol in self.species]
        few = self.composition.atoms or max(8, sum(numbers))
        return [number * -(-few // sum(numbers)) for number in numbers]

    def check_composition(self, symbols: Sequence[str]) -> None:
        """Refuse atoms of another composition than the model's, where no engine will compare them."""
        counts = self.counts
        if counts is None:
            return
        here = [list(symbols).count(symbol) for symbol in self.species]
        same = all(n * sum(counts) == m * len(symbols) for n, m in zip(here, counts, strict=True))
        if not same or self.composition.atoms not in (None, len(symbols)):  # type: ignore[union-attr]
            raise EquistrideError(
                "the model holds for one composition alone", expected=dict(zip(self.species, counts, strict=True)),
                found=dict(zip(self.species, here, strict=True)), hint="import or export it for this composition",
            )  # fmt: skip

    @property
    def max_speed(self) -> float | None:
        """A/fs, propagators only: faster atoms are refused."""
        return self.limits.fastest_atom

    def stride_near(self, timestep_fs: float) -> float:
        """Return the stride [fs] that a time step is, rounding of other units left out.

        Raises
        ------
        EquistrideError
            Where the propagator was not trained for it.
        """
        known = self.strides_fs or [self.stride_fs or 0.0]
        found = [stride for stride in known if abs(timestep_fs - stride) <= SAME_STRIDE * stride]
        if not found:
            raise EquistrideError(
                "the time step is not a stride of the propagator", expected=f"{one_of(known)} fs",
                found=f"{timestep_fs:g} fs", hint="choose one that it was trained for",
            )  # fmt: skip
        return found[0]

    def with_contract(self, contract: str) -> Metadata:
        """Return the same with the contract that the native reader found in the module of its file (JSON)."""
        found = json.loads(contract)
        found["limits"] = self.limits.model_dump(exclude_none=True) | found["limits"]
        if self.global_sums:
            found |= {"global_sums": self.global_sums, "interaction_range": "all"}
        if self.global_sums and "equistride::total" not in found["operators"]:
            # of another kind than ours: no part of a frame is enough, and spare atoms or a second frame change them
            found["capabilities"] |= {"decomposable": False, "padded": False, "batched": False}
        return Metadata.model_validate(self.model_dump() | found)

    @staticmethod
    def of(native: Any, name: str | Path) -> Metadata:
        """Return what a file says of itself, with the contract that the native reader found.

        Raises
        ------
        EquistrideError
            One sentence for the first field that cannot be; ``name`` is the file's.
        """
        try:
            return Metadata.model_validate_json(native.metadata()).with_contract(native.contract())
        except ValidationError as error:
            hint = "take the file from where it was exported, or export the model again"
            raise not_valid(f"{name} says of itself in metadata.json what cannot be", error, hint) from None


def metadata_of(path: Path) -> Metadata | None:
    """Return what an artifact says of itself, and nothing else of it read; None for any other file."""
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(n for n in archive.namelist() if n.endswith("/extra/metadata.json"))
            return Metadata.model_validate_json(archive.read(name))
    except (OSError, zipfile.BadZipFile, StopIteration, ValueError):
        return None


def check_container(container: str) -> None:
    """Refuse a container that is not known."""
    if container not in get_args(Container):
        raise EquistrideError("the container is not known", expected="torchscript or aoti", found=container)


def check_precision(dtype: str) -> None:
    """Refuse a precision that an artifact cannot name."""
    if dtype not in ("float32", "float64"):
        raise EquistrideError("the precision is not known", expected="float32 or float64", found=dtype)


def precision_name(name: str | None) -> str | None:
    """Return ``float32`` or ``float64`` as a user says it, None for None; the names until 0.1, single and double, with a warning.

    Raises
    ------
    EquistrideError
        For any other.
    """
    until = {"single": "float32", "double": "float64"}
    if name in until:
        warnings.warn(f"{name} is now {until[name]}; the old name goes with the next release", FutureWarning, 3)
        return until[name]
    if name is not None:
        check_precision(name)
    return name
