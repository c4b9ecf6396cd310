"""Atoms to edges: neighbour lists and edge vectors (the only caller of the native operators).

An edge points from its sender j to its receiver i, with ``r_ij = r_j - r_i + shifts @ cell`` and
``|r_ij| < cutoff``. Lists are full (both directions, periodic images of an atom with itself included), sorted
by receiver, then sender, then shift, and symmetric: with (i, j, S) comes (j, i, -S). Shifts refer to the
positions as given, wrapped or not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, library

import equistride._library  # noqa: F401  (loads torch.ops.equistride)
from equistride.errors import EquistrideError

__all__ = ["FixedNeighbors", "NeighborList", "edge_vectors", "fixed_neighbor_list", "neighbor_list"]


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


def _is_length(value: float) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _check_cutoff(cutoff: float) -> None:
    fine = _is_length(cutoff) and cutoff > 0
    _require(
        fine, "the cutoff must be a positive number", "a finite number above 0 [A]", cutoff, "give the model's cutoff"
    )


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
    _check_cutoff(cutoff)
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


class FixedNeighbors(NamedTuple):
    """A neighbour list in rows of one length."""

    neighbors: Tensor
    """[N, capacity] int32: senders, sorted; -1 where a row has ended."""
    shifts: Tensor
    """[N, capacity, 3] int32; zeros where a row has ended."""
    counts: Tensor
    """[N] int32: neighbours of each atom."""


def fixed_neighbor_list(
    positions: Tensor,
    cell: Tensor,
    pbc: Flags,
    cutoff: float,
    capacity: int = 64,
    *,
    grow: bool = True,
) -> FixedNeighbors:
    """Return the neighbours of each atom in a row of fixed length, for CUDA graphs and compiled models.

    Parameters
    ----------
    positions, cell, pbc, cutoff
        As for `neighbor_list`.
    capacity
        Length of a row.
    grow
        Where a row overflows, lengthen all (to the next multiple of 8) instead of raising.

    Raises
    ------
    EquistrideError
        As `neighbor_list`, and where the capacity is too small and must not grow. No neighbour is dropped.
    """
    flags = _check(positions, cell, pbc, cutoff)
    fine = isinstance(capacity, int) and capacity > 0
    _require(
        fine, "the capacity must be a positive whole number", "an integer above 0", capacity, "64 suits 5 A in a solid"
    )
    while True:
        try:
            arguments = (positions.detach(), cell.detach(), flags, float(cutoff), capacity)
            *rows, overflow = torch.ops.equistride.neighbors_fixed(*arguments)
        except (ValueError, TypeError) as error:
            raise EquistrideError(str(error)) from None
        needed = int(overflow)
        if needed < 0:  # a kernel on a device cannot say what is wrong; the search with a host can
            neighbor_list(positions, cell, flags, cutoff)
        if 0 <= needed <= capacity:
            return FixedNeighbors(*rows)
        hint = f"set capacity={needed} or more"
        _require(grow, "an atom has more neighbours than a row holds", f"at most {capacity}", needed, hint)
        capacity = (needed + 7) // 8 * 8


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


class _Stored(NamedTuple):
    positions: Tensor
    cell: Tensor
    pbc: Tensor
    edge_index: Tensor
    shifts: Tensor


class NeighborList:
    """A neighbour list that is built anew only when atoms have moved (Verlet skin).

    The list is built with ``cutoff + skin`` and kept while it provably holds every pair within the cutoff:
    while no atom moved more than ``skin / 2`` beside the strain of the cell, and less where the cell itself
    changed (see ``csrc/neighbors/strain.h``).

    Parameters
    ----------
    cutoff
        [A].
    skin
        Extra reach of the stored list [A]; with 0 every call builds.
    trim
        Return edges within the cutoff only, the same set as `neighbor_list`. With ``False`` the stored edges
        come back untouched, some of them longer than the cutoff (by up to about two skins): right for a model
        whose envelope is zero from the cutoff on. On a CPU building is about as cheap as trimming, so a skin
        pays only untrimmed.

    Attributes
    ----------
    calls, rebuilds
        How often the list was asked for, and how often it was built.
    """

    def __init__(self, cutoff: float, skin: float = 0.0, *, trim: bool = True) -> None:
        _check_cutoff(cutoff)
        fine = _is_length(skin) and skin >= 0
        _require(
            fine,
            "the skin must be a number of 0 or more",
            "a finite number, 0 or more [A]",
            skin,
            "0.5 to 2 A suit most runs",
        )
        self.cutoff, self.skin, self.trim = float(cutoff), float(skin), trim
        self.calls = self.rebuilds = 0
        self._stored: _Stored | None = None

    def __call__(self, positions: Tensor, cell: Tensor, pbc: Flags) -> tuple[Tensor, Tensor]:
        """Return (edge_index [2, E], shifts [E, 3]) as `neighbor_list` does."""
        flags = _check(positions, cell, pbc, self.cutoff)
        self.calls += 1
        if self.skin == 0:
            self.rebuilds += 1
            return neighbor_list(positions, cell, flags, self.cutoff)
        positions, cell = positions.detach(), torch.where(flags[:, None], cell.detach(), 0.0)
        stored = self._stored
        if stored is None or self._outdated(stored, positions, cell, flags):
            edges = neighbor_list(positions, cell, flags, self.cutoff + self.skin)
            stored = self._stored = _Stored(positions.clone(), cell, flags.clone(), *edges)
            self.rebuilds += 1
        if not self.trim:
            return stored.edge_index, stored.shifts
        vectors = torch.ops.equistride.edge_vectors(positions.double(), cell.double(), stored.edge_index, stored.shifts)
        keep = torch.nonzero((vectors * vectors).sum(dim=1) < self.cutoff**2)[:, 0]
        return stored.edge_index.index_select(1, keep), stored.shifts.index_select(0, keep)

    def reset(self) -> None:
        """Forget the stored list; the next call builds."""
        self._stored = None

    def _outdated(self, stored: _Stored, positions: Tensor, cell: Tensor, pbc: Tensor) -> bool:
        then = stored.positions
        if positions.shape != then.shape or positions.dtype != then.dtype or positions.device != then.device:
            return True
        if not torch.equal(pbc, stored.pbc):
            return True
        moved = torch.ops.equistride.moved_beyond(positions, then, cell, stored.cell, self.skin / 2, self.cutoff)
        return bool(moved)
