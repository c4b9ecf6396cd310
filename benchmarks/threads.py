"""A step of few atoms on one thread and on more, in the default environment, on a quiet computer and beside a busy process.

    python benchmarks/threads.py models/quartz-esen/quartz-esen.pt [--threads 2] [--seconds 0.4] [--json FILE]

For each number of atoms of quartz the median step of one thread, that of more and their ratio; processes of one and of more
threads take turns. Nothing of OpenMP is in their environment. `busy` is beside one process that never sleeps.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from machine import processor, publish, without_openmp

SIZES = {9: (1, 1, 1), 27: (3, 1, 1), 72: (2, 2, 2), 162: (3, 3, 2), 576: (4, 4, 4)}
"""Cells of quartz along each axis, by atoms."""
ROUNDS = 4

WORKER = """
import statistics, sys, time
import numpy as np
import torch
from equistride.artifact import load
from equistride.data.quartz import quartz

torch.set_num_threads(int(sys.argv[2]))
model = load(sys.argv[1])

def step_of(cells):
    atoms = quartz(tuple(cells))
    atoms.rattle(0.02, seed=1)
    place = model.species_index(atoms.get_chemical_symbols()), atoms.cell.array, atoms.pbc
    if model.metadata.kind == "potential":
        return lambda: model.compute(atoms.positions, *place)
    return lambda: model.propagate(atoms.positions, np.zeros((len(atoms), 3)), *place)

print("ready", flush=True)
for line in sys.stdin:
    seconds, *cells = line.split()
    step, times = step_of([int(n) for n in cells]), []
    step()
    end = time.perf_counter() + float(seconds)
    while time.perf_counter() < end or len(times) < 3:
        begun = time.perf_counter()
        step()
        times.append(time.perf_counter() - begun)
    print(statistics.median(times), flush=True)
"""


class Worker:
    """A process with a model and a number of threads, which steps when it is told to."""

    def __init__(self, artifact: str, threads: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, artifact, str(threads)], env=without_openmp(), stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.answer()

    def answer(self) -> str:
        """Return the next line that it says."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the process that steps ended with {self.process.wait()}")
        return line

    def step(self, seconds: float, cells: tuple[int, int, int]) -> float:
        """Return the median time of a step [s] in so many seconds."""
        assert self.process.stdin is not None
        print(seconds, *cells, file=self.process.stdin, flush=True)
        return float(self.answer())

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


@contextmanager
def busy(wanted: bool) -> Iterator[None]:
    """Another process that never sleeps, where it is wanted."""
    spinner = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if wanted else None
    try:
        yield
    finally:
        if spinner:
            spinner.kill()
            spinner.wait()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifact", nargs="+")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--atoms", type=int, nargs="+", choices=list(SIZES), default=[9, 27, 72, 162])
    parser.add_argument("--seconds", type=float, default=0.4, help="of each measurement; there are four")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    print(f"{processor()}, {os.cpu_count()} cores; ms a step")
    print(f"{'artifact':<24}{'atoms':>6}{'':>7}{'1 thread':>10}{f'{options.threads} threads':>11}{'ratio':>7}")
    for artifact in options.artifact:
        workers = [Worker(artifact, threads) for threads in (1, options.threads)]
        for load in ("quiet", "busy"):
            with busy(load == "busy"):
                for atoms in options.atoms:
                    times: tuple[list[float], list[float]] = ([], [])
                    for _ in range(ROUNDS):
                        for worker, kept in zip(workers, times, strict=True):
                            kept.append(worker.step(options.seconds, SIZES[atoms]))
                    one, more = (1e3 * statistics.median(kept) for kept in times)
                    ratio = statistics.median(b / a for a, b in zip(*times, strict=True))
                    print(
                        f"{Path(artifact).stem:<24}{atoms:>6}{load:>7}{one:>10.2f}{more:>11.2f}{ratio:>7.2f}",
                        flush=True,
                    )
                    rows.append({"artifact": Path(artifact).stem, "atoms": atoms, "load": load, "one_ms": one, "more_ms": more,
                                 "ratio": ratio})  # fmt: skip
        for worker in workers:
            worker.close()
    if options.json:
        publish({"machine": processor(), "threads": options.threads, "rows": rows}, options.json)


if __name__ == "__main__":
    main()
