"""Frames from files, their split, and energies of the elements."""

from __future__ import annotations

from pathlib import Path

import ase.db
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from equistride.data.frames import Frames, load
from equistride.errors import EquistrideError
from equistride.training.data import elements, fit_references, split


def images(count: int) -> list[Atoms]:
    rng = np.random.default_rng(5)
    made = []
    for k in range(count):
        atoms = Atoms("SiO2", rng.normal(size=(3, 3)) + np.diag([0.0, 3.0, 3.0]), cell=np.eye(3) * 8, pbc=True)
        atoms.calc = SinglePointCalculator(atoms, energy=float(k), forces=rng.normal(size=(3, 3)))
        made.append(atoms)
    return made


def frames(count: int, segments: int | None = None) -> Frames:
    rng = np.random.default_rng(7)
    return Frames(
        numbers=np.array([8, 14]),
        positions=rng.normal(size=(count, 2, 3)),
        cell=np.zeros((count, 3, 3)),
        pbc=np.zeros(3, bool),
        energy=rng.normal(size=count),
        forces=rng.normal(size=(count, 2, 3)),
        segment=None if segments is None else np.arange(count) // (count // segments),
    )


def test_npz_round_trip(tmp_path: Path) -> None:
    frames(6, segments=2).save(tmp_path / "a.npz")
    (back,) = load(tmp_path / "a.npz")
    for name in ("numbers", "positions", "cell", "pbc", "energy", "forces", "segment"):
        np.testing.assert_array_equal(getattr(back, name), getattr(frames(6, segments=2), name))
    assert list(tmp_path.iterdir()) == [tmp_path / "a.npz"]  # nothing half-written is left


def test_names_of_md17(tmp_path: Path) -> None:
    f = frames(4)
    np.savez(tmp_path / "md17.npz", z=f.numbers, R=f.positions, E=f.energy[:, None], F=f.forces)
    (back,) = load(tmp_path / "md17.npz")
    np.testing.assert_array_equal(back.energy, f.energy)
    assert not back.pbc.any()


@pytest.mark.parametrize("name", ["a.extxyz", "a.db"])
def test_extxyz_and_ase_database(tmp_path: Path, name: str) -> None:
    made = images(3)
    if name.endswith("db"):
        with ase.db.connect(tmp_path / name) as database:
            for atoms in made:
                database.write(atoms)
    else:
        write(tmp_path / name, made)
    (back,) = load(tmp_path / name)
    np.testing.assert_allclose(back.positions, [a.positions for a in made], atol=1e-8)  # extxyz writes 8 digits
    np.testing.assert_allclose(back.forces, [a.get_forces() for a in made], atol=1e-8)
    np.testing.assert_allclose(back.energy, [0.0, 1.0, 2.0])
    assert back.pbc.all()


def test_frames_without_labels_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.extxyz", Atoms("SiO", [[0, 0, 0], [0, 0, 1.6]]))
    with pytest.raises(EquistrideError, match="no energy or no forces"):
        load(tmp_path / "a.extxyz")


def test_real_md17(shared_data: Path) -> None:
    (ethanol,) = load(shared_data / "md17" / "ethanol_consecutive.npz")
    assert ethanol.positions.shape == (2000, 9, 3)
    assert elements([ethanol]) == ["H", "C", "O"]


def test_a_segment_stays_on_one_side() -> None:
    f = frames(40, segments=8)
    training, validation = split(f, 0.25, seed=3)
    assert len(training) + len(validation) == 40
    assert training.segment is not None
    assert validation.segment is not None
    assert set(training.segment).isdisjoint(validation.segment)
    assert len(set(validation.segment)) == 2
    again = split(f, 0.25, seed=3)[1]
    np.testing.assert_array_equal(validation.positions, again.positions)
    with pytest.raises(EquistrideError, match="too few frames"):
        split(f[:5], 0.25, seed=3)


def test_element_energies_by_least_squares() -> None:
    """Two compositions determine two elements: the fit is exact."""
    rng = np.random.default_rng(1)
    groups = []
    for numbers in ([8, 14], [8, 8, 14]):
        energy = np.full(5, -2.0 * numbers.count(8) - 7.0 * numbers.count(14))
        n = len(numbers)
        groups.append(
            Frames(
                numbers=np.array(numbers),
                positions=rng.normal(size=(5, n, 3)),
                cell=np.zeros((5, 3, 3)),
                pbc=np.zeros(3, bool),
                energy=energy,
                forces=np.zeros((5, n, 3)),
            )
        )
    np.testing.assert_allclose(fit_references(groups, ["O", "Si"]), [-2.0, -7.0], atol=1e-12)
