"""The fused norm, atom block and first features of eSEN against plain torch, finite differences, and what they must refuse."""

from __future__ import annotations

import pytest
import torch
from atom_block_cases import SIZES, TOLERANCE, features, random_block
from edge_block_cases import deviation, some_bonds
from random_models import random_potential
from torch import Tensor
from torch import library as operators

from equistride.models.esen_fused import fuse
from equistride.nn.atom_block import AtomNorm
from equistride.nn.edge_block import Bonds, bond_lengths
from equistride.nn.harmonics import SphericalHarmonics
from equistride.nn.radial import polynomial_envelope
from equistride.nn.spherical import degree_of_coefficients

OPS = torch.ops.equistride


def with_gradients(module: object, inputs: list[Tensor]) -> list[Tensor]:
    """The output, and the gradients of a sum of its squares, whose weights are all different."""
    inputs = [t.clone().requires_grad_() for t in inputs]
    out = module(*inputs)
    return [out.detach(), *torch.autograd.grad(out.square().sum(), inputs)]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_equal_plain_torch(size: tuple[int, int, int], dtype: torch.dtype, simd: str) -> None:
    block, plain = random_block(*size)
    inputs = list(features(*size[:2]))
    expected = with_gradients(plain, inputs), with_gradients(plain.norm, inputs[:1])
    block.to(dtype).pack()
    inputs = [t.to(dtype) for t in inputs]
    found = with_gradients(block, inputs), with_gradients(AtomNorm(block.norm), inputs[:1])
    for one, other in zip([*found[0], *found[1]], [*expected[0], *expected[1]], strict=True):
        assert one.dtype == dtype
        # two matrices, and three backward: each a few roundings of terms that may be larger than their sum
        assert deviation(one, other) < 10 * TOLERANCE[dtype]


def test_gradients_against_finite_differences() -> None:
    block, _ = random_block(2, 3, 4)
    inputs = [t.requires_grad_() for t in features(2, 3, atoms=2)]
    assert torch.autograd.gradcheck(block, inputs)
    assert torch.autograd.gradcheck(AtomNorm(block.norm), inputs[:1])
    with pytest.raises(NotImplementedError, match="first gradients only"):
        torch.autograd.grad(block(*inputs).square().sum(), inputs[0], create_graph=True)


def test_a_charge_shifts_the_scalars() -> None:
    norm = random_block(2, 5, 3)[0].norm
    x, shift = features(2, 5)[0], torch.randn(5, dtype=torch.float64)
    assert torch.equal(AtomNorm(norm)(x, shift), norm(x, shift))


def test_no_atoms() -> None:
    block, _ = random_block(2, 5, 3)
    x = torch.zeros(0, 9, 5, dtype=torch.float64)
    for found in (*with_gradients(block, [x, x]), *with_gradients(AtomNorm(block.norm), [x])):
        assert found.shape == x.shape


def test_no_atom_depends_on_the_others_or_on_threads() -> None:
    """Bit for bit, whatever an atom's place among those that share a matrix."""
    block, _ = random_block(2, 64, 64)
    x, messages = features(2, 64, atoms=400)
    expected, before = block(x, messages), torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(block(x, messages), expected)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(block(x[5:7], messages[5:7]), expected[5:7])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": lambda x: x[:, :8]}, ValueError, r"\(l_max \+ 1\)\^2 rows"),
        ({"x": lambda x: x[0]}, ValueError, "x must have shape"),
        ({"x": lambda x: x.long()}, TypeError, "x must be float32 or float64"),
        ({"messages": lambda m: m[:3]}, ValueError, "messages must have the shape of x"),
        ({"messages": lambda m: m.float()}, TypeError, "messages must have the type of x"),
        ({"weights": lambda w: w[1:]}, ValueError, "weights must have shape"),
        ({"hidden": lambda _: 0}, ValueError, "hidden_channels must be above 0"),
        (
            {"hidden": lambda _: 1 << 62},
            ValueError,
            "at most 65536; found 9 rows of 5 channels and 4611686018427387904",
        ),
        ({"x": lambda x: x[:0].as_strided((0, 2**62, 1), (0, 0, 0))}, ValueError, "with l_max at most 32"),
    ],
)
def test_blocks_refuse(change: dict[str, object], error: type[Exception], message: str) -> None:
    block, _ = random_block(2, 5, 3)
    x, messages = features(2, 5)
    given: dict[str, object] = {"x": x, "messages": messages, "weights": block.weights, "hidden": 3}
    for name, function in change.items():
        given[name] = function(given[name])
    with pytest.raises(error, match=message):
        OPS.atom_block(*given.values(), 1e-5)


def test_norms_refuse() -> None:
    norm = random_block(2, 5, 3)[0].norm
    x, (weight, bias) = features(2, 5)[0], norm.factors()
    with pytest.raises(ValueError, match="weight must have shape"):
        OPS.spherical_norm(x, weight[1:], bias[0], norm.balance.view(-1), 1e-5)
    with pytest.raises(ValueError, match="balance must have shape"):
        OPS.spherical_norm(x, weight, bias[0], norm.balance, 1e-5)
    with pytest.raises(ValueError, match="have no gradient here"):
        OPS.spherical_norm(x, weight.requires_grad_(), bias[0], norm.balance.view(-1), 1e-5)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("exponent", [0, 1, 5])
def test_lengths_and_envelopes(exponent: int, dtype: torch.dtype) -> None:
    vectors = some_bonds(0, 1)[1]
    r = torch.linalg.vector_norm(vectors, dim=1)
    assert bool((r > 2).any())
    assert bool((r < 2).any())
    expected = polynomial_envelope(r / 2.0, exponent) if exponent else torch.ones_like(r)
    lengths, envelope = bond_lengths(vectors.to(dtype), 2.0, exponent)
    assert deviation(lengths, r) < TOLERANCE[dtype]
    assert deviation(envelope, expected) < 10 * TOLERANCE[dtype]  # differences of numbers up to 36
    assert torch.autograd.gradcheck(lambda v: bond_lengths(v, 2.0, exponent), vectors.clone().requires_grad_())


def test_a_vector_of_length_zero_has_no_gradient() -> None:
    vectors = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    lengths, envelope = bond_lengths(vectors, 2.0, 5)
    assert envelope.tolist() == [1.0, 1.0]
    (gradient,) = torch.autograd.grad((lengths + envelope).sum(), vectors)
    assert not gradient.any()


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("l_max", "channels"), [(1, 3), (2, 16), (3, 19), (4, 5)])
def test_first_features(l_max: int, channels: int, dtype: torch.dtype, simd: str) -> None:
    """Harmonics times radial rows, summed over the senders."""
    scalars, vectors, frames, radial, edges = some_bonds(l_max, channels, dtype)
    network = fuse(random_potential(l_max=l_max, m_max=0, channels=channels, cutoff=3.0).network, None).to(dtype)

    def bonds(vectors: Tensor) -> Bonds:
        return Bonds(vectors, frames, bond_lengths(vectors, 3.0, 5)[1], edges)

    degrees = degree_of_coefficients(l_max)
    harmonics = SphericalHarmonics(l_max)
    norms = torch.tensor([2.0 * degree + 1 for degree in degrees], dtype=dtype).sqrt()

    def plain(v: Tensor, rows: Tensor) -> Tensor:
        y = harmonics(v) * bonds(v).envelope[:, None] / (norms * network.plain.edge_degree_scale)
        messages = y[:, :, None] * rows.view(40, l_max + 1, channels)[:, degrees]
        sums = torch.zeros(6, len(degrees), channels, dtype=dtype).index_add(0, edges[0], messages)
        return torch.cat([sums[:, :1] + scalars[:, None], sums[:, 1:]], 1)

    found, expected = (
        with_gradients(start, [vectors, radial])
        for start in (lambda v, rows: network.start(scalars, bonds(v), rows), plain)
    )
    for one, other in zip(found, expected, strict=True):
        assert deviation(one, other) < 10 * TOLERANCE[dtype]


def test_first_features_against_finite_differences() -> None:
    scalars, vectors, _, radial, edges = some_bonds(2, 2)
    envelope = torch.rand(40, dtype=torch.float64)

    def features(vectors: Tensor, envelope: Tensor, radial: Tensor) -> Tensor:
        frames = OPS.bond_frames(vectors.detach(), 2)
        return OPS.edge_degree(scalars, vectors, frames, envelope, radial, edges, 0.2)

    inputs = [t.requires_grad_() for t in (vectors, envelope, radial)]
    assert torch.autograd.gradcheck(features, inputs)
    with pytest.raises(NotImplementedError, match="first gradients only"):
        torch.autograd.grad(features(*inputs).square().sum(), inputs[0], create_graph=True)


def test_no_edges() -> None:
    scalars, vectors, frames, radial, edges = some_bonds(2, 3)
    out = OPS.edge_degree(scalars, vectors[:0], frames[:0], vectors[:0, 0], radial[:0], edges[:, :0], 0.2)
    assert torch.equal(out[:, 0], scalars)
    assert not out[:, 1:].any()
    assert [t.shape for t in bond_lengths(vectors[:0], 3.0, 5)] == [(0,), (0,)]


def test_bonds_refuse() -> None:
    scalars, vectors, frames, radial, edges = some_bonds(2, 3)
    u = torch.ones(40, dtype=torch.float64)
    with pytest.raises(ValueError, match="finite cutoff above 0"):
        bond_lengths(vectors, 0.0, 5)
    with pytest.raises(ValueError, match="exponent of the envelope from 0 to 64; found 2 and 1000000000"):
        bond_lengths(vectors, 2.0, 10**9)
    with pytest.raises(ValueError, match=r"vectors must have shape \[E, 3\]"):
        bond_lengths(vectors[:, :2], 2.0, 5)
    for wrong, error, message in (
        ((scalars, vectors, frames, u, radial[:, 1:], edges, 0.2), ValueError, r"radial must have \(l_max \+ 1\) 3 columns"),
        ((scalars, vectors, frames[:, 1:], u, radial, edges, 0.2), ValueError, "must have one row an edge"),
        ((scalars, vectors, frames, u.float(), radial, edges, 0.2), TypeError, "envelope must have the type of scalars"),
        ((scalars, vectors, frames, u, radial, edges.flip(1), 0.2), ValueError, "sorted by receiver"),
        ((scalars[:2], vectors, frames, u, radial, edges, 0.2), IndexError, "receivers below 2"),
        ((scalars.clone().requires_grad_(), vectors, frames, u, radial, edges, 0.2), ValueError, "no gradient here"),
    ):  # fmt: skip
        with pytest.raises(error, match=message):
            OPS.edge_degree(*wrong)


def test_operators_pass_opcheck() -> None:
    block, _ = random_block(2, 5, 3)
    x, messages = (t.requires_grad_() for t in features(2, 5, atoms=3))
    weight, balance = block.norm.factors()[0], block.norm.balance.view(-1)
    norm = (weight, block.norm.bias, balance, 1e-5)
    operators.opcheck(OPS.spherical_norm.default, (x, *norm))
    operators.opcheck(OPS.spherical_norm_backward.default, (messages.detach(), x.detach(), *norm))
    operators.opcheck(OPS.atom_block.default, (x, messages, block.weights, 3, 1e-5))
    given = (x.detach(), x.detach(), messages.detach(), block.weights, 3, 1e-5)
    operators.opcheck(OPS.atom_block_backward.default, given)
    scalars, vectors, frames, radial, edges = some_bonds(2, 3)
    u = torch.ones(40, dtype=torch.float64)
    operators.opcheck(OPS.bond_lengths.default, (vectors.clone().requires_grad_(), 3.0, 5))
    operators.opcheck(OPS.bond_lengths_backward.default, (u, u, vectors, 3.0, 5))
    inputs = (vectors.clone().requires_grad_(), frames, u.clone().requires_grad_(), radial.clone().requires_grad_())
    operators.opcheck(OPS.edge_degree.default, (scalars, *inputs, edges, 0.2))
    grad = torch.randn(6, 9, 3, dtype=torch.float64)
    operators.opcheck(OPS.edge_degree_backward.default, (grad, scalars, vectors, frames, u, radial, edges, 0.2))
