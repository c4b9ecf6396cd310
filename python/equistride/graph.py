"""Atoms to edges: neighbour lists and edge vectors (the only caller of the native operators).

An edge points from its sender j to its receiver i, with ``r_ij = r_j - r_i + shifts @ cell`` and
``|r_ij| < cutoff``. Lists are full (both directions, periodic images of an atom with itself included), sorted
by receiver, then sender, then shift, and symmetric: with (i, j, S) comes (j, i, -S). Shifts refer to the
positions as given, wrapped or not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, library

import equistride._library  # noqa: F401  (loads torch.ops.equistride)
from equistride.errors import EquistrideError

__all__ = ["edge_vectors", "neighbor_list"]


Flags = Tensor | Sequence[bool] | bool


@library.register_fake("equistride::neighbors")
def _neighbors_shapes(positions: Tensor, cell: Tensor, pbc: Tensor, cutoff: float) -> tuple[Tensor, Tensor]:
    edges = library.get_ctx().new_dynamic_size()
    return (
        positions.new_empty((2, edges), dtype=torch.int64),
        positions.new_empty((edges, 3), dtype=torch.int32),
    )


def _require(fine: bool, what: str, expected: object, found: object, hint: str) -> None:
    if not fine:
        raise EquistrideError(what, expected=expected, found=found, hint=hint)


def _check(positions: Tensor, cell: Tensor, pbc: Flags, cutoff: float) -> Tensor:
    """Refuse what can be seen without reading the tensors; return pbc as a tensor beside the positions."""
    for name, value in (("positions", positions), ("cell", cell)):
        kind = type(value).__name__
        _require(isinstance(value, Tensor), f"{name} is not a tensor", "torch.Tensor", kind, "use torch.as_tensor")
    shape, box = list(positions.shape), list(cell.shape)
    _require(
        len(shape) == 2 and shape[1] == 3,
        "the positions have a wrong shape",
        "[N, 3]",
        shape,
        "one row an atom",
    )
    _require(box == [3, 3], "the cell has a wrong shape", "[3, 3], vectors as rows", box, "see torch.diag(lengths)")
    dtype, place = positions.dtype, positions.device
    real = dtype in (torch.float32, torch.float64)
    _require(real, "the positions have a wrong type", "float32 or float64", dtype, "convert them with .double()")
    alike, found = cell.dtype == dtype and cell.device == place, f"{cell.dtype} on {cell.device}"
    _require(alike, "cell and positions differ", f"{dtype} on {place}", found, "convert with cell.to(positions)")
    if not isinstance(pbc, Tensor):
        flags = [pbc] * 3 if isinstance(pbc, bool) else list(pbc)
        fine = all(type(flag).__name__ in ("bool", "bool_") for flag in flags)
        _require(fine, "pbc is not boolean", "three of True or False", flags, "write pbc=[True, True, True]")
        pbc = torch.tensor(flags, dtype=torch.bool, device=place)
    fine, found = pbc.dtype == torch.bool and list(pbc.shape) == [3], f"{pbc.dtype} {list(pbc.shape)}"
    _require(fine, "pbc is not one flag an axis", "bool [3]", found, "write pbc=[True, True, True]")
    fine = isinstance(cutoff, int | float) and math.isfinite(cutoff) and cutoff > 0
    _require(fine, "the cutoff must be a positive number", "a finite number above 0 [A]", cutoff, "give the model's")
    return pbc.to(place)


def neighbor_list(positions: Tensor, cell: Tensor, pbc: Flags, cutoff: float) -> tuple[Tensor, Tensor]:
    """Return every pair of atoms closer than the cutoff.

    Parameters
    ----------
    positions
        [N, 3] float32 or float64 [A], wrapped or not. Distances are decided in float64 from these values.
    cell
        [3, 3] of the same type [A], lattice vectors as rows, of any shape and handedness. Rows of axes
        without periodicity are not read.
    pbc
        bool [3], or one bool for all axes.
    cutoff
        Pairs with a distance strictly below it [A] are listed; it may exceed the cell (then images repeat).

    Returns
    -------
    edge_index
        [2, E] int64: receivers i, senders j.
    shifts
        [E, 3] int32, so that ``r_ij = r_j - r_i + shifts @ cell``.

    Raises
    ------
    EquistrideError
        For wrong shapes or types, positions that are not finite, a singular cell, a cutoff that is not a positive number.
    """
    flags = _check(positions, cell, pbc, cutoff)
    try:
        return torch.ops.equistride.neighbors(positions.detach(), cell.detach(), flags, float(cutoff))
    except (ValueError, TypeError) as error:
        raise EquistrideError(str(error)) from None


def edge_vectors(positions: Tensor, cell: Tensor, edge_index: Tensor, shifts: Tensor) -> Tensor:
    """Return ``r_j - r_i + shifts @ cell`` [E, 3], differentiable twice in positions and cell.

    Raises
    ------
    EquistrideError
        Where shapes or types do not fit or an edge names an atom that is not there.
    """
    try:
        return torch.ops.equistride.edge_vectors(positions, cell, edge_index, shifts)
    except (ValueError, TypeError, IndexError) as error:
        raise EquistrideError(str(error)) from None
