"""Edge frames and Wigner matrices: orthogonal, without a pole, and equal to e3nn's."""

from __future__ import annotations

import math

import pytest
import torch
from e3nn import o3

from equistride.errors import EquistrideError
from equistride.nn.rotation import WignerRotation, bond_frame, coefficient_order

AXES = torch.cat([torch.eye(3), -torch.eye(3)]).double()


def directions(count: int, seed: int = 0) -> torch.Tensor:
    """Return random unit vectors, then the axes, then vectors within 1e-12..1e-3 rad of them."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    near = [AXES + angle * torch.randn(6, 3, generator=generator, dtype=torch.float64) for angle in (1e-12, 1e-6, 1e-3)]
    return torch.nn.functional.normalize(torch.cat([spread, AXES, *near]), dim=1)


def l_major(l_max: int) -> torch.Tensor:
    """Return the positions that undo the m-major order of a full set of coefficients."""
    return torch.argsort(torch.tensor(coefficient_order(l_max, l_max)[0]))


def test_frame_turns_the_bond_into_y() -> None:
    n = directions(200)
    frame = bond_frame(n)
    assert torch.allclose(frame @ frame.transpose(1, 2), torch.eye(3).double(), rtol=0, atol=1e-14)
    assert torch.allclose(torch.linalg.det(frame), torch.ones(len(n)).double(), rtol=0, atol=1e-14)
    turned = (frame @ n[:, :, None])[:, :, 0]
    assert torch.allclose(turned, AXES[1].expand_as(turned), rtol=0, atol=1e-14)


@pytest.mark.usefixtures("double_by_default")
def test_matrices_are_orthogonal_and_equal_e3nn() -> None:
    n = directions(100)
    matrices = WignerRotation(4, 4)(n)[:, l_major(4)]
    frame = bond_frame(n)
    for degree in range(5):
        rows = slice(degree**2, (degree + 1) ** 2)
        block = matrices[:, rows, rows]
        assert torch.allclose(block @ block.transpose(1, 2), torch.eye(2 * degree + 1).double(), rtol=0, atol=1e-13)
        expected = o3.Irrep(degree, 1).D_from_matrix(frame)
        # e3nn goes over the cosine of an angle, which loses half the digits next to the y axis
        assert (block - expected)[:100].abs().max() < 1e-12
        assert (block - expected).abs().max() < 1e-7
        matrices[:, rows, rows] = 0
    assert matrices.abs().max() == 0


def test_matrices_turn_harmonics() -> None:
    """Y(R x) = D(R) Y(x) for any x, with e3nn's harmonics, which are polynomials and exact."""
    n = directions(50)
    x = torch.nn.functional.normalize(
        torch.randn(len(n), 3, generator=torch.Generator().manual_seed(1)).double(), dim=1
    )

    def harmonics(vectors: torch.Tensor) -> torch.Tensor:
        return o3.spherical_harmonics(list(range(5)), vectors, normalize=False, normalization="norm")

    matrices = WignerRotation(4, 4)(n)[:, l_major(4)]
    turned = (matrices @ harmonics(x)[:, :, None])[:, :, 0]
    assert torch.allclose(turned, harmonics((bond_frame(n) @ x[:, :, None])[:, :, 0]), rtol=0, atol=1e-13)


@pytest.mark.parametrize(("l_max", "m_max", "rows"), [(1, 1, 4), (2, 2, 9), (3, 2, 14), (4, 2, 19), (3, 0, 4)])
def test_truncation_keeps_low_orders(l_max: int, m_max: int, rows: int) -> None:
    n = directions(5)
    order, degrees = coefficient_order(l_max, m_max)
    assert len(order) == rows == len(set(order))
    assert degrees == [math.isqrt(k) for k in order]
    assert all(abs(k - degree * (degree + 1)) <= m_max for k, degree in zip(order, degrees, strict=True))
    full = WignerRotation(l_max, l_max)(n)[:, l_major(l_max)]
    assert torch.equal(WignerRotation(l_max, m_max)(n), full[:, order])


def test_gradients_exist_at_the_poles() -> None:
    def of_vector(vector: torch.Tensor) -> torch.Tensor:
        return WignerRotation(3, 2)(vector / torch.linalg.vector_norm(vector, dim=1, keepdim=True))

    # e_x and e_y have z = 0, where the frame jumps by a roll: a finite difference along z must not step over it
    tilted = torch.nn.functional.normalize(AXES + torch.tensor([0.0, 0.0, 1e-3]), dim=1)
    assert torch.autograd.gradcheck(of_vector, tilted.requires_grad_(True), eps=1e-6, atol=1e-7)


def test_orders_above_the_degree_are_refused() -> None:
    with pytest.raises(EquistrideError, match="m_max must lie between 0 and l_max; expected 0 <= m_max <= 2; found 3"):
        WignerRotation(2, 3)
