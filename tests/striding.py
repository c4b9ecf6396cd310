"""A propagator in OpenMM, as tests of the released ones let it stride."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openmm
from ase import Atoms
from openmm import unit

from equistride.engines.openmm import TrajCastIntegrator, create_system
from equistride.engines.openmm_structure import topology_from_ase


def looks(path: Path, atoms: Atoms, count: int, temperature: float = 300.0) -> Iterator[Any]:
    """Yield States with energies and positions, each ten strides after the last, from velocities at a temperature [K]."""
    topology, positions = topology_from_ase(atoms)
    integrator = TrajCastIntegrator(path, topology, temperature=temperature * unit.kelvin, seed=2)
    context = openmm.Context(create_system(path, topology), integrator)
    context.setPositions(positions)
    context.setVelocitiesToTemperature(temperature * unit.kelvin, 2)
    for _ in range(count):
        integrator.step(10)
        yield context.getState(energy=True, positions=True)
