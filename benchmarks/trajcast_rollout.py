"""A long roll-out of the released quartz propagator in OpenMM, beside its teacher in LAMMPS.

Temperatures with block errors, equipartition, coordination, radial distributions, vibrational densities of states
(both sampled once a stride, so that both fold frequencies above 16.7 THz), and the CPU time of a stride. Frames count
after ``--settle`` strides. The first half of the teacher's NVE frames is what its second half, and the roll-out, are
compared with.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from machine import processor
from openmm import unit

from equistride.analysis.blocks import Floats
from equistride.analysis.rdf import coordination_number, radial_distributions, rdf_difference, rdf_noise
from equistride.analysis.temperature import equipartition, kinetic_temperature
from equistride.analysis.trajectory import Trajectory
from equistride.analysis.vdos import vibrational_density
from equistride.data.lammps import LammpsRun
from equistride.data.quartz import MASSES, quartz, repeats_for
from equistride.engines.openmm import TrajCastIntegrator, create_system
from equistride.engines.openmm_structure import topology_from_ase
from equistride.units import ANGSTROM_PER_NM, FS_PER_PS

REPOSITORY = Path(__file__).resolve().parents[1]
MODEL = REPOSITORY / "models" / "quartz-trajcast-30fs" / "quartz-trajcast-30fs.pt"
STRIDE_FS = 30.0
PIECE = 500
"""Frames of a piece of the teacher's run."""
RESOLUTION = 0.5
"""Width of a sharp line in the spectra [THz]."""


def teacher(atoms: int, frames: int, folder: Path) -> Trajectory:
    """NVE of the reference potential at about 300 K, in pieces of 15 ps that were thermalised apart.

    Each piece is kept in ``folder`` and read from there when it is wanted again.
    """
    ideal = quartz(repeats_for(atoms))
    symbols, pieces = ideal.get_chemical_symbols(), []
    for piece in range(-(-frames // PIECE)):
        path = folder / f"teacher-{atoms}-{piece}.npz"
        if not path.is_file():
            start = time.process_time()
            run = LammpsRun(ideal.positions, ideal.cell.array, symbols, MASSES)
            run.thermalise(300.0, 4000, damping_fs=100.0, seed=11 + piece, fresh=True)
            shots = [run.nve(round(STRIDE_FS)) for _ in range(PIECE)]
            run.close()
            folder.mkdir(parents=True, exist_ok=True)
            moved = {"x": np.stack([s.positions for s in shots]), "v": np.stack([s.velocities for s in shots])}
            np.savez(path, **{k: a.astype(np.float32) for k, a in moved.items()})
            print(f"teacher, piece {piece + 1}: {time.process_time() - start:.0f} CPU-s", flush=True)
        with np.load(path) as stored:
            pieces.append({k: stored[k].astype(float) for k in ("x", "v")})
    x, v = (np.concatenate([p[k] for p in pieces])[:frames] for k in ("x", "v"))
    return Trajectory(
        positions=x, velocities=v, symbols=tuple(symbols), time=STRIDE_FS * np.arange(frames), cell=ideal.cell.array,
        pieces_of=np.arange(frames) // PIECE, name="teacher",
    )  # fmt: skip


def rollout(arguments: argparse.Namespace) -> tuple[Trajectory, float]:
    """Strides in OpenMM from the ideal crystal; the trajectory and the CPU seconds of a stride."""
    atoms = quartz(repeats_for(arguments.atoms))
    topology, positions = topology_from_ase(atoms)
    bath = {"temperature": 300 * unit.kelvin, "thermostat": arguments.thermostat, "seed": 3}
    if arguments.friction:
        bath["friction"] = arguments.friction / unit.picosecond
    if arguments.tau_fs:
        bath["tau"] = arguments.tau_fs / FS_PER_PS * unit.picosecond
    integrator = TrajCastIntegrator(arguments.model, topology, **bath)
    context = openmm.Context(create_system(arguments.model, topology), integrator)
    context.setPositions(positions)
    context.setVelocitiesToTemperature(300 * unit.kelvin, 3)
    x, v, spent = [], [], 0.0
    for k in range(arguments.strides):
        begin = time.process_time()
        integrator.step(1)
        spent += time.process_time() - begin
        if k < arguments.settle:
            continue
        state = context.getState(positions=True, velocities=True)
        x.append(state.getPositions(asNumpy=True)._value * ANGSTROM_PER_NM)
        v.append(state.getVelocities(asNumpy=True)._value * ANGSTROM_PER_NM / FS_PER_PS)
        if (k + 1) % 500 == 0:
            print(f"{k + 1} strides, {spent / (k + 1):.4f} CPU-s each", flush=True)
    box = np.array(topology.getPeriodicBoxVectors()._value) * ANGSTROM_PER_NM
    trajectory = Trajectory(
        positions=np.stack(x), velocities=np.stack(v), symbols=tuple(atoms.get_chemical_symbols()),
        time=STRIDE_FS * np.arange(len(x)), cell=box, name="roll-out",
    )  # fmt: skip
    return trajectory, spent / arguments.strides


def part(trajectory: Trajectory, chosen: slice) -> Trajectory:
    """Some frames of a trajectory."""
    assert trajectory.velocities is not None
    return Trajectory(
        positions=trajectory.positions[chosen], velocities=trajectory.velocities[chosen], symbols=trajectory.symbols,
        time=trajectory.time[chosen], cell=trajectory.cell, name=trajectory.name,
        pieces_of=None if trajectory.pieces_of is None else trajectory.pieces_of[chosen],
    )  # fmt: skip


def describe(trajectory: Trajectory, reference: dict[Any, Any], peaks: Floats) -> dict[str, Any]:
    """Figures of a trajectory, its RDFs and the peaks of its spectrum beside those of the reference."""
    shared, found = equipartition(trajectory), radial_distributions(trajectory, r_max=7.0)
    whole, density = kinetic_temperature(trajectory), vibrational_density(trajectory, resolution=RESOLUTION)
    own = density.peaks()
    nearest = [float(own[np.abs(own - f).argmin()] - f) for f in peaks] if len(own) else []
    return {
        "frames": trajectory.frames,
        "temperature_K": [whole.value, whole.error],
        "temperature_of_elements_K": {e: [t.value, t.error] for e, t in shared.temperature.items()},
        "oxygen_around_silicon": coordination_number(
            found["Si", "O"] if ("Si", "O") in found else found["O", "Si"]
        ).number,
        "rdf_difference_percent": {"-".join(p): 100 * rdf_difference(found[p], reference[p]) for p in found},
        "rdf_noise_percent": {"-".join(p): 100 * rdf_noise(found[p], reference[p]) for p in found},
        "vdos_peaks_THz": [round(float(f), 2) for f in own],
        "vdos_peaks_from_those_of_the_reference_THz": [round(d, 2) for d in nearest],
        "vdos_aliased_percent": 100 * density.aliased,
    }


def main() -> None:
    """Run both and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--atoms", type=int, default=576)
    parser.add_argument("--strides", type=int, default=10_000)
    parser.add_argument("--settle", type=int, default=100)
    parser.add_argument("--teacher-frames", type=int, help="as many as strides by default")
    parser.add_argument("--teacher", type=Path, default=REPOSITORY / "runs" / "teacher", help="folder of its pieces")
    parser.add_argument("--teacher-only", action="store_true", help="make the teacher's run, and no other")
    parser.add_argument("--thermostat", choices=("langevin+csvr", "langevin", "csvr"), default="langevin+csvr")
    parser.add_argument("--friction", type=float, help="1/ps; the integrator's own by default")
    parser.add_argument("--tau-fs", type=float, help="the integrator's own by default")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    taught = teacher(arguments.atoms, arguments.teacher_frames or arguments.strides, arguments.teacher)
    if arguments.teacher_only:
        return
    moved, cost = rollout(arguments)
    half = taught.frames // 2
    begun = part(taught, slice(0, half))
    first = radial_distributions(begun, r_max=7.0)
    peaks = vibrational_density(begun, resolution=RESOLUTION).peaks()
    result = {
        "machine": processor(),
        "load": os.getloadavg()[0],
        "atoms": arguments.atoms,
        "strides": arguments.strides,
        "thermostat": {k: v for k, v in vars(arguments).items() if k in ("thermostat", "friction", "tau_fs") and v},
        "cpu_seconds_a_stride": cost,
        "reference_peaks_THz": [round(float(f), 2) for f in peaks],
        "roll-out": describe(moved, first, peaks),
        "teacher, second half": describe(part(taught, slice(half, taught.frames)), first, peaks),
    }
    print(json.dumps(result, indent=1))
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
