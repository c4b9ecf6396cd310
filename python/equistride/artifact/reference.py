"""The reference frame that every artifact carries and every load runs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from equistride.graph import neighbor_list

TOLERANCE = {"float64": 1e-9, "float32": 1e-4}
"""Largest deviation from the stored outputs that a load accepts, relative to max(1, largest output): machines and torch
versions sum in other orders, and in float32 that shows in the fifth digit of a force."""


SPACINGS = (0.45, 0.55, 0.65, 0.75)
"""Distances of the sites of the reference frame, in cutoffs."""


def reference_side(num_species: int, counts: Sequence[int] | None) -> int:
    """Return how many sites the reference frame has along each edge; without ``counts`` each of them has an atom."""
    if counts is not None:
        return max(2, math.ceil(round(sum(counts) ** (1 / 3), 9)))
    return 2 if num_species <= 8 else 3


def reference_structure(
    num_species: int, cutoff: float, spacing: float = SPACINGS[0], counts: Sequence[int] | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return positions [N, 3] A, species [N] and a skewed cell [3, 3] of a small frame with every element.

    ``counts`` says how many atoms of each element, for models that hold for one composition alone; some sites may be empty then.

    A jittered simple lattice, spaced so that an atom has neighbours well inside the cutoff, with more than one image of
    itself in reach: it runs the whole path, and no training data is needed to make it.
    """
    side = reference_side(num_species, counts)
    grid = torch.cartesian_prod(*[torch.arange(side, dtype=torch.float64)] * 3)
    generator = torch.Generator().manual_seed(20251112)
    jitter = torch.rand(grid.shape, generator=generator, dtype=torch.float64) - 0.5
    edge = side * spacing * cutoff
    cell = edge * torch.tensor([[1.0, 0.0, 0.0], [0.2, 1.05, 0.0], [-0.1, 0.15, 0.95]], dtype=torch.float64)
    positions = (grid + 0.25 * jitter) / side @ cell
    if counts is None:
        return positions, torch.arange(len(grid)) % num_species, cell
    species = torch.repeat_interleave(torch.arange(num_species), torch.tensor(counts))
    return positions[: len(species)], species[torch.randperm(len(species), generator=generator)], cell


def reference_velocities(num_atoms: int, max_speed: float) -> Tensor:
    """Return velocities [N, 3] A/fs in all directions, with speeds from a tenth to a half of ``max_speed``."""
    generator = torch.Generator().manual_seed(20251113)
    directions = torch.randn(num_atoms, 3, generator=generator, dtype=torch.float64)
    speeds = (0.1 + 0.4 * torch.rand(num_atoms, generator=generator, dtype=torch.float64)) * max_speed
    return directions / directions.norm(dim=1, keepdim=True) * speeds[:, None]


def reference_json(
    model: nn.Module, num_species: int, cutoff: float, dtype: str, *, max_speed: float | None = None,
    counts: Sequence[int] | None = None, spacing: float | None = None, strides: int = 0,
) -> str:  # fmt: skip
    """Return ``reference.json``: the frame, its outputs and the tolerance.

    The model must be in double precision: the outputs stored are exact, and a load in float32 is held to a float32 tolerance.
    A propagator has a ``max_speed`` [A/fs]; what it gives is small beside 1, and the tolerance is a share of it. Far from its
    training data it may throw atoms, beside which the others would not be seen: of several densities that which it throws
    least is taken. ``spacing`` [A] is the distance of the sites, where it shall not follow from the cutoff. Of a propagator that
    makes several ``strides`` there are outputs of each.
    """
    known = None if spacing is None else (spacing / cutoff,)

    def outputs_at(spacing: float) -> tuple[Tensor, Tensor, Tensor, Tensor, tuple[Tensor, ...]]:
        positions, species, cell = reference_structure(num_species, cutoff, spacing, counts)
        edges, shifts = neighbor_list(positions, cell, torch.ones(3, dtype=torch.bool), cutoff)
        velocities = reference_velocities(len(positions), max_speed or 0.0)
        moving = () if max_speed is None else (velocities,)
        return positions, velocities, species, cell, model(positions, *moving, species, cell, edges, shifts)

    tried = [outputs_at(spacing) for spacing in known or (SPACINGS[:1] if max_speed is None else SPACINGS)]
    positions, velocities, species, cell, outputs = min(tried, key=lambda one: float(one[-1][0].abs().max()))
    frame: dict[str, object] = {"positions": positions.tolist(), "species": species.tolist(), "cell": cell.tolist()}
    names = ["atomic_energies", "forces", "virial"]
    tolerance = TOLERANCE[dtype]
    if max_speed is not None:
        frame["velocities"] = velocities.tolist()
        names = ["displacements", "velocities"]
        tolerance *= min(1.0, max(float(out.abs().max()) for out in outputs))
    frame["pbc"] = [True] * 3
    frame["outputs"] = {name: out.tolist() for name, out in zip(names, outputs, strict=True)}
    if strides:
        frame["outputs_of_strides"] = [
            {name: out.tolist() for name, out in zip(names, outputs, strict=True)}
            for outputs in _of_strides(model, strides, (positions, velocities, species, cell), cutoff)
        ]
    frame["tolerance"] = tolerance
    return json.dumps(frame)


def _of_strides(
    model: nn.Module, strides: int, frame: tuple[Tensor, ...], cutoff: float
) -> Iterator[tuple[Tensor, ...]]:
    """Yield the outputs of each stride; the last is the one that the model is left with."""
    positions, *_, cell = frame
    edges = neighbor_list(positions, cell, torch.ones(3, dtype=torch.bool), cutoff)
    for index in range(strides):
        model.set_stride(index)  # type: ignore[operator]
        yield model(*frame, *edges)
