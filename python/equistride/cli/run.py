"""``equistride run``: a simulation of one structure under one model, in OpenMM, LAMMPS or ASE."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from equistride.cli import outputs
from equistride.cli.artifact_options import Trust, tell_unused
from equistride.errors import EquistrideError, tell

if TYPE_CHECKING:
    from ase import Atoms

    from equistride.simulation.run import Result
    from equistride.simulation.settings import Settings

RANK = "PMI_RANK"
"""Variable of the environment by which MPICH numbers the processes of an ``mpiexec``."""
LOOK = 0.2
"""Seconds between looks at a stop that is to be passed on."""


def run(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(help="Artifact of a potential or a propagator.")],
    structure: Annotated[Path, typer.Argument(help="Structure, in any format that ASE reads.")],
    output: Annotated[Path, typer.Option("-o", "--output", callback=outputs.folder, help="Folder of the run.")] = Path(
        "run"
    ),
    engine: Annotated[str, typer.Option(help="openmm, lammps or ase.")] = "openmm",
    ensemble: Annotated[
        str, typer.Option(help="nvt, nve, npt (the whole cell moves; by strides its axes) or minimise (in its cell).")
    ] = "nvt",
    time: Annotated[str, typer.Option(help="Simulated time, as 10ps.")] = "10ps",
    timestep: Annotated[
        str | None,
        typer.Option(help="Time step, 1fs by default; of a propagator one of its strides, by default the longest."),
    ] = None,
    temperature: Annotated[float, typer.Option(help="Of bath and first velocities [K].")] = 300.0,
    pressure: Annotated[float, typer.Option(help="Of the barostat [bar].")] = 1.0,
    every: Annotated[int, typer.Option(min=1, help="Steps between frames and lines of the table.")] = 100,
    supercell: Annotated[str | None, typer.Option(help="Repeats of the structure, as 3,3,3.")] = None,
    trajectory: Annotated[str, typer.Option(help="dcd, xtc, or extxyz (velocities and energies too).")] = "dcd",
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in the folder.")] = False,
    seed: Annotated[int, typer.Option(min=1, help="Seed of velocities and bath.")] = 1,
    max_force: Annotated[float, typer.Option(help="Where a minimisation ends [eV/A].")] = 0.01,
    guard: Annotated[
        Path | None, typer.Option(help="Of a propagator: potential that checks strides, and whose energy npt goes by.")
    ] = None,
    precision: Annotated[str | None, typer.Option(help="float32 or float64; the artifact's own by default.")] = None,
    device: Annotated[str, typer.Option(help="Where the network runs: cpu, cuda, cuda:1.")] = "cpu",
    processes: Annotated[int, typer.Option(min=1, help="LAMMPS: processes of MPI.")] = 1,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Write report.html at the end.")] = True,
    trust: Trust = False,
) -> None:
    """Run a simulation; Ctrl-C ends it with a checkpoint, and --resume goes on."""
    from equistride.data.structures import read_atoms
    from equistride.simulation.settings import Settings, femtoseconds

    words: dict[str, Any] = {"engine": engine, "ensemble": ensemble, "trajectory": trajectory}
    settings = Settings(
        time_fs=femtoseconds(time, "time"), timestep_fs=femtoseconds(timestep, "time step") if timestep else None,
        every=every, temperature=temperature, pressure=pressure, seed=seed, precision=precision, device=device,
        max_force=max_force, guard=None if guard is None else str(guard), **words,
    )  # fmt: skip
    if processes > 1 and RANK not in os.environ:
        if engine != "lammps":
            raise EquistrideError(
                f"{engine} runs on one process", hint="choose --engine lammps, or leave --processes out"
            )
        raise typer.Exit(_on_processes(processes, output))
    _tell_unused(context, ensemble)
    atoms = read_atoms(structure, moving=ensemble != "minimise")
    if supercell is not None:
        from equistride.cli.properties import three
        from equistride.data.structures import repeated

        atoms = repeated(atoms, three(supercell, "supercell"))
    result = _watched(model, atoms, settings, output, resume)
    if result.leads:
        _tell(result)
        if report and ensemble != "minimise" and not result.stopped:
            _report(result, model, output)
    if RANK in os.environ:  # all wait for the first, which MPI would end with the others: atoms of all are gathered
        result.engine.moment()
    if result.stopped:  # on every process: mpiexec returns any of their statuses
        raise typer.Exit(130)


def _tell_unused(context: typer.Context, ensemble: str) -> None:
    """Tell of options that were given and do nothing with this ensemble."""
    unused = ["time", "timestep", "temperature", "pressure", "every", "trajectory", "seed", "report"]
    if ensemble != "minimise":
        unused = ["max_force"] + ["pressure"] * (ensemble != "npt")
    if int(os.environ.get(RANK, "0")) == 0:
        tell_unused(context, unused, f"with --ensemble {ensemble}")


def _on_processes(count: int, folder: Path) -> int:
    """Run this command again on many processes; pass a stop on to them by a file, and a second one as a signal."""
    import signal

    from equistride.lammps.host import mpiexec
    from equistride.simulation.run import STOP

    launcher = mpiexec()
    if launcher is None:
        raise EquistrideError("there is no mpiexec", hint="pip install 'equistride[lammps]'")
    command = [launcher, "-n", str(count), sys.executable, "-m", "equistride.cli.main", *sys.argv[1:]]
    environment = {"MPIR_CVAR_ENABLE_HEAVY_YIELD": "1", "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // count))}
    child = subprocess.Popen(command, env=environment | os.environ, start_new_session=True)
    wishes = 0

    def wish(*_: object) -> None:
        nonlocal wishes
        wishes += 1
        if wishes > 1:
            os.killpg(child.pid, signal.SIGTERM)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, wish)
    while True:
        try:
            status = child.wait(LOOK)
            break
        except subprocess.TimeoutExpired:
            # again and again: the processes make the folder, and clear away a stop of before, at a time of their own
            if wishes and folder.is_dir():
                (folder / STOP).touch()
    if wishes:
        (folder / STOP).unlink(missing_ok=True)
    return 130 if wishes > 1 else status


def _watched(model: Path, atoms: Atoms, settings: Settings, folder: Path, resume: bool) -> Result:
    """Simulate with a live line: time, temperature, energy, speed, and what is left."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from equistride.simulation import simulate

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:.0f} %"),
        TimeRemainingColumn(),
    )
    if settings.ensemble != "minimise" and not resume and atoms.get_momenta().any():
        tell(f"the structure has velocities, of {atoms.get_temperature():.0f} K, with which the run begins")
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=int(os.environ.get(RANK, "0")) > 0) as bar:
        task = bar.add_task(f"{settings.engine} {settings.ensemble}", total=settings.time_fs)
        tenth = 0

        def show(time: float, moment: Any, speed: float) -> None:
            nonlocal tenth
            energy = "" if math.isnan(moment.potential) else f"  E {moment.potential + moment.kinetic:.4f} eV"
            text = f"{time / 1e3:.3f} ps  {moment.temperature:.0f} K{energy}  {speed:.3g} ns/day"
            bar.update(task, completed=time, description=text)
            if not console.is_terminal and (done := int(10 * time / settings.time_fs)) > tenth:
                tenth = done
                typer.echo(text, err=True)

        return simulate(model, atoms, settings, folder, resume=resume, report=show)


def _tell(result: Result) -> None:
    moment, settings = result.last, result.settings
    if settings.ensemble == "minimise":
        typer.echo(f"minimised: {moment.potential:.6f} eV; structure: {result.files['structure']}")
        return
    energy = "" if math.isnan(moment.potential) else f", potential energy {moment.potential:.4f} eV"
    done = f"{result.step * settings.step_fs / 1e3:g} ps in {result.step} steps"
    typer.echo(f"{done}: {moment.temperature:.0f} K{energy}, {result.speed:.3g} ns/day")
    typer.echo(f"trajectory: {result.files['trajectory']}    table: {result.files['table']}")
    if result.stopped:
        typer.echo(f"stopped; the same command with --resume goes on from step {result.step}")


def _report(result: Result, model: Path, folder: Path) -> None:
    from equistride.trajectories import read_state_csv, read_trajectory, write_report

    settings = result.settings
    if settings.steps // settings.every < 2:
        typer.echo("note: fewer than two frames, so there is no report")
        return
    path, table = result.files["trajectory"], result.files["table"]
    topology = None if path.suffix == ".extxyz" else result.files["structure"]
    run = read_trajectory(path, topology=topology)
    metadata = result.metadata
    write_report(
        folder / "report.html", title=metadata.description or model.stem, subtitle=f"{run.formula}, {run.frames} frames",
        trajectory=run, segments=[read_state_csv(table, ensemble=settings.ensemble.upper())], speed=result.speed,
        steps=result.step,
        model={"file": model.name, "architecture": metadata.architecture, "precision": settings.precision or metadata.dtype},
        settings={"engine": settings.engine, "time step": f"{settings.step_fs:g} fs", "seed": settings.seed},
    )  # fmt: skip
    typer.echo(f"report: {folder / 'report.html'}")
