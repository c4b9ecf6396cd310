"""Findings as text for people, and as JSON."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Sequence
from itertools import groupby

from equistride.doctor.finding import Finding, State

WORDS: dict[State, str] = {"ok": "", "absent": "-", "warning": "WARNING", "fault": "FAULT"}
COLOURS: dict[State, str] = {"ok": "32", "absent": "2", "warning": "33", "fault": "31"}
WIDEST = 120
"""Columns; longer lines are hard to read."""


def healthy(findings: Sequence[Finding]) -> bool:
    """Whether nothing is broken."""
    return all(finding.state != "fault" for finding in findings)


def as_json(findings: Sequence[Finding]) -> str:
    """Return ``{"healthy": ..., "findings": [{"part", "name", "value", "state", "advice"}]}``."""
    return json.dumps({"healthy": healthy(findings), "findings": [f._asdict() for f in findings]}, indent=1)


def screen(findings: Sequence[Finding], colour: bool = False) -> str:
    """Return a block for each part: a line a finding, with its advice below it, and a sum at the end."""
    columns = min(shutil.get_terminal_size().columns, WIDEST)
    name_width = max(len(f.name) for f in findings) + 2
    indent = " " * (9 + name_width)
    lines = []
    for part, group in groupby(findings, key=lambda f: f.part):
        lines.append(_painted(part, "1", colour))
        for f in group:
            word = _painted(f"{WORDS[f.state]:7}", COLOURS[f.state], colour)
            value = _wrapped(f.value, max(20, columns - len(indent))) or [""]
            lines.append(f" {word} {f.name:{name_width}}{value[0]}")
            lines += [indent + line for line in value[1:]]
            if f.advice:
                first, *more = _wrapped(f.advice, max(40, columns - 11))
                lines += [" " * 9 + "> " + first, *(" " * 11 + line for line in more)]
    counts = {state: sum(f.state == state for f in findings) for state in WORDS}
    faults, warnings = counts["fault"], counts["warning"]
    sums = [f"{n} {name}{'s' if n > 1 else ''}" for n, name in ((faults, "fault"), (warnings, "warning")) if n]
    return "\n".join([*lines, "", ", ".join(sums) if sums else "all is well"])


def _wrapped(text: str, width: int) -> list[str]:
    """Break a text at blanks alone, so that paths and commands can be copied."""
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def _painted(text: str, code: str, colour: bool) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if colour and text.strip() else text
