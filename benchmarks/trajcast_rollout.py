"""A long roll-out of the released quartz propagator in OpenMM, beside its teacher in LAMMPS.

Temperatures with block errors, equipartition, coordination, radial distributions, vibrational densities of states
(both sampled once a stride, so that both fold frequencies above 16.7 THz), and the CPU time of a stride. Frames count
after ``--settle`` strides.

The reference is as long as the roll-out and in the same ensemble: the teacher at 300 K under friction of the same strength,
for friction broadens the lines of any spectrum. ``--conserving K`` compares with K frames of the teacher without a
thermostat as well. The first half of a reference is what its second half is compared with, to tell what is noise.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from machine import processor, publish
from openmm import unit
from striding import frame_of, strider

from equistride.data.lammps import LammpsRun
from equistride.data.quartz import MASSES, quartz, repeats_for
from equistride.engines.thermostat import relaxation_times
from equistride.trajectories.rdf import RDF, coordination_number, radial_distributions, rdf_difference, rdf_noise
from equistride.trajectories.temperature import equipartition, kinetic_temperature
from equistride.trajectories.trajectory import Trajectory
from equistride.trajectories.vdos import VDOS, vibrational_density
from equistride.units import ANGSTROM_PER_NM, FS_PER_PS

REPOSITORY = Path(__file__).resolve().parents[1]
MODEL = REPOSITORY / "models" / "quartz-trajcast-30fs" / "quartz-trajcast-30fs.pt"
STRIDE_FS = 30.0
PIECE = 500
"""Frames of a piece of the teacher's run."""
RESOLUTION = 0.5
"""Width of a sharp line in the spectra [THz]."""


def teacher(atoms: int, frames: int, folder: Path, friction_fs: float | None = None) -> Trajectory:
    """The reference potential at 300 K, a frame a stride.

    With ``friction_fs``, 1 / friction [fs]: one run of Langevin dynamics. Without: NVE in pieces of 15 ps that were
    thermalised apart. Each piece is kept in ``folder`` and read from there when it is wanted again.
    """
    ideal = quartz(repeats_for(atoms))
    symbols, pieces = ideal.get_chemical_symbols(), []
    kind = "teacher" if friction_fs is None else f"teacher-{friction_fs:g}fs"
    for piece in range(-(-frames // PIECE)):
        path = folder / f"{kind}-{atoms}-{piece}.npz"
        if not path.is_file():
            start = time.process_time()
            run = LammpsRun(ideal.positions, ideal.cell.array, symbols, MASSES)
            if friction_fs is None or not pieces:
                run.thermalise(300.0, 4000, damping_fs=100.0, seed=11 + piece, fresh=True)
            else:
                run.place(pieces[-1]["x"][-1], pieces[-1]["v"][-1])
            steps = round(STRIDE_FS)
            if friction_fs is None:
                shots = [run.nve(steps) for _ in range(PIECE)]
            else:
                shots = list(run.langevin(300.0, PIECE, steps, damping_fs=friction_fs, seed=101 + piece))
            run.close()
            folder.mkdir(parents=True, exist_ok=True)
            moved = {"x": np.stack([s.positions for s in shots]), "v": np.stack([s.velocities for s in shots])}
            np.savez(path, **{k: a.astype(np.float32) for k, a in moved.items()})
            print(f"{kind}, piece {piece + 1}: {time.process_time() - start:.0f} CPU-s", flush=True)
        with np.load(path) as stored:
            pieces.append({k: stored[k].astype(float) for k in ("x", "v")})
    x, v = (np.concatenate([p[k] for p in pieces])[:frames] for k in ("x", "v"))
    return Trajectory(
        positions=x, velocities=v, symbols=tuple(symbols), time=STRIDE_FS * np.arange(frames), cell=ideal.cell.array,
        pieces_of=np.arange(frames) // PIECE if friction_fs is None else None, name=kind,
    )  # fmt: skip


def rollout(arguments: argparse.Namespace) -> tuple[Trajectory, float]:
    """Strides in OpenMM from the ideal crystal; the trajectory and the CPU seconds of a stride."""
    atoms = quartz(repeats_for(arguments.atoms))
    bath = {"thermostat": arguments.thermostat}
    if arguments.friction:
        bath["friction"] = arguments.friction / unit.picosecond
    if arguments.tau_fs:
        bath["tau"] = arguments.tau_fs / FS_PER_PS * unit.picosecond
    context = strider(arguments.model, atoms, 300.0, 3, **bath)
    integrator = context.getIntegrator()
    shots, spent = [], 0.0
    for k in range(arguments.strides):
        begin = time.process_time()
        integrator.step(1)
        spent += time.process_time() - begin
        if k < arguments.settle:
            continue
        shots.append(frame_of(context))
        if (k + 1) % 500 == 0:
            print(f"{k + 1} strides, {spent / (k + 1):.4f} CPU-s each", flush=True)
    x, v = zip(*shots, strict=True)
    box = np.array(context.getState().getPeriodicBoxVectors()._value) * ANGSTROM_PER_NM
    trajectory = Trajectory(
        positions=np.stack(x), velocities=np.stack(v), symbols=tuple(atoms.get_chemical_symbols()),
        time=STRIDE_FS * np.arange(len(x)), cell=box, name="roll-out",
    )  # fmt: skip
    return trajectory, spent / arguments.strides


@dataclass(frozen=True)
class Measured:
    """A trajectory with its radial distributions and its spectrum."""

    trajectory: Trajectory
    every: int
    """Which frames went into the radial distributions."""
    rdf: dict[tuple[str, str], RDF]
    density: VDOS

    @classmethod
    def of(cls, trajectory: Trajectory) -> Measured:
        """Measure a trajectory; radial distributions take at most two thousand million pairs."""
        every = -(-trajectory.frames * len(trajectory.symbols) ** 2 // 2_000_000_000)
        found = radial_distributions(trajectory.select(slice(None, None, every)), r_max=7.0)
        return cls(trajectory, every, found, vibrational_density(trajectory, resolution=RESOLUTION))

    def describe(self) -> dict[str, Any]:
        """Figures of the trajectory by itself."""
        shared, whole = equipartition(self.trajectory), kinetic_temperature(self.trajectory)
        return {
            "frames": self.trajectory.frames,
            "temperature_K": [whole.value, whole.error],
            "temperature_of_elements_K": {e: [t.value, t.error] for e, t in shared.temperature.items()},
            "oxygen_around_silicon": coordination_number(
                self.rdf["Si", "O"] if ("Si", "O") in self.rdf else self.rdf["O", "Si"]
            ).number,
            "rdf_of_every_nth_frame": self.every,
            "vdos_peaks_THz": [round(float(f), 2) for f in self.density.peaks()],
            "vdos_aliased_percent": 100 * self.density.aliased,
        }

    def compare(self, reference: Measured) -> dict[str, Any]:
        """Differences of the radial distributions, their part that is noise, and of each peak of the reference."""
        own, first, peaks = self.rdf, reference.rdf, self.density.peaks()
        return {
            "rdf_difference_percent": {"-".join(p): 100 * rdf_difference(own[p], first[p]) for p in own},
            "rdf_noise_percent": {"-".join(p): 100 * rdf_noise(own[p], first[p]) for p in own},
            "nearest_peak_from_that_of_the_reference_THz": {
                f"{f:.2f}": round(float(peaks[np.abs(peaks - f).argmin()] - f), 2)
                for f in reference.density.peaks()
                if len(peaks)
            },
        }


def main() -> None:
    """Run all and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--atoms", type=int, default=576)
    parser.add_argument("--strides", type=int, default=10_000)
    parser.add_argument("--settle", type=int, default=100)
    parser.add_argument("--conserving", type=int, default=0, help="frames of the teacher without thermostat")
    parser.add_argument("--teacher", type=Path, default=REPOSITORY / "runs" / "teacher", help="folder of its pieces")
    parser.add_argument("--taught", type=int, help="frames of the teacher; as many as strides by default")
    parser.add_argument("--teacher-only", action="store_true", help="make the teacher's runs, and no other")
    parser.add_argument("--thermostat", choices=("langevin+csvr", "langevin"), default="langevin+csvr")
    parser.add_argument("--friction", type=float, help="1/ps; the integrator's own by default")
    parser.add_argument("--tau-fs", type=float, help="the integrator's own by default")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    bath = {k: v for k, v in vars(arguments).items() if k in ("thermostat", "friction", "tau_fs") and v}
    tau = None if arguments.tau_fs is None else arguments.tau_fs / FS_PER_PS
    _, *times = relaxation_times(arguments.thermostat, STRIDE_FS / FS_PER_PS, tau, arguments.friction)
    taught = teacher(arguments.atoms, arguments.taught or arguments.strides, arguments.teacher, FS_PER_PS * times[0])
    free = teacher(arguments.atoms, arguments.conserving, arguments.teacher) if arguments.conserving else None
    if arguments.teacher_only:
        return
    moved, cost = rollout(arguments)
    found, half = Measured.of(moved), taught.frames // 2
    whole, one, two = (
        Measured.of(taught.select(chosen)) for chosen in (slice(None), slice(0, half), slice(half, None))
    )
    result = {
        "machine": processor(),
        "load": os.getloadavg()[0],
        "atoms": arguments.atoms,
        "strides": arguments.strides,
        "frames of the teacher": taught.frames,
        "thermostat": bath | {"relaxation_fs": FS_PER_PS * times[0]},
        "cpu_seconds_a_stride": cost,
        "roll-out": found.describe() | found.compare(whole),
        "teacher, same friction": whole.describe() | {"its halves": two.compare(one)},
    }
    if free is not None:
        conserving = Measured.of(free)
        result["teacher, no thermostat"] = conserving.describe() | {"roll-out": found.compare(conserving)}
    publish(result, arguments.json)


if __name__ == "__main__":
    main()
