"""Layers on spherical features commute with rotations; radial functions are smooth where they end."""

from __future__ import annotations

import math

import pytest
import torch
from e3nn import o3
from torch import Tensor, nn

from equistride.nn.radial import BesselBasis, GaussianBasis, RadialNetwork, polynomial_envelope
from equistride.nn.rotation import coefficient_order
from equistride.nn.so2 import SO2Convolution
from equistride.nn.spherical import SpectralFeedForward, SphericalLinear, SphericalRMSNorm

L_MAX, CHANNELS = 3, 5


def wigner(rotation: Tensor) -> Tensor:
    """Return the matrix of a rotation [3, 3] on the coefficients l = 0..L_MAX, by e3nn."""
    return torch.block_diag(*(o3.Irrep(degree, 1).D_from_matrix(rotation) for degree in range(L_MAX + 1)))


@pytest.fixture
def features() -> Tensor:
    return torch.randn(4, (L_MAX + 1) ** 2, CHANNELS, generator=torch.Generator().manual_seed(5)).double()


@pytest.mark.parametrize(
    "make",
    [
        lambda: SphericalRMSNorm(L_MAX, CHANNELS),
        lambda: SphericalLinear(L_MAX, CHANNELS, 7),
        lambda: SpectralFeedForward(L_MAX, CHANNELS, 6),
    ],
    ids=["norm", "linear", "feed forward"],
)
def test_layers_commute_with_rotation(make: object, features: Tensor) -> None:
    torch.manual_seed(1)
    layer = make().double()
    with torch.no_grad():
        for weight in layer.parameters():
            weight += 0.5 * torch.randn_like(weight)
    matrix = wigner(o3.rand_matrix(dtype=torch.float64))
    assert torch.allclose(layer(matrix @ features), matrix @ layer(features), rtol=0, atol=1e-12)


def test_norm_gives_balanced_unit_variance(features: Tensor) -> None:
    """Mean over degrees of the mean square over orders and channels is one; scalars are centred."""
    y = SphericalRMSNorm(L_MAX, CHANNELS).double()(100.0 * features)
    assert torch.allclose(y[:, 0].mean(1), torch.zeros(4).double(), atol=1e-12)
    squares = [y[:, degree**2 : (degree + 1) ** 2].square().mean(dim=(1, 2)) for degree in range(L_MAX + 1)]
    # 1e-5 is added to a variance of 1e4
    assert torch.allclose(torch.stack(squares).mean(0), torch.ones(4).double(), rtol=0, atol=1e-8)


def test_bias_stays_on_the_scalars(features: Tensor) -> None:
    layer = SphericalLinear(L_MAX, CHANNELS, CHANNELS).double()
    before = layer(features)
    with torch.no_grad():
        layer.bias += 1.0
    assert torch.allclose(layer(features) - before, torch.eye(16).double()[0][:, None].expand(16, CHANNELS))


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("m_max", [0, 1, 2, 3])
def test_convolution_commutes_with_rotation_about_the_bond(m_max: int, mirror: bool, features: Tensor) -> None:
    torch.manual_seed(2)
    layer = SO2Convolution(L_MAX, m_max, CHANNELS, 4, num_gates=3, mirror=mirror).double()
    weights = torch.randn(4, layer.num_weights).double()
    order, _ = coefficient_order(L_MAX, m_max)
    turn = wigner(o3.matrix_y(torch.tensor(0.7).double()))[order][:, order]
    x = features[:, order]
    y, gates = layer(x, weights)
    turned, same_gates = layer(turn @ x, weights)
    assert torch.allclose(turned, turn @ y, rtol=0, atol=1e-12)
    assert torch.allclose(same_gates, gates, rtol=0, atol=1e-12)


def test_only_the_mirrored_convolution_commutes_with_a_mirror_plane(features: Tensor) -> None:
    """The plane x = 0 holds the bond (y) and flips the sign of the coefficients -m that are odd in x."""
    order, _ = coefficient_order(L_MAX, 2)
    y = o3.spherical_harmonics(list(range(L_MAX + 1)), torch.tensor([[0.3, 0.5, 0.8], [-0.3, 0.5, 0.8]]).double(), True)
    flip = torch.sign(y[0] * y[1])[order][:, None]
    x, errors = features[:, order], {}
    for mirror in (False, True):
        torch.manual_seed(3)
        layer = SO2Convolution(L_MAX, 2, CHANNELS, 4, mirror=mirror).double()
        errors[mirror] = (layer(flip * x, None)[0] - flip * layer(x, None)[0]).abs().max().item()
    assert errors[True] < 1e-12
    assert errors[False] > 1e-2


@pytest.mark.parametrize("p", [5, 6])
def test_envelope_ends_with_two_vanishing_derivatives(p: int) -> None:
    x = torch.tensor([1e-3, 0.5, 1.0 - 1e-12, 1.0, 1.3], dtype=torch.float64, requires_grad=True)
    u = polynomial_envelope(x, p)
    (first,) = torch.autograd.grad(u.sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    exact = 1 - (p + 1) * (p + 2) / 2 * 0.5**p + p * (p + 2) * 0.5 ** (p + 1) - p * (p + 1) / 2 * 0.5 ** (p + 2)
    assert u[1].item() == pytest.approx(exact, rel=1e-14)
    assert u[0].item() == pytest.approx(1.0, abs=1e-12)
    for values in (u, first, second):
        assert values[2:].abs().max() < 1e-8  # cancellation of terms of order p^2 at 1e-12 from the end
    assert u[3:].abs().max() == 0


def test_bases_have_their_published_form() -> None:
    r = torch.tensor([0.7, 2.0, 3.9]).double()
    centres = torch.linspace(0, 4, 9).double()
    assert torch.allclose(GaussianBasis(4.0, 9).double()(r), torch.exp(-0.5 * ((r[:, None] - centres) / 1.0) ** 2))
    k = torch.arange(1, 4).double()
    expected = math.sqrt(2 / 4.0**3) * torch.sin(k * math.pi * r[:, None] / 4) / (r[:, None] / 4)
    basis = BesselBasis(4.0, 3)
    basis.double().frequencies.data = math.pi * k
    assert torch.allclose(basis(r), expected * polynomial_envelope(r / 4, 5)[:, None])


def test_radial_network_equals_its_plain_form() -> None:
    """The first layer is split by element; the sum of its parts is the layer on the joined input."""
    torch.manual_seed(4)
    network = RadialNetwork(num_basis=6, channels=5, out=7).double()
    basis, sender, receiver = torch.randn(9, 6).double(), torch.randn(3, 5).double(), torch.randn(3, 5).double()
    i, j = torch.randint(0, 3, (2, 9))
    joined = torch.cat([basis, sender[j], receiver[i]], 1)
    plain = nn.Sequential(
        network.first, network.norm1, nn.SiLU(), network.second, network.norm2, nn.SiLU(), network.last
    )
    assert torch.allclose(network(basis, sender, receiver, 3 * i + j), plain(joined), rtol=0, atol=1e-13)
