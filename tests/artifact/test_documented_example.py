"""The example of docs/artifact.md, as it stands there: it writes a file, and the file is the Lennard-Jones argon that it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from equistride.artifact import load
from equistride.artifact.validate import validate

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "artifact.md"


def test_the_example_runs(tmp_path: Path) -> None:
    (program,) = DOCUMENT.read_text().split("```python\n")[1:]
    (tmp_path / "argon.py").write_text(program.partition("```")[0])
    done = subprocess.run([sys.executable, "argon.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    model = load(tmp_path / "argon.pt")
    assert model.metadata.capabilities.decomposable
    assert model.metadata.capabilities.batched
    distance, cutoff, sigma, epsilon = 3.9, 8.5, 3.4, 0.0104
    energy = 4 * epsilon * ((sigma / distance) ** 12 - (sigma / distance) ** 6) * (1 - (distance / cutoff) ** 2) ** 3
    found = model.compute([[0.0, 0.0, 0.0], [0.0, 0.0, distance]], ["Ar"] * 2)
    assert float(found.atomic_energies.sum()) == pytest.approx(energy, rel=1e-12)
    assert all(check.passed for check in validate(tmp_path / "argon.pt"))
