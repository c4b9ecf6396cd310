"""Processes that try what may fail: they tell facts line by line, so that a crash loses none that came before it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import Any

PATIENCE = 120
"""Seconds that a probe may take; on the file system of a cluster an import of torch takes long."""
ENDED, ERRORS = "ended", "stderr"
"""Facts that this file adds: how the process ended where it ended badly, and what it wrote to stderr."""


def tell(**facts: Any) -> None:
    """Tell facts, in a probe."""
    print(json.dumps(facts), flush=True)


class Probe:
    """A module of this package that runs in a process of its own.

    Parameters
    ----------
    module
        Its name, ``probe_torch`` say.
    words
        Its arguments.
    under
        What starts it: ``("mpiexec", "-n", "2")`` say.
    """

    def __init__(self, module: str, *words: str, under: tuple[str, ...] = ()) -> None:
        command = [*under, sys.executable, "-m", f"equistride.doctor.{module}", *words]
        self._facts: dict[str, Any] | None = None
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            errors="replace", env=os.environ | {"PYTHONUNBUFFERED": "1"}, start_new_session=True,
        )  # fmt: skip

    def facts(self) -> dict[str, Any]:
        """Return what it told, when it has ended; a later fact of a name replaces an earlier one."""
        if self._facts is not None:
            return self._facts
        ended = ""
        try:
            out, errors = self._process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            out, errors = self._process.communicate()
            ended = f"it had not ended after {PATIENCE} s"
        code = self._process.returncode
        if not ended and code:
            ended = f"it crashed with {signal.Signals(-code).name}" if code < 0 else f"it ended with status {code}"
        told: dict[str, Any] = {}
        for line in out.splitlines():
            while line.startswith("{"):  # of two processes in one line, where they wrote at once
                fact, end = json.JSONDecoder().raw_decode(line)
                told |= fact
                line = line[end:]
        self._facts = told | {ENDED: ended, ERRORS: errors.strip()}
        return self._facts
