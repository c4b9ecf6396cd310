"""What an artifact says of itself: ``metadata.json``."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from equistride.errors import EquistrideError

FORMAT_VERSION = 1
"""The format version that this package writes; readers refuse newer ones."""


Container = Literal["torchscript", "aoti"]
"""How the model lies in an artifact: as TorchScript, which runs everywhere, or compiled for one machine by AOTInductor."""


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
    exchanges: int = 0
    """Calls of ``equistride::exchange``."""
    shortest: float | None = None
    """A; the tables of a propagator reach no shorter bond."""


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
    num_layers: int = Field(ge=1)
    interaction_range: float = Field(gt=0)
    """A; how far an atom's energy looks: the cutoff times the number of sums over neighbours, one after the other."""
    dtype: Literal["float32", "float64"]
    units: Units = Units()
    periodic: Literal["any", "required"] = "any"
    """"required": trained on periodic systems alone, a system without a box is refused."""
    stride_fs: float | None = None
    """fs, propagators only."""
    max_speed: float | None = None
    """A/fs, propagators only: faster atoms are refused."""
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
    num_parameters: int = 0
    provenance: dict[str, Any] = {}
    """Package and torch versions, hashes of config and data."""
    licence: str = ""
    references: list[str] = []
    accuracy: dict[str, float] = {}
    """Measured errors, with the unit in the name."""


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
