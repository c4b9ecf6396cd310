"""A simulation in ASE."""

from __future__ import annotations

import io
import json
import os
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.md.langevin import Langevin
from ase.md.verlet import VelocityVerlet
from ase.optimize import LBFGS

from equistride.artifact.metadata import Metadata
from equistride.engines.ase import EquistrideCalculator
from equistride.engines.ase_dynamics import TrajCastDynamics
from equistride.engines.barostat import guard_and_barostat
from equistride.errors import EquistrideError
from equistride.simulation.engine import Array, Moment
from equistride.simulation.settings import FRICTION, Settings


class ASEEngine:
    """Atoms that ASE's ``VelocityVerlet`` or ``Langevin`` moves, or a propagator's ``TrajCastDynamics``."""

    leads = True

    def __init__(self, model: str | os.PathLike[str], metadata: Metadata, atoms: Atoms, settings: Settings) -> None:
        self._atoms, self._random = atoms.copy(), np.random.RandomState(settings.seed % 2**32)
        self._strides = metadata.kind == "propagator"
        if self._strides:
            bath: Any = None if settings.ensemble == "nve" else "langevin+csvr"
            self._dynamics: Any = TrajCastDynamics(
                self._atoms, model, timestep=settings.step_fs * units.fs, temperature_K=settings.temperature,
                thermostat=bath, seed=settings.seed, device=settings.device,
                **guard_and_barostat(settings.guard, settings.barostat_bar),
            )  # fmt: skip
            return
        if settings.ensemble == "npt":
            raise EquistrideError(
                "constant pressure is not offered in ASE", hint="choose --engine openmm or --engine lammps"
            )
        self._atoms.calc = EquistrideCalculator(model, device=settings.device, dtype=settings.precision)
        step = settings.step_fs * units.fs
        if settings.ensemble in ("nve", "minimise"):
            self._dynamics = VelocityVerlet(self._atoms, step)
        else:
            friction = FRICTION / (1e3 * units.fs)
            self._dynamics = Langevin(
                self._atoms,
                step,
                temperature_K=settings.temperature,
                friction=friction,
                rng=self._random,
                fixcm=False,
            )

    def step(self, steps: int) -> None:
        """Move the atoms by so many steps."""
        self._dynamics.run(steps)

    def moment(self) -> Moment:
        """Return the present moment."""
        atoms = self._atoms
        potential = np.nan if self._strides else float(atoms.get_potential_energy())
        cell = np.array(atoms.cell) if atoms.pbc.any() else np.zeros((3, 3))
        return Moment(atoms.positions.copy(), atoms.get_velocities() * units.fs, cell, potential,
                      float(atoms.get_kinetic_energy()))  # fmt: skip

    def agree(self, stop: bool) -> bool:
        """There is one process."""
        return stop

    def state(self) -> bytes:
        """Return positions, momenta, cell, and the random state."""
        kind, keys, *rest = self._random.get_state(legacy=True)
        memory: dict[str, Any] = {"random": [kind, np.asarray(keys).tolist(), *rest]}
        if self._strides:
            memory["strides"] = self._dynamics.state()
        out = io.BytesIO()
        atoms, cell = self._atoms, self._atoms.cell.array
        np.savez(out, positions=atoms.positions, momenta=atoms.get_momenta(), cell=cell, memory=json.dumps(memory))
        return out.getvalue()

    def restore(self, state: bytes, step: int) -> None:
        """Go on from a state, bit for bit."""
        with np.load(io.BytesIO(state), allow_pickle=False) as arrays:
            self._atoms.positions = arrays["positions"]
            if "cell" in arrays:
                self._atoms.set_cell(arrays["cell"])
            self._atoms.set_momenta(arrays["momenta"])
            memory = json.loads(str(arrays["memory"]))
        kind, keys, *rest = memory["random"]
        self._random.set_state((kind, np.array(keys, np.uint32), *rest))
        if self._strides:
            self._dynamics.set_state(memory["strides"])
        else:
            self._dynamics.nsteps = step

    def minimise(self, max_force: float, steps: int) -> None:
        """Minimise by ASE's L-BFGS."""
        LBFGS(self._atoms, logfile=os.devnull).run(fmax=max_force, steps=steps)

    def forces(self) -> Array:
        """Return the forces of a potential [N, 3] eV/A."""
        return np.array(self._atoms.get_forces())

    def stress(self) -> Array:
        """Return the stress of a potential [3, 3] eV/A^3, positive under tension."""
        return np.array(self._atoms.get_stress(voigt=False))
