"""Argon under Lennard-Jones in the artifact format, sound or with one of the faults that break energy conservation."""

from __future__ import annotations

from pathlib import Path

import torch
from ase import Atoms
from ase.build import bulk
from torch import Tensor, nn
from toy_metadata import toy_metadata

from equistride.artifact.export import save

CUTOFF = 5.4  # A, among the second neighbours of solid argon, which cross it all the time
CAP = 10  # of the 12 nearest
FAULTS = ["none", "direct", "envelope", "cap"]


class Argon(nn.Module):
    """E_i = sum_j 2 e [(s/r)^12 - (s/r)^6] u(r/rc), with a fault on purpose."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault
        self.cutoff = CUTOFF
        self.cap = CAP
        self.strength = nn.Parameter(torch.tensor(0.0104))
        self.size = 3.4

    def kept(self, r: Tensor, receiver: Tensor) -> Tensor:
        """Return 1 for the edges of each receiver to its nearest neighbours, 0 for the others [E]."""
        by_distance = torch.argsort(r)
        order = by_distance.index_select(0, torch.argsort(receiver.index_select(0, by_distance), stable=True))
        sorted_receiver = receiver.index_select(0, order)
        rank = torch.arange(r.size(0), device=r.device) - torch.searchsorted(sorted_receiver, sorted_receiver)
        return torch.zeros_like(r).index_copy(0, order, (rank < self.cap).to(r.dtype))

    def forward(
        self, positions: Tensor, species: Tensor, cell: Tensor, edge_index: Tensor, shifts: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        i, j = edge_index[0], edge_index[1]
        vectors = positions[j] - positions[i] + torch.matmul(shifts.to(cell.dtype), cell)
        vectors = vectors.detach().requires_grad_(True)
        r = torch.linalg.vector_norm(vectors, dim=1)
        x, six = r / self.cutoff, (self.size / r) ** 6
        pair = 2.0 * self.strength * (six * six - six)
        if self.fault != "envelope":
            pair = pair * (1.0 - 10.0 * x**3 + 15.0 * x**4 - 6.0 * x**5)
        if self.fault == "cap":
            pair = pair * self.kept(r.detach(), i)
        energies = torch.zeros(positions.size(0), dtype=positions.dtype).index_add(0, i, pair)
        gradient = torch.autograd.grad([energies.sum()], [vectors])[0]
        if gradient is None:
            gradient = torch.zeros_like(vectors)
        forces = torch.zeros_like(positions).index_add(0, i, gradient).index_add(0, j, -gradient)
        if self.fault == "direct":  # near the gradient, as a trained head is, and not it
            forces = forces * (1.0 + 0.5 * energies.detach()[:, None])
        return energies.detach().double(), forces, -torch.matmul(vectors.detach().t(), gradient)


def write_argon(path: Path, fault: str) -> Path:
    """Write the artifact."""
    save(Argon(fault), toy_metadata(["Ar"], CUTOFF), path)
    return path


def argon() -> Atoms:
    """Return 32 atoms of solid argon."""
    return bulk("Ar", "fcc", a=5.3, cubic=True).repeat(2)
