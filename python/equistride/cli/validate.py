"""``equistride validate``: is an artifact right, and does it conserve energy?"""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from equistride.cli import outputs
from equistride.cli.artifact_options import Trust
from equistride.errors import EquistrideError

if TYPE_CHECKING:
    from equistride.conservation.nve import Conservation
    from equistride.series import Verdict


class Engine(StrEnum):
    """What runs the dynamics."""

    openmm = "openmm"
    ase = "ase"


class Precision(StrEnum):
    """Precision of the network."""

    float64 = "float64"
    float32 = "float32"


def validate(
    artifact: Annotated[Path, typer.Argument(help="Artifact to check.")],
    structure: Annotated[
        Path | None,
        typer.Option(
            help="Structure to check it on (a propagator: with velocities, or at 300 K); its reference frame by default."
        ),
    ] = None,
    nve: Annotated[
        Path | None, typer.Option("--nve", metavar="SYSTEM", help="Test energy conservation on this structure instead.")
    ] = None,
    engine: Annotated[Engine, typer.Option(help="NVE: what runs the dynamics.")] = Engine.openmm,
    temperature: Annotated[float, typer.Option(help="NVE: temperature of the velocities drawn [K].")] = 300.0,
    time: Annotated[float, typer.Option(help="NVE: length of the run for the drift [ps].")] = 10.0,
    timestep: Annotated[
        float | None, typer.Option(help="NVE: its time step [fs]; the middle one of those for the exponent by default.")
    ] = None,
    timesteps: Annotated[
        str | None,
        typer.Option(
            help="NVE: time steps for the exponent [fs]; by the fastest vibration where left out, 0.5,1,2 at most "
            "and 0.125,0.25,0.5 for bonds of hydrogen."
        ),
    ] = None,
    drift_bound: Annotated[float, typer.Option(help="NVE: largest drift that passes [meV/atom/ps].")] = 0.01,
    dtype: Annotated[Precision, typer.Option(help="NVE: precision of the network in the run.")] = Precision.float64,
    seed: Annotated[int, typer.Option(min=0, help="NVE: seed of the velocities.")] = 1,
    report: Annotated[
        Path | None,
        typer.Option(callback=outputs.folder, help="NVE: folder for nve.json, nve.npz, nve.png and report.html."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    trust: Trust = False,
) -> None:
    """Check forces, virial, symmetries and precision (of a propagator: symmetries, momenta, precision and range); or, with
    --nve, a potential's energy conservation. Status 1 unless all pass."""
    if nve is None:
        _checks(artifact, structure, as_json)
        return
    given: dict[str, Any] = {"temperature": temperature, "time": time, "drift_bound": drift_bound, "seed": seed}
    if timestep is not None:
        given["timestep"] = timestep
    if timesteps is not None:
        given["timesteps"] = _numbers(timesteps)
    result = _conservation(artifact, nve, engine, dtype, given, quiet=as_json)
    if report is not None:
        from equistride.trajectories.nve_report import write_conservation

        facts: dict[str, object] = {
            "Artifact": artifact.name, "System": f"{nve.name}, {result.atoms} atoms", "Engine": engine.value,
            "Precision": dtype.value, "Time step": f"{result.setting.timestep:g} fs", "Seed": seed,
        }  # fmt: skip
        write_conservation(result, report, title=f"{artifact.name} on {nve.name}", settings=facts)
    if as_json:
        typer.echo(json.dumps(result.summary(), indent=1))
    else:
        _show(result, artifact, nve)
        if report is not None:
            typer.echo(f"report: {report}")
    if not result.passed:
        raise typer.Exit(1)


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise EquistrideError("the time steps must be numbers", expected="0.5,1,2, say", found=text) from None


def _checks(artifact: Path, structure: Path | None, as_json: bool) -> None:
    from equistride.artifact.validate import validate as run

    checks = run(artifact, structure)
    if as_json:
        rows = [
            {"name": c.name, "error": float(c.error), "bound": c.bound, "unit": c.unit, "passed": c.passed}
            for c in checks
        ]
        typer.echo(json.dumps({"passed": all(c.passed for c in checks), "checks": rows}, indent=1))
    else:
        _table(
            str(artifact), [(c.name, f"{c.error:.1e}", f"{c.bound:.0e}", c.unit, _verdict(c.passed)) for c in checks]
        )
    if not all(c.passed for c in checks):
        raise typer.Exit(1)


def _verdict(passed: bool) -> Verdict:
    return "pass" if passed else "fail"


SHOWN: dict[Verdict, str] = {
    "pass": "[green]pass[/green]", "fail": "[red]FAIL[/red]", "undecided": "[yellow]undecided[/yellow]",
}  # fmt: skip


def _table(title: str, rows: list[tuple[str, str, str, str, Verdict]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in ("check", "error", "bound", "in", ""):
        table.add_column(column, justify="right" if column in ("error", "bound") else "left")
    for *cells, verdict in rows:
        table.add_row(*cells, SHOWN[verdict])
    Console().print(table)


def _conservation(
    artifact: Path, system: Path, engine: Engine, dtype: Precision, given: dict[str, Any], *, quiet: bool
) -> Conservation:
    """Run the test with the settings given; time steps that are not are chosen by the fastest vibration."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from equistride.artifact.structure import structure_of
    from equistride.conservation.nve import Setting, Verlet, conservation
    from equistride.conservation.probes import probe
    from equistride.conservation.steps import highest_frequency, scaling_steps, too_long
    from equistride.data.structures import leave_out_system, read_atoms
    from equistride.engines.ase import EquistrideCalculator
    from equistride.engines.nve import ASEVerlet, OpenMMVerlet

    Setting(**{"timestep": scaling_steps(1.0)[0]} | given)  # what is wrong with them is said before the work
    atoms = read_atoms(system)
    leave_out_system(atoms, system)
    precise = EquistrideCalculator(artifact, dtype="float64")
    calculator = precise if dtype is Precision.float64 else EquistrideCalculator(artifact, dtype=dtype.value)
    frequency = highest_frequency(atoms, precise)
    chosen = scaling_steps(frequency)
    steps: dict[str, Any] = {"timesteps": chosen, "timestep": chosen[1]}
    setting = Setting(**steps | given)
    verlet: Verlet = ASEVerlet(calculator) if engine is Engine.ase else OpenMMVerlet(artifact, atoms, dtype=dtype.value)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as bar:
        task = bar.add_task("velocity Verlet", total=setting.steps)
        result = conservation(atoms, calculator, verlet, setting, tick=lambda steps: bar.advance(task, steps))
        bar.add_task("probes", total=None)
        result.findings = probe(precise.model, structure_of(atoms, precise.model))
    result.notes += too_long(frequency, {setting.timestep, *setting.timesteps})
    return result


def _show(result: Conservation, artifact: Path, system: Path) -> None:
    setting = result.setting
    rows: list[tuple[str, str, str, str, Verdict]] = []
    if result.drift is not None:
        low, high = result.drift.interval
        error = f"{result.drift.slope:+.2g} ({low:+.2g} to {high:+.2g})"
        name = f"drift over {setting.time:g} ps at {setting.timestep:g} fs"
        rows.append((name, error, f"{setting.drift_bound:g}", "meV/atom/ps", result.drift_verdict))
    if result.exponent is not None:
        bounds = "{:g} to {:g}".format(*setting.exponent_bounds)
        verdict = _verdict(result.exponent_passed)
        rows.append(("energy error as a power of dt", f"{result.exponent.value:.3f}", bounds, "", verdict))
    rows += [(f.name, f"{f.error:.1e}", f"{f.bound:.0e}", f.unit, _verdict(f.passed)) for f in result.findings]
    _table(f"{artifact} on {system}, {result.atoms} atoms", rows)
    for finding in result.findings:
        if not finding.passed and finding.remark:
            typer.echo(f"{finding.cause}: {finding.remark}")
    for dt, value in result.fluctuations.items():
        typer.echo(f"rms energy error at {dt:g} fs: {value:.4g} meV/atom")
    if result.temperature is not None:
        typer.echo(f"mean temperature: {result.temperature:.0f} K (velocities drawn at {setting.temperature:g} K)")
    for note in result.notes:
        typer.echo(f"note: {note}")
    typer.echo(result.verdict())
