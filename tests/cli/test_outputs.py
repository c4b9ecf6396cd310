"""Outputs that cannot be written are refused in one sentence before the work begins; those that can be are written."""

from __future__ import annotations

import errno
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.io import write

from equistride.cli import main, outputs
from equistride.data.quartz import quartz
from equistride.errors import EquistrideError
from equistride.trajectories import Trajectory, write_npz

MODELS = Path(__file__).parents[2] / "models"
POTENTIAL = MODELS / "quartz-esen" / "quartz-esen.pt"
PROPAGATOR = MODELS / "quartz-trajcast-30fs" / "quartz-trajcast-30fs.pt"


def status(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run the command in this process; return its status."""
    monkeypatch.setattr(sys, "argv", ["equistride", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        main.main()
    return int(stopped.value.code or 0)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a file in the way, a structure, a trajectory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.md").write_text("# Notes\n\nNothing that is a structure.\n")
    (tmp_path / "here").mkdir()
    write(tmp_path / "quartz.pdb", quartz())
    still = np.tile(quartz().positions, (4, 1, 1)) + 0.05 * np.random.default_rng(1).normal(size=(4, 9, 3))
    run = Trajectory(still, tuple(quartz().get_chemical_symbols()), np.arange(4) * 10.0, quartz().cell.array)
    write_npz(tmp_path / "run.npz", run)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("demo", "-o", "notes.md"), "notes.md is a file; expected a folder"),
        (("demo", "-o", "notes.md/below"), "notes.md is a file; expected a folder"),
        (("demo", "-o", "/proc/demo"), "no file can be made in the folder /proc"),
        (("demo", "--model", PROPAGATOR, "-o", "new"), "is a propagator, which has no forces; expected an artifact of"),
        (("export", "last.ckpt", "-o", "here"), "here is a folder; expected the path of a file"),
        (("export", "last.ckpt", "-o", "notes.md/x.pt"), "notes.md is a file; expected a folder"),
        (
            ("export", POTENTIAL, "--for", "openmm", "--structure", "quartz.pdb", "-o", "none/o.pt"),
            "the folder none does not exist; make it first",
        ),
        (("export", POTENTIAL, "-o", "x.pt"), "is an artifact of a potential already; expected a checkpoint"),
        (("export", PROPAGATOR, "-o", "x.pt"), "is an artifact of a propagator already; expected a checkpoint"),
        (("report", "run.npz", "-o", "notes.md/x.html"), "notes.md is a file"),
        (("report", "run.npz", "-o", "here"), "here is a folder"),
        (("report", "run.npz", "-o", "knot/x.html"), "knot cannot be read or written (File exists); check the path"),
        (("train", "config.yaml", "-o", "notes.md"), "notes.md is a file"),
        (("relax", POTENTIAL, "quartz.pdb", "-o", "notes.md"), "notes.md is a file"),
        (("validate", POTENTIAL, "--nve", "quartz.pdb", "--report", "notes.md"), "notes.md is a file"),
        (("ensemble", POTENTIAL, POTENTIAL, "-o", "here"), "here is a folder"),
        (("data", "quartz", "-o", "notes.md"), "notes.md is a file"),
    ],
)
def test_one_sentence_before_the_work(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    arguments: tuple[object, ...], said: str,
) -> None:  # fmt: skip
    (workplace / "knot").symlink_to("nowhere")
    before = sorted(workplace.rglob("*"))
    assert status(monkeypatch, *arguments) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("equistride: ")
    assert said in line
    assert "weights_only" not in line
    assert sorted(workplace.rglob("*")) == before, "nothing is left behind"


def test_folders_that_are_made(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert status(monkeypatch, "report", "run.npz", "-o", "a/b/page.html") == 0
    assert (workplace / "a" / "b" / "page.html").is_file()
    assert (workplace / "a" / "b" / "page.json").is_file()


def test_a_torchforce(workplace: Path, random_artifact32: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hint that is given for an artifact where a checkpoint is wanted."""
    arguments = ("export", random_artifact32, "--for", "openmm", "--structure", "quartz.pdb", "-o", "here/force.pt")
    assert status(monkeypatch, *arguments) == 0
    assert (workplace / "here" / "force.pt").stat().st_size > 1000


def test_checks_of_paths(workplace: Path) -> None:
    good = Path("here/x"), Path("here/new/x")
    assert outputs.file(good[0]) == outputs.new_file(good[0]) == outputs.folder(good[0]) == good[0]
    assert outputs.new_file(good[1]) == outputs.folder(good[1]) == good[1]
    assert outputs.file(None) is outputs.new_file(None) is outputs.folder(None) is None
    assert outputs.folder(Path("here")) == Path("here")
    assert list((workplace / "here").iterdir()) == []
    with pytest.raises(EquistrideError, match="here/new does not exist"):
        outputs.file(good[1])


def test_which_errors_of_the_system_are_the_users() -> None:
    assert "b.pt cannot be read or written (Permission denied)" in str(
        main.about_file(PermissionError(errno.EACCES, "Permission denied", "a.pt", None, "b.pt"))
    )
    assert "a file cannot be read or written (No space left" in str(
        main.about_file(OSError(errno.ENOSPC, "No space left on device"))
    )
    assert main.about_file(OSError("libtorch.so: cannot open shared object file")) is None
    assert main.about_file(ChildProcessError(errno.ECHILD, "No child processes")) is None
