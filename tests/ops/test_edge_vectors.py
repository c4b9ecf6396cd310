"""Edge vectors: values, first and second derivatives, determinism."""

from __future__ import annotations

import numpy as np
import pytest
import structures
import torch
from torch import Tensor

from equistride.errors import EquistrideError
from equistride.graph import edge_vectors, neighbor_list

OPS = torch.ops.equistride


def case(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Nine atoms of rattled quartz, unwrapped, with shifts beyond one."""
    positions, cell, pbc = structures.unwrapped(structures.quartz(rattle=0.1), 2).tensors(dtype)
    return positions, cell, *neighbor_list(positions, cell, pbc, 3.0)


def plain(positions: Tensor, cell: Tensor, edge_index: Tensor, shifts: Tensor) -> Tensor:
    return positions[edge_index[1]] - positions[edge_index[0]] + shifts.to(cell.dtype) @ cell


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 2e-5)])
def test_values_and_gradients_equal_plain_torch(dtype: torch.dtype, tolerance: float) -> None:
    """Positions reach 20 A, where float32 resolves 2e-6; gradients are sums over some 50 edges."""
    positions, cell, edges, shifts = case(dtype)
    weight = torch.randn(edges.shape[1], 3, generator=torch.Generator().manual_seed(0), dtype=dtype)
    results = []
    for function in (edge_vectors, plain):
        r, h = positions.clone().requires_grad_(), cell.clone().requires_grad_()
        vectors = function(r, h, edges, shifts)
        results.append((vectors.detach(), *torch.autograd.grad((vectors * weight).sum(), (r, h))))
    for ours, expected in zip(*results, strict=True):
        assert ours.dtype == dtype
        assert torch.allclose(ours, expected, rtol=0, atol=tolerance * (1 + float(expected.abs().max())))


def test_lengths_lie_below_the_cutoff() -> None:
    positions, cell, edges, shifts = case()
    lengths = torch.linalg.vector_norm(edge_vectors(positions, cell, edges, shifts), dim=1)
    assert lengths.max() < 3.0
    assert lengths.min() > 1.0


def test_gradcheck_and_gradgradcheck() -> None:
    positions, cell, edges, shifts = case()
    inputs = (positions.requires_grad_(), cell.requires_grad_())
    # Not linear in what follows, so that the second derivative is not trivially zero.
    assert torch.autograd.gradcheck(lambda r, h: edge_vectors(r, h, edges, shifts), inputs)
    assert torch.autograd.gradgradcheck(
        lambda r, h: edge_vectors(r, h, edges, shifts).square().sum(dim=1).sqrt(), inputs
    )


def test_backward_operator_has_its_own_gradient() -> None:
    _, _, edges, shifts = case()
    grad = torch.randn(
        edges.shape[1], 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True
    )
    assert torch.autograd.gradcheck(lambda g: OPS.edge_vectors_backward(g, edges, shifts, 9), (grad,))
    assert torch.autograd.gradgradcheck(lambda g: OPS.edge_vectors_backward(g, edges, shifts, 9), (grad,))


@pytest.mark.parametrize("wrt", [0, 1])
def test_one_input_alone_may_need_a_gradient(wrt: int) -> None:
    positions, cell, edges, shifts = case()
    inputs = [positions, cell]
    inputs[wrt] = inputs[wrt].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(
        edge_vectors(*inputs, edges, shifts).square().sum(), inputs[wrt], create_graph=True
    )
    (second,) = torch.autograd.grad(gradient.square().sum(), inputs[wrt])
    assert torch.isfinite(second).all()


def test_virial_from_the_cell_gradient_equals_the_sum_over_edges() -> None:
    """A strain acts on positions and cell: h^T dE/dh + r^T dE/dr = sum over edges of r_ij (x) dE/dr_ij."""
    positions, cell, edges, shifts = case()
    r, h = positions.requires_grad_(), cell.requires_grad_()
    vectors = edge_vectors(r, h, edges, shifts)
    energy = (-vectors.square().sum(dim=1)).exp().sum()
    on_edges, on_r, on_h = torch.autograd.grad(energy, (vectors, r, h))
    assert torch.allclose(r.T @ on_r + h.T @ on_h, vectors.detach().T @ on_edges, rtol=0, atol=1e-12)
    assert torch.allclose(on_r.sum(dim=0), torch.zeros(3, dtype=torch.float64), atol=1e-13)


def test_gradients_do_not_depend_on_the_threads() -> None:
    """Bit for bit, with edges enough for three."""
    positions, cell, pbc = structures.quartz((6, 6, 4), rattle=0.1).tensors(torch.float32)
    edges, shifts = neighbor_list(positions, cell, pbc, 10.0)
    assert edges.shape[1] > 400_000
    grad = torch.randn(edges.shape[1], 3, generator=torch.Generator().manual_seed(2))
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(OPS.edge_vectors_backward(grad, edges, shifts, len(positions)))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert torch.equal(results[0][0], other[0])
        assert torch.equal(results[0][1], other[1])


def test_any_order_and_memory_layout_of_the_edges() -> None:
    positions, cell, edges, shifts = case()
    order = torch.randperm(edges.shape[1], generator=torch.Generator().manual_seed(3))
    strided = positions.T.contiguous().T.requires_grad_()
    vectors = edge_vectors(strided, cell, edges[:, order], shifts[order])
    assert torch.allclose(vectors, plain(positions, cell, edges, shifts)[order], rtol=0, atol=1e-13)
    (ours,) = torch.autograd.grad(vectors.square().sum(), strided)
    r = positions.clone().requires_grad_()
    (expected,) = torch.autograd.grad(plain(r, cell, edges, shifts).square().sum(), r)
    assert torch.allclose(ours, expected, rtol=0, atol=1e-11)


def test_no_edges() -> None:
    r = torch.zeros(2, 3, requires_grad=True)
    vectors = edge_vectors(r, torch.eye(3), torch.zeros(2, 0, dtype=torch.int64), torch.zeros(0, 3, dtype=torch.int32))
    (gradient,) = torch.autograd.grad(vectors.sum(), r)
    assert vectors.shape == (0, 3)
    assert np.array_equal(gradient.numpy(), np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({0: torch.zeros(9, 2)}, r"positions must have shape \[N, 3\]"),
        ({0: torch.zeros(9, 3, dtype=torch.int64)}, "positions must be float32 or float64"),
        ({1: torch.zeros(3, 3)}, "cell must have the type of the positions"),
        ({1: torch.zeros(9)}, r"cell must have shape \[3, 3\]"),
        (
            {2: torch.zeros(2, 4, dtype=torch.int32), 3: torch.zeros(4, 3, dtype=torch.int32)},
            "edge_index must be int64",
        ),
        ({3: torch.zeros(4, 3, dtype=torch.int32)}, r"shifts must have shape \[E, 3\]"),
        (
            {2: torch.tensor([[0], [9]]), 3: torch.zeros(1, 3, dtype=torch.int32)},
            "edge_index must name atoms from 0 to 8; found 9",
        ),
        (
            {2: torch.tensor([[-1], [0]]), 3: torch.zeros(1, 3, dtype=torch.int32)},
            "edge_index must name atoms from 0 to 8; found -1",
        ),
    ],
)
def test_bad_input(change: dict[int, Tensor], says: str) -> None:
    inputs = list(case())
    for place, value in change.items():
        inputs[place] = value
    with pytest.raises(EquistrideError, match=says):
        edge_vectors(*inputs)
