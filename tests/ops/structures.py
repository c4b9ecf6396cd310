"""Structures for the tests of the operators, and neighbour lists of them from other programs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms
from ase.spacegroup import crystal
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Structure:
    """Positions [N, 3] and cell [3, 3] in A, periodicity per axis."""

    name: str
    positions: Array
    cell: Array
    pbc: tuple[bool, bool, bool]

    def tensors(
        self, dtype: torch.dtype = torch.float64, device: str = "cpu"
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return (positions, cell, pbc)."""
        return (
            torch.tensor(self.positions, dtype=dtype, device=device),
            torch.tensor(self.cell, dtype=dtype, device=device),
            torch.tensor(self.pbc, device=device),
        )

    def rounded(self) -> Structure:
        """Return the structure with the values that float32 holds."""
        return Structure(
            self.name,
            self.positions.astype(np.float32).astype(float),
            self.cell.astype(np.float32).astype(float),
            self.pbc,
        )


def quartz(repeats: tuple[int, int, int] = (1, 1, 1), rattle: float = 0.0, seed: int = 0) -> Structure:
    """Alpha quartz, P3_221, 9 atoms a cell; ``rattle`` [A] displaces the atoms at random."""
    third = 2.0 / 3.0  # the origin of the International Tables; oxygen from Levien et al. 1980 moved with it
    atoms: Atoms = crystal(
        ["Si", "O"],
        [(0.4697, 0.0, third), (0.4135, 0.2669, 0.1191 + third)],
        spacegroup=154,
        cellpar=[4.846, 4.846, 5.316, 90, 90, 120],
    ).repeat(repeats)
    positions = atoms.positions + np.random.default_rng(seed).normal(scale=rattle, size=(len(atoms), 3))
    return Structure(f"quartz {len(atoms)}", positions, np.array(atoms.cell), (True, True, True))


def uniform(atoms: int, cell: Array, pbc: tuple[bool, bool, bool], seed: int = 0, name: str = "uniform") -> Structure:
    """Atoms thrown uniformly into the cell: no liquid, at most the number density of one."""
    positions = np.random.default_rng(seed).random((atoms, 3)) @ cell
    return Structure(name, positions, cell, pbc)


def unwrapped(structure: Structure, cells: int, seed: int = 0) -> Structure:
    """Move every atom by up to so many whole cells along the periodic axes."""
    jumps = np.random.default_rng(seed).integers(-cells, cells + 1, structure.positions.shape) * np.array(structure.pbc)
    return Structure(
        f"unwrapped {structure.name}",
        structure.positions + jumps @ structure.cell,
        structure.cell,
        structure.pbc,
    )


def with_free_rows_zero(structure: Structure) -> Structure:
    """Write zeros into the lattice vectors of the axes without periodicity."""
    return Structure(
        structure.name, structure.positions, structure.cell * np.array(structure.pbc)[:, None], structure.pbc
    )


def sorted_edges(i: Array, j: Array, shifts: Array) -> NDArray[np.int64]:
    """Return rows (i, j, shift) [E, 5], sorted."""
    rows = np.column_stack([i, j, np.asarray(shifts).reshape(-1, 3)]).astype(np.int64)
    return rows[np.lexsort(rows.T[::-1])]


def our_edges(edge_index: torch.Tensor, shifts: torch.Tensor) -> NDArray[np.int64]:
    """Return rows (i, j, shift) [E, 5] in the order of the list."""
    return np.column_stack([edge_index.cpu().numpy().T, shifts.cpu().numpy()]).astype(np.int64)


def vesin_edges(structure: Structure, cutoff: float) -> NDArray[np.int64]:
    """The list of vesin."""
    from vesin import NeighborList

    search = NeighborList(cutoff=cutoff, full_list=True, n_threads=1)
    return sorted_edges(
        *search.compute(np.ascontiguousarray(structure.positions), structure.cell, structure.pbc, "ijS")
    )


def matscipy_edges(structure: Structure, cutoff: float) -> NDArray[np.int64]:
    """The list of matscipy-neighbours."""
    from matscipy_neighbours import neighbour_list

    found = neighbour_list("ijS", positions=structure.positions, cell=structure.cell, pbc=structure.pbc, cutoff=cutoff)
    return sorted_edges(*found)


def ase_edges(structure: Structure, cutoff: float) -> NDArray[np.int64]:
    """The list of ASE."""
    from ase.neighborlist import primitive_neighbor_list

    found = primitive_neighbor_list("ijS", structure.pbc, structure.cell, structure.positions, cutoff)
    return sorted_edges(*found)


def all_pairs(structure: Structure, cutoff: float, reach: int) -> NDArray[np.int64]:
    """Every pair over images -reach..reach of the periodic axes, by brute force."""
    axes = [range(-reach, reach + 1) if periodic else [0] for periodic in structure.pbc]
    shifts = np.array(np.meshgrid(*axes, indexing="ij")).reshape(3, -1).T
    found = []
    for shift in shifts:
        vectors = (
            structure.positions[None, :]
            - structure.positions[:, None]
            + shift @ (structure.cell * np.array(structure.pbc)[:, None])
        )
        near = (vectors**2).sum(axis=-1) < cutoff**2
        if not shift.any():
            np.fill_diagonal(near, False)
        i, j = np.nonzero(near)
        found.append(np.column_stack([i, j, np.tile(shift, (len(i), 1))]))
    rows = np.concatenate(found)
    return sorted_edges(rows[:, 0], rows[:, 1], rows[:, 2:])


CUBE = np.eye(3) * 20.0
SKEWED = np.array([[12.0, 0.0, 0.0], [9.0, 11.0, 0.0], [-8.0, 7.0, 13.0]])
LEFT_HANDED = np.array([[0.0, 14.0, 1.0], [15.0, 0.5, 0.0], [0.3, 0.0, 16.0]])
NEEDLE = np.array([[4.0, 0.0, 0.0], [0.5, 4.5, 0.0], [1.0, -2.0, 60.0]])


def awkward() -> list[tuple[Structure, float]]:
    """Small structures, each with a cutoff, that lists get wrong."""
    every, slab, wire, none = (
        (True, True, True),
        (True, True, False),
        (False, True, False),
        (False, False, False),
    )
    return [
        (quartz(), 12.0),
        (quartz((2, 2, 2), rattle=0.1), 5.0),
        (uniform(600, CUBE, every, name="cube"), 5.0),
        (uniform(600, CUBE, slab, name="slab"), 5.0),
        (with_free_rows_zero(uniform(600, CUBE, slab, name="slab without a third vector")), 5.0),
        (with_free_rows_zero(uniform(300, CUBE, (False, True, True), name="slab across x")), 4.0),
        (uniform(300, CUBE, wire, name="wire"), 5.0),
        (with_free_rows_zero(uniform(300, SKEWED, wire, name="skewed wire")), 5.0),
        (with_free_rows_zero(uniform(300, CUBE, none, name="cluster")), 5.0),
        (uniform(200, SKEWED, every, name="skewed"), 6.0),
        (uniform(200, SKEWED, slab, name="skewed slab"), 6.0),
        (uniform(200, LEFT_HANDED, every, name="left-handed"), 6.0),
        (uniform(60, NEEDLE, every, name="needle"), 7.0),
        (uniform(20, NEEDLE[[2, 0, 1]], every, name="needle along x"), 13.0),
        (unwrapped(quartz((2, 2, 2), rattle=0.1), 3), 6.0),
        (unwrapped(uniform(200, SKEWED, slab, name="skewed slab"), 4), 6.0),
        (uniform(2, CUBE * 5, every, name="gas"), 30.0),
        (uniform(50, CUBE * 50, none, name="far apart"), 400.0),
        (uniform(1, np.eye(3) * 2.0, every, name="one atom"), 7.0),
        (uniform(1, CUBE, none, name="one free atom"), 7.0),
        (Structure("two on one spot", np.ones((2, 3)), CUBE, every), 3.0),
    ]
