"""eSEN (arXiv 2502.12147): an equivariant message-passing potential that is smooth in every input.

SO(2) convolutions in a pole-free bond frame, gated non-linearities, an envelope with two vanishing derivatives at the
cutoff, no neighbour limit. Forces and virial are gradients taken by
:class:`equistride.models.potential.ConservativePotential`. Every one of these choices can be undone in the configuration, to
measure what it is worth (the paper's ablation).
"""

from typing import Annotated, Final, Literal, NamedTuple

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from torch import Tensor, nn

from equistride.nn.balance import ChannelBalance
from equistride.nn.exchange import exchange, head_rows, local_rows, pad_to_all
from equistride.nn.nearest import nearest
from equistride.nn.radial import BesselBasis, GaussianBasis, RadialNetwork, polynomial_envelope
from equistride.nn.rotation import WignerRotation, coefficient_order
from equistride.nn.so2 import SO2Convolution
from equistride.nn.sphere_grid import GridFeedForward, SphereActivation, grid_shape
from equistride.nn.spherical import Gate, SpectralFeedForward, SphericalLinear, SphericalRMSNorm
from equistride.nn.system import SystemEmbedding

Size = Annotated[int, Field(ge=1)]
# YAML reads a bare off as False
Switch = BeforeValidator(lambda value: "off" if value is False else value)


class ESENConfig(BaseModel):
    """Sizes and choices of an eSEN network; the defaults are the paper's 2-layer model with fewer channels."""

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
    activation: Literal["gate", "s2"] = "gate"
    """Non-linearity of the edges; ``s2`` works at points of a sphere and is equivariant to the grid's error alone."""
    feed_forward: Literal["spectral", "grid"] = "spectral"
    """Network of the atoms: gated, degree by degree, or pointwise on a sphere."""
    s2_resolution: Size | None = None
    """Points along each angle of the grids of ``s2`` and ``grid``; null: the fewest, as published."""
    forces: Literal["gradient", "direct"] = "gradient"
    """``direct``: a head of their own, the gradient of no energy; for pretraining and to see the energy drift."""
    max_neighbors: Size | None = None
    """Nearest senders kept for each receiver; any limit makes energies and forces jump."""
    neighbor_slack: float | None = Field(None, ge=0)
    """A^2; with a limit: all senders stay that are, in squared distance, at most this farther than the first beyond it."""
    envelope: Annotated[Literal["polynomial", "off"], Switch] = "polynomial"
    """``off``: messages end at the cutoff with a step."""
    charge_spin: Annotated[Literal["off", "positional", "linear", "table"], Switch] = "off"
    """How total charge and spin multiplicity enter; set them with :meth:`ESEN.set_system`."""
    charge_channels: tuple[int, int] | None = None
    """First and last of the channels that sum to the total charge over all atoms; they couple atoms at any distance."""
    spin_channels: tuple[int, int] | None = None
    """Likewise for the spin multiplicity less one."""
    constants: Literal["exact", "float32"] = "exact"
    """``float32``: tables rounded as in fairchem-core, so that its energies are met beyond seven digits."""

    @model_validator(mode="after")
    def _orders(self) -> "ESENConfig":
        if self.m_max > self.l_max:
            raise ValueError(f"m_max ({self.m_max}) must not be above l_max ({self.l_max})")
        if self.s2_resolution is not None and self.activation == "gate" and self.feed_forward == "spectral":
            raise ValueError("s2_resolution needs activation s2 or feed_forward grid")
        if self.neighbor_slack is not None and self.max_neighbors is None:
            raise ValueError("neighbor_slack needs max_neighbors")
        for name in ("charge_channels", "spin_channels"):
            first, last = getattr(self, name) or (0, 0)
            if not 0 <= first <= last < self.channels:
                raise ValueError(f"{name} must be a first and a last one of {self.channels} channels")
        grid_shape(self.l_max, self.m_max, self.s2_resolution)
        return self

    @property
    def global_sums(self) -> int:
        """Sums over all atoms in one evaluation."""
        return 0 if self.charge_channels is None and self.spin_channels is None else self.num_layers

    @property
    def message_passing_steps(self) -> int:
        """Sums over neighbours that follow one another: that of the first features, and one a layer."""
        return self.num_layers + 1

    @property
    def caveats(self) -> list[str]:
        """Why molecular dynamics with this network cannot conserve energy; empty where it can."""
        reasons = []
        if self.forces == "direct":
            reasons.append("direct forces: they are the gradient of no energy")
        if self.max_neighbors is not None:
            reasons.append(f"neighbour cap of {self.max_neighbors}: energy and forces jump as neighbours change")
        if self.envelope == "off":
            reasons.append("no envelope: energy and forces jump as an atom crosses the cutoff")
        return reasons


EDGE_DEGREE_SCALE: Final = 5.0
"""Divisor of the edge-degree embedding, the network's only neighbour-count normalisation."""
ENVELOPE_EXPONENT: Final = 5
"""Exponent p of the envelope."""


def constants_dtype(config: ESENConfig) -> torch.dtype:
    """Return the precision in which constant tables are made."""
    return torch.float32 if config.constants == "float32" else torch.float64


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
        gated = config.activation == "gate"
        self.first = SO2Convolution(l_max, m_max, 2 * c, h, num_gates=l_max * h if gated else h, mirror=config.mirror)
        self.radial = RadialNetwork(config.num_basis, config.edge_channels, self.first.num_weights)
        if gated:
            self.gate: nn.Module = Gate(coefficient_order(l_max, m_max)[1][1:])
        else:
            self.gate = SphereActivation(l_max, m_max, config.s2_resolution, constants_dtype(config))
        self.second = SO2Convolution(l_max, m_max, h, c, mirror=config.mirror)

    def forward(self, x: Tensor, edges: Edges) -> Tensor:
        """Return the sum of messages [N, (l_max+1)^2, C] for features ``x`` of that shape."""
        receiver, sender = edges.receiver_sender[0], edges.receiver_sender[1]
        pair = torch.cat([x.index_select(0, sender), x.index_select(0, receiver)], 2)
        z, gates = self.first(
            torch.bmm(edges.rotation, pair), self.radial(edges.basis, edges.sender, edges.receiver, edges.pair)
        )
        z, _ = self.second(self.gate(z, gates), None)
        message = torch.bmm(edges.back, z).to(x.dtype)  # of another type where matrix products are
        return torch.zeros_like(x).index_add(0, receiver, message)


class Block(nn.Module):
    """Pre-norm residual block: edgewise convolution, then feed-forward network."""

    def __init__(self, config: ESENConfig) -> None:
        super().__init__()
        l_max, c, h, rounded = config.l_max, config.channels, config.hidden_channels, config.constants == "float32"
        self.norm1 = SphericalRMSNorm(l_max, c, rounded)
        self.edgewise = EdgewiseConvolution(config)
        self.norm2 = SphericalRMSNorm(l_max, c, rounded)
        if config.feed_forward == "spectral":
            self.feed_forward: nn.Module = SpectralFeedForward(l_max, c, h)
        else:
            self.feed_forward = GridFeedForward(l_max, c, h, config.s2_resolution, constants_dtype(config))

    def forward(self, x: Tensor, edges: Edges, system: Tensor | None) -> Tensor:
        """Return the updated features [n, (l_max+1)^2, C] of own atoms; ``system`` [C] is of charge and spin."""
        x = x + head_rows(self.edgewise(exchange(self.norm1(x, system)), edges), x)
        return x + self.feed_forward(self.norm2(x))


class ESEN(nn.Module):
    """The eSEN network: atomic energies, and direct forces where it has a head for them, from edge vectors.

    Parameters
    ----------
    config
        Sizes and choices.
    num_species
        Number of elements; ``species`` indexes them.
    """

    def __init__(self, config: ESENConfig, num_species: int) -> None:
        super().__init__()
        self.cutoff, self.l_max = config.cutoff, config.l_max
        self.size = (config.l_max + 1) ** 2
        self.envelope_exponent, self.edge_degree_scale = ENVELOPE_EXPONENT, EDGE_DEGREE_SCALE
        self.smooth, self.max_neighbors = config.envelope == "polynomial", config.max_neighbors or 0
        self.neighbor_slack = -1.0 if config.neighbor_slack is None else config.neighbor_slack
        rounded = config.constants == "float32"
        c, h = config.channels, config.hidden_channels
        self.channels = c
        self.embedding = nn.Embedding(num_species, c)
        self.system = SystemEmbedding(config.charge_spin, c) if config.charge_spin != "off" else None
        self.rotation = WignerRotation(config.l_max, config.m_max)
        if config.basis == "gaussian":
            self.basis: nn.Module = GaussianBasis(config.cutoff, config.num_basis, rounded)
        else:
            self.basis = BesselBasis(config.cutoff, config.num_basis)
        self.sender = nn.Parameter(torch.empty(num_species, config.edge_channels).uniform_(-1e-3, 1e-3))
        self.receiver = nn.Parameter(torch.empty(num_species, config.edge_channels).uniform_(-1e-3, 1e-3))
        self.edge_degree = RadialNetwork(config.num_basis, config.edge_channels, (config.l_max + 1) * c)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.balance = ChannelBalance(c, config.charge_channels, config.spin_channels) if config.global_sums else None
        self.norm = SphericalRMSNorm(config.l_max, c, rounded)
        self.head = nn.Sequential(nn.Linear(c, h), nn.SiLU(), nn.Linear(h, h), nn.SiLU(), nn.Linear(h, 1))
        self.force_head = SphericalLinear(1, c, 1) if config.forces == "direct" else None

    @torch.jit.export
    def set_system(self, charge: float, spin: float) -> None:
        """Set total charge [e] and spin multiplicity (0: not given) for the calls to come."""
        if self.system is not None:
            self.system.charge.fill_(charge)
            self.system.spin.fill_(spin)
            if self.balance is not None:
                self.balance.set_totals(charge, spin)
        elif charge != 0.0 or spin != 0.0:
            raise RuntimeError("the model knows no charge and no spin; choose one that was trained with them")

    def edges(self, vectors: Tensor, species: Tensor, edge_index: Tensor) -> Edges:
        """Return what depends on the bonds alone, for the arguments of :meth:`forward`."""
        r = torch.linalg.vector_norm(vectors, dim=1)
        if self.max_neighbors > 0:
            keep = nearest(r.detach(), edge_index[0], species.size(0), self.max_neighbors, self.neighbor_slack)
            vectors, r, edge_index = vectors.index_select(0, keep), r.index_select(0, keep), edge_index[:, keep]
        rotation = self.rotation(vectors / r[:, None])
        back = rotation.transpose(1, 2)
        if self.smooth:
            back = back * polynomial_envelope(r / self.cutoff, self.envelope_exponent)[:, None, None]
        pair = species.index_select(0, edge_index[0]) * self.sender.size(0) + species.index_select(0, edge_index[1])
        return Edges(edge_index, pair, self.basis(r), self.sender, self.receiver, rotation, back)

    def features(self, species: Tensor, edges: Edges, extra: Tensor | None = None) -> Tensor:
        """Return the normalised features [n, (l_max+1)^2, C] of own atoms; ``extra`` of that shape is added at the start."""
        system: Tensor | None = None
        scalars = self.embedding(species)
        if self.system is not None:
            system = self.system()
            scalars = scalars + system
        x = scalars[:, None]
        x = torch.cat([x, x.new_zeros(x.size(0), self.size - 1, self.channels)], 1)
        if extra is not None:
            x = x + extra
        degree = self.edge_degree(edges.basis, edges.sender, edges.receiver, edges.pair)
        degree = degree.view(-1, self.l_max + 1, self.channels)
        message = torch.bmm(edges.back[:, :, : self.l_max + 1], degree) / self.edge_degree_scale
        x = local_rows(x.index_add(0, edges.receiver_sender[0], message.to(x.dtype)))
        for block in self.blocks:
            x = block(x, edges, system)
            if self.balance is not None:
                x = self.balance(x)
        return self.norm(x)

    def forward(self, vectors: Tensor, species: Tensor, edge_index: Tensor) -> Tensor:
        """Return atomic energies [N], in units of the target scale.

        Parameters
        ----------
        vectors [E, 3]
            r_sender - r_receiver, A.
        species [N], edge_index [2, E]
            Element indices; receiver and sender of each edge.
        """
        return pad_to_all(self.energies(self.features(species, self.edges(vectors, species, edge_index))), species)

    def energies(self, features: Tensor) -> Tensor:
        """Return atomic energies [N] of the atoms' features."""
        return self.head(features[:, 0]).squeeze(1)

    def direct_forces(self, features: Tensor) -> Tensor:
        """Return the force head's forces [N, 3], in units of the target scale per A; zeros where there is no such head."""
        if self.force_head is None:
            return features.new_zeros(features.size(0), 3)
        return self.force_head(features[:, :4])[:, 1:].squeeze(2)
