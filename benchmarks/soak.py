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

from equistride.engines.openmm import TrajCastIntegrator, create_system
from equistride.engines.openmm_structure import topology_from_ase

MEGABYTE = 2**20
MOST_MB, MOST_SLOWER = 10.0, 1.05


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
        f"{name}: {20 * each} times, memory {grown:+.1f} MB, a step at the end takes {slower:.3f} of one at first: {verdict}"
    )
    return passes


def main() -> None:
    """Run all parts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--propagator", type=Path, default=Path("models/quartz-trajcast-30fs/quartz-trajcast-30fs.pt"))
    share = (options := parser.parse_args()).share
    torch.set_num_threads(1)
    platform = openmm.Platform.getPlatformByName("Reference")
    with tempfile.TemporaryDirectory() as folder:
        topology = good.topology()
        system = create_system(good.artifact(Path(folder)), topology)

        def context() -> openmm.Context:
            made = openmm.Context(system, openmm.LangevinMiddleIntegrator(50, 1.0, 0.002), platform)
            made.setPositions(good.positions() / 10)
            return made

        one = context()
        passed = [watched("OpenMM steps", round(share * 200_000), lambda: one.getIntegrator().step(1))]
        passed.append(watched("Contexts", round(share * 500), lambda: context().getIntegrator().step(1)))

        def threads() -> None:
            running = [threading.Thread(target=lambda: context().getIntegrator().step(20)) for _ in range(4)]
            for thread in running:
                thread.start()
            for thread in running:
                thread.join()

        passed.append(watched("four threads", round(share * 200), threads))
    from equistride.data.quartz import quartz

    atoms = quartz((2, 2, 2))
    crystal, start = topology_from_ase(atoms)
    integrator = TrajCastIntegrator(options.propagator, crystal, thermostat="csvr", temperature=300, tau=100, seed=1)
    moving = openmm.Context(create_system(options.propagator, crystal), integrator, platform)
    moving.setPositions(start)
    moving.setVelocitiesToTemperature(300, 1)
    passed.append(watched("strides", round(share * 20_000), lambda: integrator.step(1)))
    raise SystemExit(0 if all(passed) else 1)


if __name__ == "__main__":
    main()
