"""The released quartz potentials: held-out errors, flat energy, flat memory."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import openmm
import psutil
import pytest
import torch
from openmm import unit
from openmm.app import Simulation

from equistride.artifact import load
from equistride.conservation.drift import energy_drift
from equistride.data.frames import Frames
from equistride.data.frames import load as load_frames
from equistride.data.quartz import Condition, QuartzRecipe, generate, quartz
from equistride.data.reference import ReferenceCalculator
from equistride.engines.ase import EquistrideCalculator
from equistride.engines.openmm import create_system
from equistride.engines.openmm_recorder import Recorder
from equistride.engines.openmm_structure import topology_from_ase
from equistride.properties.elastic import elastic_constants
from equistride.properties.relax import relax
from equistride.units import BOLTZMANN

MODELS = [Path(__file__).parents[2] / "models" / name / f"{name}.pt" for name in ("quartz-esen", "quartz-nequip")]
MODEL = MODELS[0]
each_model = pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
TRIGONAL = ((1, 1), (3, 3), (1, 2), (1, 3), (4, 4), (1, 4), (6, 6))
FORCE_MAE, ENERGY_MAE = 15.0, 0.3  # meV/A: 1.5 % of the rms force; meV/atom


def held_out_errors(path: Path, frames: Frames) -> tuple[float, float]:
    """Return force MAE [meV/A] and energy MAE [meV/atom]; one constant is taken from the energies, whose zero is free."""
    model = load(path)
    species = model.species_index(frames.numbers.tolist())
    forces, energies = [], []
    for k in range(len(frames)):
        out = model.compute(frames.positions[k], species, frames.cell[k], frames.pbc)
        forces.append(out.forces.double().numpy() - frames.forces[k])
        energies.append(float(out.atomic_energies.sum()) - frames.energy[k])
    per_atom = np.array(energies) / len(frames.numbers)
    return 1000 * float(np.abs(forces).mean()), 1000 * float(np.abs(per_atom).mean())


def test_errors_on_fresh_reference_frames() -> None:
    recipe = QuartzRecipe(72, (Condition(300.0, 2),), frames=6, seed=4711)
    frames = Frames.concatenate([part for _, _, part in generate(recipe)])
    for path in MODELS:
        force, energy = held_out_errors(path, frames)
        assert force <= FORCE_MAE
        assert (
            energy <= 2 * ENERGY_MAE
        )  # two segments are few for a mean of energies; the slow test holds the bar itself


@pytest.mark.slow
@each_model
@pytest.mark.parametrize("name", ["quartz72_vash1990_300K", "quartz162_vash1990_300K"])
def test_errors_on_independent_reference_data(shared_data: Path, path: Path, name: str) -> None:
    (frames,) = load_frames(shared_data / "reference" / f"{name}.npz")
    force, energy = held_out_errors(path, frames)
    print(f"{name}: force MAE {force:.2f} meV/A, energy MAE {energy:.3f} meV/atom")
    assert force <= FORCE_MAE
    assert energy <= ENERGY_MAE


def test_mirror_image_has_the_same_energy() -> None:
    """Left and right quartz are mirror images; the model saw only one of them."""
    atoms = quartz((2, 2, 2))
    atoms.rattle(0.05, seed=3)
    model = load(MODEL, dtype=torch.float64)
    species = model.species_index(atoms.get_chemical_symbols())
    mirror = np.diag([-1.0, 1.0, 1.0])
    right = model.compute(atoms.positions, species, atoms.cell.array, True)
    left = model.compute(atoms.positions @ mirror, species, atoms.cell.array @ mirror, True)
    assert abs(float(right.atomic_energies.sum() - left.atomic_energies.sum())) < 1e-10 * abs(
        float(right.atomic_energies.sum())
    )
    assert torch.allclose(right.forces @ torch.from_numpy(mirror), left.forces, atol=1e-10, rtol=0)


def test_elastic_constants_are_those_of_the_teacher() -> None:
    """Each potential at its own equilibrium; a, c within 0.2 %, all elastic constants that are not zero within 5 %."""
    constants, lengths = [], []
    students = [EquistrideCalculator(path, dtype="float64") for path in MODELS]
    for calculator in (ReferenceCalculator("SiO.1990.vashishta"), *students):
        atoms = relax(quartz(), calculator).atoms
        lengths.append(atoms.cell.lengths())
        found = elastic_constants(atoms, calculator)
        assert found.stable
        constants.append([found.constants[i - 1, j - 1] for i, j in TRIGONAL])
    for student in (1, 2):
        np.testing.assert_allclose(lengths[student], lengths[0], rtol=2e-3)
        np.testing.assert_allclose(constants[student], constants[0], rtol=0.05)


def nve_simulation(repeats: tuple[int, int, int], warm_steps: int) -> Simulation:
    """Return quartz at about 300 K, ready for velocity Verlet at 1 fs."""
    topology, positions = topology_from_ase(quartz(repeats))
    system = create_system(MODEL, topology)
    platform = openmm.Platform.getPlatformByName("Reference")
    bath = openmm.LangevinMiddleIntegrator(300 * unit.kelvin, 10 / unit.picosecond, 1 * unit.femtosecond)
    bath.setRandomNumberSeed(5)
    warm = Simulation(topology, system, bath, platform)
    warm.context.setPositions(positions)
    warm.context.setVelocitiesToTemperature(600 * unit.kelvin, 5)
    warm.step(warm_steps)
    nve = Simulation(topology, system, openmm.VerletIntegrator(1 * unit.femtosecond), platform)
    nve.context.setState(warm.context.getState(positions=True, velocities=True))
    return nve


@pytest.mark.slow
def test_ten_picoseconds_of_nve_do_not_drift() -> None:
    """162 atoms, 10,000 steps of 1 fs at 300 K: at most 0.05 meV/atom/ps."""
    torch.set_num_threads(os.cpu_count() or 1)
    nve, atoms = nve_simulation((3, 3, 2), 1000), 162
    recorder = Recorder(10)
    nve.reporters.append(recorder)
    nve.step(10_000)
    drift = energy_drift(recorder.time_fs, recorder.potential_energy + recorder.kinetic_energy, atoms)
    temperature = 2 * recorder.kinetic_energy.mean() / ((3 * atoms - 3) * BOLTZMANN)
    print(f"drift {drift.slope:+.5f} meV/atom/ps, interval {drift.interval}, {temperature:.1f} K")
    assert 250 < temperature < 350
    assert abs(drift.slope) <= 0.05


@pytest.mark.slow
def test_ten_thousand_steps_keep_memory_flat() -> None:
    """72 atoms, energies read every 10 steps, nothing kept: resident memory within 5 MB after the first 500 steps."""
    torch.set_num_threads(1)
    nve, process = nve_simulation((2, 2, 2), 300), psutil.Process()
    resident = []
    for _ in range(100):
        for _ in range(10):
            nve.step(10)
            nve.context.getState(energy=True)
        resident.append(process.memory_info().rss / 2**20)
    print(f"resident memory {resident[4]:.1f} MB after 500 steps, {resident[-1]:.1f} MB after 10,000")
    assert max(resident[5:]) - resident[4] <= 5.0
