"""SPC/Fw water (Wu, Tepper, Voth, J. Chem. Phys. 124, 024503 (2006)) in OpenMM: an ASE calculator, and boxes to begin with.

python spc_fw.py water64.extxyz           # 64 molecules at 300 K after 100 ps: five minutes
equistride distil water64.extxyz --teacher spc_fw.py:water ...
"""

from __future__ import annotations

import sys
from typing import Any, ClassVar

import numpy as np
import openmm
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.io import write
from openmm import unit
from scipy.spatial.transform import Rotation

from equistride.units import AVOGADRO, EV_PER_KJ_MOL, KJ_PER_KCAL

NM = 0.1
"""1 A in nm."""
LENGTH, STRETCHING = 0.1012, 1059.162 * KJ_PER_KCAL * 100
"""Of O-H: nm, kJ/mol/nm^2."""
ANGLE, BENDING = np.radians(113.24), 75.90 * KJ_PER_KCAL
"""Of H-O-H: radian, kJ/mol/radian^2."""
CHARGE, SIGMA, EPSILON = -0.82, 0.3165492, 0.1554253 * KJ_PER_KCAL
"""Of O: e, nm, kJ/mol. Each H has half of the opposite charge."""
CUTOFF, SWITCH = 0.6, 0.5
"""nm; charges act beyond it by PME. Shorter than usual, so that a box of 64 molecules has the forces of a large one."""
MASSES = (15.999, 1.008, 1.008)
DENSITY = 0.997
"""g/cm^3."""
EQUILIBRATION_PS = 100.0
TIMESTEP_PS = 0.0005


def system_of(atoms: Atoms) -> openmm.System:
    """Return the OpenMM System of a periodic box of molecules, each in the order O, H, H."""
    if len(atoms) % 3 or not (atoms.numbers.reshape(-1, 3) == [8, 1, 1]).all() or not atoms.pbc.all():
        raise ValueError("a periodic box of water is needed, each molecule in the order O, H, H")
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors(*atoms.cell.array * NM)
    bonds, angles, pairs = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce(), openmm.NonbondedForce()
    for first in range(0, len(atoms), 3):
        for k, mass in enumerate(MASSES):
            system.addParticle(mass)
            pairs.addParticle(-0.5 * CHARGE if k else CHARGE, SIGMA, 0.0 if k else EPSILON)
        for k in (1, 2):
            bonds.addBond(first, first + k, LENGTH, STRETCHING)
            pairs.addException(first, first + k, 0.0, SIGMA, 0.0)
        pairs.addException(first + 1, first + 2, 0.0, SIGMA, 0.0)
        angles.addAngle(first + 1, first, first + 2, ANGLE, BENDING)
    pairs.setNonbondedMethod(openmm.NonbondedForce.PME)
    pairs.setCutoffDistance(CUTOFF)
    pairs.setUseSwitchingFunction(True)
    pairs.setSwitchingDistance(SWITCH)
    pairs.setEwaldErrorTolerance(1e-5)
    pairs.setUseDispersionCorrection(False)
    for force in (bonds, angles, pairs):
        system.addForce(force)
    return system


def context_of(atoms: Atoms, integrator: openmm.Integrator, threads: int = 1) -> openmm.Context:
    """Return an OpenMM Context of a box on CPU threads, with its positions."""
    platform = openmm.Platform.getPlatformByName("CPU")
    context = openmm.Context(system_of(atoms), integrator, platform, {"Threads": str(threads)})
    context.setPositions(atoms.positions * NM)
    return context


class SPCFw(Calculator):
    """Energies [eV] and forces [eV/A] of boxes of water."""

    implemented_properties: ClassVar[list[str]] = ["energy", "forces"]

    def __init__(self) -> None:
        super().__init__()
        self._context: openmm.Context | None = None

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        """Evaluate; see :class:`ase.calculators.calculator.Calculator`."""
        super().calculate(atoms, properties, system_changes)
        if self._context is None or self._context.getSystem().getNumParticles() != len(self.atoms):
            self._context = context_of(self.atoms, openmm.VerletIntegrator(TIMESTEP_PS))
        self._context.setPeriodicBoxVectors(*self.atoms.cell.array * NM)
        self._context.setPositions(self.atoms.positions * NM)
        state = self._context.getState(energy=True, forces=True)
        forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
        energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
        self.results = {"energy": energy * EV_PER_KJ_MOL, "forces": np.asarray(forces) * NM * EV_PER_KJ_MOL}


def water() -> SPCFw:
    """Return the calculator, for ``equistride distil --teacher spc_fw.py:water``."""
    return SPCFw()


def grid(molecules: int, seed: int = 1) -> Atoms:
    """Return molecules on a cubic grid at the density of water, each turned at random."""
    edge = (molecules * sum(MASSES) / (1e-24 * AVOGADRO * DENSITY)) ** (1 / 3)
    side = int(np.ceil(molecules ** (1 / 3) - 1e-9))
    places = np.stack(np.meshgrid(*3 * [np.arange(side)], indexing="ij"), -1).reshape(-1, 3)[:molecules] + 0.5
    across, along = LENGTH / NM * np.sin(ANGLE / 2), LENGTH / NM * np.cos(ANGLE / 2)
    shape = np.array([[0.0, 0.0, 0.0], [across, along, 0.0], [-across, along, 0.0]])
    turns = Rotation.random(molecules, random_state=seed).as_matrix()
    positions = places[:, None] * edge / side + np.einsum("mij,kj->mki", turns, shape)
    return Atoms("OHH" * molecules, positions.reshape(-1, 3), cell=3 * [edge], pbc=True)


def liquid(molecules: int = 64, time_ps: float = EQUILIBRATION_PS) -> Atoms:
    """Return a box of liquid water after so long at 300 K."""
    atoms = grid(molecules)
    integrator = openmm.LangevinMiddleIntegrator(300.0, 2.0, TIMESTEP_PS)
    integrator.setRandomNumberSeed(1)
    context = context_of(atoms, integrator)
    openmm.LocalEnergyMinimizer.minimize(context, 10.0)
    context.setVelocitiesToTemperature(300.0, 1)
    integrator.step(round(time_ps / TIMESTEP_PS))
    atoms.positions = context.getState(positions=True).getPositions(asNumpy=True).value_in_unit(unit.angstrom)
    return atoms


if __name__ == "__main__":
    write(sys.argv[1], liquid(*map(int, sys.argv[2:3])))
