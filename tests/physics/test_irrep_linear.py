"""Linear maps of irreps: a matrix product for irreps with the same channels, whatever their rows; weights scaled once."""

from __future__ import annotations

import pytest
import torch
from e3nn.o3 import Irrep
from torch import Tensor, nn

from equistride.nn.equivariant import Block, IrrepLinear, SpeciesLinear
from equistride.nn.scalar_network import ScalarNetwork
from equistride.nn.speed import SpeedBasis

BLOCKS = [Block(Irrep("0e"), 5, 4), Block(Irrep("1o"), 3, 4), Block(Irrep("2e"), 2, 6)]


def test_one_product_an_irrep_gives_what_one_a_row_gives() -> None:
    """On a GPU nine thin products were nine launches, which took four times as long as their arithmetic."""
    torch.manual_seed(0)
    linear = IrrepLinear(BLOCKS, bias=True).double()
    x = torch.randn(7, 5 + 3 * 3 + 5 * 2, dtype=torch.float64)
    rows, names = calls(linear, x)
    assert names.count("aten::bmm") + names.count("aten::mm") == len(BLOCKS)
    weights = linear.weight.split(linear.sizes)
    columns = x.split([5, 3, 3, 3, 2, 2, 2, 2, 2], 1)
    for row, block in enumerate([0, 1, 1, 1, 2, 2, 2, 2, 2]):
        expected = columns[row] @ weights[block].view(linear.shapes[block]) * linear.scales[block]
        expected = expected + linear.bias if block == 0 else expected
        assert torch.allclose(rows[row], expected, rtol=0, atol=1e-14)


def calls(linear: nn.Module, x: Tensor) -> tuple[list[Tensor], list[str]]:
    """What it returns, and torch's operators on the way."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        found = linear(x)
    return found, [event.name for event in profile.events()]


def test_irreps_with_the_same_channels_are_one_product() -> None:
    blocks = [
        Block(Irrep(ir), *channels) for ir, channels in (("0e", (4, 6)), ("1o", (4, 6)), ("1e", (3, 6)), ("2e", (3, 6)))
    ]
    linear = IrrepLinear(blocks).double().requires_grad_(False)
    x = torch.randn(7, sum(block.irrep.dim * block.channels_in for block in blocks), dtype=torch.float64)
    apart = [IrrepLinear([block]).double().requires_grad_(False) for block in blocks]
    weights = linear.weight.split(linear.sizes)
    expected = []
    for one, weight, columns in zip(apart, weights, x.split([4, 12, 9, 15], 1), strict=True):
        one.weight.copy_(weight)
        expected += one(columns)
    found, names = calls(linear, x)
    assert all(map(torch.equal, found, expected))
    assert names.count("aten::bmm") == 2
    assert names.count("aten::clone") == 0  # rows are read where they lie


PACKED = {
    "irreps": (lambda: IrrepLinear(BLOCKS, divisor=1.7, bias=True), (24,)),
    "elements": (lambda: SpeciesLinear(BLOCKS, 2), (24, "species")),
    "scalars": (lambda: ScalarNetwork([24, 6, 5], biases=True), (24,)),
    "speeds": (lambda: SpeedBasis(9.0, 8, 2), (3, "one_hot")),
}


@pytest.mark.parametrize("kind", PACKED)
def test_packed_weights_give_the_same_bits(kind: str) -> None:
    """Scripted too, as engines run them."""
    make, (columns, *also) = PACKED[kind]
    torch.manual_seed(0)
    plain = make().requires_grad_(False)
    species = torch.tensor([0, 1, 1, 0, 1])
    more = [species if what == "species" else nn.functional.one_hot(species, 2).float() for what in also]
    x = torch.randn(5, columns)
    expected = plain(x, *more)
    scripted = torch.jit.script(plain)
    for model in (plain, scripted):
        parts = [part for part in model.modules() if hasattr(part, "pack")]
        assert parts
        for part in parts:
            part.pack()
        found = model(x, *more)
        for part in parts:
            part.unpack()
        again = model(x, *more)
        for result in (found, again):
            pairs = zip(result, expected, strict=True) if isinstance(expected, list) else [(result, expected)]
            assert all(torch.equal(ours, theirs) for ours, theirs in pairs)


def test_no_atoms() -> None:
    assert [tuple(row.shape) for row in IrrepLinear(BLOCKS)(torch.zeros(0, 24))] == [(0, 4)] * 4 + [(0, 6)] * 5
