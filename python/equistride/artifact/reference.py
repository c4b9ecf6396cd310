"""The reference frame that every artifact carries and every load runs."""

from __future__ import annotations

import json

import torch
from torch import Tensor, nn

from equistride.graph import neighbor_list

TOLERANCE = {"float64": 1e-9, "float32": 1e-4}
"""Largest deviation from the stored outputs that a load accepts, relative to max(1, largest output): machines and torch
versions sum in other orders, and in float32 that shows in the fifth digit of a force."""


def reference_structure(num_species: int, cutoff: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return positions [N, 3] A, species [N] and a skewed cell [3, 3] of a small frame with every element.

    A jittered simple lattice, spaced so that an atom has neighbours well inside the cutoff, with more than one image of
    itself in reach: it runs the whole path, and no training data is needed to make it.
    """
    side = 2 if num_species <= 8 else 3
    grid = torch.cartesian_prod(*[torch.arange(side, dtype=torch.float64)] * 3)
    generator = torch.Generator().manual_seed(20251112)
    spacing = 0.45 * cutoff
    jitter = torch.rand(grid.shape, generator=generator, dtype=torch.float64) - 0.5
    cell = side * spacing * torch.tensor([[1.0, 0.0, 0.0], [0.2, 1.05, 0.0], [-0.1, 0.15, 0.95]], dtype=torch.float64)
    positions = (grid + 0.25 * jitter) / side @ cell
    return positions, torch.arange(len(grid)) % num_species, cell


def reference_json(model: nn.Module, num_species: int, cutoff: float, dtype: str) -> str:
    """Return ``reference.json`` of a potential: the frame, its outputs and the tolerance.

    The model must be in double precision: the outputs stored are exact, and a load in float32 is held to a float32 tolerance.
    """
    positions, species, cell = reference_structure(num_species, cutoff)
    edges, shifts = neighbor_list(positions, cell, torch.ones(3, dtype=torch.bool), cutoff)
    energies, forces, virial = model(positions, species, cell, edges, shifts)
    frame = {
        "positions": positions.tolist(), "species": species.tolist(), "cell": cell.tolist(), "pbc": [True] * 3,
        "outputs": {"atomic_energies": energies.tolist(), "forces": forces.tolist(), "virial": virial.tolist()},
        "tolerance": TOLERANCE[dtype],
    }  # fmt: skip
    return json.dumps(frame)
