"""Perceptrons whose layers keep the second moment, as e3nn's ``FullyConnectedNet`` does.

Factors that give a function of a standard normal variable second moment 1 are e3nn's, which come from a sample: to all digits.
"""

import math
from itertools import pairwise
from typing import Final

import torch
from torch import Tensor, nn

from equistride.nn.packing import Packed

NORMALISED_SILU: Final = 1.6791767923989418
NORMALISED_TANH: Final = 1.5937334472592695
ACTIVATIONS: Final = {
    "silu": NORMALISED_SILU,
    "tanh": NORMALISED_TANH,
    "relu": 1.4163393446331365,
    "elu": 1.2467863885570512,
}
"""Functions between the layers, each with its factor."""


class ScalarNetwork(nn.Module):
    """Linear layers without biases, divided by the square root of their fan-in, with a normalised non-linearity between.

    Weights start standard normal. Zero maps to zero: what is silent at the cutoff stays silent.

    Parameters
    ----------
    widths
        Inputs, hidden layers, outputs.
    activation
        One of :data:`ACTIVATIONS`.
    biases
        All layers but the first add a bias.
    """

    def __init__(self, widths: list[int], activation: str = "silu", biases: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            ScaledLinear(fan_in, fan_out, biases and k > 0, ACTIVATIONS[activation] if k > 0 else 1.0)
            for k, (fan_in, fan_out) in enumerate(pairwise(widths))
        )
        self.last = len(self.layers) - 1
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, inputs] to [N, outputs]."""
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if i < self.last:
                x = self.activate(x)
        return x

    def activate(self, x: Tensor) -> Tensor:
        """Return the non-linearity of x, not normalised: the next layer does that."""
        if self.activation == "tanh":
            return torch.tanh(x)
        if self.activation == "relu":
            return torch.relu(x)
        if self.activation == "elu":
            return nn.functional.elu(x)
        return nn.functional.silu(x)


class ScaledLinear(Packed):
    """``x @ weight * gain / sqrt(fan in)``, plus a bias where it has one; weight [fan in, fan out].

    ``packed`` is the weight with its factors, once a model that is served has called :meth:`pack`.
    """

    packed: list[Tensor]

    def __init__(self, fan_in: int, fan_out: int, bias: bool = False, gain: float = 1.0) -> None:
        super().__init__()
        self.scale = gain / math.sqrt(fan_in)
        self.weight = nn.Parameter(torch.randn(fan_in, fan_out))
        self.bias = nn.Parameter(torch.zeros(fan_out)) if bias else None

    def factors(self) -> list[Tensor]:
        """Return the weight with its factors."""
        return [self.weight * self.scale]

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, fan in] to [N, fan out]."""
        out = torch.matmul(x, self.packed[0] if len(self.packed) > 0 else self.factors()[0])
        bias = self.bias
        return out if bias is None else out + bias
