"""Velocity Verlet at constant energy in OpenMM and in ASE, with both energies at the time of the positions."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from ase import Atoms, units
from ase.calculators.calculator import Calculator

from equistride.cell import lower_triangular
from equistride.errors import EquistrideError
from equistride.units import ANGSTROM_PER_NM, EV_PER_KJ_MOL, FS_PER_PS

Sample = tuple[float, float, float]
"""Time [fs], potential and kinetic energy [eV]."""


class ASEVerlet:
    """Runs ASE's ``VelocityVerlet``.

    Parameters
    ----------
    calculator
        Any calculator with energy and forces.
    """

    name = "ase"

    def __init__(self, calculator: Calculator) -> None:
        self._calculator = calculator

    def __call__(self, atoms: Atoms, timestep: float, steps: int, interval: int) -> Iterator[Sample]:
        """Run ``steps`` of ``timestep`` [fs] from the atoms' positions and momenta; yield a sample every ``interval`` steps."""
        from ase.md.verlet import VelocityVerlet

        moving = atoms.copy()
        moving.calc = self._calculator
        yield 0.0, moving.get_potential_energy(), moving.get_kinetic_energy()
        dynamics = VelocityVerlet(moving, timestep=timestep * units.fs)
        for done in range(interval, steps + 1, interval):
            dynamics.run(interval)
            yield done * timestep, moving.get_potential_energy(), moving.get_kinetic_energy()


class OpenMMVerlet:
    """Runs velocity Verlet on OpenMM's Reference platform, which is in double precision throughout.

    Parameters
    ----------
    artifact
        Path of the potential.
    atoms
        The structure: elements, masses, periodicity.
    dtype
        ``"float64"`` or ``"float32"``: the precision of the network.

    Raises
    ------
    EquistrideError
        Where OpenMM or the model cannot take the structure.
    """

    name = "openmm"

    def __init__(self, artifact: str | os.PathLike[str], atoms: Atoms, dtype: str = "float64") -> None:
        from equistride.engines.openmm import create_system
        from equistride.engines.openmm_structure import topology_from_ase

        topology, _ = topology_from_ase(standard(atoms))
        precision: Any = dtype
        self._system = create_system(artifact, topology, device="cpu", precision=precision, remove_cm_motion=False)
        for index, mass in enumerate(atoms.get_masses()):
            self._system.setParticleMass(index, mass)

    def __call__(self, atoms: Atoms, timestep: float, steps: int, interval: int) -> Iterator[Sample]:
        """Run ``steps`` of ``timestep`` [fs] from the atoms' positions and momenta; yield a sample every ``interval`` steps."""
        import openmm
        from openmm import unit

        speed = ANGSTROM_PER_NM / FS_PER_PS  # 1 nm/ps in A/fs
        start = standard(atoms)
        integrator = velocity_verlet(timestep)
        context = openmm.Context(self._system, integrator, openmm.Platform.getPlatformByName("Reference"))
        try:
            context.setPositions(start.positions / ANGSTROM_PER_NM)
            context.setVelocities(start.get_velocities() * (units.fs / speed))
            state = context.getState(energy=True)
            both = [state.getPotentialEnergy(), state.getKineticEnergy()]
            potential, kinetic = (energy.value_in_unit(unit.kilojoule_per_mole) for energy in both)
            yield 0.0, potential * EV_PER_KJ_MOL, kinetic * EV_PER_KJ_MOL
            for done in range(interval, steps + 1, interval):
                integrator.step(interval)
                potential, kinetic = (integrator.getGlobalVariableByName(name) for name in ("potential", "kinetic"))
                yield done * timestep, potential * EV_PER_KJ_MOL, kinetic * EV_PER_KJ_MOL
        except openmm.OpenMMException as error:
            raise EquistrideError(" ".join(str(error).split())) from None


def standard(atoms: Atoms) -> Atoms:
    """Return atoms turned, with their momenta, so that a cell is lower triangular, as OpenMM needs it."""
    turned = atoms.copy()
    turned.calc = None
    if not atoms.pbc.any():
        return turned
    if atoms.cell.rank < 3:
        raise EquistrideError(
            "a periodic structure needs a cell",
            expected="three lattice vectors",
            found=f"a cell of rank {atoms.cell.rank}",
        )
    cell, rotation = lower_triangular(atoms.cell.array)
    turned.set_cell(cell)
    turned.positions = atoms.positions @ rotation
    turned.set_momenta(atoms.get_momenta() @ rotation)
    return turned


def velocity_verlet(timestep: float) -> Any:
    """Return an OpenMM integrator whose velocities belong to the time of the positions.

    Parameters
    ----------
    timestep
        fs.

    Returns
    -------
    openmm.CustomIntegrator
        Its global variables ``potential`` and ``kinetic`` [kJ/mol] are those of the last step, at no further evaluation.
    """
    import openmm

    integrator = openmm.CustomIntegrator(timestep / FS_PER_PS)
    for name in ("potential", "kinetic"):
        integrator.addGlobalVariable(name, 0.0)
    integrator.addUpdateContextState()
    integrator.addComputePerDof("v", "v + 0.5 * dt * f / m")
    integrator.addComputePerDof("x", "x + dt * v")
    integrator.addComputePerDof("v", "v + 0.5 * dt * f / m")
    integrator.addComputeGlobal("potential", "energy")
    integrator.addComputeSum("kinetic", "0.5 * m * v * v")
    return integrator
