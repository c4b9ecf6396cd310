"""CPU time of energy and forces of a universal potential: our artifact against the program that it comes from, in turns.

    python benchmarks/foreign_speed.py [--model 7net-0] [--cells 4 3 2] [--rounds 5]

needs an environment with sevenn (and what it needs); both run in float32 on one thread, through ASE, on displaced quartz, and
the time is that of the process. Loading an artifact tells glibc to keep freed memory, which serves both sides here; with
``EQUISTRIDE_MALLOC=system`` neither has it, as people run the other side.
"""

from __future__ import annotations

import argparse
import platform
import resource
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch

from equistride.data.quartz import quartz
from equistride.engines.ase import EquistrideCalculator
from equistride.importers.sevennet import find_checkpoint, import_sevennet


def main() -> None:
    """Print milliseconds of each, the ratio of the best, and how far forces differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="7net-0", help="a released potential, or a file")
    parser.add_argument("--modal", default="")
    parser.add_argument("--cells", type=int, nargs=3, default=(4, 3, 2), help="of quartz, nine atoms each")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    from sevenn.calculator import SevenNetCalculator

    atoms = quartz(tuple(options.cells))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ours.pt"
        import_sevennet(options.model, path, elements=["O", "Si"], modal=options.modal)
        ours = EquistrideCalculator(path)
    theirs = SevenNetCalculator(str(find_checkpoint(options.model)), device="cpu", modal=options.modal or None)
    times: dict[str, list[float]] = {"equistride": [], "sevenn": []}
    difference = 0.0
    for k in range(options.rounds + 2):
        forces = []
        for name, calculator in zip(times, (ours, theirs), strict=True):
            moved = atoms.copy()
            moved.rattle(0.05, seed=k)
            moved.calc = calculator
            start = time.process_time()
            forces.append(moved.get_forces())
            if k > 1:  # the first ones compile
                times[name].append(1000 * (time.process_time() - start))
        difference = max(difference, float(np.abs(forces[0] - forces[1]).max()))
    print(f"{options.model}, {len(atoms)} atoms, float32, one thread, {platform.processor() or platform.machine()}")
    for name, values in times.items():
        print(f"{name:>11}: best {min(values):.0f}, median {float(np.median(values)):.0f} ms")
    print(f"      ratio: {min(times['sevenn']) / min(times['equistride']):.1f}; forces differ by {difference:.1e} eV/A")
    print(f"     memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB, of both together")


if __name__ == "__main__":
    main()
