"""Steps of a potential and strides of a propagator in OpenMM: speed, memory, conservation, and where the time goes."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from ase import Atoms

from equistride.artifact import load
from equistride.artifact.model import Model
from equistride.bench.catalogue import Benchmark
from equistride.bench.machine import limits, load_average, peak, reset_peak, resident
from equistride.bench.models import TEMPERATURE, Chosen, check_fits
from equistride.bench.settings import Settings, dtype_of
from equistride.bench.systems import split, structure
from equistride.bench.timing import timed
from equistride.bench.work import work_of
from equistride.conservation.drift import energy_drift
from equistride.errors import EquistrideError
from equistride.graph import neighbor_list
from equistride.units import ANGSTROM_PER_NM, BOLTZMANN, EV_PER_KJ_MOL, FS_PER_PS

STEP_FS = {True: 0.5, False: 1.0}
"""Time step of a potential [fs], with and without hydrogen."""
WARM_STEPS = 2
"""Steps before any is timed: TorchScript compiles in them."""
LEAST_STEPS = 3
LEAST_SAMPLES = {"potential": 9, "propagator": 3}
"""Samples of energy and temperature that a run has at least; a drift needs eight."""
PATIENCE = 5.0
"""How many times longer than wanted a run may take for the sake of its samples."""
SAMPLES = 24
"""Samples that a run aims at."""
FRESH_START = {"potential": 10, "propagator": 1}
"""Steps after which a model of random weights begins again from the first frame, so that the structure, and with it the
number of neighbours, stays what it is."""
MIB = 2.0**20


@dataclass
class Run:
    """What the steps of a test cost: seconds on the clock and of the CPU, and samples of time [fs], energy [eV], temperature."""

    steps: int = 0
    wall: float = 0.0
    cpu: float = 0.0
    samples: list[tuple[float, float, float]] = field(default_factory=list)


class _Simulation:
    """A Context with its system, of a potential or a propagator."""

    def __init__(self, test: Benchmark, chosen: Chosen, settings: Settings, atoms: Atoms, model: Model) -> None:
        import openmm
        from openmm import unit

        from equistride.engines.openmm import TrajCastIntegrator, create_system
        from equistride.engines.openmm_structure import topology_from_ase

        topology, self.positions = topology_from_ase(atoms)
        device = settings.torch_device()
        if test.kind == "potential":
            self.step_fs = STEP_FS["H" in atoms.get_chemical_symbols()]
            precision = settings.precision
            system = create_system(chosen.path, topology, device=device, precision=precision, remove_cm_motion=False)
            integrator: Any = openmm.VerletIntegrator(self.step_fs / FS_PER_PS)
        else:
            self.step_fs = float(model.metadata.stride_fs or 0.0)
            system = create_system(chosen.path, topology, remove_cm_motion=False)
            integrator = TrajCastIntegrator(
                chosen.path, topology, temperature=TEMPERATURE * unit.kelvin, seed=settings.seed, device=device
            )
        platform = openmm.Platform.getPlatformByName(settings.platform_name())
        self.context = openmm.Context(system, integrator, platform, settings.platform_properties())
        self.integrator, self.seed, self.atoms = integrator, settings.seed, len(atoms)
        # a crystal at rest takes half of the kinetic energy into its bonds; a propagator was trained on what comes then.
        # Of a user's structure it is not known whether it rests.
        crystal = test.kind == "potential" and bool(atoms.pbc.all()) and split(test.system)[0] != "file"
        self.temperature = TEMPERATURE * (2 if crystal and chosen.trained else 1)
        self.waits = settings.platform_name() not in ("CPU", "Reference")

    def begin(self) -> None:
        """Put the atoms where they were, with velocities of the temperature."""
        self.context.setPositions(self.positions)
        self.context.setVelocitiesToTemperature(self.temperature, self.seed)

    def step(self, steps: int, run: Run) -> None:
        """Run steps and add their time."""
        cpu, wall = time.process_time(), time.perf_counter()
        self.integrator.step(steps)
        if self.waits:
            self.context.getState(positions=True)
        run.wall += time.perf_counter() - wall
        run.cpu += time.process_time() - cpu
        run.steps += steps

    def sample(self, run: Run) -> None:
        """Add time, total energy and temperature; not timed."""
        state = self.context.getState(energy=True)
        potential, kinetic = (e._value * EV_PER_KJ_MOL for e in (state.getPotentialEnergy(), state.getKineticEnergy()))
        free = max(1, 3 * self.atoms - 3)
        run.samples.append((run.steps * self.step_fs, potential + kinetic, 2 * kinetic / (free * BOLTZMANN)))

    def frame(self) -> tuple[Any, Any]:
        """Return positions [A] and velocities [A/fs] now, float64."""
        state = self.context.getState(positions=True, velocities=True)
        arrays = (state.getPositions(asNumpy=True)._value, state.getVelocities(asNumpy=True)._value)
        return arrays[0] * ANGSTROM_PER_NM, arrays[1] * (ANGSTROM_PER_NM / FS_PER_PS)


def _run(simulation: _Simulation, settings: Settings, kind: str, trained: bool) -> Run:
    """Run for the time wanted, sampling the energy between pieces; with random weights begin again after a few steps."""
    simulation.begin()
    for _ in range(WARM_STEPS):
        if not trained:
            simulation.begin()
        simulation.step(1, Run())
    first, run = Run(), Run()
    if not trained:
        simulation.begin()
    simulation.step(1, first)
    if not trained:
        while run.steps < LEAST_STEPS or run.wall < settings.seconds:
            simulation.begin()
            simulation.step(FRESH_START[kind], run)
        return run
    piece = max(1, int(settings.seconds / max(first.wall, 1e-6)) // SAMPLES)
    # where so many steps take far longer than wanted there are no samples, each of which costs a potential another step
    wanted = LEAST_SAMPLES[kind] if first.wall * LEAST_SAMPLES[kind] < PATIENCE * settings.seconds else 0
    if wanted:
        simulation.sample(run)
    while run.wall < settings.seconds or run.steps < LEAST_STEPS or len(run.samples) < wanted:
        simulation.step(piece, run)
        if wanted:
            simulation.sample(run)
    return run


def _conserved(run: Run, kind: str, atoms: int) -> dict[str, Any]:
    """Return the drift of the energy with its interval, or the mean temperature of the second half."""
    rows = np.array(run.samples)
    if not len(rows):
        return {}
    if kind == "propagator":
        return {"temperature_K": float(rows[len(rows) // 2 :, 2].mean())}
    try:
        drift = energy_drift(rows[:, 0], rows[:, 1], atoms)
    except EquistrideError:  # too few steps to tell
        return {}
    return {
        "drift_meV_per_atom_per_ps": drift.slope,
        "drift_interval": list(drift.interval),
        "drift_span_ps": drift.span,
        "fluctuation_meV_per_atom": drift.fluctuation,
        "temperature_K": float(rows[len(rows) // 2 :, 2].mean()),
    }


def _stages(
    model: Model, positions: Any, velocities: Any, atoms: Atoms, device: str, step: float, on_cpu: bool
) -> dict[str, Any]:
    """Return seconds of a step in the neighbour list, in the model, and in the engine (what is left), with shares."""
    species = model.species_index(atoms.get_chemical_symbols())
    cell, pbc = atoms.cell.array if atoms.pbc.all() else np.zeros((3, 3)), bool(atoms.pbc.all())
    place = torch.tensor(positions, dtype=model.dtype, device=device)
    box = torch.tensor(cell, dtype=model.dtype, device=device)
    repeats = 1 if step > 1.0 else 3

    def whole() -> object:
        if model.metadata.kind == "propagator":
            return model.propagate(positions, velocities, species, cell, pbc)
        return model.compute(positions, species, cell, pbc)

    listed = timed(lambda: neighbor_list(place, box, pbc, model.metadata.cutoff), 3, device=device)
    evaluated = timed(whole, repeats, device=device)
    edges = neighbor_list(place, box, pbc, model.metadata.cutoff)[0].size(1)
    lists, network = (listed.cpu, evaluated.cpu) if on_cpu else (listed.wall, evaluated.wall)
    parts = {"neighbors": lists, "model": max(0.0, network - lists), "engine": max(0.0, step - network)}
    total = sum(parts.values())
    return {
        "edges": edges,
        "stage_seconds": parts,
        "stage_share": {name: value / total for name, value in parts.items()},
    }


def flops_of_step(model: Model, test: Benchmark, atoms: Atoms) -> float:
    """Return the work of a step, counted on the smallest system of the family and scaled with the number of atoms."""
    small = structure(test.smallest().system)
    species = model.species_index(small.get_chemical_symbols())
    cell, pbc = small.cell.array, bool(small.pbc.all())
    resting = np.full((len(small), 3), 1e-3)

    def call() -> object:
        if model.metadata.kind == "propagator":
            return model.propagate(small.positions, resting, species, cell, pbc)
        return model.compute(small.positions, species, cell, pbc)

    return work_of(call) * len(atoms) / len(small)


def measure(test: Benchmark, chosen: Chosen, settings: Settings) -> dict[str, Any]:
    """Run a potential or a propagator in OpenMM.

    Parameters
    ----------
    test
        Of the kind ``potential`` (NVE, ``VerletIntegrator``) or ``propagator`` (``TrajCastIntegrator``, its own thermostat).
    chosen
        Its model.
    settings
        Of the run.

    Returns
    -------
    dict
        Figures in the units that their names say; ``us`` are microseconds, ``cpu`` CPU time of all threads. Memory is what
        the process holds at its peak beyond what it held with libraries and model loaded.

    Raises
    ------
    EquistrideError
        Where the model does not fit the system, cannot run in that precision, or the run breaks off.
    """
    import openmm

    torch.set_num_threads(settings.threads)
    device = settings.torch_device()
    stored = load(chosen.path, verify=False).metadata
    dtype = dtype_of(settings.precision, stored.dtype)
    if test.kind == "propagator" and settings.precision and str(dtype) != f"torch.{stored.dtype}":
        raise EquistrideError(
            f"{chosen.path.name} was exported in {stored.dtype}, and an integrator runs a propagator as it was exported",
            expected=f"--precision {settings.precision} of an artifact of that precision",
            hint=f"export it again with --dtype {str(dtype).removeprefix('torch.')}",
        )
    atoms = structure(test.system)
    check_fits(stored, chosen.title, test.title, atoms)
    model = load(chosen.path, device, dtype)
    load_before, base = load_average(), resident()
    reset_peak(device)
    try:
        simulation = _Simulation(test, chosen, settings, atoms, model)
        run = _run(simulation, settings, test.kind, chosen.trained)
        held = peak()
        gpu = torch.cuda.max_memory_allocated(device) if device != "cpu" else 0
        frame = simulation.frame()
    except openmm.OpenMMException as error:
        raise EquistrideError(
            f"{test.name} broke off: {' '.join(str(error).split())}",
            hint="give a system like those it was trained on, with --structure FILE",
        ) from None
    if not np.isfinite(frame[0]).all():
        raise EquistrideError(f"{test.name} broke off: positions are not finite", hint="try another model")
    on_cpu = device == "cpu"
    step = (run.cpu if on_cpu else run.wall) / run.steps
    top = limits(dtype, device)
    # on a CPU, where the fused operators count what they need and no more
    flops = flops_of_step(model if on_cpu else load(chosen.path), test, atoms)
    count = len(atoms)
    result = {
        "name": test.name, "kind": test.kind, "system": test.title, "atoms": count, "model": chosen.title,
        "trained": chosen.trained, "parameters": stored.num_parameters, "cutoff_A": stored.cutoff,
        "platform": settings.platform_name(), "precision": str(dtype).removeprefix("torch."), "device": device,
        "threads": settings.threads, "load_average": load_before, "step_fs": simulation.step_fs, "steps": run.steps,
        **speed(count, simulation.step_fs, run.steps, run.wall, run.cpu),
        "peak_MiB": held / MIB, "baseline_MiB": base / MIB, "bytes_per_atom": (held - base) / count,
        **({"gpu_peak_MiB": gpu / MIB} if gpu else {}),
        **_conserved(run, test.kind, count),
        **_stages(model, *frame, atoms, device, step, on_cpu),
        "flops_per_step": flops, "gemm_gflops": top.gemm / 1e9, "copy_gb_per_s": top.copy / 1e9,
        "share_of_limit": flops / top.gemm / step,
    }  # fmt: skip
    return result


def speed(atoms: int, step_fs: float, steps: int, wall: float, cpu: float) -> dict[str, float]:
    """Return the figures that follow from steps of ``step_fs`` [fs], seconds on the clock and of the CPU."""
    return {
        "wall_seconds": wall,
        "cpu_seconds": cpu,
        "ns_per_day": steps * step_fs * 1e-6 * 86400 / wall,
        "atom_steps_per_second": atoms * steps / wall,
        "us_per_atom_step": 1e6 * wall / (atoms * steps),
        "cpu_us_per_atom_step": 1e6 * cpu / (atoms * steps),
    }
