"""The demo: what it writes, and which machine it names."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from equistride.bench.timing import processor


def test_the_demo_names_its_machine(tmp_path: Path, random_artifact32: Path) -> None:
    """The threads are those of the dynamics; the reference, which LAMMPS runs after them, has one."""
    command = [sys.executable, "-m", "equistride.cli.main", "demo", "--model", str(random_artifact32)]
    command += ["--nvt", "100", "--nve", "100", "--threads", "2", "-o", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "speed: " in done.stdout
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"quartz.pdb", "quartz.dcd", "report.html", "report.json"}
    facts = json.loads((tmp_path / "out" / "report.json").read_text())
    assert facts["machine"] == f"{processor()}, 2 threads"
    assert facts["steps"] == 200
