"""The command line: what it prints for good input, one sentence and status 2 for bad input."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from ase import Atoms
from ase.io import write
from rewritten import rewritten
from typer.testing import CliRunner

from equistride.cli.main import app, main

CONFIG = {
    "name": "toy",
    "model": {"architecture": "esen", "cutoff": 3.5, "channels": 4, "hidden_channels": 4, "edge_channels": 4},
    "data": {"files": ["frames.npz"], "validation_fraction": 0.3},
    "trainer": {"steps": 4, "validate_every": 2, "checkpoint_every": 2},
}


def equistride(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, as a user does."""
    command = [sys.executable, "-m", "equistride.cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=300, check=False)


Refused = Callable[..., str]


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Refused:
    """Run a command that must fail as a user's error: status 2, one line on stderr beside notes, no traceback.

    In this process, by ``main`` and with Python's own filters of warnings, which costs a tenth of a process of its own.
    """

    def run(*arguments: object, cwd: Path | None = None) -> str:
        capfd.readouterr()
        with monkeypatch.context() as patch, warnings.catch_warnings():
            patch.setattr(sys, "argv", ["equistride", *map(str, arguments)])
            if cwd is not None:
                patch.chdir(cwd)
            warnings.resetwarnings()
            for kind in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
                warnings.simplefilter("ignore", kind)
            with pytest.raises(SystemExit) as stop:
                main()
        out, err = capfd.readouterr()
        assert stop.value.code == 2, out + err
        return the_sentence(err)

    return run


def the_sentence(stderr: str) -> str:
    lines = [line for line in stderr.splitlines() if line.strip() and not line.startswith("equistride: note: ")]
    assert len(lines) == 1, stderr
    assert lines[0].startswith("equistride: ")
    assert "Traceback" not in stderr
    return lines[0]


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A folder with a config and eight labelled frames of four atoms."""
    return furnished(tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same after a training of four steps in ``run``."""
    folder = furnished(tmp_path_factory.mktemp("trained"))
    done = equistride("train", "config.yaml", "-o", "run", "--no-progress", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "val force mae" in done.stdout
    return folder


def furnished(tmp_path: Path) -> Path:
    rng = np.random.default_rng(2)
    base = np.array([[0.0, 0, 0], [1.7, 0, 0], [0, 1.8, 0], [0, 0, 1.6]])
    np.savez(
        tmp_path / "frames.npz",
        numbers=[14, 8, 8, 8],
        positions=base + 0.1 * rng.normal(size=(8, 4, 3)),
        energy=rng.normal(size=8),
        forces=rng.normal(size=(8, 4, 3)),
    )
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    return tmp_path


def test_version_and_help() -> None:
    assert equistride("--version").stdout.startswith("equistride 0.")
    for verb in ("data", "train", "export", "inspect", "validate", "report", "demo"):
        done = CliRunner().invoke(app, [verb, "--help"])
        assert done.exit_code == 0
        assert "Usage" in done.stdout


def test_a_torch_that_cannot_be_imported_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libcudnn.so.9: cannot open shared object file')\n")
    command = [sys.executable, "-m", "equistride.cli.main", "demo", "-o", str(tmp_path / "demo")]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "equistride: a package cannot be imported (libcudnn.so.9: cannot open shared object file); "
        "`equistride doctor` says what is there and what to do"
    )


def test_from_data_to_a_validated_artifact(refused: Refused, trained: Path, tmp_path: Path) -> None:
    workplace = shutil.copytree(trained, tmp_path / "workplace")
    assert refused("train", "config.yaml", "-o", "run", cwd=workplace).count("--resume") == 1
    more = equistride(
        "train", "config.yaml", "trainer.steps=6", "-o", "run", "--resume", "--no-progress", cwd=workplace
    )
    assert more.returncode == 0, more.stderr
    checkpoint = "run/checkpoints/last.ckpt"
    assert torch.load(workplace / checkpoint, weights_only=True)["global_step"] == 6
    assert equistride("export", checkpoint, "-o", "toy.pt", cwd=workplace).returncode == 0
    facts = json.loads(equistride("inspect", "toy.pt", "--json", cwd=workplace).stdout)
    assert facts["species"] == ["O", "Si"]
    assert facts["periodic"] == "any"
    checked = equistride("validate", "toy.pt", cwd=workplace)
    assert checked.returncode == 0, checked.stdout
    assert checked.stdout.count("pass") >= 8


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": None, "drop": "name"}, "lacks the key 'name'"),
        ({"trainer": {"stepz": 3}}, "did you mean 'steps'"),
        ({"model": {"cutoff": -1}}, "'model.cutoff' is not valid"),
        ({"model": {"l_max": 1, "m_max": 2}}, "m_max (2) must not be above l_max (1)"),
        ({"data": {"files": []}}, "'data.files' is not valid"),
        ({"data": {"files": ["missing.npz"]}}, "does not exist"),
    ],
)
def test_a_wrong_config_is_one_sentence(
    refused: Refused, workplace: Path, change: dict[str, object], said: str
) -> None:
    config = CONFIG | {k: v for k, v in change.items() if k != "drop"}
    config.pop(str(change.get("drop", "")), None)
    (workplace / "config.yaml").write_text(yaml.safe_dump(config))
    assert said in refused("train", "config.yaml", "-o", "run", cwd=workplace)
    assert not (workplace / "run").exists()


@pytest.mark.parametrize("content", ["[1, 2", "just words", "\x00\x01"])
def test_a_file_that_is_no_config(refused: Refused, workplace: Path, content: str) -> None:
    (workplace / "config.yaml").write_text(content)
    refused("train", "config.yaml", cwd=workplace)


def test_overrides(refused: Refused, workplace: Path) -> None:
    assert "not an assignment" in refused("train", "config.yaml", "trainer.steps", cwd=workplace)
    assert "did you mean 'channels'" in refused("train", "config.yaml", "model.chanels=3", cwd=workplace)


@pytest.mark.parametrize("kind", ["truncated", "nan", "unknown type", "missing arrays"])
def test_damaged_data(refused: Refused, workplace: Path, kind: str) -> None:
    path = workplace / "frames.npz"
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:300])
    elif kind == "nan":
        with np.load(path) as z:
            arrays = dict(z)
        arrays["forces"][3, 1, 2] = np.nan
        np.savez(path, **arrays)
    elif kind == "missing arrays":
        np.savez(path, positions=np.zeros((2, 1, 3)))
    else:
        path = path.rename(workplace / "frames.bin")
    said = refused("train", "config.yaml", f"data.files=[{path.name}]", "-o", "run", cwd=workplace)
    expected = {
        "truncated": "cannot be read",
        "nan": "NaN or infinite value in 'forces', frame 3",
        "unknown type": "unknown type",
        "missing arrays": "lacks the arrays",
    }
    assert expected[kind] in said


class _Touch:
    """A pickle of this writes a file when it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (self.target,))  # type: ignore[return-value]


@pytest.mark.parametrize(
    "kind", ["missing", "truncated", "noise", "pickle", "torch.save", "plain script", "newer", "altered"]
)
def test_a_file_that_is_no_artifact(refused: Refused, tmp_path: Path, random_artifact64: Path, kind: str) -> None:
    path, trap = tmp_path / "model.pt", tmp_path / "trap"
    good = random_artifact64.read_bytes()
    if kind == "truncated":
        path.write_bytes(good[: len(good) // 2])
    elif kind == "noise":
        path.write_bytes(np.random.default_rng(1).bytes(5000))
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(_Touch(trap)))
    elif kind == "torch.save":
        torch.save({"weights": torch.zeros(3)}, path)
    elif kind == "plain script":
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(path))
    elif kind in ("newer", "altered"):
        record, old, new = {
            "newer": ("extra/metadata.json", b'"format_version": 2', b'"format_version": 99'),
            "altered": ("extra/reference.json", b'"forces": [[', b'"forces": [[1'),
        }[kind]
        (tmp_path / "good.pt").write_bytes(good)
        rewritten(tmp_path / "good.pt", path, lambda name, data: data.replace(old, new) if name == record else data)
    said = refused("inspect", path)
    assert path.name in said
    assert not trap.exists()
    if kind == "newer":
        assert "99" in said
        assert "update" in said


@pytest.mark.parametrize("kind", ["missing", "truncated", "pickle", "foreign"])
def test_a_file_that_is_no_checkpoint(refused: Refused, tmp_path: Path, kind: str) -> None:
    path, trap = tmp_path / "last.ckpt", tmp_path / "trap"
    if kind == "truncated":
        torch.save({"equistride": {}, "state_dict": {}}, path)
        path.write_bytes(path.read_bytes()[:-40])
    elif kind == "pickle":
        torch.save(_Touch(trap), path)
    elif kind == "foreign":
        torch.save({"model": torch.zeros(3)}, path)
    refused("export", path, "-o", tmp_path / "out.pt")
    assert not trap.exists()
    assert [p.name for p in tmp_path.iterdir() if "out" in p.name] == []


def test_structures_that_a_model_cannot_take(refused: Refused, tmp_path: Path, random_artifact64: Path) -> None:
    for name, atoms, said in (
        ("unknown.xyz", Atoms("SiAu", [[0, 0, 0], [0, 0, 2.0]]), "does not know: Au"),
        ("twins.xyz", Atoms("SiO2", [[0, 0, 0], [0, 0, 1.6], [0, 0, 1.6]]), "on top of"),
        ("nan.xyz", Atoms("SiO", [[0, 0, 0], [0, 0, np.nan]]), "not finite"),
        ("empty.xyz", Atoms(), "no atoms"),
    ):
        write(tmp_path / name, atoms)
        assert said in refused("validate", random_artifact64, "--structure", tmp_path / name), name
    assert "does not exist" in refused("validate", random_artifact64, "--structure", tmp_path / "none.xyz")


def test_no_half_written_file_where_the_folder_is_missing(refused: Refused, trained: Path) -> None:
    words = ("export", "run/checkpoints/last.ckpt", "-o", "nowhere/toy.pt")
    said = refused(*words, cwd=trained)
    assert "nowhere does not exist" in said
    in_a_process = equistride(*words, cwd=trained)
    assert in_a_process.returncode == 2
    assert the_sentence(in_a_process.stderr) == said
    assert "float32 or float64" in refused(
        "export", "run/checkpoints/last.ckpt", "-o", "toy.pt", "--dtype", "half", cwd=trained
    )
    assert not (trained / "toy.pt").exists()


def test_quartz_data_by_name(refused: Refused, tmp_path: Path) -> None:
    assert "no recipe 'basalt'" in refused("data", "quartz", "-o", tmp_path, "--recipe", "basalt")
    done = equistride("data", "quartz", "-o", tmp_path, "--recipe", "quartz72-test", "--segments", "1")
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "quartz72-test.npz") as z:
        assert z["positions"].shape == (11, 72, 3)
    again = equistride("data", "quartz", "-o", tmp_path, "--recipe", "quartz72-test")
    assert "there already" in again.stdout
