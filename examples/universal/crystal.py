"""A crystal under a universal potential: relaxed, then molecular dynamics in OpenMM, then a data file for LAMMPS."""

import sys

from ase.build import bulk, make_supercell
from ase.filters import FrechetCellFilter
from ase.io import read, write
from ase.optimize import BFGS
from openmm import LangevinMiddleIntegrator, unit
from openmm.app import Simulation, StateDataReporter

from equistride.engines.ase import EquistrideCalculator
from equistride.engines.openmm import create_system
from equistride.engines.openmm_structure import topology_from_ase

model = sys.argv[1] if len(sys.argv) > 1 else "potential.pt"
atoms = read(sys.argv[2]) if len(sys.argv) > 2 and sys.argv[2] != "-" else bulk("MgO", "rocksalt", 4.21, cubic=True)
steps = int(sys.argv[3]) if len(sys.argv) > 3 else 200

atoms.calc = EquistrideCalculator(model)
BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=0.01, steps=200)
print("lattice", *(f"{x:.4f}" for x in atoms.cell.cellpar()), "energy", f"{atoms.get_potential_energy():.6f} eV")

copies = [max(1, round(10.0 / length)) for length in atoms.cell.lengths()]  # some 10 A each way
crystal = make_supercell(atoms, [[copies[0], 0, 0], [0, copies[1], 0], [0, 0, copies[2]]])
crystal.set_cell(crystal.cell.standard_form()[0], scale_atoms=True)  # lower triangular, as both engines want it
topology, positions = topology_from_ase(crystal)
bath = LangevinMiddleIntegrator(300 * unit.kelvin, 5 / unit.picosecond, 1 * unit.femtosecond)
simulation = Simulation(topology, create_system(model, topology), bath)
simulation.context.setPositions(positions)
simulation.context.setVelocitiesToTemperature(300 * unit.kelvin, 1)
report = StateDataReporter(sys.stdout, max(1, steps // 5), step=True, potentialEnergy=True, temperature=True)
simulation.reporters.append(report)
simulation.step(steps)

write("crystal.data", crystal, format="lammps-data", specorder=sorted(set(crystal.get_chemical_symbols())), masses=True)
