"""What README and the pages of docs/ say to type works, as it stands there or with the smaller numbers that a comment names."""

from __future__ import annotations

import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from blocks import LANGUAGES, Block, blocks
from page_inputs import INPUTS
from typer.main import get_command
from typer.testing import CliRunner

from equistride.cli.main import app

REPOSITORY = Path(__file__).resolve().parents[2]
ELSEWHERE = {
    "artifact.md": "tests/artifact/test_documented_example.py",
    "coming-from.md": "tests/engines/test_coming_from.py",
    "own-network.md": "tests/engines/test_own_network.py",
}
"""Pages whose blocks another test runs, with the numbers that must come out."""
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
TRIED = [page for page in PAGES if page.name not in ELSEWHERE and blocks(page)]


def parse(line: str, where: str) -> None:
    """See that the verb of a command line knows each of its options."""
    words, command, context = shlex.split(line)[1:], get_command(app), None
    while hasattr(command, "commands"):
        assert words, f"{where}: {line}"
        assert words[0] in command.commands, f"{where}: there is no `equistride {words[0]}`"
        command, words = command.commands[words[0]], words[1:]
        context = command.context_class(command, parent=context)
    command.make_parser(context).parse_args(args=words)


def run_line(line: str, folder: Path, where: str) -> None:
    """Do what a command line says: our verbs and Python scripts in this process, which has imported torch already."""
    words = shlex.split(line)
    if words[0] == "equistride":
        done = CliRunner().invoke(app, words[1:])
        assert done.exit_code == 0, f"{where}: {line}\n{done.output}\n{done.exception!r}"
    elif words[0] == "python" and words[1].endswith(".py"):
        before = sys.argv
        sys.argv = words[1:]
        try:
            runpy.run_path(str(folder / words[1]), run_name="__main__")
        finally:
            sys.argv = before
    else:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", line],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{where}: {line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def run_block(block: Block, folder: Path) -> None:
    if block.mark == "file":
        (folder / block.said).write_text(block.text)
    if block.language == "python":
        code = compile(block.tried, block.where, "exec")
        if block.mark not in ("not run", "file"):
            space: dict[str, Any] = {"__name__": "__main__"}
            exec(code, space)
    elif block.language in ("sh", "bash"):
        if block.mark == "not run":
            assert len(block.said) > 10, f"{block.where}: say why"
            script = subprocess.run(["bash", "-n"], input=block.text, text=True, capture_output=True, check=False)
            assert script.returncode == 0, f"{block.where}: {script.stderr}"
        for line in block.commands(block.tried):
            if line.startswith("equistride "):
                parse(line, block.where)
            if block.mark not in ("not run", "file"):
                run_line(line, folder, block.where)


@pytest.mark.parametrize("page", TRIED, ids=lambda page: page.name)
def test_blocks_run_in_order(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin")
    for name in ("models", "examples"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    INPUTS.get(page.name, lambda folder: None)(tmp_path)
    for block in blocks(page):
        run_block(block, tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_are_marked(page: Path) -> None:
    """Every fence says its language, so that no block is left out; a page that another test runs is named in it."""
    assert {block.language for block in blocks(page)} <= LANGUAGES
    assert page.read_text().count("\n```") == 2 * len(blocks(page))
    if page.name in ELSEWHERE:
        assert page.name in (REPOSITORY / ELSEWHERE[page.name]).read_text()


def test_a_wrong_option_is_seen() -> None:
    with pytest.raises(Exception, match="No such option"):
        parse("equistride run model.pt crystal.cif --ensembel npt", "here")
