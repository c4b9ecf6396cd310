"""The neighbour lists' CUDA kernels, run on the host with every thread of a GPU emulated, give the CPU's lists edge for edge."""

from __future__ import annotations

import pytest
import structures
import torch
from emulation import launches_of
from structures import Structure

CPU = torch.ops.equistride
EMULATES = ("neighbors",)
ORDERS = [0, 1, 7]
"""Threads and blocks in their order, in the reverse, threads at random."""


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("structure", "cutoff"), [pytest.param(s, c, id=s.name.replace(" ", "-")) for s, c in structures.awkward()]
)
def test_neighbors_equal_the_cpu(
    structure: Structure, cutoff: float, dtype: torch.dtype, emulated: torch._ops._OpNamespace
) -> None:
    """Lists edge for edge, vectors bit for bit, gradients to rounding; in any order of the threads."""
    inputs = structure.tensors(dtype)
    expected = CPU.neighbors(*inputs, cutoff)
    edges = expected[0].size(1)
    rooms = [(edges + more, extra) for more, extra in ((0, 2), (37, 6), (-1, 4)) if edges > 0]
    padded = [CPU.neighbors_padded(*inputs, cutoff, *room) for room in rooms]
    vectors = CPU.edge_vectors(*inputs[:2], *expected)
    grad = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    gradients = CPU.edge_vectors_backward(grad, *expected, len(inputs[0]))
    # Of some 60 gradients an atom, 10^4 on the cell; with one atom they cancel.
    tolerance = 1e-13 if dtype is torch.float64 else 1e-5
    for order in ORDERS[::2]:
        emulated.set_order(order)
        assert all(map(torch.equal, emulated.neighbors(*inputs, cutoff), expected))
        for room, wanted in zip(rooms, padded, strict=True):
            assert all(map(torch.equal, emulated.neighbors_padded(*inputs, cutoff, *room), wanted))
        assert torch.equal(emulated.edge_vectors(*inputs[:2], *expected), vectors)
        for ours, theirs in zip(
            emulated.edge_vectors_backward(grad, *expected, len(inputs[0])), gradients, strict=True
        ):
            assert torch.allclose(ours, theirs, rtol=0, atol=tolerance * max(1.0, float(grad.norm())))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_list_takes_nine_launches(dtype: torch.dtype, emulated: torch._ops._OpNamespace) -> None:
    """Where each takes 1.9 us of a GPU that has nothing to compute, 21 of them took longer than the search."""
    inputs = structures.quartz((2, 2, 2)).tensors(dtype)
    assert launches_of(emulated, lambda: emulated.neighbors_padded(*inputs, 5.0, 4000, 2)) <= 9
    assert launches_of(emulated, lambda: CPU.neighbors_padded(*inputs, 5.0, 4000, 2)) < 9


def test_rows_that_overflow(emulated: torch._ops._OpNamespace) -> None:
    """Sixty atoms in a drop among 400 that are alone: room for 47 keys a row by the mean, and 59 are found."""
    generator = torch.Generator().manual_seed(4)
    drop = 100 + torch.rand(60, 3, generator=generator, dtype=torch.float64)
    alone = 10.0 * torch.cartesian_prod(*[torch.arange(8.0, dtype=torch.float64)] * 3)[:400]
    inputs = (torch.cat([alone[:200], drop, alone[200:]]), torch.eye(3, dtype=torch.float64), torch.tensor([False] * 3))
    expected = CPU.neighbors_padded(*inputs, 3.0, 3600, 4)
    assert expected[2].tolist() == [60 * 59, 0]
    for order in ORDERS:
        emulated.set_order(order)
        assert all(map(torch.equal, emulated.neighbors_padded(*inputs, 3.0, 3600, 4), expected))


def test_lists_of_no_atoms(emulated: torch._ops._OpNamespace) -> None:
    inputs = (torch.zeros(0, 3), torch.eye(3), torch.tensor([True] * 3))
    for room in (0, 9):
        expected = CPU.neighbors_padded(*inputs, 3.0, room, 4)
        assert all(map(torch.equal, emulated.neighbors_padded(*inputs, 3.0, room, 4), expected))


@pytest.mark.parametrize("edges", [0, 1, 70000])
def test_the_virial_is_summed_in_double_precision(edges: int, emulated: torch._ops._OpNamespace) -> None:
    """Also where products of float32 may be rounded: 1e-7 of the sum of sizes, as one rounding of the result."""
    generator = torch.Generator().manual_seed(1)
    vectors, gradient = (torch.randn(edges, 3, generator=generator) for _ in range(2))
    exact = -vectors.double().T @ gradient.double()
    size = vectors.double().abs().T @ gradient.double().abs()
    found = emulated.edge_virial(vectors, gradient)
    assert bool(((found.double() - exact).abs() <= 1e-7 * size).all())
    doubles = (vectors.double(), gradient.double())
    assert torch.allclose(emulated.edge_virial(*doubles), CPU.edge_virial(*doubles), rtol=0, atol=1e-11)
    with pytest.raises(ValueError, match="one row an edge"):
        emulated.edge_virial(vectors, torch.zeros(edges + 1, 3))


def test_bad_structures_are_named_as_on_the_cpu(emulated: torch._ops._OpNamespace) -> None:
    positions, cell, pbc = structures.quartz((2, 2, 2)).tensors()
    for bad, box, says in [
        (positions * float("nan"), cell, "positions must be finite"),
        (positions, cell * 0, "the cell must have independent, finite vectors"),
        (positions, cell * 1e-5, "reaches over too many periodic images"),
    ]:
        with pytest.raises(ValueError, match=says):
            emulated.neighbors(bad, box, pbc, 5.0)
        edges, shifts, summary = emulated.neighbors_padded(bad, box, pbc, 5.0, 50, 4)
        assert summary[1] > 0  # and all places are padding
        assert bool((edges >= len(bad)).all())
        assert not shifts.any()
