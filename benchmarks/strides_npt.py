"""Lattice constants of quartz at constant pressure: strides with their barostat beside the teacher's molecular dynamics.

    OMP_NUM_THREADS=1 python benchmarks/strides_npt.py [--temperatures 100 300 500] [--strides 3000]

Strides of models/quartz-trajcast-30fs, whose box moves by the energy of models/quartz-esen, every 5 strides; `fix npt` of LAMMPS
with SiO.1990.vashishta, which both learned from, of the same simulated time and half as much again. Both keep the angles and have
one factor for a and b. Means over all but the first fifth, with standard errors from blocks. 162 atoms, 1 bar.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
from ase import Atoms
from machine import processor, publish
from numpy.typing import NDArray

from equistride.cell import lower_triangular
from equistride.data.lammps import LammpsRun, lattice
from equistride.data.quartz import quartz
from equistride.engines.ase_dynamics import TrajCastDynamics
from equistride.engines.barostat import Barostat
from equistride.engines.guard import Guard
from equistride.series import plateau

MODELS = Path(__file__).resolve().parents[1] / "models"
TEACHER = "SiO.1990.vashishta"
REPEATS = (3, 3, 2)
STRIDE = 30.0
SHARE = 0.2
"""Of a run, that is left out at its start."""


def constants(cell: NDArray[np.float64]) -> tuple[float, float]:
    """Return a and c [A]."""
    return float(np.linalg.norm(cell[0])) / REPEATS[0], float(np.linalg.norm(cell[2])) / REPEATS[2]


def strides(temperature: float, count: int, seed: int) -> NDArray[np.float64]:
    """Return a and c [n, 2] along a run of strides."""
    atoms: Atoms = quartz(REPEATS)
    run = TrajCastDynamics(
        atoms, MODELS / "quartz-trajcast-30fs/quartz-trajcast-30fs.pt", temperature_K=temperature, seed=seed,
        guard=Guard(MODELS / "quartz-esen/quartz-esen.pt", every=10),
        barostat=Barostat(pressure=1.0, every=5, axes="xy,z"),
    )  # fmt: skip
    run.set_temperature(temperature)
    found = []
    for _ in range(count // 5):
        run.run(5)
        found.append(constants(atoms.cell.array))
    done, guard = run.barostat_statistics(), run.guard_statistics()
    print(f"  strides: {done.taken} of {done.moves} moves taken; {guard.violations} of {guard.checks} checks mended")
    return np.array(found)


def teacher(temperature: float, steps: int, seed: int) -> NDArray[np.float64]:
    """Return a and c [n, 2] along a run of the teacher at 1 fs."""
    atoms: Atoms = quartz(REPEATS)
    cell, rotation = lower_triangular(atoms.cell.array)
    symbols = atoms.get_chemical_symbols()
    masses = dict(zip(symbols, atoms.get_masses().tolist(), strict=True))
    run = LammpsRun(atoms.positions @ rotation, cell, symbols, masses, potential_file=TEACHER, timestep_fs=1.0)
    lammps = run._lmp
    lammps.command(f"velocity all create {2 * temperature} {seed} mom yes rot no dist gaussian")
    warm = f"{temperature} {temperature}"
    lammps.command(f"fix npt all npt temp {warm} 0.1 aniso 1.0 1.0 1.0 couple xy")
    found = []
    for _ in range(steps // 50):
        lammps.command("run 50 pre no post no" if found else "run 50 post no")
        found.append(constants(lattice(lammps)))
    run.close()
    return np.array(found)


def means(series: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the means of a and c, and their standard errors."""
    kept = series[int(SHARE * len(series)) :]
    errors = []
    for column in kept.T:
        block, _ = plateau(column)
        blocks = column[: len(column) // block * block].reshape(-1, block).mean(1)
        errors.append(blocks.std(ddof=1) / math.sqrt(len(blocks)))
    return kept.mean(0), np.array(errors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--temperatures", type=float, nargs="+", default=[100.0, 300.0, 500.0])
    parser.add_argument("--strides", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    for temperature in options.temperatures:
        print(f"{temperature:g} K", flush=True)
        theirs, their_error = means(teacher(temperature, int(1.5 * STRIDE * options.strides), options.seed))
        ours, our_error = means(strides(temperature, options.strides, options.seed))
        apart = 100 * (ours / theirs - 1)
        error = 100 * np.hypot(our_error, their_error) / theirs
        for name, k in (("a", 0), ("c", 1)):
            print(
                f"  {name}: {ours[k]:.4f} A, teacher {theirs[k]:.4f}: {apart[k]:+.3f} +- {error[k]:.3f} %", flush=True
            )
        rows.append({"temperature_K": temperature, "ours_A": ours.tolist(), "teacher_A": theirs.tolist(),
                     "apart_percent": apart.tolist(), "standard_error_percent": error.tolist()})  # fmt: skip
    publish(
        {"processor": processor(), "atoms": len(quartz(REPEATS)), "strides": options.strides, "rows": rows},
        options.json,
    )


if __name__ == "__main__":
    main()
