"""The Python face: the skin never misses a pair, rows never drop one, bad input is refused in a sentence."""

from __future__ import annotations

import numpy as np
import pytest
import structures
import torch
from structures import Structure, our_edges

from equistride.errors import EquistrideError
from equistride.graph import NeighborList, fixed_neighbor_list, neighbor_list

OPS = torch.ops.equistride


def walk(structure: Structure, steps: int, length: float, strain: float, seed: int):
    """Yield (positions, cell) of a random walk in which the cell breathes and shears, atoms with it."""
    rng = np.random.default_rng(seed)
    positions, cell = structure.positions.copy(), structure.cell.copy()
    for _ in range(steps):
        deformation = np.eye(3) + strain * rng.normal(size=(3, 3))
        positions, cell = (
            positions @ deformation + length * rng.normal(size=positions.shape),
            cell @ deformation,
        )
        yield torch.tensor(positions), torch.tensor(cell)


@pytest.mark.parametrize("strain", [0.0, 2e-4])
@pytest.mark.parametrize("trim", [True, False])
@pytest.mark.parametrize(
    "structure",
    [
        structures.unwrapped(structures.quartz((2, 2, 2), rattle=0.1), 3),
        structures.with_free_rows_zero(structures.uniform(150, np.eye(3) * 13.0, (True, False, True))),
        structures.uniform(100, np.eye(3) * 10.0, (False, False, False)),
    ],
    ids=["crystal", "slab", "cluster"],
)
def test_skin_never_misses_a_pair(structure: Structure, trim: bool, strain: float) -> None:
    search = NeighborList(4.0, skin=0.8, trim=trim)
    for positions, cell in walk(structure, 60, 0.03, strain, seed=1):
        found = our_edges(*search(positions, cell, structure.pbc))
        expected = our_edges(*neighbor_list(positions, cell, structure.pbc, 4.0))
        if trim:
            assert np.array_equal(found, expected)
        else:
            assert set(map(tuple, expected)) <= set(map(tuple, found))
    assert search.calls == 60
    assert 2 <= search.rebuilds <= 30


def test_cell_moved_under_resting_atoms_counts() -> None:
    """Bonds across the boundary change with the cell alone, and more the further atoms are unwrapped."""
    quartz = structures.unwrapped(structures.quartz((2, 2, 2), rattle=0.1), 5)
    positions, cell, pbc = quartz.tensors()
    search = NeighborList(4.0, skin=0.5)
    for step in range(20):
        stretched = cell * (1 + 0.002 * step)
        found = our_edges(*search(positions, stretched, pbc))
        assert np.array_equal(found, our_edges(*neighbor_list(positions, stretched, pbc, 4.0)))
    assert search.rebuilds > 1


def test_two_atoms_that_approach_each_other() -> None:
    """Both move by 0.49 skin: the pair closes by 0.98, and a test against the whole skin would miss it."""
    cell = torch.eye(3, dtype=torch.float64) * 50
    search = NeighborList(5.0, skin=1.0)
    gap = 6.0 + 1e-6
    start = torch.tensor([[0.0, 0, 0], [gap, 0, 0]], dtype=torch.float64)
    assert search(start, cell, True)[0].shape[1] == 0
    for move, pairs in ((0.49, 0), (0.51, 2)):
        there = torch.tensor([[move, 0, 0], [gap - move, 0, 0]], dtype=torch.float64)
        assert search(there, cell, True)[0].shape[1] == pairs
    assert search.rebuilds == 2


def test_rigid_shift_by_whole_cells_of_one_atom_rebuilds_with_new_shifts() -> None:
    positions, cell, pbc = structures.quartz((2, 2, 2)).tensors()
    search = NeighborList(4.0, skin=1.0)
    search(positions, cell, pbc)
    positions[3] += cell[0]
    assert np.array_equal(
        our_edges(*search(positions, cell, pbc)), our_edges(*neighbor_list(positions, cell, pbc, 4.0))
    )
    assert search.rebuilds == 2


def test_skin_is_forgotten_when_the_system_changes() -> None:
    search = NeighborList(4.0, skin=1.0)
    small, large = structures.quartz((2, 2, 2)), structures.quartz((2, 2, 3))
    search(*small.tensors())
    search(*small.tensors())
    assert search.rebuilds == 1
    search(*large.tensors())
    search(*large.tensors(torch.float32))
    positions, cell, _ = large.tensors(torch.float32)
    assert search(positions, cell, (True, True, False))[1][:, 2].abs().sum() == 0
    assert search.rebuilds == 4
    search.reset()
    search(positions, cell, (True, True, False))
    assert search.rebuilds == 5


@pytest.mark.parametrize("scale", [0.98, 1.02])
def test_moved_beyond_needs_the_cutoff_to_forgive_a_strain(scale: float) -> None:
    """Atoms that only follow the strain: 2 % of 4 A is far less than a skin of 1 A."""
    positions, cell, _ = structures.unwrapped(structures.quartz((3, 3, 3)), 4).tensors()
    strained = (positions * scale, positions, cell * scale, cell)
    assert not OPS.moved_beyond(*strained, 0.5, 4.0)
    assert OPS.moved_beyond(*strained, 0.5)
    assert OPS.moved_beyond(positions, positions, cell * scale, cell, 0.5, 4.0)
    assert not OPS.moved_beyond(positions, positions, cell, cell, 0.0)


def test_moved_beyond_is_exact_without_strain() -> None:
    positions, cell, _ = structures.quartz((3, 3, 3)).tensors()
    moved = positions.clone()
    moved[17] += torch.tensor([0.3, 0.0, 0.4], dtype=torch.float64)
    assert not OPS.moved_beyond(moved, positions, cell, cell, 0.5 + 1e-9)
    assert OPS.moved_beyond(moved, positions, cell, cell, 0.5 - 1e-9)
    moved[17, 0] = float("nan")
    assert OPS.moved_beyond(moved, positions, cell, cell, 100.0)
    assert not OPS.moved_beyond(positions[:0], positions[:0], cell, cell, 0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fixed_rows_hold_the_list(dtype: torch.dtype, simd: str) -> None:
    structure = structures.unwrapped(structures.quartz((2, 2, 2), rattle=0.1), 2).rounded()
    inputs = structure.tensors(dtype)
    edge_index, shifts = neighbor_list(*inputs, 5.0)
    rows = fixed_neighbor_list(*inputs, 5.0, capacity=100)
    there = rows.neighbors >= 0
    assert torch.equal(rows.counts.long(), torch.bincount(edge_index[0], minlength=72))
    assert torch.equal(there.sum(dim=1), rows.counts)
    assert torch.equal(rows.neighbors[there].long(), edge_index[1])
    assert torch.equal(rows.shifts[there], shifts)
    assert not rows.shifts[~there].any()


def test_fixed_rows_grow_or_refuse_and_never_drop() -> None:
    inputs = structures.quartz((2, 2, 2)).tensors()
    needed = int(torch.bincount(neighbor_list(*inputs, 5.0)[0][0]).max())
    neighbors, _, counts, overflow = OPS.neighbors_fixed(*inputs, 5.0, 10)
    assert neighbors.shape == (72, 10)
    assert int(overflow) == needed == int(counts.max())
    assert (neighbors >= 0).all()
    grown = fixed_neighbor_list(*inputs, 5.0, capacity=10)
    assert grown.neighbors.shape[1] == (needed + 7) // 8 * 8
    with pytest.raises(EquistrideError, match=f"expected at most 10; found {needed}; set capacity={needed} or more"):
        fixed_neighbor_list(*inputs, 5.0, capacity=10, grow=False)
    with pytest.raises(EquistrideError, match="the capacity must be a positive whole number"):
        fixed_neighbor_list(*inputs, 5.0, capacity=0)


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


def test_bad_skin() -> None:
    with pytest.raises(EquistrideError, match="the skin must be 0 or more"):
        NeighborList(4.0, skin=-0.1)
    with pytest.raises(EquistrideError, match="the cutoff must be a positive number"):
        NeighborList(-4.0)


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
