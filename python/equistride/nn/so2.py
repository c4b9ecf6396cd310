"""Convolutions in the bond frame: linear maps that commute with rotation about the bond (arXiv 2302.03655)."""

import math

import torch
from torch import Tensor, nn


class OrderLinear(nn.Module):
    """Linear map between the +m and -m coefficients of one order m > 0, as equivariant to rotations about the bond.

    y(+m) = W1 x(+m) - W2 x(-m), y(-m) = W1 x(-m) + W2 x(+m), as one product with the block matrix of W1, W2.
    """

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__()
        bound = 1.0 / math.sqrt(2.0 * fan_in)
        self.weight = nn.Parameter(torch.empty(2 * fan_out, fan_in).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Map [E, 2 fan_in] to [E, 2 fan_out]; the first half of each is +m."""
        w1, w2 = self.weight.chunk(2, 0)
        block = torch.cat([torch.cat([w1, -w2], 1), torch.cat([w2, w1], 1)], 0)
        return torch.matmul(x, block.t())


class MirrorOrderLinear(nn.Module):
    """The part of :class:`OrderLinear` that commutes with reflections too: W2 = 0.

    A mirror plane through the bond keeps x(+m) and flips the sign of x(-m), so the two may not mix.
    """

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.fan_in, self.fan_out = fan_in, fan_out
        bound = 1.0 / math.sqrt(fan_in)
        self.weight = nn.Parameter(torch.empty(fan_out, fan_in).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Map [E, 2 fan_in] to [E, 2 fan_out]; the first half of each is +m."""
        return torch.matmul(x.reshape(-1, self.fan_in), self.weight.t()).view(-1, 2 * self.fan_out)


class SO2Convolution(nn.Module):
    """SO(2)-equivariant linear layer over all orders, with radial weights where they are given.

    Parameters
    ----------
    l_max, m_max
        Degrees and orders of the features [E, K, channels] in m-major order.
    channels_in, channels_out
        Channels.
    num_gates
        Extra scalar outputs (put first by the m = 0 layer).
    mirror
        Commute with reflections too.
    """

    def __init__(
        self, l_max: int, m_max: int, channels_in: int, channels_out: int, num_gates: int = 0, *, mirror: bool
    ) -> None:
        super().__init__()
        self.l_max, self.channels_out, self.num_gates, self.mirror = l_max, channels_out, num_gates, mirror
        self.scalar = nn.Linear((l_max + 1) * channels_in, num_gates + (l_max + 1) * channels_out)
        degrees = [l_max + 1 - m for m in range(1, m_max + 1)]
        linear = MirrorOrderLinear if mirror else OrderLinear
        self.orders = nn.ModuleList(linear(n * channels_in, n * channels_out) for n in degrees)
        self.weight_widths = [(l_max + 1) * channels_in, *(n * channels_in for n in degrees)]
        self.input_widths = [(l_max + 1) * channels_in, *(2 * n * channels_in for n in degrees)]
        self.num_weights = sum(self.weight_widths)
        self.num_rows = l_max + 1 + 2 * sum(degrees)

    def forward(self, x: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return features [E, K, channels_out] and gate scalars [E, num_gates].

        ``x`` is [E, K, channels_in]; ``weights`` [E, num_weights] multiplies the input, the same for +m and -m.
        """
        num_edges = x.size(0)
        # split, never slice: the gradient of a slice is a full array of zeros
        orders = x.flatten(1).split(self.input_widths, 1)
        scales = weights.split(self.weight_widths, 1) if weights is not None else []
        scalars = orders[0] * scales[0] if weights is not None else orders[0]
        gates, y = self.scalar(scalars).split([self.num_gates, (self.l_max + 1) * self.channels_out], 1)
        parts = [y]
        for m, layer in enumerate(self.orders):
            xm = orders[m + 1]
            if weights is not None:
                scale = scales[m + 1]
                xm = (xm.view(num_edges, 2, scale.size(1)) * scale[:, None]).view(num_edges, 2 * scale.size(1))
            parts.append(layer(xm))
        return torch.cat(parts, 1).view(num_edges, self.num_rows, self.channels_out), gates

    @torch.jit.export
    def weights(self) -> list[Tensor]:
        """Return the weight and the bias of order 0, then the weight of each order m > 0."""
        found = [self.scalar.weight, self.scalar.bias]
        for order in self.orders:
            found.append(order.weight)
        return found
