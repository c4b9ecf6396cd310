"""Quartz under a trained potential: an ordinary OpenMM script."""

import sys

from openmm import LangevinMiddleIntegrator, VerletIntegrator, unit
from openmm.app import DCDReporter, Simulation, StateDataReporter

from equistride.data.quartz import quartz
from equistride.engines.openmm import create_system
from equistride.engines.openmm_structure import topology_from_ase

model = sys.argv[1] if len(sys.argv) > 1 else "models/quartz-esen/quartz-esen.pt"
steps = int(sys.argv[2]) if len(sys.argv) > 2 else 1000

topology, positions = topology_from_ase(quartz((3, 3, 2)))
system = create_system(model, topology)

bath = LangevinMiddleIntegrator(300 * unit.kelvin, 5 / unit.picosecond, 1 * unit.femtosecond)
warm = Simulation(topology, system, bath)
warm.context.setPositions(positions)
warm.context.setVelocitiesToTemperature(600 * unit.kelvin, 1)  # half of it goes into the bonds
warm.step(steps)

simulation = Simulation(topology, system, VerletIntegrator(1 * unit.femtosecond))
simulation.context.setState(warm.context.getState(positions=True, velocities=True))
simulation.reporters += [
    DCDReporter("quartz.dcd", 10),
    StateDataReporter(sys.stdout, 100, step=True, totalEnergy=True, temperature=True, speed=True),
]
simulation.step(steps)
