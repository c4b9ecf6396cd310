"""Run for long and look whether memory grows or steps become slower: OpenMM steps, strides, Contexts, threads.

``python benchmarks/soak.py`` takes the numbers of the issue; ``--share 0.01`` a hundredth of them. A part passes where the
resident memory of its second half is within 10 MB of that of its first tenth, and its last tenth is no more than 5 % slower.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import fault_inputs as good
import numpy as np
import openmm
import psutil
import torch

from equistride.data.quartz import quartz
from equistride.engines.openmm import TrajCastIntegrator, create_system
from equistride.engines.openmm_structure import topology_from_ase

MEGABYTE = 2**20
MOST_MB, MOST_SLOWER = 10.0, 1.05
PARTS = ("steps", "contexts", "threads", "strides")


def watched(name: str, count: int, work: Callable[[], None]) -> bool:
    """Run ``work`` in 20 parts of ``count`` together; print and judge."""
    process, memory, seconds = psutil.Process(), [], []
    each = max(1, count // 20)
    for _ in range(20):
        begin = time.process_time()
        for _ in range(each):
            work()
        seconds.append((time.process_time() - begin) / each)
        gc.collect()
        memory.append(process.memory_info().rss / MEGABYTE)
    grown = max(memory[10:]) - memory[1]
    slower = float(np.median(seconds[-4:]) / np.median(seconds[1:5]))
    passes = grown <= MOST_MB and slower <= MOST_SLOWER
    verdict = "passes" if passes else "FAILS"
    print(
        f"{name}: {20 * each} times, {1000 * np.median(seconds):.2f} ms of CPU each, memory {grown:+.1f} MB of {memory[1]:.0f}, "
        f"a step at the end takes {slower:.3f} of one at first: {verdict}",
        flush=True,
    )
    return passes


def openmm_parts(share: float, chosen: list[str]) -> list[bool]:
    """Steps of one Context, Contexts one after another, and four of them at once."""
    platform = openmm.Platform.getPlatformByName("Reference")
    with tempfile.TemporaryDirectory() as folder:
        system = create_system(good.artifact(Path(folder)), good.topology())

    def moved(steps: int) -> None:
        made = context()
        made.getIntegrator().step(steps)

    def context() -> openmm.Context:
        made = openmm.Context(system, openmm.LangevinMiddleIntegrator(50, 1.0, 0.002), platform)
        made.setPositions(good.positions() / 10)
        return made

    def threads() -> None:
        running = [threading.Thread(target=moved, args=(20,)) for _ in range(4)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()

    one = context()
    works = {
        "steps": ("OpenMM steps", 200_000, lambda: one.getIntegrator().step(1)),
        "contexts": ("Contexts", 500, lambda: moved(1)),
        "threads": ("four threads", 200, threads),
    }
    return [watched(name, round(share * count), work) for part, (name, count, work) in works.items() if part in chosen]


def strides(share: float, propagator: Path) -> bool:
    """Strides of a crystal."""
    crystal, start = topology_from_ase(quartz((2, 2, 2)))
    integrator = TrajCastIntegrator(propagator, crystal, thermostat="csvr", temperature=300, tau=100, seed=1)
    platform = openmm.Platform.getPlatformByName("Reference")
    moving = openmm.Context(create_system(propagator, crystal), integrator, platform)
    moving.setPositions(start)
    moving.setVelocitiesToTemperature(300, 1)
    return watched("strides", round(share * 20_000), lambda: integrator.step(1))


def main() -> None:
    """Run all parts, or those that are named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--part", choices=PARTS, action="append")
    parser.add_argument("--propagator", type=Path, default=Path("models/quartz-trajcast-30fs/quartz-trajcast-30fs.pt"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    chosen = options.part or list(PARTS)
    passed = openmm_parts(options.share, chosen)
    if "strides" in chosen:
        passed.append(strides(options.share, options.propagator))
    raise SystemExit(0 if all(passed) else 1)


if __name__ == "__main__":
    main()
