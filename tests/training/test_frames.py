"""Frames from files, their split, and energies of the elements."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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


@pytest.mark.parametrize(
    ("says", "unit"),
    [
        ({"e_unit": "eV"}, 1.0),
        ({"e_unit": np.bytes_("kcal/mol")}, 0.0433641),
        ({"e_unit": "kJ/mol"}, 0.0103643),
        ({"theory": "PBE+vdW-TS"}, 0.0433641),
    ],
)
def test_names_of_md17(tmp_path: Path, says: dict[str, Any], unit: float) -> None:
    """With the unit that the file names, or kcal/mol of the published files; else nobody knows it."""
    f = frames(4)
    arrays = {"z": f.numbers, "R": f.positions, "E": f.energy[:, None], "F": f.forces}
    np.savez(tmp_path / "md17.npz", **arrays, **says)
    (back,) = load(tmp_path / "md17.npz")
    np.testing.assert_allclose(back.energy, unit * f.energy, rtol=1e-5)
    np.testing.assert_allclose(back.forces, unit * f.forces, rtol=1e-5)
    assert not back.pbc.any()
    (unasked,) = load(tmp_path / "md17.npz", labelled=False)
    np.testing.assert_array_equal(unasked.forces, back.forces)
    np.savez(tmp_path / "silent.npz", **arrays)
    with pytest.raises(
        EquistrideError, match=r"names of MD17 \(E, F\), whose unit is kcal/mol, and does not say its own"
    ):
        load(tmp_path / "silent.npz")
    np.savez(tmp_path / "odd.npz", **arrays, e_unit="Ry")
    with pytest.raises(
        EquistrideError, match=r"unit of .*odd.npz is not known; expected eV, kcal/mol, kJ/mol; found Ry"
    ):
        load(tmp_path / "odd.npz")


def test_stresses_become_virials(tmp_path: Path) -> None:
    """-volume times stress, in ASE's sign, from extxyz and databases; NaN on frames that have none; MACE's names too."""
    made = images(3)
    stress = np.array([0.01, 0.02, 0.03, 0.004, 0.005, 0.006])  # eV/A^3, xx yy zz yz xz xy
    made[1].calc.results["stress"] = stress
    write(tmp_path / "a.extxyz", made)
    (back,) = load(tmp_path / "a.extxyz")
    full = np.array([[0.01, 0.006, 0.005], [0.006, 0.02, 0.004], [0.005, 0.004, 0.03]])
    assert back.virial is not None
    np.testing.assert_allclose(back.virial[1], -made[1].get_volume() * full, rtol=1e-6)
    assert np.isnan(back.virial[[0, 2]]).all()
    named = images(1)[0]
    named.info |= {"REF_energy": 7.0, "REF_stress": full}
    named.arrays["REF_forces"] = named.get_forces()
    named.calc = None
    write(tmp_path / "b.extxyz", named)
    (back,) = load(tmp_path / "b.extxyz")
    assert back.energy.tolist() == [7.0]
    np.testing.assert_allclose(back.virial, -named.get_volume() * full[None], rtol=1e-6)
    np.savez(tmp_path / "c.npz", numbers=back.numbers, positions=back.positions, energy=back.energy, forces=back.forces,
             cell=back.cell, stress=full[None])  # fmt: skip
    with pytest.warns(UserWarning, match=r"'stress' of .*c.npz is not read, as its unit and sign are not known"):
        assert load(tmp_path / "c.npz")[0].virial is None


def test_a_bad_frame_is_named_by_its_place_in_the_file(tmp_path: Path) -> None:
    """Also where compositions alternate."""
    mixed = [image for pair in zip(images(3), [i[:1] for i in images(3)], strict=True) for image in pair]
    for image, source in zip(mixed, [i for i in images(3) for _ in range(2)], strict=True):
        count = len(image)
        image.calc = SinglePointCalculator(image, energy=1.0, forces=source.get_forces()[:count])
    mixed[4].calc.results["forces"][0, 0] = np.inf
    write(tmp_path / "a.extxyz", mixed)
    with pytest.raises(EquistrideError, match=r"a\.extxyz has a NaN or infinite value in 'forces', frame 4"):
        load(tmp_path / "a.extxyz")
    mixed[4].calc.results["forces"][0, 0] = 0.0
    mixed[3].info["dft_energy"] = 1.0
    mixed[3].calc = None
    write(tmp_path / "a.extxyz", mixed)
    with pytest.raises(EquistrideError, match=r"frame 3 of .*a\.extxyz has no energy; .*found dft_energy"):
        load(tmp_path / "a.extxyz")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"numbers": np.array([8, 200])}, "an atomic number of no element; expected 1 to 118; found 200"),
        ({"pbc": np.array(True)}, "a box without a volume, frame 0"),
        ({"cell": np.full((3, 3), np.nan)}, "NaN or infinite value in 'cell', frame 0"),
        (
            {"virial": np.where(np.arange(36).reshape(4, 3, 3) == 20, np.inf, 1.0)},
            "infinite value in 'virial', frame 2",
        ),
    ],
)
def test_bad_arrays(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    f = frames(4)
    arrays = {"numbers": f.numbers, "positions": f.positions, "energy": f.energy, "forces": f.forces}
    np.savez(tmp_path / "a.npz", **(arrays | change))
    with pytest.raises(EquistrideError, match=said):
        load(tmp_path / "a.npz")


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
    with pytest.raises(EquistrideError, match=r"frame 0 of .* has no energy and no forces"):
        load(tmp_path / "a.extxyz")


def test_real_md17(shared_data: Path) -> None:
    (ethanol,) = load(shared_data / "md17" / "ethanol_consecutive.npz")
    assert ethanol.positions.shape == (2000, 9, 3)
    assert elements([ethanol]) == ["H", "C", "O"]


def test_a_segment_stays_on_one_side() -> None:
    f = frames(40, segments=8)
    (training,), (validation,) = split([f], 0.25, seed=3)
    assert len(training) + len(validation) == 40
    assert training.segment is not None
    assert validation.segment is not None
    assert set(training.segment).isdisjoint(validation.segment)
    assert len(set(validation.segment)) == 2
    (again,) = split([f], 0.25, seed=3)[1]
    np.testing.assert_array_equal(validation.positions, again.positions)
    with pytest.raises(EquistrideError, match="too few frames"):
        split([f[:5]], 0.25, seed=3)


def test_compositions_of_one_frame() -> None:
    """They train where others can give frames for validation, and are shared out where none can."""
    many, lone = frames(10), frames(1)
    training, validation = split([lone, many, lone], 0.2, seed=3)
    assert [len(g) for g in training] == [8, 1, 1]
    assert [len(g) for g in validation] == [2]
    training, validation = split([frames(1) for _ in range(10)], 0.2, seed=3)
    assert (len(training), len(validation)) == (8, 2)


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
