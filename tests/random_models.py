"""Small potentials of random weights, their artifacts, and structures in the form that a potential takes."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from toy_metadata import toy_metadata

from equistride.artifact.export import build_potential, save
from equistride.graph import neighbor_list
from equistride.models.esen import ESENConfig
from equistride.models.potential import ConservativePotential

CUTOFF = 4.0  # A
SPECIES = ["O", "Si"]


class Graph(NamedTuple):
    """Positions [N, 3] A, species [N], cell [3, 3] A, edge_index [2, E], shifts [E, 3]: a potential's arguments."""

    positions: Tensor
    species: Tensor
    cell: Tensor
    edge_index: Tensor
    shifts: Tensor


def graph_of(positions: Tensor, species: Tensor, cell: Tensor | None = None, cutoff: float = CUTOFF) -> Graph:
    """Return a structure with its neighbour list; periodic along all axes where there is a cell."""
    periodic = cell is not None
    cell = torch.zeros(3, 3).to(positions) if cell is None else cell
    return Graph(positions, species, cell, *neighbor_list(positions, cell, periodic, cutoff))


def random_potential(seed: int = 0, species: list[str] = SPECIES, **sizes: object) -> ConservativePotential:
    """Return a small eSEN of random weights in float64, with output scale and references as a trained one has: not whole numbers,
    which would hide a rounding to float32."""
    torch.manual_seed(seed)
    defaults = {"cutoff": CUTOFF, "num_layers": 2, "channels": 8, "hidden_channels": 8, "edge_channels": 8}
    config = ESENConfig.model_validate(defaults | sizes)
    facts = {"species": species, "scale": 1.3, "references": [-3.1 - 2.6 * k for k in range(len(species))]}
    potential = build_potential(config, facts).double()
    with torch.no_grad():
        for name, weight in potential.named_parameters():
            if "norm" in name or name.endswith(("sender", "receiver")):
                weight += 0.3 * torch.randn_like(weight)  # at the start ones, zeros and 1e-3: they would hide errors
    return potential


def write_artifact(potential: ConservativePotential, path: Path, dtype: str, periodic: str = "any") -> Path:
    """Write the artifact of a potential, as ``equistride export`` would."""
    cutoff, layers = float(potential.cutoff), len(potential.network.blocks)
    # a sum over neighbours more than layers: that of the edge embedding
    facts = {"architecture": "esen", "num_layers": layers, "dtype": dtype, "periodic": periodic}
    metadata = toy_metadata(potential.species, cutoff, layers=layers + 1, **facts)
    save(potential, metadata, path)
    return path
