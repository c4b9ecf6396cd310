"""Threads are woken for enough work alone; nine atoms are not that, whatever the environment says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

MODELS = Path(__file__).parents[2] / "models"
WOKEN = """
import os, sys
import numpy as np
import torch
from ase.build import molecule
from equistride.artifact import load
from equistride.data.quartz import quartz

def threads():
    return len(os.listdir("/proc/self/task"))

def evaluate(atoms):
    system = (model.species_index(atoms.get_chemical_symbols()), atoms.cell.array, atoms.pbc)
    if model.metadata.kind == "potential":
        model.compute(atoms.positions, *system)
    else:
        model.propagate(atoms.positions, np.zeros((len(atoms), 3)), *system)

torch.set_num_threads(3)
before = threads()
model = load(sys.argv[1])
evaluate(molecule("CH3CH2OH") if "ethanol" in sys.argv[1] else quartz())
small = threads() - before
if "quartz" in sys.argv[1]:
    evaluate(quartz((6, 6, 4)))
print(small, threads() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts the threads that Linux shows")
@pytest.mark.parametrize(
    ("name", "woken"), [("quartz-esen", 2), ("quartz-trajcast-30fs", 2), ("ethanol-trajcast-7fs", 0)]
)
def test_nine_atoms_wake_no_thread_and_many_do(name: str, woken: int) -> None:
    """Nor does loading, which evaluates small frames. Three threads are two more than there were; torch may have as many."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "MKL_", "GOMP_"))}
    command = [sys.executable, "-c", WOKEN, str(MODELS / name / f"{name}.pt")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    small, many = (int(count) for count in done.stdout.split())
    assert small == 0
    assert many in (woken, 2 * woken)


SHARED = """
import os, sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
import torch
from equistride.artifact import load
from equistride.data.quartz import quartz

atoms = quartz((2, 2, 2))
atoms.rattle(0.02, seed=1)

def forces(threads, model=None):
    torch.set_num_threads(threads)
    model = model or load(sys.argv[1])
    place = model.species_index(atoms.get_chemical_symbols()), atoms.cell.array, atoms.pbc
    return model.compute(atoms.positions, *place).forces.numpy()

one = forces(1)
model = load(sys.argv[1])
same = [np.array_equal(forces(threads, model), one) for threads in (2, 3, 5)]
# before there are threads that end: one may hold a lock of MKL for ever in the child
child = os.fork()
if not child:
    os._exit(0 if np.array_equal(forces(3, model), one) else 1)
same.append(os.waitpid(child, 0)[1] == 0)
models = [load(sys.argv[1]) for _ in range(2)]
with ThreadPoolExecutor(2) as pool:
    same += [np.array_equal(found, one) for found in pool.map(lambda m: forces(3, m), models)]
try:
    torch.ops.equistride.radial_splines(torch.ones(1 << 18), torch.full((1 << 18,), 7), torch.ones(1, 2, 4, 64), 0.0, 1.0)
    same.append(False)
except IndexError:
    same.append(np.array_equal(forces(3, model), one))
print(*same)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked there")
def test_bits_do_not_depend_on_who_shares_the_work() -> None:
    """Three numbers of threads, two callers at once, a forked process, and a call after one that failed on some thread.

    Of few atoms, for which torch wakes no team of its own: OpenMP does not live through a fork.
    """
    command = [sys.executable, "-W", "ignore", "-c", SHARED, str(MODELS / "quartz-esen" / "quartz-esen.pt")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True"] * 7
