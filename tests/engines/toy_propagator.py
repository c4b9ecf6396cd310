"""Propagators that are no networks: mechanics under the toy potential, exact or spoilt, and free flight."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from toy_artifact import CUTOFF, SPECIES, PairPotential
from toy_metadata import toy_metadata

from equistride.artifact.export import save
from equistride.models.propagator import Propagator
from equistride.units import ACCELERATION

MASSES = [1.008, 15.999, 28.085]  # amu
STRIDE, SUBSTEPS = 4.0, 8  # fs, velocity-Verlet steps in it
REACH = 12.0  # A: all pairs of a small molecule
MAX_SPEED = 0.2  # A/fs


class Mechanics(nn.Module):
    """Velocity Verlet under the toy potential, over the edges of the start; then velocities times ``factor``.

    With ``free`` the atoms fly on without forces.
    """

    def __init__(self, factor: float = 1.0, free: bool = False) -> None:
        super().__init__()
        self.potential = PairPotential(REACH, torch.float64)
        self.factor, self.free, self.stride, self.substeps = factor, free, STRIDE, SUBSTEPS
        self.max_speed = MAX_SPEED
        self.unit = ACCELERATION
        self.register_buffer("masses", torch.tensor(MASSES, dtype=torch.float64))

    def forward(
        self, positions: Tensor, velocities: Tensor, species: Tensor, cell: Tensor, edge_index: Tensor, shifts: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Obey the contract of a propagator."""
        if float(torch.linalg.vector_norm(velocities, dim=1).max()) > self.max_speed:
            raise ValueError("an atom is too fast for the toy")
        if self.free:
            return velocities * self.stride, velocities * self.factor
        h = self.stride / self.substeps
        inverse = self.unit / self.masses[species][:, None]
        now, v = positions, velocities
        forces = self.potential(now, species, cell, edge_index, shifts)[1]
        for _ in range(self.substeps):
            v = v + 0.5 * h * forces * inverse
            now = now + h * v
            forces = self.potential(now, species, cell, edge_index, shifts)[1]
            v = v + 0.5 * h * forces * inverse
        return now - positions, v * self.factor


def write_propagator(path: Path, factor: float = 1.0, free: bool = False) -> Path:
    """Write such a propagator; see ``Mechanics``."""
    facts = {"masses": MASSES, "stride_fs": STRIDE, "max_speed": MAX_SPEED, "ensemble": "NVE"}
    metadata = toy_metadata(SPECIES, REACH, kind="propagator", **facts)
    save(Mechanics(factor, free), metadata, path)
    return path


def write_potential(path: Path) -> Path:
    """Write the potential that the toy obeys."""
    save(PairPotential(REACH, torch.float64), toy_metadata(SPECIES, REACH, architecture="pair"), path)
    return path


class Flight(nn.Module):
    """A network that flies on, pulled by its neighbours, and multiplies velocities by ``factor``; of one layer."""

    def __init__(self, factor: float, pull: float) -> None:
        super().__init__()
        self.factor, self.pull, self.stride, self.cutoff = factor, pull, STRIDE, CUTOFF
        self.max_speed, self.checked = MAX_SPEED, True

    def forward(self, vectors: Tensor, velocities: Tensor, species: Tensor, edge_index: Tensor) -> Tensor:
        """Return displacements and velocities [N, 2, 3]."""
        fastest = float(velocities.square().sum(1).max()) ** 0.5 if velocities.size(0) > 0 else 0.0
        if self.checked and fastest > self.max_speed:
            raise ValueError("an atom is too fast for the toy")
        near = (1.0 - vectors.square().sum(1, keepdim=True) / self.cutoff**2).clamp(min=0.0)
        weight = 1.0 + species.to(vectors.dtype).index_select(0, edge_index[1])[:, None]
        kick = torch.zeros_like(velocities).index_add(0, edge_index[0], self.pull * weight * near**2 * vectors)
        now = velocities + 0.5 * kick
        return torch.stack([self.stride * now, self.factor * (now + 0.5 * kick)], dim=1)


def write_flight(path: Path, factor: float = 1.0, pull: float = 1e-5) -> Path:
    """Write a propagator with such a network, which keeps momenta and may be divided among processes."""
    facts = {"masses": MASSES, "stride_fs": STRIDE, "max_speed": MAX_SPEED, "ensemble": "NVE"}
    metadata = toy_metadata(SPECIES, CUTOFF, kind="propagator", **facts)
    made = Propagator(Flight(factor, pull), SPECIES, MASSES, CUTOFF, STRIDE, (1.0, 1.0)).double()
    save(made, metadata, path)
    return path
