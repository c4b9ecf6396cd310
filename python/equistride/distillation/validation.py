"""How good the student is: checks of its file, runs beside the teacher's, and its energy under the teacher's eye."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units

from equistride.artifact.validate import validate
from equistride.conservation.drift import energy_drift
from equistride.conservation.nve import Setting, conservation
from equistride.conservation.steps import highest_frequency, scaling_steps
from equistride.distillation.crystal import moved
from equistride.distillation.settings import Settings
from equistride.engines.ase import EquistrideCalculator
from equistride.engines.ase_dynamics import TrajCastDynamics
from equistride.engines.guard import Guard
from equistride.engines.nve import ASEVerlet
from equistride.errors import EquistrideError
from equistride.series import Estimate
from equistride.trajectories.readers import read_trajectory
from equistride.trajectories.report import write_report
from equistride.trajectories.summary import Analysis
from equistride.trajectories.temperature import equipartition, kinetic_temperature
from equistride.trajectories.thermo import read_state_csv
from equistride.trajectories.trajectory import Trajectory

GUARDED = 301
"""Strides without a thermostat under the guard."""
EVERY, LOOK = 10, 7
"""Strides between checks of the guard, each of which brings the total energy back to that of the start, and between readings
of the energy: all phases between two checks are seen."""
RDF, WARM = 3.0, 0.02
"""Largest difference of a radial distribution [%], beyond twice its noise, and share of the temperature, beyond twice its
error."""
NVE_PS = 2.0
"""Of a potential's run at constant energy."""


def checks(artifact: Path, start: Atoms) -> list[dict[str, Any]]:
    """Return the checks of ``equistride validate`` as plain values, on the structure that was distilled: it may throw others."""
    return [
        {"name": c.name, "error": float(c.error), "bound": float(c.bound), "unit": c.unit, "passed": c.passed}
        for c in validate(artifact, start)
    ]


def guarded(artifact: Path, teacher: Path, start: Atoms, progress: Callable[[int, int], None]) -> dict[str, Any]:
    """Return the drift of the teacher's total energy along strides that it guards, without a thermostat."""
    atoms = start.copy()
    moving = TrajCastDynamics(
        atoms, artifact, thermostat=None, guard=Guard(teacher, every=EVERY, bound=np.inf, rescale=True)
    )
    calculator, times, energies, failure = EquistrideCalculator(teacher), list[float](), list[float](), ""
    stride = moving.dt / units.fs
    while True:
        seen = atoms.copy()
        seen.calc = calculator
        times.append(len(times) * LOOK * stride)
        energies.append(float(seen.get_potential_energy() + seen.get_kinetic_energy()))
        done = (len(times) - 1) * LOOK
        progress(done, GUARDED)
        if done >= GUARDED:
            break
        try:
            moving.run(LOOK)
        except EquistrideError as error:
            failure = error.what
            break
    found: dict[str, Any] = {"strides": round(times[-1] / stride), "failure": failure}
    if len(times) > 8:
        drift = energy_drift(np.array(times), np.array(energies), len(atoms))
        found |= {"drift_meV_per_atom_per_ps": drift.slope, "interval": list(drift.interval)}
    if times[-1]:
        did = moving.guard_statistics()
        found |= {"rms_change_meV_per_atom": did.rms_change, "refused": did.refused, "cost": did.cost}
    return found


def conserved(artifact: Path, atoms: Atoms, temperature: float, seed: int) -> dict[str, Any]:
    """Return the drift of a potential's total energy at constant energy, and how its error falls with the time step."""
    precise = EquistrideCalculator(artifact, dtype="float64")
    steps: Any = scaling_steps(highest_frequency(atoms, precise))
    setting = Setting(temperature=temperature, time=NVE_PS, timestep=steps[1], timesteps=steps, seed=seed)
    result = conservation(atoms, precise, ASEVerlet(precise), setting)
    found: dict[str, Any] = {"timestep_fs": steps[1], "verdict": result.verdict()}
    if result.drift is not None:
        found |= {"drift_meV_per_atom_per_ps": result.drift.slope, "interval": list(result.drift.interval)}
    if result.exponent is not None:
        found["power_of_timestep"] = result.exponent.value
    return found


def last_frame(folder: Path, atoms: Atoms) -> Atoms:
    """Return the atoms as the last frame of a run has them, with velocities."""
    run = read_trajectory(folder / "trajectory.extxyz")
    assert run.velocities is not None
    return moved(atoms, run.positions[-1], run.velocities[-1])


def reported(
    folder: Path, taught: Trajectory, page: Path, title: str, tables: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Write the report of the student's run beside the teacher's; return its figures as plain values."""
    run = read_trajectory(folder / "trajectory.extxyz", name="student")
    table = read_state_csv(folder / "state.csv", ensemble="NVT")
    result = write_report(
        page, title=title, subtitle=f"{run.formula}, {run.frames} frames; compared with the teacher's {taught.frames}",
        trajectory=run, segments=[table], reference=taught, model=tables["model"], settings=tables["settings"],
    )  # fmt: skip
    return figures(result, run, taught)


def figures(result: Analysis, run: Trajectory, taught: Trajectory) -> dict[str, Any]:
    """Return temperatures, radial distributions and spectra of student and teacher as plain values."""
    found: dict[str, Any] = {"frames": [run.frames, taught.frames]}
    for name, one in (("student", run), ("teacher", taught)):
        whole = kinetic_temperature(one)
        elements = equipartition(one).temperature if len(one.elements) > 1 else {}
        found[name] = {"T": _plain(whole), "elements": {e: _plain(t) for e, t in elements.items()}}
    found["rdf"] = {
        "-".join(pair): {"percent": _percent(one.difference), "noise_percent": _percent(one.noise)}
        for pair, one in result.pairs.items()
    }
    for name, spectrum in (("student", result.vdos), ("teacher", result.vdos_reference)):
        if spectrum is not None:
            found[name] |= {
                "peaks_THz": [round(float(f), 2) for f in spectrum.peaks()], "limit_THz": spectrum.nyquist,
                "resolution_THz": spectrum.resolution,
            }  # fmt: skip
    found["notes"] = result.notes
    return found


def faults(settings: Settings, found: dict[str, Any]) -> list[str]:
    """Return in sentences what is wrong with a student: a run that failed, another structure or temperature, checks that fail."""
    said = [f"it is not stable: {one['failure']}" for one in found["runs"].values() if one["failure"]]
    figures = found.get("figures", {"rdf": {}, "student": {"T": [None, None], "elements": {}}})
    for pair, one in figures["rdf"].items():
        if one["percent"] is not None and one["percent"] > RDF + 2 * (one["noise_percent"] or 0.0):
            noise = "" if one["noise_percent"] is None else f", and noise alone is {one['noise_percent']:.1f} %"
            said.append(f"its {pair} distances are not the teacher's: the RDF differs by {one['percent']:.1f} %{noise}")
    student = figures["student"]
    for name, (value, error) in {"it": student["T"], **student["elements"]}.items():
        if value is not None and abs(value - settings.temperature) > WARM * settings.temperature + 2 * (error or 0.0):
            said.append(f"{name} is at {value:.0f} K in a bath of {settings.temperature:g} K")
    bad = [c["name"] for c in found["checks"] if not c["passed"]]
    return said + ([f"checks of `equistride validate` fail: {', '.join(bad)}"] if bad else [])


def _plain(estimate: Estimate) -> list[float | None]:
    return [_finite(estimate.value), _finite(estimate.error)]


def _percent(value: float | None) -> float | None:
    return None if value is None else _finite(100 * value)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
