"""The fused convolution against e3nn, against its plain version, and against finite differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from e3nn import o3
from torch import Tensor
from torch import library as operators

from equistride.errors import EquistrideError
from equistride.nn.radial_table import RadialTable
from equistride.nn.tensor_product import (
    TabulatedConvolution,
    TensorProductConvolution,
    all_instructions,
    channels_first,
    channels_last,
    tensor_product_reference,
)

TRAJCAST = "64x0o + 64x0e + 64x1o + 64x1e + 64x2o + 64x2e"
CASES = {
    "trajcast": (TRAJCAST, "0e + 1o + 2e"),
    "natural": ("64x0e + 64x1o + 64x2e", "0e + 1o + 2e"),
    "equiformer": ("128x0e + 64x1e + 32x2e", "0e + 1e + 2e"),
    "odd channels": ("5x0e + 3x1o + 21x2e", "0e + 1o + 2e"),
    "degrees to 4": ("5x0e + 9x1o + 17x2e + 4x3o + 2x4e", "0e + 1o + 2e + 3o + 4e"),
    "repeated blocks": ("8x1o + 4x0e + 8x1o", "1o + 0e + 2e"),
}


class Sample(NamedTuple):
    x: Tensor
    y: Tensor
    weights: Tensor
    edge_index: Tensor


def edges(atoms: int, count: int, *, generator: torch.Generator) -> Tensor:
    """Random edges, sorted by receiver."""
    pairs = torch.randint(0, atoms, (2, count), generator=generator)
    return pairs[:, pairs[0].argsort(stable=True)]


def sample(
    convolution: TensorProductConvolution, atoms: int = 11, count: int = 150, dtype: torch.dtype = torch.float64
) -> Sample:
    generator = torch.Generator().manual_seed(7)
    widths = (convolution.irreps_in.dim, convolution.irreps_sh.dim, convolution.weight_numel)
    x, y, weights = (
        torch.randn(rows, width, generator=generator, dtype=torch.float64).to(dtype)
        for rows, width in zip((atoms, count, count), widths, strict=True)
    )
    return Sample(x, y, weights, edges(atoms, count, generator=generator))


def e3nn_convolution(convolution: TensorProductConvolution, at: Sample) -> Tensor:
    """Gather, e3nn's tensor product, scatter; all in e3nn's layout, returned in ours."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(at.x.dtype)  # e3nn rounds its constants to this
    try:
        product = o3.TensorProduct(
            convolution.irreps_in,
            convolution.irreps_sh,
            convolution.irreps_paths,
            [(p.i_in, p.i_sh, p.i_out, "uvu", True, p.path_weight) for p in convolution.instructions],
            shared_weights=False,
            internal_weights=False,
        )
    finally:
        torch.set_default_dtype(before)
    assert product.weight_numel == convolution.weight_numel
    x = channels_first(at.x, convolution.irreps_in)
    messages = product(x[at.edge_index[1]], at.y, at.weights)
    out = x.new_zeros(len(x), product.irreps_out.dim).index_add(0, at.edge_index[0], messages)
    return channels_last(out, convolution.irreps_out)


def gradients(function: Callable[..., Tensor], inputs: list[Tensor], seed: Tensor) -> list[Tensor]:
    inputs = [t.clone().requires_grad_() for t in inputs]
    return list(torch.autograd.grad(function(*inputs), inputs, seed))


def deviation(a: Tensor, b: Tensor) -> float:
    """Largest difference as a share of the largest magnitude."""
    assert a.shape == b.shape
    return ((a - b).abs().max() / b.abs().max()).item()


# Sums of some 10^3 products of float64: errors of 10 units in the last place; float32 likewise.
TOLERANCE = {torch.float64: 1e-14, torch.float32: 3e-6}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_equals_e3nn(case: str, dtype: torch.dtype) -> None:
    convolution = TensorProductConvolution(*CASES[case])
    at = sample(convolution, dtype=dtype)
    found = convolution(at.x, at.y, at.weights, at.edge_index)
    assert deviation(found, e3nn_convolution(convolution, at)) < TOLERANCE[dtype]

    seed = torch.randn(found.shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
    ours = gradients(lambda x, y, w: convolution(x, y, w, at.edge_index), list(at[:3]), seed)
    theirs = gradients(
        lambda x, y, w: e3nn_convolution(convolution, Sample(x, y, w, at.edge_index)), list(at[:3]), seed
    )
    for a, b in zip(ours, theirs, strict=True):
        assert deviation(a, b) < TOLERANCE[dtype]


def test_trajcast_has_the_published_sizes() -> None:
    full = TensorProductConvolution(TRAJCAST, "0e + 1o + 2e")
    assert (len(full.instructions), full.weight_numel, full.irreps_out.dim) == (30, 1920, 6528)
    first = TensorProductConvolution("64x0e + 64x1o + 64x2e", "0e + 1o + 2e")
    assert (len(first.instructions), first.weight_numel, first.irreps_out.dim) == (15, 960, 3264)
    assert [ir for _, ir in full.irreps_out] == [o3.Irrep(ir) for ir in ("0o", "0e", "1o", "1e", "2o", "2e")]


def test_paths_may_share_a_block_and_carry_weights() -> None:
    """e3nn divides the variance of a block among its paths."""
    convolution = TensorProductConvolution(
        "6x0e + 6x1o", "0e + 1o", "6x1o + 6x0e", [(0, 1, 0), (1, 0, 0, 2.0), (0, 0, 1), (1, 1, 1, 0.5)]
    )
    at = sample(convolution)
    found = convolution(at.x, at.y, at.weights, at.edge_index)
    assert deviation(found, e3nn_convolution(convolution, at)) < 1e-14


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_every_instruction_set_equals_the_plain_version(case: str, dtype: torch.dtype, simd: str) -> None:
    convolution = TensorProductConvolution(*CASES[case])
    plain = TensorProductConvolution(*CASES[case], fused=False)
    at = sample(convolution, dtype=dtype)
    seed = torch.randn(11, convolution.irreps_out.dim, generator=torch.Generator().manual_seed(1)).to(dtype)
    ours = gradients(lambda x, y, w: convolution(x, y, w, at.edge_index), list(at[:3]), seed)
    theirs = gradients(lambda x, y, w: plain(x, y, w, at.edge_index), list(at[:3]), seed)
    assert deviation(convolution(*at), plain(*at)) < TOLERANCE[dtype]
    for a, b in zip(ours, theirs, strict=True):
        assert deviation(a, b) < TOLERANCE[dtype]


def small() -> TensorProductConvolution:
    return TensorProductConvolution("3x0e + 2x1o + 1x2e + 1x3o", "0e + 1o + 2e", "0e + 1o + 1e + 2e + 3o")


def test_gradients_against_finite_differences() -> None:
    convolution = small()
    at = sample(convolution, atoms=3, count=5)
    inputs = [t.requires_grad_() for t in at[:3]]
    assert torch.autograd.gradcheck(lambda x, y, w: convolution(x, y, w, at.edge_index), inputs)


def test_second_gradients_against_finite_differences() -> None:
    convolution = TensorProductConvolution("2x0e + 1x1o", "0e + 1o")
    at = sample(convolution, atoms=3, count=4)
    inputs = [t.requires_grad_() for t in at[:3]]
    assert torch.autograd.gradgradcheck(lambda x, y, w: convolution(x, y, w, at.edge_index), inputs)


def test_forces_train(simd: str) -> None:
    """A loss on gradients to y has gradients to x and weights, as for the plain version."""
    results = []
    for fused in (True, False):
        convolution = TensorProductConvolution("8x0e + 8x1o", "0e + 1o", fused=fused)
        at = sample(convolution)
        x, y, weights = (t.clone().requires_grad_() for t in at[:3])
        energy = convolution(x, y, weights, at.edge_index).square().sum()
        (force,) = torch.autograd.grad(energy, y, create_graph=True)
        results.append(torch.autograd.grad(force.square().sum(), [x, weights]))
    for a, b in zip(*results, strict=True):
        assert deviation(a, b) < 1e-13


@pytest.mark.parametrize("wanted", ["x", "y", "w", "xw", "yw", "xy"])
def test_only_the_gradients_asked_for(wanted: str) -> None:
    convolution = small()
    at = sample(convolution)
    everything = [t.clone().requires_grad_() for t in at[:3]]
    some = [t.clone().requires_grad_(name in wanted) for name, t in zip("xyw", at[:3], strict=True)]
    for inputs in (everything, some):
        convolution(*inputs, at.edge_index).square().sum().backward()
    for name, a, b in zip("xyw", some, everything, strict=True):
        assert torch.equal(a.grad, b.grad) if name in wanted else a.grad is None


def test_rotation_of_the_input_rotates_the_output(double_by_default: None) -> None:
    convolution = TensorProductConvolution(TRAJCAST.replace("64", "4"), "0e + 1o + 2e")
    at = sample(convolution, atoms=5, count=20)
    rotation = -o3.rand_matrix(dtype=torch.float64)  # with inversion: parities count
    turned_x, turned_y, turn_out = (
        irreps.D_from_matrix(rotation)
        for irreps in (convolution.irreps_in, convolution.irreps_sh, convolution.irreps_out)
    )
    out = channels_first(convolution(*at), convolution.irreps_out)
    x = channels_last(channels_first(at.x, convolution.irreps_in) @ turned_x.T, convolution.irreps_in)
    turned = convolution(x, at.y @ turned_y.T, at.weights, at.edge_index)
    assert deviation(channels_first(turned, convolution.irreps_out), out @ turn_out.T) < 1e-13


def learning(convolution: TensorProductConvolution, table: RadialTable, edge_index: Tensor) -> Callable[..., Tensor]:
    """A tabulated convolution as a function of its table too."""

    def convolve(x: Tensor, y: Tensor, lengths: Tensor, coefficients: Tensor) -> Tensor:
        tabulated = TabulatedConvolution(convolution, RadialTable(coefficients, table.start, table.step))
        return tabulated(x, y, lengths, edge_index)

    return convolve


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_numbers_do_not_depend_on_the_threads(dtype: torch.dtype) -> None:
    """Bit for bit, with enough edges for many slabs of waiting gradients."""
    convolution = TensorProductConvolution(TRAJCAST, "0e + 1o + 2e")
    at = sample(convolution, atoms=97, count=4000, dtype=dtype)
    table = RadialTable(at.weights[:40], 1.0, 0.1)
    tabulated = TabulatedConvolution(convolution, table)
    lengths = 1.0 + 3.5 * torch.rand(4000, generator=torch.Generator().manual_seed(3)).to(dtype)
    seed = torch.randn(97, 6528, generator=torch.Generator().manual_seed(1)).to(dtype)
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(
                [
                    convolution(*at),
                    *gradients(lambda x, y, w: convolution(x, y, w, at.edge_index), list(at[:3]), seed),
                    tabulated(at.x, at.y, lengths, at.edge_index),
                    *gradients(lambda x, y, r: tabulated(x, y, r, at.edge_index), [at.x, at.y, lengths], seed),
                    *gradients(
                        learning(convolution, table, at.edge_index), [at.x, at.y, lengths, table.coefficients], seed
                    ),
                ]
            )
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_atoms_without_edges_and_graphs_without_edges() -> None:
    convolution = small()
    at = sample(convolution, atoms=4, count=3)._replace(edge_index=torch.tensor([[1, 1, 3], [0, 3, 3]]))
    x = at.x.clone().requires_grad_()
    out = convolution(x, *at[1:])
    assert torch.equal(out[[0, 2]], torch.zeros_like(out[:2]))
    assert out[[1, 3]].abs().amin(1).max() > 0
    out.square().sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad[[1, 2]], torch.zeros_like(x[:2]))

    none = sample(convolution, atoms=4, count=0)
    inputs = [t.clone().requires_grad_() for t in none[:3]]
    out = convolution(*inputs, none.edge_index)
    assert torch.equal(out, torch.zeros(4, convolution.irreps_out.dim, dtype=torch.float64))
    out.sum().backward()
    assert [t.grad.shape for t in inputs] == [t.shape for t in inputs]
    assert convolution(none.x[:0], none.y, none.weights, none.edge_index).shape == (0, convolution.irreps_out.dim)


def test_receivers_may_differ_from_senders() -> None:
    convolution = small()
    at = sample(convolution, atoms=9)
    local = at.edge_index[0] < 5
    some = Sample(at.x, at.y[local], at.weights[local], at.edge_index[:, local])
    assert torch.equal(convolution(*some, num_receivers=5), convolution(*at)[:5])


def test_strided_arguments() -> None:
    convolution = small()
    at = sample(convolution)
    strided = [t.t().contiguous().t() for t in at]
    assert not any(t.is_contiguous() for t in strided)
    assert torch.equal(convolution(*strided), convolution(*at))


def spoil(at: Sample, name: str) -> tuple[Sample, type[Exception], str]:
    """One wrong argument, and what must be said of it."""
    index = at.edge_index
    cases = {
        "x is flat": (at._replace(x=at.x[0]), ValueError, r"x must have shape \[N, columns\]"),
        "x is narrow": (at._replace(x=at.x[:, 1:]), ValueError, "x has 20 columns; a path reads up to column 21"),
        "x is half": (at._replace(x=at.x.half()), TypeError, "x must be float32 or float64"),
        "y is float32": (at._replace(y=at.y.float()), TypeError, "y must have the type of x"),
        "y is short": (at._replace(y=at.y[1:]), ValueError, "y must have one row an edge"),
        "y is narrow": (at._replace(y=at.y[:, 1:]), ValueError, "y has 8 columns"),
        "weights are narrow": (at._replace(weights=at.weights[:, 1:]), ValueError, "one column a path and channel"),
        "weights are float32": (at._replace(weights=at.weights.float()), TypeError, "weights must have the type of x"),
        "index is int32": (at._replace(edge_index=index.int()), TypeError, "edge_index must be int64"),
        "index is turned": (at._replace(edge_index=index.t()), ValueError, r"edge_index must have shape \[2, E\]"),
        "index is unsorted": (at._replace(edge_index=index.flip(1)), ValueError, "sorted by receiver.*sort the edges"),
        "sender beyond": (at._replace(edge_index=index + torch.tensor([[0], [9]])), IndexError, "senders below"),
        "receiver below 0": (at._replace(edge_index=index - torch.tensor([[9], [0]])), IndexError, "receivers below"),
    }  # fmt: skip
    return cases[name]


@pytest.mark.parametrize(
    "name",
    [
        *("x is flat", "x is narrow", "x is half", "y is float32", "y is short", "y is narrow"),
        *("weights are narrow", "weights are float32", "index is int32", "index is turned"),
        *("index is unsorted", "sender beyond", "receiver below 0"),
    ],
)
def test_refuses_wrong_arguments(name: str) -> None:
    convolution = small()
    wrong, error, message = spoil(sample(convolution), name)
    with pytest.raises(error, match=message):
        convolution(*wrong)


def test_refuses_wrong_paths() -> None:
    convolution = small()
    at = sample(convolution)
    call = torch.ops.equistride.tensor_product
    with pytest.raises(ValueError, match="paths must hold 10 integers a path"):
        call(*at, convolution.paths[:-1], convolution.couplings, 11)
    with pytest.raises(ValueError, match="couplings must be Wigner 3j symbols"):
        call(*at, convolution.paths, [c + 1 for c in convolution.couplings], 11)
    with pytest.raises(ValueError, match="couplings holds"):
        call(*at, convolution.paths, convolution.couplings[:-1], 11)
    with pytest.raises(ValueError, match="degrees of a path must lie between 0 and 4"):
        call(*at, [5, *convolution.paths[1:]], convolution.couplings, 11)
    with pytest.raises(ValueError, match="num_receivers must not be negative"):
        call(*at, convolution.paths, convolution.couplings, -1)


def test_refuses_unknown_instruction_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    convolution = small()
    monkeypatch.setenv("EQUISTRIDE_SIMD", "avx3")
    with pytest.raises(ValueError, match="EQUISTRIDE_SIMD names an instruction set"):
        convolution(*sample(convolution))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("4x0e", "1o", "0e"), "no path leads"),
        (("4x0e", "2x1o"), "not a 'uvu' path.*multiplicity 1"),
        (("4x5o", "1o"), "not a 'uvu' path.*degrees to 4"),
        (("4x0e", "1o", "4x1o"), None),
        (("4x0e", "1o", "4x1o", [(0, 0, 0)]), None),
        (("4x0e", "1o", "3x1o", [(0, 0, 0)]), "not a 'uvu' path"),
        (("4x0e", "1o", "4x1o + 4x0e", [(0, 0, 0)]), "a block of the output has no path"),
        (("4x0e", "1o", None, [(0, 0, 0)]), "instructions and irreps_out must be given together"),
    ],
)
def test_refuses_wrong_irreps(arguments: tuple, message: str | None) -> None:
    if message is None:
        assert TensorProductConvolution(*arguments).irreps_out == o3.Irreps("4x1o")
        return
    with pytest.raises(EquistrideError, match=message):
        TensorProductConvolution(*arguments)


def test_layouts_are_inverse() -> None:
    irreps = o3.Irreps("2x0e + 3x1o")
    features = torch.arange(11.0)[None]
    last = channels_last(features, irreps)
    assert last[0].tolist() == [0, 1, 2, 5, 8, 3, 6, 9, 4, 7, 10]
    assert torch.equal(channels_first(last, irreps), features)


def test_instructions_are_sorted_by_output() -> None:
    irreps_out, instructions = all_instructions("2x0e + 2x1o", "0e + 1o", "0e + 1o")
    assert irreps_out == o3.Irreps("2x0e + 2x0e + 2x1o + 2x1o")
    assert [tuple(p[:3]) for p in instructions] == [(0, 0, 0), (1, 1, 1), (0, 1, 2), (1, 0, 3)]


# Radial tables


def radial(columns: int) -> torch.nn.Module:
    """A smooth random function of length that vanishes at 5 A."""
    generator = torch.Generator().manual_seed(2)
    first = torch.randn(8, 16, generator=generator, dtype=torch.float64) / 8**0.5
    second = torch.randn(16, columns, generator=generator, dtype=torch.float64) / 4

    class Radial(torch.nn.Module):
        def forward(self, r: Tensor) -> Tensor:
            k = torch.arange(1, 9, dtype=r.dtype)
            basis = torch.sin(k * torch.pi * r[:, None] / 5) / r[:, None] * (1 - r[:, None] / 5) ** 3
            return torch.nn.functional.silu(basis @ first) @ second

    return Radial()


@pytest.mark.parametrize("tolerance", [1e-4, 1e-7])
def test_table_keeps_its_error_bound(tolerance: float) -> None:
    function = radial(7)
    table = RadialTable.tabulate(function, 0.5, 5.0, tolerance=tolerance)
    r = 0.5 + 4.5 * torch.rand(5000, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    value = function(r)
    assert float((table(r) - value).abs().max() / value.abs().max()) < 1.05 * table.error < 1.05 * tolerance
    assert table.stop == pytest.approx(5.0)
    ends = torch.tensor([0.5, 5.0], dtype=torch.float64)
    assert torch.allclose(table(ends), function(ends), atol=1e-12)


def test_table_has_two_continuous_derivatives() -> None:
    table = RadialTable(torch.randn(9, 1, generator=torch.Generator().manual_seed(5), dtype=torch.float64), 0.0, 0.5)

    def derivatives(at: float) -> list[float]:
        r = torch.tensor([at], dtype=torch.float64, requires_grad=True)
        value = table(r).sum()
        (slope,) = torch.autograd.grad(value, r, create_graph=True)
        (bend,) = torch.autograd.grad(slope.sum(), r)
        return [t.detach().item() for t in (value, slope, bend)]

    for knot in (0.5, 1.0, 2.5):
        assert derivatives(knot - 1e-12) == pytest.approx(derivatives(knot + 1e-12), abs=1e-9)


def test_table_refuses() -> None:
    with pytest.raises(EquistrideError, match="range or the tolerance"):
        RadialTable.tabulate(radial(2), 5.0, 0.5)
    with pytest.raises(EquistrideError, match="too rough"):
        RadialTable.tabulate(radial(2), 0.5, 5.0, tolerance=1e-9, max_intervals=32)
    with pytest.raises(EquistrideError, match="not those of a spline"):
        RadialTable(torch.zeros(3, 2), 0.0, 0.1)
    with pytest.raises(EquistrideError, match="does not fit the convolution"):
        TabulatedConvolution(small(), RadialTable(torch.zeros(9, 2), 0.0, 0.1))


def tabulated(
    dtype: torch.dtype = torch.float64, count: int = 150, atoms: int = 11
) -> tuple[TabulatedConvolution, Sample, Tensor]:
    convolution = small()
    table = RadialTable.tabulate(radial(convolution.weight_numel), 0.5, 5.0, tolerance=1e-6)
    lengths = 0.5 + 4.5 * torch.rand(count, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    return (
        TabulatedConvolution(convolution, table).to(dtype),
        sample(convolution, atoms, count, dtype),
        lengths.to(dtype),
    )


def test_slopes_of_a_fine_table_keep_their_digits(simd: str) -> None:
    """Neighbouring coefficients are close: their differences are exact in float32, where products of each cancel."""
    convolution = small()
    table = RadialTable.interpolating(radial(convolution.weight_numel), 0.5, 5.0, 4096).float()
    at = sample(convolution, 11, 150, torch.float32)
    lengths = (0.5 + 4.5 * torch.rand(150, generator=torch.Generator().manual_seed(6), dtype=torch.float64)).float()
    slopes = []
    for dtype in (torch.float32, torch.float64):
        fused = TabulatedConvolution(convolution, table).to(dtype)
        (slope,) = gradients(
            lambda r, fused=fused, dtype=dtype: fused(at.x.to(dtype), at.y.to(dtype), r, at.edge_index),
            [lengths.to(dtype)],
            torch.ones(11, convolution.irreps_out.dim, dtype=dtype),
        )
        slopes.append(slope.double())
    assert float((slopes[0] - slopes[1]).abs().max() / slopes[1].abs().max()) < 9e-7


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_table_in_the_operator_equals_the_plain_version(dtype: torch.dtype, simd: str) -> None:
    fused, at, lengths = tabulated(dtype)
    lengths[:2] = torch.tensor([0.5, 5.0])
    found = fused(at.x, at.y, lengths, at.edge_index)
    seed = torch.randn(found.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    ours = gradients(lambda x, y, r: fused(x, y, r, at.edge_index), [at.x, at.y, lengths], seed)
    fused.fused = False
    expected = fused(at.x, at.y, lengths, at.edge_index)
    theirs = gradients(lambda x, y, r: fused(x, y, r, at.edge_index), [at.x, at.y, lengths], seed)
    # The plain version finds its place in the table in float32, ours in float64.
    tolerance = {torch.float64: 1e-13, torch.float32: 2e-4}[dtype]
    assert deviation(found, expected) < tolerance
    for a, b in zip(ours, theirs, strict=True):
        assert deviation(a, b) < tolerance


def test_gradients_of_the_table_against_finite_differences() -> None:
    fused, at, lengths = tabulated(count=5, atoms=3)
    inputs = [t.requires_grad_() for t in (at.x, at.y, lengths)]
    assert torch.autograd.gradcheck(lambda x, y, r: fused(x, y, r, at.edge_index), inputs)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_a_table_that_learns_equals_the_plain_version(dtype: torch.dtype, simd: str) -> None:
    fused, at, lengths = tabulated(dtype)
    inputs = [at.x, at.y, lengths, fused.table.coefficients]
    seed = torch.randn(11, fused.width, generator=torch.Generator().manual_seed(1)).to(dtype)
    ours = gradients(learning(small(), fused.table, at.edge_index), inputs, seed)
    plain = small()
    plain.fused = False
    theirs = gradients(learning(plain, fused.table, at.edge_index), inputs, seed)
    for a, b in zip(ours, theirs, strict=True):
        assert deviation(a, b) < {torch.float64: 1e-13, torch.float32: 2e-4}[dtype]


@pytest.mark.parametrize("length", [0.4, 5.1, float("nan"), float("inf")])
def test_lengths_outside_the_table_are_refused(length: float) -> None:
    fused, at, lengths = tabulated()
    lengths[17] = length
    with pytest.raises(ValueError, match=r"longer or shorter than the radial table.*at edge 17"):
        fused(at.x, at.y, lengths, at.edge_index)


def test_table_says_what_it_cannot_do() -> None:
    fused, at, lengths = tabulated()
    x = at.x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(fused(x, at.y, lengths, at.edge_index).square().sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="first gradients only"):
        slope.sum().backward()
    fused.table.coefficients.requires_grad_()
    out = fused(x, at.y, lengths, at.edge_index).square().sum()
    with pytest.raises(NotImplementedError, match="first gradients only"):
        torch.autograd.grad(out, x, create_graph=True)


# Other ways to run


@pytest.mark.parametrize("wanted", [[True, True, True], [False, True, False]])
def test_operators_pass_opcheck(wanted: list[bool]) -> None:
    ops = torch.ops.equistride
    convolution = small()
    at = sample(convolution)
    spec = (convolution.paths, convolution.couplings)
    inputs = [t.clone().requires_grad_() for t in at[:3]]
    grad = torch.ones(11, convolution.irreps_out.dim, dtype=torch.float64)
    operators.opcheck(ops.tensor_product.default, (*inputs, at.edge_index, *spec, 11))
    backward = ops.tensor_product_backward.default
    operators.opcheck(backward, (grad.requires_grad_(), *inputs, at.edge_index, *spec, wanted))

    fused, _, lengths = tabulated()
    table = (lengths.requires_grad_(), fused.table.coefficients, fused.start, fused.step, at.edge_index, *spec)
    operators.opcheck(ops.tensor_product_table.default, (*inputs[:2], *table, 11))
    plain = [t.detach() if isinstance(t, Tensor) else t for t in (grad, *inputs[:2], *table)]
    operators.opcheck(ops.tensor_product_table_backward.default, (*plain, wanted))


@pytest.mark.parametrize("fused", [True, False])
def test_torchscript_gives_the_same_numbers(fused: bool) -> None:
    convolution = TensorProductConvolution("8x0e + 4x1o", "0e + 1o", fused=fused)
    at = sample(convolution)
    scripted = torch.jit.script(convolution)
    for _ in range(3):  # the profiling executor rewrites the graph after its first runs
        inputs = [t.clone().requires_grad_() for t in at[:3]]
        out = scripted(*inputs, at.edge_index)
        assert deviation(out, convolution(*at)) <= (0 if fused else 1e-14)  # it may fuse plain torch otherwise
        out.square().sum().backward()
        assert all(t.grad is not None for t in inputs)

    table = RadialTable(torch.randn(12, convolution.weight_numel, dtype=torch.float64), 0.0, 0.5)
    module = TabulatedConvolution(convolution, table)
    lengths = torch.linspace(0, 4.5, 150, dtype=torch.float64)
    arguments = (at.x, at.y, lengths, at.edge_index)
    assert deviation(torch.jit.script(module)(*arguments), module(*arguments)) < 1e-14


def test_export_and_compiled_shapes() -> None:
    """The shape functions follow a dynamic number of edges."""
    convolution = TensorProductConvolution("8x0e + 4x1o", "0e + 1o")
    at = sample(convolution)
    count = torch.export.Dim("count", min=2)
    dynamic = {"x": None, "y": {0: count}, "weights": {0: count}, "edge_index": {1: count}}
    program = torch.export.export(convolution, tuple(at), dynamic_shapes=dynamic)
    fewer = Sample(at.x, at.y[:60], at.weights[:60], at.edge_index[:, :60])
    assert torch.equal(program.module()(*fewer), convolution(*fewer))


def test_reference_takes_edges_in_any_order() -> None:
    convolution = small()
    at = sample(convolution)
    order = torch.randperm(150, generator=torch.Generator().manual_seed(8))
    shuffled = tensor_product_reference(
        at.x, at.y[order], at.weights[order], at.edge_index[:, order], convolution.paths, convolution.couplings, 11
    )
    assert deviation(shuffled, convolution(*at)) < 1e-14
