"""Weights of MACE's bonds: networks of the bond length and of the two elements, and the splines that stand for them."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import torch
from torch import Tensor, nn

from equistride.errors import EquistrideError
from equistride.models.esen_fused import TABLE_BYTES, TYPICAL_ROWS
from equistride.models.mace_config import MACEConfig
from equistride.nn.bonds import Bonds
from equistride.nn.edge_block import RadialSplines
from equistride.nn.radial import BesselBasis, DistanceTransform
from equistride.nn.scalar_network import ScalarNetwork

BYTES: Final = 4
"""Of a number in the precision in which tables are used."""


class RadialFunctions(nn.Module):
    """Functions of a bond's length and its elements: the basis, transformed and enveloped as the network asks.

    Where the weights themselves are multiplied there is one column more, the last, with the factor: the envelope, or 1 up to
    the cutoff and 0 beyond where bond weights do not vanish by themselves.
    """

    def __init__(self, config: MACEConfig, transform: DistanceTransform | None) -> None:
        super().__init__()
        prefactor = math.sqrt(2.0 / config.cutoff) / config.cutoff
        self.basis = BesselBasis(config.cutoff, config.num_basis, prefactor, config.envelope_exponent)
        self.transform, self.envelope_last = transform, config.envelope_last
        self.factor = config.factored

    def forward(self, lengths: Tensor, pair: Tensor) -> Tensor:
        """Return [E, functions] for lengths [E] in A and pairs of elements [E]."""
        envelope = self.basis.envelope(lengths)[:, None]
        transformed = lengths
        if self.transform is not None:
            transformed = self.transform(lengths, pair)
        functions = self.basis.functions(transformed)
        if not self.envelope_last:
            functions = functions * envelope
        if not self.factor:
            return functions
        factor = envelope if self.envelope_last else (lengths < self.basis.cutoff)[:, None].to(functions.dtype)
        return torch.cat([functions, factor], 1)


class PairNetwork(nn.Module):
    """Linear, LayerNorm, SiLU, ..., Linear with biases; the first of the radial functions and of the two elements.

    Parameters
    ----------
    widths
        Functions, hidden layers, outputs.
    num_species
        S.

    Attributes
    ----------
    sender, receiver [S, first hidden layer]
        What the element adds to the first layer in each role.
    """

    def __init__(self, widths: Sequence[int], num_species: int) -> None:
        super().__init__()
        hidden = widths[1:-1]
        self.first = nn.Linear(widths[0], hidden[0])
        self.sender = nn.Parameter(torch.empty(num_species, hidden[0]).uniform_(-1e-3, 1e-3))
        self.receiver = nn.Parameter(torch.empty(num_species, hidden[0]).uniform_(-1e-3, 1e-3))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in hidden)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths[1:]))

    def forward(self, functions: Tensor, pair: Tensor) -> Tensor:
        """Return [E, outputs] of functions [E, B] and pairs of elements [E], receiver * S + sender."""
        of_pair = (self.receiver[:, None] + self.sender[None]).flatten(0, 1)
        x = self.first(functions) + of_pair.index_select(0, pair)
        for norm, layer in zip(self.norms, self.layers):  # noqa: B905 (TorchScript knows no strict=)
            x = layer(nn.functional.silu(norm(x)))
        return x


class BondWeights(nn.Module):
    """A network of the radial functions, or also of the elements; multiplied by their last column where that is a factor.

    Parameters
    ----------
    config
        Sizes.
    widths
        Of hidden layers and outputs.
    num_species
        Number of elements, where they go into the network.
    squashed
        Return tanh of the square.
    """

    def __init__(self, config: MACEConfig, widths: Sequence[int], num_species: int = 0, squashed: bool = False) -> None:
        super().__init__()
        every = [config.num_basis, *widths]
        self.by_element, self.squashed = num_species > 0, squashed
        self.network = None if self.by_element else ScalarNetwork(every)
        self.of_elements = PairNetwork(every, num_species) if self.by_element else None
        self.factor = config.envelope_last or self.by_element
        self.columns = [config.num_basis, int(config.factored)]

    def forward(self, basis: Tensor, pair: Tensor) -> Tensor:
        """Return [E, columns]."""
        functions, factor = basis.split(self.columns, 1)
        out = functions
        if self.network is not None:
            out = self.network(functions)
        if self.of_elements is not None:
            out = self.of_elements(functions, pair)
        if self.squashed:
            out = torch.tanh(out.square())
        return out * factor if self.factor else out


class Splined(nn.Module):
    """A network of the bond length and the two elements replaced by splines, for serving."""

    kinds: Tensor

    def __init__(
        self,
        radial: RadialFunctions,
        weights: BondWeights,
        columns: int,
        num_species: int,
        start: float,
        tolerance: float,
    ) -> None:
        super().__init__()
        if weights.by_element and not radial.envelope_last:
            raise EquistrideError("bond weights that end with a step have no splines")
        if weights.by_element:  # of sender and receiver
            of_kind = kinds = torch.arange(num_species * num_species)
        else:  # the same for both directions
            first, second = torch.triu_indices(num_species, num_species)
            square = torch.zeros(num_species, num_species, dtype=torch.int64)
            square[first, second] = square[second, first] = torch.arange(first.numel())
            of_kind, kinds = first * num_species + second, square.flatten()
        if of_kind.numel() * columns * TYPICAL_ROWS * BYTES > TABLE_BYTES:
            raise EquistrideError(
                "the tables of so many pairs of elements would be too large", expected=f"{TABLE_BYTES >> 20} MiB at most",
                found=f"{of_kind.numel()} pairs of {columns} functions", hint="keep fewer elements with --elements",
            )  # fmt: skip
        self.register_buffer("kinds", kinds, persistent=False)
        with torch.enable_grad():
            self.splines = RadialSplines.tabulate(
                lambda r, kind: weights(radial(r, of_kind[kind]), of_kind[kind]),
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

    def __init__(self, weights: BondWeights) -> None:
        super().__init__()
        self.weights = weights

    def forward(self, bonds: Bonds) -> Tensor:
        """Return [E, columns]."""
        return self.weights(bonds.basis, bonds.pair)
