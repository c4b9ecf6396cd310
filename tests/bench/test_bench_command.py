"""The verb as a user types it, and what is left of a run that was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from equistride.bench.results import read
from equistride.cli import main


def bench(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run the verb in this process; return its status."""
    monkeypatch.setattr(sys, "argv", ["equistride", "bench", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        main.main()
    return int(stopped.value.code or 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--test", "potential-quarz-72"), "there is no test 'potential-quarz-72'; expected potential-quartz-72"),
        (("--seconds", 0), "above 0 s"),
        (("--platform", "Abacus"), "no platform Abacus"),
        (("--artifact", "missing.pt"), "missing.pt does not exist"),
        (("-o", "figure.png"), "--plot"),
        (("--outfile", "missing/out.json"), "the folder missing does not exist"),
        (("--table", "missing.json"), "missing.json cannot be read"),
        (("--plot", "missing.json"), "no file to go to"),
    ],
)
def test_one_sentence_and_status_2(
    arguments: tuple[object, ...], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(monkeypatch, *arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("equistride: ")
    assert said in lines[0]


def test_list(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(monkeypatch, "--list") == 0
    assert "propagator-quartz-34992" in capsys.readouterr().out


def results_in(path: Path) -> int:
    """Return the number of results in a file that another process writes; 0 where it is not there yet."""
    return len(json.loads(path.read_text())["results"]) if path.exists() else 0


def test_a_run_that_is_killed_keeps_what_it_has(random_artifact32: Path, tmp_path: Path) -> None:
    """The first test's figures are in the file while the second one runs; killing it then leaves them there."""
    out = tmp_path / "out.json"
    command = [sys.executable, "-m", "equistride.cli.main", "bench", "--seconds", "1", "--outfile", str(out)]
    command += ["--test", "potential-quartz-72,potential-quartz-4374", "--artifact", str(random_artifact32)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True) as running:
        until = time.monotonic() + 300
        while running.poll() is None and time.monotonic() < until and not results_in(out):
            time.sleep(0.05)
        os.killpg(running.pid, signal.SIGKILL)
    results = read(out)["results"]
    assert [result["name"] for result in results] == ["potential-quartz-72"]
    assert results[0]["model"] == "random32"
    assert results[0]["wall_seconds"] >= 1.0
