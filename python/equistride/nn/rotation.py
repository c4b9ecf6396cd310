"""Edge frames without a pole, and the Wigner matrices that turn features into them.

The bond direction n becomes the polar axis (+y in the order x, y, z of real l = 1 harmonics). The frame is the branch-free
orthonormal basis of Duff et al., J. Comput. Graph. Tech. 6, 1 (2017): its denominators are at least one, so values and
gradients are exact for every direction; it jumps by a roll about n where n_z changes sign, which a network that is
equivariant to that roll does not see.
"""

import torch
from e3nn.o3 import wigner_3j
from torch import Tensor, nn

from equistride.errors import EquistrideError


def bond_frame(directions: Tensor) -> Tensor:
    """Return rotations R [E, 3, 3] with R n = (0, 1, 0) for unit vectors n [E, 3]."""
    x, y, z = directions.unbind(1)
    s = torch.where(z >= 0, torch.ones_like(z), -torch.ones_like(z))
    a = -1.0 / (s + z)
    b = x * y * a
    rows = [b, s + y * y * a, -y, x, y, z, 1.0 + s * x * x * a, s * b, -s * x]
    return torch.stack(rows, 1).view(-1, 3, 3)


def coefficient_order(l_max: int, m_max: int) -> tuple[list[int], list[int]]:
    """Return the m-major order of the coefficients with ``|m| <= m_max`` and the degree of each.

    m = 0 first (l = 0..l_max), then for each m > 0 the rows +m (l = m..l_max) and the rows -m. The entries are
    positions in the usual l-major order, ``l^2 + l + m``.
    """
    pairs = [(degree, 0) for degree in range(l_max + 1)]
    for m in range(1, m_max + 1):
        pairs += [(degree, m) for degree in range(m, l_max + 1)]
        pairs += [(degree, -m) for degree in range(m, l_max + 1)]
    return [degree * degree + degree + m for degree, m in pairs], [degree for degree, _ in pairs]


class ConstantTable(nn.Module):
    """One constant tensor; not part of the state dict."""

    table: Tensor

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.register_buffer("table", table, persistent=False)

    def forward(self) -> Tensor:
        """Return the constant."""
        return self.table


class WignerRotation(nn.Module):
    """Rotate spherical-harmonic coefficients into the frame of each bond.

    Parameters
    ----------
    l_max, m_max
        Highest degree, and highest order kept in the bond frame (0 <= m_max <= l_max).

    Notes
    -----
    D^l follows from D^(l-1) and D^1 by the Clebsch-Gordan recursion, a polynomial in the entries of R.
    """

    order: Tensor

    def __init__(self, l_max: int, m_max: int) -> None:
        super().__init__()
        if not 0 <= m_max <= l_max:
            raise EquistrideError("m_max must lie between 0 and l_max", expected=f"0 <= m_max <= {l_max}", found=m_max)
        self.l_max = l_max
        order, _ = coefficient_order(l_max, m_max)
        self.num_rows, self.size = len(order), (l_max + 1) ** 2
        self.register_buffer("order", torch.tensor(order), persistent=False)
        tables = []
        for degree in range(2, l_max + 1):
            w3j = wigner_3j(degree - 1, 1, degree, dtype=torch.float64) * (2 * degree + 1) ** 0.5
            tables.append(w3j.reshape(-1, 2 * degree + 1).T.contiguous())
        self.couplings = nn.ModuleList(ConstantTable(t) for t in tables)

    def forward(self, directions: Tensor) -> Tensor:
        """Return D [E, K, (l_max+1)^2] for unit vectors [E, 3]; rows m-major (:func:`coefficient_order`)."""
        num_edges = directions.size(0)
        rotation = bond_frame(directions)
        blocks = [torch.ones(num_edges, 1, 1, dtype=directions.dtype, device=directions.device)]
        if self.l_max > 0:
            blocks.append(rotation)
        last = rotation
        for holder in self.couplings:
            coupling = holder()
            n = last.size(1)
            product = (last[:, :, None, :, None] * rotation[:, None, :, None, :]).reshape(num_edges, 3 * n, 3 * n)
            last = torch.matmul(coupling, torch.matmul(product, coupling.t()))
            blocks.append(last)
        rows: list[Tensor] = []
        start = 0
        for block in blocks:
            n = block.size(1)
            rows.append(nn.functional.pad(block, (start, self.size - start - n)))
            start += n
        return torch.cat(rows, 1).index_select(1, self.order)
