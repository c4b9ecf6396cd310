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
    ("name", "woken"), [("quartz-esen", [0, 2]), ("quartz-trajcast-30fs", [0, 2]), ("ethanol-trajcast-7fs", [0, 0])]
)
def test_nine_atoms_wake_no_thread_and_many_do(name: str, woken: list[int]) -> None:
    """Nor does loading, which evaluates small frames. A team of three has two more threads than there were."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "MKL_", "GOMP_"))}
    command = [sys.executable, "-c", WOKEN, str(MODELS / name / f"{name}.pt")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert [int(count) for count in done.stdout.split()] == woken
