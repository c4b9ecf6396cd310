"""The inputs of ``examples/lammps`` run with the command ``lmp``, as their first lines say."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import lammps_runs as lmp
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "lammps"
POTENTIAL, PROPAGATOR = "quartz-esen", "quartz-trajcast-30fs"


@pytest.fixture(scope="module", autouse=True)
def _plugin() -> None:
    lmp.require_plugin()


def run(name: str, folder: Path, options: list[str], ranks: int = 1) -> str:
    """Run an example in a folder; return its log."""
    program = shutil.which("lmp", path=str(Path(sys.executable).parent)) or shutil.which("lmp")
    assert program is not None
    command = lmp.on_ranks([program, "-in", str(FOLDER / name), "-nocite", *options], ranks)
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return (folder / "log.lammps").read_text()


def table(log: str) -> list[dict[str, float]]:
    """Return the rows of the first thermo table."""
    lines = log[log.index("   Step ") :].splitlines()
    rows = [line.split() for line in lines[: next(k for k, line in enumerate(lines) if line.startswith("Loop time"))]]
    return [dict(zip(rows[0], map(float, row), strict=True)) for row in rows[1:]]


def test_every_example_is_tried() -> None:
    """An input that is added here needs a test."""
    assert sorted(path.name for path in FOLDER.glob("*.in")) == ["quartz.in", "quartz_stride.in"]


@pytest.mark.parametrize("ranks", [1, 2])
def test_potential_and_strides(repository: Path, tmp_path: Path, ranks: int) -> None:
    """Twenty steps keep the energy; three strides go on from their end; the models are found from a folder above."""
    for model in (POTENTIAL, PROPAGATOR):
        if not (repository / "models" / model / f"{model}.pt").is_file():
            pytest.skip(f"the model {model} is not released yet")
    (tmp_path / "models").symlink_to(repository / "models")
    log = run("quartz.in", tmp_path, ["-var", "steps", "20"], ranks)
    assert "plugin load" not in (FOLDER / "quartz.in").read_text()
    rows = table(log)
    assert rows[0]["Temp"] == pytest.approx(300.0)
    # 243 atoms, 1 fs, single precision: the total energy stays within 1 meV an atom while 19 meV an atom change hands
    assert abs(rows[-1]["TotEng"] - rows[0]["TotEng"]) < 1e-3 * 243
    assert rows[-1]["Temp"] < 290.0
    strides = table(run("quartz_stride.in", tmp_path, ["-var", "strides", "3"], ranks))
    assert strides[-1]["Time"] == pytest.approx(0.09)
    assert 100.0 < strides[-1]["Temp"] < 400.0
