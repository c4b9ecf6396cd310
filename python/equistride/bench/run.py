"""Runs the tests, each in a process of its own, so that memory is measured from the start and a crash stops one test alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from equistride.artifact import load
from equistride.bench import dynamics, kernels, peers
from equistride.bench.catalogue import Benchmark
from equistride.bench.models import Chosen, check_fits, choose
from equistride.bench.settings import Settings
from equistride.bench.systems import structure
from equistride.errors import EquistrideError


def measure(test: Benchmark, chosen: Chosen | None, settings: Settings) -> dict[str, Any]:
    """Run one test in this process; ``chosen`` is its model, None for kernels."""
    if chosen is None:
        result = kernels.measure(test, settings)
        if settings.peers:
            result["peers"] = peers.of_kernels(test, result["kernels"], settings)
        return result
    result = dynamics.measure(test, chosen, settings)
    if settings.peers:
        compare = peers.of_potential if test.kind == "potential" else peers.of_propagator
        result["peers"] = compare(test, result["cutoff_A"], settings)
    return result


def prepare(tests: list[Benchmark], settings: Settings, scratch: Path) -> list[Chosen | None]:
    """Choose the model of every test, and refuse what cannot run before anything does.

    Raises
    ------
    EquistrideError
        For a platform that is not there, an artifact of the other kind, without the elements, or for a larger system.
    """
    settings.platform_name()
    models: list[Chosen | None] = []
    for test in tests:
        if test.kind == "kernels":
            models.append(None)
            continue
        artifact = None if settings.artifact is None else Path(settings.artifact)
        chosen = choose(test, artifact, random=settings.random, precision=settings.precision, scratch=scratch)
        check_fits(load(chosen.path, verify=False).metadata, chosen.title, test.title, structure(test.system))
        models.append(chosen)
    return models


def run(tests: list[Benchmark], settings: Settings) -> Iterator[dict[str, Any]]:
    """Run tests one after the other and yield their results; a test that fails yields its name and ``error``."""
    with tempfile.TemporaryDirectory() as name:
        for test, chosen in zip(tests, prepare(tests, settings, Path(name)), strict=True):
            yield _child(test, chosen, settings)


def _child(test: Benchmark, chosen: Chosen | None, settings: Settings) -> dict[str, Any]:
    model = None if chosen is None else [str(chosen.path), chosen.title, chosen.trained]
    task = json.dumps({"kind": test.kind, "system": test.system, "model": model, "settings": settings.summary()})
    environment = {**os.environ, "OMP_NUM_THREADS": str(settings.threads), "OMP_WAIT_POLICY": "passive"}
    command = [sys.executable, "-m", "equistride.bench.run"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as child:
        try:
            out, messages = child.communicate(task)
        except BaseException:  # Ctrl-C: leave no test behind
            child.kill()
            raise
    try:
        return json.loads(out.strip().splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        return {"name": test.name, "error": f"{test.name} did not end well: {_reason(child.returncode, messages)}"}


def _reason(status: int, messages: str) -> str:
    if status < 0:
        memory = ", likely for want of memory" if -status == signal.SIGKILL else ""
        return f"its process was ended by {signal.Signals(-status).name}{memory}"
    return (messages.strip().splitlines() or [f"status {status}"])[-1]


def main() -> None:
    """The child: a task as JSON from standard input, the result as the last line of standard output."""
    task = json.loads(sys.stdin.read())
    test = Benchmark(task["kind"], task["system"])
    chosen = None if task["model"] is None else Chosen(Path(task["model"][0]), *task["model"][1:])
    try:
        result = measure(test, chosen, Settings(**task["settings"]))
    except EquistrideError as error:
        result = {"name": test.name, "error": str(error)}
    except MemoryError:
        result = {"name": test.name, "error": f"{test.name} does not fit into memory"}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
