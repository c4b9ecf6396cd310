"""Layers on node features [N, (l_max+1)^2, C]: norm, linear, gate."""

import math

import torch
from torch import Tensor, nn

from equistride.nn.packing import Packed


def degree_of_coefficients(l_max: int) -> list[int]:
    """Return the degree l of each of the (l_max+1)^2 coefficients, l-major."""
    return [degree for degree in range(l_max + 1) for _ in range(2 * degree + 1)]


def by_degree(values: Tensor) -> Tensor:
    """Return values [l_max+1, ...] of each degree for each of its rows, [(l_max+1)^2, ...]."""
    out: list[Tensor] = []
    for degree, one in enumerate(values.unbind(0)):
        out.append(one.unsqueeze(0).expand([2 * degree + 1] + list(one.size())))  # noqa: RUF005 (as TorchScript has it)
    return torch.cat(out)


def on_first_row(values: Tensor, rows: int) -> Tensor:
    """Return values [C] as the first of so many rows [rows, C], zeros below."""
    return torch.cat([values[None], values.new_zeros(rows - 1, values.size(0))])


class SphericalRMSNorm(Packed):
    """Centre the scalars and divide all degrees by one balanced root mean square per atom.

    Parameters
    ----------
    l_max, channels
        Degrees and channels of the features.
    rounded
        Weights of the degrees in float32, as in fairchem-core.
    """

    balance: Tensor
    packed: list[Tensor]

    def __init__(self, l_max: int, channels: int, rounded: bool = False) -> None:
        super().__init__()
        self.eps = 1e-5
        degrees = degree_of_coefficients(l_max)
        balance = torch.tensor([1.0 / (2 * n + 1) for n in degrees], dtype=torch.float32 if rounded else torch.float64)
        balance = (balance / (l_max + 1)).double()
        self.register_buffer("balance", balance[:, None] / channels, persistent=False)
        self.weight = nn.Parameter(torch.ones(l_max + 1, channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, shift: Tensor | None = None) -> Tensor:
        """Return the normalised features, shape of ``x`` [N, (l_max+1)^2, C]; ``shift`` [C] or [N, C] is added to the scalars."""
        scalars, rest = x.split([1, x.size(1) - 1], 1)
        x = torch.cat([scalars - scalars.mean(2, keepdim=True), rest], 1)
        variance = (x.square() * self.balance).sum(dim=[1, 2], keepdim=True)
        weight, bias = self.packed if len(self.packed) > 0 else self.factors()
        out = torch.addcmul(bias, x * (variance + self.eps).rsqrt(), weight)
        if shift is None:
            return out
        scalars, rest = out.split([1, out.size(1) - 1], 1)
        return torch.cat([scalars + shift.unsqueeze(-2), rest], 1)

    def factors(self) -> list[Tensor]:
        """Return weight and bias of each row, [(l_max+1)^2, C]."""
        weight = by_degree(self.weight)
        return [weight, on_first_row(self.bias, weight.size(0))]


class SphericalLinear(Packed):
    """One linear map of the channels per degree; bias on the scalars.

    All rows go through one product, each with its degree's matrix: degree by degree a GPU takes it for N products of 2l + 1 rows.
    """

    packed: list[Tensor]

    def __init__(self, l_max: int, channels_in: int, channels_out: int) -> None:
        super().__init__()
        bound = 1.0 / math.sqrt(channels_in)
        self.weight = nn.Parameter(torch.empty(l_max + 1, channels_out, channels_in).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(channels_out))

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, (l_max+1)^2, channels_in] to [N, (l_max+1)^2, channels_out]."""
        matrices, bias = self.packed if len(self.packed) > 0 else self.factors()
        return torch.baddbmm(bias, x.transpose(0, 1), matrices).transpose(0, 1)

    def factors(self) -> list[Tensor]:
        """Return the matrix [channels_in, channels_out] and the bias [1, channels_out] of each row."""
        matrices = by_degree(self.weight).transpose(1, 2)
        return [matrices, on_first_row(self.bias, matrices.size(0))[:, None]]

    @torch.jit.export
    def pack(self) -> None:
        """Make them once on a GPU, for networks that are not fused: they are l_max + 1 times the weights."""
        self.unpack()
        if self.weight.is_cuda:
            self.packed = self.factors()


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
