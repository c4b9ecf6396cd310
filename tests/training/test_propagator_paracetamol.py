"""The released propagator of paracetamol: errors of a stride on motion never seen, and a molecule that stays whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from striding import momenta_changed, percents, temperature_of_the_whole

from equistride.artifact import Model, load
from equistride.data.molecule import MoleculeRecipe, walk
from equistride.data.trajectories import read_motion

SMILES = "CC(=O)NC1=CC=C(O)C=C1"
PATH = Path(__file__).parents[2] / "models" / "paracetamol-trajcast-7fs" / "paracetamol-trajcast-7fs.pt"


@pytest.fixture(scope="module")
def model() -> Model:
    return load(PATH)


def check(model: Model, errors: tuple[float, float], excess: float) -> None:
    card = model.metadata.accuracy
    print("displacement {:.2f} %, velocity {:.2f} %".format(*errors))
    assert errors[0] < excess * card["displacement_mae_percent_of_rms"]
    assert errors[1] < excess * card["velocity_mae_percent_of_rms"]


def test_errors_and_momenta_on_fresh_segments(model: Model) -> None:
    """Errors half as much again as the card says of 500 pairs at most: 12 pairs of one walk."""
    pytest.importorskip("tblite", reason="tblite is not installed")
    frames = walk(MoleculeRecipe(SMILES, 7.0, segments=4, frames=4, seed=815), 0)
    check(model, percents(model, frames), 1.5)
    assert max(momenta_changed(model, frames)) < 1e-12


def test_errors_on_independent_reference_data(shared_data: Path, model: Model) -> None:
    """Runs made by another script, at 312 K: the first pairs of 100 segments."""
    frames = read_motion(shared_data / "reference" / "paracetamol_gfn2_300K.npz")
    assert frames.segment is not None
    check(model, percents(model, frames[np.arange(len(frames)) % 11 < 2]), 1.5)


def test_the_molecule_stays_whole_and_at_its_temperature() -> None:
    """54 degrees of freedom, which scatter by 19 % and forget it in some strides: 2 % of the mean."""
    assert temperature_of_the_whole(PATH, SMILES) == pytest.approx(300.0, rel=0.08)
