"""The released propagator of water: what its file says, errors on motion of its teacher, and a liquid that stays one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import read
from striding import looks, percents

from equistride.artifact import Model, load
from equistride.distillation.teacher import teacher_of
from equistride.distillation.walks import frames_of, segment
from equistride.units import BOLTZMANN, KJ_MOL_PER_EV

ROOT = Path(__file__).parents[2]
PATH = ROOT / "models" / "water-trajcast-5fs" / "water-trajcast-5fs.pt"
WATER = ROOT / "examples" / "water"


@pytest.fixture(scope="module")
def model() -> Model:
    return load(PATH)


@pytest.fixture
def box() -> Atoms:
    atoms = read(WATER / "water64.extxyz")
    assert isinstance(atoms, Atoms)
    return atoms


def test_errors_on_a_fresh_segment(model: Model, box: Atoms) -> None:
    """A third more than the card says: eight pairs in a row of one start."""
    assert (model.metadata.stride_fs, sorted(model.metadata.species)) == (5.0, ["H", "O"])
    run = teacher_of(f"{WATER / 'spc_fw.py'}:water").run(box, 0.5)
    run.thermalise(300.0, 1000, damping_fs=100.0, seed=815, fresh=True)
    frames = frames_of(segment(run, 5.0, 0.5), box, number=0, stride_fs=5.0, temperature=300.0)
    run.close()
    displacement, velocity = percents(model, frames)
    card = model.metadata.accuracy
    assert displacement < 1.33 * card["displacement_mae_percent_of_rms"]
    assert velocity < 1.33 * card["velocity_mae_percent_of_rms"]


def test_the_liquid_stays_one_at_its_temperature(box: Atoms) -> None:
    """1.5 ps: each O keeps two H of its own; 573 degrees of freedom, some ten looks that forget each other: 2 %."""
    states = list(looks(PATH, box, 30))
    kinetic = [state.getKineticEnergy()._value for state in states]
    temperature = np.mean(kinetic[5:]) / (0.5 * (3 * len(box) - 3) * BOLTZMANN * KJ_MOL_PER_EV)
    assert abs(temperature - 300.0) < 18.0
    box.positions = states[-1].getPositions(asNumpy=True)._value * 10
    distances = box.get_all_distances(mic=True)[box.numbers == 8][:, box.numbers == 1]
    assert ((distances < 1.25).sum(1) == 2).all()
    assert (np.sort(distances, 1)[:, 2] > 1.3).all()
