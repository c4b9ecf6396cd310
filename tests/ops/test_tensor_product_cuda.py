"""The fused convolution on a real GPU gives the numbers of the CPU, repeats them, and runs inside a captured graph."""

from __future__ import annotations

import pytest
import torch
from test_cuda_emulation import MORE, WANTED, Case, assert_equal
from test_tensor_product import CASES, TOLERANCE
from torch import Tensor

from equistride.bench.timing import captured
from equistride.models.trajcast import TrajCast, TrajCastConfig
from equistride.nn.radial_table import RadialTable
from equistride.nn.tensor_product import TabulatedConvolution, TensorProductConvolution

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that this torch can use"),
]

OPS = torch.ops.equistride


def on_gpu(case: Case) -> Case:
    """Move a case's tensors to the GPU."""
    case.at = type(case.at)(*(t.cuda() for t in case.at))
    case.table = (*(t.cuda() for t in case.table[:2]), *case.table[2:])
    case.grad = case.grad.cuda()
    return case


def to_host(tensors: list[Tensor]) -> list[Tensor]:
    assert all(t.is_cuda for t in tensors)
    return [t.cpu() for t in tensors]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("atoms", "count"), [(13, 90), (13, 0), (400, 16000)])
@pytest.mark.parametrize("case", {**CASES, **MORE})
def test_equals_the_cpu_and_repeats(case: str, atoms: int, count: int, dtype: torch.dtype) -> None:
    """Bit for bit from run to run; from the CPU no further than sums in another order are."""
    made = Case({**CASES, **MORE}[case], dtype, atoms, count)
    expected = made.everything(OPS, WANTED[0])
    here = on_gpu(made)
    found = here.everything(OPS, WANTED[0])
    # Sums of 1,200 terms an atom, and of the gradients of harmonics over 2,000 channels.
    tolerance = TOLERANCE[dtype] * (10 if count > 1000 else 3)
    if count:
        assert_equal(to_host(found), expected, tolerance)
    else:
        assert all(torch.equal(a, b) for a, b in zip(to_host(found), expected, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(found, here.everything(OPS, WANTED[0]), strict=True))


@pytest.mark.parametrize("wanted", WANTED[1:], ids=str)
@pytest.mark.parametrize("case", ["natural", "degrees to 4"])
def test_only_the_gradients_asked_for(case: str, wanted: list[bool]) -> None:
    made = Case(CASES[case], torch.float64)
    expected = made.everything(OPS, wanted)
    assert_equal(to_host(on_gpu(made).everything(OPS, wanted)), expected, 3e-14)


def test_second_gradients_against_finite_differences() -> None:
    convolution = TensorProductConvolution("2x0e + 1x1o", "0e + 1o")
    made = on_gpu(Case(("2x0e + 1x1o", "0e + 1o"), torch.float64, 7, 6))
    inputs = [t.requires_grad_() for t in made.at[:3]]
    assert torch.autograd.gradcheck(lambda x, y, w: convolution(x, y, w, made.at.edge_index), inputs)
    assert torch.autograd.gradgradcheck(lambda x, y, w: convolution(x, y, w, made.at.edge_index), inputs)


def test_runs_inside_a_captured_graph() -> None:
    """Forward and backward, stored weights and table; replays see new numbers and new edges."""
    made = on_gpu(Case(CASES["trajcast"], torch.float32, 50, 800))
    replay, results = captured(lambda: made.everything(OPS, WANTED[0]))
    other = Case(CASES["trajcast"], torch.float32, 50, 800)
    other.at = other.at._replace(x=other.at.x.flip(0), y=other.at.y.flip(1), edge_index=other.at.edge_index.clone())
    other.at.edge_index[1] = other.at.edge_index[1].flip(0)
    for old, new in zip(made.at, on_gpu(other).at, strict=True):
        old.copy_(new)
    replay()
    for a, b in zip(results, other.everything(OPS, WANTED[0]), strict=True):
        assert torch.equal(a, b)


def test_wrong_edges_and_lengths_give_nan() -> None:
    made = on_gpu(Case(CASES["odd channels"], torch.float64))
    x, y, weights, index = made.at
    table = (made.table[0].clone(), *made.table[1:])
    table[0][17] = 9.0
    out = OPS.tensor_product_table(x, y, *table, index, *made.spec, made.receivers)
    assert out.isnan().any(1).nonzero().flatten().tolist() == [int(index[0, 17])]
    assert OPS.tensor_product(x, y, weights, index.flip(1), *made.spec, made.receivers).isnan().all()
    assert OPS.tensor_product(x, y, weights, index + 99, *made.spec, made.receivers).isnan().all()


def test_trajcast_gives_the_numbers_of_the_cpu() -> None:
    """The network as it is trained and as it is served, with tables: float32, four layers."""
    torch.manual_seed(0)
    config = TrajCastConfig(max_speed=0.05, avg_num_neighbors=20.0, channels=32, num_layers=3)
    network = TrajCast(config, 2)
    index = torch.randint(0, 60, (2, 900))
    index = index[:, index[0].argsort(stable=True)]
    vectors = torch.nn.functional.normalize(torch.randn(900, 3), dim=1) * (1.5 + 2.9 * torch.rand(900, 1))
    arguments = (vectors, 0.01 * torch.rand(60, 3), torch.randint(0, 2, (60,)), index)
    for served in (network, network.with_tables()):
        with torch.no_grad():
            expected = served(*arguments)
            found = served.cuda()(*[t.cuda() for t in arguments])
        assert (found.cpu() - expected).abs().max() < 2e-5 * expected.abs().max()


def test_tabulated_module_trains_nothing_and_gives_gradients() -> None:
    convolution = TensorProductConvolution(*CASES["natural"])
    made = on_gpu(Case(CASES["natural"], torch.float64))
    module = TabulatedConvolution(convolution, RadialTable(made.table[1].clone(), 1.0, 0.1))
    inputs = [t.clone().requires_grad_() for t in (made.at.x, made.at.y, made.table[0])]
    out = module(*inputs, made.at.edge_index, made.receivers)
    found = torch.autograd.grad(out, inputs, made.grad)
    expected = OPS.tensor_product_table_backward(
        made.grad, *made.at[:2], *made.table, made.at.edge_index, *made.spec, [True] * 3
    )
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
