"""What keeps momenta, natively: the bits of ``Propagator.keep``, which released files compute."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from trajcast_systems import STRIDE, Frame, cluster, crystal, propagator

import equistride._library  # noqa: F401  (registers the operators)


def of(positions: list[list[float]]) -> Frame:
    """An open frame in motion."""
    x = torch.tensor(positions, dtype=torch.float64)
    generator = torch.Generator().manual_seed(3)
    v = 0.01 * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    return Frame(x, v, torch.arange(len(x)) % 2, torch.zeros(3, 3), torch.empty(2, 0), torch.empty(0, 3))


FRAMES = {
    "cluster": cluster(),
    "crystal": crystal(),
    "linear": of([[0.0, 0.0, 0.0], [0.7, 0.7, 0.7], [1.5, 1.5, 1.5]]),
    "pair": of([[0.0, 0.0, 0.0], [1.1, 0.0, 0.0]]),
    "atom": of([[2.0, 3.0, 4.0]]),
}


def scripted(frame: Frame, moved: Tensor, after: Tensor, is_open: bool) -> tuple[Tensor, Tensor]:
    """Return what the propagator's own method makes of a stride."""
    module = propagator()
    rows = torch.zeros_like(frame.species)
    return module.keep(
        frame.positions, frame.velocities, frame.species, moved, after, rows, torch.tensor([is_open])
    )  # fmt: skip


@pytest.mark.parametrize("is_open", [True, False])
@pytest.mark.parametrize("name", FRAMES)
def test_the_bits_are_those_of_the_propagator(name: str, is_open: bool) -> None:
    """Displacements and velocities, equal; of open frames with their angular momentum."""
    frame = FRAMES[name]
    generator = torch.Generator().manual_seed(7)
    moved, after = (0.1 * torch.randn(frame.positions.shape, generator=generator, dtype=torch.float64) for _ in "xv")
    expected = scripted(frame, moved, after, is_open)
    found = torch.ops.equistride.keep_momenta(
        frame.positions, frame.velocities, moved, after, frame.masses, STRIDE, is_open
    )
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)
