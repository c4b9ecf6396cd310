"""One model in both containers, TorchScript and AOTInductor: time of a call, alternately, on quartz.

    OMP_NUM_THREADS=1 python benchmarks/containers.py MODEL.pt MODEL.pt2 [--atoms 72 576] [--repeats 15]

Both files hold one model, ``equistride export CHECKPOINT -o MODEL.pt2 --container aoti`` and without. One thread, process CPU
time of the whole call, neighbour list included; median over the repeats of the time of each and of their ratio, pair by pair.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from machine import processor

from equistride.artifact import Model, load
from equistride.data.quartz import quartz

CELLS = {72: (2, 2, 2), 216: (4, 3, 2), 576: (4, 4, 4), 4374: (9, 9, 6)}
SPEED = 4e-3  # A/fs, of each component: about 300 K


def call(model: Model, atoms: int) -> Callable[[], object]:
    """Return the evaluation of a model on displaced quartz in motion."""
    structure = quartz(CELLS[atoms])
    structure.rattle(0.05, seed=1)
    velocities = np.random.default_rng(2).normal(0.0, SPEED, (atoms, 3))
    positions, cell = torch.tensor(structure.positions), torch.tensor(structure.cell.array)
    species = model.species_index(structure.get_chemical_symbols())
    if model.metadata.kind == "propagator":
        return lambda: model.propagate(positions, torch.tensor(velocities), species, cell, True)
    return lambda: model.compute(positions, species, cell, True)


def seconds(function: Callable[[], object]) -> float:
    """Return the CPU time of one call."""
    start = time.process_time()
    function()
    return time.process_time() - start


def main() -> None:
    """Print a row for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("torchscript")
    parser.add_argument("aoti")
    parser.add_argument("--atoms", type=int, nargs="+", default=[72, 576], choices=list(CELLS))
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    models = [load(options.torchscript), load(options.aoti, trust_compiled=True)]
    print(f"{processor()}, torch {torch.__version__}, one thread, {models[0].metadata.architecture}, "
          f"{models[0].metadata.dtype}, fused {models[0].metadata.fused}")  # fmt: skip
    print("atoms   TorchScript   AOTInductor   ratio")
    for atoms in options.atoms:
        pair = [call(model, atoms) for model in models]
        for function in pair * 2:
            function()
        times = [[seconds(function) for function in pair] for _ in range(options.repeats)]
        scripted, compiled = (statistics.median(column) for column in zip(*times, strict=True))
        ratio = statistics.median(row[0] / row[1] for row in times)
        print(f"{atoms:5d} {scripted * 1e3:10.1f} ms {compiled * 1e3:10.1f} ms {ratio:7.2f}")


if __name__ == "__main__":
    main()
