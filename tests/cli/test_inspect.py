"""``equistride inspect``: a screen of 80 columns and 40 lines whatever a file says of itself, and all of it on request."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ase.data import chemical_symbols
from random_models import random_potential
from toy_metadata import toy_metadata
from typer.testing import CliRunner

from equistride.artifact.export import save
from equistride.artifact.metadata import metadata_of
from equistride.cli.main import app

MODELS = sorted((Path(__file__).resolve().parents[2] / "models").glob("*/*.pt"))
HASH = "0123456789abcdef" * 4


@pytest.fixture(scope="module")
def talkative(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A potential of 89 elements whose metadata are as long as those of ten programs together."""
    elements = chemical_symbols[1:90]
    history: dict[str, object] = {"data": {f"file{k}.npz": HASH for k in range(40)}, "exported_by": "equistride 0.1.0"}
    for _ in range(5):
        history = {"equistride": "0.1.0", "data": {"a.npz": HASH}, "frames": 12345, "initialised_from": history}
    metadata = toy_metadata(
        elements, 4.0, layers=3, description="a long story " * 60, provenance=history, references=["somebody, " * 9] * 20,
        weights={"program": "another", "sha256": HASH, "head": "default", "dispersion": {"functional": "pbe", "cutoff": 21.2}},
        accuracy={f"error_{k}_meV": k / 7 for k in range(30)}, conservative=False, caveats=["direct forces"] * 30,
        licence="MIT\x1b[31m", config={"model": {f"key{k}": k for k in range(200)}}, num_parameters=987654,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("talkative") / "long.pt"
    save(random_potential(species=elements), metadata, path)
    return path


def shown(path: Path, *words: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("COLUMNS", "80")
    done = CliRunner().invoke(app, ["inspect", str(path), *words])
    assert done.exit_code == 0, done.output
    return done.stdout.splitlines()


@pytest.mark.parametrize("model", [*MODELS, "talkative"], ids=lambda p: Path(p).stem)
def test_it_fits_a_screen(model: Path | str, talkative: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(talkative if model == "talkative" else Path(model), monkeypatch=monkeypatch)[1:]  # without the path
    assert len(lines) < 40
    assert max(map(len, lines)) <= 80
    assert len(lines[-1].split()[-1]) == 64  # the hash is whole


def test_what_is_long_is_cut_and_said_to_be(talkative: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(talkative, monkeypatch=monkeypatch)
    text = "\n".join(lines)
    assert "elements     89: H He Li" in text
    assert "987,654 parameters" in text
    assert "NOT the gradient of a continuous energy: direct forces" in text
    assert "weights      program another, head default, dispersion (functional pbe, cutoff" in text
    assert text.count("... (--all)") >= 4
    assert "not shown    operators, provenance, config (--provenance, --all)" in text
    assert "\x1b" not in text  # what a terminal would obey


def test_provenance_on_request(talkative: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "\n".join(shown(talkative, "--provenance", monkeypatch=monkeypatch))
    assert text.count(HASH) == 5 + 40 + 1
    assert "not shown    operators, config (--all)" in text


def test_all_and_json_drop_nothing(talkative: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "\n".join(shown(talkative, "--all", monkeypatch=monkeypatch))
    assert all(f"key{k}: {k}" in text for k in range(200))
    assert text.count("somebody,") == 180
    assert "Ra, Ac" in " ".join(text.split())
    facts = json.loads("\n".join(shown(talkative, "--json", monkeypatch=monkeypatch)))
    assert facts["config"] == {"model": {f"key{k}": k for k in range(200)}}
    written = metadata_of(talkative)
    assert written is not None
    said = written.model_dump(mode="json")
    assert {k: facts[k] for k in ("provenance", "weights", "references", "accuracy", "species", "caveats")} == {
        k: said[k] for k in ("provenance", "weights", "references", "accuracy", "species", "caveats")
    }
    assert all(name in text for name in facts)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"charge_spin": "input", "system": {"charge": -1.0, "spin": 2.0}}, "charge -1 and spin 2, which can be set"),
        ({"charge_spin": "fixed", "system": {"charge": 0.0, "spin": 1.0}}, "charge 0 and spin 1 alone"),
        ({"composition": {"elements": {"O": 2, "Si": 1}, "atoms": 9}}, "only O2 Si1 of 9 atoms"),
        ({"interaction_range": "all", "global_sums": 3}, "3 sums over all atoms"),
        ({"limits": {"shortest_bond": 0.5, "smallest_box": 2}}, "atoms 0.5 A apart or more, a box of 2 cutoffs or more"),
        ({"compiled": {"torch": "2.13.0", "machine": "x86_64", "instruction_set": "avx2"}}, "machine code for torch 2.13.0"),
        ({"members": 4}, "4 members"),
        ({"kind": "propagator", "stride_fs": 30, "ensemble": "NVE", "masses": [16, 28]}, "30 fs, trained on NVE"),
    ],
)  # fmt: skip
def test_each_part_of_the_contract_is_said(facts: dict[str, object], said: str) -> None:
    from equistride.artifact.summary import summary

    assert said in "\n".join(text for _, text in summary(toy_metadata(["O", "Si"], 4.0, **facts)))
