"""ASE dynamics that moves atoms by a propagator: the OpenMM integrator's strides, thermostats and guard."""

from __future__ import annotations

import math
import os
from typing import IO, Any

import numpy as np
import torch
from ase import Atoms, units
from ase.md.logger import MDLogger
from ase.md.md import MolecularDynamics
from numpy.typing import NDArray

import equistride._library  # noqa: F401  (registers torch.classes.equistride)
from equistride.artifact.native import sentence, trust
from equistride.engines.barostat import Barostat, BarostatStatistics, barostat_statistics, require_barostat
from equistride.engines.guard import Guard, GuardStatistics, guard_statistics
from equistride.engines.thermostat import Thermostat, relaxation_times
from equistride.errors import EquistrideError


class _Logger(MDLogger):
    """ASE's logger; without a calculator the potential and total energies are nan."""

    def _potential_energy(self) -> float:
        return super()._potential_energy() if self.atoms.calc is not None else math.nan


class TrajCastDynamics(MolecularDynamics):
    """Molecular dynamics whose step is one stride of a trained network; no calculator is needed.

    Half a step of the thermostat goes before each stride and half a step after it. Thermostats keep the total momentum,
    and for open systems the angular momentum, as the network does.

    Parameters
    ----------
    atoms
        Periodic along any axes; their masses must be those of the training.
    artifact
        Path of an artifact of the kind ``propagator``.
    timestep
        One of the strides that the network was trained for, in ASE's units of time; the artifact's own where there is one alone,
        the longest where there are several. Set ``dt`` for another one from the next step on; relaxation times stay.
    temperature_K
        Of the thermostat [K].
    thermostat
        ``csvr``: velocity rescaling (Bussi, Donadio, Parrinello 2007), which disturbs the motion least but heats or cools all
        of it alike; ``langevin``: friction and noise, which keep each vibration at the temperature and broaden spectra;
        ``langevin+csvr``: weak friction for the one, rescaling for the mean; None: none.
    tau
        Relaxation time of ``csvr`` and of the rescaling of ``langevin+csvr``, 1 / friction of ``langevin``, in ASE's units of
        time; by default half a stride of ``langevin+csvr`` and 2.5 strides of the others.
    friction
        Of ``langevin`` and ``langevin+csvr``, in ASE's units of 1/time; of the latter 1 / (15 strides) by default.
    seed
        Of the thermostat; two runs with one seed are the same.
    guard
        A potential that watches over the strides.
    barostat
        Moves the cell between strides by the energy of the guard's potential; it needs a guard and a thermostat.
    device
        Where the networks run: ``cpu``, ``cuda``, ``cuda:1`` ...
    trust_compiled
        Your word for compiled artifacts, also the guard's, which are machine code.
    trajectory, logfile, loginterval, append_trajectory
        As ASE has them. Energies in trajectory and log need a calculator on the atoms.

    Raises
    ------
    EquistrideError
        Where the file is no propagator or fails its self-test, for an element that the model does not know, other masses than the
        trained ones, a time step that is no stride of the model, ASE constraints, a missing cell, and thermostat settings that
        make no sense.
    """

    def __init__(
        self,
        atoms: Atoms,
        artifact: str | os.PathLike[str],
        *,
        timestep: float | None = None,
        temperature_K: float = 300.0,
        thermostat: Thermostat | None = "langevin+csvr",
        tau: float | None = None,
        friction: float | None = None,
        seed: int = 1,
        guard: Guard | None = None,
        barostat: Barostat | None = None,
        device: str = "cpu",
        trust_compiled: bool = False,
        trajectory: Any = None,
        logfile: IO | str | None = None,
        loginterval: int = 1,
        append_trajectory: bool = False,
    ) -> None:
        if len(atoms) == 0:
            raise EquistrideError("there are no atoms to move")
        if atoms.constraints:
            found = type(atoms.constraints[0]).__name__
            raise EquistrideError("a propagator moves free atoms", expected="no constraints", found=found,
                                  hint="take them off with atoms.set_constraint()")  # fmt: skip
        self._artifact = os.fspath(artifact)
        if trust_compiled:
            for file in [self._artifact] if guard is None else [self._artifact, guard.potential]:
                trust(os.fspath(file))
        self._thermostat, self._temperature, self._seed, self._device = thermostat, float(temperature_K), seed, device
        self._run = self._native(atoms)
        if timestep is not None:
            self._call(self._run.set_stride, timestep / units.fs)
        timestep = self._run.stride_fs() * units.fs
        kind, *times = relaxation_times(thermostat, timestep, tau, friction)
        self._call(self._run.set_thermostat, kind, self._temperature, *(t / units.fs for t in times))
        if guard is not None:
            self._call(self._run.set_guard, os.fspath(guard.potential), *guard.settings)
        self._moves_box = barostat is not None
        if barostat is not None:
            self._call(self._run.set_barostat, *require_barostat(barostat))
        self._left: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
        self._time = 0.0
        super().__init__(
            atoms,
            timestep,
            trajectory=trajectory,
            logfile=None,
            loginterval=loginterval,
            append_trajectory=append_trajectory,
        )
        if logfile:
            logger = self.closelater(_Logger(dyn=self, atoms=atoms, logfile=logfile, comm=self.comm))
            self.attach(logger, loginterval)

    @staticmethod
    def _call(function: Any, *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except (RuntimeError, ValueError, IndexError, torch.jit.Error) as error:
            raise sentence(error) from None

    def _native(self, atoms: Atoms) -> Any:
        """Return the native run of these atoms, as yet without a thermostat."""
        masses, pbc = torch.from_numpy(atoms.get_masses()), torch.from_numpy(np.array(atoms.pbc))
        symbols = atoms.get_chemical_symbols()
        arguments = (self._artifact, symbols, masses, pbc, "none", self._temperature, 1.0, self._seed, self._device)
        return self._call(torch.classes.equistride.Propagation, *arguments)

    def todict(self) -> dict[str, Any]:
        """Return what a trajectory says of the run."""
        kind = {
            "thermostat": self._thermostat or "none",
            "temperature_K": self._temperature,
            "artifact": self._artifact,
        }
        return super().todict() | kind

    def _refresh_properties(self) -> None:
        """Forces are asked for by those who log them, not at every stride."""

    def step(self) -> None:
        """Make one stride.

        Raises
        ------
        EquistrideError
            Where an atom is faster or a bond shorter than the model covers, for positions that are not finite, and where ``dt``
            is no stride of the model.
        """
        atoms = self.atoms
        self._call(self._run.set_stride, self.dt / units.fs)
        positions, velocities = atoms.positions.copy(), atoms.get_velocities() * units.fs
        if self._left is not None and not all(map(np.array_equal, self._left, (positions, velocities))):
            self._run.reset()
        cell = np.where(atoms.pbc[:, None], atoms.cell.array, 0.0)
        arrays = [torch.from_numpy(np.ascontiguousarray(a)) for a in (positions, velocities, cell)]
        positions, velocities, cell = (t.numpy() for t in self._call(self._run.step, *arrays, self.nsteps))
        self._time += self.dt
        if self._moves_box:
            atoms.set_cell(cell)
        atoms.positions = positions
        atoms.set_velocities(velocities / units.fs)
        self._left = (atoms.positions.copy(), atoms.get_velocities() * units.fs)

    def get_time(self) -> float:
        """Return the time since the start, in ASE's units, of strides of any length."""
        return self._time

    def set_temperature(self, temperature_K: float) -> None:
        """Give the atoms velocities of exactly this temperature [K], counted over 3N - 3 degrees of freedom (3N - 6 for
        open systems), without momentum and for open systems without angular momentum."""
        positions = torch.from_numpy(self.atoms.positions.copy())
        velocities = self._call(self._run.thermal_velocities, positions, float(temperature_K), self._seed)
        self.atoms.set_velocities(velocities.numpy() / units.fs)

    def guard_statistics(self) -> GuardStatistics:
        """Return what the guard did.

        Raises
        ------
        EquistrideError
            Where there is none.
        """
        return guard_statistics(dict(self._run.statistics()))

    def barostat_statistics(self) -> BarostatStatistics:
        """Return what the barostat did.

        Raises
        ------
        EquistrideError
            Where there is none.
        """
        return barostat_statistics(dict(self._run.barostat_statistics()))

    def state(self) -> dict[str, Any]:
        """Return what going on from here needs beside the atoms: number of strides, time, random state, what guard and barostat
        keep."""
        return {"nsteps": self.nsteps, "time": self._time, "run": self._run.state()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a :meth:`state`; the atoms must be those of that time.

        Raises
        ------
        EquistrideError
            Where the state is of another version, or of a run with a guard and this has none, or the other way round.
        """
        if not isinstance(state["run"], str):
            raise EquistrideError("the state is of an older version of equistride", hint="start anew from its atoms")
        self._call(self._run.set_state, state["run"])
        self.dt = self._run.stride_fs() * units.fs
        self.nsteps, self._left = int(state["nsteps"]), None
        self._time = float(state.get("time", self.nsteps * self.dt))
