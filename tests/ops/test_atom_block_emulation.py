"""The CUDA kernels of the norm and the atom block, emulated on the host, give what the CPU's operators give.

Inputs lie between NaN, and new memory is NaN, the GPU's shared memory too, so that a read beside them shows.
"""

from __future__ import annotations

import pytest
import torch
from atom_block_cases import SIZES, TOLERANCE, AtomCase, features, random_block
from edge_block_cases import deviation, tf32
from emulation import OPERATORS, between_nan, in_place_of_the_cpu, launches_of
from torch import Tensor

from equistride.nn.atom_block import AtomNorm

CPU = torch.ops.equistride
EMULATES = ("atom_block",)


def assert_equal(found: list[Tensor], expected: list[Tensor]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        # two matrices, and three backward: each a few roundings of terms that may be larger than their sum
        assert deviation(ours, theirs) < 10 * TOLERANCE[ours.dtype]


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")  # gates of scalars alone
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("size", [*SIZES, (2, 64, 64), (0, 8, 8)], ids=str)
def test_equals_the_cpu(size: tuple[int, int, int], dtype: torch.dtype, kernels: torch._ops._OpNamespace) -> None:
    """And bit for bit the same in whatever order threads and blocks run."""
    case = AtomCase(size, dtype, between=between_nan)
    found = case.everything(kernels)
    assert_equal(found, case.everything(CPU))
    for order in (1, 7):
        kernels.set_order(order)
        assert all(map(torch.equal, found, case.everything(kernels)))


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("memory", [75_000, 20_000])
def test_smaller_tiles(memory: int, dtype: torch.dtype, kernels: torch._ops._OpNamespace) -> None:
    """5.7 kB an atom going forward and more back, twice in float64: fewer atoms a tile, or none. Their numbers stay."""
    case = AtomCase((3, 9, 40), dtype, between=between_nan)
    expected = case.everything(kernels)
    kernels.set_memory(memory)
    assert all(map(torch.equal, case.everything(kernels), expected))


@pytest.mark.parametrize("size", [(2, 64, 64), (4, 6, 2)], ids=str)
def test_without_tensor_cores(
    size: tuple[int, int, int], kernels: torch._ops._OpNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By FMA: other sums, as near to the CPU's. Where torch may round to TF32, nothing is rounded here."""
    case = AtomCase(size, torch.float32, between=between_nan)
    on_cores = case.everything(kernels)
    with tf32():
        assert all(map(torch.equal, case.everything(kernels), on_cores))
    monkeypatch.setenv("EQUISTRIDE_TENSOR_CORES", "0")
    found = case.everything(kernels)
    assert_equal(found, case.everything(CPU))
    assert torch.equal(found[2], on_cores[2]) == (size == (4, 6, 2))  # too narrow for an operand of a tensor core


def test_gradients_against_finite_differences(kernels: torch._ops._OpNamespace) -> None:
    block, _ = random_block(2, 3, 4)
    inputs = [t.requires_grad_() for t in features(2, 3, atoms=2)]
    with in_place_of_the_cpu(kernels, OPERATORS["atom_block"]) as called:
        assert torch.autograd.gradcheck(block, inputs)
        assert torch.autograd.gradcheck(AtomNorm(block.norm), inputs[:1])
    assert set(called) == set(OPERATORS["atom_block"])


def test_one_launch_each(kernels: torch._ops._OpNamespace) -> None:
    case = AtomCase((2, 16, 32), torch.float32)
    assert launches_of(kernels, lambda: case.everything(kernels)) == 4 + 2  # two gradients, of torch


@pytest.mark.parametrize("atoms", [0, 1, 33])
def test_any_number_of_atoms(atoms: int, kernels: torch._ops._OpNamespace) -> None:
    case = AtomCase((1, 17, 33), torch.float32, atoms, between_nan)
    assert_equal(case.everything(kernels), case.everything(CPU))


def test_arguments_that_are_strided_or_lie_askew(kernels: torch._ops._OpNamespace) -> None:
    case = AtomCase((2, 16, 32), torch.float32)
    expected = case.everything(kernels)
    case.x, case.weight = case.x.transpose(0, 2).contiguous().transpose(0, 2), case.weight.t().contiguous().t()
    case.weights = torch.cat([case.weights[:1], case.weights])[1:]
    assert all(map(torch.equal, case.everything(kernels), expected))


def test_nan_stays_with_its_atom(kernels: torch._ops._OpNamespace) -> None:
    """The canonical NaN has all bits set, which rounding by adding would turn into zero."""
    case = AtomCase((2, 64, 64), torch.float32)
    case.x.view(torch.int32)[7, 3, 5] = 0x7FFFFFFF
    for result in case.everything(kernels):
        assert result.isnan().flatten(1).any(1).nonzero().flatten().tolist() == [7]


def test_refuses_as_the_cpu_does(kernels: torch._ops._OpNamespace) -> None:
    case = AtomCase((2, 5, 3), torch.float64)
    with pytest.raises(ValueError, match="weights must have shape"):
        kernels.atom_block(case.x, case.messages, case.weights[1:], 3, 1e-5)
    with pytest.raises(ValueError, match="grad must have the shape of x"):
        kernels.atom_block_backward(case.x[1:], case.x, case.messages, case.weights, 3, 1e-5)
    with pytest.raises(TypeError, match="x must be float32 or float64"):
        kernels.spherical_norm(case.x.half(), case.weight, case.bias, case.balance, 1e-5)
