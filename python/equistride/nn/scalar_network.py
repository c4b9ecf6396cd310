"""Perceptrons whose layers keep the second moment, as e3nn's ``FullyConnectedNet`` does."""

import math
from itertools import pairwise
from typing import Final

import torch
from torch import Tensor, nn

NORMALISED_SILU: Final = 1.6791767923989418
"""Factor that gives SiLU of a standard normal variable second moment 1 (e3nn's constant, to all digits)."""
NORMALISED_TANH: Final = 1.5937334472592695
"""The same for tanh."""


class ScalarNetwork(nn.Module):
    """Linear layers without biases, divided by the square root of their fan-in, with normalised SiLU between.

    Weights start standard normal. Zero maps to zero: what is silent at the cutoff stays silent.

    Parameters
    ----------
    widths
        Inputs, hidden layers, outputs.
    """

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(ScaledLinear(fan_in, fan_out) for fan_in, fan_out in pairwise(widths))
        self.last = len(self.layers) - 1
        self.silu = NORMALISED_SILU

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, inputs] to [N, outputs]."""
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if i < self.last:
                x = nn.functional.silu(x) * self.silu
        return x


class ScaledLinear(nn.Module):
    """``x @ weight / sqrt(fan in)``; weight [fan in, fan out]."""

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.scale = 1.0 / math.sqrt(fan_in)
        self.weight = nn.Parameter(torch.randn(fan_in, fan_out))

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, fan in] to [N, fan out]."""
        return torch.matmul(x, self.weight * self.scale)
