"""The released propagator of MgO: what its file says, and a crystal that stays one at its temperature."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import read
from striding import looks

from equistride.artifact import load
from equistride.units import BOLTZMANN, KJ_MOL_PER_EV

FOLDER = Path(__file__).parents[2] / "models" / "mgo-trajcast-30fs"
PATH = FOLDER / "mgo-trajcast-30fs.pt"


def test_the_file_says_what_it_is() -> None:
    metadata = load(PATH).metadata
    assert (metadata.kind, metadata.stride_fs, sorted(metadata.species)) == ("propagator", 30.0, ["Mg", "O"])
    assert metadata.accuracy["velocity_mae_percent_of_rms"] == 2.78


def test_the_crystal_stays_one_at_its_temperature() -> None:
    """6 ps: six neighbours of the other kind around each atom; 645 degrees of freedom, 9 looks that forget each other: 2 %."""
    atoms = read(FOLDER / "MgO.extxyz")
    assert isinstance(atoms, Atoms)
    atoms = atoms.repeat(3)
    states = list(looks(PATH, atoms, 20))
    kinetic = [state.getKineticEnergy()._value for state in states]
    temperature = np.mean(kinetic[5:]) / (0.5 * (3 * len(atoms) - 3) * BOLTZMANN * KJ_MOL_PER_EV)
    assert abs(temperature - 300) < 18
    atoms.positions = states[-1].getPositions(asNumpy=True)._value * 10
    distances = atoms.get_all_distances(mic=True)
    other = atoms.numbers[:, None] != atoms.numbers[None]
    assert (((distances < 2.7) & other).sum(1) == 6).all()
    assert distances[~other & ~np.eye(len(atoms), dtype=bool)].min() > 2.4
