"""The edge block's CUDA kernels, run on the host with every thread of a GPU emulated, give what the CPU's operators give.

Inputs lie between NaN, so that a read beside them shows; new memory, the GPU's shared memory too, is NaN, so that what was not
written shows.
"""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from edge_block_cases import (
    SIZES,
    TF32_TOLERANCE,
    TOLERANCE,
    BlockCase,
    DegreeCase,
    SplineCase,
    deviation,
    some_bonds,
    tf32,
)
from emulation import between_nan, in_place_of_the_cpu
from random_models import graph_of, random_potential
from torch import Tensor

from equistride.data.quartz import quartz
from equistride.models.esen_fused import fuse

CPU = torch.ops.equistride
EMULATES = ("edge_block",)


def assert_equal(found: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert deviation(ours, theirs) < tolerance


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("size", SIZES)
def test_equals_the_cpu(size: str, dtype: torch.dtype, kernels: torch._ops._OpNamespace) -> None:
    """Everything kept, nothing, and the first 61 edges; and bit for bit the same in whatever order threads and blocks run."""
    case = BlockCase(size, dtype, edges=75 if size == "published" else 150, between=between_nan)
    some = 61 * case.state_bytes(dtype)
    found = case.everything(kernels, some)
    assert_equal(found, case.everything(CPU), TOLERANCE[dtype])
    for order, keep in ((1, 0), (7, 1 << 30)):
        kernels.set_order(order)
        assert all(map(torch.equal, found, case.everything(kernels, keep)))


@pytest.mark.parametrize("size", ["published", "mirror", "odd channels", "degree 4, m <= 2, mirror"])
def test_without_tensor_cores(size: str, kernels: torch._ops._OpNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """By FMA: other sums than those of tensor cores, as near to the CPU's."""
    case = BlockCase(size, torch.float32, edges=40, between=between_nan)
    on_cores = case.everything(kernels)
    monkeypatch.setenv("EQUISTRIDE_TENSOR_CORES", "0")
    found = case.everything(kernels)
    assert_equal(found, case.everything(CPU), TOLERANCE[torch.float32])
    # an edge's own numbers, forward, whatever its tile: too narrow for an operand of a tensor core
    assert torch.equal(found[4], on_cores[4]) == (size == "odd channels")
    kernels.set_order(7)
    assert all(map(torch.equal, found, case.everything(kernels, 0)))


def test_tensor_cores_are_as_near_as_fma(kernels: torch._ops._OpNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against float64 on the same numbers: split factors, sums of 16 terms cut off and added rounded, lose less than FMA does."""
    exact, case = (BlockCase("published", dtype, edges=30) for dtype in (torch.float64, torch.float32))
    for name, value in vars(case).items():
        if isinstance(value, Tensor) and value.is_floating_point():
            setattr(exact, name, value.double())
    expected = exact.everything(CPU)[1:]

    def loss() -> list[float]:
        found = case.everything(kernels)[1:]
        return [float((a - b).norm() / b.norm()) for a, b in zip(found, expected, strict=True)]

    on_cores = loss()
    monkeypatch.setenv("EQUISTRIDE_TENSOR_CORES", "0")
    assert all(ours < fma for ours, fma in zip(on_cores, loss(), strict=True))
    assert max(on_cores) < 5e-7


@pytest.mark.parametrize("size", ["published", "mirror", "odd channels"])
def test_tf32(size: str, kernels: torch._ops._OpNamespace) -> None:
    """Where torch may round products to TF32, factors have 11 bits; the order of threads changes no bit."""
    case = BlockCase(size, torch.float32, edges=40, between=between_nan)
    with tf32():
        found = case.everything(kernels)
        kernels.set_order(7)
        assert all(map(torch.equal, found, case.everything(kernels, 0)))
    assert_equal(found, case.everything(CPU), TF32_TOLERANCE)
    assert deviation(found[1], case.everything(CPU)[1]) > 1e-5  # it is another arithmetic


def test_tf32_by_the_newer_setting(kernels: torch._ops._OpNamespace) -> None:
    """torch refuses to say its precision by the older question where it was set that way."""
    case = BlockCase("published", torch.float32, edges=30)
    with tf32():
        expected = case.everything(kernels)
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        assert all(map(torch.equal, case.everything(kernels), expected))
    finally:
        torch.backends.cuda.matmul.fp32_precision = before
    assert not torch.equal(case.everything(kernels)[1], expected[1])


def test_the_last_word_on_tf32_holds(kernels: torch._ops._OpNamespace) -> None:
    """After both switches torch answers neither's question; cuBLAS does not round then, and nor do we."""
    case = BlockCase("published", torch.float32, edges=30)
    expected = case.everything(kernels)
    with tf32():
        torch.backends.cuda.matmul.allow_tf32 = False
        with pytest.raises(RuntimeError, match="mix of the legacy and new APIs"):
            torch.get_float32_matmul_precision()
        assert all(map(torch.equal, case.everything(kernels), expected))


@pytest.mark.parametrize("memory", [100_000, 60_000, 30_000])
def test_tf32_with_smaller_tiles(memory: int, kernels: torch._ops._OpNamespace) -> None:
    """Tiles of 20 and 12 edges, and tiles that lie in global memory: an edge's own numbers stay the same."""
    case = BlockCase("fewer hidden", torch.float32, edges=40, between=between_nan)
    with tf32():
        before = case.everything(kernels)
        kernels.set_memory(memory)
        found = case.everything(kernels)
    assert_equal(found, case.everything(CPU), TF32_TOLERANCE)
    assert all(map(torch.equal, found[3:], before[3:]))


def test_tensor_cores_keep_nan(kernels: torch._ops._OpNamespace) -> None:
    """The canonical NaN has all bits set, which rounding by adding would turn into zero."""
    for allow in (nullcontext, tf32):
        case = BlockCase("published", torch.float32, edges=30)
        case.input.view(torch.int32)[7, 3] = 0x7FFFFFFF
        with allow():
            out = case.everything(kernels)[1]
        assert out[case.edge_index[0, 7]].isnan().any()


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("memory", [100_000, 60_000, 30_000])
def test_smaller_tiles_where_shared_memory_is_small(
    memory: int, dtype: torch.dtype, kernels: torch._ops._OpNamespace
) -> None:
    """4.4 kB an edge: tiles of 20 and 12; 8.3 kB in float64: of 12, and where none fits. An edge's own numbers stay the same."""
    case = BlockCase("fewer hidden", dtype, edges=40, between=between_nan)
    before = case.everything(kernels)
    kernels.set_memory(memory)
    found = case.everything(kernels)
    assert_equal(found, case.everything(CPU), TOLERANCE[dtype])
    assert all(map(torch.equal, found[3:], before[3:]))


@pytest.mark.parametrize("atoms", [0, 3])
def test_graphs_without_edges(atoms: int, kernels: torch._ops._OpNamespace) -> None:
    case = BlockCase("odd channels", torch.float64, atoms, 0)
    for ours, theirs in zip(case.everything(kernels), case.everything(CPU), strict=True):
        assert torch.equal(ours, theirs)


def test_many_receivers_and_one_edge(kernels: torch._ops._OpNamespace) -> None:
    for atoms, edges in ((150, 150), (3, 1)):
        case = BlockCase("odd channels", torch.float64, atoms, edges, between_nan)
        assert_equal(case.everything(kernels), case.everything(CPU), TOLERANCE[torch.float64])


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda index: index.flip(1), id="unsorted"),
        pytest.param(lambda index: index + 9, id="no such atom"),
        pytest.param(lambda index: index - 1, id="negative"),
        pytest.param(lambda index: torch.stack([index[0], index[1] + 8]), id="no such sender"),
    ],
)
def test_wrong_edges_give_nan(spoil: object, kernels: torch._ops._OpNamespace) -> None:
    """A kernel cannot raise; where an engine looks at the output, it says so."""
    case = BlockCase("odd channels", torch.float64, edges=40)
    case.edge_index = spoil(case.edge_index)  # type: ignore[operator]
    for result in case.everything(kernels)[1:]:
        assert result.isnan().all()


def test_arguments_that_are_strided_or_lie_askew(kernels: torch._ops._OpNamespace) -> None:
    case = BlockCase("mirror", torch.float32, edges=40)
    expected = case.everything(kernels)
    case.x, case.input = case.x.transpose(0, 2).contiguous().transpose(0, 2), case.input.t().contiguous().t()
    case.weights = torch.cat([case.weights[:1], case.weights])[1:]
    case.edge_index = case.edge_index.t().contiguous().t()
    assert all(map(torch.equal, case.everything(kernels), expected))


def test_refuses_as_the_cpu_does(kernels: torch._ops._OpNamespace) -> None:
    case = BlockCase("odd channels", torch.float64, edges=4)
    with pytest.raises(ValueError, match="weights must hold"):
        kernels.edge_block(*case.tensors()[:6], case.weights[1:], *case.sizes, 0)
    with pytest.raises(TypeError, match="x must be float32 or float64"):
        kernels.edge_block(case.x.half(), *case.tensors()[1:], *case.sizes, 0)
    with pytest.raises(ValueError, match="l_max must lie between 0 and 4"):
        kernels.bond_frames(case.vectors, 5)
    out, kept = kernels.edge_block(*case.tensors(), *case.sizes, 1 << 30)
    with pytest.raises(ValueError, match="kept must be what edge_block returned"):
        kernels.edge_block_backward(out, *case.tensors(), kept[:, 1:], *case.sizes)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("terms", "columns"), [(2, 40), (4, 3), (6, 64)])
def test_splines_equal_the_cpu(terms: int, columns: int, dtype: torch.dtype, kernels: torch._ops._OpNamespace) -> None:
    """With any number of terms; beyond the ends t reaches 7, so that t^5 loses digits."""
    case = SplineCase(dtype, terms, columns)
    assert_equal(case.everything(kernels), case.everything(CPU), TOLERANCE[dtype])


def test_splines_of_no_pair_or_no_length_give_nan(kernels: torch._ops._OpNamespace) -> None:
    case = SplineCase(torch.float64, 4, 5)
    case.pair[3], case.pair[4], case.lengths[9] = 3, -1, torch.nan
    for result in case.everything(kernels):
        wrong = result.isnan() if result.dim() == 1 else result.isnan().all(1)
        assert wrong.nonzero().flatten().tolist() == [3, 4, 9]
    case.lengths, case.pair, case.grad = case.lengths[:0], case.pair[:0], case.grad[:0]
    assert [len(result) for result in case.everything(kernels)] == [0, 0]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("l_max", "channels"), [(0, 5), (1, 3), (2, 64), (3, 19), (4, 40)])
def test_bonds_equal_the_cpu(l_max: int, channels: int, dtype: torch.dtype, kernels: torch._ops._OpNamespace) -> None:
    """Lengths, envelopes and first features; bit for bit the same in any order of threads."""
    case = DegreeCase(l_max, channels, dtype, between_nan)
    found = case.everything(kernels)
    assert_equal(found, case.everything(CPU), 10 * TOLERANCE[dtype])
    kernels.set_order(7)
    assert all(map(torch.equal, found, case.everything(kernels)))


def test_bonds_against_finite_differences(kernels: torch._ops._OpNamespace) -> None:
    scalars, vectors, _, radial, edges = some_bonds(2, 2)
    names = ["bond_frames", "bond_lengths", "bond_lengths_backward", "edge_degree", "edge_degree_backward"]

    def features(vectors: Tensor, radial: Tensor) -> Tensor:
        frames = CPU.bond_frames(vectors.detach(), 2)
        lengths, envelope = CPU.bond_lengths(vectors, 2.0, 5)
        return CPU.edge_degree(scalars, vectors, frames, envelope + lengths, radial, edges, 0.2)

    with in_place_of_the_cpu(kernels, names) as called:
        assert torch.autograd.gradcheck(features, [t.requires_grad_() for t in (vectors, radial)])
    assert set(called) == set(names)


def test_bonds_of_no_length_no_edges_and_wrong_edges(kernels: torch._ops._OpNamespace) -> None:
    zero = torch.zeros(2, 3, dtype=torch.float64)
    one = torch.ones(2, dtype=torch.float64)
    assert not kernels.bond_lengths_backward(one, one, zero, 2.0, 5).any()
    case = DegreeCase(2, 3, torch.float64)
    case.edges = case.edges + 5
    for result in case.everything(kernels)[4:]:
        assert result.isnan().all()
    assert case.everything(kernels)[2].isnan().all()
    case.edges, case.vectors, case.frames, case.radial = (
        case.edges[:, :0], case.vectors[:0], case.frames[:0], case.radial[:0],
    )  # fmt: skip
    for ours, theirs in zip(case.everything(kernels), case.everything(CPU), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.filterwarnings("ignore:Warning only once for all operators")
@pytest.mark.parametrize("splines", [None, 1e-7], ids=["networks", "splines"])
def test_a_potential_through_the_kernels(splines: float | None, kernels: torch._ops._OpNamespace) -> None:
    """Energies, forces and virial of a served eSEN, float32: the whole way through autograd."""
    atoms = quartz((1, 1, 1))
    atoms.rattle(0.05, seed=3)
    positions, cell = torch.tensor(atoms.positions).float(), torch.tensor(atoms.cell.array).float()
    graph = graph_of(positions, torch.tensor(atoms.numbers == 14).long(), cell)
    potential = random_potential(channels=16, hidden_channels=12, mirror=False)
    potential.network = fuse(potential.network, splines)
    potential.float().requires_grad_(False)
    expected = potential(*graph)
    names = ["bond_frames", "edge_block", "edge_block_backward"]
    names += ["radial_splines", "radial_splines_backward"] if splines else []
    with in_place_of_the_cpu(kernels, names) as called:
        found = potential(*graph)
    assert set(called) == set(names)
    for ours, theirs in zip(found, expected, strict=True):
        assert deviation(ours, theirs) < 2e-5
