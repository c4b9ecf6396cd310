"""The neighbour list in plain torch: the readable reference of the native operator.

It needs no custom operator and can be scripted, so it also serves in exported files for stock engines.
It gives the same list as ``torch.ops.equistride.neighbors``, in the same order.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def unit_cross(a: Tensor, b: Tensor) -> Tensor:
    """Return a x b / abs(a x b) of two vectors [3]."""
    normal = torch.linalg.cross(a, b)
    return normal / torch.linalg.vector_norm(normal)


def complete_lattice(cell: Tensor, pbc: Tensor) -> Tensor:
    """Return three independent rows [3, 3]: free axes get unit vectors square to the periodic ones."""
    rows = cell.clone()
    periodic = int(pbc.sum())
    if periodic == 0:
        rows = torch.eye(3, dtype=cell.dtype, device=cell.device)
    elif periodic == 1:
        k = int(torch.argmax(pbc.to(torch.int64)))
        axis = torch.zeros_like(rows[k])
        axis[int(torch.argmin(torch.abs(rows[k])))] = 1.0
        rows[(k + 1) % 3] = unit_cross(rows[k], axis)
        rows[(k + 2) % 3] = unit_cross(rows[k], rows[(k + 1) % 3])
    elif periodic == 2:
        k = int(torch.argmin(pbc.to(torch.int64)))
        rows[k] = unit_cross(rows[(k + 1) % 3], rows[(k + 2) % 3])
    return rows


def translate(images: Tensor, rows: Tensor) -> Tensor:
    """Return images @ rows [M, 3], summed in the order of the native operator."""
    n = images.to(rows.dtype)
    return (n[:, :1] * rows[0] + n[:, 1:2] * rows[1]) + n[:, 2:] * rows[2]


def choose_bins(rows: Tensor, pbc: Tensor, span: Tensor, cutoff: float, atoms: int) -> tuple[list[int], list[int]]:
    """Return how many bins each axis is cut into, none thinner than the cutoff, how many the cutoff spans.

    ``span`` [3] is the range of the fractional coordinates.
    """
    volume = float(torch.abs(torch.linalg.det(rows)))
    bins: list[int] = []
    reach: list[int] = []
    limit = 8 * math.ceil((atoms + 8) ** (1.0 / 3.0))  # keeps the bins few where atoms are rare
    for k in range(3):
        face = torch.linalg.cross(rows[(k + 1) % 3], rows[(k + 2) % 3])
        length = volume / float(torch.linalg.vector_norm(face)) * float(span[k])
        bins.append(min(max(math.floor(length / cutoff), 1), limit))
        reach.append(math.ceil(cutoff * bins[k] / length + 1e-6))
    return bins, reach


def neighbors_reference(
    positions: Tensor, cell: Tensor, pbc: Tensor, cutoff: float, pairs_at_once: int = 1_000_000
) -> tuple[Tensor, Tensor]:
    """Return every pair of atoms closer than the cutoff, from linked cells.

    Parameters
    ----------
    positions
        [N, 3] float32 or float64 [A], wrapped or not.
    cell
        [3, 3] [A], lattice vectors as rows; rows of axes without periodicity are not read.
    pbc
        bool [3].
    cutoff
        [A]; pairs with a distance strictly below it are listed.
    pairs_at_once
        Candidates examined in one go; bounds the memory, at about 200 bytes each.

    Returns
    -------
    edge_index
        [2, E] int64: receivers i, senders j; sorted by i, then j, then shift.
    shifts
        [E, 3] int32, with ``r_ij = r_j - r_i + shifts @ cell``.

    Raises
    ------
    ValueError
        Where the cell is singular along the periodic axes or a position is not finite.
    """
    atoms, device = positions.size(0), positions.device
    edges: list[Tensor] = [torch.zeros(2, 0, dtype=torch.int64, device=device)]
    shifts: list[Tensor] = [torch.zeros(0, 3, dtype=torch.int32, device=device)]
    if atoms == 0:
        return edges[0], shifts[0]
    rows = complete_lattice(cell.detach().to(torch.float64), pbc)
    volume = float(torch.abs(torch.linalg.det(rows)))
    if not volume > 1e-9 * float(torch.prod(torch.linalg.vector_norm(rows, dim=1))):
        raise ValueError("the cell must have independent, finite vectors along the periodic axes")
    if not bool(torch.isfinite(positions).all()):
        raise ValueError("positions must be finite")

    # Wrap into the cell; cut the cell into bins no thinner than the cutoff.
    position = positions.detach().to(torch.float64)
    fractional = position @ torch.linalg.inv(rows)
    wraps = torch.where(pbc, -torch.floor(fractional), torch.zeros_like(fractional))
    fractional = fractional + wraps
    position = position + translate(wraps, rows)
    low = torch.where(pbc, torch.zeros_like(fractional[0]), fractional.amin(dim=0))
    high = torch.where(pbc, torch.ones_like(fractional[0]), fractional.amax(dim=0))
    span = torch.where(pbc, high - low, (high - low).clamp(min=cutoff))
    bins, reach = choose_bins(rows, pbc, span, cutoff, atoms)
    counts = torch.tensor(bins, dtype=torch.int64, device=device)
    bin_at = torch.minimum(((fractional - low) / span * counts).to(torch.int64).clamp(min=0), counts - 1)
    strides = torch.tensor([bins[1] * bins[2], bins[2], 1], dtype=torch.int64, device=device)
    home = (bin_at * strides).sum(dim=1)
    order = torch.argsort(home)
    filled = torch.bincount(home, minlength=bins[0] * bins[1] * bins[2])
    start = torch.cumsum(filled, dim=0) - filled

    # Bins to look at, as steps from the own bin.
    steps = torch.cartesian_prod(
        torch.arange(-reach[0], reach[0] + 1, device=device),
        torch.arange(-reach[1], reach[1] + 1, device=device),
        torch.arange(-reach[2], reach[2] + 1, device=device),
    )
    most = max(int(filled.max()) * steps.size(0), 1)
    wide = [2 * reach[k] + 3 for k in range(3)]  # more than the image numbers that can occur
    chunk = max(1, pairs_at_once // most)
    for first in range(0, atoms, chunk):
        last = min(first + chunk, atoms)
        target = bin_at[first:last, None, :] + steps
        image = torch.div(target, counts, rounding_mode="floor")
        there = ((target - image * counts) * strides).sum(dim=2)
        allowed = (pbc | (image == 0)).all(dim=2)
        many = torch.where(allowed, filled[there], torch.zeros_like(there)).reshape(-1)
        total = int(many.sum())
        slot = torch.repeat_interleave(torch.arange(many.size(0), device=device), many)
        offset = torch.arange(total, device=device) - (torch.cumsum(many, dim=0) - many)[slot]
        j = order[start[there].reshape(-1)[slot] + offset]
        i = torch.div(slot, steps.size(0), rounding_mode="floor") + first
        s = image.reshape(-1, 3)[slot]
        d = (position[j] - position[i]) + translate(s, rows)
        d2 = (d[:, 0] * d[:, 0] + d[:, 1] * d[:, 1]) + d[:, 2] * d[:, 2]
        keep = torch.nonzero((d2 < cutoff * cutoff) & ((i != j) | (s != 0).any(dim=1)))[:, 0]
        i, j, s = i[keep], j[keep], s[keep]
        rank = i * atoms + j
        for k in range(3):
            rank = rank * wide[k] + (s[:, k] + reach[k] + 1)
        by_rank = torch.argsort(rank)
        i, j, s = i[by_rank], j[by_rank], s[by_rank]
        edges.append(torch.stack([i, j]))
        shifts.append((s + (wraps[j] - wraps[i]).to(torch.int64)).to(torch.int32))
    return torch.cat(edges, dim=1), torch.cat(shifts, dim=0)
