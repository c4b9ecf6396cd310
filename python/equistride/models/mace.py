"""MACE (Batatia et al., arXiv 2206.07697): message passing whose messages are polynomials of an atom's summed bonds.

Two layers are the rule: each sums bonds over neighbours as NequIP does, and then takes symmetric products of up to four of the
sums. Forces and virial are gradients taken by :class:`equistride.models.potential.ConservativePotential`.
"""

import copy
import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Final, Literal

import torch
from e3nn.o3 import Irreps
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from equistride.errors import EquistrideError
from equistride.models.esen_fused import TABLE_BYTES, TYPICAL_ROWS
from equistride.nn.bonds import (
    TOLERANCE,
    Bonds,
    TabledConvolution,
    refuse_second_tables,
    refuse_short,
    splined,
)
from equistride.nn.edge_block import RadialSplines
from equistride.nn.equivariant import Block, IrrepLinear, SpeciesLinear, natural_irreps, with_channels
from equistride.nn.exchange import exchange, local_rows, pad_to_all
from equistride.nn.harmonics import SphericalHarmonics
from equistride.nn.radial import BesselBasis, DistanceTransform
from equistride.nn.radial_table import RadialTable
from equistride.nn.repulsion import COULOMB, UNIVERSAL, NuclearRepulsion, Screening
from equistride.nn.scalar_network import ScalarNetwork
from equistride.nn.symmetric_contraction import Bases, SymmetricContraction, TabulatedContraction
from equistride.nn.tensor_product import TensorProductConvolution

Size = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]

BYTES: Final = 4
"""Of a number in the precision in which tables are used."""


class MACEConfig(BaseModel):
    """Sizes and choices of a MACE network."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    architecture: Literal["mace"] = "mace"
    cutoff: Positive = 6.0
    """Cutoff radius [A]."""
    num_layers: Size = 2
    l_max: int = Field(3, ge=0, le=4)
    """Largest degree of harmonics and of the summed bonds."""
    l_features: int = Field(1, ge=0, le=3)
    """Largest degree of the features between layers."""
    channels: Size = 128
    correlation: tuple[Annotated[int, Field(ge=1, le=4)], ...] = (3, 3)
    """Factors of the products, layer by layer."""
    num_basis: Size = 8
    envelope_exponent: int = Field(5, ge=2)
    envelope_last: bool = False
    """The envelope multiplies the weights of the bonds, not the functions that go into their network."""
    radial_widths: tuple[Size, ...] = (64, 64, 64)
    """Hidden layers of the networks that weight the bonds."""
    avg_num_neighbors: tuple[Annotated[float, Field(ge=0)], ...] = (0.0, 0.0)
    """The sum over neighbours is divided by it, layer by layer. 0: that of the training data."""
    residual: tuple[bool, ...] = (True, True)
    """Whether an atom's own features are added after the products; else they are mixed by element before them."""
    density: bool = False
    """Sums over neighbours are divided by a learnt density instead of their number."""
    transform: Literal["none", "agnesi", "soft"] = "none"
    """Of distances, by the covalent radii of the two elements, before the radial functions."""
    transform_parameters: tuple[float, ...] = ()
    readout_width: Size = 16
    repulsion_exponent: int | None = Field(None, ge=2)
    """p of the envelope of a nuclear repulsion, where there is one; it ends where covalent spheres touch."""
    coulomb: Positive = COULOMB
    """e^2 / (4 pi eps0) [eV A]."""

    @model_validator(mode="after")
    def _fitting(self) -> "MACEConfig":
        for name in ("correlation", "avg_num_neighbors", "residual"):
            if len(getattr(self, name)) != self.num_layers:
                raise ValueError(f"{name} needs {self.num_layers} entries, one a layer")
        if self.l_features > self.l_max:
            raise ValueError("l_features must not be above l_max")
        if len(self.transform_parameters) != {"none": 0, "agnesi": 3, "soft": 1}[self.transform]:
            raise ValueError("transform_parameters are a, p and q for agnesi, the steepness for soft")
        return self

    @property
    def harmonics(self) -> Irreps:
        """Irreps of the harmonics."""
        return with_channels(natural_irreps(self.l_max), 1)

    @property
    def degrees(self) -> list[int]:
        """Largest degree of the features at the start and after each layer."""
        return [0, *[self.l_features] * (self.num_layers - 1), 0]

    @property
    def message_passing_steps(self) -> int:
        """Sums over neighbours that follow one another."""
        return self.num_layers

    @property
    def caveats(self) -> list[str]:
        """Why molecular dynamics with this network cannot conserve energy: it can."""
        return []


def _blocks(l_max: int, channels: int) -> list[Block]:
    return [Block(ir, channels, channels) for ir in natural_irreps(l_max)]


class _Weights(nn.Module):
    """A network of the functions of a bond's length; multiplied by the envelope, their last column, where that comes last."""

    def __init__(self, config: MACEConfig, widths: Sequence[int], squashed: bool = False) -> None:
        super().__init__()
        self.network = ScalarNetwork([config.num_basis, *widths])
        self.columns, self.squashed = [config.num_basis, int(config.envelope_last)], squashed

    def forward(self, basis: Tensor) -> Tensor:
        """Return [E, columns]."""
        functions, envelope = basis.split(self.columns, 1)
        out = self.network(functions)
        if self.squashed:
            out = torch.tanh(out.square())
        return out * envelope if self.columns[1] > 0 else out


class _Radial(nn.Module):
    """Functions of a bond's length and its elements: the basis, transformed and enveloped as the network asks."""

    def __init__(self, config: MACEConfig, transform: DistanceTransform | None) -> None:
        super().__init__()
        prefactor = math.sqrt(2.0 / config.cutoff) / config.cutoff
        self.basis = BesselBasis(config.cutoff, config.num_basis, prefactor, config.envelope_exponent)
        self.transform, self.envelope_last = transform, config.envelope_last

    def forward(self, lengths: Tensor, pair: Tensor) -> Tensor:
        """Return [E, functions] for lengths [E] in A and pairs of elements [E]."""
        envelope = self.basis.envelope(lengths)[:, None]
        transformed = lengths
        if self.transform is not None:
            transformed = self.transform(lengths, pair)
        functions = self.basis.functions(transformed)
        return torch.cat([functions, envelope], 1) if self.envelope_last else functions * envelope


class Splined(nn.Module):
    """A network of the bond length and the two elements replaced by splines, for serving."""

    kinds: Tensor

    def __init__(
        self, radial: _Radial, weights: _Weights, columns: int, num_species: int, start: float, tolerance: float
    ) -> None:
        super().__init__()
        first, second = torch.triu_indices(num_species, num_species)
        kinds = torch.zeros(num_species, num_species, dtype=torch.int64)  # the same for both directions
        kinds[first, second] = kinds[second, first] = torch.arange(first.numel())
        of_kind = first * num_species + second
        if of_kind.numel() * columns * TYPICAL_ROWS * BYTES > TABLE_BYTES:
            raise EquistrideError(
                "the tables of so many pairs of elements would be too large", expected=f"{TABLE_BYTES >> 20} MiB at most",
                found=f"{of_kind.numel()} pairs of {columns} functions", hint="keep fewer elements with --elements",
            )  # fmt: skip
        self.register_buffer("kinds", kinds.flatten(), persistent=False)
        with torch.enable_grad():
            self.splines = RadialSplines.tabulate(
                lambda r, kind: weights(radial(r, of_kind[kind])),
                of_kind.numel(),
                start,
                radial.basis.cutoff,
                tolerance,
            )

    def forward(self, bonds: Bonds) -> Tensor:
        """Return [E, columns]."""
        return self.splines(bonds.lengths, self.kinds.index_select(0, bonds.pair))


class Computed(nn.Module):
    """A network of the functions of the bond length."""

    def __init__(self, weights: _Weights) -> None:
        super().__init__()
        self.weights = weights

    def forward(self, bonds: Bonds) -> Tensor:
        """Return [E, columns]."""
        return self.weights(bonds.basis)


class Messages(nn.Module):
    """Sums over neighbours with weights from the bond."""

    def __init__(self, convolution: TensorProductConvolution, weights: nn.Module) -> None:
        super().__init__()
        self.convolution, self.weights = convolution, weights

    def forward(self, x: Tensor, bonds: Bonds, num_receivers: int) -> Tensor:
        """Return [num_receivers, columns] of features ``x`` [N, columns]."""
        return self.convolution(x, bonds.harmonics, self.weights(bonds), bonds.ends, num_receivers)


class MACELayer(nn.Module):
    """One layer: linear map, convolution, linear map, products, linear map, and the atom's own features.

    Parameters
    ----------
    config, num_species
        Sizes.
    number
        Which layer.
    bases
        The coupled products, for each degree and number of factors; without, all of them.
    fused
        Run the native operators, or the plain ones.
    """

    def __init__(self, config: MACEConfig, num_species: int, number: int, bases: Bases | None, fused: bool) -> None:
        super().__init__()
        channels, l_in, l_out = config.channels, config.degrees[number], config.degrees[number + 1]
        inputs = with_channels(natural_irreps(l_in), channels)
        self.up = IrrepLinear(_blocks(l_in, channels))
        convolution = TensorProductConvolution(
            inputs, config.harmonics, with_channels(natural_irreps(config.l_max), channels), fused=fused
        )
        weights = _Weights(config, [*config.radial_widths, convolution.weight_numel])
        self.messages: nn.Module = Messages(convolution, Computed(weights))
        self.divisor = 1.0 if config.density else config.avg_num_neighbors[number] or 1.0
        self.down = IrrepLinear([Block(ir, mul, channels) for mul, ir in convolution.irreps_out], self.divisor)
        self.density: nn.Module | None = Computed(_Weights(config, [1], squashed=True)) if config.density else None
        self.residual = config.residual[number]
        kept = min(l_in, l_out) if self.residual else config.l_max
        self.own_linear = SpeciesLinear(_blocks(kept, channels), num_species)
        self.kept = [channels * (min(l_in, l_out) + 1) ** 2, channels * ((l_in + 1) ** 2 - (min(l_in, l_out) + 1) ** 2)]
        self.product: SymmetricContraction | TabulatedContraction = SymmetricContraction(
            config.l_max, range(l_out + 1), channels, num_species, config.correlation[number], bases, fused=fused
        )
        self.mix = IrrepLinear(_blocks(l_out, channels))
        self.scalars = [channels, channels * ((l_out + 1) ** 2 - 1)]

    def tabulate(
        self, radial: _Radial, num_species: int, start: float, tolerance: float
    ) -> list[RadialTable | RadialSplines]:
        """Replace the networks of the bond length, float64, by splines that begin at ``start`` [A]; return these."""
        made: list[RadialTable | RadialSplines] = []
        if not isinstance(self.messages, Messages) or not isinstance(self.messages.weights, Computed):
            refuse_second_tables()
        convolution, weights = self.messages.convolution, self.messages.weights.weights
        if radial.transform is not None:
            splined = Splined(radial, weights, convolution.weight_numel, num_species, start, tolerance)
            self.messages = Messages(convolution, splined)
            made.append(splined.splines)
        else:
            none = torch.zeros(1, dtype=torch.int64)
            table = RadialTable.tabulate(
                lambda r: weights(radial(r, none)), start, radial.basis.cutoff, tolerance=tolerance
            )
            self.messages = TabledConvolution(convolution, table)
            made.append(table)
        if isinstance(self.density, Computed):
            spline = Splined(radial, self.density.weights, 1, num_species, start, tolerance)
            self.density = spline
            made.append(spline.splines)
        return made

    def own(self, x: Tensor, species: Tensor) -> list[Tensor]:
        """Return what is added after the products, rows of features ``x`` [n, columns]; none where nothing is."""
        if self.residual:
            return self.own_linear(x.split(self.kept, 1)[0], species)
        none: list[Tensor] = []
        return none

    def own_of_each(self, x: Tensor) -> list[Tensor]:
        """Return the same of one row of even scalars ``x`` [S, C] for each element."""
        if self.residual:
            return self.own_linear.of_each(x)
        none: list[Tensor] = []
        return none

    def forward(self, sent: Tensor, old: list[Tensor], bonds: Bonds, species: Tensor) -> Tensor:
        """Return the new features [n, columns].

        Parameters
        ----------
        sent [N, columns]
            Of all atoms, after ``up``.
        old
            Of :meth:`own`.
        species [n]
            Of the atoms whose features are wanted.
        """
        summed = torch.cat(self.down(self.messages(sent, bonds, species.size(0))), 1)
        if self.density is not None:
            density = sent.new_zeros(species.size(0), 1).index_add(0, bonds.ends[0], self.density(bonds))
            summed = summed / (1.0 + density)
        if not self.residual:
            summed = torch.cat(self.own_linear(summed, species), 1)
        new = self.mix(self.product(summed, species))
        for row, part in enumerate(old):
            new[row] = new[row] + part
        return torch.cat(new, 1)


class MACE(nn.Module):
    """The MACE network.

    Parameters
    ----------
    config
        Sizes and choices.
    num_species
        Number of elements; ``species`` indexes them.
    numbers
        Their atomic numbers.
    radii
        Their covalent radii [A], which distance transforms and the nuclear repulsion read.
    bases
        The coupled products of each layer, as a file has them; without, all of them.
    screening
        Of the nuclear repulsion.
    fused
        Run the native operators, or the plain ones.
    """

    def __init__(
        self,
        config: MACEConfig,
        num_species: int,
        *,
        numbers: Sequence[int] = (),
        radii: Sequence[float] = (),
        bases: Sequence[Bases] | None = None,
        screening: Screening = UNIVERSAL,
        fused: bool = True,
    ) -> None:
        super().__init__()
        needed = config.transform != "none" or config.repulsion_exponent is not None
        if needed and not len(numbers) == len(radii) == num_species:
            raise EquistrideError(
                "distance transforms and the nuclear repulsion need atomic numbers and covalent radii",
                expected=f"{num_species} of each", found=f"{len(numbers)} and {len(radii)}",
            )  # fmt: skip
        self.config, self.num_species, self.fused = config, num_species, fused
        self.cutoff = config.cutoff
        self.embedding = nn.Embedding(num_species, config.channels)
        self.harmonics = SphericalHarmonics(config.l_max)
        transform = None
        if config.transform != "none":
            transform = DistanceTransform(config.transform, radii, config.transform_parameters)
        self.radial = _Radial(config, transform)
        layers = [
            MACELayer(config, num_species, t, None if bases is None else bases[t], fused)
            for t in range(config.num_layers)
        ]
        self.layers = nn.ModuleList(layers)
        widths = [[config.channels, 1]] * (config.num_layers - 1) + [[config.channels, config.readout_width, 1]]
        self.readouts = nn.ModuleList(ScalarNetwork(w) for w in widths)
        self.repulsion = None
        if config.repulsion_exponent is not None:
            self.repulsion = NuclearRepulsion(numbers, 1.0, config.repulsion_exponent, config.coulomb, screening)
        radius = torch.tensor(list(radii), dtype=torch.float64)
        self.register_buffer("radius", radius, persistent=False)
        self.checked = True  # off where the caller looks at the lengths
        self.tabled, self.shortest = False, 0.0
        self.error, self.slope_error = 0.0, 0.0

    radius: Tensor

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
        r = torch.linalg.vector_norm(vectors, dim=1)
        receiver, sender = species.index_select(0, edge_index[0]), species.index_select(0, edge_index[1])
        pair = receiver * self.num_species + sender
        if self.tabled:
            if self.checked:
                refuse_short(r.detach(), edge_index, self.shortest)
            basis = vectors[:, :0]
        else:
            basis = self.radial(r, pair)
        bonds = Bonds(edge_index, r.clamp(max=self.cutoff), self.harmonics(vectors), basis, pair)
        mine = local_rows(species)
        x = self.embedding.weight
        energies = vectors.new_zeros(mine.size(0))
        for k, (layer, readout) in enumerate(zip(self.layers, self.readouts)):  # noqa: B905 (TorchScript knows no strict=)
            sent = torch.cat(layer.up(x), 1)  # type: ignore[operator]
            if k == 0:  # features follow from the element alone
                sent = sent.index_select(0, species)
                old = [row.index_select(0, mine) for row in layer.own_of_each(x)]  # type: ignore[operator]
            else:
                sent = exchange(sent)
                old = layer.own(x, mine)  # type: ignore[operator]
            x = layer(sent, old, bonds, mine)
            energies = energies + readout(x.split(layer.scalars, 1)[0]).squeeze(1)
        if self.repulsion is not None:
            reach = self.radius.to(r.dtype).index_select(0, receiver) + self.radius.to(r.dtype).index_select(0, sender)
            pairs = self.repulsion(r, r / reach, receiver, sender)
            energies = energies.index_add(0, edge_index[0], pairs)
        return pad_to_all(energies, species)

    def served(self, tolerance: float | None = TOLERANCE, shortest: float | None = None) -> "MACE":
        """Return a copy for serving, its products with their weights multiplied out: :func:`equistride.nn.bonds.splined`."""
        out = copy.deepcopy(self)
        for layer in out.layers:
            assert isinstance(layer, MACELayer)
            layer.product = layer.product.frozen()
        return splined(out, _tabulate, tolerance, shortest)


def _tabulate(network: MACE, start: float, tolerance: float) -> Iterator[RadialTable | RadialSplines]:
    for layer in network.layers:
        assert isinstance(layer, MACELayer)
        yield from layer.tabulate(network.radial, network.num_species, start, tolerance)
