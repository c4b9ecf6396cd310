"""Contexts and Simulations under a propagator, and what is read from them; A, A/fs, eV."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import openmm
from ase import Atoms
from numpy.typing import NDArray
from openmm import app
from trajcast_systems import Frame, cluster, crystal

from equistride.engines.openmm import TrajCastIntegrator, create_system
from equistride.engines.openmm_structure import topology_from_ase
from equistride.units import BOLTZMANN, EV_PER_KINETIC

Array = NDArray[np.float64]
SYMBOLS = np.array(["O", "Si"])


class Moving(NamedTuple):
    """Positions, velocities, box [3, 3] (zeros where there is none), time [ps]."""

    positions: Array
    velocities: Array
    box: Array
    time: float


def atoms_of(frame: Frame) -> Atoms:
    """Return a frame as ASE's atoms, with its velocities left out."""
    box = frame.cell.numpy()
    return Atoms(SYMBOLS[frame.species], positions=frame.positions.numpy(), cell=box, pbc=bool(box.any()))


def bulk() -> Atoms:
    """27 atoms in a skewed cell."""
    return atoms_of(crystal())


def molecule() -> Atoms:
    """14 atoms without a cell."""
    return atoms_of(cluster())


def context_of(
    artifact: Path, atoms: Atoms, *, platform: str = "Reference", system: openmm.System | None = None, **options: Any
) -> openmm.Context:
    """Return a Context with thermal velocities (300 K, seed 5)."""
    topology, positions = topology_from_ase(atoms)
    integrator = TrajCastIntegrator(artifact, topology, **options)
    system = system or create_system(artifact, topology)
    made = openmm.Context(system, integrator, openmm.Platform.getPlatformByName(platform))
    made.setPositions(positions)
    made.setVelocitiesToTemperature(300, 5)
    return made


def simulation_of(artifact: Path, atoms: Atoms, **options: Any) -> app.Simulation:
    """Return a Simulation with thermal velocities."""
    topology, positions = topology_from_ase(atoms)
    integrator = TrajCastIntegrator(artifact, topology, **options)
    made = app.Simulation(
        topology, create_system(artifact, topology), integrator, openmm.Platform.getPlatformByName("Reference")
    )
    made.context.setPositions(positions)
    made.context.setVelocitiesToTemperature(300, 5)
    return made


def moving(made: openmm.Context) -> Moving:
    """Read a Context."""
    state = made.getState(positions=True, velocities=True)
    box = np.array(state.getPeriodicBoxVectors(asNumpy=True)._value) * 10
    periodic = TrajCastIntegrator.cast(made.getIntegrator()).usesPeriodicBoundaryConditions()
    return Moving(
        state.getPositions(asNumpy=True)._value * 10,
        state.getVelocities(asNumpy=True)._value / 100,
        box if periodic else np.zeros((3, 3)),
        state.getTime()._value,
    )


def masses_of(made: openmm.Context) -> Array:
    """Masses [N, 1] amu."""
    system = made.getSystem()
    return np.array([[system.getParticleMass(i)._value] for i in range(system.getNumParticles())])


def same_bits(first: openmm.Context, second: openmm.Context) -> bool:
    """Tell whether two Contexts agree bit for bit."""
    return all(np.array_equal(a, b) for a, b in zip(moving(first), moving(second), strict=True))


def angular_momentum(now: Moving, masses: Array) -> Array:
    """L [3] about the centre of mass."""
    arms = now.positions - (masses * now.positions).sum(0) / masses.sum()
    return np.cross(arms, masses * now.velocities).sum(0)


def temperature(velocities: Array, masses: Array, degrees: int) -> float:
    """Kinetic temperature [K]."""
    return float((masses * velocities**2).sum() * EV_PER_KINETIC / degrees / BOLTZMANN)
