"""The GPU gives the lists of the CPU, edge for edge, and runs inside a captured graph."""

from __future__ import annotations

import numpy as np
import pytest
import structures
import torch
from structures import Structure

from equistride.bench.timing import captured
from equistride.errors import EquistrideError
from equistride.graph import edge_vectors, neighbor_list

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that this torch can use"),
]

OPS = torch.ops.equistride
LARGE = [
    (structures.quartz((9, 9, 6), rattle=0.05), 6.0),
    (structures.uniform(30000, np.eye(3) * 66.9, (True, True, True), seed=1), 5.0),
]
CASES = [pytest.param(s, c, id=s.name.replace(" ", "-")) for s, c in structures.awkward() + LARGE]
WALK = structures.quartz((3, 3, 3), rattle=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("structure", "cutoff"), CASES)
def test_list_equals_the_cpu(structure: Structure, cutoff: float, dtype: torch.dtype) -> None:
    expected = neighbor_list(*structure.tensors(dtype), cutoff)
    found = neighbor_list(*structure.tensors(dtype, "cuda"), cutoff)
    assert found[0].is_cuda
    assert torch.equal(found[0].cpu(), expected[0])
    assert torch.equal(found[1].cpu(), expected[1])


@pytest.mark.parametrize("room", [0, 37, -1])
@pytest.mark.parametrize(("structure", "cutoff"), CASES)
def test_padded_lists_equal_the_cpu(structure: Structure, cutoff: float, room: int) -> None:
    inputs = structure.tensors()
    capacity = max(OPS.neighbors(*inputs, cutoff)[0].size(1) + room, 0)
    expected = OPS.neighbors_padded(*inputs, cutoff, capacity, 6)
    found = OPS.neighbors_padded(*structure.tensors(device="cuda"), cutoff, capacity, 6)
    assert all(torch.equal(a.cpu(), b) for a, b in zip(found, expected, strict=True))


def test_padded_lists_run_inside_a_captured_graph() -> None:
    """Replays see new positions and a new cell; nothing waits for the host."""
    positions, cell, pbc = WALK.tensors(torch.float32, "cuda")
    replay, padded = captured(lambda: OPS.neighbors_padded(positions, cell, pbc, 5.0, 30000, 6))
    for seed in range(5):
        moved = structures.quartz((3, 3, 3), rattle=0.2, seed=seed)
        positions.copy_(torch.tensor(moved.positions * 1.01))
        cell.copy_(torch.tensor(moved.cell * 1.01))
        replay()
        expected = OPS.neighbors_padded(positions.cpu(), cell.cpu(), pbc.cpu(), 5.0, 30000, 6)
        assert all(torch.equal(a.cpu(), b) for a, b in zip(padded, expected, strict=True))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_vectors_and_gradients_equal_the_cpu_and_repeat(dtype: torch.dtype, tolerance: float) -> None:
    """Sums of some 60 gradients an atom, 10^4 on the cell: the tolerance is relative to the largest."""
    results = []
    for device in ("cpu", "cuda", "cuda"):
        positions, cell, pbc = structures.unwrapped(WALK, 2).tensors(dtype, device)
        edges, shifts = neighbor_list(positions, cell, pbc, 5.0)
        r, h = positions.requires_grad_(), cell.requires_grad_()
        vectors = edge_vectors(r, h, edges, shifts)
        weight = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(0), dtype=dtype).to(device)
        results.append(
            [
                vectors.detach().cpu(),
                *[g.cpu() for g in torch.autograd.grad((vectors * weight).sum(), (r, h))],
            ]
        )
    for host, first, second in zip(*results, strict=True):
        assert torch.allclose(host, first, rtol=0, atol=tolerance * float(host.abs().max()))
        assert torch.equal(first, second)


def test_gradcheck_on_the_gpu() -> None:
    positions, cell, pbc = structures.quartz(rattle=0.1).tensors(device="cuda")
    edges, shifts = neighbor_list(positions, cell, pbc, 3.0)
    inputs = (positions.requires_grad_(), cell.requires_grad_())
    assert torch.autograd.gradcheck(lambda r, h: edge_vectors(r, h, edges, shifts), inputs)
    assert torch.autograd.gradgradcheck(
        lambda r, h: edge_vectors(r, h, edges, shifts).square().sum(dim=1).sqrt(), inputs
    )


def test_edges_that_name_no_atom_give_nan() -> None:
    edges = torch.tensor([[0, 5], [1, 0]], device="cuda")
    vectors = edge_vectors(
        torch.ones(2, 3, device="cuda"),
        torch.eye(3, device="cuda"),
        edges,
        torch.zeros(2, 3, dtype=torch.int32, device="cuda"),
    )
    assert torch.equal(vectors[0].cpu(), torch.zeros(3))
    assert vectors[1].isnan().all()


def test_bad_input() -> None:
    positions, cell, pbc = WALK.tensors(device="cuda")
    for bad, box, says in [
        (positions * float("nan"), cell, "positions must be finite"),
        (positions, cell * 0, "the cell must have independent, finite vectors"),
        (positions, cell * 1e-5, "reaches over too many periodic images"),
    ]:
        with pytest.raises(EquistrideError, match=says):
            neighbor_list(bad, box, pbc, 5.0)


@pytest.mark.parametrize("atoms", [0, 1])
def test_hardly_any_atoms(atoms: int) -> None:
    inputs = (torch.zeros(atoms, 3, device="cuda"), torch.eye(3, device="cuda") * 9)
    assert neighbor_list(*inputs, True, 5.0)[0].shape == (2, 0)
