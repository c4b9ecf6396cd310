"""A simulation in OpenMM."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import openmm
from ase import Atoms, units
from openmm import unit

from equistride.artifact.metadata import Metadata
from equistride.engines.barostat import guard_and_barostat
from equistride.engines.charge_spin import said_by
from equistride.engines.nve import velocity_verlet
from equistride.engines.openmm import TrajCastIntegrator, create_system
from equistride.engines.openmm_recorder import in_angstrom
from equistride.engines.openmm_structure import topology_from_ase
from equistride.errors import EquistrideError
from equistride.simulation.engine import Array, Moment
from equistride.simulation.settings import FRICTION, Settings
from equistride.units import ANGSTROM_PER_NM, EV_PER_KJ_MOL, FS_PER_PS

BAROSTAT_EVERY = 25
"""Steps between Monte Carlo moves of the box."""


class OpenMMEngine:
    """A Context of the Reference platform, or CUDA's where the network runs on a GPU.

    A potential moves by velocity Verlet (NVE) or LangevinMiddle (NVT; with a flexible Monte Carlo barostat NPT), a propagator by
    its ``TrajCastIntegrator``, which has a barostat of its own.
    """

    leads = True

    def __init__(self, model: str | os.PathLike[str], metadata: Metadata, atoms: Atoms, settings: Settings) -> None:
        topology, positions = topology_from_ase(atoms)
        device: Any = settings.device
        self._strides = metadata.kind == "propagator"
        self._topology, self._box = topology, bool(atoms.pbc.any())
        if self._strides:
            # a propagator keeps momenta by itself, in every engine alike
            system = create_system(model, topology, device=device, remove_cm_motion=False)
        else:
            precision: Any = settings.precision
            charge, spin = said_by(atoms)
            system = create_system(
                model, topology, device=device, precision=precision, charge=charge, spin=spin,
                remove_cm_motion=settings.ensemble in ("nvt", "npt"),
            )  # fmt: skip
            for index, mass in enumerate(atoms.get_masses()):
                system.setParticleMass(index, mass)
        self._integrator = self._moved_by(model, system, settings)
        name = "CUDA" if settings.device.startswith("cuda") else "Reference"
        try:
            self._context = openmm.Context(system, self._integrator, openmm.Platform.getPlatformByName(name))
        except openmm.OpenMMException as error:
            raise _sentence(error) from None
        self._context.setPositions(positions)
        self._context.setVelocities(atoms.get_velocities() * (units.fs * FS_PER_PS / ANGSTROM_PER_NM))

    def _moved_by(self, model: Any, system: openmm.System, settings: Settings) -> openmm.Integrator:
        if self._strides:
            bath: Any = None if settings.ensemble == "nve" else "langevin+csvr"
            return TrajCastIntegrator(model, self._topology, temperature=settings.temperature, thermostat=bath,
                                      step_size=settings.step_fs / FS_PER_PS, seed=settings.seed, device=settings.device,
                                      **guard_and_barostat(settings.guard, settings.barostat_bar))  # fmt: skip
        if settings.ensemble in ("nve", "minimise"):
            return velocity_verlet(settings.step_fs)
        if settings.ensemble == "npt":
            barostat = openmm.MonteCarloFlexibleBarostat(
                settings.pressure * unit.bar, settings.temperature * unit.kelvin, BAROSTAT_EVERY
            )
            barostat.setRandomNumberSeed(settings.seed)
            system.addForce(barostat)
        bath = openmm.LangevinMiddleIntegrator(
            settings.temperature * unit.kelvin, FRICTION / unit.picosecond, settings.step_fs * unit.femtosecond
        )
        bath.setRandomNumberSeed(settings.seed)
        return bath

    def step(self, steps: int) -> None:
        """Move the atoms by so many steps."""
        try:
            self._integrator.step(steps)
        except openmm.OpenMMException as error:
            raise _sentence(error) from None

    def moment(self) -> Moment:
        """Return the present moment."""
        state = self._context.getState(positions=True, velocities=True, energy=True)
        _, potential, kinetic, positions, velocities, cell = in_angstrom(state)
        if self._strides:
            potential = np.nan
        return Moment(positions, velocities, cell if self._box else np.zeros((3, 3)), potential, kinetic)

    def agree(self, stop: bool) -> bool:
        """There is one process."""
        return stop

    def state(self) -> bytes:
        """Return OpenMM's checkpoint: positions, velocities, box, and the random state of bath and barostat."""
        return self._context.createCheckpoint()

    def restore(self, state: bytes, step: int) -> None:
        """Go on from a checkpoint, bit for bit."""
        try:
            self._context.loadCheckpoint(state)
        except openmm.OpenMMException as error:
            raise EquistrideError(
                f"OpenMM cannot go on from the checkpoint ({' '.join(str(error).split())})",
                hint="go on with the OpenMM and the computer that began, or start anew",
            ) from None

    def minimise(self, max_force: float, steps: int) -> None:
        """Minimise by OpenMM's L-BFGS."""
        tolerance = max_force / EV_PER_KJ_MOL * ANGSTROM_PER_NM / np.sqrt(3)
        openmm.LocalEnergyMinimizer.minimize(self._context, tolerance, steps)

    def forces(self) -> Array:
        """Return the forces of a potential [N, 3] eV/A."""
        values = self._context.getState(forces=True).getForces(asNumpy=True)
        return (
            np.array(values.value_in_unit(unit.kilojoule_per_mole / unit.nanometer)) * EV_PER_KJ_MOL / ANGSTROM_PER_NM
        )

    def stress(self) -> None:
        """OpenMM gives none."""


def _sentence(error: openmm.OpenMMException) -> EquistrideError:
    return EquistrideError(" ".join(str(error).split()))
