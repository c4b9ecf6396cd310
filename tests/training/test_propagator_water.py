"""The released propagator of water: its teacher, errors of a stride on motion never seen, and a liquid that stays one."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import openmm
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import read
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.md.verlet import VelocityVerlet
from ase.units import fs
from openmm import unit

from equistride.artifact import load
from equistride.engines.openmm import TrajCastIntegrator, create_system
from equistride.engines.openmm_structure import topology_from_ase

FOLDER = Path(__file__).parents[2] / "models" / "water-trajcast-5fs"
PATH = FOLDER / "water-trajcast-5fs.pt"


@pytest.fixture(scope="module")
def teacher() -> ModuleType:
    place = importlib.util.spec_from_file_location("spc_fw", FOLDER / "spc_fw.py")
    assert place is not None
    assert place.loader is not None
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    return module


@pytest.fixture
def box() -> Atoms:
    atoms = read(FOLDER / "water64.extxyz")
    assert isinstance(atoms, Atoms)
    return atoms


def test_the_teachers_forces_are_slopes_of_its_energy(teacher: ModuleType, box: Atoms) -> None:
    """OpenMM's CPU platform has float32 forces: 2e-4 of the largest, differences over 0.004 A included."""
    box.calc = teacher.water()
    forces = box.get_forces()
    for atom, axis in ((0, 0), (1, 1), (50, 2), (100, 0)):
        energies = []
        for step in (0.002, -0.002):
            moved = box.copy()
            moved.positions[atom, axis] += step
            moved.calc = box.calc
            energies.append(moved.get_potential_energy())
        slope = (energies[0] - energies[1]) / 0.004
        assert abs(slope + forces[atom, axis]) < 2e-4 * np.abs(forces).max()


def test_the_teacher_knows_water_alone(teacher: ModuleType) -> None:
    with pytest.raises(ValueError, match="each molecule in the order O, H, H"):
        teacher.system_of(bulk("Si"))


def test_a_grid_has_the_density_and_whole_molecules(teacher: ModuleType) -> None:
    atoms = teacher.grid(27)
    assert atoms.get_masses().sum() / atoms.get_volume() / 0.602214076 == pytest.approx(0.997, rel=1e-3)
    bonds = atoms.get_distances(0, [1, 2], mic=True)
    assert bonds == pytest.approx([1.012, 1.012], abs=1e-6)
    assert atoms.get_angle(1, 0, 2, mic=True) == pytest.approx(113.24, abs=1e-4)


def test_errors_on_fresh_motion(teacher: ModuleType, box: Atoms) -> None:
    """Six strides of a bath and seed of their own, a fifth more than the card says: 18 molecules' worth of scatter."""
    model = load(PATH)
    said = model.metadata.accuracy
    box.calc = teacher.water()
    rng = np.random.default_rng(815)
    MaxwellBoltzmannDistribution(box, temperature_K=300, rng=rng)
    Langevin(box, 0.5 * fs, temperature_K=300, friction=0.01 / fs, rng=rng).run(200)
    species = model.species_index(box.numbers.tolist())
    errors, targets = [], []
    for _ in range(6):
        before, speed = box.positions.copy(), box.get_velocities() * fs
        VelocityVerlet(box, 0.5 * fs).run(10)
        out = model.propagate(before, speed, species, cell=box.cell.array, pbc=box.pbc)
        moved, after = box.positions - before, box.get_velocities() * fs
        errors.append((out.displacements.numpy() - moved, out.velocities.numpy() - after))
        targets.append((moved, after))
    for k, quantity in enumerate(("displacement", "velocity")):
        error, target = (np.stack([pair[k] for pair in pairs]) for pairs in (errors, targets))
        found = 100 * np.abs(error).mean() / np.sqrt((target**2).mean())
        assert found < 1.2 * said[f"{quantity}_mae_percent_of_rms"]


def test_the_liquid_stays_one(box: Atoms) -> None:
    """2 ps: molecules whole, at their temperature (573 degrees of freedom, 15 independent looks: 2 %)."""
    topology, positions = topology_from_ase(box)
    integrator = TrajCastIntegrator(PATH, topology, temperature=300 * unit.kelvin, seed=2)
    context = openmm.Context(create_system(PATH, topology), integrator)
    context.setPositions(positions)
    context.setVelocitiesToTemperature(300 * unit.kelvin, 2)
    kinetic = []
    for _ in range(40):
        integrator.step(10)
        kinetic.append(context.getState(energy=True).getKineticEnergy()._value)
    state = context.getState(positions=True)
    box.positions = state.getPositions(asNumpy=True)._value * 10
    for first in range(0, len(box), 3):
        assert max(box.get_distances(first, [first + 1, first + 2], mic=True)) < 1.3
    temperature = np.mean(kinetic[10:]) / (0.5 * (3 * len(box) - 3) * 0.00831446)
    assert abs(temperature - 300) < 18
