"""What the loop asks of an engine, and what one moment of a simulation is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from equistride.units import BOLTZMANN

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Moment:
    """One moment: positions [N, 3] A (unwrapped), velocities [N, 3] A/fs, cell [3, 3] A (zeros without a box), energies [eV].

    The potential energy of a propagator is nan: it knows none.
    """

    positions: Array
    velocities: Array
    cell: Array
    potential: float
    kinetic: float

    @property
    def temperature(self) -> float:
        """K, over 3N - 3 degrees of freedom."""
        return 2 * self.kinetic / (max(3 * len(self.positions) - 3, 1) * BOLTZMANN)


class Engine(Protocol):
    """A structure that an engine moves; on many processes each has one, and all do the same."""

    @property
    def leads(self) -> bool:
        """Whether this process writes; the others compute only."""

    def step(self, steps: int) -> None:
        """Move the atoms by so many steps."""

    def moment(self) -> Moment:
        """Return the present moment."""

    def agree(self, stop: bool) -> bool:
        """Whether any process wants to stop."""

    def state(self) -> bytes:
        """Return all that going on from here needs."""

    def restore(self, state: bytes, step: int) -> None:
        """Go on from a state."""

    def minimise(self, max_force: float, steps: int) -> None:
        """Move the atoms to the nearest minimum of the energy, in the cell as it is."""

    def forces(self) -> Array:
        """Return the forces of a potential [N, 3] eV/A."""

    def stress(self) -> Array | None:
        """Return the stress of a potential [3, 3] eV/A^3, positive under tension, in a box; None where the engine gives none."""
