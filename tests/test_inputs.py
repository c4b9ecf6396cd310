"""docs/inputs.md: each row says what becomes of an input, and names a test that is there."""

from __future__ import annotations

import re
from pathlib import Path

TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def test_every_row_names_tests_that_are_there(repository: Path) -> None:
    lines = (repository / "docs" / "inputs.md").read_text().splitlines()
    rows = [
        line.strip("| ").split(" | ")
        for line in lines
        if line.startswith("| ") and not line.startswith(("| input |", "| **"))
    ]
    assert len(rows) > 30
    for row in rows:
        assert len(row) == 3, row
        named = TEST.findall(row[2])
        assert named, f"no test for: {row[0]}"
        for file, name in named:
            assert (repository / file).is_file(), f"{file} of: {row[0]}"
            assert re.search(rf"^def {name}\(", (repository / file).read_text(), re.MULTILINE), f"no {name} in {file}"
