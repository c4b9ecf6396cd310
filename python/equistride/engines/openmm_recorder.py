"""Record an OpenMM run as a trajectory for analysis, in angstrom, fs and eV."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from openmm import unit

from equistride.units import ANGSTROM_PER_NM, EV_PER_KJ_MOL, FS_PER_PS

Array = NDArray[np.float64]


Frame = tuple[float, float, float, Array, Array, Array]
"""Time [fs], potential and kinetic energy [eV], positions [N, 3] A, velocities [N, 3] A/fs, cell [3, 3] A."""


def in_angstrom(state: Any) -> Frame:
    """Return what a State with positions, velocities and energies holds, in our units."""
    speed = unit.nanometer / unit.picosecond
    return (
        state.getTime().value_in_unit(unit.picosecond) * FS_PER_PS,
        state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole) * EV_PER_KJ_MOL,
        state.getKineticEnergy().value_in_unit(unit.kilojoule_per_mole) * EV_PER_KJ_MOL,
        state.getPositions(asNumpy=True).value_in_unit(unit.nanometer) * ANGSTROM_PER_NM,
        state.getVelocities(asNumpy=True).value_in_unit(speed) * (ANGSTROM_PER_NM / FS_PER_PS),
        state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer) * ANGSTROM_PER_NM,
    )


class Recorder:
    """A reporter for ``openmm.app.Simulation`` that keeps frames in memory.

    Parameters
    ----------
    interval
        Steps between frames.

    Attributes
    ----------
    time_fs, potential_energy, kinetic_energy [F]
        fs and eV. The kinetic energy is OpenMM's, at the time of the positions.
    positions, velocities [F, N, 3]
        A (unwrapped) and A/fs, as the Context gives them: those of OpenMM's leapfrog integrators are half a step old.
    cells [F, 3, 3]
        A.
    """

    def __init__(self, interval: int) -> None:
        self.interval = interval
        self._frames: list[Frame] = []

    def describeNextReport(self, simulation: Any) -> dict[str, Any]:
        """Tell OpenMM when the next frame is due and what it needs."""
        steps = self.interval - simulation.currentStep % self.interval
        return {"steps": steps, "periodic": False, "include": ["positions", "velocities", "energy"]}

    def report(self, simulation: Any, state: Any) -> None:
        """Keep one frame."""
        self._frames.append(in_angstrom(state))

    def __len__(self) -> int:
        return len(self._frames)

    def _column(self, k: int) -> Array:
        return np.array([frame[k] for frame in self._frames])

    @property
    def time_fs(self) -> Array:
        """Times [F] in fs."""
        return self._column(0)

    @property
    def potential_energy(self) -> Array:
        """Potential energies [F] in eV."""
        return self._column(1)

    @property
    def kinetic_energy(self) -> Array:
        """Kinetic energies [F] in eV."""
        return self._column(2)

    @property
    def positions(self) -> Array:
        """Positions [F, N, 3] in A."""
        return self._column(3)

    @property
    def velocities(self) -> Array:
        """Velocities [F, N, 3] in A/fs."""
        return self._column(4)

    @property
    def cells(self) -> Array:
        """Cells [F, 3, 3] in A."""
        return self._column(5)
