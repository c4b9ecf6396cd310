"""Full neighbour lists with shifts: ours, vesin, matscipy-neighbours, and ASE once.

Process CPU time on one thread. Every round runs each program once, one after the other, so that a busy
machine slows all alike; the table gives medians and the median over rounds of the ratio to ours. Then ours in rows of calls on
one thread and on two, by the clock; that needs two idle cores and an OMP_WAIT_POLICY that is not passive, for threads that
sleep wake late. Freed memory is kept by the process, as it is where a model is loaded.

    python benchmarks/neighbors.py [--rounds 15] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from ase import Atoms
from ase.neighborlist import primitive_neighbor_list
from machine import keep_freed_memory, processor
from matscipy_neighbours import neighbour_list
from vesin import NeighborList

from equistride.bench.systems import RATTLE, structure
from equistride.graph import neighbor_list

SYSTEMS, CUTOFFS = ("quartz-4374", "water-30000"), (5.0, 6.0)
ROW = 10_000_000  # edges of the calls in a row


def programs(atoms: Atoms, cutoff: float) -> dict[str, Callable[[], int]]:
    """Return, for each program, a function that builds the list of (i, j, shift) and counts its edges."""
    at, box, flags = atoms.positions, atoms.cell.array, atoms.pbc
    positions, cell, pbc = torch.tensor(at), torch.tensor(box), torch.tensor(flags)
    single, single_cell = positions.float(), cell.float()
    vesin = NeighborList(cutoff=cutoff, full_list=True, n_threads=1)
    return {
        "equistride": lambda: neighbor_list(positions, cell, pbc, cutoff)[1].shape[0],
        "equistride f32": lambda: neighbor_list(single, single_cell, pbc, cutoff)[1].shape[0],
        "vesin": lambda: len(vesin.compute(at, box, flags, "ijS")[0]),
        "matscipy": lambda: len(neighbour_list("ijS", positions=at, cell=box, pbc=flags, cutoff=cutoff)[0]),
        "ase": lambda: len(primitive_neighbor_list("ijS", flags, box, at, cutoff)[0]),
    }


def timed(call: Callable[[], object]) -> float:
    """Milliseconds of a call by the clock."""
    begin = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - begin)


def measure(name: str, atoms: Atoms, cutoff: float, rounds: int) -> dict[str, Any]:
    """Return times [ms] and ratios of one case."""
    run = programs(atoms, cutoff)
    edges = {name: build() for name, build in run.items() if name != "ase"}  # warm
    if len({edges[name] for name in edges if name != "equistride f32"}) != 1:
        raise SystemExit(f"the programs disagree on {name} at {cutoff} A: {edges}")
    times: dict[str, list[float]] = {name: [] for name in run}
    for number in range(rounds):
        for program, build in run.items():
            if program == "ase" and number > 0:
                continue
            begin = time.process_time()
            build()
            times[program].append(1e3 * (time.process_time() - begin))
    ours = times["equistride"]
    ratio = {key: median(t / o for t, o in zip(times[key], ours, strict=True)) for key in run if key != "ase"}
    ratio["ase"] = times["ase"][0] / median(ours)
    return {
        "structure": name,
        "atoms": len(atoms),
        "cutoff": cutoff,
        "edges": edges["equistride"],
        "ms": {key: median(values) for key, values in times.items()},
        "ratio": ratio,
    }


def two_threads(results: list[dict[str, Any]], cases: list[tuple[Atoms, float]], rounds: int) -> None:
    """Add the times by the clock [ms] on one thread and on two; each round goes through all cases, for a computer that is shared
    has slow seconds."""
    clock: list[dict[int, list[float]]] = [{1: [], 2: []} for _ in cases]
    ours = [programs(atoms, cutoff)["equistride"] for atoms, cutoff in cases]
    for _ in range(rounds):
        for result, call, taken in zip(results, ours, clock, strict=True):
            for threads, values in taken.items():
                torch.set_num_threads(threads)
                values.append(median(timed(call) for _ in range(max(3, ROW // result["edges"]))))
    torch.set_num_threads(1)
    for result, taken in zip(results, clock, strict=True):
        ratios = sorted(one / two for one, two in zip(*taken.values(), strict=True))
        result["ms by the clock"] = {threads: median(values) for threads, values in taken.items()}
        result["two threads against one"] = median(ratios)
        result["quartiles of it"] = [ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here as well")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    packages = {name: version(name) for name in ("equistride", "torch", "vesin", "matscipy-neighbours", "ase")}
    machine = {"cpu": processor(), "simd": os.environ.get("EQUISTRIDE_SIMD", "best"), "packages": packages}
    print(f"{machine['cpu']}, one thread, process CPU time, median of {options.rounds} rounds; {packages}")
    names = ("equistride", "equistride f32", "vesin", "matscipy", "ase (once)")
    print(f"{'structure':14s} {'A':>4s} {'edges':>8s}  " + "".join(f"{name:>22s}" for name in names))
    results, cases = [], []
    for name in SYSTEMS:
        atoms = structure(name)
        atoms.rattle(RATTLE, seed=1)
        for cutoff in CUTOFFS:
            result = measure(name, atoms, cutoff, options.rounds)
            results.append(result)
            ms, ratio = result["ms"], result["ratio"]
            cells = "".join(f"{ms[key]:10.2f} ms {ratio[key]:7.2f}x" for key in ms)
            print(f"{name:14s} {cutoff:4.1f} {result['edges']:8d}  {cells}", flush=True)
            cases.append((atoms, cutoff))
    two_threads(results, cases, options.rounds)
    for result in results:
        low, high = result["quartiles of it"]
        print(
            f"{result['structure']:14s} {result['cutoff']:4.1f} on two threads {result['two threads against one']:.2f} "
            f"times as fast as on one (half of the rounds between {low:.2f} and {high:.2f})"
        )
    if options.json is not None:
        report = {"machine": machine, "rounds": options.rounds, "results": results}
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
