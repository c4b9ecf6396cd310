"""The verb as a user types it, and what is left of a run that was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from equistride.bench.catalogue import Benchmark
from equistride.bench.results import Outfile, read
from equistride.bench.settings import Settings
from equistride.cli import main
from equistride.cli.bench import Style, _measure

SLAB = "slab.xyz"


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
        (("--outfile", Path(__file__).parent), "bench is a folder; expected the path of a file"),
        (("--outfile", Path(__file__) / "out.json"), "is a file; expected a folder"),
        (("--structure", "missing.cif"), "missing.cif does not exist"),
        (("--structure", SLAB), "slab.xyz is periodic along some axes alone"),
        (("--structure", SLAB, "--test", "potential-quartz-72"), "a test is named by its kind alone"),
        (("--structure", SLAB, "--artifact", "missing.pt"), "missing.pt does not exist"),
        (("--table", "missing.json"), "missing.json cannot be read"),
        (("--plot", "missing.json"), "--plot needs the name of its picture"),
    ],
)
def test_one_sentence_and_status_2(
    arguments: tuple[object, ...],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    slab = 'Lattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3 pbc="T T F"'
    (tmp_path / SLAB).write_text(f"1\n{slab}\nCu 0 0 0\n")
    arguments = tuple(tmp_path / SLAB if a == SLAB else a for a in arguments)
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


def begun(out: Path, artifact: Path) -> subprocess.Popen[str]:
    """Start two tests, a short one and a long one, that write to a file, in a process group of their own."""
    command = [sys.executable, "-m", "equistride.cli.main", "bench", "--seconds", "1", "--outfile", str(out)]
    command += ["--test", "potential-quartz-72,potential-quartz-4374", "--artifact", str(artifact)]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_for(running: subprocess.Popen[str], ready: Callable[[], object]) -> None:
    """Return once ``ready`` is true, the process has ended, or five minutes have passed."""
    until = time.monotonic() + 300
    while running.poll() is None and time.monotonic() < until and not ready():
        time.sleep(0.05)


def test_a_run_that_is_killed_keeps_what_it_has(random_artifact32: Path, tmp_path: Path) -> None:
    """The first test's figures are in the file while the second one runs; killing it then leaves them there."""
    out = tmp_path / "out.json"
    with begun(out, random_artifact32) as running:
        wait_for(running, lambda: results_in(out))
        os.killpg(running.pid, signal.SIGKILL)
    results = read(out)["results"]
    assert [result["name"] for result in results] == ["potential-quartz-72"]
    assert results[0]["model"] == "random32"
    assert results[0]["wall_seconds"] >= 1.0


def test_a_run_that_is_stopped_says_what_it_has(random_artifact32: Path, tmp_path: Path) -> None:
    """Ctrl-C, which reaches the test's own process too, after the first test."""
    out = tmp_path / "out.json"
    with begun(out, random_artifact32) as running:
        wait_for(running, lambda: results_in(out))
        os.killpg(running.pid, signal.SIGINT)
        _, messages = running.communicate(timeout=60)
    assert running.returncode == 130
    assert messages.strip() == f"equistride: stopped; the results of 1 of 2 tests are in {out}"
    assert results_in(out) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["out.json"]


@pytest.mark.parametrize(
    ("done", "file", "said"),
    [
        (0, "out.json", "no test was done and out.json is as it was"),
        (0, None, "no test was done"),
        (2, "out.json", "the results of 2 of 3 tests are in out.json"),
        (2, None, "the results of 2 of 3 tests are printed above alone (--outfile keeps them)"),
    ],
)
def test_what_a_stopped_run_says(done: int, file: str | None, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(tests: list[Benchmark], settings: Settings) -> Iterator[dict[str, Any]]:
        yield from ({"name": test.name, "error": "too warm"} for test in tests[:done])
        raise KeyboardInterrupt

    kept: list[dict[str, Any]] = []
    monkeypatch.setattr("equistride.bench.run.run", run)
    monkeypatch.setattr(Outfile, "__init__", lambda self, path, settings: None)
    monkeypatch.setattr(Outfile, "add", lambda self, result: kept.append(result))
    tests = [Benchmark("potential", name) for name in ("quartz-72", "quartz-576", "aspirin")]
    with pytest.raises(KeyboardInterrupt) as stopped:
        _measure(tests, Settings(), Style.table, None if file is None else Path(file))
    assert str(stopped.value) == said
    assert len(kept) == (0 if file is None else done)
