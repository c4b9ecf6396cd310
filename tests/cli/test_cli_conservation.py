"""`equistride validate --nve` and `equistride ensemble` as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ase import Atoms
from faulty_potentials import argon, write_argon
from random_models import random_potential, write_artifact
from typer.testing import CliRunner

from equistride.cli.main import app
from equistride.cli.validate import _show
from equistride.conservation.drift import Drift, Exponent
from equistride.conservation.nve import Conservation, Setting
from equistride.errors import EquistrideError

RUN = ["--temperature", "40", "--time", "4", "--timestep", "5", "--timesteps", "2.5,5,10"]
runner = CliRunner()


@pytest.fixture(scope="module")
def crystal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("structure") / "argon.extxyz"
    argon().write(path)
    return path


@pytest.mark.parametrize("engine", ["openmm", "ase"])
def test_pass_and_status_0(tmp_path: Path, crystal: Path, engine: str) -> None:
    artifact = write_argon(tmp_path / "argon.pt", "none")
    arguments = [
        "validate",
        str(artifact),
        "--nve",
        str(crystal),
        "--engine",
        engine,
        "--report",
        str(tmp_path / "out"),
    ]
    done = runner.invoke(app, [*arguments, *RUN])
    assert done.exit_code == 0, done.output
    assert "pass: energy is conserved" in done.output
    stored = json.loads((tmp_path / "out" / "nve.json").read_text())
    assert stored["passed"] is True
    assert 1.9 < stored["exponent"] < 2.1
    assert stored["settings"]["Engine"] == engine
    assert (tmp_path / "out" / "report.html").is_file()


def test_fail_says_why_with_status_1(tmp_path: Path, crystal: Path) -> None:
    artifact = write_argon(tmp_path / "argon.pt", "envelope")
    done = runner.invoke(app, ["validate", str(artifact), "--nve", str(crystal), "--json", *RUN[:-1], "5,7.5,10"])
    assert done.exit_code == 1
    result = json.loads(done.stdout)
    assert result["causes"] == ["no envelope at the cutoff"]
    assert result["passed"] is False
    assert set(result["fluctuation_meV_per_atom"]) == {"5", "7.5", "10"}


@pytest.mark.parametrize(
    ("interval", "word", "verdict"),
    [
        ((-0.004, 0.008), "pass", "pass: energy is conserved"),
        ((-0.004, 0.030), "undecided", "undecided: the drift is not known well enough; run longer"),
        ((-0.500, 0.300), "undecided", "undecided: the drift is not known well enough; run longer"),
        (
            (0.020, 0.030),
            "FAIL",
            "FAIL: energy is not conserved; no cause was looked for, a shorter time step may help",
        ),
    ],
)
def test_the_row_says_what_the_verdict_says(
    interval: tuple[float, float], word: str, verdict: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """A bound of 0.01 meV/atom/ps; an interval that reaches over it decides nothing."""
    monkeypatch.setenv("COLUMNS", "200")  # a row on one line
    middle, half = sum(interval) / 2, (interval[1] - interval[0]) / 2
    drift = Drift(middle, half / 2, interval, 0.95, None, 0.1, 10.0, 1000, 10, 100)
    result = Conservation(Setting(), 32, drift=drift, exponent=Exponent(2.0, 0.01, (1.98, 2.02), 1.0))
    _show(result, Path("model.pt"), Path("argon.cif"))
    *rows, last = capsys.readouterr().out.strip().splitlines()
    assert last == verdict
    (row,) = [row for row in rows if "drift over" in row]
    assert [w for w in ("pass", "undecided", "FAIL") if w in row] == [word]
    (power,) = [row for row in rows if "power of dt" in row]
    assert "pass" in power
    assert result.summary()["drift_verdict"] == word.lower()
    assert result.passed == (word == "pass")


def test_time_steps_are_chosen_and_long_ones_told(tmp_path: Path, crystal: Path) -> None:
    """Without options the steps are those of the structure's fastest vibration; argon's is slow, so the longest are taken."""
    artifact = write_argon(tmp_path / "argon.pt", "none")
    options = ["--temperature", "40", "--time", "1", "--engine", "ase", "--json"]
    done = runner.invoke(app, ["validate", str(artifact), "--nve", str(crystal), *options])
    result = json.loads(done.stdout)
    assert result["timestep_fs"] == 1.0
    assert set(result["fluctuation_meV_per_atom"]) == {"0.5", "1", "2"}
    assert not any("does not follow" in note for note in result["notes"])
    done = runner.invoke(
        app, ["validate", str(artifact), "--nve", str(crystal), *options, "--timestep", "5", "--timesteps", "5,40,120"]
    )
    assert any("which 120 fs does not follow" in note for note in json.loads(done.stdout)["notes"])


def test_bad_input_is_a_sentence(tmp_path: Path, crystal: Path) -> None:
    artifact = str(write_argon(tmp_path / "argon.pt", "none"))
    alone = tmp_path / "alone.xyz"
    Atoms("Ar").write(alone)
    slab = tmp_path / "slab.extxyz"
    Atoms("Ar2", [[0, 0, 0], [0, 0, 4]], cell=[9, 9, 9], pbc=[1, 1, 0]).write(slab)
    for options, said in (
        (["--nve", str(tmp_path / "none.xyz")], "does not exist"),
        (["--nve", str(crystal), "--timesteps", "1,2"], "three different time steps"),
        (["--nve", str(crystal), "--timesteps", "1,zwei,3"], "time steps must be numbers"),
        (["--nve", str(crystal), "--time", "0.1"], "too short"),
        (["--nve", str(alone), "--engine", "ase"], "single atom"),
        (["--nve", str(slab)], "periodic along all axes or none"),
    ):
        done = runner.invoke(app, ["validate", artifact, *options])
        assert isinstance(done.exception, EquistrideError), done.output
        assert said in str(done.exception)


def test_checks_as_json(tmp_path: Path, random_artifact64: Path) -> None:
    done = runner.invoke(app, ["validate", str(random_artifact64), "--json"])
    assert done.exit_code == 0
    result = json.loads(done.stdout)
    assert result["passed"] is True
    assert len(result["checks"]) == 8


def test_ensemble(tmp_path: Path) -> None:
    members = [str(write_artifact(random_potential(k), tmp_path / f"{k}.pt", "float64")) for k in range(2)]
    output = tmp_path / "ensemble.pt"
    done = runner.invoke(app, ["ensemble", *members, "-o", str(output)])
    assert done.exit_code == 0, done.output
    assert "ensemble of 2 esen potentials" in done.output
    facts = runner.invoke(app, ["inspect", str(output), "--json"])
    assert json.loads(facts.stdout)["members"] == 2
    done = runner.invoke(app, ["ensemble", members[0], "-o", str(output)])
    assert isinstance(done.exception, EquistrideError)
    assert "two artifacts or more" in str(done.exception)
