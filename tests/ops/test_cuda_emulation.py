"""The CUDA kernels, run on the host with every thread of a GPU emulated, give what the CPU's operators give.

Inputs lie between NaN, so that a read beside them shows; new memory is NaN, so that what was not written shows.
"""

from __future__ import annotations

import pytest
import torch
from emulation import SORT, EmulatedGPU, between_nan, in_place_of_the_cpu
from test_tensor_product import CASES, TOLERANCE, Sample, deviation, edges, sample
from torch import Tensor

from equistride.models.trajcast import TrajCast, TrajCastConfig
from equistride.nn.tensor_product import TensorProductConvolution

CPU = torch.ops.equistride
EMULATES = ("convolution",)
ORDERS = [0, 1, 7]
"""Threads and blocks in their order, in the reverse, threads at random."""
MORE = {
    "more units than a launch takes": ("+".join(["40x1o"] * 12 + ["70x0e"] * 12), "0e + 1o"),
    "harmonics of both parities": ("33x0e + 3x1o + 2x2e", "0e + 1o + 1e + 2e + 2o"),
    "degree 3 beside the others": ("34x0e + 34x1o + 3x3o", "0e + 1o + 2e + 3o"),
}
REPLACES = pytest.mark.filterwarnings("ignore:Warning only once for all operators")
WANTED = [[True, True, True], [False, True, True], [True, False, True], [False, False, True], [True, False, False]]


class Case:
    """Arguments of all four operators: paths, an irregular graph with atoms that have no edges, weights and a table."""

    def __init__(self, irreps: tuple[str, ...], dtype: torch.dtype, atoms: int = 13, count: int = 90) -> None:
        convolution = TensorProductConvolution(*irreps)
        generator = torch.Generator().manual_seed(5)
        made = sample(convolution, max(atoms, 1), count, dtype)
        made = made._replace(x=made.x[:atoms])
        index = edges(atoms - 3, count, generator=generator) if count else made.edge_index
        index[0][index[0] > 4] += 2  # receivers 5 and 6 have none, the last neither
        self.at = Sample(*(between_nan(t) for t in made[:3]), index)
        self.spec = (convolution.paths, convolution.couplings)
        self.lengths = between_nan((1 + 3.6 * torch.rand(count, generator=generator)).to(dtype))
        table = torch.randn(40, convolution.weight_numel, generator=generator).to(dtype)
        self.table = (self.lengths, between_nan(table), 1.0, 0.1)
        self.receivers = atoms
        self.grad = between_nan(torch.randn(atoms, convolution.width, generator=generator).to(dtype))

    def everything(self, ops: torch._ops._OpNamespace, wanted: list[bool]) -> list[Tensor]:
        """Outputs and gradients with stored weights and with a table."""
        x, y, weights, index = self.at
        return [
            ops.tensor_product(x, y, weights, index, *self.spec, self.receivers),
            *ops.tensor_product_backward(self.grad, x, y, weights, index, *self.spec, wanted),
            ops.tensor_product_table(x, y, *self.table, index, *self.spec, self.receivers),
            *ops.tensor_product_table_backward(self.grad, x, y, *self.table, index, *self.spec, wanted),
        ]


def assert_equal(found: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        if theirs.numel() == 0:
            assert ours.shape == theirs.shape
        else:
            assert theirs.abs().max() > 0
            assert deviation(ours, theirs) < tolerance


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("case", {**CASES, **MORE})
def test_convolution_equals_the_cpu(case: str, dtype: torch.dtype, emulated: torch._ops._OpNamespace) -> None:
    """And its numbers do not depend on the order of threads and blocks: bit for bit."""
    emulated.set_order(0)
    at = Case({**CASES, **MORE}[case], dtype, count=90 if case in ("trajcast", "natural") else 40)
    found = at.everything(emulated, WANTED[0])
    assert_equal(found, at.everything(CPU, WANTED[0]), TOLERANCE[dtype])
    for order in ORDERS[1:]:
        emulated.set_order(order)
        assert all(torch.equal(a, b) for a, b in zip(found, at.everything(emulated, WANTED[0]), strict=True))


@pytest.mark.parametrize("wanted", WANTED[1:], ids=str)
@pytest.mark.parametrize("case", ["natural", "degrees to 4"])
def test_only_the_gradients_asked_for(case: str, wanted: list[bool], emulated: torch._ops._OpNamespace) -> None:
    at = Case(CASES[case], torch.float64)
    assert_equal(at.everything(emulated, wanted), at.everything(CPU, wanted), 1e-14)


@REPLACES
def test_second_gradients(emulated: torch._ops._OpNamespace) -> None:
    """The formula of the second gradients is made of the operators: it runs through the kernels as it stands."""
    convolution = TensorProductConvolution("2x0e + 1x1o", "0e + 1o")
    at = sample(convolution, atoms=3, count=4)
    inputs = [t.requires_grad_() for t in at[:3]]
    with in_place_of_the_cpu(emulated) as called:
        assert torch.autograd.gradcheck(lambda x, y, w: convolution(x, y, w, at.edge_index), inputs)
        assert torch.autograd.gradgradcheck(lambda x, y, w: convolution(x, y, w, at.edge_index), inputs)
    assert set(called) == {"tensor_product", "tensor_product_backward"}
    seen = len(called)
    convolution(*at)
    assert len(called) == seen  # the CPU's kernels are back


@REPLACES
def test_trajcast_gives_the_numbers_of_the_cpu(emulated: torch._ops._OpNamespace) -> None:
    """The whole network, as it is trained and as it is served, float32."""
    torch.manual_seed(0)
    network = TrajCast(TrajCastConfig(max_speed=0.05, avg_num_neighbors=20.0, channels=16, num_layers=3), 2)
    index = torch.randint(0, 20, (2, 250))
    index = index[:, index[0].argsort(stable=True)]
    vectors = torch.nn.functional.normalize(torch.randn(250, 3), dim=1) * (1.5 + 2.9 * torch.rand(250, 1))
    arguments = (vectors, 0.01 * torch.rand(20, 3), torch.randint(0, 2, (20,)), index)
    for served, operator in ((network, "tensor_product"), (network.with_tables(), "tensor_product_table")):
        with torch.no_grad():
            expected = served(*arguments)
            with in_place_of_the_cpu(emulated) as called:
                found = served(*arguments)
        assert operator in called
        assert 0 < (found - expected).abs().max() < 2e-5 * expected.abs().max()


@pytest.mark.parametrize(("atoms", "count"), [(13, 0), (0, 0)])
def test_graphs_without_edges(atoms: int, count: int, emulated: torch._ops._OpNamespace) -> None:
    at = Case(CASES["odd channels"], torch.float64, atoms, count)
    for ours, theirs in zip(at.everything(emulated, WANTED[0]), at.everything(CPU, WANTED[0]), strict=True):
        assert torch.equal(ours, theirs)


def test_receivers_may_differ_from_senders(emulated: torch._ops._OpNamespace) -> None:
    convolution = TensorProductConvolution(*CASES["odd channels"])
    at = sample(convolution, atoms=9)
    local = at.edge_index[0] < 5
    some = (at.x, at.y[local], at.weights[local], at.edge_index[:, local], convolution.paths, convolution.couplings)
    assert deviation(emulated.tensor_product(*some, 5), CPU.tensor_product(*some, 5)) < 1e-14
    grad = torch.randn(5, convolution.width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found, expected = (ops.tensor_product_backward(grad, *some, WANTED[0]) for ops in (emulated, CPU))
    assert_equal(list(found), list(expected), 1e-14)


def test_paths_may_share_columns_of_the_output_and_leave_some_out(emulated: torch._ops._OpNamespace) -> None:
    convolution = TensorProductConvolution(
        "6x0e + 6x1o + 6x1o", "0e + 1o", "6x1o + 6x0e", [(0, 1, 0), (1, 0, 0, 2.0), (2, 0, 0), (0, 0, 1), (1, 1, 1)]
    )
    at = sample(convolution)
    wider = [p + 3 if k % 10 == 7 else p for k, p in enumerate(convolution.paths)]
    for paths in (convolution.paths, wider):
        arguments = (*at, paths, convolution.couplings)
        found, expected = (ops.tensor_product(*arguments, 11) for ops in (emulated, CPU))
        assert deviation(found, expected) < 1e-14
        grads = [ops.tensor_product_backward(torch.cos(expected), *arguments, WANTED[0]) for ops in (emulated, CPU)]
        assert_equal(list(grads[0]), list(grads[1]), 1e-14)


def test_other_couplings_than_the_known_ones(emulated: torch._ops._OpNamespace) -> None:
    """Coefficients that are no multiple of the symbols that the kernels know go through those for any degree."""
    at = Case(CASES["odd channels"], torch.float64)
    generator = torch.Generator().manual_seed(2)
    stretched = [c * float(torch.rand(1, generator=generator)) for c in at.spec[1]]
    first = [at.spec[0][k + 9] for k in range(0, len(at.spec[0]), 10) if at.spec[0][k + 1] > 0]
    at.spec = (
        at.spec[0],
        [s if k >= min(first) else c for k, (s, c) in enumerate(zip(stretched, at.spec[1], strict=True))],
    )
    dense = [k for k in range(0, len(at.spec[0]), 10) if at.spec[0][k + 1] > 0]
    at.spec = ([p for k in dense for p in at.spec[0][k : k + 10]], at.spec[1])
    x, y, weights, index = at.at
    columns = max(at.spec[0][k + 6] + at.spec[0][k + 3] for k in range(0, len(at.spec[0]), 10))
    arguments = (x, y, weights[:, :columns].contiguous(), index, *at.spec, at.receivers)
    assert deviation(emulated.tensor_product(*arguments), CPU.tensor_product(*arguments)) < 1e-14


@pytest.mark.parametrize(
    "spoiled",
    [
        pytest.param(torch.tensor([[3, 1, 1], [0, 1, 2]]), id="unsorted"),
        pytest.param(torch.tensor([[0, 1, 13], [0, 1, 2]]), id="no such receiver"),
        pytest.param(torch.tensor([[0, 1, 1], [0, 13, 2]]), id="no such sender"),
        pytest.param(torch.tensor([[-1, 1, 1], [0, 1, 2]]), id="negative"),
    ],
)
def test_wrong_edges_give_nan(spoiled: Tensor, emulated: torch._ops._OpNamespace) -> None:
    """A kernel cannot raise; where an engine looks at the output, it says so."""
    at = Case(CASES["odd channels"], torch.float64, count=3)
    at.at = at.at._replace(edge_index=spoiled)
    for wanted in WANTED[:2]:
        for result in at.everything(emulated, wanted):
            assert result.isnan().all()


def test_lengths_outside_the_table_give_nan(emulated: torch._ops._OpNamespace) -> None:
    at = Case(CASES["odd channels"], torch.float64)
    at.lengths[17] = 4.71
    x, y, _, index = at.at
    out = emulated.tensor_product_table(x, y, *at.table, index, *at.spec, at.receivers)
    wrong = out.isnan().any(1)
    assert wrong.nonzero().flatten().tolist() == [int(index[0, 17])]
    at.lengths[17] = 4.7 + 1e-5
    assert at.everything(emulated, WANTED[0])[4].isfinite().all()


def test_strided_arguments(emulated: torch._ops._OpNamespace) -> None:
    at = Case(CASES["odd channels"], torch.float32)
    strided = [t.t().contiguous().t() for t in at.at]
    a, b = (emulated.tensor_product(*t, *at.spec, at.receivers) for t in (strided, at.at))
    assert torch.equal(a, b)


def test_bad_arguments_are_refused_as_on_the_cpu(emulated: torch._ops._OpNamespace) -> None:
    at = Case(CASES["odd channels"], torch.float64)
    with pytest.raises(ValueError, match="one column a path and channel"):
        emulated.tensor_product(at.at.x, at.at.y, at.at.weights[:, 1:], at.at.edge_index, *at.spec, 13)
    with pytest.raises(ValueError, match="must be Wigner 3j symbols"):
        emulated.tensor_product(*at.at, at.spec[0], [c + 0.1 for c in at.spec[1]], 13)


def test_threads_that_do_not_meet_are_noticed(emulated: torch._ops._OpNamespace) -> None:
    with pytest.raises(RuntimeError, match=r"threads do not meet.*__syncwarp.*thread 3 is done"):
        emulated.run_uneven()
    at = Case(CASES["odd channels"], torch.float32)
    assert at.everything(emulated, WANTED[0])[0].isfinite().all()


def test_edges_are_sorted_once_a_step(emulated: torch._ops._OpNamespace) -> None:
    """What a layer finds by sender all others ask for, while the tensor of the edges lives and nobody writes to it."""
    at = Case(CASES["odd channels"], torch.float64)

    def backward() -> tuple[list[Tensor], int]:
        x, y, weights, index = at.at
        with EmulatedGPU(emulated) as gpu:
            found = emulated.tensor_product_backward(at.grad, x, y, weights, index, *at.spec, WANTED[0])
        return list(found), gpu.launches.total()

    first, launches = backward()
    again, fewer = backward()
    assert launches - fewer > SORT
    assert all(map(torch.equal, again, first))
    index = at.at.edge_index
    index[1] = index[1].flip(0)
    turned, as_many = backward()
    assert as_many == launches
    assert not torch.equal(turned[0], first[0])
    at.at = at.at._replace(edge_index=index.clone())
    other, as_many = backward()
    assert as_many == launches
    assert all(map(torch.equal, other, turned))
