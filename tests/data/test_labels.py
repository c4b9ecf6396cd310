"""Labels of data files: their names, what is told of those that differ, charge and spin, and units that cannot be."""

from __future__ import annotations

from pathlib import Path

import ase.db
import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from copper import copper

from equistride.data.frames import Frames, load
from equistride.data.stress_units import UNITS, check_virials, slope_of_work
from equistride.errors import EquistrideError, Notice


def bare(image: Atoms, **info: object) -> Atoms:
    """Return an image without labels, but for those given."""
    plain = image.copy()
    plain.calc = None
    plain.info |= info
    return plain


def one(path: Path, images: list[Atoms]) -> Frames:
    write(path, images, format="extxyz")
    (frames,) = load(path)
    return frames


@pytest.mark.parametrize(
    ("name", "times_volume"),
    [("REF_stress", False), ("stress", False), ("REF_virial", True), ("REF_virials", True), ("virial", True), ("virials", True)],
)  # fmt: skip
def test_names_of_virials(tmp_path: Path, name: str, times_volume: bool) -> None:
    """A virial is -volume x stress, under every name."""
    (image,) = copper(1)
    stress = image.get_stress(voigt=False)
    value = -image.get_volume() * stress if times_volume else stress
    plain = bare(image, REF_energy=image.get_potential_energy(), **{name: value})
    plain.arrays["REF_forces"] = image.get_forces()
    frames = one(tmp_path / "a.extxyz", [plain])
    assert frames.virial is not None
    np.testing.assert_allclose(frames.virial[0], -image.get_volume() * stress, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(frames.forces[0], image.get_forces(), atol=1e-7)
    assert frames.energy[0] == pytest.approx(image.get_potential_energy())


def test_reference_labels_come_first_and_differences_are_told(tmp_path: Path) -> None:
    (image,) = copper(1)
    image.info |= {"REF_energy": 5.0, "REF_stress": 2 * image.get_stress(voigt=False)}
    image.arrays["REF_forces"] = image.get_forces() + 1.0
    with pytest.warns(Notice) as said:
        frames = one(tmp_path / "a.extxyz", [image, image])
    assert frames.energy.tolist() == [5.0, 5.0]
    np.testing.assert_allclose(frames.forces[0], image.get_forces() + 1.0, atol=1e-7)
    sentences = [str(w.message) for w in said]
    assert len(sentences) == 3, "once a file, not once a frame"
    for name in ("energy", "forces", "stress"):
        assert any(f"'REF_{name}'" in s and f"'{name}' " in s and "differ, in frame 0" in s for s in sentences)


def test_labels_of_two_sources_are_told(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    """Energies of one program and forces of another, in a frame or from frame to frame."""
    (image,) = copper(1)
    plain, both = image.copy(), bare(image, REF_energy=-1.0)
    plain.calc = image.calc
    plain.arrays["REF_forces"] = image.get_forces()
    both.arrays["REF_forces"] = image.get_forces()
    plain.calc.results.pop("forces")
    with pytest.warns(Notice, match="'energy' and 'REF_forces' are learnt together, in frame 0 for one"):
        one(tmp_path / "a.extxyz", [plain])
    with pytest.warns(
        Notice, match="'REF_energy' and 'energy' stand in different frames .* 'energy' in frame 1 for one"
    ):
        one(tmp_path / "b.extxyz", [both, plain])
    recwarn.clear()
    one(tmp_path / "c.extxyz", [both, both])
    assert not [w for w in recwarn if issubclass(w.category, Notice)]


@pytest.mark.parametrize(
    ("name", "value"), [("energy_unit", "Hartree"), ("units", "Ha"), ("forces_units", "Ha/Bohr"), ("length_unit", "nm")]
)
def test_units_that_frames_name(tmp_path: Path, name: str, value: str) -> None:
    (image,) = copper(1)
    image.info[name] = value
    with pytest.raises(EquistrideError, match=f"frame 0 of .* says {name} {value}; expected numbers in eV and A"):
        one(tmp_path / "a.extxyz", [image])
    image.info[name] = {"units": "metal", "forces_units": "eV/Angstrom", "length_unit": "Ang"}.get(name, "eV")
    assert len(one(tmp_path / "b.extxyz", [image])) == 1


def test_labels_that_agree_are_not_spoken_of(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    (image,) = copper(1)
    image.info |= {
        "REF_energy": image.get_potential_energy(),
        "virials": -image.get_volume() * image.get_stress(voigt=False),
    }
    one(tmp_path / "a.extxyz", [image])
    assert not [w for w in recwarn if issubclass(w.category, Notice)]


def test_npz_has_the_same_names(tmp_path: Path) -> None:
    frames = one(tmp_path / "a.extxyz", copper(3))
    arrays = {"numbers": frames.numbers, "positions": frames.positions, "cell": frames.cell}
    labels = {
        "REF_energy": frames.energy,
        "energy": frames.energy + 1,
        "REF_forces": frames.forces,
        "REF_virials": frames.virial,
    }
    np.savez(tmp_path / "a.npz", **arrays, **labels, total_charge=2.0, multiplicity=np.array([[1.0], [3.0], [1.0]]))
    with pytest.warns(Notice, match="'REF_energy' and 'energy' differ; 'REF_energy' is taken"):
        (back,) = load(tmp_path / "a.npz")
    np.testing.assert_array_equal(back.energy, frames.energy)
    np.testing.assert_array_equal(back.virial, frames.virial)
    assert back.charge is not None
    assert back.spin is not None
    assert (back.charge.tolist(), back.spin.tolist()) == ([2.0] * 3, [1.0, 3.0, 1.0])
    back.save(tmp_path / "b.npz")
    np.testing.assert_array_equal(load(tmp_path / "b.npz")[0].spin, back.spin)


def test_an_atom_alone_needs_no_forces(tmp_path: Path) -> None:
    """The force on one atom is zero, in a box too; two atoms without forces are refused."""
    alone = [Atoms("Cu", info={"energy": -1.5}), Atoms("Cu", cell=[9] * 3, pbc=True, info={"energy": -1.5})]
    write(tmp_path / "a.extxyz", alone, format="extxyz")
    for frames in load(tmp_path / "a.extxyz"):
        assert frames.forces.tolist() == [[[0.0, 0.0, 0.0]]]
        assert frames.energy.tolist() == [-1.5]
    write(tmp_path / "b.extxyz", Atoms("Cu2", [[0, 0, 0], [0, 0, 2.5]], info={"energy": -3.0}), format="extxyz")
    with pytest.raises(
        EquistrideError, match=r"frame 0 of .* has no forces; expected energy and forces .* or REF_energy"
    ):
        load(tmp_path / "b.extxyz")


def test_a_virial_without_a_box_is_told(tmp_path: Path) -> None:
    (image,) = copper(1)
    image.pbc = [True, True, False]
    with pytest.warns(Notice, match="'stress' of frames without a box along all axes is not used"):
        assert one(tmp_path / "a.extxyz", [image]).virial is None


@pytest.mark.parametrize(
    "names", [("charge", "spin"), ("total_charge", "multiplicity"), ("charge", "spin_multiplicity")]
)
def test_charge_and_spin_of_frames(tmp_path: Path, names: tuple[str, str], recwarn: pytest.WarningsRecorder) -> None:
    images = copper(3)
    images[0].info |= {names[0]: 1, names[1]: 2}
    images[1].info |= {names[0]: 0, names[1]: 1}
    frames = one(tmp_path / "a.extxyz", images)
    np.testing.assert_array_equal(frames.charge, [1, 0, np.nan])
    np.testing.assert_array_equal(frames.spin, [2, 1, np.nan])
    assert not [w for w in recwarn if issubclass(w.category, Notice)]


def test_a_database_of_ase_keeps_what_was_written_of_a_row(tmp_path: Path) -> None:
    with ase.db.connect(tmp_path / "a.db") as database:
        for image in copper(2):
            database.write(image, total_charge=1, spin=2, data={"REF_forces": image.get_forces() + 1})
    with pytest.warns(Notice, match="'REF_forces' and 'forces' differ"):
        (frames,) = load(tmp_path / "a.db")
    np.testing.assert_array_equal([frames.charge, frames.spin], [[1, 1], [2, 2]])
    np.testing.assert_allclose(frames.forces[0], copper(1)[0].get_forces() + 1)


@pytest.mark.parametrize(
    ("info", "said"),
    [
        ({"config_weight": 2.0}, r"'config_weight' \(2.0 in frame 1 for one\) is not used: all labels count alike"),
        ({"config_virials_weight": 0.0}, r"'config_virials_weight' \(0.0 in frame 1 for one\) is not used"),
        ({"head": "pbe0"}, "'head' is not used: frames of pbe and of pbe0 are learnt as one level of theory"),
        ({"magmoms": np.ones(32)}, "magnetic moments .in frame 1 for one. are not used: no model here knows them"),
        ({"free_energy": -3.0}, "'free_energy' and 'energy' differ, in frame 1 for one; 'energy' is learnt"),
    ],
)
def test_what_frames_say_of_their_labels_is_told(tmp_path: Path, info: dict[str, object], said: str) -> None:
    images = copper(3)
    for image in images:
        image.info |= {"head": "pbe", "config_weight": 1.0}
    results = ("free_energy", "magmoms")
    images[1].info |= {k: v for k, v in info.items() if k not in results}
    images[1].calc.results |= {k: v[: len(images[1])] if k == "magmoms" else v for k, v in info.items() if k in results}
    with pytest.warns(Notice, match=said) as warned:
        one(tmp_path / "a.extxyz", images)
    assert len(warned) == 1


def test_charges_and_spins_that_cannot_be(tmp_path: Path) -> None:
    (image,) = copper(1)
    for name, value, said in (
        ("charge", 0.5, r"'charge' of frame 0 .* is no charge of a system; expected a whole number"),
        ("charge", "minus", "is no charge of a system"),
        ("spin", -1, r"'spin' of frame 0 .* expected a spin multiplicity 2 S \+ 1"),
    ):
        image.info = {name: value}
        with pytest.raises(EquistrideError, match=said):
            one(tmp_path / "a.extxyz", [image])
    image.info = {"charge": 0, "spin": 2}  # 8 atoms of copper have 232 electrons
    with pytest.warns(Notice, match=r"frame 0 has 232 electrons and a spin multiplicity of 2, which cannot be"):
        one(tmp_path / "a.extxyz", [image])
    image.info = {"charge": 1, "total_charge": 2}
    with pytest.warns(Notice, match="'charge' and 'total_charge' differ, in frame 0 for one; 'charge' is taken"):
        one(tmp_path / "a.extxyz", [image])


@pytest.mark.parametrize("strain", [0.01, 0.0])
def test_units_of_stresses(tmp_path: Path, strain: float) -> None:
    """In our unit they pass; in kbar and GPa, of either sign, they are refused, with the unit where cells differ."""
    frames = one(tmp_path / "a.extxyz", copper(12, strain=strain))
    check_virials(frames, "a.extxyz")
    assert frames.virial is not None
    for times, name in UNITS.items():
        if not strain and times == -1.0:
            continue  # in one cell nothing tells the sign
        wrong = Frames(**vars(frames) | {"virial": times * frames.virial})
        with pytest.raises(EquistrideError, match="cannot be in eV/A") as refused:
            check_virials(wrong, "a.extxyz")
        if strain:
            assert f"as in {name}; expected" in str(refused.value)
            assert f"divide them by {times:.6g}" in str(refused.value)


def test_work_of_stress_is_energy(tmp_path: Path) -> None:
    """Small strains: a slope of 1, as the trapezoid has it to third order."""
    frames = one(tmp_path / "a.extxyz", copper(12, strain=0.001, rattle=0.003))
    found = slope_of_work(frames)
    assert found is not None
    assert found[0] == pytest.approx(1.0, abs=0.02)


def test_virials_that_no_matter_has(tmp_path: Path) -> None:
    """One frame alone: by its magnitude."""
    frames = one(tmp_path / "a.extxyz", copper(1, strain=0.02))
    check_virials(frames, "a.extxyz")
    with pytest.raises(EquistrideError, match="eV an atom, and no matter has more than 20"):
        check_virials(Frames(**vars(frames) | {"virial": 1602.18 * frames.virial}), "a.extxyz")


def test_a_label_with_its_unit_is_refused(tmp_path: Path) -> None:
    text = '2\nProperties=species:S:1:pos:R:3:forces:R:3 energy="-3.2 eV" pbc="F F F"\nO 0 0 0 0 0 0\nH 0 0 1 0 0 0\n'
    (tmp_path / "a.xyz").write_text(text)
    with pytest.raises(EquistrideError, match=r"'energy' of frame 0 of .*a\.xyz is no number.*found -3\.2 eV"):
        load(tmp_path / "a.xyz")


@pytest.mark.parametrize(
    ("array", "value", "said"),
    [
        ("numbers", np.array([8.5, 1.0]), r"atomic numbers of .* must be whole numbers; found \[8\.5 1\. \]"),
        (
            "numbers",
            np.array([["O", "H"]] * 4),
            r"are not those of one composition; expected one an atom, \[N\]; found \[4, 2\]",
        ),
        (
            "cell",
            np.array([9.0, 9.0, 9.0]),
            r"the array 'cell' of .* has a wrong shape.*found \[3\]; of three lengths make",
        ),
        ("cell", np.full((4, 3), 9.0), r"the array 'cell' of .* has a wrong shape.*found \[4, 3\]"),
    ],
)
def test_numbers_and_boxes_of_npz_are_what_they_seem(tmp_path: Path, array: str, value: np.ndarray, said: str) -> None:
    """8.5 is not oxygen, nor are three lengths three vectors."""
    positions = np.tile([[0.0, 0, 0], [0, 0, 1]], (4, 1, 1))
    arrays = {"numbers": np.array([8.0, 1.0]), "positions": positions, "energy": np.zeros(4), "forces": 0 * positions}
    np.savez(tmp_path / "a.npz", **arrays)
    assert load(tmp_path / "a.npz")[0].numbers.tolist() == [8, 1]
    np.savez(tmp_path / "b.npz", **arrays | {array: value})
    with pytest.raises(EquistrideError, match=said):
        load(tmp_path / "b.npz")
