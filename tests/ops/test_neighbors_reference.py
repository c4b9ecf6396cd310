"""The plain torch list equals the operator, edge for edge, eager and scripted."""

from __future__ import annotations

import pytest
import structures
import torch
from structures import Structure

from equistride.graph import neighbor_list
from equistride.nn.neighbors_reference import neighbors_reference

SCRIPTED = torch.jit.script(neighbors_reference)


@pytest.mark.parametrize("function", [neighbors_reference, SCRIPTED], ids=["eager", "scripted"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("structure", "cutoff"),
    [pytest.param(s, c, id=s.name.replace(" ", "-")) for s, c in structures.awkward()],
)
def test_awkward_structures(structure: Structure, cutoff: float, dtype: torch.dtype, function) -> None:
    inputs = structure.tensors(dtype)
    edge_index, shifts = function(*inputs, cutoff)
    expected = neighbor_list(*inputs, cutoff)
    assert torch.equal(edge_index, expected[0])
    assert torch.equal(shifts, expected[1])
    assert (edge_index.dtype, shifts.dtype) == (torch.int64, torch.int32)


def test_chunks_give_the_same_list() -> None:
    inputs = structures.quartz((4, 4, 3), rattle=0.1).tensors()
    whole, parts = neighbors_reference(*inputs, 5.0), neighbors_reference(*inputs, 5.0, 2000)
    assert torch.equal(whole[0], parts[0])
    assert torch.equal(whole[1], parts[1])


def test_large_quartz() -> None:
    inputs = structures.quartz((9, 9, 6), rattle=0.05).tensors()
    found, expected = SCRIPTED(*inputs, 6.0), neighbor_list(*inputs, 6.0)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


def test_no_atoms() -> None:
    edge_index, shifts = SCRIPTED(torch.zeros(0, 3), torch.eye(3), torch.tensor([True] * 3), 5.0)
    assert edge_index.shape == (2, 0)
    assert shifts.shape == (0, 3)


def test_bad_input() -> None:
    flags = torch.tensor([True] * 3)
    with pytest.raises(ValueError, match="independent, finite vectors"):
        neighbors_reference(torch.zeros(2, 3), torch.zeros(3, 3), flags, 2.0)
    with pytest.raises(ValueError, match="positions must be finite"):
        neighbors_reference(torch.full((2, 3), float("nan")), torch.eye(3), flags, 2.0)
