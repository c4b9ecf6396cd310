"""Linear maps of irreps: a matrix product an irrep, whatever its rows."""

from __future__ import annotations

import torch
from e3nn.o3 import Irrep

from equistride.nn.equivariant import Block, IrrepLinear

BLOCKS = [Block(Irrep("0e"), 5, 4), Block(Irrep("1o"), 3, 4), Block(Irrep("2e"), 2, 6)]


def test_one_product_an_irrep_gives_what_one_a_row_gives() -> None:
    """On a GPU nine thin products were nine launches, which took four times as long as their arithmetic."""
    torch.manual_seed(0)
    linear = IrrepLinear(BLOCKS, bias=True).double()
    x = torch.randn(7, 5 + 3 * 3 + 5 * 2, dtype=torch.float64)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        rows = linear(x)
    names = [event.name for event in profile.events()]
    assert names.count("aten::bmm") + names.count("aten::mm") == len(BLOCKS)
    weights = linear.weight.split(linear.sizes)
    columns = x.split([5, 3, 3, 3, 2, 2, 2, 2, 2], 1)
    for row, block in enumerate([0, 1, 1, 1, 2, 2, 2, 2, 2]):
        expected = columns[row] @ weights[block].view(linear.shapes[block]) * linear.scales[block]
        expected = expected + linear.bias if block == 0 else expected
        assert torch.allclose(rows[row], expected, rtol=0, atol=1e-14)


def test_no_atoms() -> None:
    assert [tuple(row.shape) for row in IrrepLinear(BLOCKS)(torch.zeros(0, 24))] == [(0, 4)] * 4 + [(0, 6)] * 5
