"""The released ethanol propagator: errors of a stride on motion never seen, momenta kept, and a molecule that stays whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from striding import momenta_changed, percents, temperature_of_the_whole

from equistride.artifact import Model, load
from equistride.data.frames import Frames
from equistride.data.molecule import MoleculeRecipe, walk

PATH = Path(__file__).parents[2] / "models" / "ethanol-trajcast-7fs" / "ethanol-trajcast-7fs.pt"


@pytest.fixture(scope="module")
def model() -> Model:
    return load(PATH)


@pytest.fixture(scope="module")
def frames() -> Frames:
    pytest.importorskip("tblite", reason="tblite is not installed")
    return walk(MoleculeRecipe("CCO", 7.0, segments=12, frames=4, seed=815), 0)


def test_errors_on_fresh_segments(model: Model, frames: Frames) -> None:
    """Half as much again as the card says of 1,000 pairs: 36 pairs of one walk scatter by 20 %."""
    displacement, velocity = percents(model, frames)
    assert displacement < 1.5 * 0.58
    assert velocity < 1.5 * 0.88


def test_a_free_molecule_keeps_both_momenta(model: Model, frames: Frames) -> None:
    assert max(momenta_changed(model, frames)) < 1e-12


def test_the_molecule_stays_whole_and_at_its_temperature() -> None:
    """21 degrees of freedom, which scatter by 31 % and forget it in some strides: 3 % of the mean."""
    assert temperature_of_the_whole(PATH, "CCO") == pytest.approx(300.0, rel=0.1)
