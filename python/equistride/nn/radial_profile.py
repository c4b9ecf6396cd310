"""Radial functions and weights of Equiformer: exponential-normal basis, and a network that need not vanish at the cutoff."""

import math

import torch
from torch import Tensor, nn


class ExpNormalBasis(nn.Module):
    """Gaussians of exp(-alpha r), evenly spaced in it, times a cosine cutoff (PhysNet, 10.1021/acs.jctc.9b00181).

    ``g_k = (cos(pi r / cutoff) + 1) / 2 * exp(-beta (exp(-alpha r) - mu_k)^2)``, alpha = 5 / cutoff, mu from exp(-cutoff) to 1.
    """

    centres: Tensor

    def __init__(self, cutoff: float, num_basis: int) -> None:
        super().__init__()
        self.cutoff, self.alpha = cutoff, 5.0 / cutoff
        first = math.exp(-cutoff)
        self.beta = (2.0 / num_basis * (1.0 - first)) ** -2
        self.register_buffer("centres", torch.linspace(first, 1.0, num_basis, dtype=torch.float64), persistent=False)

    def forward(self, r: Tensor) -> Tensor:
        """Return g [E, num_basis] of bond lengths r [E] in A; zero from the cutoff on."""
        cosine = 0.5 * (torch.cos(r * (math.pi / self.cutoff)) + 1.0) * (r < self.cutoff).to(r.dtype)
        spread = torch.exp(-self.alpha * r)[:, None] - self.centres.to(r.dtype)
        return cosine[:, None] * torch.exp(-self.beta * spread.square())


class RadialProfile(nn.Module):
    """Two hidden layers with layer norm and SiLU, then a linear layer with a learnt offset (arXiv 2206.11990)."""

    def __init__(self, num_basis: int, hidden: int, out: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(num_basis, hidden), nn.Linear(hidden, hidden)
        self.norm1, self.norm2 = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.last = nn.Linear(hidden, out)
        nn.init.zeros_(self.first.bias)
        nn.init.zeros_(self.second.bias)

    def forward(self, basis: Tensor) -> Tensor:
        """Map radial functions [E, num_basis] to weights [E, out]."""
        h = nn.functional.silu(self.norm1(self.first(basis)))
        return self.last(nn.functional.silu(self.norm2(self.second(h))))
