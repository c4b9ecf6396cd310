"""A propagator in OpenMM as the long runs beside a teacher have it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openmm
from ase import Atoms
from numpy.typing import NDArray
from openmm import unit

from equistride.engines.openmm import TrajCastIntegrator, create_system
from equistride.engines.openmm_structure import topology_from_ase
from equistride.units import ANGSTROM_PER_NM, FS_PER_PS

Array = NDArray[np.float64]


def strider(model: Path, atoms: Atoms, temperature: float, seed: int, **bath: Any) -> openmm.Context:
    """A Context of atoms with velocities at a temperature [K]; ``bath`` goes to the integrator."""
    topology, positions = topology_from_ase(atoms)
    integrator = TrajCastIntegrator(model, topology, temperature=temperature * unit.kelvin, seed=seed, **bath)
    context = openmm.Context(create_system(model, topology), integrator)
    context.setPositions(positions)
    context.setVelocitiesToTemperature(temperature * unit.kelvin, seed)
    return context


def frame_of(context: openmm.Context) -> tuple[Array, Array]:
    """Positions [N, 3] A, not wrapped, and velocities [N, 3] A/fs."""
    state = context.getState(positions=True, velocities=True)
    x, v = state.getPositions(asNumpy=True)._value, state.getVelocities(asNumpy=True)._value
    return x * ANGSTROM_PER_NM, v * (ANGSTROM_PER_NM / FS_PER_PS)
