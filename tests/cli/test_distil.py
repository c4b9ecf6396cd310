"""``equistride distil``: one command from a CIF file to a card; stops that lose nothing; what it refuses."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase.io import write
from test_stopped import stopped

from equistride.artifact.checkpoint import read_checkpoint
from equistride.data.silicon import silicon

PROPAGATOR = Path(__file__).resolve().parents[2] / "models" / "quartz-trajcast-30fs" / "quartz-trajcast-30fs.pt"
WORDS = [
    "distil", "silicon.cif", "--teacher", "Si.sw", "--supercell", "1", "--stride", "20", "--walks", "4", "--steps", "60",
    "--frames", "20", "--strides", "500", "model.num_layers=1", "model.channels=4", "model.l_max=1", "model.radial_widths=[8]",
]  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a CIF file of silicon."""
    write(tmp_path / "silicon.cif", silicon(a=5.45))
    return tmp_path


def equistride(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "equistride.cli.main", *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


def killed(words: list[str], folder: Path, ready: Callable[[], bool]) -> None:
    """Run a command and kill it, without a word, once ``ready``."""
    with subprocess.Popen(
        [sys.executable, "-m", "equistride.cli.main", *words], cwd=folder, stderr=subprocess.DEVNULL
    ) as child:
        until = time.monotonic() + 120
        while child.poll() is None and time.monotonic() < until and not ready():
            time.sleep(0.02)
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL


def test_stops_and_kills_lose_nothing(place: Path) -> None:
    """Killed in the walks, stopped in the training and in the student's strides, it ends with the files of an unbroken run."""
    done = equistride(*WORDS, "-o", "whole", cwd=place)
    assert done.returncode == 0, done.stderr
    assert "stride 20 fs: asked for; the fastest vibration" in " ".join(done.stderr.split())
    assert "training: 15 of 30" in done.stderr
    assert "displacement: " in done.stdout
    assert "rollout: 500 steps" in done.stdout
    words, folder = [*WORDS, "-o", "si"], place / "si"
    killed(words, place, (folder / "data" / "walk-1.npz").is_file)
    assert not (folder / "data" / "train.npz").exists()
    for ready in (folder / "training" / "checkpoints" / "last.ckpt", folder / "comparison" / "rollout" / "state.csv"):
        said = stopped(words, place, ready.is_file)
        assert said == "equistride: stopped; what was made is in si, and the same command goes on from there"
    assert not (folder / "README.md").exists()
    done = equistride(*words, cwd=place)
    assert done.returncode == 0, done.stderr
    states = [
        read_checkpoint(place / run / "training-3" / "checkpoints" / "last.ckpt")["state_dict"]
        for run in ("whole", "si")
    ]
    assert all(np.array_equal(states[0][name], states[1][name]) for name in states[0])
    frames = [(place / run / "comparison" / "rollout" / "trajectory.extxyz").read_bytes() for run in ("whole", "si")]
    assert frames[0] == frames[1]
    assert (folder / "report.html").is_file()
    assert "`equistride distil silicon.cif --teacher Si.sw" in (folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--teacher", str(PROPAGATOR)], "is a propagator, which tells no forces, and cannot teach"),
        (["--teacher", "C.sw"], "there is no teacher C.sw"),
        (["--teacher", "SiC.tersoff.nothing"], "there is no teacher"),
        (["--teacher", "GaN.sw"], "LAMMPS does not take the potential GaN.sw for Si"),
        (
            ["--teacher", "Si.sw", "--stride", "long"],
            "the stride is not valid; expected a number of fs, or auto; found long",
        ),
        (["--teacher", "Si.sw", "--budget", "soon"], "the budget is not valid"),
        (["--teacher", "Si.sw", "--student", "mace"], "the student is not known; expected trajcast or esen or nequip"),
        (["--teacher", "Si.sw", "--name", "a/b"], "the name is not valid"),
        (["--teacher", "Si.sw", "model.size=3"], "unknown key 'model.size'"),
    ],
)
def test_refusals_before_the_work(
    words: list[str], said: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from equistride.cli import main

    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "argv", ["equistride", "distil", "silicon.cif", "-o", "out", *words])
    with pytest.raises(SystemExit) as end:
        main.main()
    assert end.value.code == 2
    assert said in capsys.readouterr().err
    assert not (place / "out" / "relaxed.extxyz").exists()


def test_a_structure_that_holds_its_atoms(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ase.constraints import FixAtoms

    from equistride.cli import main

    atoms = silicon()
    atoms.set_constraint(FixAtoms([0]))
    write(place / "POSCAR", atoms)
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "argv", ["equistride", "distil", "POSCAR", "--teacher", "Si.sw", "-o", "out"])
    with pytest.raises(SystemExit):
        main.main()
    assert (
        "a distillation of atoms that are held would be wrong; expected atoms without constraints"
        in capsys.readouterr().err
    )
