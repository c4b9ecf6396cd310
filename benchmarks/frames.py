"""FRAMES against its baseline and its controls, with paired seeds: what frames that follow each other are worth.

    python benchmarks/frames.py oscillators --first-seed 21 --variants baseline verlet@50 frames@10 "verlet T=2@50" \
        "verlet T=4@50" "verlet shuffled@50" noise@10 "frames T=2@10" "frames T=4@10"    # coupled springs, T = 0, 1, 2, 4
    python benchmarks/frames.py ethanol --published data/md17 --labels 20 --variants baseline frames@1 noise@1 self@1 \
        shuffled@1 dens@1 history@1 verlet@50 "verlet shuffled@50"
    python benchmarks/frames.py aspirin --published data/md17 --seeds 3 --variants baseline frames@1 verlet@50
    python benchmarks/frames.py isomers --published data/isomers --seeds 3 --variants baseline frames@1 verlet@50
    python benchmarks/frames.py md17 --published data --molecule ethanol --full    # published sizes and split; a GPU

Runs with one seed share initial weights, labels, the order of batches and the number of steps; they differ in the auxiliary loss
alone. Each seed draws labels of its own. Every run is kept in its folder under ``runs/frames`` and goes on where it was stopped;
results are in ``benchmarks/results/frames-SYSTEM.json``. Printed are means over seeds, the paired difference from the baseline
with its 95 % confidence interval (Student's t) and the two-sided sign test. Settings are chosen by the validation columns of the
results (frames of neither labels nor test) and confirmed with seeds that the choice has not seen.

``frames`` is the pair of the paper, ``verlet`` the second difference of three frames, read as the slope of a learned energy: it
knows forces, of frames whose labels nobody has. ``NAME@WEIGHT`` gives the weight of the auxiliary loss.

Data: ``ethanol`` and ``aspirin`` want MOLECULE_consecutive.npz (frames of one trajectory, without labels in use) and
MOLECULE_random1000.npz (labels from the first 300, validation 200, test 500) in the folder; ``isomers`` what
``equistride data isomers`` writes; ``md17`` what ``equistride data md17 md17/MOLECULE`` writes.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from rich.console import Console
from rich.table import Table
from scipy import stats

from equistride.artifact.export import build_potential, load_weights, model_config, read_checkpoint
from equistride.data.frames import Frames, load
from equistride.data.md17 import read_published, refuse_overlap, without
from equistride.data.oscillators import trajectories
from equistride.errors import EquistrideError
from equistride.training.config import load_config
from equistride.training.data import GraphDataset, collate
from equistride.training.module import errors as errors_of
from equistride.training.run import train

ROOT = Path(__file__).resolve().parents[1]
VERLET: dict[str, Any] = {"mode": "single", "target": "second-difference", "readout": "gradient"}
VARIANTS: dict[str, dict[str, Any] | None] = {
    "baseline": None,
    "frames": {},
    "history": {"mode": "history"},
    "single": {"mode": "single"},
    "frames T=2": {"frames": 2},
    "frames T=4": {"frames": 4},
    "history T=2": {"mode": "history", "frames": 2},
    "history T=4": {"mode": "history", "frames": 4},
    "verlet": VERLET,
    "verlet T=2": VERLET | {"frames": 2},
    "verlet T=4": VERLET | {"frames": 4},
    "verlet shuffled": VERLET | {"control": "shuffled"},
    "noise": {"control": "noise"},
    "self": {"control": "self"},
    "shuffled": {"control": "shuffled"},
    "dens": {"control": "dens"},
    "second difference (leaks)": {"target": "second-difference"},
}
"""Options of the ``frames`` section of a configuration; None: without it. ``verlet`` reads three frames: it knows forces."""
SMALL = {
    "architecture": "equiformer", "num_layers": 3, "channels": [32, 16, 8], "hidden_channels": [64, 32, 16],
    "head_channels": [8, 4, 2], "num_heads": 4, "scalar_channels": 64, "radial_channels": 32,
}  # fmt: skip
TINY = {
    "architecture": "equiformer", "num_layers": 1, "channels": [16, 8], "hidden_channels": [32, 16], "head_channels": [4, 2],
    "num_heads": 4, "scalar_channels": 32, "radial_channels": 16, "num_basis": 16,
}  # fmt: skip
NETWORKS: dict[str, dict[str, Any]] = {"tiny": TINY, "small": SMALL, "published": {"architecture": "equiformer"}}
RATES = {"tiny": 1e-2, "small": 5e-3, "published": 5e-4}
FORCE_WEIGHTS = {"malonaldehyde": 100.0, "naphthalene": 20.0, "uracil": 20.0}
"""Published weights of the force loss on MD17 where they are not 80."""


@dataclass(frozen=True)
class Study:
    """One system: its configuration without labels and auxiliary loss, the labels of a seed, trajectories, held-out files."""

    name: str
    base: dict[str, Any]
    labels: Callable[[int], str]
    pairs: str
    held: tuple[str, ...]


def save(frames: Frames | Callable[[], Frames], path: Path) -> str:
    """Write frames where they are not yet; return the path."""
    if not path.is_file():
        (frames() if callable(frames) else frames).save(path)
    return str(path)


def drawn(pool: Frames, count: int, folder: Path) -> Callable[[int], str]:
    """Return what draws the labelled frames of a seed from a pool."""
    if count > len(pool):
        raise EquistrideError(
            "there are too few frames for so many labels", expected=f"--labels up to {len(pool)}", found=count
        )

    def draw(seed: int) -> str:
        rows = np.sort(np.random.default_rng(seed).permutation(len(pool))[:count])
        return save(lambda: replace(pool[rows], time_fs=None, segment=None), folder / f"labels-{count}-{seed}.npz")

    return draw


def settings(options: argparse.Namespace, *, steps: int, energy: float, force: float) -> dict[str, Any]:
    """Return the configuration that all runs of a study share; weights as published: total energy 1, force 80."""
    steps = options.steps or steps
    return {
        "name": "frames", "model": NETWORKS[options.network],
        "data": {"validation_fraction": 0.05, "batch_size": 8},
        "loss": {"energy": energy, "force": force, "virial": 0.0},
        "optimiser": {"learning_rate": RATES[options.network], "weight_decay": 1e-6, "warmup_steps": steps // 50,
                      "final_fraction": 0.002, "clip_norm": 1000.0, "ema_decay": 0.99},
        "trainer": {"steps": steps, "validate_every": steps, "checkpoint_every": max(1, steps // 4)},
    }  # fmt: skip


def oscillators(options: argparse.Namespace, folder: Path) -> Study:
    """Five labelled frames of coupled springs, one of them kept aside, and trajectories without labels; 4 fs between frames."""
    spacing, options.labels = options.spacing or 4.0, options.labels or 5
    pairs = save(lambda: trajectories(40, 20, spacing_fs=spacing, seed=2), folder / f"pairs-{spacing:g}fs.npz")
    validation = save(lambda: trajectories(200, 1, seed=3), folder / "validation.npz")
    test = save(lambda: trajectories(500, 1, seed=4), folder / "test.npz")
    base = settings(options, steps=600, energy=5.0, force=80.0)
    labels = drawn(load(save(lambda: trajectories(200, 1, seed=1), folder / "pool.npz"))[0], options.labels, folder)
    return Study("oscillators", base, labels, pairs, (validation, test))


def molecule(options: argparse.Namespace, folder: Path) -> Study:
    """Labels and held-out frames from random frames of the whole trajectory of MD17, pairs from consecutive frames."""
    random = read_published(options.published / f"{options.system}_random1000.npz")[0]
    path = read_published(options.published / f"{options.system}_consecutive.npz")[0]
    pool, validation, test = random[:300], random[300:500], random[500:]
    path = without(path, [test, validation])
    for name, frames in (("pairs", path), ("labels", pool), ("validation", validation)):
        refuse_overlap([(name, frames), ("test", test)])
    base = settings(options, steps=1000, energy=float(len(random.numbers)), force=80.0)
    held = (save(validation, folder / "validation.npz"), save(test, folder / "test.npz"))
    options.labels = options.labels or 50
    labels = drawn(pool, options.labels, folder)
    return Study(options.system, base, labels, save(path, folder / "pairs.npz"), held)


def isomers(options: argparse.Namespace, folder: Path) -> Study:
    """Labels from frames of known molecules, pairs from all of them; tests on known and on unknown molecules."""
    reference = load(options.published / "reference.npz")[0]
    within, other = (load(options.published / f"test_{name}.npz")[0] for name in ("within", "other"))
    if within.segment is None:
        raise EquistrideError(
            "the frames of the isomers have no segments", hint="make them with `equistride data isomers`"
        )
    even = within.segment % 2 == 0
    parts = {"validation": within[even][::10], "known": within[~even][::4], "unknown": other[::12]}
    held = tuple(save(frames, folder / f"{name}.npz") for name, frames in parts.items())
    base = settings(options, steps=1500, energy=float(len(reference.numbers)), force=80.0)
    pairs = str((options.published / "reference.npz").resolve())
    options.labels = options.labels or 300
    return Study("isomers", base, drawn(reference, options.labels, folder), pairs, held)


def published(options: argparse.Namespace, folder: Path) -> Study:
    """The published experiment: 950 random frames with labels, the frame after each without, 50 for validation, L = 2."""
    frames = read_published(options.published / f"md17_{options.molecule}.npz")[0]
    if frames.time_fs is None or frames.segment is None:
        raise EquistrideError("the frames have no time stamps", hint="make them with `equistride data md17`")
    rng = np.random.default_rng(1)
    followed = np.flatnonzero(frames.segment[1:] == frames.segment[:-1])
    order = rng.permutation(followed)
    first, rest = np.sort(order[:1000]), order[1000:]
    away = np.setdiff1d(rest, np.concatenate([first, first + 1]))
    both = np.stack([first, first + 1], 1).ravel()
    pairs = replace(frames[both], segment=np.repeat(np.arange(len(first)), 2))
    labels, test = replace(frames[first], segment=None, time_fs=None), frames[np.sort(away[: options.test_frames])]
    parts = {"labels": labels, "pairs": pairs, "test": test}
    files = [save(f, folder / f"{name}.npz") for name, f in parts.items()]
    force = FORCE_WEIGHTS.get(options.molecule, 80.0)
    base = settings(options, steps=1500 * 950 // 8, energy=float(len(frames.numbers)), force=force)
    base["optimiser"]["learning_rate"] = 1e-4 if options.molecule == "benzene" else 5e-4
    return Study(f"md17-{options.molecule}", base, lambda _: files[0], files[1], (files[2],))


def configuration(study: Study, name: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return the configuration of one run; ``name`` is a variant, or VARIANT@WEIGHT."""
    variant, _, weight = name.partition("@")
    tree, labels = json.loads(json.dumps(study.base)), study.labels(seed)
    # few frames are named several times: an epoch of a few steps would cost more than its steps
    tree["data"]["files"] = [labels] * max(1, 400 // len(load(labels)[0]))
    tree["trainer"]["seed"] = seed
    chosen = VARIANTS[variant]
    if chosen is not None:
        files = labels if variant == "dens" else study.pairs
        strength = float(weight or options.weight)
        tree["frames"] = {"files": [files], "weight": strength, "schedule": options.schedule, **chosen}
    return tree


def run(study: Study, name: str, seed: int, options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Train one run, or go on with it, or read its result; energies in meV, forces in meV/A, by held-out set."""
    tree = configuration(study, name, seed, options)
    weight = f"-w{tree['frames']['weight']:g}" if "frames" in tree else ""
    place = folder / f"{name.partition('@')[0].replace(' ', '-')}{weight}-{seed}"
    done = place / "errors.json"
    if done.is_file():
        kept = json.loads(done.read_text())
        if kept["config"] == tree:
            return kept["errors"]
        raise EquistrideError(f"{place} holds a run of other settings", hint="choose another --runs, or delete it")
    place.mkdir(parents=True, exist_ok=True)
    (place / "config.yaml").write_text(yaml.safe_dump(tree))
    config, last = load_config(place / "config.yaml"), place / "checkpoints" / "last.ckpt"
    train(config, place, place, resume=last.is_file(), progress=options.progress)
    errors = evaluate(last, study.held)
    partial = done.with_suffix(".partial")
    partial.write_text(json.dumps({"config": tree, "errors": errors}, indent=1))
    os.replace(partial, done)
    return errors


def evaluate(checkpoint: Path, held: Sequence[str]) -> dict[str, float]:
    """Return mean absolute errors on each held-out set: total energy [meV], force component [meV/A]."""
    content = read_checkpoint(checkpoint)
    facts = content["equistride"]
    potential = build_potential(model_config(facts["config"]["model"]), facts)
    load_weights(potential, content, checkpoint)
    found = {}
    for path in held:
        dataset = GraphDataset(load(path), facts["species"], float(potential.cutoff), torch.float32)
        energy, force = [], []
        for first in range(0, len(dataset), 50):
            batch = collate([dataset[k] for k in range(first, min(first + 50, len(dataset)))])
            error = errors_of(potential, batch, create_graph=False)
            energy.append((error["energy"].detach().abs() * batch.atoms_per_frame).numpy())
            force.append(error["force"].detach().abs().numpy().ravel())
        name = Path(path).stem
        found[f"{name} energy"] = 1000 * float(np.concatenate(energy).mean())
        found[f"{name} force"] = 1000 * float(np.concatenate(force).mean())
    return found


def compare(one: Sequence[float], other: Sequence[float]) -> dict[str, float]:
    """Return mean paired difference, its 95 % interval and the two-sided sign test of ``one - other``, seed by seed."""
    difference = np.asarray(one) - np.asarray(other)
    count, mean = len(difference), float(difference.mean())
    half = math.inf if count < 2 else float(stats.t.ppf(0.975, count - 1) * difference.std(ddof=1) / math.sqrt(count))
    wins, ties = int((difference < 0).sum()), int((difference == 0).sum())
    p = 1.0 if count == ties else float(stats.binomtest(wins, count - ties).pvalue)
    return {"mean": mean, "low": mean - half, "high": mean + half, "wins": wins, "count": count, "p": p}


def described(study: Study, options: argparse.Namespace, results: dict[str, Any]) -> dict[str, Any]:
    """Return what the file of results holds: the settings, what every seed gave, and the paired differences."""
    rows = results.get("baseline", {})
    differences: dict[str, Any] = {}
    for name, found in results.items():
        both = [s for s in found if s in rows]
        if name != "baseline" and both:
            differences[name] = {
                q: compare([found[s][q] for s in both], [rows[s][q] for s in both]) for q in found[both[0]]
            }
    base = {k: v for k, v in study.base.items() if k != "name"}
    common = {"labels": options.labels, "weight": options.weight, "schedule": options.schedule}
    return {"system": study.name, "settings": base | common, "errors": results, "difference from baseline": differences}


def show(study: Study, results: dict[str, dict[str, dict[str, float]]], seeds: Sequence[int]) -> None:
    """Print a table for each quantity."""
    console = Console(width=130)
    quantities = [q for q in next(iter(next(iter(results.values())).values())) if not q.startswith("validation")]
    for quantity in quantities:
        unit = "meV" if quantity.endswith("energy") else "meV/A"
        table = Table(title=f"{study.name}: {quantity}, {unit} ({len(seeds)} seeds)", title_justify="left")
        for column in ("variant", "mean", "difference from baseline", "95 % interval", "better seeds", "sign test p"):
            table.add_column(column, justify="left" if column == "variant" else "right")
        for variant, rows in results.items():
            both = [s for s in map(str, seeds) if s in rows and s in results.get("baseline", {})]
            mean = float(np.mean([row[quantity] for row in rows.values()]))
            if variant == "baseline" or not both:
                table.add_row(variant, f"{mean:.2f}", "", "", "", "")
                continue
            c = compare([rows[s][quantity] for s in both], [results["baseline"][s][quantity] for s in both])
            interval = f"{c['low']:+.2f} to {c['high']:+.2f}"
            table.add_row(
                variant, f"{mean:.2f}", f"{c['mean']:+.2f}", interval, f"{c['wins']}/{c['count']}", f"{c['p']:.3f}"
            )
        console.print(table)


def main(arguments: Sequence[str] | None = None) -> dict[str, dict[str, dict[str, float]]]:
    """Train what is missing, print the tables, write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("system", choices=["oscillators", "ethanol", "aspirin", "isomers", "md17"])
    parser.add_argument("--published", type=Path, default=ROOT / "data", help="folder of the data")
    parser.add_argument("--molecule", default="ethanol", help="of md17")
    parser.add_argument("--full", action="store_true", help="md17: the published network")
    parser.add_argument("--network", choices=["tiny", "small"], help="tiny where left out, small for md17")
    parser.add_argument(
        "--variants", nargs="+", default=["baseline", "frames", "noise", "self", "shuffled"], metavar="VARIANT[@WEIGHT]",
        help=f"{', '.join(VARIANTS)}; with a weight of the auxiliary loss in place of --weight",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=1, help="fresh seeds confirm what others chose")
    parser.add_argument("--steps", type=int, help="of training")
    parser.add_argument("--labels", type=int, help="labelled frames")
    parser.add_argument("--test-frames", type=int, default=10_000, help="of md17")
    parser.add_argument("--weight", type=float, default=0.1, help="of the auxiliary loss; the force loss has 80")
    parser.add_argument("--schedule", choices=["linear", "constant"], default="linear")
    parser.add_argument("--spacing", type=float, help="oscillators: time between frames [fs]")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "frames")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--progress", action="store_true")
    parser.add_argument("--name", help="of the results, where one system has several tables")
    options = parser.parse_args(arguments)
    unknown = [v for v in options.variants if v.partition("@")[0] not in VARIANTS]
    if unknown:
        parser.error(f"unknown variants {', '.join(unknown)}; expected {', '.join(VARIANTS)}")
    usual = "small" if options.system == "md17" else "tiny"
    options.network = "published" if options.full else options.network or usual
    studies = {"oscillators": oscillators, "isomers": isomers, "md17": published}
    folder = (options.runs / options.system).resolve()
    study = studies.get(options.system, molecule)(options, folder / "data")
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    stored = options.results / f"frames-{options.name or study.name}.json"
    results: dict[str, dict[str, dict[str, float]]] = {}
    options.results.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        for variant in options.variants:
            errors = run(study, variant, seed, options, folder)
            results.setdefault(variant, {})[str(seed)] = errors
            print(
                f"{study.name} {variant} seed {seed}: " + ", ".join(f"{k} {v:.2f}" for k, v in errors.items()),
                flush=True,
            )
            stored.write_text(json.dumps(described(study, options, results), indent=1) + "\n")
    show(study, results, list(seeds))
    return results


if __name__ == "__main__":
    main()
