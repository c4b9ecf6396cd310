"""A potential with dispersion added, which reaches farther than its network."""

from torch import Tensor, nn

from equistride.models.potential import GradientPotential
from equistride.nn.dispersion import Dispersion


class DispersedPotential(GradientPotential):
    """The sum of a potential and of dispersion; one list of neighbours serves both, of which the potential gets the near ones.

    Parameters
    ----------
    potential
        Module with ``atomic_energies(vectors, species, edge_index) -> [N]``, eV.
    near
        Its cutoff [A].
    dispersion
        What is added, with the longer cutoff.
    """

    def __init__(self, potential: nn.Module, near: float, dispersion: Dispersion) -> None:
        super().__init__()
        self.potential, self.dispersion = potential, dispersion
        self.near, self.cutoff = float(near), dispersion.reach
        self.narrows = True  # its parts see a choice of the edges, whose number a GPU does not know beforehand

    def atomic_energies(self, vectors: Tensor, species: Tensor, edge_index: Tensor) -> Tensor:
        """Return atomic energies [N] in eV, double precision."""
        chosen = (vectors.detach().square().sum(1) < self.near * self.near).nonzero().squeeze(1)
        energies = self.potential.atomic_energies(  # type: ignore[operator]
            vectors.index_select(0, chosen), species, edge_index.index_select(1, chosen)
        )
        return energies.double() + self.dispersion(vectors, species, edge_index).double()
