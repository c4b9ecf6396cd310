"""Weights of bonds while learning: from tables of some lengths, where bonds are many."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from trajcast_systems import CUTOFF, crystal, propagator

from equistride.nn.bonds import KNOTS, knots, spline_through
from equistride.nn.scalar_network import ScalarNetwork
from equistride.nn.speed import LengthBasis

BONDS = 5 * KNOTS


def network(width: int = 24) -> nn.Sequential:
    """A network of the bond length as that of a layer."""
    torch.manual_seed(1)
    return nn.Sequential(LengthBasis(CUTOFF, 12, 6), ScalarNetwork([12, 32, 16, width])).double()


def lengths() -> Tensor:
    draws = torch.rand(BONDS, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return (0.1 + 0.9 * draws) * CUTOFF


def test_weights_from_tables_and_their_gradients() -> None:
    """Off by some (12 pi / 253)^4 / 35 of what varies most with the length, and (12 pi / 253)^3 / 24 in slope; products of two
    such functions vary twice as fast: 2.3e-4 and 1.1e-3 at most."""
    r = lengths().requires_grad_()
    weighting = network()
    target = torch.randn(BONDS, 24, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    places, step = knots(r, CUTOFF)
    assert float(places[2]) == 0.0
    assert float(places[-3]) == pytest.approx(CUTOFF)
    variables = [r, *weighting.parameters()]
    exact, tabled = weighting(r), spline_through(weighting(places), step)(r)
    mine = torch.autograd.grad((tabled * target).sum(), variables)
    theirs = torch.autograd.grad((exact * target).sum(), variables)
    with torch.no_grad():
        off = [float((a - b).norm() / b.norm()) for a, b in zip((tabled, *mine), (exact, *theirs), strict=True)]
    assert 0.0 < off[1] < 1.1e-3
    assert max(off[0], *off[2:]) < 2.3e-4


def test_where_bonds_are_few_each_has_its_own() -> None:
    r = lengths()[: 4 * KNOTS - 1]
    places, step = knots(r, CUTOFF)
    assert places is r
    assert step == 0.0


def test_tables_are_for_learning_alone() -> None:
    """A stride is then off by less than a hundredth of the best errors that are trained."""
    model, frame = propagator(), crystal()
    ends = frame.edge_index.repeat_interleave(4, 1)
    across = (frame.shifts.to(frame.cell) @ frame.cell).repeat_interleave(4, 0)
    vectors = frame.positions[ends[1]] - frame.positions[ends[0]] + across
    assert len(vectors) > 4 * KNOTS

    def stride() -> Tensor:
        with torch.no_grad():
            return torch.as_tensor(model.network(vectors, frame.velocities, frame.species, ends))

    exact = stride()
    model.network.tabling = True  # type: ignore[assignment]
    learning = stride()
    model.eval()
    torch.testing.assert_close(stride(), exact, rtol=0.0, atol=0.0)
    assert 0.0 < float((learning - exact).norm() / exact.norm()) < 1e-4
