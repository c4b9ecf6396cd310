"""Layers on node features [N, (l_max+1)^2, C]: norm, linear, gate."""

import math

import torch
from torch import Tensor, nn


def degree_of_coefficients(l_max: int) -> list[int]:
    """Return the degree l of each of the (l_max+1)^2 coefficients, l-major."""
    return [degree for degree in range(l_max + 1) for _ in range(2 * degree + 1)]


class SphericalRMSNorm(nn.Module):
    """Centre the scalars and divide all degrees by one balanced root mean square per atom.

    Parameters
    ----------
    l_max, channels
        Degrees and channels of the features.
    rounded
        Weights of the degrees in float32, as in fairchem-core.
    """

    degrees: Tensor
    balance: Tensor

    def __init__(self, l_max: int, channels: int, rounded: bool = False) -> None:
        super().__init__()
        self.eps = 1e-5
        degrees = degree_of_coefficients(l_max)
        balance = torch.tensor([1.0 / (2 * n + 1) for n in degrees], dtype=torch.float32 if rounded else torch.float64)
        balance = (balance / (l_max + 1)).double()
        self.register_buffer("degrees", torch.tensor(degrees), persistent=False)
        self.register_buffer("balance", balance[:, None] / channels, persistent=False)
        self.weight = nn.Parameter(torch.ones(l_max + 1, channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, shift: Tensor | None = None) -> Tensor:
        """Return the normalised features, shape of ``x`` [N, (l_max+1)^2, C]; ``shift`` [C] or [N, C] is added to the scalars."""
        scalars, rest = x.split([1, x.size(1) - 1], 1)
        x = torch.cat([scalars - scalars.mean(2, keepdim=True), rest], 1)
        variance = (x.square() * self.balance).sum(dim=[1, 2], keepdim=True)
        x = x * (variance + self.eps).rsqrt() * self.weight.index_select(0, self.degrees)
        scalars, rest = x.split([1, x.size(1) - 1], 1)
        bias = self.bias if shift is None else self.bias + shift
        return torch.cat([scalars + bias.unsqueeze(-2), rest], 1)


class SphericalLinear(nn.Module):
    """One linear map of the channels per degree; bias on the scalars."""

    degrees: Tensor

    def __init__(self, l_max: int, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.rows = [2 * degree + 1 for degree in range(l_max + 1)]
        bound = 1.0 / math.sqrt(channels_in)
        self.weight = nn.Parameter(torch.empty(l_max + 1, channels_out, channels_in).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(channels_out))

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, (l_max+1)^2, channels_in] to [N, (l_max+1)^2, channels_out]."""
        out: list[Tensor] = []
        for degree, (part, weight) in enumerate(zip(x.split(self.rows, 1), self.weight.unbind(0))):  # noqa: B905 (TorchScript knows no strict=)
            y = torch.matmul(part, weight.t())
            out.append(y + self.bias if degree == 0 else y)
        return torch.cat(out, 1)


class Gate(nn.Module):
    """SiLU on the scalar row, sigmoid gates per degree on the other rows.

    Parameters
    ----------
    degrees
        Degree of each row after the first (which is the scalar).
    """

    gate_of_row: Tensor

    def __init__(self, degrees: list[int]) -> None:
        super().__init__()
        self.register_buffer("gate_of_row", torch.tensor(degrees, dtype=torch.int64) - 1, persistent=False)

    def forward(self, x: Tensor, gates: Tensor) -> Tensor:
        """Return the gated features; ``x`` [M, K, C], ``gates`` [M, l_max * C] before the sigmoid."""
        scalars, rest = x.split([1, x.size(1) - 1], 1)
        per_degree = torch.sigmoid(gates).view(x.size(0), gates.size(1) // x.size(2), x.size(2))
        return torch.cat([nn.functional.silu(scalars), rest * per_degree.index_select(1, self.gate_of_row)], 1)


class SpectralFeedForward(nn.Module):
    """Gated two-layer network on each atom's features, degree by degree."""

    def __init__(self, l_max: int, channels: int, hidden: int) -> None:
        super().__init__()
        self.gates = nn.Linear(channels, l_max * hidden)
        self.up = SphericalLinear(l_max, channels, hidden)
        self.gate = Gate(degree_of_coefficients(l_max)[1:])
        self.down = SphericalLinear(l_max, hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, (l_max+1)^2, channels] to the same shape."""
        gates = nn.functional.silu(self.gates(x[:, 0]))
        return self.down(self.gate(self.up(x), gates))
