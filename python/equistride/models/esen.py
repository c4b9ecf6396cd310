"""eSEN (arXiv 2502.12147): an equivariant message-passing potential that is smooth in every input.

SO(2) convolutions in a pole-free bond frame, gated non-linearities, an envelope with two vanishing derivatives at the
cutoff, no neighbour limit. Energies only: forces and virial are gradients taken by
:class:`equistride.models.potential.ConservativePotential`.
"""

from typing import Annotated, Final, Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from equistride.nn.radial import BesselBasis, GaussianBasis, RadialNetwork, polynomial_envelope
from equistride.nn.rotation import WignerRotation, coefficient_order
from equistride.nn.so2 import SO2Convolution
from equistride.nn.spherical import Gate, SpectralFeedForward, SphericalRMSNorm

Size = Annotated[int, Field(ge=1)]


class ESENConfig(BaseModel):
    """Sizes of an eSEN network; the defaults are the paper's 2-layer model with fewer channels."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    architecture: Literal["esen"] = "esen"
    cutoff: float = Field(6.0, gt=0)
    """Cutoff radius [A]."""
    num_layers: Size = 2
    l_max: Size = 2
    m_max: int = Field(2, ge=0)
    channels: Size = 64
    hidden_channels: Size = 64
    edge_channels: Size = 64
    basis: Literal["gaussian", "bessel"] = "gaussian"
    num_basis: int = Field(10, ge=2)
    mirror: bool = True
    """Invariance under reflections too, so that a crystal and its mirror image have one energy. The published network is
    invariant under rotations alone (``false``): its layers mix the +m and -m coefficients of a bond frame."""

    @model_validator(mode="after")
    def _orders(self) -> "ESENConfig":
        if self.m_max > self.l_max:
            raise ValueError(f"m_max ({self.m_max}) must not be above l_max ({self.l_max})")
        return self


EDGE_DEGREE_SCALE: Final = 5.0
"""Divisor of the edge-degree embedding, the network's only neighbour-count normalisation."""
ENVELOPE_EXPONENT: Final = 5
"""Exponent p of the envelope."""


class Edges(NamedTuple):
    """What every layer reads of the edges.

    ``receiver_sender`` [2, E] receiver and sender; ``pair`` [E] their elements, receiver * S + sender; ``basis`` [E, B] radial
    functions; ``sender``, ``receiver`` [S, C_e] element embeddings; ``rotation`` [E, K, (l_max+1)^2] into the bond
    frame; ``back`` [E, (l_max+1)^2, K] its transpose times the envelope.
    """

    receiver_sender: Tensor
    pair: Tensor
    basis: Tensor
    sender: Tensor
    receiver: Tensor
    rotation: Tensor
    back: Tensor


class EdgewiseConvolution(nn.Module):
    """Rotate, convolve twice with a gate between, rotate back, sum over the senders."""

    def __init__(self, config: ESENConfig) -> None:
        super().__init__()
        l_max, m_max, c, h = config.l_max, config.m_max, config.channels, config.hidden_channels
        self.first = SO2Convolution(l_max, m_max, 2 * c, h, num_gates=l_max * h, mirror=config.mirror)
        self.radial = RadialNetwork(config.num_basis, config.edge_channels, self.first.num_weights)
        self.gate = Gate(coefficient_order(l_max, m_max)[1][1:])
        self.second = SO2Convolution(l_max, m_max, h, c, mirror=config.mirror)

    def forward(self, x: Tensor, edges: Edges) -> Tensor:
        """Return the sum of messages [N, (l_max+1)^2, C] for features ``x`` of that shape."""
        receiver, sender = edges.receiver_sender[0], edges.receiver_sender[1]
        pair = torch.cat([x.index_select(0, sender), x.index_select(0, receiver)], 2)
        z, gates = self.first(
            torch.bmm(edges.rotation, pair), self.radial(edges.basis, edges.sender, edges.receiver, edges.pair)
        )
        z, _ = self.second(self.gate(z, gates), None)
        return torch.zeros_like(x).index_add(0, receiver, torch.bmm(edges.back, z))


class Block(nn.Module):
    """Pre-norm residual block: edgewise convolution, then feed-forward network."""

    def __init__(self, config: ESENConfig) -> None:
        super().__init__()
        self.norm1 = SphericalRMSNorm(config.l_max, config.channels)
        self.edgewise = EdgewiseConvolution(config)
        self.norm2 = SphericalRMSNorm(config.l_max, config.channels)
        self.feed_forward = SpectralFeedForward(config.l_max, config.channels, config.hidden_channels)

    def forward(self, x: Tensor, edges: Edges) -> Tensor:
        """Return the updated features [N, (l_max+1)^2, C]."""
        x = x + self.edgewise(self.norm1(x), edges)
        return x + self.feed_forward(self.norm2(x))


class ESEN(nn.Module):
    """The eSEN network: atomic energies from edge vectors.

    Parameters
    ----------
    config
        Sizes.
    num_species
        Number of elements; ``species`` indexes them.
    """

    def __init__(self, config: ESENConfig, num_species: int) -> None:
        super().__init__()
        self.cutoff, self.l_max = config.cutoff, config.l_max
        self.size = (config.l_max + 1) ** 2
        self.envelope_exponent, self.edge_degree_scale = ENVELOPE_EXPONENT, EDGE_DEGREE_SCALE
        c = config.channels
        self.channels = c
        self.embedding = nn.Embedding(num_species, c)
        self.rotation = WignerRotation(config.l_max, config.m_max)
        basis = {"gaussian": GaussianBasis, "bessel": BesselBasis}[config.basis]
        self.basis = basis(config.cutoff, config.num_basis)
        self.sender = nn.Parameter(torch.empty(num_species, config.edge_channels).uniform_(-1e-3, 1e-3))
        self.receiver = nn.Parameter(torch.empty(num_species, config.edge_channels).uniform_(-1e-3, 1e-3))
        self.edge_degree = RadialNetwork(config.num_basis, config.edge_channels, (config.l_max + 1) * c)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = SphericalRMSNorm(config.l_max, c)
        h = config.hidden_channels
        self.head = nn.Sequential(nn.Linear(c, h), nn.SiLU(), nn.Linear(h, h), nn.SiLU(), nn.Linear(h, 1))

    def forward(self, vectors: Tensor, species: Tensor, edge_index: Tensor) -> Tensor:
        """Return atomic energies [N], in units of the target scale.

        Parameters
        ----------
        vectors [E, 3]
            r_sender - r_receiver, A.
        species [N], edge_index [2, E]
            Element indices; receiver and sender of each edge.
        """
        r = torch.linalg.vector_norm(vectors, dim=1)
        rotation = self.rotation(vectors / r[:, None])
        envelope = polynomial_envelope(r / self.cutoff, self.envelope_exponent)
        pair = species.index_select(0, edge_index[0]) * self.sender.size(0) + species.index_select(0, edge_index[1])
        back = rotation.transpose(1, 2) * envelope[:, None, None]
        edges = Edges(edge_index, pair, self.basis(r), self.sender, self.receiver, rotation, back)

        x = self.embedding(species)[:, None]
        x = torch.cat([x, x.new_zeros(x.size(0), self.size - 1, self.channels)], 1)
        degree = self.edge_degree(edges.basis, edges.sender, edges.receiver, pair)
        degree = degree.view(-1, self.l_max + 1, self.channels)
        message = torch.bmm(back[:, :, : self.l_max + 1], degree) / self.edge_degree_scale
        x = x.index_add(0, edge_index[0], message)
        for block in self.blocks:
            x = block(x, edges)
        return self.head(self.norm(x)[:, 0]).squeeze(1)
