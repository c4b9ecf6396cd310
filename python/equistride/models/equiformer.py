"""Equiformer (arXiv 2206.11990): equivariant graph attention, with the sizes of its MD17 experiments as defaults.

Features of degrees 0, 1, 2 with channels of their own, non-linear messages, attention over neighbours; all irreps are even, so
that the network is invariant under rotations alone, unless ``mirror`` is set. As published an edge does not fade out at the
cutoff: the radial weights have an offset and attention is normalised. ``smooth`` multiplies attention and values by an envelope.
"""

import math
from typing import Annotated, Final, Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from equistride.nn.attention import neighbor_attention
from equistride.nn.degrees import Couplings, DegreeGate, DegreeLinear, DegreeNorm, DepthwiseProduct
from equistride.nn.harmonics import SphericalHarmonics
from equistride.nn.radial import polynomial_envelope
from equistride.nn.radial_profile import ExpNormalBasis, RadialProfile
from equistride.nn.scalar_network import NORMALISED_SILU

Size = Annotated[int, Field(ge=1)]
Channels = Annotated[list[Size], Field(min_length=1, max_length=5)]
ENVELOPE_EXPONENT: Final = 5
"""Exponent p of the envelope."""
NORMALISED_LEAKY: Final = 1.531320475574866
"""Factor that gives the smooth leaky ReLU of a standard normal variable second moment 1 (e3nn's constant)."""


class EquiformerConfig(BaseModel):
    """Sizes of an Equiformer; the defaults are the published L = 2 network for MD17."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    architecture: Literal["equiformer"] = "equiformer"
    cutoff: float = Field(5.0, gt=0)
    """Cutoff radius [A]."""
    num_layers: Size = 6
    channels: Channels = [128, 64, 32]
    """Channels of the atoms' features, one number for each degree from 0 on; so many harmonics are used."""
    hidden_channels: Channels = [384, 192, 96]
    """Channels inside the feed-forward networks."""
    head_channels: Channels = [32, 16, 8]
    """Channels of the values of one attention head."""
    num_heads: Size = 4
    scalar_channels: Size = 512
    """Scalars that the last layer gives, from which the energy is read."""
    num_basis: int = Field(32, ge=2)
    radial_channels: Size = 64
    """Width of the radial networks."""
    avg_num_neighbors: float = Field(15.57930850982666, gt=0)
    """Divides, as a square root, the embedding of the neighbours; the published number is that of QM9."""
    avg_num_atoms: float = Field(18.03065905448718, gt=0)
    """Divides, as a square root, the energy; the published number is that of QM9."""
    mirror: bool = False
    """Invariance under reflections too, without the products that change the parity. The published network (``false``) is
    invariant under rotations alone: a molecule and its mirror image have two energies."""
    forces: Literal["gradient"] = "gradient"
    """The only choice: forces are the gradient of the energy."""
    smooth: bool = True
    """Let edges fade out at the cutoff. The published network does not (``false``): its energy jumps there."""

    @model_validator(mode="after")
    def _degrees(self) -> "EquiformerConfig":
        for name in ("hidden_channels", "head_channels"):
            if len(getattr(self, name)) != len(self.channels):
                raise ValueError(f"{name} must have as many degrees as channels, {len(self.channels)}")
        return self

    @property
    def message_passing_steps(self) -> int:
        """Sums over neighbours that follow one another: that of the first features, and one a layer."""
        return self.num_layers + 1

    @property
    def caveats(self) -> list[str]:
        """Why molecular dynamics with this network cannot conserve energy; empty where it can."""
        return [] if self.smooth else ["no envelope: energy and forces jump as an atom crosses the cutoff"]


class Edges(NamedTuple):
    """What every layer reads of the edges.

    ``receiver``, ``sender`` [E]; ``basis`` [E, B] radial functions; ``couplings`` of the harmonics, see
    :class:`equistride.nn.degrees.Couplings`; ``envelope`` [E], None in the published form.
    """

    receiver: Tensor
    sender: Tensor
    basis: Tensor
    couplings: list[Tensor]
    envelope: Tensor | None


def smooth_leaky_relu(x: Tensor) -> Tensor:
    """Return a smooth leaky ReLU of slope 0.2."""
    return x * (0.2 + 0.8 * torch.sigmoid(x))


class NeighborEmbedding(nn.Module):
    """What an atom knows of its surroundings at the start: the sum over its edges of one trainable vector's messages."""

    def __init__(self, config: EquiformerConfig) -> None:
        super().__init__()
        c = config.channels
        self.constant = nn.Parameter(torch.randn(c[0]))
        self.product = DepthwiseProduct(c, mirror=config.mirror)
        self.radial = RadialProfile(config.num_basis, config.radial_channels, self.product.num_weights)
        self.project = DegreeLinear(self.product.channels_out, c)
        self.scale = 1.0 / math.sqrt(config.avg_num_neighbors)

    def forward(self, edges: Edges, num_atoms: int) -> list[Tensor]:
        """Return features of ``num_atoms`` atoms."""
        constant = self.constant.view(1, 1, -1).expand(edges.receiver.size(0), 1, self.constant.size(0))
        out: list[Tensor] = []
        envelope = edges.envelope
        for part in self.project(self.product([constant], edges.couplings, self.radial(edges.basis))):
            if envelope is not None:
                part = part * envelope[:, None, None]
            zero = part.new_zeros(num_atoms, part.size(1), part.size(2))
            out.append(zero.index_add(0, edges.receiver, part * self.scale))
        return out


class GraphAttention(nn.Module):
    """Messages of both atoms of an edge and its direction, their shares and their values."""

    def __init__(self, config: EquiformerConfig) -> None:
        super().__init__()
        c, heads = config.channels, [n * config.num_heads for n in config.head_channels]
        self.num_heads, self.leaky = config.num_heads, NORMALISED_LEAKY
        self.of_sender, self.of_receiver = DegreeLinear(c, c), DegreeLinear(c, c, bias=False)
        self.product = DepthwiseProduct(c, mirror=config.mirror)
        self.radial = RadialProfile(config.num_basis, config.radial_channels, self.product.num_weights)
        self.scores = DegreeLinear(self.product.channels_out, [heads[0]])
        self.gate = DegreeGate(c)
        self.message = DegreeLinear(self.product.channels_out, self.gate.input_channels())
        self.second = DepthwiseProduct(c, shared=True, mirror=config.mirror)
        self.values = DegreeLinear(self.second.channels_out, heads)
        bound = math.sqrt(6.0 / (config.num_heads + config.head_channels[0]))
        self.query = nn.Parameter(torch.empty(config.num_heads, config.head_channels[0]).uniform_(-bound, bound))
        self.project = DegreeLinear(heads, c)

    def forward(self, x: list[Tensor], edges: Edges) -> list[Tensor]:
        """Return what the atoms learn of their neighbours, features like ``x``."""
        from_sender, from_receiver = self.of_sender(x), self.of_receiver(x)
        pairs: list[Tensor] = []
        for sent, received in zip(from_sender, from_receiver):  # noqa: B905 (TorchScript knows no strict=)
            pairs.append(sent.index_select(0, edges.sender) + received.index_select(0, edges.receiver))
        message = self.product(pairs, edges.couplings, self.radial(edges.basis))
        hidden = smooth_leaky_relu(self.scores(message)[0].view(-1, self.query.size(0), self.query.size(1)))
        scores = (hidden * self.query).sum(2) * self.leaky
        shares = neighbor_attention(scores, edges.receiver, x[0].size(0), edges.envelope)
        values = self.values(self.second(self.gate(self.message(message)), edges.couplings, None))
        summed: list[Tensor] = []
        for value in values:
            rows, width = value.size(1), value.size(2)
            weighted = value.view(-1, rows, self.num_heads, width // self.num_heads) * shares[:, None, :, None]
            zero = value.new_zeros(x[0].size(0), rows, width)
            summed.append(zero.index_add(0, edges.receiver, weighted.view(-1, rows, width)))
        return self.project(summed)


class FeedForward(nn.Module):
    """Gated two-layer network of each atom, to as many degrees as ``channels_out`` has."""

    def __init__(self, channels: list[int], hidden: list[int], channels_out: list[int]) -> None:
        super().__init__()
        self.gate = DegreeGate(hidden)
        self.up = DegreeLinear(channels, self.gate.input_channels())
        self.down = DegreeLinear(hidden, channels_out)

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        """Map features with ``channels`` to features with ``channels_out``."""
        return self.down(self.gate(self.up(x)))


def add(x: list[Tensor], y: list[Tensor]) -> list[Tensor]:
    """Return the sum of two features, degree by degree."""
    out: list[Tensor] = []
    for a, b in zip(x, y):  # noqa: B905
        out.append(a + b)
    return out


class Block(nn.Module):
    """Pre-norm residual block: attention, then the feed-forward network; :meth:`attend` is the first half."""

    def __init__(self, config: EquiformerConfig, channels_out: list[int]) -> None:
        super().__init__()
        c = config.channels
        self.norm1, self.attention = DegreeNorm(c), GraphAttention(config)
        self.norm2, self.feed_forward = DegreeNorm(c), FeedForward(c, config.hidden_channels, channels_out)
        self.shortcut = DegreeLinear(c, channels_out) if channels_out != c else None

    def attend(self, x: list[Tensor], edges: Edges) -> list[Tensor]:
        """Return the features after attention."""
        return add(x, self.attention(self.norm1(x), edges))

    def transform(self, x: list[Tensor]) -> list[Tensor]:
        """Return the features after the feed-forward network."""
        shortcut = self.shortcut
        y = self.feed_forward(self.norm2(x))
        return add(x if shortcut is None else shortcut(x), y)

    def forward(self, x: list[Tensor], edges: Edges) -> list[Tensor]:
        """Return the features after both."""
        return self.transform(self.attend(x, edges))


class Equiformer(nn.Module):
    """The Equiformer network: atomic energies from edge vectors.

    Parameters
    ----------
    config
        Sizes and choices.
    num_species
        Number of elements; ``species`` indexes them.
    """

    def __init__(self, config: EquiformerConfig, num_species: int) -> None:
        super().__init__()
        self.cutoff, self.smooth = config.cutoff, config.smooth
        self.envelope_exponent, self.silu = ENVELOPE_EXPONENT, NORMALISED_SILU
        self.channels = list(config.channels)
        l_max = len(config.channels) - 1
        self.harmonics, self.couplings = SphericalHarmonics(l_max), Couplings(l_max, config.mirror)
        self.basis = ExpNormalBasis(config.cutoff, config.num_basis)
        self.embedding = nn.Embedding(num_species, config.channels[0])
        self.neighbors = NeighborEmbedding(config)
        last = [config.scalar_channels]
        outs = [config.channels] * (config.num_layers - 1) + [last]
        self.blocks = nn.ModuleList(Block(config, out) for out in outs[:-1])
        self.last = Block(config, last)
        self.norm = DegreeNorm(last)
        self.head1, self.head2 = DegreeLinear(last, last), DegreeLinear(last, [1])
        self.scale = 1.0 / math.sqrt(config.avg_num_atoms)

    def edges(self, vectors: Tensor, species: Tensor, edge_index: Tensor) -> Edges:
        """Return what depends on the bonds alone, for the arguments of :meth:`forward`."""
        r = torch.linalg.vector_norm(vectors, dim=1)
        envelope: Tensor | None = None
        if self.smooth:
            envelope = polynomial_envelope(r / self.cutoff, self.envelope_exponent)
        # the published direction of an edge is that from its receiver to its sender, as ours
        couplings = self.couplings(self.harmonics(vectors))
        return Edges(edge_index[0], edge_index[1], self.basis(r), couplings, envelope)

    def features(self, species: Tensor, edges: Edges, extra: list[Tensor] | None = None) -> list[Tensor]:
        """Return the features [N, 2 l + 1, channels[l]] of the atoms after the last attention; all degrees are there.

        ``extra``, of the same shape, is added at the start.
        """
        x = self.neighbors(edges, species.size(0))
        x[0] = x[0] + self.embedding(species)[:, None]
        if extra is not None:
            x = add(x, extra)
        for block in self.blocks:
            x = block(x, edges)
        return self.last.attend(x, edges)

    def energies(self, features: list[Tensor]) -> Tensor:
        """Return atomic energies [N] of the atoms' features."""
        x = self.head1(self.norm(self.last.transform(features)))
        x = [nn.functional.silu(x[0]) * self.silu]
        return self.head2(x)[0].view(-1) * self.scale

    def forward(self, vectors: Tensor, species: Tensor, edge_index: Tensor) -> Tensor:
        """Return atomic energies [N], in units of the target scale.

        Parameters
        ----------
        vectors [E, 3]
            r_sender - r_receiver, A.
        species [N], edge_index [2, E]
            Element indices; receiver and sender of each edge.
        """
        return self.energies(self.features(species, self.edges(vectors, species, edge_index)))
