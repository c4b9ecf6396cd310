"""Molecular dynamics of any ASE calculator, with the interface of :class:`equistride.data.lammps.LammpsRun`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary
from ase.md.verlet import VelocityVerlet
from numpy.typing import NDArray

from equistride.data.labels import virial_of_stress
from equistride.data.lammps import Snapshot

Array = NDArray[np.float64]


class CalculatorRun:
    """Atoms that ASE's velocity Verlet and Langevin dynamics move.

    Parameters
    ----------
    atoms
        The system; it is not changed.
    calculator
        Energy and forces; the stress too where it has one.
    timestep_fs
        Step.
    """

    def __init__(self, atoms: Atoms, calculator: Calculator, timestep_fs: float) -> None:
        self._atoms, self._step = atoms.copy(), timestep_fs * units.fs
        self._atoms.calc = calculator
        self._stress = atoms.cell.rank == 3 and "stress" in calculator.implemented_properties

    def place(self, positions: Array, velocities: Array | None = None) -> None:
        """Move the atoms to ``positions`` [N, 3] A, with new velocities [N, 3] A/fs if given."""
        self._atoms.positions = positions
        if velocities is not None:
            self._atoms.set_velocities(velocities / units.fs)

    def thermalise(self, temperature: float, steps: int, *, damping_fs: float, seed: int, fresh: bool = False) -> None:
        """Run Langevin dynamics at ``temperature`` [K]; ``fresh`` draws velocities of twice that first.

        The drift of the centre of mass is removed at the end.
        """
        random = np.random.RandomState(seed)
        if fresh:
            MaxwellBoltzmannDistribution(self._atoms, temperature_K=2 * temperature, rng=random)
        if steps:
            self._bath(temperature, damping_fs, random).run(steps)
        Stationary(self._atoms, preserve_temperature=False)

    def nve(self, steps: int) -> Snapshot:
        """Advance ``steps`` of velocity Verlet (0: evaluate only) and return the frame."""
        if steps:
            VelocityVerlet(self._atoms, self._step).run(steps)
        return self._snapshot(np.zeros(3))

    def langevin(
        self, temperature: float, frames: int, every: int, *, damping_fs: float, seed: int
    ) -> Iterator[Snapshot]:
        """Run Langevin dynamics at ``temperature`` [K] and yield a frame every so many steps.

        Frames are seen from the centre of mass, which the bath moves; with friction in proportion to the masses the motion about
        it is the same.
        """
        bath = self._bath(temperature, damping_fs, np.random.RandomState(seed))
        start = self._atoms.get_center_of_mass()
        for _ in range(frames):
            bath.run(every)
            yield self._snapshot(self._atoms.get_center_of_mass() - start, still=True)

    def close(self) -> None:
        """There is nothing to end."""

    def _bath(self, temperature: float, damping_fs: float, random: np.random.RandomState) -> Langevin:
        friction = 1.0 / (damping_fs * units.fs)
        return Langevin(
            self._atoms, self._step, temperature_K=temperature, friction=friction, rng=random, fixcm=False
        )  # fmt: skip

    def _snapshot(self, moved: Array, still: bool = False) -> Snapshot:
        atoms = self._atoms
        velocities = atoms.get_velocities() * units.fs
        if still:
            velocities = velocities - np.average(velocities, axis=0, weights=atoms.get_masses())
        virial = np.full((3, 3), np.nan)
        if self._stress:
            virial = virial_of_stress(atoms.get_stress(voigt=False), atoms.cell.array)
        return Snapshot(
            positions=atoms.positions - moved, velocities=velocities, forces=atoms.get_forces(),
            energy=float(atoms.get_potential_energy()), virial=virial,
        )  # fmt: skip
