"""What a network knows of a system as a whole: its total charge and its spin multiplicity.

The embeddings are those of fairchem-core's OMol networks: each number becomes C scalars, both are mixed to C, and the result is
added to the scalars of every atom. A multiplicity of 0 means "not given".
"""

import math

import torch
from torch import Tensor, nn

CHARGE_LIMIT = 100
"""Largest charge, of either sign, that a table holds."""
SPIN_LIMIT = 100
"""Largest spin multiplicity that a table holds."""


class PositionalNumber(nn.Module):
    """sin and cos of 2 pi W x; zeros where ``x`` is 0 and zero means nothing."""

    def __init__(self, channels: int, zero_is_nothing: bool) -> None:
        super().__init__()
        self.zero_is_nothing = zero_is_nothing
        self.frequencies = nn.Parameter(torch.randn(channels // 2))

    def forward(self, x: Tensor) -> Tensor:
        """Return [..., C] for numbers [..., 1]."""
        angles = self.frequencies * x * (2.0 * math.pi)
        out = torch.cat([torch.sin(angles), torch.cos(angles)], -1)
        return out * (x != 0).to(out.dtype) if self.zero_is_nothing else out


class LinearNumber(nn.Module):
    """A linear map of the number; 0 is replaced by -100 where zero means nothing."""

    def __init__(self, channels: int, zero_is_nothing: bool) -> None:
        super().__init__()
        self.zero_is_nothing = zero_is_nothing
        self.linear = nn.Linear(1, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return [..., C] for numbers [..., 1]."""
        if self.zero_is_nothing:
            x = torch.where(x == 0, torch.full_like(x, -100.0), x)
        return self.linear(x)


class TableNumber(nn.Module):
    """One learnt row a whole number from ``lowest`` to ``highest``."""

    def __init__(self, channels: int, lowest: int, highest: int) -> None:
        super().__init__()
        self.lowest = lowest
        self.table = nn.Embedding(highest - lowest + 1, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return [..., C] for numbers [..., 1]."""
        return self.table(x.round().long() - self.lowest).squeeze(-2)


class SystemEmbedding(nn.Module):
    """Scalars [C] from the charge and the spin multiplicity that are set on the module.

    In training the two numbers are set atom by atom [N, 1], as each frame of a batch has its own; then the scalars are [N, C].

    Parameters
    ----------
    kind
        ``"positional"``, ``"linear"`` or ``"table"``.
    channels
        C, even.
    """

    charge: Tensor
    spin: Tensor

    def __init__(self, kind: str, channels: int) -> None:
        super().__init__()
        if kind == "table":
            self.of_charge: nn.Module = TableNumber(channels, -CHARGE_LIMIT, CHARGE_LIMIT)
            self.of_spin: nn.Module = TableNumber(channels, 0, SPIN_LIMIT)
        else:
            number = {"positional": PositionalNumber, "linear": LinearNumber}[kind]
            self.of_charge, self.of_spin = number(channels, False), number(channels, True)
        self.mix = nn.Linear(2 * channels, channels)
        self.register_buffer("charge", torch.zeros(1, dtype=torch.float64), persistent=False)
        self.register_buffer("spin", torch.zeros(1, dtype=torch.float64), persistent=False)

    def forward(self) -> Tensor:
        """Return [C], or [N, C] where the numbers are of atoms."""
        dtype = self.mix.weight.dtype
        numbers = [self.of_charge(self.charge.to(dtype)), self.of_spin(self.spin.to(dtype))]
        return nn.functional.silu(self.mix(torch.cat(numbers, -1)))
