"""A layer of MACE: sums over neighbours, their symmetric products, and the atom's own features.

Two kinds differ in what happens to the sums: :class:`SumsByNumber` divides them, by the mean number of neighbours or by a
learnt density; :class:`SumsWithGate` also adds what the atom itself would send, and has a gate.
"""

import torch
from torch import Tensor, nn

from equistride.models.mace_config import MACEConfig
from equistride.models.mace_radial import BondWeights, Computed, RadialFunctions, Splined
from equistride.nn.bonds import Bonds, TabledConvolution, refuse_second_tables
from equistride.nn.degrees import DegreeGate
from equistride.nn.edge_block import RadialSplines
from equistride.nn.equivariant import Block, IrrepLinear, SpeciesLinear, natural_irreps, with_channels
from equistride.nn.radial_table import RadialTable
from equistride.nn.symmetric_contraction import Bases, SymmetricContraction, TabulatedContraction
from equistride.nn.tensor_product import TensorProductConvolution


def blocks(l_max: int, channels: int) -> list[Block]:
    """Return the blocks of a linear map that keeps the channels of every degree."""
    return [Block(ir, channels, channels) for ir in natural_irreps(l_max)]


class Messages(nn.Module):
    """Sums over neighbours with weights from the bond."""

    def __init__(self, convolution: TensorProductConvolution, weights: nn.Module) -> None:
        super().__init__()
        self.convolution, self.weights = convolution, weights

    def forward(self, x: Tensor, bonds: Bonds, num_receivers: int) -> Tensor:
        """Return [num_receivers, columns] of features ``x`` [N, columns]."""
        return self.convolution(x, bonds.harmonics, self.weights(bonds), bonds.ends, num_receivers)


class MACELayer(nn.Module):
    """What both kinds of layers share.

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
        sent = config.sent(number)
        self.sent = [channels * len(sent) ** 2, channels * ((l_in + 1) ** 2 - len(sent) ** 2)]
        inputs = [Block(ir, channels, width) for ir, width in zip(natural_irreps(len(sent) - 1), sent, strict=True)]
        self.up = IrrepLinear(inputs)
        self.sent_blocks = [Block(ir, width, width) for ir, _, width in inputs]
        convolution = TensorProductConvolution(
            "+".join(f"{width}x{ir}" for ir, width, _ in self.sent_blocks), config.harmonics,
            with_channels(natural_irreps(config.l_max), channels), fused=fused,
        )  # fmt: skip
        nonlinear, density = config.divisors[number] == "nonlinear", config.divisors[number] == "density"
        elements = num_species if nonlinear else 0
        weights = BondWeights(config, [*config.radial_widths, convolution.weight_numel], elements)
        self.messages: nn.Module = Messages(convolution, Computed(weights))
        self.received = convolution.irreps_out
        self.density: nn.Module | None = None
        if nonlinear or density:
            widths = [*config.density_widths, 1] if nonlinear else [1]
            self.density = Computed(BondWeights(config, widths, elements, squashed=True))
        self.kept = [channels * (min(l_in, l_out) + 1) ** 2, channels * ((l_in + 1) ** 2 - (min(l_in, l_out) + 1) ** 2)]
        self.agnostic = config.agnostic
        self.product: SymmetricContraction | TabulatedContraction = SymmetricContraction(
            config.l_max, range(l_out + 1), channels, 1 if config.agnostic else num_species,
            config.correlation[number], bases, fused=fused,
        )  # fmt: skip
        self.mix = IrrepLinear(blocks(l_out, channels))
        self.scalars = [channels, channels * ((l_out + 1) ** 2 - 1)]

    def tabulate(
        self, radial: RadialFunctions, num_species: int, start: float, tolerance: float
    ) -> list[RadialTable | RadialSplines]:
        """Replace the networks of the bond length, float64, by splines that begin at ``start`` [A]; return these."""
        made: list[RadialTable | RadialSplines] = []
        if not isinstance(self.messages, Messages) or not isinstance(self.messages.weights, Computed):
            refuse_second_tables()
        convolution, weights = self.messages.convolution, self.messages.weights.weights
        if radial.transform is not None or weights.by_element:
            splined = Splined(radial, weights, convolution.weight_numel, num_species, start, tolerance)
            self.messages = Messages(convolution, splined)
            made.append(splined.splines)
        else:
            none = torch.zeros(1, dtype=torch.int64)
            table = RadialTable.tabulate(
                lambda r: weights(radial(r, none), none), start, radial.basis.cutoff, tolerance=tolerance
            )
            self.messages = TabledConvolution(convolution, table)
            made.append(table)
        if isinstance(self.density, Computed):
            spline = Splined(radial, self.density.weights, 1, num_species, start, tolerance)
            self.density = spline
            made.append(spline.splines)
        return made

    def send(self, x: Tensor) -> Tensor:
        """Return what atoms send [n, columns], of features ``x`` [n, columns]."""
        return torch.cat(self.up(x.split(self.sent, 1)[0]), 1)

    def density_of(self, bonds: Bonds, like: Tensor, num_receivers: int) -> Tensor:
        """Return the densities [num_receivers, 1]; zeros where the layer has none."""
        zeros = like.new_zeros(num_receivers, 1)
        if self.density is None:
            return zeros
        return zeros.index_add(0, bonds.ends[0], self.density(bonds))

    def finished(self, summed: Tensor, old: list[Tensor], species: Tensor) -> Tensor:
        """Return the new features [n, columns] of sums [n, columns], to whose first rows ``old`` is added."""
        new = self.mix(self.product(summed, torch.zeros_like(species) if self.agnostic else species))
        for row, part in enumerate(old):
            new[row] = new[row] + part
        return torch.cat(new, 1)


class SumsByNumber(MACELayer):
    """A layer whose sums are divided by the mean number of neighbours, or by 1 and a learnt density."""

    def __init__(self, config: MACEConfig, num_species: int, number: int, bases: Bases | None, fused: bool) -> None:
        super().__init__(config, num_species, number, bases, fused)
        channels, l_in, l_out = config.channels, config.degrees[number], config.degrees[number + 1]
        self.divisor = 1.0 if self.density is not None else config.avg_num_neighbors[number] or 1.0
        self.down = IrrepLinear([Block(ir, mul, channels) for mul, ir in self.received], self.divisor)
        self.residual = config.residual[number]
        self.own_linear = SpeciesLinear(
            blocks(min(l_in, l_out) if self.residual else config.l_max, channels), num_species
        )

    def own(self, x: Tensor, sent: Tensor, species: Tensor) -> list[Tensor]:
        """Return what the layer needs of an atom itself: what is added after the products, of features [n, columns]."""
        if self.residual:
            return self.own_linear(x.split(self.kept, 1)[0], species)
        none: list[Tensor] = []
        return none

    def own_of_each(self, x: Tensor, sent: Tensor) -> list[Tensor]:
        """Return the same of one row of even scalars ``x`` [S, C] for each element."""
        if self.residual:
            return self.own_linear.of_each(x)
        none: list[Tensor] = []
        return none

    def forward(self, sent: Tensor, own: list[Tensor], bonds: Bonds, species: Tensor) -> Tensor:
        """Return the new features [n, columns].

        Parameters
        ----------
        sent [N, columns]
            Of all atoms, from :meth:`send`.
        own
            Of :meth:`own`.
        species [n]
            Of the atoms whose features are wanted.
        """
        summed = torch.cat(self.down(self.messages(sent, bonds, species.size(0))), 1)
        if self.density is not None:
            summed = summed / (1.0 + self.density_of(bonds, sent, species.size(0)))
        if not self.residual:
            summed = torch.cat(self.own_linear(summed, species), 1)
        return self.finished(summed, own, species)


class SumsWithGate(MACELayer):
    """A layer with a gate: to the sums, divided by a learnt density, comes what the atom itself would send.

    Bond weights depend on the elements, and the atom's own features do not.
    """

    def __init__(self, config: MACEConfig, num_species: int, number: int, bases: Bases | None, fused: bool) -> None:
        super().__init__(config, num_species, number, bases, fused)
        channels, l_in, l_out = config.channels, config.degrees[number], config.degrees[number + 1]
        self.gate = DegreeGate([channels] * (config.l_max + 1))
        width = dict(zip(natural_irreps(config.l_max), self.gate.input_channels(), strict=True))
        self.components = [ir.dim for ir in width]
        self.columns = [ir.dim * columns for ir, columns in width.items()]
        self.down = IrrepLinear([Block(ir, mul, width[ir]) for mul, ir in self.received])
        self.itself = IrrepLinear([Block(ir, mul, width[ir]) for ir, mul, _ in self.sent_blocks])
        self.gated = IrrepLinear(blocks(config.l_max, channels))
        self.own_linear = IrrepLinear(blocks(min(l_in, l_out), channels))
        self.alpha, self.beta = nn.Parameter(torch.tensor(20.0)), nn.Parameter(torch.tensor(0.0))
        self.added = (min(l_in, l_out) + 1) ** 2

    def own(self, x: Tensor, sent: Tensor, species: Tensor) -> list[Tensor]:
        """Return what is added after the products and what is added to the sums, of features and what is sent [n, columns]."""
        return self.own_of_each(x, sent)

    def own_of_each(self, x: Tensor, sent: Tensor) -> list[Tensor]:
        """Return the same of one row for each element."""
        return self.own_linear(x.split(self.kept, 1)[0]) + self.itself(sent)

    def forward(self, sent: Tensor, own: list[Tensor], bonds: Bonds, species: Tensor) -> Tensor:
        """Return the new features [n, columns]; arguments as those of :class:`SumsByNumber`."""
        rows = self.down(self.messages(sent, bonds, species.size(0)))
        divisor = self.density_of(bonds, sent, species.size(0)) * self.beta + self.alpha
        rows = [row / divisor for row in rows]
        for row, part in enumerate(own[self.added :]):
            rows[row] = rows[row] + part
        parts = torch.cat(rows, 1).split(self.columns, 1)
        degrees = [part.reshape(part.size(0), self.components[k], -1) for k, part in enumerate(parts)]
        gated = torch.cat([part.flatten(1) for part in self.gate(degrees)], 1)
        return self.finished(torch.cat(self.gated(gated), 1), own[: self.added], species)
