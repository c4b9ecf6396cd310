"""``equistride export --module``: what a user may say wrong; docs/own-network.md's commands are run with its networks."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from equistride.cli.main import app
from equistride.cli.own import built, numbers
from equistride.errors import EquistrideError

CODE = """
from torch import nn

network = nn.Linear(1, 1)


def build():
    return network


def fails():
    raise RuntimeError("no weights")


def text():
    return "a network"
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "some_network.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_module_or_what_makes_it(place: Path) -> None:
    assert built("some_network.py:build") is not None
    assert built("some_network:network") is built("some_network:build")
    assert numbers("1,6, 8", int, "--types") == [1, 6, 8]
    assert numbers(None, int, "--types") is None


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("some_network", "names no module; expected package.module:build or file.py:build"),
        ("elsewhere.py:build", "elsewhere.py does not exist"),
        ("no_such_package:build", r"fails \(ModuleNotFoundError: No module named 'no_such_package'\)"),
        ("some_network:make", "some_network has no make"),
        ("some_network:fails", r"fails \(RuntimeError: no weights\)"),
        ("some_network:text", "text of some_network makes no torch.nn.Module; found str"),
    ],
)
def test_what_is_named_must_make_a_module(place: Path, said: str, sentence: str) -> None:
    with pytest.raises(EquistrideError, match=sentence):
        built(said)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "expected a checkpoint, or --module PLACE:BUILD; found neither"),
        (["some.ckpt", "--module", "a:b"], "found both"),
        (["--module", "a:b", "--for", "openmm"], "--module writes artifacts"),
        (["--module", "some_network:build", "--types", "H,C"], "--types must be numbers"),
    ],
)
def test_contradictions_are_one_sentence(place: Path, arguments: list[str], sentence: str) -> None:
    result = CliRunner().invoke(app, ["export", *arguments, "-o", "out.pt"])
    assert isinstance(result.exception, EquistrideError)
    assert sentence in str(result.exception)
    assert not (place / "out.pt").exists()
