"""The OpenMM integrator that moves atoms by a propagator."""

from __future__ import annotations

import json
import os
from typing import IO, Any, cast

import openmm
from openmm import app, unit

from equistride.artifact.native import trust
from equistride.engines.barostat import Barostat, BarostatStatistics, barostat_statistics, require_barostat
from equistride.engines.guard import Guard, GuardStatistics, guard_statistics
from equistride.engines.openmm_force import _plugin, _read
from equistride.engines.openmm_topology import choose_atoms, element_symbols, has_box
from equistride.engines.thermostat import Thermostat, relaxation_times
from equistride.errors import EquistrideError
from equistride.units import FS_PER_PS

EVERY_GROUP = 0xFFFFFFFF


def _number(value: Any, of: unit.Unit) -> float:
    try:
        return float(value.value_in_unit(of) if unit.is_quantity(value) else value)
    except TypeError:
        raise EquistrideError(
            "temperature, step size, friction and tau are numbers or quantities",
            expected=of.get_name(),
            found=repr(value),
        ) from None


class TrajCastIntegrator(openmm.Integrator):
    """An integrator whose step is one stride of a trained network; no forces are computed. Several of them in a
    ``CompoundIntegrator`` mix the strides of one artifact.

    Half a step of the thermostat goes before each stride and half a step after it. Thermostats act on the internal motion:
    they keep the total momentum, and in systems without a box the angular momentum, as the network does. Velocities are
    those at the time of the positions. ``Context.setVelocitiesToTemperature`` gives exactly that temperature, counted over
    3N - 3 degrees of freedom (3N - 6 without a box), and no momenta.

    Parameters
    ----------
    artifact
        Path of an artifact of the kind ``propagator``.
    topology
        Topology of the System: elements, and whether there is a box. Without it, elements follow from the masses of the System.
    temperature
        Of the thermostat [K].
    thermostat
        ``csvr``: velocity rescaling (Bussi, Donadio, Parrinello 2007), which disturbs the motion least but heats or cools all
        of it alike; ``langevin``: friction and noise, which keep each vibration at the temperature and broaden spectra;
        ``langevin+csvr``: weak friction for the one, rescaling for the mean; None: none.
    step_size
        One of the strides that the network was trained for [ps]; the artifact's own where there is one alone, the longest where
        there are several. ``setStepSize`` changes it in a running Context, where the relaxation times stay as they are.
    friction
        Of ``langevin`` and ``langevin+csvr`` [1/ps]; of the latter 1 / (15 strides) by default.
    tau
        Relaxation time of ``csvr`` and of the rescaling of ``langevin+csvr``, 1 / friction of ``langevin`` [ps]; by default
        half a stride of ``langevin+csvr`` and 2.5 strides of the others.
    seed
        Seed of the thermostat; 0 for another one in each Context, as OpenMM's integrators have it.
    guard
        A potential that watches over the strides.
    barostat
        Moves the box between strides by the energy of the guard's potential; it needs a guard and a thermostat.
    periodic
        Whether the model sees the box; None to follow the topology.
    device
        Where the networks run: ``auto`` (a GPU where torch sees one), ``cpu``, ``cuda``, ``cuda:1`` ...
    ignore_forces
        Allow forces in the System. They move nothing, and report energies alone. The same as
        ``setIntegrationForceGroups(set())``.
    trust_compiled
        Your word for compiled artifacts, also the guard's, which are machine code.

    Raises
    ------
    EquistrideError
        Where the file is no propagator or fails its self-test, for an element that the model does not know, a missing box,
        a step size that the network was not trained for, and for thermostat settings that make no sense. Making the Context
        raises (``openmm.OpenMMException``) for constraints, virtual sites, particles without mass, masses other than the trained
        ones, barostats, and forces that would do nothing; ``minimizeEnergy`` raises, for it would move nothing.
    """

    def __init__(
        self,
        artifact: str | os.PathLike[str] | bytes,
        topology: app.Topology | None = None,
        *,
        temperature: float | unit.Quantity = 300.0,
        thermostat: Thermostat | None = "langevin+csvr",
        step_size: float | unit.Quantity | None = None,
        friction: float | unit.Quantity | None = None,
        tau: float | unit.Quantity | None = None,
        seed: int = 0,
        guard: Guard | None = None,
        barostat: Barostat | None = None,
        periodic: bool | None = None,
        device: str = "auto",
        ignore_forces: bool = False,
        trust_compiled: bool = False,
    ) -> None:
        content, file = _read(artifact)
        if trust_compiled:
            trust(content)
        self.this = _plugin.new_integrator(content, file)
        metadata = self.getMetadata()
        required = metadata.get("periodic") == "required"
        if topology is not None:
            atoms = choose_atoms(topology, None)
            _plugin.set_integrator_elements(self, element_symbols(topology, atoms, metadata["species"]))
            periodic = has_box(topology, periodic, required)
            box = topology.getPeriodicBoxVectors()
            if box is not None:
                _plugin.set_topology_box(self, [list(vector.value_in_unit(unit.nanometer)) for vector in box])
        elif periodic is None and not required:
            raise EquistrideError(
                "without a topology it is not known whether the model sees a box",
                expected="topology, or periodic=True or False",
                found="neither",
            )
        _plugin.set_integrator_periodic(self, required if periodic is None else bool(periodic))
        if step_size is not None:
            self._choose(_number(step_size, unit.picosecond))
        stride = self.getStepSize().value_in_unit(unit.picosecond)
        tau = None if tau is None else _number(tau, unit.picosecond)
        friction = None if friction is None else _number(friction, unit.picosecond**-1)
        kind, *times = relaxation_times(thermostat, stride, tau, friction)
        _plugin.set_thermostat(self, kind, _number(temperature, unit.kelvin), *(t * FS_PER_PS for t in times))
        self.setRandomNumberSeed(seed)
        _plugin.set_device(self, device)
        if guard is not None:
            if not isinstance(guard, Guard):
                raise EquistrideError(
                    "guard must be a Guard", expected="a Guard", found=repr(guard)[:80], hint="give Guard(potential)"
                )
            mode, every, bound, rescale, substep = guard.settings
            potential, name = _read(guard.potential)
            if trust_compiled:
                trust(potential)
            _plugin.set_guard(self, potential, name, mode, every, bound, rescale, substep)
        if barostat is not None:
            _plugin.set_barostat(self, *require_barostat(barostat))
        if ignore_forces:
            self.setIntegrationForceGroups(set())

    def _choose(self, step_ps: float) -> None:
        try:
            self.setStepSize(step_ps)
        except openmm.OpenMMException as error:
            raise EquistrideError(str(error)) from None

    @staticmethod
    def isinstance(integrator: openmm.Integrator) -> bool:
        """Tell whether an integrator, as ``Context.getIntegrator`` gives it, is one of ours."""
        return bool(_plugin.is_our_integrator(integrator))

    @staticmethod
    def cast(integrator: openmm.Integrator) -> TrajCastIntegrator:
        """Return our view of an integrator that ``XmlSerializer`` or a ``CompoundIntegrator`` gave."""
        _plugin.require_integrator(integrator)
        ours = TrajCastIntegrator.__new__(TrajCastIntegrator)
        ours.this = integrator.this
        return ours

    def setIntegrationForceGroups(self, groups: set[int] | int) -> None:
        """Set which force groups would be integrated: a force in one of them is refused, since it would do nothing."""
        mask = sum(1 << group for group in groups) if isinstance(groups, set) else int(groups)
        super().setIntegrationForceGroups(mask & EVERY_GROUP)

    def getConstraintTolerance(self) -> float:
        """Return what was set; nothing here has constraints. Who asks OpenMM's own view of a bound integrator is refused."""
        return _plugin.constraint_tolerance(self)

    def getFile(self) -> str:
        """Return the path that the model was read from."""
        return _plugin.integrator_file(self)

    def getMetadata(self) -> dict[str, Any]:
        """Return what the artifact says of itself (``metadata.json``)."""
        return json.loads(_plugin.integrator_metadata(self))

    def getElements(self) -> list[str]:
        """Return the element symbols; empty where they follow from the masses."""
        return _plugin.integrator_elements(self)

    def usesPeriodicBoundaryConditions(self) -> bool:
        """Tell whether the model sees the box."""
        return _plugin.integrator_periodic(self)

    def getThermostat(self) -> str | None:
        """Return ``csvr``, ``langevin``, ``langevin+csvr`` or None."""
        kind = _plugin.get_thermostat(self)[0]
        return None if kind == "none" else kind

    def getTemperature(self) -> unit.Quantity:
        """Return the temperature of the thermostat."""
        return _plugin.get_thermostat(self)[1] * unit.kelvin

    def setTemperature(self, temperature: float | unit.Quantity) -> None:
        """Set the temperature of the thermostat [K], also in mid-run."""
        kind, _, *times = _plugin.get_thermostat(self)
        _plugin.set_thermostat(self, kind, _number(temperature, unit.kelvin), *times)

    def getTau(self) -> unit.Quantity:
        """Return the relaxation time of the rescaling, or of ``langevin``."""
        kind, _, time, tau = _plugin.get_thermostat(self)
        return (tau if kind == "langevin+csvr" else time) / FS_PER_PS * unit.picosecond

    def setTau(self, tau: float | unit.Quantity) -> None:
        """Set the relaxation time of the rescaling, or of ``langevin`` [ps], also in mid-run."""
        kind, temperature, time, _ = _plugin.get_thermostat(self)
        new = _number(tau, unit.picosecond) * FS_PER_PS
        both = kind == "langevin+csvr"
        _plugin.set_thermostat(self, kind, temperature, time if both else new, new if both else 0.0)

    def getFriction(self) -> unit.Quantity:
        """Return the friction; 1 / tau of ``csvr``."""
        return 1.0 / (_plugin.get_thermostat(self)[2] / FS_PER_PS * unit.picosecond)

    def setFriction(self, friction: float | unit.Quantity) -> None:
        """Set the friction [1/ps], also in mid-run."""
        kind, temperature, _, tau = _plugin.get_thermostat(self)
        _plugin.set_thermostat(self, kind, temperature, FS_PER_PS / _number(friction, unit.picosecond**-1), tau)

    def getRandomNumberSeed(self) -> int:
        """Return the seed."""
        return _plugin.get_seed(self)

    def setRandomNumberSeed(self, seed: int) -> None:
        """Set the seed for the next Context; 0 for another one each time."""
        if not 0 <= seed < 2**31:
            raise EquistrideError("the seed is out of range", expected="0 to 2^31 - 1", found=seed)
        _plugin.set_seed(self, int(seed))

    def getGuardStatistics(self) -> GuardStatistics:
        """Return what the guard did in this Context.

        Raises
        ------
        EquistrideError
            Where there is no guard, or no Context yet.
        """
        return guard_statistics(_plugin.guard_statistics(self))

    def getBarostatStatistics(self) -> BarostatStatistics:
        """Return what the barostat did in this Context.

        Raises
        ------
        EquistrideError
            Where there is no barostat, or no Context yet.
        """
        return barostat_statistics(_plugin.barostat_statistics(self))


class GuardReporter:
    """A reporter for ``openmm.app.Simulation`` that writes what the guard did, one line of CSV a report.

    Parameters
    ----------
    file
        Path or open file.
    interval
        Strides between lines.
    integrator
        The integrator, where it is not the Simulation's own (inside a ``CompoundIntegrator``).
    """

    COLUMNS = (
        "checks",
        "violations",
        "corrected",
        "rejected",
        "refused",
        "mean_change",
        "rms_change",
        "largest_change",
    )

    def __init__(
        self, file: str | os.PathLike[str] | IO[str], interval: int, integrator: TrajCastIntegrator | None = None
    ) -> None:
        self.interval, self._integrator = interval, integrator
        self._file: IO[str]
        self._owned = not hasattr(file, "write")
        self._file = open(cast(Any, file), "w") if self._owned else cast(IO[str], file)  # noqa: SIM115
        units = {"mean_change": " (meV/atom)", "rms_change": " (meV/atom)", "largest_change": " (meV/atom)"}
        names = [c.replace("_", " ") + units.get(c, "") for c in self.COLUMNS]
        print("#step,time (ps)", *names, "cost (% of network)", sep=",", file=self._file, flush=True)

    def describeNextReport(self, simulation: Any) -> dict[str, Any]:
        """Tell OpenMM when the next line is due."""
        return {"steps": self.interval - simulation.currentStep % self.interval, "periodic": None, "include": []}

    def report(self, simulation: Any, state: Any) -> None:
        """Write one line."""
        integrator = self._integrator or TrajCastIntegrator.cast(simulation.integrator)
        found = integrator.getGuardStatistics()
        values = [getattr(found, c) for c in self.COLUMNS]
        text = [f"{v:.6g}" if isinstance(v, float) else str(v) for v in values]
        time = state.getTime().value_in_unit(unit.picosecond)
        line = (simulation.currentStep, f"{time:.6g}", *text, f"{100 * found.cost:.1f}")
        print(*line, sep=",", file=self._file, flush=True)

    def __del__(self) -> None:
        if getattr(self, "_owned", False):
            self._file.close()
