"""What structure files say beyond atoms and cell: used, refused or told, by the one reader of all verbs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.constraints import FixAtoms, FixScaled
from ase.io import write

from equistride.data.structures import fixed_atoms, leave_out_system, read_atoms, read_images
from equistride.elements import atomic_numbers_of, masses_of, missing_element, species_index
from equistride.errors import EquistrideError, Notice

CIF = """data_x
_cell_length_a 6
_cell_length_b 6
_cell_length_c 6
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P 1'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
"""
DUMP = """ITEM: TIMESTEP
0
ITEM: NUMBER OF ATOMS
1
ITEM: BOX BOUNDS pp pp pp
0 9
0 9
0 9
ITEM: ATOMS id type x y z
1 1 0 0 0
"""
WATER = "3\n\nO 0 0 0\nD 0.96 0 0\nD -0.24 0.93 0\n"


def pdb(*atoms: tuple[str, str, str, float, float], box: str = "") -> str:
    """Atoms of a PDB file: name, alternate location, element, x [A], occupancy."""
    lines = [f"CRYST1{box}"] if box else []
    for number, (name, place, symbol, x, share) in enumerate(atoms, 1):
        lines.append(
            f"HETATM{number:5d}  {name:<3s}{place or ' '}LIG A   1    {x:8.3f}{0:8.3f}{0:8.3f}{share:6.2f}  0.00"
            f"          {symbol:>2s}"
        )
    return "\n".join([*lines, "END", ""])


def no_notices(record: pytest.WarningsRecorder) -> bool:
    return not [w for w in record if issubclass(w.category, Notice)]


def test_a_plain_structure_says_nothing(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    for name, atoms in (
        ("a.xyz", molecule("CH3CH2OH")),
        ("a.cif", bulk("Si", cubic=True)),
        ("POSCAR", bulk("Si", cubic=True)),
    ):
        write(tmp_path / name, atoms)
        np.testing.assert_array_equal(read_atoms(tmp_path / name).numbers, atoms.numbers)
    (tmp_path / "a.pdb").write_text(
        pdb(("C1", "", "C", 0.0, 1.0), ("O1", "", "O", 1.2, 0.0))
    )  # 0.00 is no share of anything
    assert len(read_atoms(tmp_path / "a.pdb")) == 2
    (tmp_path / "a.pdb").write_text(pdb(("C1", "", "C", 0.0, 1.0)).replace("A   1 ", "A A000"))
    assert len(read_atoms(tmp_path / "a.pdb")) == 1
    (tmp_path / "a.dump").write_text(DUMP.replace("type", "element").replace("1 1 0", "1 Si 0"))
    assert read_atoms(tmp_path / "a.dump").get_chemical_formula() == "Si"
    assert no_notices(recwarn)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.xyz", WATER),
        ("a.extxyz", WATER.replace("\n\n", '\nLattice="9 0 0 0 9 0 0 0 9" Properties=species:S:1:pos:R:3\n')),
        ("POSCAR", "ice\n1.0\n9 0 0\n0 9 0\n0 0 9\nO D\n1 2\nCartesian\n0 0 0\n0.96 0 0\n-0.24 0.93 0\n"),
        ("a.cif", CIF + "O1 O 0 0 0 1\nD1 D 0.16 0 0 1\nD2 D 0 0.16 0 1\n"),
        ("a.pdb", pdb(("O", "", "O", 0.0, 1.0), ("D1", "", "D", 0.96, 1.0), ("D2", "", "D", -0.96, 1.0))),
    ],
)
def test_deuterium_is_hydrogen_of_its_own_mass(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    atoms = read_atoms(tmp_path / name)
    assert atoms.get_chemical_formula() == "H2O"
    np.testing.assert_allclose(atoms.get_masses(), [15.999, 2.0141, 2.0141], atol=1e-3)


def test_isotopes_by_symbol(tmp_path: Path) -> None:
    """As a topology or a LAMMPS dump names them; tritium too. ASE's table is as it was after a file was read."""
    assert atomic_numbers_of(["D", "O", "T", "H"], "a list").tolist() == [1, 8, 1, 1]
    np.testing.assert_allclose(masses_of(["D", "T", "H"], "a list"), [2.0141, 3.0160, 1.008], atol=1e-4)
    assert species_index(["D", "O"], ["H", "O"]) == [0, 1]
    (tmp_path / "a.xyz").write_text(WATER.replace("D -", "T -"))
    np.testing.assert_allclose(read_atoms(tmp_path / "a.xyz").get_masses()[1:], [2.0141, 3.0160], atol=1e-4)
    with pytest.raises(KeyError):
        Atoms("D")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.pdb", pdb(("CA", "", "", 0.0, 1.0)), r"atom 0 of .*a\.pdb \(CA\) has no element; .* columns 77 and 78"),
        ("a.pdb", pdb(("EPW", "", "", 0.0, 1.0)), r"\(EPW\) has no element: by its name it is a virtual site"),
        ("a.pdb", pdb(("C1", "", "QQ", 0.0, 1.0)), "has an element that does not exist; found Qq"),
        ("a.xyz", "1\n\nX 0 0 0\n", r"atom 0 of .*a\.xyz \(X\) has no element"),
        ("a.xyz", "1\n\nCA1 0 0 0\n", "has a name that is no element; found Ca1"),
        (
            "a.cif",
            CIF + "Si1 Si 0 0 0 0.7\nGe1 Ge 0 0 0 0.3\n",
            "partly occupied or shared by elements; .* Si 0.7, Ge 0.3",
        ),
        ("a.cif", CIF + "Si1 Si 0 0 0 0.5\n", "partly occupied"),
        ("a.dump", DUMP, "numbers the types of its atoms and names no elements"),
        ("a.data", "a box\n\n2 atoms\n1 atom types\n", "numbers the types of its atoms and names no elements"),
        ("a.pdb", pdb(("C", "", "C", 0.0, 1.0), box="   12.xx   12.000   12.000"), "has a box that cannot be read"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(EquistrideError, match=said):
        read_atoms(tmp_path / name)


def test_a_missing_element_is_called_so() -> None:
    assert "virtual site" not in str(missing_element("atom 3 of x", "CA"))
    assert "virtual site" not in str(missing_element("atom 3 of x", "M5X"))
    for name in ("M", "MW", "EP", "EPW", "LP1", "VS2"):
        assert "virtual site" in str(missing_element("atom 3 of x", name))


@pytest.mark.parametrize("edge", ["    1.000", "    0.000"])
def test_a_placeholder_box_is_none(tmp_path: Path, edge: str) -> None:
    (tmp_path / "a.pdb").write_text(pdb(("C", "", "C", 0.0, 1.0), ("O", "", "O", 1.2, 1.0), box=3 * edge))
    with pytest.warns(Notice, match="which in PDB files stands for none"):
        atoms = read_atoms(tmp_path / "a.pdb")
    assert not atoms.pbc.any()
    assert atoms.cell.rank == 0


def test_boxes_that_cannot_hold_their_atoms(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    ethanol = molecule("CH3CH2OH")
    ethanol.set_cell([3.0, 3.0, 3.0])
    ethanol.pbc = True
    write(tmp_path / "a.extxyz", ethanol)
    with pytest.raises(
        EquistrideError, match=r"too small for its atoms: atom \d and an image of atom \d are 0\.\d\d A apart"
    ):
        read_atoms(tmp_path / "a.extxyz")
    ethanol.set_cell([9.0, 9.0, 9.0])
    ethanol.positions += [8.5, 3.0, -40.0]  # over the boundary, and far outside
    write(tmp_path / "b.extxyz", ethanol)
    read_atoms(tmp_path / "b.extxyz")
    write(tmp_path / "c.extxyz", bulk("Cu"))  # one atom, 2.5 A from its images
    read_atoms(tmp_path / "c.extxyz")
    assert no_notices(recwarn)
    ethanol.set_cell([9.0, 9.0, 0.0])
    write(tmp_path / "d.extxyz", ethanol)
    with pytest.raises(EquistrideError, match="periodic along c and has no lattice vector there"):
        read_atoms(tmp_path / "d.extxyz")
    (tmp_path / "e.extxyz").write_text('1\nProperties=species:S:1:pos:R:3 pbc="T T T"\nO 0 0 0\n')
    with pytest.warns(Notice, match="periodic by its flags and has no box"):
        assert not read_atoms(tmp_path / "e.extxyz").pbc.any()
    ethanol.positions /= 10
    ethanol.pbc = False
    write(tmp_path / "f.xyz", ethanol)
    with pytest.warns(Notice, match="nearer than atoms can be; are its positions in angstrom"):
        read_atoms(tmp_path / "f.xyz")


@pytest.mark.parametrize("name", ["POSCAR", "a.extxyz", "a.traj"])
def test_constraints_are_taken_off(tmp_path: Path, name: str) -> None:
    atoms = bulk("Si", cubic=True)
    atoms.set_constraint([FixScaled([2], [True, False, True])] if name == "POSCAR" else FixAtoms([2]))
    write(tmp_path / name, atoms, **({"columns": ["symbols", "positions", "move_mask"]} if name == "a.extxyz" else {}))
    with pytest.warns(Notice, match="fixes 1 of its 8 atoms, wholly or in part; all are free here"):
        assert not read_atoms(tmp_path / name).constraints
    kept = read_atoms(tmp_path / name, keep_fixed=True)
    assert fixed_atoms(kept) == [2]


def test_alternate_locations(tmp_path: Path) -> None:
    """One location of a residue, that of the larger share; of another residue at that place nothing is mixed in."""
    both = pdb(
        ("C1", "A", "C", 0.0, 0.4), ("C1", "B", "C", 0.2, 0.6), ("O1", "", "O", 1.4, 1.0), ("H1", "A", "H", -1.0, 0.4)
    )
    (tmp_path / "a.pdb").write_text(both)
    with pytest.warns(
        Notice, match="atoms at alternate locations; those of the largest occupancy are read, 1 others are not"
    ):
        atoms = read_atoms(tmp_path / "a.pdb")
    assert atoms.positions[:, 0].tolist() == [0.2, 1.4, -1.0]
    lines = both.splitlines()
    lines[0], lines[3] = lines[0].replace("LIG", "SER"), lines[3].replace("LIG", "SER")
    (tmp_path / "b.pdb").write_text("\n".join(lines))
    with pytest.warns(Notice, match="2 others are not"):
        assert read_atoms(tmp_path / "b.pdb").positions[:, 0].tolist() == [0.2, 1.4]
    (tmp_path / "c.pdb").write_text(pdb(("C1", "", "C", 0.0, 0.4), ("O1", "", "O", 1.4, 1.0)))
    with pytest.warns(Notice, match="1 atoms of an occupancy below 1 without an alternate location"):
        assert len(read_atoms(tmp_path / "c.pdb")) == 2


def test_models_of_a_pdb_file_share_its_box(tmp_path: Path) -> None:
    box = "   30.000   30.000   30.000  90.00  90.00  90.00 P 21 21 21    4"
    first, second = (pdb(("C", "", "C", 0.0, 1.0), ("D", "", "D", x, 1.0)).replace("END", "ENDMDL") for x in (1.1, 1.2))
    (tmp_path / "a.pdb").write_text(f"CRYST1{box}\nMODEL 1\n{first}MODEL 2\n{second}END\n")
    with pytest.warns(Notice) as said:
        atoms = read_atoms(tmp_path / "a.pdb")
    sentences = " ".join(str(w.message) for w in said)
    assert "holds 2 structures; the last is read" in sentences
    assert "names the space group P 21 21 21" in sentences
    assert atoms.positions[1, 0] == 1.2
    assert atoms.cell.lengths().tolist() == [30.0] * 3
    assert atoms.get_masses()[1] == pytest.approx(2.0141, abs=1e-4)
    assert [len(image) for image in read_images(tmp_path / "a.pdb")] == [2, 2]


def test_what_nobody_uses_is_told(tmp_path: Path) -> None:
    iron = bulk("Fe")
    iron.set_initial_magnetic_moments([2.2])
    write(tmp_path / "a.extxyz", iron)
    with pytest.warns(Notice, match="has magnetic moments, which no model here knows"):
        read_atoms(tmp_path / "a.extxyz")
    ethanol = molecule("CH3CH2OH")
    ethanol.set_velocities(np.ones((9, 3)))
    write(tmp_path / "b.extxyz", [ethanol, ethanol])
    with pytest.warns(Notice) as said:
        read_atoms(tmp_path / "b.extxyz")
    assert [str(w.message).split("b.extxyz ")[1] for w in said] == [
        "holds 2 structures; the last is read", "has velocities; they are not used"
    ]  # fmt: skip
    with pytest.warns(Notice, match="holds 2 structures") as said:
        assert read_atoms(tmp_path / "b.extxyz", moving=True).get_momenta().any()
    assert len(said) == 1


def test_charge_and_spin_of_a_structure(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    """Kept for calculators that take them; where a verb computes with those of the artifact, told and taken off."""
    water = molecule("H2O")
    water.info = {"charge": -1, "spin": 2, "name": "water"}
    write(tmp_path / "a.extxyz", water)
    atoms = read_atoms(tmp_path / "a.extxyz")
    assert atoms.info == water.info
    assert no_notices(recwarn)
    with pytest.warns(
        Notice, match=r"a\.extxyz says charge -1, spin 2; charge and spin are those of the artifact here"
    ):
        leave_out_system(atoms, tmp_path / "a.extxyz")
    assert atoms.info == {"name": "water"}
    atoms.info = {"charge": 0, "spin": 1}
    before = len(recwarn)
    leave_out_system(atoms, tmp_path / "a.extxyz")
    assert len(recwarn) == before


def test_names_that_stand_for_elements_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.gro").write_text(
        "water\n    3\n    1SOL     OW    1   0.000   0.000   0.012\n    1SOL    HW1    2   0.000   0.076  -0.048\n"
        "    1SOL    HW2    3   0.000  -0.076  -0.048\n   2.00000   2.00000   2.00000\n"
    )
    with pytest.warns(Notice, match="guessed from the names of the atoms: HW1 is H, HW2 is H, OW is O"):
        assert read_atoms(tmp_path / "a.gro").get_chemical_formula() == "H2O"


def test_residues_without_hydrogen_are_told(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    """X-ray entries list heavy atoms alone, for which a potential gives an energy of something else."""
    heavy = pdb(("N", "", "N", 0.0, 1.0), ("CA", "", "C", 1.5, 1.0)).replace("LIG", "ALA")
    (tmp_path / "heavy.pdb").write_text(heavy)
    with pytest.warns(Notice, match=r"heavy\.pdb has amino acids and no hydrogen.*add them first"):
        read_atoms(tmp_path / "heavy.pdb")
    whole = pdb(("N", "", "N", 0.0, 1.0), ("CA", "", "C", 1.5, 1.0), ("HA", "", "H", 2.6, 1.0))
    for name, text in (("whole", whole.replace("LIG", "ALA")), ("ligand", heavy.replace("ALA", "LIG"))):
        recwarn.clear()
        (tmp_path / f"{name}.pdb").write_text(text)
        read_atoms(tmp_path / f"{name}.pdb")
        assert not [w for w in recwarn if issubclass(w.category, Notice)]
