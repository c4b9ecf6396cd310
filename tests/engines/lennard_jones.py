"""An artifact whose energy is that of LAMMPS's ``pair_style lj/cut``, so that LAMMPS itself says what is right."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from toy_artifact import PairPotential
from toy_metadata import toy_metadata

from equistride.artifact.export import save

SPECIES = ["O", "Si", "H"]
EPSILON = [0.020, 0.015, 0.010]
"""eV, of each element; pairs have the geometric mean."""
SIGMA = [2.2, 2.5, 2.0]
"""A, of each element; pairs have the arithmetic mean."""
CUTOFF = 4.5  # A


class LennardJones(PairPotential):
    """E_i = 1/2 sum_j 4 eps_ij [(sigma_ij / r)^12 - (sigma_ij / r)^6], cut off without a shift."""

    def __init__(self) -> None:
        super().__init__(CUTOFF, torch.float64)
        self.register_buffer("epsilon", torch.tensor(EPSILON, dtype=torch.float64))
        self.register_buffer("sigma", torch.tensor(SIGMA, dtype=torch.float64))

    def atomic_energies(self, vectors: Tensor, species: Tensor, edge_index: Tensor) -> Tensor:
        """Return energies [N] from r_ij [E, 3]."""
        i, j = species[edge_index[0]], species[edge_index[1]]
        x6 = (0.5 * (self.sigma[i] + self.sigma[j]) / torch.linalg.vector_norm(vectors, dim=1)) ** 6
        pair = 2.0 * torch.sqrt(self.epsilon[i] * self.epsilon[j]) * (x6 * x6 - x6)
        return torch.zeros(species.size(0), dtype=vectors.dtype).index_add(0, edge_index[0], pair)


def write(path: Path) -> Path:
    """Write the artifact."""
    save(LennardJones(), toy_metadata(SPECIES, CUTOFF), path)
    return path


def lammps_pair(hybrid: str = "") -> str:
    """Return the same potential as LAMMPS's own, for as many atom types as elements."""
    lines = [f"pair_style {hybrid}lj/cut {CUTOFF}"]
    for i in range(len(SPECIES)):
        for j in range(i, len(SPECIES)):
            epsilon, sigma = (EPSILON[i] * EPSILON[j]) ** 0.5, 0.5 * (SIGMA[i] + SIGMA[j])
            lines.append(f"pair_coeff {i + 1} {j + 1} {epsilon:.17g} {sigma:.17g}")
    return "\n".join(lines) + "\n"
