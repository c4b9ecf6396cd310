"""The metadata of models that tests make by hand."""

from __future__ import annotations

from equistride.artifact.metadata import Metadata


def toy_metadata(species: list[str], cutoff: float, *, layers: int = 1, **facts: object) -> Metadata:
    """Return the metadata of a potential with ``layers`` steps of message passing; ``facts`` replace its fields."""
    common: dict[str, object] = {"kind": "potential", "architecture": "toy", "dtype": "float64"}
    reach: dict[str, object] = {"num_layers": layers, "interaction_range": layers * cutoff}
    return Metadata.model_validate(common | {"species": species, "cutoff": cutoff} | reach | facts)
