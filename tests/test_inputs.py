"""Every row of docs/inputs.md names tests, and they are there."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent
ROW = re.compile(r"`([\w/]+\.py)` ((?:\w+)(?:, \w+)*)")


def test_every_row_has_its_tests() -> None:
    text = (TESTS.parent / "docs" / "inputs.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| input")]
    assert len(rows) > 40
    for row in rows:
        found = ROW.findall(row.split("|")[-2])
        assert found, row
        for file, names in found:
            functions = re.findall(r"^def test_(\w+)", (TESTS / file).read_text(), re.MULTILINE)
            for name in names.split(", "):
                assert any(function.startswith(name) for function in functions), f"{file} has no test {name}: {row}"
