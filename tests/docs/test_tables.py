"""Tables of the documents are those of benchmarks/results."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from equistride.bench import results

REPOSITORY = Path(__file__).resolve().parents[2]
TABLES = runpy.run_path(str(REPOSITORY / "benchmarks" / "result_tables.py"))


def test_tables_of_the_readme_are_not_stale() -> None:
    """``python benchmarks/result_tables.py README.md`` mends this."""
    text = (REPOSITORY / "README.md").read_text()
    assert "<!-- table: " in text
    assert TABLES["renewed"](text) == text


def test_figures_are_those_of_the_files() -> None:
    """By hand: the ratio to the first peer, and the median of five rounds of LAMMPS."""
    peer = results.read(REPOSITORY / "benchmarks" / "results" / "bench_peers.json")["results"][0]["peers"][0]
    assert f"| {peer['cpu_seconds'] / peer['ours_seconds']:.1f} |" in TABLES["beside"]()
    rounds = TABLES["read"]("lammps")["speed"]["4374"]["rounds"]["2"]
    assert f"| {sorted(r['wall'] for r in rounds)[2]:.3g} |" in TABLES["lammps"]()


@pytest.mark.parametrize("page", sorted((REPOSITORY / "docs").glob("*.md")), ids=lambda page: page.name)
def test_pages_ask_for_tables_that_there_are(page: Path) -> None:
    wanted = re.findall(r"^<!-- table: (\w+) -->$", page.read_text(), re.MULTILINE)
    assert set(wanted) <= set(TABLES["TABLES"])
    made = TABLES["on_page_markdown"](page.read_text())
    assert "<!-- table" not in made
