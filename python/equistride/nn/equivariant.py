"""Layers on features in rows: one linear map per irrep, and the gate.

Features are [N, columns] with channels innermost: a block of C copies of an irrep of degree l takes 2l + 1 runs of C
columns, *rows* in what follows; blocks are sorted 0o 0e 1o 1e 2o 2e. A row is a matrix [N, C] with a stride, which a matrix
product reads as it is.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from e3nn.o3 import Irrep, Irreps
from torch import Tensor, nn

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


class Block(NamedTuple):
    """Channels into and out of one irrep of an :class:`IrrepLinear`."""

    irrep: Irrep
    channels_in: int
    channels_out: int


class IrrepLinear(nn.Module):
    """One linear map of the channels of each irrep, divided by the square root of its fan-in.

    Parameters
    ----------
    blocks
        The irreps of the input, sorted, each with its channels in and out.
    divisor
        Divides the result.

    Attributes
    ----------
    weight
        [sum of in x out], block after block, each row-major (in, out): the layout of ``e3nn.o3.Linear``.
    """

    def __init__(self, blocks: Sequence[Block], divisor: float = 1.0) -> None:
        super().__init__()
        self.blocks = tuple(blocks)
        self.rows = [ir.dim for ir, _, _ in self.blocks]
        self.shapes = [(fan_in, fan_out) for _, fan_in, fan_out in self.blocks]
        self.sizes = [fan_in * fan_out for fan_in, fan_out in self.shapes]
        self.scales = [1.0 / (math.sqrt(fan_in) * divisor) for fan_in, _ in self.shapes]
        self.input_widths = [
            width for (width, _), rows in zip(self.shapes, self.rows, strict=True) for _ in range(rows)
        ]
        self.weight = nn.Parameter(torch.randn(sum(self.sizes)))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the rows [N, channels out] of the image of ``x`` [N, columns]."""
        weights = self.weight.split(self.sizes)
        columns = x.split(self.input_widths, 1)
        out: list[Tensor] = []
        row = 0
        for b, (fan_in, fan_out) in enumerate(self.shapes):
            weight = weights[b].view(fan_in, fan_out) * self.scales[b]
            for _ in range(self.rows[b]):
                out.append(torch.mm(columns[row], weight))
                row += 1
        return out


class Gate(nn.Module):
    """Non-linearity of a set of irreps with C channels each.

    Normalised SiLU on 0e, normalised tanh on 0o; every other irrep is multiplied by its own C scalars after normalised
    SiLU. These scalars follow those of 0e, in the order of the irreps.

    Parameters
    ----------
    irreps
        What is wanted at the output, sorted.
    channels
        C.
    """

    def __init__(self, irreps: Sequence[Irrep], channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.irreps = sorted(irreps)
        self.has_even, self.has_odd = Irrep("0e") in self.irreps, Irrep("0o") in self.irreps
        self.rows = [ir.dim for ir in self.irreps if ir.l > 0]
        self.num_gates = len(self.rows)
        self.scalar_widths = [channels] * (self.num_gates + int(self.has_even))
        self.silu, self.tanh = NORMALISED_SILU, NORMALISED_TANH

    def input_channels(self) -> dict[Irrep, int]:
        """Return the irreps that the gate reads, sorted, and their channels."""
        widths = {ir: self.channels for ir in self.irreps}
        widths[Irrep("0e")] = sum(self.scalar_widths)
        return dict(sorted(widths.items()))

    def forward(self, rows: list[Tensor]) -> list[Tensor]:
        """Map the rows of :meth:`input_channels` to the rows [N, C] of the wanted irreps."""
        out: list[Tensor] = []
        row = 0
        if self.has_odd:
            out.append(torch.tanh(rows[0]) * self.tanh)
            row = 1
        scalars = (nn.functional.silu(rows[row]) * self.silu).split(self.scalar_widths, 1)
        gate = 0
        row += 1
        if self.has_even:
            out.append(scalars[0])
            gate = 1
        for dim in self.rows:
            for _ in range(dim):
                out.append(rows[row] * scalars[gate])
                row += 1
            gate += 1
        return out
