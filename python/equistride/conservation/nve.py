"""Is energy conserved? The protocol of the eSEN paper, with its time-step scaling, as one measured promise.

Relax, draw velocities, run velocity Verlet, fit the drift of the total energy (Fu et al., arXiv:2502.12147, which relaxes to
forces of 0.05 eV/A and drops the first tenth of the run). After relaxation half of the kinetic energy goes into the bonds, so
a crystal runs at about half of the temperature drawn. From one start, runs at several time steps show how the energy error
falls: as dt^2 for a smooth potential.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from numpy.typing import NDArray

from equistride.conservation.drift import Drift, Exponent, energy_drift, energy_error_exponent
from equistride.conservation.probes import Finding
from equistride.errors import EquistrideError
from equistride.properties.relax import relax, require_free
from equistride.series import Verdict
from equistride.units import BOLTZMANN, FS_PER_PS

Array = NDArray[np.float64]
DRIFT_BOUND = 0.01
"""meV/atom/ps at 1 fs in double precision."""
EXPONENT_BOUNDS = (1.8, 2.2)
RELAXED_FORCE = 0.05
"""eV/A, and at most ``RELAX_STEPS`` steps: the paper's."""
RELAX_STEPS = 1000
DISCARD = 0.1
"""Share of the run that is dropped before the fit."""
SCALING_TIME = 0.5
"""ps: runs of several time steps from one start stay together that long, so that their errors compare term by term."""
MOST_SAMPLES = 20_000
LEAST_SAMPLES = 100


Series = tuple[Array, Array, Array]
"""Times [F] fs, potential and kinetic energies [F] eV, all at the times of the positions."""


class Verlet(Protocol):
    """Velocity Verlet of some engine: run(atoms with momenta, time step [fs], steps, steps between samples).

    Yields time [fs], potential and kinetic energy [eV].
    """

    def __call__(
        self, atoms: Atoms, timestep: float, steps: int, interval: int
    ) -> Iterable[tuple[float, float, float]]: ...


@dataclass(frozen=True)
class Setting:
    """How the test is made.

    Attributes
    ----------
    temperature
        Of the velocities drawn [K].
    time
        Length of the drift run [ps].
    timestep
        Of the drift run [fs].
    timesteps
        Of the scaling runs [fs]; three or more.
    drift_bound
        Largest drift that passes [meV/atom/ps].
    exponent_bounds
        Range of the exponent that passes.
    seed
        Of the velocities.
    """

    temperature: float = 300.0
    time: float = 10.0
    timestep: float = 1.0
    timesteps: tuple[float, ...] = (0.5, 1.0, 2.0)
    drift_bound: float = DRIFT_BOUND
    exponent_bounds: tuple[float, float] = EXPONENT_BOUNDS
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("temperature", "time", "timestep", "drift_bound"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0):
                raise EquistrideError(f"the {name.replace('_', ' ')} of the test must be positive", found=value)
        if len(set(self.timesteps)) < 3 or min(self.timesteps) <= 0:
            raise EquistrideError(
                "an exponent needs three different time steps above 0",
                found=", ".join(f"{dt:g}" for dt in self.timesteps),
                hint="give 0.5,1,2, say",
            )
        if self.drift_steps < 200:
            raise EquistrideError(
                "the run is too short for a drift",
                expected="200 steps or more",
                found=self.drift_steps,
                hint="give a longer time",
            )

    @property
    def drift_steps(self) -> int:
        """Steps of the drift run."""
        return round(self.time * FS_PER_PS / self.timestep)

    def scaling_steps(self, timestep: float) -> int:
        """Steps of a scaling run."""
        span = max(min(self.time, SCALING_TIME) * FS_PER_PS, 100 * max(self.timesteps))
        return round(span / timestep)

    @property
    def steps(self) -> int:
        """Steps of all runs."""
        return self.drift_steps + sum(self.scaling_steps(dt) for dt in self.timesteps)


@dataclass
class Conservation:
    """What the test found.

    Attributes
    ----------
    setting
        How it was made.
    atoms
        Number of atoms.
    drift
        Slope of the total energy with its interval; None where the run broke off.
    exponent
        Power of dt in the rms energy error; None where a run broke off.
    fluctuations
        Rms deviation of the total energy from its line at each time step [meV/atom].
    temperature
        Mean temperature of the drift run [K].
    findings
        What the probes of the artifact found.
    notes
        Remarks: a relaxation that did not converge, a run that broke off.
    series
        Of each run, by its name.
    """

    setting: Setting
    atoms: int
    drift: Drift | None = None
    exponent: Exponent | None = None
    fluctuations: dict[float, float] = field(default_factory=dict)
    temperature: float | None = None
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    series: dict[str, Series] = field(default_factory=dict)

    @property
    def drift_verdict(self) -> Verdict:
        """Pass, fail, or undecided where the interval reaches over the bound; fail where the run broke off."""
        return "fail" if self.drift is None else self.drift.verdict(self.setting.drift_bound)

    @property
    def drift_passed(self) -> bool:
        """Whether the whole interval of the drift lies within the bound."""
        return self.drift_verdict == "pass"

    @property
    def exponent_passed(self) -> bool:
        """Whether the exponent lies within its bounds."""
        low, high = self.setting.exponent_bounds
        return self.exponent is not None and low <= self.exponent.value <= high

    @property
    def passed(self) -> bool:
        """Whether drift, exponent and all probes pass."""
        return self.drift_passed and self.exponent_passed and all(finding.passed for finding in self.findings)

    @property
    def causes(self) -> list[str]:
        """The known causes that the probes show, the first found first."""
        return list(dict.fromkeys(finding.cause for finding in self.findings if not finding.passed))

    def verdict(self) -> str:
        """Return one sentence: pass, fail and why, or undecided and what to do."""
        if self.passed:
            return "pass: energy is conserved"
        if self.causes:
            return f"FAIL: {', '.join(self.causes)}"
        if self.drift_verdict == "undecided" and self.exponent_passed:
            return "undecided: the drift is not known well enough; run longer"
        if not self.findings:
            return "FAIL: energy is not conserved; no cause was looked for, a shorter time step may help"
        return "FAIL: none of the known causes (direct forces, no envelope, neighbour cap); try a shorter time step"

    def summary(self) -> dict[str, Any]:
        """Return the numbers as plain types, for JSON."""
        drift, exponent, setting = self.drift, self.exponent, self.setting
        return {
            "passed": self.passed,
            "verdict": self.verdict(),
            "causes": self.causes,
            "atoms": self.atoms,
            "drift_meV_per_atom_per_ps": None if drift is None else drift.slope,
            "drift_interval": None if drift is None else list(drift.interval),
            "drift_bound": setting.drift_bound,
            "drift_passed": self.drift_passed,
            "drift_verdict": self.drift_verdict,
            "protocol_drift_meV_per_atom_per_ps": None if drift is None else drift.protocol,
            "exponent": None if exponent is None else exponent.value,
            "exponent_error": None if exponent is None else exponent.error,
            "exponent_bounds": list(setting.exponent_bounds),
            "exponent_passed": self.exponent_passed,
            "fluctuation_meV_per_atom": {f"{dt:g}": value for dt, value in self.fluctuations.items()},
            "mean_temperature_K": self.temperature,
            "drawn_temperature_K": setting.temperature,
            "time_ps": setting.time,
            "timestep_fs": setting.timestep,
            "seed": setting.seed,
            "probes": [
                {
                    "name": f.name, "error": float(f.error), "bound": f.bound, "unit": f.unit, "passed": f.passed,
                    "cause": None if f.passed else f.cause, "remark": f.remark,
                }
                for f in self.findings
            ],
            "notes": self.notes,
        }  # fmt: skip


def start_of(atoms: Atoms, calculator: Calculator, setting: Setting) -> tuple[Atoms, list[str]]:
    """Return the relaxed atoms with velocities drawn at random and no total momentum, and remarks.

    Raises
    ------
    EquistrideError
        Where the calculator cannot take the structure.
    """
    moving, notes = atoms.copy(), []
    if len(atoms) < 2:
        raise EquistrideError(
            "the energy of a single atom cannot be tested", expected="two atoms or more", found=len(atoms)
        )
    require_free(atoms, "the energy conservation")
    moving.calc = calculator
    moving.get_forces()  # what the model cannot take is said here
    moving.calc = None
    try:
        moving = relax(
            moving, calculator, cell="fixed", max_force=RELAXED_FORCE, steps=RELAX_STEPS, optimiser="lbfgs"
        ).atoms
    except EquistrideError as error:
        notes.append(f"not relaxed: {error}")
    moving.set_momenta(drawn_momenta(moving, setting.temperature, setting.seed))
    return moving, notes


def drawn_momenta(atoms: Atoms, temperature: float, seed: int) -> Array:
    """Return momenta [N, 3] in ASE's unit, drawn from the Maxwell-Boltzmann distribution.

    Without total momentum, and scaled to the temperature [K] exactly, with 3N - 3 degrees of freedom.
    """
    masses = atoms.get_masses()[:, None]
    momenta = np.random.default_rng(seed).normal(size=(len(atoms), 3)) * np.sqrt(masses)
    momenta -= masses * momenta.sum(0) / masses.sum()
    kinetic = 0.5 * float((momenta**2 / masses).sum())
    return momenta * np.sqrt(0.5 * (3 * len(atoms) - 3) * BOLTZMANN * temperature / kinetic)


def conservation(
    atoms: Atoms,
    calculator: Calculator,
    verlet: Verlet,
    setting: Setting,
    *,
    tick: Callable[[int], None] | None = None,
) -> Conservation:
    """Run the protocol.

    Parameters
    ----------
    atoms
        The structure; it is relaxed first, its cell as it is.
    calculator
        The potential in ASE, for the relaxation.
    verlet
        The same potential in the engine to test.
    setting
        How the test is made.
    tick
        Called with the number of steps done. Ctrl-C in the drift run, the last, ends it with the samples it has.

    Returns
    -------
    Conservation
        Without findings of probes; :func:`equistride.conservation.probes.probe` makes them.
    """
    start, notes = start_of(atoms, calculator, setting)
    result = Conservation(setting, len(atoms), notes=notes)
    fluctuations: dict[float, float] = {}
    for dt in sorted(set(setting.timesteps)):
        steps = setting.scaling_steps(dt)
        # all runs are sampled at the same times
        interval = max(1, round(max(setting.timesteps) / dt))
        run = _attempt(result, verlet, start, dt, steps - steps % interval, interval, tick)
        if run is not None:
            result.series[f"{dt:g} fs"] = run
            fluctuations[dt] = energy_drift(run[0], run[1] + run[2], len(atoms)).fluctuation
    result.fluctuations = fluctuations
    if len(fluctuations) == len(set(setting.timesteps)):
        try:
            result.exponent = energy_error_exponent(list(fluctuations), list(fluctuations.values()))
        except EquistrideError as error:
            result.notes.append(f"no exponent: {error}")
    interval = max(1, setting.drift_steps // MOST_SAMPLES)
    run = _attempt(result, verlet, start, setting.timestep, setting.drift_steps, interval, tick, keep=True)
    if run is not None:
        result.series["drift"] = run
        kept = slice(int(len(run[0]) * DISCARD), None)
        result.drift = energy_drift(run[0][kept], (run[1] + run[2])[kept], len(atoms))
        result.temperature = float(2 * run[2][kept].mean() / ((3 * len(atoms) - 3) * BOLTZMANN))
    return result


def _attempt(
    result: Conservation, verlet: Verlet, start: Atoms, dt: float, steps: int, interval: int,
    tick: Callable[[int], None] | None, *, keep: bool = False,
) -> Series | None:  # fmt: skip
    """Run. A run that breaks off is a finding and no user's error; with ``keep``, Ctrl-C ends it with what is there."""
    rows = []
    try:
        for row in verlet(start, dt, steps, interval):
            if not np.isfinite(row).all():
                raise EquistrideError("the energy is not finite")
            rows.append(row)
            if tick is not None and len(rows) > 1:
                tick(interval)
    except EquistrideError as error:
        result.notes.append(f"the run at {dt:g} fs broke off: {error}")
        return None
    except KeyboardInterrupt:
        if not keep or len(rows) < LEAST_SAMPLES:
            raise
        result.notes.append(f"stopped after {rows[-1][0] / FS_PER_PS:.3g} ps of {result.setting.time:g}")
    time, potential, kinetic = np.array(rows).T
    return time, potential, kinetic
