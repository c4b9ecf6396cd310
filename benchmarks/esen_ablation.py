"""The paper's ablation (arXiv 2502.12147, table 1) on quartz: what each choice of eSEN is worth in error and in drift.

    equistride data quartz -o data
    OMP_NUM_THREADS=1 python benchmarks/esen_ablation.py [--steps 2500] [--time 10] [--variants eSEN "direct forces"]

Every variant is the released quartz model's configuration with one change, trained for the same number of steps on the same
frames, with test errors on held-out 300 K trajectories. Then the protocol of ``equistride validate --nve``: 72 atoms, relaxed,
velocities of 600 K (which become 300 K), velocity Verlet in float64. It goes on where it was stopped: trained variants are
kept under ``runs/ablation``, results in ``benchmarks/results/esen_ablation.json``.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import torch
from machine import processor
from rich.console import Console
from rich.table import Table

from equistride import __version__
from equistride.artifact.export import export
from equistride.conservation.nve import Setting, conservation
from equistride.data.quartz import quartz
from equistride.engines.ase import EquistrideCalculator
from equistride.engines.nve import OpenMMVerlet
from equistride.training.config import TrainConfig, load_config
from equistride.training.run import train

ROOT = Path(__file__).resolve().parents[1]
VARIANTS = {
    "eSEN": [],
    "direct forces": ["model.forces=direct"],
    "neighbour cap": ["model.max_neighbors=20"],
    "no envelope": ["model.envelope=off"],
    "S2 grid, 6 points": ["model.activation=s2", "model.s2_resolution=6"],
    "S2 grid, 14 points": ["model.activation=s2", "model.s2_resolution=14"],
    "512 Gaussians": ["model.num_basis=512"],
    "Bessel": ["model.basis=bessel"],
}
"""What is changed; the configuration's keys."""


def train_variant(name: str, data: Path, folder: Path, steps: int) -> dict[str, float]:
    """Train one variant, or go on with it; return its errors on held-out frames (meV/atom, meV/A)."""
    overrides = [
        *VARIANTS[name],
        f"data.files=[{data / 'quartz72.npz'}]",
        f"data.test_files=[{data / 'quartz72-test.npz'}]",
        f"trainer.steps={steps}",
        f"trainer.validate_every={steps}",
        "optimiser.learning_rate=2.0e-3",
        "optimiser.ema_decay=0.99",
    ]
    config = load_config(ROOT / "models" / "quartz-esen" / "config.yaml", overrides)
    if not isinstance(config, TrainConfig):
        raise TypeError("the quartz model is a potential")
    last = folder / "checkpoints" / "last.ckpt"
    return train(config, ROOT, folder, resume=last.is_file(), progress=False)


def measure(name: str, folder: Path, setting: Setting) -> dict[str, Any]:
    """Return what the protocol finds for a trained variant."""
    artifact = folder / "artifact.pt"
    export(
        folder / "checkpoints" / "last.ckpt", artifact, dtype="float64", description=name, allow_nonconservative=True
    )
    atoms = quartz((2, 2, 2))
    result = conservation(atoms, EquistrideCalculator(artifact), OpenMMVerlet(artifact, atoms), setting)
    return result.summary()


def show(results: dict[str, Any]) -> None:
    """Print the table."""
    table = Table(title="eSEN on quartz: test errors, and NVE of 72 atoms", title_justify="left")
    for column in (
        "variant",
        "energy, meV/atom",
        "force, meV/A",
        "drift, meV/atom/ps",
        "95 % interval",
        "exponent",
        "",
    ):
        table.add_column(column, justify="left" if column == "variant" else "right")
    for name, row in results.items():
        nve = row.get("nve")
        cells = [name, f"{row['errors']['test_energy_mae']:.2f}", f"{row['errors']['test_force_mae']:.1f}"]
        if nve is None:
            cells += ["", "", "", ""]
        elif nve["drift_meV_per_atom_per_ps"] is None:
            cells += ["broke off", "", "", "FAIL"]
        else:
            low, high = nve["drift_interval"]
            power = nve["exponent"]
            cells += [f"{nve['drift_meV_per_atom_per_ps']:+.2g}", f"{low:+.2g} to {high:+.2g}"]
            cells += ["" if power is None else f"{power:.2f}", "pass" if nve["passed"] else "FAIL"]
        table.add_row(*cells)
    Console(width=130).print(table)


def main() -> None:
    """Train and measure the chosen variants, print the table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT / "data", help="folder of `equistride data quartz -o data`")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "ablation")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "esen_ablation.json")
    parser.add_argument("--steps", type=int, default=2500, help="of training")
    parser.add_argument("--time", type=float, default=10.0, help="of the drift run [ps]")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--train-only", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    setting = Setting(temperature=600.0, time=arguments.time)
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    kept = json.loads(arguments.results.read_text()) if arguments.results.exists() else {}
    results: dict[str, Any] = kept.get("variants", {})

    def keep() -> None:
        facts = {
            "command": "python benchmarks/esen_ablation.py", "machine": processor(), "equistride": __version__,
            "torch": str(torch.__version__), "variants": {n: results[n] for n in VARIANTS if n in results},
        }  # fmt: skip
        partial = arguments.results.with_suffix(".partial")
        partial.write_text(json.dumps(facts, indent=1) + "\n")
        os.replace(partial, arguments.results)

    for name in arguments.variants:
        folder = arguments.runs / name.replace(" ", "-").replace(",", "")
        row = results.setdefault(name, {})
        if row.get("steps") != arguments.steps:
            row |= {"changes": VARIANTS[name], "steps": arguments.steps}
            row["errors"] = train_variant(name, arguments.data.resolve(), folder, arguments.steps)
            row.pop("nve", None)
            keep()
        if not arguments.train_only and row.get("nve", {}).get("time_ps") != arguments.time:
            row["nve"] = measure(name, folder, setting)
            keep()
    show({name: results[name] for name in VARIANTS if name in results})


if __name__ == "__main__":
    main()
