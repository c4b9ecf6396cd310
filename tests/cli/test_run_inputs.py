"""``equistride run``: options without effect, velocities, charges and boxes of a structure, times that are no whole steps."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import molecule
from ase.io import read, write
from typer.testing import CliRunner

from equistride.cli.main import app as cli
from equistride.data.quartz import quartz
from equistride.data.structures import repeated
from equistride.errors import EquistrideError, Notice
from equistride.simulation import Settings, simulate
from equistride.simulation.run import Result

POTENTIAL = Path(__file__).resolve().parents[2] / "models" / "quartz-esen" / "quartz-esen.pt"


def notices(record: pytest.WarningsRecorder) -> list[str]:
    return [str(w.message) for w in record if issubclass(w.category, Notice)]


def one_step(atoms: Atoms, folder: Path, **settings: object) -> Result:
    chosen = {"engine": "ase", "ensemble": "nve", "time_fs": 1, "every": 1, "trajectory": "extxyz"} | settings
    return simulate(POTENTIAL, atoms, Settings(**chosen), folder)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "idle"),
    [
        (["--ensemble", "nvt", "--pressure", "5", "--max-force", "3", "--seed", "2"], ["max-force", "pressure"]),
        (["--ensemble", "npt", "--pressure", "5"], []),
        (
            [
                "--ensemble",
                "minimise",
                "--time",
                "1ps",
                "--temperature",
                "10",
                "--trajectory",
                "xtc",
                "--max-force",
                "9",
            ],
            ["time", "temperature", "trajectory"],
        ),
    ],
    ids=["nvt", "npt", "minimise"],
)
def test_options_without_effect_are_told(words: list[str], idle: list[str], tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as said:  # and then the structure is missing
        warnings.simplefilter("always")
        done = CliRunner().invoke(
            cli, ["run", str(POTENTIAL), str(tmp_path / "none.xyz"), "-o", str(tmp_path / "run"), *words]
        )
    assert isinstance(done.exception, EquistrideError)
    told = [str(w.message) for w in said if issubclass(w.category, Notice)]
    assert told == [f"--{name} has no effect with --ensemble {words[1]}" for name in idle]


def test_exports_tell_of_options_without_effect(tmp_path: Path) -> None:
    """And the precision of a file for OpenMM is the one that is asked for."""
    write(tmp_path / "quartz.xyz", quartz())
    words = ["--for", "openmm", "--licence", "MIT", "--tables", "0.1", "--plain", "--dtype", "float64", "--structure"]
    files = [str(tmp_path / "quartz.xyz"), "-o", str(tmp_path / "force.pt")]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        done = CliRunner().invoke(cli, ["export", str(POTENTIAL), *words, *files])
    assert done.exit_code == 0, done.exception
    told = [str(w.message) for w in said if issubclass(w.category, Notice)]
    assert told == [f"--{name} has no effect with --for openmm" for name in ("licence", "tables", "plain")]
    assert {w.dtype for w in torch.jit.load(tmp_path / "force.pt").parameters()} == {torch.float64}


def test_velocities_of_a_structure_begin_the_run(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    """Also in the command's sentence; velocities of 0 are none."""
    atoms = quartz()
    atoms.set_momenta(
        np.random.default_rng(0).normal(size=(9, 3)) * np.sqrt(atoms.get_masses() * units.kB * 300)[:, None]
    )
    write(tmp_path / "moving.extxyz", atoms)
    words = [
        "--engine",
        "ase",
        "--ensemble",
        "nve",
        "--time",
        "1fs",
        "--every",
        "1",
        "--trajectory",
        "extxyz",
        "--no-report",
    ]
    done = CliRunner().invoke(
        cli, ["run", str(POTENTIAL), str(tmp_path / "moving.extxyz"), "-o", str(tmp_path / "a"), *words]
    )
    assert done.exit_code == 0, done.exception
    assert notices(recwarn) == [
        f"the structure has velocities, of {atoms.get_temperature():.0f} K, with which the run begins"
    ]
    moved = read(tmp_path / "a" / "trajectory.extxyz").positions - atoms.positions
    # half the acceleration of a step: 5e-4 A at 5 eV/A and the mass of oxygen
    assert np.abs(moved - atoms.get_velocities() * units.fs).max() < 2e-3
    still = atoms.copy()
    still.set_momenta(np.zeros((9, 3)))
    recwarn.clear()
    assert one_step(still, tmp_path / "b").last.temperature > 300
    assert "velocities are drawn at 600 K" in notices(recwarn)[0]


def test_a_time_that_is_no_whole_number_of_steps_is_told(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    one_step(quartz(), tmp_path / "a", time_fs=0.2)
    assert "a time of 0.2 fs is 1 steps of 1 fs: 1 fs are run" in notices(recwarn)
    recwarn.clear()
    one_step(quartz(), tmp_path / "b", time_fs=0.3 + 0.3, timestep_fs=0.3)
    assert not [sentence for sentence in notices(recwarn) if "a time of" in sentence]


@pytest.mark.parametrize("engine", ["openmm", "lammps", "ase"])
def test_a_pressure_needs_a_box(engine: str, tmp_path: Path) -> None:
    slab = quartz()
    slab.pbc = (True, True, False)
    for atoms, found in ((slab, "True, True, False"), (molecule("H2O"), "False, False, False")):
        with pytest.raises(EquistrideError, match=rf"a pressure needs a box .*found npt with pbc \[{found}\]"):
            one_step(atoms, tmp_path, engine=engine, ensemble="npt")


def test_a_supercell_has_the_charge_of_its_cells() -> None:
    cell = quartz()
    cell.info.update(charge=-1, spin=1)
    assert repeated(cell, (2, 1, 3)).info == {"charge": -6, "spin": 1}
    cell.set_initial_charges([-1.0, *[0.0] * 8])
    assert repeated(cell, (2, 1, 1)).get_initial_charges().sum() == repeated(cell, (2, 1, 1)).info["charge"]
    cell.info["spin"] = 2
    assert repeated(cell, (1, 1, 1)).info["spin"] == 2
    with pytest.raises(EquistrideError, match=r"spins of the cells of a supercell .*found spin 2 in each"):
        repeated(cell, (2, 1, 1))


def test_another_charge_or_mass_is_not_continued(tmp_path: Path) -> None:
    atoms = quartz()
    one_step(atoms, tmp_path)
    ion, heavy = atoms.copy(), atoms.copy()
    ion.info["charge"] = 1
    heavy.set_masses(atoms.get_masses() + (atoms.numbers == 8))
    settings = Settings(engine="ase", ensemble="nve", time_fs=2, every=1, trajectory="extxyz")
    for other in (ion, heavy):
        with pytest.raises(EquistrideError, match="another structure"):
            simulate(POTENTIAL, other, settings, tmp_path, resume=True)
    assert simulate(POTENTIAL, atoms, settings, tmp_path, resume=True).step == 2
