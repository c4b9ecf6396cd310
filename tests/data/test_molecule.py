"""Segments of a molecule's motion under GFN2-xTB, through the verb that makes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from equistride.cli.main import app
from equistride.data import molecule
from equistride.data.frames import load
from equistride.data.molecule import MoleculeRecipe, walk, write
from equistride.data.pairs import chains
from equistride.errors import EquistrideError
from equistride.units import ACCELERATION

QUICK = {"equilibrate_fs": 50.0, "apart_fs": 20.0}


def test_segments_hold_pairs_of_one_conserving_run() -> None:
    pytest.importorskip("tblite", reason="tblite is not installed")
    frames = walk(MoleculeRecipe("CO", 7.0, segments=3, frames=4, **QUICK), 0)
    assert frames.numbers.tolist() == [6, 8, 1, 1, 1, 1]
    assert len(chains(frames, 7.0, 1)) == 3 * 3
    assert frames.velocities is not None
    assert frames.total_energy is not None
    assert frames.masses is not None
    for part in np.split(np.arange(12), 3):
        # 0.5 fs resolves C-H and O-H bonds to a few meV; a pair across two segments would differ by 10 times that
        assert np.ptp(frames.total_energy[part]) < 0.02
    at_rest = (frames.masses[:, None] * frames.velocities).sum(1)
    assert np.abs(at_rest).max() < 1e-12


def test_frames_follow_newtons_equation() -> None:
    pytest.importorskip("tblite", reason="tblite is not installed")
    frames = walk(MoleculeRecipe("CO", 1.0, segments=1, frames=2, timestep_fs=0.25, **QUICK), 0)
    assert frames.velocities is not None
    assert frames.masses is not None
    acceleration = ACCELERATION * frames.forces / frames.masses[:, None]
    moved = frames.positions[1] - frames.positions[0]
    # both ends of the step, by the trapezoidal rule: what is left is of order t^3 j / 12, a hundredth of an angstrom for hydrogen
    assert np.abs(moved - frames.velocities.mean(0)).max() < 0.01 < np.abs(moved).max()
    gained = frames.velocities[1] - frames.velocities[0]
    assert np.abs(gained - acceleration.mean(0)).max() < 0.05 * np.abs(gained).max()


def test_a_stopped_run_goes_on_with_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tblite", reason="tblite is not installed")
    recipe = MoleculeRecipe("O", 5.0, walks=2, segments=2, frames=3, **QUICK)
    whole = write(recipe, tmp_path / "whole.npz")
    real = molecule.walk

    def stops(recipe: MoleculeRecipe, number: int) -> object:
        if number == 1:
            raise KeyboardInterrupt
        return real(recipe, number)

    monkeypatch.setattr(molecule, "walk", stops)
    with pytest.raises(KeyboardInterrupt):
        write(recipe, tmp_path / "w.npz")
    assert not (tmp_path / "w.npz").exists()
    with pytest.raises(EquistrideError, match="another recipe"):
        write(MoleculeRecipe("O", 5.0, walks=2, segments=3, frames=3, **QUICK), tmp_path / "w.npz")
    monkeypatch.setattr(
        molecule, "walk", lambda recipe, number: real(recipe, number) if number == 1 else pytest.fail("made again")
    )
    again = write(recipe, tmp_path / "w.npz")
    assert np.array_equal(again.positions, whole.positions)
    assert not (tmp_path / "w.npz.walks").exists()


def test_the_verb_writes_a_file(tmp_path: Path) -> None:
    pytest.importorskip("tblite", reason="tblite is not installed")
    target = tmp_path / "water.npz"
    done = CliRunner().invoke(
        app, ["data", "molecule", "O", "--stride-fs", "5", "-o", str(target), "--walks", "1", "--segments", "1", "--frames", "3"]
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "3 frames of 3 atoms, 2 consecutive pairs" in done.output
    assert len(load(target)[0]) == 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"stride_fs": 7.3}, "whole number of time steps; expected a multiple of 0.5 fs; found 7.3 fs"),
        ({"frames": 1}, "a segment must hold a pair of frames"),
        ({"walks": 0}, "number of walks"),
        ({"timestep_fs": 0.0}, "whole number of time steps"),
    ],
)
def test_what_makes_no_segments_is_refused(change: dict[str, float], words: str) -> None:
    with pytest.raises(EquistrideError, match=words):
        MoleculeRecipe(**({"smiles": "O", "stride_fs": 7.0} | change))  # type: ignore[arg-type]
