"""Isomers: molecules from their bonds, and their motion under GFN2-xTB."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from equistride.cli.main import app
from equistride.data.frames import load
from equistride.data.isomers import ISOMERS, UNKNOWN, IsomerRecipe, generate, trajectory
from equistride.data.molecules import build, parse, same_bonds, with_hydrogens
from equistride.errors import EquistrideError
from equistride.units import ACCELERATION


def test_all_are_different_isomers_of_one_formula() -> None:
    graphs = set()
    for smiles in ISOMERS.values():
        elements, bonds = with_hydrogens(*parse(smiles))
        assert sorted(elements) == ["C"] * 4 + ["H"] * 8 + ["O"] * 2, smiles
        label = dict(enumerate(elements))
        for _ in range(4):  # Weisfeiler-Lehman: neighbours of neighbours tell two molecules apart
            around = {
                k: sorted(label[b if a == k else a] + "-=#"[n - 1] for a, b, n in bonds if k in (a, b)) for k in label
            }
            label = {k: f"({label[k]}{''.join(around[k])})" for k in label}
        graphs.add("".join(sorted(label.values())))
    assert len(graphs) == len(ISOMERS) >= 20
    assert set(UNKNOWN) < set(ISOMERS)
    assert len(UNKNOWN) >= 5


@pytest.mark.parametrize("name", ["isobutyric-acid", "1,4-dioxane", "glycidyl-methyl-ether"])
def test_a_molecule_is_built_from_its_bonds(name: str) -> None:
    molecule = build(ISOMERS[name], np.random.default_rng(1))
    assert molecule.numbers.tolist() == [6] * 4 + [8] * 2 + [1] * 8
    assert same_bonds(molecule, molecule.positions)
    stretched = molecule.positions.copy()
    stretched[-1] += 2.0
    assert not same_bonds(molecule, stretched)


def test_what_is_no_molecule_is_refused() -> None:
    for wrong, words in (("C(C", "open ring or branch"), ("C1CC", "open ring"), ("C(C)(C)(C)(C)C", "too many bonds"),
                         ("CX", "a 'X' that is not understood"), ("", "no atom"), ("O=O=C", "too many bonds")):  # fmt: skip
        with pytest.raises(EquistrideError, match=words):
            parse(wrong)


def test_a_trajectory_conserves_energy_and_its_velocities_belong_to_its_positions() -> None:
    pytest.importorskip("tblite", reason="tblite is not installed")
    recipe = IsomerRecipe(frames=60, equilibrate_fs=200.0, segment=10)
    frames = trajectory("1,4-dioxane", recipe)
    assert frames.velocities is not None
    assert frames.total_energy is not None
    # velocity Verlet at 1 fs with C-H and O-H bonds: the energy swings by some meV and does not drift
    assert np.ptp(frames.total_energy) < 0.06
    assert abs(frames.total_energy[-20:].mean() - frames.total_energy[:20].mean()) < 0.01
    # position Verlet: second difference = F dt^2 / m, to rounding
    second = frames.positions[2:] - 2 * frames.positions[1:-1] + frames.positions[:-2]
    assert np.allclose(second, ACCELERATION * frames.forces[1:-1] / frames.masses[:, None], rtol=0, atol=1e-12)
    assert np.allclose(frames.velocities[1:-1], (frames.positions[2:] - frames.positions[:-2]) / 2, rtol=0, atol=1e-12)
    momentum = (frames.masses[:, None] * frames.velocities).sum(1)
    assert np.abs(momentum).max() < 1e-6
    assert 200 < frames.temperature_K.mean() < 1000
    again = trajectory("1,4-dioxane", recipe)
    assert np.allclose(again.positions, frames.positions, rtol=0, atol=1e-9)
    with pytest.raises(EquistrideError, match="no isomer 'water'"):
        trajectory("water", recipe)


def test_sets_have_the_form_of_iso17_and_a_stopped_run_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("tblite", reason="tblite is not installed")
    recipe = IsomerRecipe(frames=50, equilibrate_fs=20.0, segment=10, guard=5)
    names = ["acetoin", "1,3-dioxane", "oxetane-3-methanol"]
    generate(tmp_path, recipe, names[:1])
    stamp = (tmp_path / "molecules" / "acetoin.npz").stat().st_mtime_ns
    sets = generate(tmp_path, recipe, names)
    assert (tmp_path / "molecules" / "acetoin.npz").stat().st_mtime_ns == stamp
    assert {k: len(v) for k, v in sets.items()} == {"reference": 70, "test_within": 20, "test_other": 50}
    (reference,) = load(tmp_path / "reference.npz")
    for name in np.unique(reference.segment):
        assert np.allclose(np.diff(reference.time_fs[reference.segment == name]), 1.0)
    with pytest.raises(EquistrideError, match="is of another recipe; expected 60 frames; found 50"):
        generate(tmp_path, IsomerRecipe(frames=60), names[:1])
    result = CliRunner().invoke(app, ["data", "isomers", "--molecule", "water", "-o", str(tmp_path)])
    assert "no isomer 'water'" in str(result.exception)
