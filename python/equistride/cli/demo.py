"""``equistride demo``: quartz in OpenMM under a trained potential, then a report."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from equistride.cli import outputs
from equistride.cli.artifact_options import Trust
from equistride.errors import EquistrideError
from equistride.writing import whole_file

if TYPE_CHECKING:
    from equistride.engines.openmm_recorder import Recorder
    from equistride.trajectories.thermo import Segment
    from equistride.trajectories.trajectory import Trajectory

REPEATS = (3, 3, 2)
"""162 atoms."""
TEMPERATURE = 300.0
"""K."""
STEP_FS = 1.0
"""Time step [fs]."""
DRIFT_BOUND = 0.05
"""Largest drift of the total energy that counts as flat [meV/atom/ps]."""
RECORD_EVERY = 5
"""Steps between recorded frames: they resolve frequencies up to 100 THz, far above every mode of quartz."""


def _advance(simulation: Any, steps: int, bar: Any, title: str) -> float:
    """Run with a progress bar; return the speed in ns/day."""
    task = bar.add_task(title, total=steps)
    start = time.perf_counter()
    for done in range(0, steps, 50):
        simulation.step(min(50, steps - done))
        bar.update(task, completed=min(done + 50, steps))
    return steps * STEP_FS * 1e-6 * 86400 / (time.perf_counter() - start)


def _segment(recorder: Recorder, atoms: int, name: str, ensemble: str, first_step: int, speed: float) -> Segment:
    from equistride.trajectories.thermo import Segment
    from equistride.units import BOLTZMANN

    return Segment(
        name=name,
        ensemble=ensemble,
        time=recorder.time_fs,
        potential=recorder.potential_energy,
        kinetic=recorder.kinetic_energy,
        temperature=2 * recorder.kinetic_energy / ((3 * atoms - 3) * BOLTZMANN),
        speed=speed,
        step=first_step + RECORD_EVERY * np.arange(1.0, len(recorder) + 1),
    )


def _reference(frames: int, seed: int) -> Trajectory:
    """Return a trajectory of the potential that the model learned from: same cell, length and spacing, run by LAMMPS."""
    from equistride.data.lammps import LammpsRun
    from equistride.data.quartz import MASSES, quartz
    from equistride.trajectories.trajectory import Trajectory

    atoms = quartz(REPEATS)
    symbols = atoms.get_chemical_symbols()
    run = LammpsRun(atoms.positions, atoms.cell.array, symbols, MASSES, timestep_fs=STEP_FS)
    run.thermalise(TEMPERATURE, 1000, damping_fs=100.0, seed=seed, fresh=True)
    shots = [run.nve(RECORD_EVERY) for _ in range(frames)]
    run.close()
    return Trajectory(
        positions=np.stack([s.positions for s in shots]),
        velocities=np.stack([s.velocities for s in shots]),
        symbols=tuple(symbols),
        time=STEP_FS * RECORD_EVERY * np.arange(frames),
        cell=atoms.cell.array,
        name="reference potential",
    )


def demo(
    model: Annotated[Path, typer.Option(help="Artifact of a quartz potential.")] = Path(
        "models/quartz-esen/quartz-esen.pt"
    ),
    output: Annotated[
        Path, typer.Option("-o", "--output", callback=outputs.folder, help="Folder for trajectory and report.")
    ] = Path("demo"),
    nvt: Annotated[int, typer.Option(min=100, help="Steps at constant temperature.")] = 1000,
    nve: Annotated[int, typer.Option(min=100, help="Steps at constant energy.")] = 2000,
    threads: Annotated[int, typer.Option(min=0, help="Threads of the network; 0 for one a core.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of velocities and thermostat.")] = 1,
    trust: Trust = False,
) -> None:
    """Run 162 atoms of quartz in OpenMM, NVT then NVE, and write report.html, quartz.dcd and quartz.pdb."""
    import os

    import openmm
    import torch
    from openmm import unit
    from openmm.app import DCDReporter, PDBFile, Simulation
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from equistride.artifact import load
    from equistride.bench.timing import processor
    from equistride.data.quartz import quartz
    from equistride.engines.openmm import choose_backend, create_system
    from equistride.engines.openmm_recorder import Recorder
    from equistride.engines.openmm_structure import topology_from_ase
    from equistride.trajectories.report import write_report
    from equistride.trajectories.summary import Bounds
    from equistride.trajectories.trajectory import Trajectory

    metadata = load(model).metadata
    if metadata.kind != "potential":
        raise EquistrideError(
            f"{model} is a {metadata.kind}, which has no forces",
            expected="an artifact of the kind potential",
            hint="run it with TrajCastIntegrator, as examples/quartz_stride.py does",
        )
    torch.set_num_threads(threads or os.cpu_count() or 1)
    used = torch.get_num_threads()  # the reference, run by LAMMPS below, sets another number
    atoms = quartz(REPEATS)
    topology, positions = topology_from_ase(atoms)
    system = create_system(model, topology)
    output.mkdir(parents=True, exist_ok=True)
    with whole_file(output / "quartz.pdb") as partial, partial.open("w") as f:
        PDBFile.writeFile(topology, positions, f)

    bath = openmm.LangevinMiddleIntegrator(TEMPERATURE * unit.kelvin, 10 / unit.picosecond, STEP_FS * unit.femtosecond)
    bath.setRandomNumberSeed(seed)
    verlet = openmm.VerletIntegrator(STEP_FS * unit.femtosecond)
    platform_ = openmm.Platform.getPlatformByName("Reference")
    warm, cold = (Simulation(topology, system, i, platform_) for i in (bath, verlet))
    first, second = Recorder(RECORD_EVERY), Recorder(RECORD_EVERY)
    warm.reporters.append(first)
    cold.reporters += [second, DCDReporter(str(output / "quartz.dcd"), 10)]
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as bar:
        warm.context.setPositions(positions)
        # a crystal at rest takes half of the kinetic energy into its bonds
        warm.context.setVelocitiesToTemperature(2 * TEMPERATURE * unit.kelvin, seed)
        warm_speed = _advance(warm, nvt, bar, f"NVT {TEMPERATURE:.0f} K")
        cold.context.setState(warm.context.getState(positions=True, velocities=True))
        cold.context.setTime(nvt * STEP_FS * unit.femtosecond)
        speed = _advance(cold, nve, bar, "NVE")
        task = bar.add_task("reference and report", total=None)
        trajectory = Trajectory(
            positions=second.positions,
            velocities=second.velocities,
            symbols=tuple(atoms.get_chemical_symbols()),
            time=second.time_fs,
            cell=second.cells,
            energies=second.potential_energy,
            name=metadata.description,
        )
        segments = [
            _segment(first, len(atoms), "NVT", "NVT", 0, warm_speed),
            _segment(second, len(atoms), "NVE", "NVE", nvt, speed),
        ]
        result = write_report(
            output / "report.html",
            title="α-quartz in OpenMM",
            trajectory=trajectory,
            segments=segments,
            subtitle=f"{len(atoms)} atoms under {metadata.description}",
            reference=_reference(len(second), seed),
            steps=nvt + nve,
            speed=speed,
            bounds=Bounds(drift=DRIFT_BOUND),
            machine=f"{processor()}, {used} thread{'s' if used > 1 else ''}",
            model={
                "file": model.name,
                "architecture": metadata.architecture,
                "parameters": f"{metadata.num_parameters:,}",
                "cutoff": f"{metadata.cutoff} Å",
                "precision": metadata.dtype,
                **metadata.accuracy,
            },
            settings={
                "time step": f"{STEP_FS} fs",
                "backend": choose_backend(),
                "NVT": f"{nvt} steps",
                "NVE": f"{nve} steps",
                "seed": seed,
            },
        )
        bar.update(task, total=1, completed=1)
    if result.drift is not None:
        low, high = result.drift.interval
        typer.echo(f"energy drift: {result.drift.slope:+.4f} meV/atom/ps (95 % interval {low:+.4f} to {high:+.4f})")
    typer.echo(f"temperature: {result.temperature['NVE'].value:.1f} K")
    typer.echo(f"speed: {speed:.3f} ns/day for {len(atoms)} atoms at {STEP_FS} fs a step")
    typer.echo(f"report: {output / 'report.html'}    trajectory: {output / 'quartz.dcd'} (topology quartz.pdb)")
