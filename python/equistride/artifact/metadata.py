"""What an artifact says of itself: ``metadata.json``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

FORMAT_VERSION = 1
"""The format version that this package writes; readers refuse newer ones."""


class Units(BaseModel):
    """Units of everything inside an artifact."""

    length: Literal["angstrom"] = "angstrom"
    energy: Literal["eV"] = "eV"
    time: Literal["fs"] = "fs"
    mass: Literal["amu"] = "amu"


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
    """A; message-passing layers times cutoff."""
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
    num_parameters: int = 0
    provenance: dict[str, Any] = {}
    """Package and torch versions, hashes of config and data."""
    licence: str = ""
    references: list[str] = []
    accuracy: dict[str, float] = {}
    """Measured errors, with the unit in the name."""
