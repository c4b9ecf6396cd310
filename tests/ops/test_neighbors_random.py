"""Random boxes: 500 cells of any shape, periodicity and cutoff, decided by brute force."""

from __future__ import annotations

import numpy as np
import structures
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from structures import Structure

from equistride.graph import neighbor_list
from equistride.nn.neighbors_reference import neighbors_reference

OPERATORS = settings.get_profile("operators")


@st.composite
def boxes(draw: st.DrawFn) -> tuple[Structure, float, int]:
    """A structure, a cutoff, and how many images brute force must look at."""
    seed = draw(st.integers(0, 2**32 - 1))
    atoms = draw(st.integers(0, 24))
    pbc = draw(st.tuples(st.booleans(), st.booleans(), st.booleans()))
    cutoff = draw(st.floats(0.5, 6.0))
    stretch = draw(st.floats(0.0, 1.0))
    overhang = draw(st.integers(0, 2))
    rng = np.random.default_rng(seed)
    cell = np.diag(rng.uniform(1.5, 9.0, 3)) + stretch * rng.normal(scale=3.0, size=(3, 3))
    if rng.random() < 0.5:
        cell = cell[rng.permutation(3)]
    faces = np.linalg.norm(np.cross(cell[[1, 2, 0]], cell[[2, 0, 1]]), axis=1)
    heights = np.abs(np.linalg.det(cell)) / faces
    fractional = rng.uniform(-overhang, 1 + overhang, (atoms, 3))
    assume(heights.min() > 0.7)
    reach = int(np.ceil(cutoff / heights.min() + 1 + 2 * overhang)) + 1
    assume((2 * reach + 1) ** sum(pbc) * max(atoms, 1) ** 2 < 4_000_000)
    return Structure("random", fractional @ cell, cell, pbc), cutoff, reach


@given(boxes())
@settings(OPERATORS)
def test_random_boxes(box: tuple[Structure, float, int]) -> None:
    structure, cutoff, reach = box
    if not all(structure.pbc):
        # Brute force reads only the periodic rows; so must the operator, whatever stands in the others.
        periodic = structure.cell[list(structure.pbc)]
        if len(periodic) == 2:
            assume(np.linalg.norm(np.cross(*periodic)) > 0.3)
            reach = max(reach, int(np.ceil(8 * cutoff / np.linalg.norm(np.cross(*periodic)))))
            assume(reach < 40)
    inside = structures.all_pairs(structure, cutoff - 1e-9, reach)
    assume(len(inside) == len(structures.all_pairs(structure, cutoff + 1e-9, reach)))
    positions, cell, pbc = structure.tensors()
    found = neighbor_list(positions, cell, pbc, cutoff)
    assert np.array_equal(structures.our_edges(*found), inside)
    reference = neighbors_reference(positions, cell, pbc, cutoff)
    assert torch.equal(found[0], reference[0])
    assert torch.equal(found[1], reference[1])
