"""The LAMMPS plugin with the released models: agreement between processes and engines, drift, memory, speed-up.

    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive python benchmarks/lammps_plugin.py [SECTION ...]

Sections: agreement, propagator, drift, memory, speed; all of them where none is named. Each is kept in
benchmarks/results/lammps.json until it is measured again. `--quick` shortens all, prints, and writes nothing.
The file cannot be called lammps.py: it would hide LAMMPS's own module from every script in this folder.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import openmm
import torch
from ase import Atoms
from machine import processor
from numpy.typing import NDArray
from openmm import unit

from equistride import artifact
from equistride.artifact.export import save
from equistride.conservation.drift import energy_drift
from equistride.data.quartz import quartz, repeats_for
from equistride.engines.ase import EquistrideCalculator
from equistride.engines.openmm import TrajCastIntegrator, create_system
from equistride.engines.openmm_structure import topology_from_ase
from equistride.units import ANGSTROM_PER_NM, EV_PER_ANGSTROM3_IN_BAR, EV_PER_KJ_MOL, FS_PER_PS

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "engines"))
from lammps_runs import PATIENT, TYPES, on_ranks, write_data  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "lammps.json"
ESEN = ROOT / "models" / "quartz-esen" / "quartz-esen.pt"
TRAJCAST = ROOT / "models" / "quartz-trajcast-30fs" / "quartz-trajcast-30fs.pt"
WORKER = ROOT / "benchmarks" / "lammps_rank.py"
ELEMENTS = " ".join(TYPES)
WAYS = {1: ("local", "exchange", "wide"), 2: ("exchange", "wide"), 4: ("exchange", "wide")}
"""How so many processes see each other's atoms."""

Array = NDArray[np.float64]
Section = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """What the processes noted: ``notes[process][block]``, and x, v, f [N, 3] of the blocks that were kept."""

    notes: list[list[dict[str, Any]]]
    arrays: dict[int, dict[str, Array]]

    def slowest(self, block: int, clock: str) -> float:
        """The largest time [s] of the processes in a block."""
        return float(max(notes[block][clock] for notes in self.notes))


def run(
    atoms: Atoms | list[Atoms],
    blocks: Sequence[str],
    ranks: int = 1,
    thermo: Sequence[str] = (),
    keep: Sequence[int] = (),
    owners: bool = False,
) -> Run:
    """Run an input in pieces on so many processes; the atoms are in data0.lmp, data1.lmp ... for it to read.

    Processes that wait sleep, so that their CPU time is that of their work.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for k, frame in enumerate([atoms] if isinstance(atoms, Atoms) else atoms):
            write_data(frame, folder / f"data{k}.lmp")
        job = {"blocks": list(blocks), "thermo": list(thermo), "keep": list(keep), "owners": owners}
        (folder / "job.json").write_text(json.dumps(job))
        command = on_ranks([sys.executable, str(WORKER), str(folder / "job.json")], ranks)
        done = subprocess.run(command, env=os.environ | PATIENT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"LAMMPS failed on {ranks} processes:\n{(done.stdout + done.stderr)[-3000:]}")
        arrays = {k: dict(np.load(folder / f"block{k}.npz")) for k in keep}
        return Run([json.loads((folder / f"rank{r}.json").read_text()) for r in range(ranks)], arrays)


def crystal(count: int) -> Atoms:
    """Quartz of so many atoms, displaced by 0.08 A rms along each axis."""
    atoms = quartz(repeats_for(count))
    atoms.rattle(0.08, seed=count)
    return atoms


def potential(options: str, extra: str = "", frame: int = 0) -> str:
    """Return an input up to the forces."""
    return (
        f"units metal\natom_style atomic\nboundary p p p\nbox tilt large\nread_data data{frame}.lmp\n"
        f"pair_style equistride {options}\npair_coeff * * {ESEN} {ELEMENTS}\nthermo 1000000\n{extra}"
    )


def openmm_state(atoms: Atoms) -> tuple[float, Array]:
    """Energy [eV] and forces [N, 3] eV/A of our OpenMM plugin in double precision."""
    topology, positions = topology_from_ase(atoms)
    system = create_system(ESEN, topology, backend="plugin", precision="float64", remove_cm_motion=False)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(positions)
    state = context.getState(energy=True, forces=True)
    return state.getPotentialEnergy()._value * EV_PER_KJ_MOL, np.array(
        state.getForces(asNumpy=True)._value
    ) * EV_PER_KJ_MOL / ANGSTROM_PER_NM


def agreement(quick: bool) -> Section:
    """One frame on 1, 2 and 4 processes, in OpenMM and in ASE; the pressure against the slope of the energy."""
    found: Section = {"precision": "float64"}
    for count in (162, 576) if quick else (162, 576, 4374):
        atoms = crystal(count)
        atoms.calc = EquistrideCalculator(ESEN, dtype="float64")
        energy, forces = float(atoms.get_potential_energy()), atoms.get_forces()
        others = {"ASE": (energy, forces), "OpenMM": openmm_state(atoms)}
        atoms.calc = None
        steps, frames = (-2, -1, 1, 2), [atoms]
        for step in steps:
            frames.append(atoms.copy())
            frames[-1].set_cell(atoms.cell * (1 + 1e-3 * step) ** (1 / 3), scale_atoms=True)
        results, energies = {}, {}
        for ranks, ways in WAYS.items():
            blocks = [potential(f"precision float64 ghost {ghosts}") + "run 0" for ghosts in ways]
            if ranks == 2:
                blocks += [potential("precision float64", frame=k) + "run 0" for k in range(1, 5)]
            done = run(frames, blocks, ranks, ["pe", "press"], range(len(ways)))
            for k, ghosts in enumerate(ways):
                results[f"{ranks} {ghosts}"] = (done.notes[0][k], done.arrays[k]["f"])
            if ranks == 2:
                energies = {step: done.notes[0][len(ways) + k]["pe"] for k, step in enumerate(steps)}
        first, its_forces = results["1 local"]
        rows = {}
        for name, (note, its) in results.items():
            rows[name] = {
                "energy_relative_to_one_process": abs(note["pe"] / first["pe"] - 1),
                "force_from_one_process_eV_A": float(np.abs(its - its_forces).max()),
                "pressure_relative_to_one_process": abs(note["press"] / first["press"] - 1),
            }
            for engine, (e, f) in others.items():
                rows[name][f"energy_relative_to_{engine}"] = abs(note["pe"] / e - 1)
                rows[name][f"force_from_{engine}_eV_A"] = float(np.abs(its - f).max())
            print(count, name, " ".join(f"{v:.1e}" for v in rows[name].values()), flush=True)
        slope = (8 * (energies[1] - energies[-1]) - (energies[2] - energies[-2])) / (12e-3 * atoms.get_volume())
        pressure = results["2 exchange"][0]["press"]
        found[str(count)] = {
            "largest_force_eV_A": float(np.abs(forces).max()),
            "ways": rows,
            "pressure_bar": pressure,
            "pressure_relative_to_slope_of_energy": abs(pressure / (-slope * EV_PER_ANGSTROM3_IN_BAR) - 1),
        }
        print(
            count,
            f"pressure {pressure:.3f} bar, slope off by",
            found[str(count)]["pressure_relative_to_slope_of_energy"],
        )
    return found


def strides(options: str = "", before: str = "") -> str:
    """Return an input with the propagator."""
    facts = artifact.load(TRAJCAST).metadata
    masses = "".join(f"mass {k + 1} {facts.masses[facts.species.index(e)]}\n" for k, e in enumerate(TYPES))
    return (
        f"units metal\natom_style atomic\nboundary p p p\nbox tilt large\nread_data data0.lmp\n{masses}"
        f"timestep {facts.stride_fs / FS_PER_PS}\n{before}thermo 1000000\n"
        f"fix p all equistride/propagate {TRAJCAST} {ELEMENTS} precision float64 {options}\n"
    )


def in_double(path: Path, output: Path) -> None:
    """Copy an artifact so that engines compute it in double precision."""
    save(torch.jit.load(str(path)), artifact.load(path).metadata.model_copy(update={"dtype": "float64"}), output)


def openmm_strides(atoms: Atoms, speeds: Array, marks: Sequence[int]) -> list[Array]:
    """Positions [N, 3] A after so many strides of OpenMM's integrator, without a thermostat, in double precision."""
    with tempfile.TemporaryDirectory() as scratch:
        double = Path(scratch) / "double.pt"
        in_double(TRAJCAST, double)
        topology, positions = topology_from_ase(atoms)
        integrator = TrajCastIntegrator(double, topology, thermostat=None)
        system = create_system(double, topology, remove_cm_motion=False)
        context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
        context.setPositions(positions)
        context.setVelocities(speeds / ANGSTROM_PER_NM * unit.nanometer / unit.picosecond)
        found, done = [], 0
        for mark in marks:
            integrator.step(mark - done)
            done = mark
            found.append(np.array(context.getState(positions=True).getPositions(asNumpy=True)._value) * ANGSTROM_PER_NM)
        return found


def apart(first: Array, second: Array, cell: Array) -> float:
    """The largest distance of an atom from its other self along an axis [A], whatever image it is."""
    steps = (first - second) @ np.linalg.inv(cell)
    return float(np.abs((steps - steps.round()) @ cell).max())


def propagator(quick: bool) -> Section:
    """A hundred strides without a thermostat on 1, 2 and 4 processes and in OpenMM, from a thermal start."""
    marks = (1, 10, 30, 100)
    found: Section = {"precision": "float64", "strides": list(marks)}
    for count in (162,) if quick else (162, 576):
        atoms = quartz(repeats_for(count))
        warm = strides("temp 300 300 0.075 seed 1", "velocity all create 600 7 mom yes rot no dist gaussian\n")
        start = run(atoms, [warm + "run 200"], 1, ["temp"], [0])
        atoms.positions = start.arrays[0]["x"]
        atoms.wrap()
        atoms.info["velocities"] = speeds = start.arrays[0]["v"]  # A/ps
        # a reference for what rounding does: the same start, one atom moved by 1e-13 A
        nudged = atoms.copy()
        nudged.positions[0, 0] += 1e-13

        def positions(atoms: Atoms, ranks: int, options: str = "", last: int = len(marks)) -> list[Array]:
            blocks = [strides(options) + f"run {marks[0]}", *(f"run {b - a}" for a, b in pairwise(marks[:last]))]
            arrays = run(atoms, blocks, ranks, keep=range(last)).arrays
            return [arrays[k]["x"] for k in range(last)]

        one, cell = positions(atoms, 1), atoms.cell.array
        others = {
            "OpenMM": openmm_strides(atoms, speeds, marks),
            "1 process, start moved by 1e-13 A": positions(nudged, 1),
            "2 processes": positions(atoms, 2),
            "4 processes": positions(atoms, 4),
        }
        if count == 162:  # the ghosts of others are many times the atoms
            others["2 processes, wide"] = positions(atoms, 2, "ghost wide", 2)
        rows = {name: [apart(a, b, cell) for a, b in zip(other, one, strict=False)] for name, other in others.items()}
        found[str(count)] = {"temperature_K": start.notes[0][0]["temp"], "largest_difference_from_one_process_A": rows}
        for name, row in rows.items():
            print(count, name, " ".join(f"{d:.1e}" for d in row), flush=True)
    return found


def drift(quick: bool, temperature: float = 1300.0, count: int = 72, step_fs: float = 1.0) -> Section:
    """Ten picoseconds of NVE on one process and on two, while atoms go from one to the other."""
    every = 100
    samples = 20 if quick else round(10_000 / (every * step_fs))
    found: Section = {"atoms": count, "timestep_fs": step_fs, "ps": samples * every * step_fs / FS_PER_PS}
    # twice the temperature: half of it goes into the potential energy of the ideal crystal
    start = potential(
        "", f"velocity all create {2 * temperature} 11 mom yes rot no dist gaussian loop geom\n"
        f"velocity all set 3.0 2.0 4.0 sum yes\ntimestep {step_fs / FS_PER_PS}\nfix n all nve\n"
        "compute own all temp/com\nthermo_modify temp own\nrun 0\n"
    )  # fmt: skip
    blocks = [start, *[f"run {every} pre no post no"] * samples]
    with ThreadPoolExecutor(2) as pool:
        runs = pool.map(
            lambda ranks: run(quartz(repeats_for(count)), blocks, ranks, ["etotal", "temp"], owners=True), (1, 2)
        )
    for ranks, done in zip((1, 2), runs, strict=True):
        energies = np.array([note["etotal"] for note in done.notes[0]])
        temperatures = np.array([note["temp"] for note in done.notes[0]])
        owner = np.array([[r for _, r in sorted((i, r) for r in range(ranks) for i in done.notes[r][k]["atoms"])]
                          for k in range(len(blocks))])  # fmt: skip
        begin = len(energies) // 20  # the crystal takes up half of its kinetic energy first
        slope = energy_drift(every * step_fs * np.arange(begin, len(energies)), energies[begin:], count)
        found[f"{ranks} processes" if ranks > 1 else "1 process"] = {
            "drift_meV_atom_ps": slope.slope,
            "interval_95": list(slope.interval),
            "fluctuation_meV_atom": slope.fluctuation,
            "temperature_K_second_half": float(temperatures[len(temperatures) // 2 :].mean()),
            "moves_between_processes_seen": int((owner[1:] != owner[:-1]).sum()),
            "atoms_that_moved": int((owner != owner[0]).any(0).sum()),
        }
        print(ranks, found[f"{ranks} processes" if ranks > 1 else "1 process"], flush=True)
    return found


def memory(quick: bool) -> Section:
    """Resident memory of two processes during 5,000 steps at constant pressure."""
    every, blocks = 500, 3 if quick else 10
    count = 72
    start = potential(
        "", "velocity all create 600 11 mom yes rot no dist gaussian\ntimestep 0.001\n"
        f"fix p all npt temp 300 300 0.1 tri 0 0 1\nrun {every}\n"
    )  # fmt: skip
    done = run(quartz(repeats_for(count)), [start, *[f"run {every}"] * (blocks - 1)], 2, ["temp", "press", "vol"])
    series = [[round(note["resident_MiB"], 2) for note in notes] for notes in done.notes]
    found = {
        "atoms": count,
        "processes": 2,
        "steps": [every * (k + 1) for k in range(blocks)],
        "resident_MiB": series,
        "growth_MiB_from_step_500": [round(s[-1] - s[0], 2) for s in series],
        "mean_temperature_K": float(np.mean([n["temp"] for n in done.notes[0]])),
    }
    print(found, flush=True)
    return found


def speed(quick: bool) -> Section:
    """Time of a step on 1 and 2 processes, one thread each, in pairs; and of two runs side by side that share nothing."""
    found: Section = {"threads_of_a_process": 1, "precision": artifact.load(ESEN).metadata.dtype}
    for count, steps, rounds in ((576, 10, 2),) if quick else ((4374, 10, 5), (34992, 3, 3)):
        atoms = quartz(repeats_for(count))
        start = potential(
            "", "velocity all create 300 11 mom yes rot no dist gaussian\ntimestep 0.001\nfix n all nve\nrun 2\n"
        )
        blocks = [start, f"run {steps}"]

        def measure(
            ranks: int, atoms: Atoms = atoms, blocks: list[str] = blocks, steps: int = steps
        ) -> dict[str, float]:
            done = run(atoms, blocks, ranks)
            return {clock: done.slowest(1, clock) / steps for clock in ("wall", "cpu")} | {
                "load": os.getloadavg()[0],
                "resident_MiB": max(notes[1]["resident_MiB"] for notes in done.notes),
            }

        table: dict[str, list[dict[str, float]]] = {"1": [], "2": [], "two alone": []}
        for _ in range(rounds):
            table["1"].append(measure(1))
            table["2"].append(measure(2))
            with ThreadPoolExecutor(2) as pool:
                pair = list(pool.map(lambda _: measure(1), range(2)))
            table["two alone"].append(max(pair, key=lambda p: p["wall"]))
            print(
                count,
                {k: {c: round(v[-1][c], 4) for c in ("wall", "cpu", "load")} for k, v in table.items()},
                flush=True,
            )
        found[str(count)] = {
            "rounds": table,
            "seconds_a_step_1": median(r["wall"] for r in table["1"]),
            "seconds_a_step_2": median(r["wall"] for r in table["2"]),
            "speed_up_wall": median(a["wall"] / b["wall"] for a, b in zip(table["1"], table["2"], strict=True)),
            "speed_up_cpu": median(a["cpu"] / b["cpu"] for a, b in zip(table["1"], table["2"], strict=True)),
            "limit_of_the_machine": median(
                2 * a["wall"] / b["wall"] for a, b in zip(table["1"], table["two alone"], strict=True)
            ),
        }
        print(count, {k: v for k, v in found[str(count)].items() if k != "rounds"}, flush=True)
    return found


SECTIONS: dict[str, Callable[[bool], Section]] = {
    "agreement": agreement,
    "propagator": propagator,
    "drift": drift,
    "memory": memory,
    "speed": speed,
}


def main() -> None:
    """Measure the chosen sections and keep them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing written")
    arguments = parser.parse_args()
    for name in arguments.sections or SECTIONS:
        print(f"== {name}", flush=True)
        model = artifact.load(TRAJCAST if name == "propagator" else ESEN)
        facts = {
            "machine": processor(),
            "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            "load_before": round(os.getloadavg()[0], 2),
            "model": f"{model.metadata.architecture}, {model.metadata.num_layers} layers, cutoff {model.metadata.cutoff} A, "
            f"{model.metadata.num_parameters} parameters",
        }
        measured = facts | SECTIONS[name](arguments.quick)
        if not arguments.quick:
            kept: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
            RESULTS.write_text(json.dumps(kept | {name: measured}, indent=1) + "\n")


if __name__ == "__main__":
    main()
