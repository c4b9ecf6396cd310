"""Quartz at 30 fs a step: an ordinary OpenMM script with a trained propagator."""

import sys

from openmm import unit
from openmm.app import DCDReporter, Simulation, StateDataReporter

from equistride.data.quartz import quartz
from equistride.engines.openmm import TrajCastIntegrator, create_system
from equistride.engines.openmm_structure import topology_from_ase

model = sys.argv[1] if len(sys.argv) > 1 else "models/quartz-trajcast-30fs/quartz-trajcast-30fs.pt"
strides = int(sys.argv[2]) if len(sys.argv) > 2 else 100

topology, positions = topology_from_ase(quartz((9, 9, 6)))  # 4,374 atoms
integrator = TrajCastIntegrator(model, topology, temperature=300 * unit.kelvin, seed=1)
simulation = Simulation(topology, create_system(model, topology), integrator)
simulation.context.setPositions(positions)
simulation.context.setVelocitiesToTemperature(300 * unit.kelvin, 1)
simulation.reporters += [
    DCDReporter("quartz.dcd", 10),
    StateDataReporter(sys.stdout, 10, step=True, time=True, temperature=True, speed=True),
]
simulation.step(strides)
