"""Damage everything that equistride reads, stop everything that it writes, and count what happens.

``python benchmarks/faults.py`` runs some 5,000 seeded trials and prints the table; ``--write docs/trust.md`` puts it there.
A trial runs in a process of its own kind, so that a crash or a hang is one trial's and not the run's. Outcomes: **right** (the
numbers are those of the undamaged file, or the file says something else that is consistent), **refused** (one sentence),
**wrong** (other numbers, in silence), **code** (the file's code ran), **crash**, **hang** (no answer in three minutes), **lost**
(an older file or checkpoint is gone, or litter is left), **traceback** (an exception that is no sentence).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import re
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fault_trials
import numpy as np
import torch

OUTCOMES = ("right", "refused", "wrong", "code", "crash", "hang", "lost", "traceback")
LIMIT_S = 180.0
BEGIN, END = "<!-- faults -->", "<!-- end of faults -->"
Trial = Callable[[np.random.Generator], str]


def outcome(trial: Trial, seed: list[int]) -> tuple[str, str]:
    """Run one trial in this process; return its outcome, and what was said where that is no outcome of a good program."""
    from openmm import OpenMMException

    from equistride.cli.main import about_file
    from equistride.errors import EquistrideError

    rng = np.random.default_rng(seed)
    marker = fault_trials.MARKER
    marker.unlink(missing_ok=True)
    said = ""
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            found = trial(rng)
    except (EquistrideError, OpenMMException) as refusal:
        lines = str(refusal).strip().splitlines()
        found, said = ("refused", "") if len(lines) == 1 else ("traceback", f"{len(lines)} lines: {str(refusal)[:300]}")
    except OSError as error:
        found, said = ("refused", "") if about_file(error) is not None else ("traceback", repr(error)[:300])
    except Exception as error:  # whatever else there is, is what the table counts
        found, said = "traceback", f"{type(error).__name__}: {error}"[:400]
    return ("code", said) if marker.exists() else (found, said)


def _work(pipe: Any, name: str, folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ["EQUISTRIDE_SELF_TEST_SECONDS"] = "2"
    trial = fault_trials.AREAS[name][1](folder)
    pipe.send(("ready", ""))
    while (seed := pipe.recv()) is not None:
        pipe.send(outcome(trial, seed))


class Worker:
    """A process that runs the trials of one area, and is replaced where it dies or does not answer."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._folder = tempfile.TemporaryDirectory(prefix="faults-")
        self._begin()

    def _begin(self) -> None:
        self.pipe, theirs = multiprocessing.Pipe()
        place = Path(tempfile.mkdtemp(dir=self._folder.name))
        context = multiprocessing.get_context("spawn")
        self.process = context.Process(target=_work, args=(theirs, self.name, place), daemon=True)
        self.process.start()
        theirs.close()
        if not self.pipe.poll(600.0):
            raise RuntimeError(f"the area {self.name} cannot be prepared")
        self.pipe.recv()

    def ask(self, seed: list[int]) -> tuple[str, str]:
        """Run one trial."""
        try:
            self.pipe.send(seed)
            if self.pipe.poll(LIMIT_S):
                return self.pipe.recv()  # type: ignore[no-any-return]
            self.process.kill()
            found = "hang", f"seed {seed}"
        except (EOFError, OSError):
            self.process.join()
            found = "crash", f"seed {seed}, status {self.process.exitcode}"
        self._begin()
        return found

    def end(self) -> None:
        """End the process and remove its files."""
        with contextlib.suppress(OSError):
            self.pipe.send(None)
        self.process.join(10.0)
        self.process.kill()
        self._folder.cleanup()


def run(seed: int, share: float, only: list[str], done: dict[str, Any], keep: Callable[[], None]) -> None:
    """Run the trials of the areas that are not in ``done``, and put each there: its counts, what was said, its seconds."""
    for number, (name, (count, _)) in enumerate(fault_trials.AREAS.items()):
        if name in done or (only and name not in only):
            continue
        begin, worker, counts = time.monotonic(), Worker(name), Counter[str]()
        said: list[str] = []
        for trial in range(max(1, round(share * count))):
            found, words = worker.ask([seed, number, trial])
            counts[found] += 1
            if found not in ("right", "refused"):
                said.append(f"{name} [{seed}, {number}, {trial}]: {found}: {words}")
                print(said[-1], flush=True)
        worker.end()
        done[name] = {"counts": counts, "said": said, "seconds": round(time.monotonic() - begin)}
        keep()
        print(f"{name}: {dict(counts)} in {done[name]['seconds']} s", flush=True)


def as_text(done: dict[str, Any], seed: int) -> str:
    """Return the table in Markdown."""
    heads = ("tried", *OUTCOMES)
    counted = ((name, Counter(done[name]["counts"])) for name in fault_trials.AREAS if name in done)
    rows = [(name, (counts.total(), *(counts[o] for o in OUTCOMES))) for name, counts in counted]
    seconds = sum(area["seconds"] for area in done.values())
    rows.append(("**all**", tuple(sum(values) for values in zip(*(r for _, r in rows), strict=True))))
    lines = ["| what | " + " | ".join(heads) + " |", "|---|" + "---:|" * len(heads)]
    lines += [f"| {name} | " + " | ".join(str(v) for v in values) + " |" for name, values in rows]
    machine = f"{os.cpu_count()} cores, torch {torch.__version__.partition('+')[0]}"
    return "\n".join([*lines, "", f"Seed {seed}, {seconds / 60:.0f} minutes on {machine}."])


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--share", type=float, default=1.0, help="part of the trials, 1 for all")
    parser.add_argument("--only", nargs="*", default=[], help="areas", choices=list(fault_trials.AREAS))
    parser.add_argument("--write", type=Path, help="Markdown file whose table is replaced")
    parser.add_argument(
        "--json", type=Path, help="file for what each area gave; a run of the same setting goes on from it"
    )
    options = parser.parse_args()
    setting = {"seed": options.seed, "share": options.share}
    file: Path | None = options.json
    kept = json.loads(file.read_text()) if file and file.exists() else {}
    done = kept["areas"] if kept.get("setting") == setting else {}

    def keep() -> None:
        if file:
            file.write_text(json.dumps({"setting": setting, "areas": done}, indent=1))

    run(options.seed, options.share, options.only, done, keep)
    text = as_text(done, options.seed)
    print(text)
    if options.write:
        page = options.write.read_text()
        made = re.sub(f"(?s){BEGIN}.*{END}", lambda _: f"{BEGIN}\n{text}\n{END}", page)
        options.write.write_text(made)


if __name__ == "__main__":
    main()
