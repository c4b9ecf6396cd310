"""Formal charges of atoms in PDB, SDF and MOL files, and what else such files say of a molecule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from equistride.data.structures import read_atoms, read_images
from equistride.errors import EquistrideError, Notice

METHOXIDE = [("C", 0.0, 0.0, 0.0), ("O", 1.3, 0.0, 0.0), ("H", -0.36, 1.03, 0.0), ("H", -0.36, -0.51, 0.89),
             ("H", -0.36, -0.51, -0.89)]  # fmt: skip


def sdf(*lines: str, codes: dict[int, str] | None = None, dimension: str = "3D", flat: bool = False) -> str:
    """Methoxide as a V2000 record: ``codes`` are mass difference and charge code of atoms, ``lines`` its properties."""
    rows = [
        f"{x:10.4f}{y:10.4f}{0.0 if flat else z:10.4f} {symbol:<3s}{(codes or {}).get(k, ' 0  0')}  0  0"
        for k, (symbol, x, y, z) in enumerate(METHOXIDE)
    ]
    head = ["methoxide", f"  by hand 0101010101{dimension}", "", "  5  0  0  0  0  0  0  0  0  0999 V2000"]
    return "\n".join([*head, *rows, *lines, "M  END", "$$$$", ""])


def pdb(charges: dict[int, str]) -> str:
    return "".join(
        f"HETATM{k + 1:5d}  {symbol}{k:<2d} LIG A   1    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00          {symbol:>2s}"
        f"{charges.get(k, '')}\n"
        for k, (symbol, x, y, z) in enumerate(METHOXIDE)
    )


@pytest.mark.parametrize(
    ("name", "text", "charge", "spin"),
    [
        ("a.sdf", sdf("M  CHG  1   2  -1"), -1, None),
        ("a.mol", sdf("M  CHG  2   1   1   2   1").replace("$$$$\n", ""), 2, None),
        ("a.sdf", sdf(codes={1: " 0  5"}), -1, None),
        ("a.sdf", sdf("M  RAD  1   2   2"), None, 2),
        ("a.sdf", sdf("M  RAD  1   1   3", "M  CHG  1   2   1"), 1, 3),
        ("a.sdf", sdf("M  CHG  1   2   1", codes={1: " 0  5"}), 1, None),  # the list goes before the codes
        ("a.pdb", pdb({1: "1-"}) + "END\n", -1, None),
        ("a.pdb", pdb({0: "+2", 1: "1-"}) + "END\n", 1, None),
    ],
)
def test_they_are_the_total_charge(tmp_path: Path, name: str, text: str, charge: int | None, spin: int | None) -> None:
    (tmp_path / name).write_text(text)
    if charge is None:
        atoms = read_atoms(tmp_path / name)
    else:
        with pytest.warns(Notice, match=f"formal charges of atoms in .* sum to {charge}, which is taken for the total"):
            atoms = read_atoms(tmp_path / name)
    assert atoms.info.get("charge") == charge
    assert atoms.info.get("spin") == spin
    np.testing.assert_allclose(atoms.positions, [row[1:] for row in METHOXIDE], atol=1e-9)


def test_without_them_nothing_is_said(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    for name, text in (("a.sdf", sdf()), ("a.pdb", pdb({}) + "END\n"), ("b.pdb", pdb({1: "xx"}) + "END\n")):
        (tmp_path / name).write_text(text)
        atoms = read_atoms(tmp_path / name)
        assert "charge" not in atoms.info
        assert not atoms.has("masses")
    assert not [w for w in recwarn if issubclass(w.category, Notice)]


def test_records_and_models_have_their_own(tmp_path: Path) -> None:
    (tmp_path / "a.sdf").write_text(sdf("M  CHG  1   2  -1") + sdf("M  CHG  1   1   1") + "\n")
    assert [atoms.info["charge"] for atoms in read_images(tmp_path / "a.sdf")] == [-1, 1]
    (tmp_path / "a.pdb").write_text(f"MODEL 1\n{pdb({1: '1-'})}ENDMDL\nMODEL 2\n{pdb({0: '1+'})}ENDMDL\n")
    assert [atoms.info["charge"] for atoms in read_images(tmp_path / "a.pdb")] == [-1, 1]


def test_isotopes_of_molecules(tmp_path: Path) -> None:
    (tmp_path / "a.sdf").write_text(sdf("M  ISO  2   1  13   3   2", codes={3: " 1  0"}))
    np.testing.assert_allclose(
        read_atoms(tmp_path / "a.sdf").get_masses(), [13, 15.999, 2.0141, 2.0141, 1.008], atol=1e-3
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (sdf(dimension="2D", flat=True), "is a drawing in two dimensions"),
        (sdf().replace("V2000", "V3000"), "is a V3000 file"),
        (sdf()[:260], "cannot be read as a molecule; expected a whole V2000 table"),
        (sdf("M  CHG  1   9  -1"), "cannot be read as a molecule"),
        (sdf("M  CHG  1   2"), "cannot be read as a molecule"),
        (sdf().replace(" O  ", " R# "), "elements that do not exist; found R#"),
    ],
)
def test_molecules_that_are_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.sdf").write_text(text)
    with pytest.raises(EquistrideError, match=said):
        read_atoms(tmp_path / "a.sdf")


def test_a_drawing_without_hydrogen_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.sdf").write_text(sdf().replace(" H  ", " F  "))
    with pytest.warns(Notice, match="has carbon and no hydrogen, as drawings leave it out"):
        read_atoms(tmp_path / "a.sdf")
