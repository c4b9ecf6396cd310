"""What a reader copies must run: the scripts in examples/; tests/docs does so for the documents."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
EXAMPLES = REPOSITORY / "examples"
MODEL = REPOSITORY / "models" / "quartz-esen" / "quartz-esen.pt"
PROPAGATOR = REPOSITORY / "models" / "quartz-trajcast-30fs" / "quartz-trajcast-30fs.pt"
ELSEWHERE = {"ligand_in_water.py": "docs/mlmm.md"}
"""Scripts that a page runs, in tests/docs."""
ARGUMENTS = {"quartz_nve.py": [str(MODEL), "20"], "quartz_stride.py": [str(PROPAGATOR), "2"]}


def run(script: Path, arguments: list[str], folder: Path) -> str:
    command = [sys.executable, str(script), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "script", [p for p in sorted(EXAMPLES.glob("*.py")) if p.name not in ELSEWHERE], ids=lambda p: p.name
)
def test_example(script: Path, tmp_path: Path) -> None:
    assert script.name in ARGUMENTS, "say here how a test runs this example"
    if not Path(ARGUMENTS[script.name][0]).is_file():
        pytest.skip(f"the model {ARGUMENTS[script.name][0]} is not released yet")
    run(script, ARGUMENTS[script.name], tmp_path)


def test_example_writes_its_trajectory(tmp_path: Path) -> None:
    run(REPOSITORY / "examples" / "quartz_nve.py", ARGUMENTS["quartz_nve.py"], tmp_path)
    assert (tmp_path / "quartz.dcd").stat().st_size > 2 * 162 * 12  # two frames of 162 atoms, three float32 each
