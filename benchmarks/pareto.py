"""Accuracy against cost: eSEN and NequIP of three sizes each, trained on the same frames of quartz for the same CPU time.

    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive python benchmarks/pareto.py [--seconds 300] [--only esen-small ...]
    python benchmarks/pareto.py --plot docs/pareto.svg

Needs data/quartz72.npz and data/quartz162-test.npz (``equistride data quartz --recipe quartz72 --recipe quartz162-test``), or
other files with ``--data`` and ``--test``. ``--seconds`` is the process CPU time of each network's training steps on one thread;
how many steps that is follows from some beforehand, so that each learning rate falls to its end, and what they took in fact is
counted and written down. Runs are kept under ``--runs`` and go on where they were stopped; a network that is in the results with
the same setting is not done again.

For each: mean absolute force error on every fourth test frame, drift of the energy in OpenMM (NVE at 1 fs, float32), elastic
constants beside the teacher's, each at its own equilibrium, and ns/day of CPU time at 1 fs, 648 atoms and one thread. Written to
benchmarks/results/pareto.json.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from ase import Atoms
from machine import cpu_time, keep_freed_memory, processor

from equistride import __version__
from equistride.artifact.export import export
from equistride.conservation.drift import energy_drift
from equistride.conservation.nve import Setting, start_of
from equistride.data.frames import load
from equistride.data.quartz import quartz, repeats_for
from equistride.data.reference import ReferenceCalculator
from equistride.engines.ase import EquistrideCalculator
from equistride.engines.nve import OpenMMVerlet
from equistride.errors import EquistrideError
from equistride.properties.elastic import elastic_constants
from equistride.properties.relax import relax
from equistride.training.config import load_config
from equistride.training.run import train

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "pareto.json"
TEACHER = "SiO.1990.vashishta"
TRIGONAL = ((1, 1), (3, 3), (1, 2), (1, 3), (4, 4), (1, 4), (6, 6))
ESEN = {"architecture": "esen", "cutoff": 4.5, "num_basis": 10}
NEQUIP = {"architecture": "nequip", "cutoff": 4.5, "num_basis": 8}
NETWORKS: dict[str, dict[str, Any]] = {
    "esen-small": ESEN | {"num_layers": 1, "l_max": 2, "m_max": 2, "channels": 16, "hidden_channels": 16, "edge_channels": 32},
    "esen-medium": ESEN | {"num_layers": 2, "l_max": 2, "m_max": 2, "channels": 16, "hidden_channels": 32, "edge_channels": 32},
    "esen-large": ESEN | {"num_layers": 3, "l_max": 3, "m_max": 2, "channels": 32, "hidden_channels": 32, "edge_channels": 32},
    "nequip-small": NEQUIP | {"num_layers": 2, "l_max": 1, "channels": [32, 16], "radial_widths": [32]},
    "nequip-medium": NEQUIP | {"num_layers": 3, "l_max": 2, "channels": [32, 16, 16], "radial_widths": [32]},
    "nequip-large": NEQUIP | {"num_layers": 4, "l_max": 2, "channels": 32, "radial_widths": [64]},
}  # fmt: skip
RATE = {"esen": 2e-3, "nequip": 5e-3}
"""Learning rates."""


TRIAL = 60
"""Steps that tell the time of one."""
THINNED = 4
"""Of so many test frames, which follow one another in time, one is used."""


def configuration(network: str, options: argparse.Namespace, steps: int, tested: bool) -> dict[str, Any]:
    """Return the tree of a training's YAML file."""
    model = NETWORKS[network]
    data: dict[str, Any] = {"files": [str(options.data)], "validation_fraction": 0.01, "batch_size": 1}
    if tested:
        data["test_files"] = [str(options.runs / "test.npz")]
    return {
        "name": network, "model": model, "data": data,
        "loss": {"energy": 2.0, "force": 10.0, "virial": 0.0 if options.no_virial else 0.2},
        "optimiser": {"learning_rate": RATE[model["architecture"]], "weight_decay": 0.0,
                      "ema_decay": 1 - max(1e-3, min(0.02, 20 / steps)), "warmup_steps": min(200, steps // 10)},
        "trainer": {"steps": steps, "validate_every": steps, "checkpoint_every": max(10, steps // 20)},
    }  # fmt: skip


class Stopwatch:
    """Process CPU time of a training's steps, kept in a file so that a run that goes on goes on counting.

    Parameters
    ----------
    path
        The file: seconds by steps done.
    interval
        Steps between its notes, where checkpoints are.
    """

    def __init__(self, path: Path, interval: int) -> None:
        self.path, self.interval = path, interval
        self.notes: dict[str, float] = json.loads(path.read_text()) if path.is_file() else {}
        self.seconds, self.last = 0.0, math.nan
        self.each: list[float] = []

    def __call__(self, step: int, steps: int) -> None:
        """Count the step that ended now; the first of a call, which began before there was a clock, as the mean of the others."""
        now = time.process_time()
        if math.isnan(self.last):
            self.seconds = self.notes.get(str(step - 1), 0.0)
        else:
            self.each.append(now - self.last)
            self.seconds += self.each[-1] * (2 if len(self.each) == 1 else 1)
        self.last = now
        if step % self.interval == 0 or step == steps:
            self.notes[str(step)] = self.seconds
            self.path.write_text(json.dumps(self.notes))


def trained(
    network: str, options: argparse.Namespace, steps: int, folder: Path, tested: bool = True
) -> tuple[dict[str, float], Stopwatch]:
    """Train, or go on; return the errors, and the time of the steps."""
    path = folder.with_suffix(".yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    tree = configuration(network, options, steps, tested)
    path.write_text(yaml.safe_dump(tree))
    watch = Stopwatch(folder.with_suffix(".seconds.json"), tree["trainer"]["checkpoint_every"])
    resume = (folder / "checkpoints" / "last.ckpt").is_file()
    errors = train(load_config(path), path.parent, folder, resume=resume, progress=False, tick=watch)
    return errors, watch


def steps_for(network: str, options: argparse.Namespace, folder: Path) -> int:
    """Return how many steps the CPU time allows; decided once for a run."""
    plan = folder.with_suffix(".json")
    if plan.is_file():
        found = json.loads(plan.read_text())
        if found["seconds"] == options.seconds:
            return int(found["steps"])
        shutil.rmtree(folder, ignore_errors=True)
    place = folder.with_name(f"{folder.name}-trial")
    shutil.rmtree(place, ignore_errors=True)
    each = float(np.median(trained(network, options, TRIAL, place, tested=False)[1].each[TRIAL // 3 :]))
    steps = max(TRIAL, round(options.seconds / each))
    plan.write_text(json.dumps({"seconds": options.seconds, "steps": steps, "cpu_s_per_step": each}))
    folder.with_suffix(".seconds.json").unlink(missing_ok=True)
    return steps


def crystal_like(lattice: tuple[float, float], atoms: int) -> Atoms:
    """Return quartz with lattice constants a and c [A]."""
    return quartz(repeats_for(atoms), a=lattice[0], c=lattice[1])


def measured(path: Path, options: argparse.Namespace, truth: dict[str, float]) -> dict[str, Any]:
    """Return drift, elastic constants and speed of an artifact."""
    out: dict[str, Any] = {}
    calculator = EquistrideCalculator(path, dtype="float64")
    try:
        own = relax(quartz((1, 1, 1)), calculator).atoms
        found = elastic_constants(own, calculator).constants
        errors = {f"C{i}{j}": float(found[i - 1, j - 1]) - truth[f"C{i}{j}"] for i, j in TRIGONAL}
        out["elastic_errors_GPa"] = errors
        out["elastic_error_percent"] = 100 * sum(map(abs, errors.values())) / sum(map(abs, truth.values()))
    except EquistrideError as error:  # a network that has learnt little has no crystal
        out["elastic_note"] = str(error)
    atoms = crystal_like((4.83, 5.31), 162)
    setting = Setting(time=options.drift_time, timestep=1.0)
    start, _ = start_of(atoms, EquistrideCalculator(path), setting)
    run = np.array(list(OpenMMVerlet(path, atoms, "float32")(start, setting.timestep, setting.drift_steps, 1)))
    time, potential, kinetic = run[len(run) // 10 :].T
    drift = energy_drift(time, potential + kinetic, len(atoms))
    out["drift_ps"], out["drift_meV_per_atom_ps"] = options.drift_time, drift.slope
    out["drift_interval"] = list(drift.interval)
    big, fast = crystal_like((4.83, 5.31), 648), EquistrideCalculator(path)
    big.calc = fast

    def step() -> None:
        big.rattle(1e-3, seed=1)
        big.get_forces()

    step()
    out["cpu_ms_648_atoms"] = 1e3 * cpu_time(step, 5)
    out["ns_per_day"] = 86400 / out["cpu_ms_648_atoms"] * 1e3 * 1e-6
    return out


def plot(rows: dict[str, Any], path: Path) -> None:
    """Draw force errors, and those of elastic constants, against speed."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "pareto"  # the same file from the same figures
    from matplotlib import pyplot

    figure, both = pyplot.subplots(1, 2, figsize=(8.4, 3.6), layout="constrained")
    figures = (
        ("force_mae_meV_per_A", "force error (meV/Å)"),
        ("elastic_error_percent", "elastic constants, error (%)"),
    )
    for axes, (key, label) in zip(both, figures, strict=True):
        for kind, mark in (("esen", "o-"), ("nequip", "s-")):
            points = sorted(
                (row["ns_per_day"], row[key], name)
                for name, row in rows.items()
                if name.startswith(kind) and key in row
            )
            if points:
                axes.plot([p[0] for p in points], [p[1] for p in points], mark, label=kind)
            for x, y, name in points:
                axes.annotate(name.partition("-")[2], (x, y), textcoords="offset points", xytext=(4, 4), fontsize=8)
        axes.set(xscale="log", yscale="log", xlabel="ns/day of one core (648 atoms, 1 fs)", ylabel=label)
    both[0].legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})


def teacher() -> dict[str, float]:
    """Return the elastic constants that were taught [GPa]."""
    calculator = ReferenceCalculator(TEACHER)
    found = elastic_constants(relax(quartz((1, 1, 1)), calculator).atoms, calculator).constants
    return {f"C{i}{j}": float(found[i - 1, j - 1]) for i, j in TRIGONAL}


def read() -> dict[str, Any]:
    """Return the results so far."""
    return dict(json.loads(RESULTS.read_text())) if RESULTS.is_file() else {"networks": {}}


def main() -> None:
    """Train, measure, write and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300.0, help="CPU time of each training")
    parser.add_argument("--only", nargs="+", choices=tuple(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "quartz72.npz")
    parser.add_argument("--test", type=Path, default=ROOT / "data" / "quartz162-test.npz")
    parser.add_argument("--no-virial", action="store_true", help="frames without virials")
    parser.add_argument("--drift-time", type=float, default=3.0, help="ps")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "pareto")
    parser.add_argument("--plot", type=Path, help="draw what the results have, and nothing else")
    options = parser.parse_args()
    options.data, options.test = options.data.resolve(), options.test.resolve()
    results = read()
    if options.plot:
        plot(results["networks"], options.plot)
        return
    torch.set_num_threads(1)
    keep_freed_memory()
    truth = results.get("teacher_GPa") or teacher()
    options.runs.mkdir(parents=True, exist_ok=True)
    load(options.test)[0][::THINNED].save(options.runs / "test.npz")
    setting = {"seconds": options.seconds, "data": options.data.name, "virials": not options.no_virial}
    for network in options.only:
        if {key: results["networks"].get(network, {}).get(key) for key in setting} == setting:
            continue
        folder = options.runs / network
        steps = steps_for(network, options, folder)
        errors, watch = trained(network, options, steps, folder)
        metadata = export(folder / "checkpoints" / "last.ckpt", folder.with_suffix(".pt"))
        row = setting | {
            "steps": steps, "cpu_s_of_all_steps": watch.seconds, "parameters": metadata.num_parameters,
            "force_mae_meV_per_A": errors["test_force_mae"], "energy_mae_meV_per_atom": errors["test_energy_mae"],
        }  # fmt: skip
        row |= measured(folder.with_suffix(".pt"), options, truth)
        results = read()  # another process may have written
        results |= {
            "equistride": __version__,
            "test": options.test.name,
            "processor": processor(),
            "teacher_GPa": truth,
        }
        results["networks"][network] = row
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        print(
            network,
            json.dumps({k: round(v, 4) for k, v in row.items() if isinstance(v, float) and math.isfinite(v)}),
            flush=True,
        )


if __name__ == "__main__":
    main()
