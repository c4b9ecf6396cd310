"""Each message that docs/troubleshooting.md quotes is one of ours, word for word, or one of LAMMPS."""

from __future__ import annotations

import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
OTHERS = {"Unrecognized pair style 'equistride'"}


def test_messages_are_those_of_the_sources() -> None:
    text = (REPOSITORY / "docs" / "troubleshooting.md").read_text().split("## Runs that go wrong without")[0]
    quoted = [
        part for cell in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE) for part in re.findall(r"`(.+?)`", cell)
    ]
    sources = "".join(
        path.read_text()
        for room in ("python", "csrc", "openmm_plugin", "lammps_plugin")
        for pattern in ("*.py", "*.cpp", "*.h")
        for path in sorted((REPOSITORY / room).rglob(pattern))
    )
    assert len(quoted) > 15
    assert [message for message in quoted if message not in OTHERS and message not in sources] == []
