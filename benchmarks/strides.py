"""One network of several strides beside networks of their own, on quartz: errors of a stride after the same batches of each.

    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive python benchmarks/strides.py [--steps 1000] [--strides 5 10 20 30]

Makes its data (72 atoms, Vashishta potential of LAMMPS, NVE segments at 300 K with a frame each 5 fs) under ``--runs``. A network
of its own gets ``--steps`` batches of its stride; the one of all gets as many of each, so that both ways cost the same.
``--share`` makes its batches fewer. Runs go on where they were stopped, and what is done is not done again. For each stride: mean
absolute error of displacements and velocities in per cent of the rms, on segments of another run. Written to
benchmarks/results/strides.json with the process CPU time of each training.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from machine import processor, publish

from equistride import __version__
from equistride.data.quartz import Condition, QuartzRecipe, write
from equistride.training.config import PropagatorConfig
from equistride.training.run import train

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "strides.json"
SPACING_FS = 5.0
DATA = {"train": (40, 4072), "test": (8, 5072)}
"""Segments and seed."""
MODEL = {
    "architecture": "trajcast", "cutoff": 3.5, "num_layers": 3, "l_max": 2, "channels": 16, "radial_widths": [32, 16],
    "speed_widths": [32, 32],
}  # fmt: skip
OPTIMISER = {
    "learning_rate": 1e-2, "weight_decay": 0.0, "warmup_steps": 50, "beta2": 0.99, "ema_decay": 0.99, "clip_norm": 1.0,
    "final_fraction": 0.01,
}  # fmt: skip


def make_data(runs: Path, longest: float) -> None:
    """Write the trajectories that are not there, in segments of three of the longest strides."""
    runs.mkdir(parents=True, exist_ok=True)
    for name, (segments, seed) in DATA.items():
        path = runs / f"{name}.npz"
        if not path.exists():
            frames = 3 * round(longest / SPACING_FS) + 1
            write(QuartzRecipe(72, (Condition(300.0, segments),), frames=frames, stride_fs=SPACING_FS, seed=seed), path)


def trained(runs: Path, name: str, strides: list[float], steps: int) -> dict[str, Any]:
    """Return errors and cost of one network, from its file or by training it."""
    found = runs / name / "found.json"
    if found.exists():
        return json.loads(found.read_text())
    config = PropagatorConfig.model_validate(
        {
            "name": name, "model": MODEL, "optimiser": OPTIMISER,
            "data": {"files": ["train.npz"], "test_files": ["test.npz"], "stride_fs": strides, "batch_size": 2},
            "trainer": {"steps": steps, "validate_every": steps, "checkpoint_every": 100},
        }
    )  # fmt: skip
    begin = time.process_time()
    resume = (runs / name / "checkpoints" / "last.ckpt").exists()
    errors = train(config, runs, runs / name, resume=resume, progress=False)
    result: dict[str, Any] = {
        "steps": steps,
        "cpu_seconds": round(time.process_time() - begin),
        "resumed": resume,
        "errors": {},
    }
    for stride in strides:
        part = f"_{stride:g}fs" if len(strides) > 1 else ""
        result["errors"][f"{stride:g}"] = {
            what: round(float(errors[f"test_{what}{part}_percent"]), 2) for what in ("displacement", "velocity")
        }
    found.write_text(json.dumps(result))
    return result


def main() -> None:
    """Train all, print a table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1000, help="batches of each stride")
    parser.add_argument("--share", type=float, default=1.0, help="of these batches that the network of all gets")
    parser.add_argument("--strides", type=float, nargs="+", default=[5.0, 10.0, 20.0, 30.0], help="fs")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "strides")
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    strides = sorted(given.strides)
    make_data(given.runs, strides[-1])
    own = {f"{s:g}": trained(given.runs, f"own-{s:g}fs-{given.steps}", [s], given.steps) for s in strides}
    count = round(given.steps * given.share * len(strides))
    together = trained(given.runs, f"together-{count}", strides, count)
    for s in strides:
        mine, ours = own[f"{s:g}"]["errors"][f"{s:g}"], together["errors"][f"{s:g}"]
        print(f"{s:g} fs: displacement {mine['displacement']} % alone, {ours['displacement']} % together; "
              f"velocity {mine['velocity']} % alone, {ours['velocity']} % together")  # fmt: skip
    publish(
        {
            "machine": processor(), "torch": torch.__version__, "equistride": __version__, "model": MODEL,
            "data": {name: f"{segments} segments of 72 atoms" for name, (segments, _) in DATA.items()},
            "own": own, "together": together,
        },
        given.output,
    )  # fmt: skip


if __name__ == "__main__":
    main()
