"""``equistride diff``: what it says of two models and of engines is what one computes by hand; what is no question is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.io import read, write
from openmm import Vec3, unit
from openmm.app import DCDFile, PDBFile
from random_models import random_potential, write_artifact
from typer.testing import CliRunner

from equistride.artifact import load
from equistride.cli.main import app
from equistride.comparison.difference import differences
from equistride.comparison.frames import Frame, frames_of_file, spread
from equistride.data.quartz import quartz
from equistride.engines.ase import EquistrideCalculator
from equistride.engines.openmm_structure import topology_from_ase
from equistride.errors import EquistrideError

MODELS = Path(__file__).resolve().parents[2] / "models"
PROPAGATOR = MODELS / "quartz-trajcast-30fs" / "quartz-trajcast-30fs.pt"
ETHANOL = MODELS / "ethanol-trajcast-7fs" / "ethanol-trajcast-7fs.pt"
SILICON = MODELS / "silicon-esen" / "silicon-esen.pt"


def compared(*words: object) -> dict[str, Any]:
    """Return the result, its differences by their names."""
    done = CliRunner().invoke(app, ["diff", *map(str, words), "--json"])
    assert done.exit_code == 0, done.output or done.exception
    result = json.loads(done.stdout)
    result["differences"] = {d["name"]: d for d in result["differences"]}
    return result


def refused(*words: object) -> str:
    done = CliRunner().invoke(app, ["diff", *map(str, words)])
    assert isinstance(done.exception, EquistrideError), done.output
    return str(done.exception)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another random potential of the same elements, with another cutoff."""
    folder = tmp_path_factory.mktemp("other")
    return write_artifact(random_potential(seed=5, cutoff=4.5), folder / "other.pt", "float64", periodic="required")


@pytest.fixture(scope="module")
def crystals(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Atoms]]:
    """Five frames of quartz, more and more displaced."""
    frames = []
    for k in range(5):
        atoms = quartz((2, 2, 1))
        atoms.rattle(0.02 * (k + 1), seed=k)
        frames.append(atoms)
    path = tmp_path_factory.mktemp("crystals") / "crystals.extxyz"
    write(path, frames)
    return path, read(path, ":")  # with the digits of the file


def test_two_models_on_a_trajectory(random_artifact64: Path, other: Path, crystals: tuple[Path, list[Atoms]]) -> None:
    """Against ASE's calculator on the atoms as they are: the frames are turned on the way, which lengths do not see."""
    path, frames = crystals
    result = compared(random_artifact64, other, path, "--most", 3)
    assert [f["name"] for f in result["frames"]] == [f"crystals.extxyz, frame {k}" for k in (0, 2, 4)]
    energies, forces, stresses = [], [], []
    for artifact in (random_artifact64, other):
        of_frames = [frames[k].copy() for k in (0, 2, 4)]
        for atoms in of_frames:
            atoms.calc = EquistrideCalculator(artifact)
        energies.append(np.array([a.get_potential_energy() / len(a) for a in of_frames]))
        forces.append(np.array([a.get_forces() for a in of_frames]))
        stresses.append(np.array([a.get_stress(voigt=False) / units.GPa for a in of_frames]))
    found = result["differences"]
    delta = energies[1] - energies[0]
    assert found["energy"]["largest"] == pytest.approx(np.abs(delta).max(), rel=1e-9)
    assert found["energy"]["frame"] == f"crystals.extxyz, frame {(0, 2, 4)[np.abs(delta).argmax()]}"
    assert found["energy"]["scale"] == pytest.approx(np.std(energies[0]), rel=1e-6)
    lengths = np.linalg.norm(forces[1] - forces[0], axis=2)
    frame, atom = np.unravel_index(lengths.argmax(), lengths.shape)
    force = found["force"]
    assert force["largest"] == pytest.approx(lengths.max(), rel=1e-9)
    assert force["rms"] == pytest.approx(np.sqrt(np.mean((forces[1] - forces[0]) ** 2)), rel=1e-9)
    assert force["scale"] == pytest.approx(np.sqrt(np.mean(forces[0] ** 2)), rel=1e-9)
    assert (force["atom"], force["frame"]) == (atom, f"crystals.extxyz, frame {(0, 2, 4)[frame]}")
    assert force["element"] == frames[0].get_chemical_symbols()[atom]
    oxygen = frames[0].numbers == 8
    assert force["by_element"]["O"] == pytest.approx(
        np.sqrt(np.mean((forces[1] - forces[0])[:, oxygen] ** 2)), rel=1e-9
    )
    # the rms of all nine components is that of any axes
    assert found["stress"]["rms"] == pytest.approx(np.sqrt(np.mean((stresses[1] - stresses[0]) ** 2)), rel=1e-6)
    assert {(row["field"], row["a"], row["b"]) for row in result["contract"]} >= {
        ("cutoff", 4.0, 4.5), ("periodic", "any", "required"), ("interaction_range", 12.0, 13.5),
    }  # fmt: skip
    assert "species" not in {row["field"] for row in result["contract"]}


@pytest.mark.parametrize("engine", ["openmm", "lammps"])
def test_one_potential_in_two_engines(engine: str, random_artifact64: Path, crystals: tuple[Path, list[Atoms]]) -> None:
    """To 2e-7 of forces of 1 eV/A and energies of 7 eV an atom: the engines' constants of nature agree to 1e-7."""
    result = compared(random_artifact64, crystals[0], "--most", 1, "--engine", "ase", "--engine", engine)
    assert (result["a"]["engine"], result["b"]["engine"]) == ("ase", engine)
    assert result["a"]["file"] == result["b"]["file"]
    found = result["differences"]
    assert found["energy"]["largest"] < 2e-6
    assert found["force"]["largest"] < 2e-7 * max(1.0, found["force"]["scale"])
    assert ("stress" in found) == (engine == "lammps")
    if engine == "lammps":
        assert found["stress"]["largest"] < 1e-6 * found["stress"]["scale"]


def test_one_potential_in_two_precisions(random_artifact64: Path) -> None:
    """On the frame of its own test; float32 rounds in the seventh digit."""
    result = compared(random_artifact64, "--precision", "float64", "--precision", "float32")
    assert result["frames"] == [{"name": f"the test of {random_artifact64.name}", "atoms": 8}]
    force = result["differences"]["force"]
    assert 1e-9 * force["scale"] < force["largest"] < 1e-4 * max(force["scale"], 1.0)


@pytest.mark.parametrize("engine", ["openmm", "lammps"])
def test_one_propagator_in_two_engines(engine: str) -> None:
    """Also with the net momentum of the test's frame, which no engine may take away."""
    result = compared(PROPAGATOR, "--engine", "ase", "--engine", engine)
    found = result["differences"]
    assert found.keys() == {"displacement", "velocity"}
    assert found["displacement"]["largest"] < 1e-7 * found["displacement"]["scale"]
    assert found["velocity"]["largest"] < 1e-7 * found["velocity"]["scale"]


def test_a_stride_is_the_models_own(tmp_path: Path) -> None:
    """From velocities of the file; drawn ones are the same on both sides, and others for another seed."""
    atoms = quartz((2, 2, 2))
    atoms.set_momenta(
        np.random.default_rng(1).normal(size=(72, 3)) * np.sqrt(atoms.get_masses() * units.kB * 300)[:, None]
    )
    path = tmp_path / "moving.extxyz"
    write(path, atoms)
    model = load(PROPAGATOR)
    stride = model.propagate(
        atoms.positions, atoms.get_velocities() * units.fs, model.species_index(atoms.get_chemical_symbols()),
        atoms.cell.array, True,
    )  # fmt: skip
    found = compared(PROPAGATOR, PROPAGATOR, path)["differences"]
    assert found["displacement"]["largest"] == found["velocity"]["largest"] == 0.0
    assert found["displacement"]["scale"] == pytest.approx(float(stride.displacements.square().mean().sqrt()), rel=1e-6)
    write(path, quartz((1, 1, 1)))
    drawn = [compared(PROPAGATOR, PROPAGATOR, path, "--seed", seed)["differences"]["velocity"] for seed in (1, 2)]
    assert drawn[0]["largest"] == 0.0
    assert drawn[0]["scale"] != drawn[1]["scale"]


def test_the_screen(random_artifact64: Path, other: Path, crystals: tuple[Path, list[Atoms]]) -> None:
    done = CliRunner().invoke(app, ["diff", str(random_artifact64), str(other), str(crystals[0]), "--most", "1"])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].startswith("A  ")
    assert "(ase, float64)" in lines[1]
    assert any(line.split() == ["cutoff", "4.0", "4.5"] for line in lines)
    assert any(line.split()[:2] == ["force", "eV/A"] and "frame 0" in line for line in lines if line.strip())
    same = CliRunner().invoke(app, ["diff", str(random_artifact64), "--engine", "openmm", "--engine", "ase"])
    assert "stress: not compared" in same.stdout
    assert "metadata" not in same.stdout


def written_run(folder: Path, atoms: Atoms) -> Path:
    """Write four frames, each moved by 0.01 A more, as a DCD."""
    topology, _ = topology_from_ase(atoms)
    with (folder / "q.dcd").open("wb") as file:
        dcd = DCDFile(file, topology, 0.001 * unit.picosecond)
        for k in range(4):
            dcd.writeModel([Vec3(*row) for row in (atoms.positions + 0.01 * k) / 10] * unit.nanometer)
    return folder / "q.dcd"


def test_frames_of_trajectories(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A DCD has no elements: the topology brings them. ``spread`` takes the ends. Nothing comes between JSON and its reader."""
    atoms = quartz((2, 2, 2))
    topology, positions = topology_from_ase(atoms)
    with (tmp_path / "q.pdb").open("w") as file:
        PDBFile.writeFile(topology, positions, file)
    run = written_run(tmp_path, atoms)
    frames = frames_of_file(run, 2, tmp_path / "q.pdb")
    assert capfd.readouterr().out == ""
    assert [f.name for f in frames] == ["q.dcd, frame 0", "q.dcd, frame 3"]
    assert frames[1].atoms.get_chemical_symbols() == atoms.get_chemical_symbols()
    assert np.abs(frames[1].atoms.positions - atoms.positions - 0.03).max() < 1e-4  # DCD rounds to float32
    assert frames[1].atoms.pbc.all()
    assert spread(10, 4) == [0, 3, 6, 9]
    assert spread(2, 10) == [0, 1]


def test_a_number_that_is_none_is_the_largest() -> None:
    atoms = Atoms("OSi", positions=[[0, 0, 0], [2, 0, 0]])
    frames = [Frame(atoms, "one"), Frame(atoms, "two")]
    zeros = {"force": np.zeros((2, 3))}
    broken = {"force": np.array([[0.0, 0, 0], [np.nan, 0, 0]])}
    (found,) = differences(frames, [zeros, zeros], [{"force": np.ones((2, 3))}, broken])
    assert (found.frame, found.atom, found.element) == ("two", 1, "Si")
    assert not np.isfinite(found.largest)


def test_what_is_no_question(random_artifact64: Path, crystals: tuple[Path, list[Atoms]], tmp_path: Path) -> None:
    silica = crystals[0]
    assert "is a potential and" in refused(random_artifact64, PROPAGATOR)
    assert "strides of different lengths; expected 30 fs twice; found 30 and 7 fs" in refused(PROPAGATOR, ETHANOL)
    assert "the models know different elements; expected O Si; found Si" in refused(random_artifact64, SILICON)
    said = refused(random_artifact64, SILICON, silica, "--most", 1)
    assert "does not know all elements of crystals.extxyz, frame 0; expected Si; found O" in said
    assert "there is nothing to compare with" in refused(random_artifact64)
    assert "there are two sides to --engine" in refused(random_artifact64, *["--engine", "ase"] * 3)
    assert "the engine is not known" in refused(random_artifact64, "--engine", "ase", "--engine", "gromacs")
    assert "runs in its own precision" in refused(PROPAGATOR, PROPAGATOR, "--precision", "float64")
    assert "does not exist" in refused(random_artifact64, random_artifact64, tmp_path / "none.cif")
    assert "crystals.extxyz" in refused(random_artifact64, silica)  # no artifact
    nowhere = tmp_path / "nan.extxyz"
    atoms = quartz((1, 1, 1))
    write(nowhere, [atoms, Atoms("H", positions=[[0, 0, 0]])])
    assert "expected O, Si; found H" in refused(random_artifact64, random_artifact64, nowhere)
