"""Real spherical harmonics in plain torch, in e3nn's order and sign."""

import math

import torch
from e3nn.o3 import spherical_harmonics, wigner_3j
from torch import Tensor, nn


def _step(degree: int) -> Tensor:
    """Return c [3, 2 degree - 1, 2 degree + 1] with Y_l = c Y_1 Y_{l-1}, component-normalised, float64."""
    coupling = wigner_3j(1, degree - 1, degree, dtype=torch.float64, device="cpu")
    point = torch.tensor([0.48, -0.6, 0.64], dtype=torch.float64)
    first, before, wanted = (
        spherical_harmonics([k], point, normalize=False, normalization="component") for k in (1, degree - 1, degree)
    )
    found = torch.einsum("i,j,ijk->k", first, before, coupling)
    return coupling * (wanted @ found) / (found @ found)


class SphericalHarmonics(nn.Module):
    """All real harmonics up to a degree, by the recursion Y_l ~ Y_1 (x) Y_{l-1}.

    Component-normalised (the squares of degree l sum to 2l + 1), polar axis y, order m = -l..l: the convention of e3nn
    (Geiger and Smidt, arXiv 2207.09453).

    Parameters
    ----------
    l_max
        Largest degree.
    normalized
        Of the directions; without it degree l carries the l-th power of the length, in A.
    """

    steps: Tensor

    def __init__(self, l_max: int, normalized: bool = True) -> None:
        super().__init__()
        self.l_max, self.normalized = l_max, normalized
        tables = [_step(degree).flatten() for degree in range(2, l_max + 1)]
        flat = torch.cat(tables) if tables else torch.zeros(0, dtype=torch.float64)
        self.register_buffer("steps", flat, persistent=False)

    def forward(self, vectors: Tensor) -> Tensor:
        """Return Y [N, (l_max + 1)^2] of the directions of ``vectors`` [N, 3].

        A vector of length zero has no direction: all but the first of its harmonics are zero.
        """
        out = [torch.ones_like(vectors[:, :1])]
        if self.l_max > 0:
            first = vectors
            if self.normalized:
                first = first / torch.linalg.vector_norm(vectors, dim=1, keepdim=True).clamp(min=1e-12)
            first = first * math.sqrt(3.0)
            out.append(first)
            last = first
            steps = self.steps.to(vectors.dtype)
            start = 0
            for degree in range(2, self.l_max + 1):
                rows = 3 * (2 * degree - 1)
                table = steps[start : start + rows * (2 * degree + 1)].view(rows, 2 * degree + 1)
                start += rows * (2 * degree + 1)
                last = torch.matmul((first[:, :, None] * last[:, None, :]).flatten(1), table)
                out.append(last)
        return torch.cat(out, 1)
