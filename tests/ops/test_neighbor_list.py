"""The Python side of neighbour lists: bad input is refused in a sentence; and lists of one size, with padding."""

from __future__ import annotations

import numpy as np
import pytest
import structures
import torch

from equistride.errors import EquistrideError
from equistride.graph import neighbor_list

OPS = torch.ops.equistride


def test_lists_are_not_part_of_the_graph() -> None:
    positions, cell, pbc = structures.quartz().tensors()
    edge_index, shifts = neighbor_list(positions.requires_grad_(), cell.requires_grad_(), pbc, 4.0)
    assert not edge_index.requires_grad
    assert not shifts.requires_grad


NAN = torch.full((2, 3), float("nan"))
BOX = torch.eye(3) * 10
FLAT = torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 1, 0]])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((np.zeros((2, 3)), BOX, True, 1.0), "positions is not a tensor"),
        ((torch.zeros(2, 2), BOX, True, 1.0), "the positions have a wrong shape"),
        ((torch.zeros(6), BOX, True, 1.0), "the positions have a wrong shape"),
        ((torch.zeros(2, 3, dtype=torch.float16), BOX, True, 1.0), "the positions have a wrong type"),
        ((torch.zeros(2, 3, dtype=torch.int64), BOX, True, 1.0), "the positions have a wrong type"),
        ((torch.zeros(2, 3), torch.ones(3), True, 1.0), "the cell has a wrong shape"),
        ((torch.zeros(2, 3), BOX.double(), True, 1.0), "cell and positions differ"),
        ((torch.zeros(2, 3), BOX, [1, 1, 1], 1.0), "pbc is not boolean"),
        ((torch.zeros(2, 3), BOX, torch.ones(3), 1.0), "pbc is not one flag an axis"),
        ((torch.zeros(2, 3), BOX, [True, True], 1.0), "pbc is not one flag an axis"),
        ((torch.zeros(2, 3), BOX, True, 0.0), "the cutoff must be a positive number"),
        ((torch.zeros(2, 3), BOX, True, float("nan")), "the cutoff must be a positive number"),
        ((torch.zeros(2, 3), BOX, True, float("inf")), "the cutoff must be a positive number"),
        ((NAN, BOX, True, 1.0), "positions must be finite"),
        ((torch.full((2, 3), float("inf")), BOX, False, 1.0), "positions must be finite"),
        ((torch.zeros(2, 3), FLAT, True, 1.0), "the cell must have independent, finite vectors"),
        ((torch.zeros(2, 3), torch.zeros(3, 3), True, 1.0), "the cell must have independent, finite vectors"),
        (
            (torch.zeros(2, 3), BOX * float("nan"), True, 1.0),
            "the cell must have independent, finite vectors",
        ),
        ((torch.zeros(2, 3), BOX * 1e-4, True, 9.0), "reaches over too many periodic images"),
    ],
)
def test_bad_input(arguments: tuple, says: str) -> None:
    with pytest.raises(EquistrideError, match=says):
        neighbor_list(*arguments)


def test_a_singular_cell_is_fine_where_it_is_not_read() -> None:
    edge_index, _ = neighbor_list(torch.zeros(2, 3), FLAT, (True, True, False), 1.0)
    assert edge_index.tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize(("room", "extra"), [(0, 2), (1, 2), (7, 4), (500, 6)])
def test_padding_lies_between_extra_atoms(room: int, extra: int) -> None:
    """The list itself, then edges between the extra atoms: sorted, without a shift, about as many an atom."""
    positions, cell, pbc = structures.unwrapped(structures.quartz((2, 2, 2), rattle=0.1), 3).tensors()
    expected, atoms = OPS.neighbors(positions, cell, pbc, 4.0), len(positions)
    count = expected[0].size(1)
    edges, shifts, summary = OPS.neighbors_padded(positions, cell, pbc, 4.0, count + room, extra)
    assert summary.tolist() == [count, 0]
    assert torch.equal(edges[:, :count], expected[0])
    assert torch.equal(shifts[:count], expected[1])
    receivers, senders = edges[:, count:] - atoms
    assert not shifts[count:].any()
    assert torch.equal(receivers, receivers.sort().values)
    assert torch.equal(senders, (receivers + 1) % extra)
    shares = torch.bincount(receivers, minlength=extra)
    assert shares.max() - shares.min() <= 1


def test_a_list_that_has_no_room_is_not_cut_short() -> None:
    positions, cell, pbc = structures.quartz((2, 2, 2), rattle=0.1).tensors()
    count = OPS.neighbors(positions, cell, pbc, 4.0)[0].size(1)
    edges, shifts, summary = OPS.neighbors_padded(positions, cell, pbc, 4.0, count - 1, 4)
    assert summary.tolist() == [count, 4]
    assert bool((edges >= len(positions)).all())
    assert not shifts.any()


def test_bad_room_is_refused() -> None:
    inputs = structures.quartz((2, 2, 2)).tensors()
    with pytest.raises(ValueError, match="capacity must lie between 0 and"):
        OPS.neighbors_padded(*inputs, 4.0, -1, 4)
    with pytest.raises(ValueError, match="extra atoms must be at least 2; found 1"):
        OPS.neighbors_padded(*inputs, 4.0, 10, 1)
