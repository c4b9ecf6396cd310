"""CPU time of full neighbour lists with shifts: ours, vesin, matscipy-neighbours, and ASE once.

Process CPU time on one thread. Every round runs each program once, one after the other, so that a busy
machine slows all alike; the table gives medians and the median over rounds of the ratio to ours.

    python benchmarks/neighbors.py [--rounds 15] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "ops"))

import numpy as np
import structures
import torch
from ase.neighborlist import primitive_neighbor_list
from machine import processor
from matscipy_neighbours import neighbour_list
from vesin import NeighborList

from equistride.graph import neighbor_list


def programs(structure: structures.Structure, cutoff: float) -> dict[str, Callable[[], int]]:
    """Return, for each program, a function that builds the list of (i, j, shift) and counts its edges."""
    positions, cell, pbc = structure.tensors()
    single, single_cell, _ = structure.tensors(torch.float32)
    at, box, flags = np.ascontiguousarray(structure.positions), structure.cell, np.array(structure.pbc)
    vesin = NeighborList(cutoff=cutoff, full_list=True, n_threads=1)
    return {
        "equistride": lambda: neighbor_list(positions, cell, pbc, cutoff)[1].shape[0],
        "equistride f32": lambda: neighbor_list(single, single_cell, pbc, cutoff)[1].shape[0],
        "vesin": lambda: len(vesin.compute(at, box, flags, "ijS")[0]),
        "matscipy": lambda: len(neighbour_list("ijS", positions=at, cell=box, pbc=flags, cutoff=cutoff)[0]),
        "ase": lambda: len(primitive_neighbor_list("ijS", flags, box, at, cutoff)[0]),
    }


def measure(structure: structures.Structure, cutoff: float, rounds: int) -> dict[str, object]:
    """Return times [ms] and ratios of one case."""
    run = programs(structure, cutoff)
    edges = {name: build() for name, build in run.items() if name != "ase"}  # warm
    if len({edges[name] for name in edges if name != "equistride f32"}) != 1:
        raise SystemExit(f"the programs disagree on {structure.name} at {cutoff} A: {edges}")
    times: dict[str, list[float]] = {name: [] for name in run}
    for number in range(rounds):
        for name, build in run.items():
            if name == "ase" and number > 0:
                continue
            begin = time.process_time()
            build()
            times[name].append(1e3 * (time.process_time() - begin))
    ours = times["equistride"]
    ratio = {name: median(t / o for t, o in zip(times[name], ours, strict=True)) for name in run if name != "ase"}
    ratio["ase"] = times["ase"][0] / median(ours)
    return {
        "structure": structure.name,
        "atoms": len(structure.positions),
        "cutoff": cutoff,
        "edges": edges["equistride"],
        "ms": {name: median(values) for name, values in times.items()},
        "ratio": ratio,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here as well")
    options = parser.parse_args()
    torch.set_num_threads(1)
    every = (True, True, True)
    cases = [
        structures.quartz((9, 9, 6), rattle=0.05),
        structures.uniform(30000, np.eye(3) * 66.9, every, name="uniform 30000 (density of water)"),
    ]
    packages = {name: version(name) for name in ("equistride", "torch", "vesin", "matscipy-neighbours", "ase")}
    machine = {"cpu": processor(), "simd": os.environ.get("EQUISTRIDE_SIMD", "best"), "packages": packages}
    print(f"{machine['cpu']}, one thread, process CPU time, median of {options.rounds} rounds; {packages}")
    names = ("equistride", "equistride f32", "vesin", "matscipy", "ase (once)")
    print(f"{'structure':34s} {'A':>4s} {'edges':>8s}  " + "".join(f"{name:>22s}" for name in names))
    results = []
    for structure in cases:
        for cutoff in (5.0, 6.0):
            result = measure(structure, cutoff, options.rounds)
            results.append(result)
            ms, ratio = result["ms"], result["ratio"]
            cells = "".join(f"{ms[name]:10.2f} ms {ratio[name]:7.2f}x" for name in ms)
            print(f"{structure.name:34s} {cutoff:4.1f} {result['edges']:8d}  {cells}", flush=True)
    if options.json is not None:
        report = {"machine": machine, "rounds": options.rounds, "results": results}
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
