"""The verbs for properties: from a file of a structure to numbers, a plot and JSON; bad input in one sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import ase.io
import pytest
from ase import Atoms

from equistride.data.quartz import quartz

MODEL = Path(__file__).parents[2] / "models" / "quartz-esen" / "quartz-esen.pt"


def equistride(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "equistride.cli.main", *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A folder with a crystal and a molecule."""
    ase.io.write(tmp_path / "quartz.cif", quartz())
    ase.io.write(tmp_path / "molecule.xyz", Atoms("SiO", [[0, 0, 0], [0, 0, 1.5]]))
    return tmp_path


def test_relax_with_its_reference(workplace: Path) -> None:
    done = equistride(
        "relax", str(MODEL), "quartz.cif", "-o", "out", "--reference", "SiO.1990.vashishta", cwd=workplace
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" eV after ") == 2
    found = json.loads((workplace / "out" / "relax.json").read_text())
    assert found["artifact"] == "quartz-esen"
    assert found["reference_potential"] == "SiO.1990.vashishta"
    for a, b in zip(found["model"]["cell_A_degrees"], found["reference"]["cell_A_degrees"], strict=True):
        assert a == pytest.approx(b, rel=0.005)
    assert found["model"]["max_force_eV_per_A"] <= 1e-4
    relaxed = ase.io.read(workplace / "out" / "relaxed.extxyz")
    assert isinstance(relaxed, Atoms)
    assert relaxed.get_volume() == pytest.approx(found["model"]["volume_A3"], rel=1e-6)
    assert (workplace / "out" / "relax.png").stat().st_size > 1000


def test_phonons_of_the_released_model(workplace: Path) -> None:
    """One 72-atom supercell: within 0.15 THz of the reference potential, and no imaginary mode."""
    pytest.importorskip("phonopy")
    done = equistride(
        "phonons", str(MODEL), "quartz.cif", "-o", "out", "--supercell", "2", "--mesh", "4",
        "--max-force", "0.001", "--reference", "SiO.1990.vashishta", cwd=workplace,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((workplace / "out" / "phonons.json").read_text())
    assert found["difference_THz"]["mean_absolute"] <= 0.15
    assert found["model"]["imaginary_share"] == 0
    assert found["model"]["highest_THz"] == pytest.approx(40, abs=1)
    assert len(found["model"]["bands"]["ticks"]) > 5
    assert (workplace / "out" / "phonons.png").stat().st_size > 1000
    assert (workplace / "out" / "quartz-esen.phonopy.yaml").is_file()


@pytest.mark.slow
def test_equation_of_state_and_elastic_constants(workplace: Path) -> None:
    for verb in ("eos", "elastic"):
        done = equistride(verb, str(MODEL), "quartz.cif", "-o", "out", cwd=workplace)
        assert done.returncode == 0, done.stderr
        assert (workplace / "out" / f"{verb}.png").stat().st_size > 1000
    state = json.loads((workplace / "out" / "eos.json").read_text())["model"]
    elastic = json.loads((workplace / "out" / "elastic.json").read_text())["model"]
    assert elastic["stable"]
    assert state["bulk_modulus_GPa"] == pytest.approx(elastic["moduli_GPa"]["bulk_reuss"], rel=0.02)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["relax", str(MODEL), "missing.cif"], "does not exist"),
        (["relax", "missing.pt", "quartz.cif"], "the artifact missing.pt does not exist"),
        (["eos", str(MODEL), "quartz.cif", "--points", "3", "--no-relax"], "needs more points"),
        (["elastic", str(MODEL), "quartz.cif", "--no-relax"], "need a relaxed structure"),
        (["phonons", str(MODEL), "quartz.cif", "--supercell", "2,x"], "the supercell is not valid"),
        (["conductivity", str(MODEL), "quartz.cif", "--temperatures", "hot"], "the temperatures are not valid"),
        (["relax", str(MODEL), "quartz.cif", "--reference", "Nothing"], "no potential file 'Nothing'"),
        (["relax", str(MODEL), "molecule.xyz"], "periodic"),
    ],
)
def test_bad_input_is_one_sentence(workplace: Path, arguments: list[str], said: str) -> None:
    pytest.importorskip("phonopy")
    pytest.importorskip("phono3py")
    done = equistride(*arguments, cwd=workplace)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [x for x in done.stderr.splitlines() if x.startswith("equistride: ")]
    assert said in line
