"""Energy, forces and virial of a network that gives atomic energies from edge vectors."""

import torch
from torch import Tensor, nn

from equistride.errors import EquistrideError


def edge_vectors(positions: Tensor, cell: Tensor, edge_index: Tensor, shifts: Tensor) -> Tensor:
    """Return r_j - r_i + shifts @ cell [E, 3]; the form of every exported model, without an operator of ours.

    No matrix product: where torch may round those to TF32, 10 A would be wrong by 0.005 A.
    """
    along_a, along_b, along_c = shifts.to(cell.dtype).unbind(1)
    offset = along_a[:, None] * cell[0] + along_b[:, None] * cell[1] + along_c[:, None] * cell[2]
    return positions.index_select(0, edge_index[1]) - positions.index_select(0, edge_index[0]) + offset


def forces_from_edges(gradient: Tensor, edge_index: Tensor, num_atoms: int) -> Tensor:
    """Return forces [N, 3] from the energy's gradient to the edge vectors [E, 3]."""
    forces = gradient.new_zeros(num_atoms, 3).index_add(0, edge_index[0], gradient)
    return forces.index_add(0, edge_index[1], -gradient)


class GradientPotential(nn.Module):
    """A potential whose forces and virial are one gradient of its ``atomic_energies(vectors, species, edge_index)``.

    Notes
    -----
    The forces come from the gradient to the edge vectors, g_ij = dE/dr_ij: F_i = sum_j g_ij - sum_j g_ji, and the virial is
    -sum r_ij (x) g_ij, which is the strain derivative and needs no other pass.
    """

    def forward(
        self, positions: Tensor, species: Tensor, cell: Tensor, edge_index: Tensor, shifts: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return atomic energies [N] (eV, float64), forces [N, 3] (eV/A) and virial [3, 3] (eV).

        Parameters
        ----------
        positions [N, 3], cell [3, 3]
            A.
        species [N]
            int64 indices into the species list.
        edge_index [2, E], shifts [E, 3]
            Neighbour list: receiver, sender; whole lattice vectors from the one to the other.
        """
        vectors = edge_vectors(positions, cell, edge_index, shifts).detach().requires_grad_(True)
        energies = self.atomic_energies(vectors, species, edge_index)  # type: ignore[operator]
        gradient = torch.autograd.grad([energies.sum()], [vectors])[0]
        if gradient is None:
            raise RuntimeError("the energy does not depend on the edges")
        vectors = vectors.detach()
        forces = forces_from_edges(gradient, edge_index, positions.size(0))
        virial = -torch.matmul(vectors.t(), gradient)
        return energies.detach(), forces, virial


class ConservativePotential(GradientPotential):
    """A potential: E = sum of atomic energies, forces = -dE/dr, virial = -dE/d(strain), all by one gradient.

    Parameters
    ----------
    network
        Module with ``forward(vectors [E, 3], species [N], edge_index [2, E]) -> [N]``.
    species
        Element symbols, in the order of the species index.
    cutoff
        Cutoff radius [A].
    scale
        Energy of one unit of the network's output [eV].
    references
        Energy of each element [eV], added to its atoms.
    """

    references: list[float]
    reference_parts: Tensor

    def __init__(
        self, network: nn.Module, species: list[str], cutoff: float, scale: float, references: list[float]
    ) -> None:
        super().__init__()
        if len(references) != len(species):
            raise EquistrideError(
                "each element needs one reference energy", expected=len(species), found=len(references)
            )
        self.network = network
        self.species, self.cutoff = species, cutoff
        self.scale = float(scale)
        self.references = [float(e) for e in references]
        # three numbers of 24 bits each, which stay what they are where all buffers become float32; their sum is exact
        parts, left = [], torch.tensor(self.references, dtype=torch.float64)
        for _ in range(3):
            parts.append(left.float().double())
            left = left - parts[-1]
        self.register_buffer("reference_parts", torch.stack(parts), persistent=False)

    def atomic_energies(self, vectors: Tensor, species: Tensor, edge_index: Tensor) -> Tensor:
        """Return atomic energies [N] in eV, double precision."""
        return self.in_ev(self.network(vectors, species, edge_index), species)

    def in_ev(self, out: Tensor, species: Tensor) -> Tensor:
        """Return the network's atomic energies [N] in eV with the elements' references, double precision."""
        references = self.reference_parts.double().sum(0)
        return out.double() * self.scale + references.index_select(0, species)


class DirectPotential(ConservativePotential):
    """Forces from a head of the network, as in pretraining; they are the gradient of no energy, and no integrator conserves it.

    The network is an :class:`equistride.models.esen.ESEN` with ``forces: direct``. The virial is that of the energy, by its
    gradient.
    """

    def energies_and_forces(self, vectors: Tensor, species: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
        """Return atomic energies [N] (eV, float64) and forces [N, 3] (eV/A)."""
        edges = self.network.edges(vectors, species, edge_index)  # type: ignore[operator]
        features = self.network.features(species, edges)  # type: ignore[operator]
        energies = self.in_ev(self.network.energies(features), species)  # type: ignore[operator]
        return energies, self.network.direct_forces(features) * self.scale  # type: ignore[operator]

    def forward(
        self, positions: Tensor, species: Tensor, cell: Tensor, edge_index: Tensor, shifts: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return atomic energies, forces and virial as :meth:`ConservativePotential.forward` does."""
        vectors = edge_vectors(positions, cell, edge_index, shifts).detach().requires_grad_(True)
        energies, forces = self.energies_and_forces(vectors, species, edge_index)
        gradient = torch.autograd.grad([energies.sum()], [vectors])[0]
        if gradient is None:
            raise RuntimeError("the energy does not depend on the edges")
        return energies.detach(), forces.detach(), -torch.matmul(vectors.detach().t(), gradient)
