"""Frames that an ensemble does not know are written in an OpenMM run, and the run can be stopped."""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
import openmm
import pytest
from ase import Atoms
from openmm.app import Simulation
from random_models import random_potential, write_artifact

from equistride.artifact import load
from equistride.artifact.ensemble import combine
from equistride.data.quartz import quartz
from equistride.engines.openmm import Harvester, create_system
from equistride.engines.openmm_harvester import TooUncertain
from equistride.engines.openmm_structure import topology_from_ase
from equistride.engines.openmm_topology import bare_system
from equistride.errors import EquistrideError


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ensemble")
    paths = [write_artifact(random_potential(k), folder / f"{k}.pt", "float64") for k in range(2)]
    combine(paths, folder / "ensemble.pt")
    return folder / "ensemble.pt"


def simulation(artifact: Path, structure: Atoms, **options: object) -> Simulation:
    topology, positions = topology_from_ase(structure)
    system = create_system(artifact, topology, **options)  # type: ignore[arg-type]
    made = Simulation(topology, system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    made.context.setPositions(positions)
    made.context.setVelocitiesToTemperature(300, 1)
    return made


def crystal() -> Atoms:
    atoms = quartz()
    atoms.rattle(0.05, seed=1)
    return atoms


def test_uncertain_frames_are_written(ensemble: Path, tmp_path: Path) -> None:
    run = simulation(ensemble, crystal())
    everything = Harvester(tmp_path / "all.extxyz", 1e-9, 2)
    nothing = Harvester(tmp_path / "none.extxyz", 1e3, 3)
    run.reporters += [everything, nothing]
    run.step(7)
    assert everything.steps == [2, 4, 6]
    assert everything.frames == 3
    assert nothing.steps == [3, 6]
    assert nothing.frames == 0
    assert not (tmp_path / "none.extxyz").exists()
    assert everything.uncertainties[2] == pytest.approx(nothing.uncertainties[1], rel=1e-12)
    frames = ase.io.read(tmp_path / "all.extxyz", ":")
    model = load(ensemble)
    for frame, step, largest in zip(frames, everything.steps, everything.uncertainties, strict=True):
        species = model.species_index(frame.get_chemical_symbols())
        outputs = model.compute(frame.positions, species, frame.cell.array, frame.pbc)
        # extxyz keeps eight decimals
        assert frame.get_potential_energy() == pytest.approx(float(outputs.atomic_energies.sum()), abs=1e-6)
        assert np.abs(frame.get_forces() - outputs.forces.numpy()).max() < 1e-6
        stress = -outputs.virial.numpy() / frame.cell.volume
        assert np.abs(frame.get_stress(voigt=False) - stress).max() < 1e-7
        expected = model.uncertainty(frame.positions, species, frame.cell.array, frame.pbc).numpy()
        assert np.abs(frame.arrays["force_uncertainty"] - expected).max() < 1e-7
        assert frame.info["max_force_uncertainty"] == pytest.approx(largest)
        assert frame.info["step"] == step
        assert frame.info["time_fs"] == pytest.approx(step)


def test_a_lost_run_is_stopped_after_writing(ensemble: Path, tmp_path: Path) -> None:
    run = simulation(ensemble, crystal())
    watch = Harvester(tmp_path / "lost.extxyz", 1e3, 2, stop=1e-6)
    run.reporters.append(watch)
    with pytest.raises(TooUncertain, match=r"no longer knows the force on atom \d \((Si|O)\) at step 2; expected less"):
        run.step(10)
    assert run.currentStep == 2
    assert len(ase.io.read(tmp_path / "lost.extxyz", ":")) == watch.frames == 1


def test_molecules_and_parts_of_a_system(ensemble: Path, tmp_path: Path) -> None:
    """The ensemble watches the atoms that it drives, in the System's numbers."""
    molecule = Atoms("HeSiO2", [[9.0, 9, 9], [0, 0, 0], [0, 0.2, 1.6], [1.5, 0, -0.3]])
    run = simulation(ensemble, molecule, atoms=[1, 2, 3])
    watch = Harvester(tmp_path / "part.extxyz", 1e-9, 1, stop=1e-9)
    run.reporters.append(watch)
    with pytest.raises(TooUncertain) as info:
        run.step(1)
    frame = ase.io.read(tmp_path / "part.extxyz")
    assert frame.get_chemical_symbols() == ["Si", "O", "O"]
    assert not frame.pbc.any()
    assert f"atom {1 + int(frame.arrays['force_uncertainty'].argmax())} " in str(info.value)


def test_it_is_told_the_ensemble_where_the_force_cannot_tell(ensemble: Path, tmp_path: Path) -> None:
    """Another potential drives, or OpenMM's PythonForce does: the ensemble watches all the same."""
    single = ensemble.with_name("0.pt")
    looks = []
    for artifact, backend in ((single, "plugin"), (ensemble, "python")):
        run = simulation(artifact, crystal(), backend=backend)
        watch = Harvester(tmp_path / f"{backend}.extxyz", 1e-9, 1, artifact=ensemble)
        run.reporters.append(watch)
        run.step(1)
        looks.append(watch.uncertainties[0])
    assert looks[0] == pytest.approx(looks[1], rel=1e-2), "one step under forces that differ"
    run = simulation(ensemble, crystal(), backend="python")
    own = Harvester(tmp_path / "own.extxyz", 1e-9, 1)
    run.reporters.append(own)
    run.step(1)
    assert own.uncertainties[0] == pytest.approx(looks[1], rel=1e-12)
    topology, positions = topology_from_ase(crystal())
    run = Simulation(topology, bare_system(topology), openmm.VerletIntegrator(0.001))
    run.context.setPositions(positions)
    run.reporters.append(Harvester(tmp_path / "none.extxyz", 1.0, 1))
    with pytest.raises(EquistrideError, match="give the Harvester the ensemble with artifact"):
        run.step(1)
    run = simulation(single, crystal())
    run.reporters.append(Harvester(tmp_path / "none.extxyz", 1.0, 1))
    with pytest.raises(EquistrideError, match="System's model has no uncertainty; expected an ensemble"):
        run.step(1)
    run.reporters[:] = [Harvester(tmp_path / "none.extxyz", 1.0, 1, artifact=load(single))]
    with pytest.raises(EquistrideError, match="this artifact has no uncertainty"):
        run.step(1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((0.0, 1, None), "threshold of a harvester must be an uncertainty above 0; expected a number in eV/A; found 0"),
        ((float("nan"), 1, None), "threshold"),
        ((0.1, 0, None), "interval of a harvester must be positive"),
        ((0.1, 2.5, None), "interval of a harvester must be positive; expected 1 step or more; found 2.5"),
        ((0.1, 1, -1.0), "stop of a harvester"),
    ],
)
def test_settings_that_make_no_sense(tmp_path: Path, arguments: tuple[float, int, float | None], said: str) -> None:
    threshold, interval, stop = arguments
    with pytest.raises(EquistrideError, match=said):
        Harvester(tmp_path / "h.xyz", threshold, interval, stop=stop)
    with pytest.raises(EquistrideError, match=r"is a folder; expected a file that frames are appended to"):
        Harvester(tmp_path, 0.1, 1)
    with pytest.raises(EquistrideError, match=r"folder of .* does not exist"):
        Harvester(tmp_path / "nowhere" / "h.xyz", 0.1, 1)
