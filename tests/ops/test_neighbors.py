"""The neighbour list against three other programs and brute force: the same pairs, the same shifts."""

from __future__ import annotations

import numpy as np
import pytest
import structures
import torch
from structures import Structure

from equistride.graph import neighbor_list

AWKWARD = [pytest.param(s, cutoff, id=s.name.replace(" ", "-")) for s, cutoff in structures.awkward()]
WATER_EDGE = 66.9  # A: 30,000 atoms at 0.1002 atoms/A^3, the density of water


def edges_of(structure: Structure, cutoff: float, dtype: torch.dtype = torch.float64) -> np.ndarray:
    return structures.our_edges(*neighbor_list(*structure.tensors(dtype), cutoff))


def test_quartz_is_quartz() -> None:
    """Si has four oxygens at 1.6 A and O two silicons: the structure the other tests build on."""
    cell = structures.quartz()
    edges = edges_of(cell, 1.9)
    assert len(cell.positions) == 9
    assert np.bincount(edges[:, 0]).tolist() == [4] * 3 + [2] * 6
    vectors = cell.positions[edges[:, 1]] - cell.positions[edges[:, 0]] + edges[:, 2:] @ cell.cell
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.60, atol=0.02)


@pytest.mark.parametrize(("structure", "cutoff"), AWKWARD)
def test_small_structures_equal_brute_force_on_every_path(structure: Structure, cutoff: float, simd: str) -> None:
    reach = images_needed(structure, cutoff)
    few = (2 * reach + 1) ** sum(structure.pbc) * len(structure.positions) ** 2 < 3e7
    expected = structures.all_pairs(structure, cutoff, reach) if few else structures.matscipy_edges(structure, cutoff)
    assert np.array_equal(edges_of(structure, cutoff), expected)


def images_needed(structure: Structure, cutoff: float) -> int:
    """How many images on each side brute force must look at."""
    periodic = np.array(structure.pbc)
    if not periodic.any():
        return 0
    inverse = np.linalg.inv(np.where(periodic[:, None], structure.cell, complement(structure)))
    reach = cutoff * np.linalg.norm(inverse, axis=0) + np.ptp(structure.positions @ inverse, axis=0)
    return int(np.ceil(reach[periodic].max()))


@pytest.mark.parametrize("peer", [structures.vesin_edges, structures.matscipy_edges, structures.ase_edges])
@pytest.mark.parametrize(("structure", "cutoff"), AWKWARD)
def test_small_structures_equal_other_programs(structure: Structure, cutoff: float, peer) -> None:
    if peer is structures.vesin_edges and not all(structure.pbc) and any(structure.pbc):
        # vesin wants every vector, also along axes without periodicity.
        free = np.where(np.array(structure.pbc)[:, None], structure.cell, complement(structure))
        theirs = peer(Structure(structure.name, structure.positions, free, structure.pbc), cutoff)
    else:
        theirs = peer(structure, cutoff)
    assert np.array_equal(edges_of(structure, cutoff), theirs)


def complement(structure: Structure) -> np.ndarray:
    """Vectors square to the periodic ones, longer than the structure."""
    _, _, basis = np.linalg.svd(structure.cell[list(structure.pbc)])
    rows = np.zeros((3, 3))
    free = [k for k in range(3) if not structure.pbc[k]]
    if free:
        rows[free] = basis[-len(free) :] * 100.0
    return rows


@pytest.mark.parametrize("cutoff", [5.0, 6.0])
@pytest.mark.parametrize("peer", [structures.vesin_edges, structures.matscipy_edges, structures.ase_edges])
def test_large_quartz(peer, cutoff: float) -> None:
    quartz = structures.quartz((9, 9, 6), rattle=0.05)
    assert len(quartz.positions) == 4374
    assert np.array_equal(edges_of(quartz, cutoff), peer(quartz, cutoff))


@pytest.mark.parametrize("pbc", [(True, True, True), (True, False, True), (False, False, False)])
def test_30000_atoms_at_the_density_of_water(pbc: tuple[bool, bool, bool], simd: str) -> None:
    box = structures.uniform(30000, np.eye(3) * WATER_EDGE, pbc, seed=1)
    assert np.array_equal(edges_of(box, 5.0), structures.vesin_edges(box, 5.0))


def test_perfect_crystal_with_whole_shells_near_the_cutoff() -> None:
    """Simple cubic at 2 A: shells lie exactly on 6 A and are not inside, for the comparison is strict."""
    grid = np.array(np.meshgrid(*[np.arange(5) * 2.0] * 3, indexing="ij")).reshape(3, -1).T
    crystal = Structure("cubic", grid, np.eye(3) * 10.0, (True, True, True))
    inside = edges_of(crystal, 6.0)
    outside = edges_of(crystal, np.nextafter(6.0, 7.0))
    # Lattice points with n^2 < 9: 92; with n^2 <= 9: 122.
    assert len(inside) == 92 * 125
    assert len(outside) == 122 * 125


@pytest.mark.parametrize(
    "structure",
    [
        structures.quartz((3, 3, 3), rattle=0.1),
        structures.uniform(400, structures.SKEWED, (True, True, True)),
    ],
)
def test_float32_positions_are_taken_at_their_exact_values(structure: Structure, simd: str) -> None:
    rounded = structure.rounded()
    for cutoff in (3.0, 5.0, 9.0):
        assert np.array_equal(edges_of(rounded, cutoff, torch.float32), structures.matscipy_edges(rounded, cutoff))


@pytest.mark.parametrize("distance", [1e4, 1e6])
def test_far_outside_the_box(distance: float, simd: str) -> None:
    """Atoms 10^4 A and more outside get integer shifts that give the same bonds."""
    quartz = structures.quartz((3, 3, 3), rattle=0.1)
    steps = np.round(distance / 14.0) * np.random.default_rng(3).integers(-1, 2, quartz.positions.shape)
    moved = Structure("moved", quartz.positions + steps @ quartz.cell, quartz.cell, quartz.pbc)
    near, far = edges_of(quartz, 5.0), edges_of(moved, 5.0)
    far[:, 2:] += (steps[far[:, 1]] - steps[far[:, 0]]).astype(int)
    assert np.array_equal(near, far)


def test_every_path_and_thread_count_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    box = structures.unwrapped(structures.uniform(5000, np.eye(3) * 37.0, (True, True, False), seed=4), 2)
    before, lists = torch.get_num_threads(), []
    try:
        for name in ("portable", "wide", "avx2", "avx512"):
            monkeypatch.setenv("EQUISTRIDE_SIMD", name)
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                try:
                    lists.append(edges_of(box, 5.0))
                except ValueError:
                    continue  # this processor lacks the instructions
    finally:
        torch.set_num_threads(before)
    assert len(lists) >= 3
    assert all(np.array_equal(lists[0], other) for other in lists[1:])


@pytest.mark.parametrize(("structure", "cutoff"), AWKWARD)
def test_sorted_and_symmetric(structure: Structure, cutoff: float) -> None:
    edges = edges_of(structure, cutoff)
    assert np.array_equal(edges, structures.sorted_edges(edges[:, 0], edges[:, 1], edges[:, 2:]))
    assert np.array_equal(edges, structures.sorted_edges(edges[:, 1], edges[:, 0], -edges[:, 2:]))


def test_permutation_of_the_atoms_permutes_the_list() -> None:
    quartz = structures.quartz((4, 4, 3), rattle=0.1)
    order = np.random.default_rng(5).permutation(len(quartz.positions))
    shuffled = edges_of(Structure("shuffled", quartz.positions[order], quartz.cell, quartz.pbc), 5.0)
    back = structures.sorted_edges(order[shuffled[:, 0]], order[shuffled[:, 1]], shuffled[:, 2:])
    assert np.array_equal(back, edges_of(quartz, 5.0))


def test_dense_rows_take_the_long_sort(simd: str) -> None:
    """1,500 neighbours an atom are past every limit of the counting sort."""
    box = structures.uniform(1500, np.eye(3) * 10.0, (True, True, True), seed=6)
    assert np.array_equal(edges_of(box, 6.0), structures.matscipy_edges(box, 6.0))


def test_images_by_the_hundred(simd: str) -> None:
    thin = structures.uniform(3, np.diag([0.3, 9.0, 0.4]), (True, True, True), seed=7, name="thin")
    assert np.array_equal(edges_of(thin, 12.0), structures.vesin_edges(thin, 12.0))


def test_no_atoms() -> None:
    edge_index, shifts = neighbor_list(torch.zeros(0, 3), torch.eye(3), True, 5.0)
    assert edge_index.shape == (2, 0)
    assert shifts.shape == (0, 3)
    assert edge_index.dtype == torch.int64
    assert shifts.dtype == torch.int32
