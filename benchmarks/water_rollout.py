"""A propagator of water in OpenMM beside its teacher: structure, diffusion, temperatures, time of a stride.

    equistride distil examples/water/water64.extxyz --teacher examples/water/spc_fw.py:water --stride 5 --relax none -o runs/water
    python benchmarks/water_rollout.py runs/water/h2o-trajcast.pt --folder runs/water-long
    python benchmarks/water_rollout.py runs/water/h2o-trajcast.pt --folder runs/water-long --repeats 3   # 5,184 atoms

Strides of a network that errs by half a per cent cool slow motion by a few K/ps, and rescaling all alike (``csvr``) heats the
rest: weak friction keeps both at their temperature; 1/ps takes a hundredth of the diffusion. The teacher moves at constant
energy in pieces, each of velocities of its own after 5 ps at 300 K. Both runs are kept in ``--folder`` a piece at a time and read
from there when they are wanted again. Self-diffusion is that of the box: both have the same, so no correction for its size.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from ase import Atoms
from ase.io import read
from machine import processor, publish
from openmm import unit
from striding import frame_of, strider

from equistride.trajectories.msd import CM2_S_PER_A2_FS, mean_square_displacement
from equistride.trajectories.rdf import radial_distributions, rdf_difference, rdf_noise
from equistride.trajectories.temperature import equipartition, kinetic_temperature
from equistride.trajectories.trajectory import Trajectory
from equistride.units import FS_PER_PS
from equistride.user_code import imported

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "water"
STRIDE_FS, EVERY = 5.0, 4
"""fs, and strides from the one frame that is kept to the next."""
PIECE = 1000
"""Frames of a piece of 20 ps."""


def velocity_verlet(timestep: float) -> openmm.CustomIntegrator:
    """Constant energy, with velocities of the positions' time."""
    integrator = openmm.CustomIntegrator(timestep)
    for variable, expression in (("v", "v + 0.5*dt*f/m"), ("x", "x + dt*v"), ("v", "v + 0.5*dt*f/m")):
        integrator.addComputePerDof(variable, expression)
    return integrator


def teacher(atoms: Atoms, pieces: int, folder: Path) -> list[dict[str, Any]]:
    """The teacher at constant energy, in pieces of velocities of their own."""
    made, taught = [], imported(str(FOLDER / "spc_fw.py"))
    steps = round(EVERY * STRIDE_FS / FS_PER_PS / taught.TIMESTEP_PS)
    for piece in range(pieces):
        path = folder / f"teacher-{len(atoms)}-{piece}.npz"
        if not path.is_file():
            whole = openmm.CompoundIntegrator()
            bath = openmm.LangevinMiddleIntegrator(300.0, 2.0, taught.TIMESTEP_PS)
            bath.setRandomNumberSeed(11 + piece)
            whole.addIntegrator(bath)
            whole.addIntegrator(velocity_verlet(taught.TIMESTEP_PS))
            context = taught.context_of(atoms, whole)
            context.setVelocitiesToTemperature(300.0, 11 + piece)
            whole.step(round(5.0 / taught.TIMESTEP_PS))
            whole.setCurrentIntegrator(1)
            shots = []
            for _ in range(PIECE):
                whole.step(steps)
                shots.append(frame_of(context))
            keep(path, shots)
        made.append(dict(np.load(path)))
    return made


def keep(path: Path, shots: list[tuple[Any, Any]], **more: Any) -> None:
    """Write frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    x, v = (np.stack(part).astype(np.float32) for part in zip(*shots, strict=True))
    np.savez(path, x=x, v=v, **more)


def strides(arguments: argparse.Namespace, atoms: Atoms, pieces: int) -> list[dict[str, Any]]:
    """The propagator in OpenMM; it goes on from the checkpoint of the last piece."""
    bath = {"friction": arguments.friction / unit.picosecond} if "langevin" in arguments.thermostat else {}
    context = strider(arguments.model, atoms, 300.0, 3, thermostat=arguments.thermostat, **bath)
    integrator = context.getIntegrator()
    made: list[dict[str, Any]] = []
    name = f"{arguments.model.stem}-{arguments.thermostat}-{len(atoms)}"
    for piece in range(pieces):
        path = arguments.folder / f"{name}-{piece}.npz"
        if not path.is_file():
            if made:
                context.loadCheckpoint(path.with_name(f"{name}-{piece - 1}.chk").read_bytes())
            begin, shots = time.process_time(), []
            for _ in range(arguments.frames):
                integrator.step(EVERY)
                shots.append(frame_of(context))
            spent = (time.process_time() - begin) / (EVERY * arguments.frames)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_suffix(".chk").write_bytes(context.createCheckpoint())
            keep(path, shots, seconds=spent)
        made.append(dict(np.load(path)))
        print(f"piece {piece + 1} of {pieces}: {float(made[-1]['seconds']):.4f} CPU-s a stride", flush=True)
    return made


def joined(pieces: list[dict[str, Any]], atoms: Atoms, name: str, settle: int = 0) -> Trajectory:
    """Return pieces as a trajectory, without the first frames of a run that was begun with new velocities."""
    x, v = (np.concatenate([p[k] for p in pieces])[settle:].astype(float) for k in ("x", "v"))
    apart = name == "teacher"
    return Trajectory(
        positions=x, velocities=v, symbols=tuple(atoms.get_chemical_symbols()),
        time=EVERY * STRIDE_FS * np.arange(len(x)), cell=atoms.cell.array, name=name,
        pieces_of=np.repeat(np.arange(len(pieces)), [len(p["x"]) for p in pieces]) if apart else None,
    )  # fmt: skip


def described(run: Trajectory) -> dict[str, Any]:
    """Temperatures, and the diffusion of oxygen from displacements over 2 to 8 ps."""
    whole, shared = kinetic_temperature(run), equipartition(run)
    msd = mean_square_displacement(run, "O", max_lag=8000.0)
    found = msd.diffusion(start=2000.0, stop=8000.0)
    return {
        "ps": run.frames * EVERY * STRIDE_FS / FS_PER_PS,
        "temperature_K": [whole.value, whole.error],
        "temperature_of_elements_K": {e: [t.value, t.error] for e, t in shared.temperature.items()},
        "diffusion_1e-5_cm2_s": [1e5 * CM2_S_PER_A2_FS * found.coefficient, 1e5 * CM2_S_PER_A2_FS * found.error],
    }


def main() -> None:
    """Run both and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--box", type=Path, default=FOLDER / "water64.extxyz", help="64 molecules of the liquid")
    parser.add_argument("--folder", type=Path, required=True, help="where runs are kept")
    parser.add_argument("--repeats", type=int, default=1, help="of the box along each axis, for the propagator")
    parser.add_argument("--pieces", type=int, default=10, help="of the propagator's run")
    parser.add_argument("--frames", type=int, default=PIECE, help="of a piece, four strides apart")
    parser.add_argument("--taught", type=int, default=10, help="pieces of the teacher, of the box itself")
    parser.add_argument("--thermostat", default="langevin+csvr")
    parser.add_argument("--friction", type=float, default=1.0, help="1/ps, of langevin")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    box = read(arguments.box)
    assert isinstance(box, Atoms)
    taught = joined(teacher(box, arguments.taught, arguments.folder), box, "teacher")
    large = box.repeat(arguments.repeats)
    pieces = strides(arguments, large, arguments.pieces)
    moved = joined(pieces, large, "propagator", settle=50)
    seconds = float(np.mean([p["seconds"] for p in pieces]))
    reach = 6.0
    every = max(1, moved.frames * len(large) ** 2 // 2_000_000_000)
    own, known = (radial_distributions(t, r_max=reach) for t in (moved.select(slice(None, None, every)), taught))
    publish(
        {
            "machine": processor(),
            "load": os.getloadavg()[0],
            "atoms": len(large),
            "strides": EVERY * arguments.frames * arguments.pieces,
            "thermostat": arguments.thermostat,
            "friction_1/ps": arguments.friction,
            "cpu_seconds_a_stride": seconds,
            "ns_a_day_of_one_thread": 86400 / seconds * STRIDE_FS * 1e-6,
            "propagator": described(moved),
            "teacher": described(taught),
            "rdf_difference_percent": {"-".join(p): 100 * rdf_difference(own[p], known[p]) for p in own},
            "rdf_noise_percent": {"-".join(p): 100 * rdf_noise(own[p], known[p]) for p in own},
        },
        arguments.json,
    )


if __name__ == "__main__":
    main()
