"""London dispersion of D3 with the damping of Becke and Johnson, as a sum over pairs that needs no parameter of its own.

Grimme et al., J. Chem. Phys. 132, 154104 (2010); Grimme, Ehrlich & Goerigk, J. Comput. Chem. 32, 1456 (2011).
"""

from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from equistride.nn.exchange import exchange, local_rows, pad_to_all

STEEPNESS: Final = 16.0
"""k1 of the counting function."""
SHARPNESS: Final = 4.0
"""k3 of the weights of the reference systems."""


class Damping(NamedTuple):
    """Parameters of one functional: ``s6``, ``s8`` and ``a1`` have no unit, ``a2`` is in A."""

    s6: float
    s8: float
    a1: float
    a2: float


class References(NamedTuple):
    """What D3 knows of S elements, with at most R reference systems each.

    ``radii`` [S] covalent radii, by 4/3 larger, A; ``moments`` [S] roots of half the ratio of the fourth to the second moment
    times the root of the atomic number, A; ``counts`` [S, R] coordination numbers of the reference systems, below 0 where
    there are fewer; ``c6`` [S, R, S, R] their coefficients, eV A^6. float64.
    """

    radii: Tensor
    moments: Tensor
    counts: Tensor
    c6: Tensor


class Dispersion(nn.Module):
    """The two-body energy of D3(BJ); half of each pair's is each atom's. The term of three bodies is left out.

    ``-1/2 C6 (s6 / (r^6 + R^6) + s8 c / (r^8 + R^8))`` with ``c = C8 / C6 = 3 Q_i Q_j`` of the moments and
    ``R = a1 sqrt(c) + a2``. C6 follows from the coordination numbers of both atoms; so this is a message passing of two steps.

    Parameters
    ----------
    references, damping
        What belongs to elements and to a functional.
    cutoff
        Pairs and neighbours end there [A].
    width
        Over this length [A] before the cutoff both are switched off, with two derivatives; 0: at once.
    """

    bond: Tensor
    c8_per_c6: Tensor
    radius6: Tensor
    radius8: Tensor
    counts: Tensor
    missing: Tensor
    c6: Tensor
    kinds: Tensor

    def __init__(self, references: References, damping: Damping, cutoff: float, width: float) -> None:
        super().__init__()
        self.reach, self.width = float(cutoff), float(width)
        self.s6, self.s8, self.steepness, self.sharpness = float(damping.s6), float(damping.s8), STEEPNESS, SHARPNESS
        radii, moments = references.radii.double(), references.moments.double()
        present = references.counts >= 0
        most = int(present.sum(1).max())
        counts, c6 = references.counts[:, :most].double(), references.c6[:, :most, :, :most].double()
        self.num_species, self.num_references = len(radii), most
        ratio = 3.0 * (moments[:, None] * moments[None, :]).flatten()
        length = damping.a1 * ratio.sqrt() + damping.a2
        self.register_buffer("bond", (radii[:, None] + radii[None, :]).flatten())
        self.register_buffer("c8_per_c6", ratio)
        self.register_buffer("radius6", length.pow(6))
        self.register_buffer("radius8", length.pow(8))
        self.register_buffer("counts", counts)
        # a share of exp(-1e9) = 0 in the weights
        self.register_buffer("missing", torch.where(present[:, :most], 0.0, -1e9).double())
        self.register_buffer("c6", c6.reshape(len(radii) * most, len(radii) * most).contiguous())
        self.register_buffer("kinds", torch.eye(len(radii), dtype=torch.float64))

    def switch(self, r: Tensor) -> Tensor:
        """Return by how much pairs [E] at lengths ``r`` [E] in A count."""
        if self.width <= 0.0:
            return (r < self.reach).to(r.dtype)
        x = ((r - (self.reach - self.width)) / self.width).clamp(0.0, 1.0)
        return 1.0 - x * x * x * (10.0 - x * (15.0 - 6.0 * x))

    def forward(self, vectors: Tensor, species: Tensor, edge_index: Tensor) -> Tensor:
        """Return atomic energies [N] in eV.

        Parameters
        ----------
        vectors [E, 3]
            r_sender - r_receiver, A, of all pairs within the cutoff.
        species [N], edge_index [2, E]
            Element indices; receiver and sender of each edge.
        """
        receiver, sender = edge_index[0], edge_index[1]
        r = torch.linalg.vector_norm(vectors, dim=1)
        kind = species.index_select(0, receiver)
        pair = kind * self.num_species + species.index_select(0, sender)
        count = local_rows(species).size(0)
        switch = self.switch(r)
        bonded = switch * torch.sigmoid(self.steepness * (self.bond.to(r.dtype).index_select(0, pair) / r - 1.0))
        neighbors = exchange(r.new_zeros(count, 1).index_add(0, receiver, bonded[:, None]))
        deviation = neighbors - self.counts.to(r.dtype).index_select(0, species)
        logits = self.missing.to(r.dtype).index_select(0, species) - self.sharpness * deviation.square()
        weights = torch.softmax(logits, 1)
        placed = self.kinds.to(r.dtype).index_select(0, species)[:, :, None] * weights[:, None, :]
        # what an atom is worth to a reference system of each element: [N * S, R]
        offered = torch.matmul(placed.flatten(1), self.c6.to(r.dtype)).view(-1, self.num_references)
        c6 = weights.index_select(0, receiver) * offered.index_select(0, sender * self.num_species + kind)
        r2 = r.square()
        r6 = r2 * r2 * r2
        damped = self.s6 / (r6 + self.radius6.to(r.dtype).index_select(0, pair))
        eighth = self.c8_per_c6.to(r.dtype).index_select(0, pair) / (
            r6 * r2 + self.radius8.to(r.dtype).index_select(0, pair)
        )
        energies = -0.5 * c6.sum(1) * (damped + self.s8 * eighth) * switch
        return pad_to_all(r.new_zeros(count).index_add(0, receiver, energies), species)
