"""NequIP (arXiv 2101.03164): equivariant message passing whose filters are spherical harmonics times learnt functions of length.

One network with the choices of the programs NequIP and SevenNet. Forces and virial are gradients taken by
:class:`equistride.models.potential.ConservativePotential`.
"""

import copy
import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, NamedTuple

import torch
from e3nn.o3 import Irreps
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from equistride.errors import EquistrideError
from equistride.nn.bonds import (
    TOLERANCE,
    Bonds,
    TabledConvolution,
    WeightedConvolution,
    refuse_second_tables,
    refuse_short,
    splined,
)
from equistride.nn.equivariant import EVEN, Block, Gate, IrrepLinear, SpeciesLinear, join
from equistride.nn.exchange import exchange, local_rows, pad_to_all
from equistride.nn.harmonics import SphericalHarmonics
from equistride.nn.radial import BesselBasis
from equistride.nn.radial_table import RadialTable
from equistride.nn.repulsion import COULOMB, NuclearRepulsion
from equistride.nn.scalar_network import ScalarNetwork
from equistride.nn.tensor_product import TensorProductConvolution

Size = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Connection = Literal["none", "linear", "species"]


class RepulsionConfig(BaseModel):
    """The nuclear repulsion of ZBL that is added to the energy."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    exponent: int = Field(6, ge=2)
    """p of its envelope."""
    coulomb: Positive = COULOMB
    """e^2 / (4 pi eps0) [eV A]."""


class NequIPConfig(BaseModel):
    """Sizes and choices of a NequIP network."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    architecture: Literal["nequip"] = "nequip"
    cutoff: Positive = 5.0
    """Cutoff radius [A]."""
    num_layers: Size = 4
    l_max: int = Field(2, ge=0, le=4)
    """Largest degree of harmonics and features."""
    channels: Size | tuple[Size, ...] = 64
    """Of all irreps, or by degree."""
    parity: Literal["natural", "both", "none"] = "natural"
    """Features with the parity of the harmonics alone, or with both. ``none``: products may change parity, so that a crystal
    and its mirror image have two energies."""
    irreps: tuple[str, ...] | None = None
    """Of the features at the start and after each layer, instead of ``channels``."""
    num_basis: Size = 8
    envelope: Literal["polynomial", "xplor"] = "polynomial"
    """``xplor``: forces have kinks, because the curvature of XPLOR's switching function jumps where it begins."""
    envelope_exponent: int = Field(6, ge=2)
    switch: Positive | None = None
    """Where XPLOR's switching function begins [A]."""
    normalized_harmonics: bool = True
    """Off: harmonics of degree l grow with the l-th power of the length in A."""
    radial_widths: tuple[Size, ...] = (64, 64)
    """Hidden layers of the networks that weight the bonds."""
    self_connection: Connection | tuple[Connection, ...] = "species"
    """How an atom's own features enter: one linear map, or one an element; for all layers or for each."""
    avg_num_neighbors: float | tuple[Positive, ...] = Field(0.0)
    """The sum over neighbours is divided by its square root; by element of the sender where there are several. 0: that of the
    training data."""
    pair_cutoffs: tuple[tuple[Positive, ...], ...] | None = None
    """Cutoffs [A] by element of receiver and sender, at most ``cutoff``."""
    bias: bool = False
    """Biases of the scalars in linear maps."""
    readout_widths: tuple[Size, ...] = ()
    """Hidden layers of the network that reads the energies; none: they are linear in the features."""
    readout_activation: Literal["silu", "tanh", "relu", "elu"] = "silu"
    repulsion: RepulsionConfig | None = None

    @model_validator(mode="after")
    def _fitting(self) -> "NequIPConfig":
        layers = self.num_layers
        if isinstance(self.channels, tuple) and len(self.channels) != self.l_max + 1:
            raise ValueError(f"channels needs {self.l_max + 1} numbers, one a degree")
        if isinstance(self.self_connection, tuple) and len(self.self_connection) != layers:
            raise ValueError(f"self_connection needs {layers} entries, one a layer")
        if self.irreps is not None and len(self.irreps) != layers + 1:
            raise ValueError(f"irreps needs {layers + 1} entries, of the start and of each layer")
        if (self.envelope == "xplor") != (self.switch is not None) or not (self.switch or 0.0) < self.cutoff:
            raise ValueError("switch belongs to envelope xplor and lies below the cutoff")
        if not isinstance(self.avg_num_neighbors, tuple) and self.avg_num_neighbors < 0:
            raise ValueError("avg_num_neighbors must not be negative")
        if any(c > self.cutoff for row in self.pair_cutoffs or () for c in row):
            raise ValueError("no pair's cutoff may be above the cutoff")
        for irreps in self.features:
            if EVEN not in [ir for _, ir in irreps]:
                raise ValueError(f"features without even scalars have no gates ({irreps})")
        if any(ir != EVEN for k in (0, -1) for _, ir in self.features[k]):
            raise ValueError("the first and the last features must be even scalars")
        return self

    @property
    def harmonics(self) -> Irreps:
        """Irreps of the harmonics."""
        return Irreps([(1, (n, 1 if self.parity == "none" else (-1) ** n)) for n in range(self.l_max + 1)])

    @property
    def features(self) -> list[Irreps]:
        """Irreps wanted at the start and after each layer, sorted, one block each; not all can be reached."""
        if self.irreps is not None:
            try:
                return [Irreps(text).regroup() for text in self.irreps]
            except ValueError as error:
                raise ValueError(f"irreps are not such as 32x0e+16x1o ({error})") from None
        channels = self.channels if isinstance(self.channels, tuple) else (self.channels,) * (self.l_max + 1)
        both = {"natural": lambda n: [(-1) ** n], "both": lambda n: [-1, 1], "none": lambda n: [1]}[self.parity]
        inner = Irreps([(channels[n], (n, p)) for n in range(self.l_max + 1) for p in both(n)])
        ends = Irreps([(channels[0], EVEN)])
        return [ends, *[inner] * (self.num_layers - 1), ends]

    @property
    def self_connections(self) -> tuple[Connection, ...]:
        """Of each layer; the first one has its own features by the senders alone."""
        if isinstance(self.self_connection, tuple):
            return self.self_connection
        return ("none", *[self.self_connection] * (self.num_layers - 1))

    @property
    def forces(self) -> str:
        """The gradient of the energy."""
        return "gradient"

    @property
    def message_passing_steps(self) -> int:
        """Sums over neighbours that follow one another."""
        return self.num_layers

    @property
    def caveats(self) -> list[str]:
        """Why molecular dynamics with this network cannot conserve energy: it can."""
        return []


class Edges(NamedTuple):
    """What follows from the edges: ``ends`` [2, E] receiver and sender; ``r`` [E] lengths and ``lengths`` [E] stretched ones, A;
    ``harmonics`` [E, (l_max+1)^2]; ``basis`` [E, B]."""

    ends: Tensor
    r: Tensor
    lengths: Tensor
    harmonics: Tensor
    basis: Tensor


class NequIPLayer(nn.Module):
    """One step of message passing: linear map, convolution, linear map, self-connection, gate.

    Parameters
    ----------
    config, num_species
        Sizes.
    inputs
        Irreps of the features, sorted.
    wanted
        Irreps wanted at the output, sorted; only those that messages reach are made.
    connection
        The self-connection.
    fused
        Run the native convolution, or the plain one.
    """

    def __init__(
        self,
        config: NequIPConfig,
        num_species: int,
        inputs: Irreps,
        wanted: Irreps,
        connection: Connection,
        fused: bool,
    ) -> None:
        super().__init__()
        reached = {out for _, ir in inputs for _, y in config.harmonics for out in ir * y}
        self.outputs = Irreps([(mul, ir) for mul, ir in wanted if ir in reached])
        channels = {ir: mul for mul, ir in self.outputs}
        self.gate = Gate(list(channels), channels)
        hidden = self.gate.input_channels()
        self.up = IrrepLinear([Block(ir, mul, mul) for mul, ir in inputs], bias=config.bias)
        convolution = TensorProductConvolution(
            inputs, config.harmonics, Irreps([(mul, ir) for ir, mul in hidden.items()]), fused=fused
        )
        self.messages = WeightedConvolution(convolution, [config.num_basis, *config.radial_widths])
        neighbors = 1.0 if isinstance(config.avg_num_neighbors, tuple) else config.avg_num_neighbors or 1.0
        blocks = [Block(ir, mul, hidden[ir]) for mul, ir in convolution.irreps_out]
        self.divisor = math.sqrt(neighbors)
        self.down = IrrepLinear(blocks, self.divisor, bias=config.bias)
        kept = [Block(ir, mul, hidden[ir]) for mul, ir in inputs if ir in hidden]
        self.linear = IrrepLinear(kept) if connection == "linear" else None
        self.by_species = SpeciesLinear(kept, num_species) if connection == "species" else None
        widths = [(ir, mul) for mul, ir in inputs for _ in range(ir.dim)]
        self.input_widths = [mul for _, mul in widths]
        self.rows_kept = [row for row, (ir, _) in enumerate(widths) if ir in hidden]
        known = [ir for ir, _, _ in kept]
        self.old_block = [known.index(ir) if ir in known else -1 for ir, _, _ in blocks]  # among those of ``kept``

    def send(self, x: Tensor) -> Tensor:
        """Return what atoms send [n, columns], of features ``x`` [n, columns]."""
        return join(self.up.images(x))

    def own(self, x: Tensor, species: Tensor) -> list[Tensor]:
        """Return the self-connection's blocks [n, rows, channels] of features ``x`` [n, columns]; none where it has none."""
        kept = x
        if len(self.rows_kept) < len(self.input_widths):
            rows = x.split(self.input_widths, 1)
            kept = torch.cat([rows[row] for row in self.rows_kept], 1)
        if self.linear is not None:
            return self.linear.images(kept)
        if self.by_species is not None:
            return self.by_species.images(kept, species)
        none: list[Tensor] = []
        return none

    def own_of_each(self, x: Tensor) -> list[Tensor]:
        """Return the same of one row of even scalars ``x`` [S, C] for each element."""
        if self.linear is not None:
            return self.linear.images(x)
        if self.by_species is not None:
            return self.by_species.images_of_each(x)
        none: list[Tensor] = []
        return none

    def forward(self, sent: Tensor, old: list[Tensor], bonds: Bonds, count: int) -> Tensor:
        """Return the new features [count, columns] from what is sent [N, columns] and the self-connection's blocks."""
        blocks = self.down.images(self.messages(sent, bonds, count))
        if len(old) > 0:
            for b, place in enumerate(self.old_block):
                if place >= 0:
                    blocks[b] = blocks[b] + old[place]
        return join(self.gate(blocks))


class NequIP(nn.Module):
    """The NequIP network.

    Parameters
    ----------
    config
        Sizes and choices.
    num_species
        Number of elements; ``species`` indexes them.
    numbers
        Their atomic numbers, which the nuclear repulsion needs.
    unit
        Energy of one unit of the output [eV].
    fused
        Run the native convolutions, or the plain ones.
    """

    stretch: Tensor
    scales: Tensor
    sender_scale: Tensor

    def __init__(
        self,
        config: NequIPConfig,
        num_species: int,
        *,
        numbers: Sequence[int] = (),
        unit: float = 1.0,
        fused: bool = True,
    ) -> None:
        super().__init__()
        self.config, self.num_species, self.fused = config, num_species, fused
        self.cutoff, self.unit = config.cutoff, float(unit)
        features = config.features
        self.embedding = nn.Embedding(num_species, features[0].dim)
        self.harmonics = SphericalHarmonics(config.l_max, config.normalized_harmonics)
        self.basis = BesselBasis(
            config.cutoff, config.num_basis, 2.0 / config.cutoff**2, config.envelope_exponent, config.switch
        )
        layers = []
        irreps = features[0]
        for wanted, connection in zip(features[1:], config.self_connections, strict=True):
            layer = NequIPLayer(config, num_species, irreps, wanted, connection, fused)
            irreps = layer.outputs
            layers.append(layer)
        self.layers = nn.ModuleList(layers)
        self.polar = [ir for _, ir in config.harmonics]
        self.hidden = layers[-2].outputs if len(layers) > 1 else features[0]
        self.channels = [mul for mul, ir in self.hidden if ir in self.polar]
        self.readout = ScalarNetwork([irreps.dim, *config.readout_widths, 1], config.readout_activation)
        self.register_buffer("scales", torch.ones(num_species, dtype=torch.float64))
        self.register_buffer("stretch", self._stretch(config, num_species), persistent=False)
        self.register_buffer("sender_scale", self._sender_scale(config, num_species), persistent=False)
        self.repulsion = None
        if config.repulsion is not None:
            if len(numbers) != num_species:
                raise EquistrideError(
                    "the nuclear repulsion needs atomic numbers",
                    expected=f"{num_species}, one an element",
                    found=len(numbers),
                )
            self.repulsion = NuclearRepulsion(
                numbers, config.cutoff, config.repulsion.exponent, config.repulsion.coulomb
            )
        self.checked = True  # off where the caller looks at the lengths
        self.tabled, self.shortest = False, 0.0
        self.error, self.slope_error = 0.0, 0.0

    @staticmethod
    def _stretch(config: NequIPConfig, num_species: int) -> Tensor:
        """Return by how much lengths are stretched, [S S] or nothing: a bond at its pair's cutoff is as one at the cutoff."""
        if config.pair_cutoffs is None:
            return torch.zeros(0, dtype=torch.float64)
        table = torch.tensor(config.pair_cutoffs, dtype=torch.float64)
        if table.shape != (num_species, num_species):
            raise EquistrideError(
                "the cutoffs by pair do not fit the elements", expected=f"{num_species} x {num_species} of them",
                found=" x ".join(map(str, table.shape)),
            )  # fmt: skip
        return (config.cutoff / table).flatten()

    @staticmethod
    def _sender_scale(config: NequIPConfig, num_species: int) -> Tensor:
        """Return 1 / sqrt(neighbours) of each element [S], or nothing where one number serves all."""
        if not isinstance(config.avg_num_neighbors, tuple):
            return torch.zeros(0, dtype=torch.float64)
        if len(config.avg_num_neighbors) != num_species:
            raise EquistrideError(
                "avg_num_neighbors does not fit the elements", expected=f"{num_species} numbers",
                found=len(config.avg_num_neighbors),
            )  # fmt: skip
        return torch.tensor(config.avg_num_neighbors, dtype=torch.float64).rsqrt()

    def edges(self, vectors: Tensor, species: Tensor, edge_index: Tensor) -> Edges:
        """Return what depends on the bonds alone, for the arguments of :meth:`forward`."""
        r = torch.linalg.vector_norm(vectors, dim=1)
        lengths = r
        if self.stretch.numel() > 0:
            receiver, sender = species.index_select(0, edge_index[0]), species.index_select(0, edge_index[1])
            lengths = r * self.stretch.to(r.dtype).index_select(0, receiver * self.num_species + sender)
        if self.tabled:
            if self.checked:
                refuse_short(r.detach(), edge_index, self.shortest)
            basis = vectors[:, :0]
        else:
            basis = self.basis(lengths)
        return Edges(edge_index, r, lengths, self.harmonics(vectors), basis)

    def after_layers(self, species: Tensor, edges: Edges) -> list[Tensor]:
        """Return the features [n, columns] of own atoms after each layer."""
        bonds = Bonds(edges.ends, edges.lengths.clamp(max=self.cutoff), edges.harmonics, edges.basis, species[:0])
        mine = local_rows(species)
        x = self.embedding.weight
        out: list[Tensor] = []
        for k, layer in enumerate(self.layers):
            sent = layer.send(x)  # type: ignore[operator]
            if k == 0:  # features follow from the element alone
                sent = sent.index_select(0, species)
                old = [block.index_select(0, mine) for block in layer.own_of_each(x)]  # type: ignore[operator]
            else:
                old = layer.own(x, mine)  # type: ignore[operator]
            if self.sender_scale.numel() > 0:
                by_atom = self.sender_scale.to(sent.dtype).index_select(0, species if k == 0 else mine)
                sent = sent * by_atom[:, None]
            if k > 0:
                sent = exchange(sent)
            x = layer(sent, old, bonds, mine.size(0))
            out.append(x)
        return out

    def features(self, species: Tensor, edges: Edges, extra: list[Tensor] | None = None) -> list[Tensor]:
        """Return the features [N, 2 l + 1, channels[l]] of each degree, with the harmonics' parity, that the last layer reads."""
        if extra is not None:
            raise EquistrideError(
                "a NequIP cannot be told vectors at its start",
                expected="frames.control: none or shuffled",
                found="dens",
            )
        x = self.after_layers(species, edges)[-2]
        out, at = [], 0
        for mul, ir in self.hidden:
            if ir in self.polar:
                out.append(x.narrow(1, at, mul * ir.dim).unflatten(1, (ir.dim, mul)))
            at += mul * ir.dim
        return out

    def forward(self, vectors: Tensor, species: Tensor, edge_index: Tensor) -> Tensor:
        """Return atomic energies [N] in units of the target scale.

        Parameters
        ----------
        vectors [E, 3]
            r_sender - r_receiver, A.
        species [N], edge_index [2, E]
            Element indices; receiver and sender of each edge, sorted by receiver.

        Raises
        ------
        EquistrideError
            Where a bond is shorter than tables reach (a ``RuntimeError`` from TorchScript).
        """
        edges = self.edges(vectors, species, edge_index)
        x = self.after_layers(species, edges)[-1]
        mine = species.narrow(0, 0, x.size(0))
        energies = self.readout(x).squeeze(1) * self.scales.to(x.dtype).index_select(0, mine)
        if self.repulsion is not None:
            receiver, sender = species.index_select(0, edge_index[0]), species.index_select(0, edge_index[1])
            pairs = self.repulsion(edges.r, edges.lengths, receiver, sender) / self.unit
            energies = energies.index_add(0, edge_index[0], pairs)
        return pad_to_all(energies, species)

    def served(self, tolerance: float | None = TOLERANCE, shortest: float | None = None) -> "NequIP":
        """Return a copy for serving: :func:`equistride.nn.bonds.splined`."""
        return splined(copy.deepcopy(self), _tabulate, tolerance, shortest)


def _tabulate(network: NequIP, start: float, tolerance: float) -> Iterator[RadialTable]:
    for layer in network.layers:
        weighted = layer.messages
        if not isinstance(weighted, WeightedConvolution):
            refuse_second_tables()
        weights, kink = nn.Sequential(network.basis, weighted.network), network.config.switch or math.inf
        table = RadialTable.tabulate(weights, start, network.cutoff, tolerance=tolerance, kink=kink)
        layer.messages = TabledConvolution(weighted.convolution, table)
        yield table
