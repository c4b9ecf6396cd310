"""Non-linearities at points of a sphere: coefficients become values at grid points, change there, and are projected back.

A function of finitely many points commutes with rotations only as far as the grid resolves its result: energies are smooth,
but invariant to the grid's error alone (10^-3 of a force at the published resolution, less with a finer grid).
"""

import math

import torch
from e3nn.o3 import FromS2Grid, ToS2Grid
from torch import Tensor, nn

from equistride.errors import EquistrideError
from equistride.nn.constants import default_dtype
from equistride.nn.rotation import coefficient_order


def grid_shape(l_max: int, m_max: int, resolution: int | None) -> tuple[int, int]:
    """Return the numbers of polar and azimuthal angles: ``resolution`` for both, or those of the published networks.

    Raises
    ------
    EquistrideError
        For an odd resolution or one that cannot hold ``l_max``.
    """
    if resolution is None:
        return 2 * (l_max + 1), 2 * (m_max + 1) + 1 if m_max == l_max else 2 * m_max + 1
    least = 2 * (l_max + 1)
    if resolution < least or resolution % 2:
        raise EquistrideError(
            "the grid on the sphere does not fit the degrees",
            expected=f"an even number, {least} or more for l_max {l_max}",
            found=resolution,
            hint="set model.s2_resolution",
        )
    return resolution, resolution


def sphere_grid(
    l_max: int, m_max: int, resolution: int | None = None, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """Return the matrices from coefficients to grid points [G, K] and back [K, G], float64.

    Parameters
    ----------
    l_max, m_max
        Degrees and orders of the coefficients. Where an order is missing, degrees above ``m_max`` are scaled up by
        sqrt((2l + 1) / (2 m_max + 1)), as in eSCN (arXiv 2302.03655).
    resolution
        See :func:`grid_shape`.
    dtype
        Precision in which the tables are made.

    Notes
    -----
    Columns are l-major where ``m_max == l_max`` and m-major (:func:`equistride.nn.rotation.coefficient_order`) otherwise
    and wherever a bond frame is meant: use :func:`bond_grid` there.
    """
    shape = grid_shape(l_max, m_max, resolution)
    with default_dtype(dtype):
        forward, backward = (
            ToS2Grid(l_max, shape, normalization="integral"),
            FromS2Grid(shape, l_max, normalization="integral"),
        )
        to_grid = torch.einsum("mbi,am->bai", forward.shb, forward.sha).clone()
        from_grid = torch.einsum("am,mbi->bai", backward.sha, backward.shb).clone()
    if m_max < l_max:
        for degree in range(m_max + 1, l_max + 1):
            rows = slice(degree * degree, (degree + 1) ** 2)
            factor = math.sqrt((2 * degree + 1) / (2 * m_max + 1))
            to_grid[:, :, rows] *= factor
            from_grid[:, :, rows] *= factor
    return to_grid.flatten(0, 1).double(), from_grid.flatten(0, 1).t().contiguous().double()


def bond_grid(
    l_max: int, m_max: int, resolution: int | None = None, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """Return :func:`sphere_grid` for the m-major rows of a bond frame: [G, K] and [K, G]."""
    to_grid, from_grid = sphere_grid(l_max, m_max, resolution, dtype)
    order = torch.tensor(coefficient_order(l_max, m_max)[0])
    return to_grid[:, order].contiguous(), from_grid[order].contiguous()


class SphereActivation(nn.Module):
    """SiLU at the points of a grid around each bond; the scalar row is SiLU of its own gate scalars instead.

    The interface is that of :class:`equistride.nn.spherical.Gate`.
    """

    to_grid: Tensor
    from_grid: Tensor

    def __init__(
        self, l_max: int, m_max: int, resolution: int | None = None, dtype: torch.dtype = torch.float64
    ) -> None:
        super().__init__()
        to_grid, from_grid = bond_grid(l_max, m_max, resolution, dtype)
        self.register_buffer("to_grid", to_grid, persistent=False)
        self.register_buffer("from_grid", from_grid[1:].contiguous(), persistent=False)

    def forward(self, x: Tensor, gates: Tensor) -> Tensor:
        """Return [E, K, C] for ``x`` of that shape and ``gates`` [E, C]."""
        values = nn.functional.silu(torch.matmul(self.to_grid, x))
        return torch.cat([nn.functional.silu(gates)[:, None], torch.matmul(self.from_grid, values)], 1)


class GridFeedForward(nn.Module):
    """Pointwise network of three linear layers without bias on each atom's features as a function on the sphere."""

    to_grid: Tensor
    from_grid: Tensor

    def __init__(
        self, l_max: int, channels: int, hidden: int, resolution: int | None = None, dtype: torch.dtype = torch.float64
    ) -> None:
        super().__init__()
        to_grid, from_grid = sphere_grid(l_max, l_max, resolution, dtype)
        self.register_buffer("to_grid", to_grid, persistent=False)
        self.register_buffer("from_grid", from_grid, persistent=False)
        self.first = nn.Linear(channels, hidden, bias=False)
        self.second = nn.Linear(hidden, hidden, bias=False)
        self.last = nn.Linear(hidden, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, (l_max+1)^2, channels] to the same shape."""
        y = nn.functional.silu(self.first(torch.matmul(self.to_grid, x)))
        y = self.last(nn.functional.silu(self.second(y)))
        return torch.matmul(self.from_grid, y)
