"""Layers on features in rows: one linear map per irrep, and the gate.

Features are [N, columns] with channels innermost: a block of C copies of an irrep of degree l takes 2l + 1 runs of C
columns, *rows* in what follows; blocks are sorted 0o 0e 1o 1e 2o 2e. A row is a matrix [N, C] with a stride, which a matrix
product reads as it is. Between a linear map and a gate a block is one array [N, 2l + 1, C], row after row in memory.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from e3nn.o3 import Irrep, Irreps
from torch import Tensor, nn

from equistride.nn.packing import Packed
from equistride.nn.scalar_network import NORMALISED_SILU, NORMALISED_TANH


def natural_irreps(l_max: int) -> list[Irrep]:
    """Return the irreps of the spherical harmonics: 0e, 1o, 2e, ..."""
    return [Irrep(degree, (-1) ** degree) for degree in range(l_max + 1)]


def both_parities(l_max: int) -> list[Irrep]:
    """Return 0o, 0e, 1o, 1e, ... up to ``l_max``."""
    return [Irrep(degree, parity) for degree in range(l_max + 1) for parity in (-1, 1)]


def with_channels(irreps: Sequence[Irrep], channels: int) -> Irreps:
    """Return the irreps with the same number of channels each, sorted."""
    return Irreps([(channels, ir) for ir in sorted(irreps)])


EVEN = Irrep("0e")
"""Of a scalar that no reflection changes."""


def rows_of(blocks: list[Tensor]) -> list[Tensor]:
    """Return the rows [N, channels] of blocks [N, rows, channels]."""
    out: list[Tensor] = []
    for block in blocks:
        out += block.unbind(1)
    return out


def join(blocks: list[Tensor]) -> Tensor:
    """Return the features [N, columns] of blocks [N, rows, channels]."""
    return torch.cat(rows_of(blocks), 1)


class Block(NamedTuple):
    """Channels into and out of one irrep of an :class:`IrrepLinear`."""

    irrep: Irrep
    channels_in: int
    channels_out: int


class IrrepLinear(Packed):
    """One linear map of the channels of each irrep, divided by the square root of its fan-in.

    Parameters
    ----------
    blocks
        The irreps of the input, sorted, each with its channels in and out.
    divisor
        Divides the result.
    bias
        Add a bias, zero at the start, to the even scalars.

    Attributes
    ----------
    weight
        [sum of in x out], block after block, each row-major (in, out): the layout of ``e3nn.o3.Linear``.
    packed
        What :meth:`factors` returns, once a model that is served has called :meth:`pack`; nothing in training.
    """

    packed: list[Tensor]

    def __init__(self, blocks: Sequence[Block], divisor: float = 1.0, bias: bool = False) -> None:
        super().__init__()
        self.blocks = tuple(blocks)
        self.rows = [ir.dim for ir, _, _ in self.blocks]
        self.shapes = [(fan_in, fan_out) for _, fan_in, fan_out in self.blocks]
        self.sizes = [fan_in * fan_out for fan_in, fan_out in self.shapes]
        self.scales = [1.0 / (math.sqrt(fan_in) * divisor) for fan_in, _ in self.shapes]
        # Irreps that follow one another with the same channels go through one product: on a GPU thin ones cost their launch.
        runs = [list(run) for _, run in groupby(range(len(self.blocks)), self.shapes.__getitem__)]
        self.runs = [[self.rows[b] for b in run] for run in runs]
        self.widths = [sum(self.rows[b] * self.shapes[b][0] for b in run) for run in runs]
        self.weight = nn.Parameter(torch.randn(sum(self.sizes)))
        scalars = [b for b, block in enumerate(self.blocks) if block.irrep == EVEN and bias]
        self.biased = scalars[0] if scalars else -1
        self.bias = nn.Parameter(torch.zeros(self.blocks[self.biased].channels_out)) if scalars else None

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the rows [N, channels out] of the image of ``x`` [N, columns]."""
        return rows_of(self.images(x))

    def matrices(self) -> list[Tensor]:
        """Return what multiplies the channels of each irrep, [channels in, channels out]."""
        out: list[Tensor] = []
        for b, weight in enumerate(self.weight.split(self.sizes)):
            fan_in, fan_out = self.shapes[b]
            out.append(weight.view(fan_in, fan_out) * self.scales[b])
        return out

    def factors(self) -> list[Tensor]:
        """Return what multiplies each run of irreps with the same channels, [rows, channels in, channels out]."""
        matrices = self.matrices()
        out: list[Tensor] = []
        first = 0
        for run in self.runs:
            parts: list[Tensor] = []
            for b in range(first, first + len(run)):
                fan_in, fan_out = self.shapes[b]
                parts.append(matrices[b].expand(self.rows[b], fan_in, fan_out))
            out.append(torch.cat(parts) if len(parts) > 1 else parts[0])
            first += len(run)
        return out

    def images(self, x: Tensor) -> list[Tensor]:
        """Return the same as blocks [N, rows, channels out]."""
        matrices = self.packed if len(self.packed) > 0 else self.factors()
        out: list[Tensor] = []
        for run, columns in enumerate(x.split(self.widths, 1)):
            matrix = matrices[run]
            rows = columns.reshape(x.size(0), matrix.size(0), matrix.size(1)).transpose(0, 1)  # where they lie
            for block in torch.bmm(rows, matrix).transpose(0, 1).split(self.runs[run], 1):
                bias = self.bias
                if len(out) == self.biased and bias is not None:
                    out.append(block + bias)
                else:
                    out.append(block)
        return out


class SpeciesLinear(Packed):
    """An :class:`IrrepLinear` for each element.

    Parameters
    ----------
    blocks
        The irreps of the input, sorted, each with its channels in and out.
    num_species
        S.

    Attributes
    ----------
    weight
        [S, sum of in x out], each row as in :class:`IrrepLinear`.
    packed
        Of each block [S, channels in, channels out], as in :class:`IrrepLinear`.
    """

    packed: list[Tensor]

    def __init__(self, blocks: Sequence[Block], num_species: int) -> None:
        super().__init__()
        self.blocks, self.num_species = tuple(blocks), num_species
        self.rows = [ir.dim for ir, _, _ in self.blocks]
        self.shapes = [(fan_in, fan_out) for _, fan_in, fan_out in self.blocks]
        self.sizes = [fan_in * fan_out for fan_in, fan_out in self.shapes]
        self.scales = [1.0 / math.sqrt(fan_in) for fan_in, _ in self.shapes]
        self.widths = [rows * fan_in for rows, (fan_in, _) in zip(self.rows, self.shapes, strict=True)]
        self.weight = nn.Parameter(torch.randn(num_species, sum(self.sizes)))

    def factors(self) -> list[Tensor]:
        """Return what multiplies each block, [S, channels in, channels out]."""
        out: list[Tensor] = []
        for b, weight in enumerate(self.weight.split(self.sizes, 1)):
            fan_in, fan_out = self.shapes[b]
            out.append(weight.reshape(self.num_species, fan_in, fan_out) * self.scales[b])
        return out

    def forward(self, x: Tensor, species: Tensor) -> list[Tensor]:
        """Return the rows [N, channels out] of the image of ``x`` [N, columns], by the species [N] of each atom."""
        return rows_of(self.images(x, species))

    def images(self, x: Tensor, species: Tensor) -> list[Tensor]:
        """Return the same as blocks [N, rows, channels out]."""
        one_hot = nn.functional.one_hot(species, self.num_species).to(x.dtype)[:, None, :, None]
        matrices = self.packed if len(self.packed) > 0 else self.factors()
        out: list[Tensor] = []
        for b, part in enumerate(x.split(self.widths, 1)):
            # zeros but in the columns of its own element
            place = part.reshape(-1, self.rows[b], 1, self.shapes[b][0]) * one_hot
            out.append(torch.matmul(place.flatten(2), matrices[b].flatten(0, 1)))
        return out

    def of_each(self, x: Tensor) -> list[Tensor]:
        """Return the rows [S, channels out] of the image of one row of ``x`` [S, columns] for each element."""
        return rows_of(self.images_of_each(x))

    def images_of_each(self, x: Tensor) -> list[Tensor]:
        """Return the same as blocks [S, rows, channels out]."""
        matrices = self.packed if len(self.packed) > 0 else self.factors()
        out: list[Tensor] = []
        for b, part in enumerate(x.split(self.widths, 1)):
            out.append(torch.bmm(part.reshape(-1, self.rows[b], self.shapes[b][0]), matrices[b]))
        return out


class Gate(nn.Module):
    """Non-linearity of a set of irreps.

    Normalised SiLU on 0e, normalised tanh on 0o; every other irrep is multiplied by its own even scalars, one a channel, after
    normalised SiLU. These scalars follow those of 0e, in the order of the irreps.

    Parameters
    ----------
    irreps
        What is wanted at the output, sorted.
    channels
        Of each irrep, or of all.
    """

    def __init__(self, irreps: Sequence[Irrep], channels: int | Mapping[Irrep, int]) -> None:
        super().__init__()
        self.irreps = sorted(irreps)
        self.widths = [channels if isinstance(channels, int) else channels[ir] for ir in self.irreps]
        self.has_even, self.has_odd = EVEN in self.irreps, Irrep("0o") in self.irreps
        self.num_gates = sum(ir.l > 0 for ir in self.irreps)
        self.scalar_widths = [
            width for ir, width in zip(self.irreps, self.widths, strict=True) if ir.l > 0 or ir == EVEN
        ]
        self.silu, self.tanh = NORMALISED_SILU, NORMALISED_TANH

    def input_channels(self) -> dict[Irrep, int]:
        """Return the irreps that the gate reads, sorted, and their channels."""
        widths = dict(zip(self.irreps, self.widths, strict=True))
        return dict(sorted((widths | {EVEN: sum(self.scalar_widths)}).items()))

    def forward(self, blocks: list[Tensor]) -> list[Tensor]:
        """Map the blocks [N, rows, channels] of :meth:`input_channels` to those of the wanted irreps."""
        out: list[Tensor] = []
        first = 0
        if self.has_odd:
            out.append(torch.tanh(blocks[0]) * self.tanh)
            first = 1
        scalars = (nn.functional.silu(blocks[first]) * self.silu).split(self.scalar_widths, 2)
        gate = 0
        if self.has_even:
            out.append(scalars[0])
            gate = 1
        for k in range(self.num_gates):
            out.append(blocks[first + 1 + k] * scalars[gate + k])
        return out
