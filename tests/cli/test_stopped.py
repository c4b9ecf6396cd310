"""Ctrl-C: status 130, and one sentence on what is left of the work."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from equistride.cli import main

CONFIG = {
    "name": "toy",
    "model": {"architecture": "esen", "cutoff": 3.5, "channels": 4, "hidden_channels": 4, "edge_channels": 4},
    "data": {"files": ["frames.npz"], "validation_fraction": 0.3},
    "trainer": {"steps": 10**6, "validate_every": 10**6, "checkpoint_every": 20},
}


EVERY = {signal.SIGINT: 20, signal.SIGTERM: 10**6}
"""Steps between checkpoints."""


def stopped(arguments: list[str], folder: Path, ready: Callable[[], bool], by: signal.Signals = signal.SIGINT) -> str:
    """Run a command, press Ctrl-C (or send another signal) once ``ready``, and return its sentence."""
    command = [sys.executable, "-m", "equistride.cli.main", *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=folder, stdout=pipe, stderr=pipe, text=True) as running:
        until = time.monotonic() + 120
        while running.poll() is None and time.monotonic() < until and not ready():
            time.sleep(0.02)
        running.send_signal(by)
        _, messages = running.communicate(timeout=120)
    assert running.returncode == 130, messages
    assert "Traceback" not in messages
    (line,) = [line for line in messages.splitlines() if line.startswith("equistride: ")]
    return line


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A folder with a config and eight labelled frames of four atoms."""
    rng = np.random.default_rng(2)
    base = np.array([[0.0, 0, 0], [1.7, 0, 0], [0, 1.8, 0], [0, 0, 1.6]])
    positions = base + 0.1 * rng.normal(size=(8, 4, 3))
    labels = {"energy": rng.normal(size=8), "forces": rng.normal(size=(8, 4, 3))}
    np.savez(tmp_path / "frames.npz", numbers=[14, 8, 8, 8], positions=positions, **labels)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    return tmp_path


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_a_training_names_its_checkpoint(workplace: Path, by: signal.Signals) -> None:
    """That which was written last; SIGTERM, the word of a queue, lets it write one more."""
    last = workplace / "run" / "checkpoints" / "last.ckpt"
    command = ["train", "config.yaml", "-o", "run", "--no-progress", f"trainer.checkpoint_every={EVERY[by]}"]
    ready = last.is_file if by is signal.SIGINT else (workplace / "run" / "log" / "version_0" / "metrics.csv").is_file
    said = stopped(command, workplace, ready, by)
    found = re.fullmatch(r"equistride: stopped; run/checkpoints/last.ckpt \(step (\d+)\) can be resumed with.*", said)
    assert found, said
    step = int(found[1])
    assert step > 0
    assert by is signal.SIGTERM or step % 20 == 0
    more = [sys.executable, "-m", "equistride.cli.main", *command, "--resume", f"trainer.steps={step + 1}"]
    done = subprocess.run(more, cwd=workplace, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


def test_a_training_without_a_checkpoint(workplace: Path) -> None:
    command = ["train", "config.yaml", "trainer.checkpoint_every=1000000", "-o", "run", "--no-progress"]
    said = stopped(command, workplace, (workplace / "run" / "log").is_dir)
    assert said == "equistride: stopped; there is no checkpoint yet, so nothing can be resumed"


@pytest.mark.parametrize(("left", "said"), [((), "stopped"), (("2 files are there",), "stopped; 2 files are there")])
def test_any_verb(
    left: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that has something to say of its own, and one that has not."""

    def load(path: Path) -> None:
        raise KeyboardInterrupt(*left)

    monkeypatch.setattr("equistride.artifact.load", load)
    monkeypatch.setattr(sys, "argv", ["equistride", "inspect", "model.pt"])
    with pytest.raises(SystemExit) as end:
        main.main()
    assert end.value.code == 130
    assert capsys.readouterr().err == f"equistride: {said}\n"
