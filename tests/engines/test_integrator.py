"""The propagating integrator in OpenMM: the same strides as in Python, what it keeps, thermostats, and life in a Simulation."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import openmm
import pytest
import torch
import toy_propagator
import yaml
from ase import Atoms
from openmm import app, unit
from propagated import (
    Moving,
    angular_momentum,
    bulk,
    context_of,
    masses_of,
    molecule,
    moving,
    same_bits,
    simulation_of,
    temperature,
)
from trajcast_systems import STRIDE

from equistride import artifact
from equistride.engines.openmm import TrajCastIntegrator, create_system
from equistride.engines.openmm_structure import reduced_cell, topology_from_ase
from equistride.importers.trajcast import import_trajcast


@pytest.fixture(scope="module")
def free(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_propagator.write_propagator(tmp_path_factory.mktemp("toy") / "free.pt", free=True)


def strides_in_python(path: Path, atoms: Atoms, start: Moving, strides: int) -> tuple[np.ndarray, np.ndarray]:
    """Return positions and velocities after some strides from a start, without OpenMM."""
    model = artifact.load(path)
    species = model.species_index(atoms.get_chemical_symbols())
    x, v = start.positions, start.velocities
    for _ in range(strides):
        stride = model.propagate(x, v, species, start.box, bool(start.box.any()))
        x, v = x + stride.displacements.numpy(), stride.velocities.numpy()
    return x, v


@pytest.mark.parametrize("platform", ["Reference", "CPU"])
@pytest.mark.parametrize("atoms", [bulk(), molecule()], ids=["bulk", "molecule"])
@pytest.mark.parametrize("precision", ["propagator64", "propagator32"])
def test_twenty_strides_are_those_of_python(
    precision: str, atoms: Atoms, platform: str, request: pytest.FixtureRequest
) -> None:
    # Both run one C++ model in double-precision coordinates, so single-precision networks agree as well.
    path = request.getfixturevalue(precision)
    made = context_of(path, atoms, platform=platform, thermostat=None)
    start = moving(made)
    x, v = strides_in_python(path, atoms, start, 20)
    made.getIntegrator().step(20)
    end = moving(made)
    assert np.abs(end.positions - start.positions).max() > 0.1
    np.testing.assert_allclose(end.positions, x, atol=1e-10, rtol=0)
    np.testing.assert_allclose(end.velocities, v, atol=1e-12, rtol=0)
    assert end.time == pytest.approx(20 * STRIDE / 1000, abs=1e-12)
    assert made.getStepCount() == 20


@pytest.mark.parametrize("precision", ["propagator64", "propagator32"])
@pytest.mark.parametrize("thermostat", [None, "csvr", "langevin", "langevin+csvr"])
@pytest.mark.parametrize("atoms", [bulk(), molecule()], ids=["bulk", "molecule"])
def test_momenta_are_kept(precision: str, thermostat: str | None, atoms: Atoms, request: pytest.FixtureRequest) -> None:
    """Momenta that are not zero change by at most 1e-12 of the thermal ones in 50 strides, and the centre of mass follows."""
    path = request.getfixturevalue(precision)
    topology, _ = topology_from_ase(atoms)
    system = create_system(path, topology, remove_cm_motion=False)
    made = context_of(path, atoms, system=system, thermostat=thermostat, seed=3)
    masses, drift = masses_of(made), np.array([2e-3, -1e-3, 5e-4])
    start, is_open = moving(made), not atoms.pbc.any()
    spin = np.cross([0.0, 0.0, 1e-3], start.positions) if is_open else 0.0
    made.setVelocities((start.velocities + drift + spin) * 100)
    start = moving(made)
    made.getIntegrator().step(50)
    end = moving(made)
    thermal = np.sqrt((masses**2 * start.velocities**2).sum())
    momentum = (masses * start.velocities).sum(0)
    assert np.abs((masses * end.velocities).sum(0) - momentum).max() < 1e-12 * thermal
    travelled = (masses * (end.positions - start.positions)).sum(0)
    np.testing.assert_allclose(travelled, momentum * 50 * STRIDE, atol=1e-10)
    if is_open:
        change = angular_momentum(end, masses) - angular_momentum(start, masses)
        reach = np.linalg.norm(start.positions - start.positions.mean(0), axis=1).max()
        assert np.abs(angular_momentum(start, masses)).max() > 1e-3 * thermal * reach
        assert np.abs(change).max() < 1e-12 * thermal * reach


def test_atoms_beyond_the_box(propagator64: Path) -> None:
    """Whole lattice vectors change nothing; the box is triclinic."""
    atoms = bulk()
    plain, moved = (context_of(propagator64, atoms, thermostat=None) for _ in range(2))
    start = moving(plain)
    jumps = np.random.default_rng(2).integers(-3, 4, (len(atoms), 3)) @ start.box
    moved.setPositions((start.positions + jumps) / 10)
    for made in (plain, moved):
        made.getIntegrator().step(5)
    np.testing.assert_allclose(moving(moved).positions - jumps, moving(plain).positions, atol=1e-10)
    np.testing.assert_allclose(moving(moved).velocities, moving(plain).velocities, atol=1e-12)


@pytest.mark.parametrize("atoms", [bulk(), molecule()], ids=["bulk", "molecule"])
def test_velocities_of_a_temperature(propagator64: Path, atoms: Atoms) -> None:
    made = context_of(propagator64, atoms)
    masses = masses_of(made)
    degrees = 3 * len(atoms) - (3 if atoms.pbc.all() else 6)
    for kelvin, seed in ((300, 1), (300, 2), (20, 1)):
        made.setVelocitiesToTemperature(kelvin, seed)
        now = moving(made)
        assert temperature(now.velocities, masses, degrees) == pytest.approx(kelvin, rel=1e-12)
        assert np.abs((masses * now.velocities).sum(0)).max() < 1e-14 * np.abs(masses * now.velocities).sum()
        if not atoms.pbc.all():
            assert np.abs(angular_momentum(now, masses)).max() < 1e-12
    made.setVelocitiesToTemperature(0)
    assert not moving(made).velocities.any()
    kinetic = made.getState(energy=True).getKineticEnergy()
    assert kinetic == 0 * unit.kilojoule_per_mole


@pytest.mark.parametrize("thermostat", ["csvr", "langevin", "langevin+csvr"])
@pytest.mark.parametrize("open_system", [True, False])
def test_thermostats_sample_the_canonical_kinetic_energy(free: Path, thermostat: str, open_system: bool) -> None:
    """Free flight exchanges no energy, so the thermostat alone decides: K of n degrees of freedom is Gamma-distributed with mean
    n kT/2 and relative variance 2/n; with tau of one stride, samples are correlated over less than 2 strides."""
    atoms = molecule() if open_system else bulk()
    atoms = atoms[:8]
    made = context_of(free, atoms, thermostat=thermostat, tau=0.004, temperature=500, seed=11)
    integrator, masses = made.getIntegrator(), masses_of(made)
    degrees = 24 - (6 if open_system else 3)
    found, per_atom = [], []
    for _ in range(4000):
        integrator.step(1)
        # OpenMM's positions of free flight run away; neighbours do not matter here
        velocities = moving(made).velocities
        found.append(temperature(velocities, masses, degrees))
        per_atom.append((masses * velocities**2).sum(1))
    found = np.array(found)
    independent = len(found) / 3  # 1 + 2 sum exp(-k) = 2.2 for csvr
    error = 500 * np.sqrt(2 / degrees / independent)
    assert abs(found[100:].mean() - 500) < 4 * error
    relative = found[100:].var() / 500**2
    assert relative == pytest.approx(2 / degrees, rel=4 * np.sqrt(2 / independent) + 0.1)
    if (
        thermostat == "langevin" and not open_system
    ):  # equipartition: heavier atoms share in the momentum that is taken out
        share = 1 - (masses / masses.sum()).ravel()
        expected = share / share.sum()
        shares = np.mean(per_atom, axis=0) / np.mean(per_atom, axis=0).sum()
        np.testing.assert_allclose(shares, expected, rtol=0.08)


def test_settings_of_the_thermostat(propagator64: Path) -> None:
    atoms = bulk()
    topology, _ = topology_from_ase(atoms)
    integrator = TrajCastIntegrator(propagator64, topology)
    assert integrator.getThermostat() == "langevin+csvr"
    assert integrator.getTemperature() == 300 * unit.kelvin
    assert integrator.getTau().value_in_unit(unit.femtosecond) == pytest.approx(0.5 * STRIDE)
    assert integrator.getFriction().value_in_unit(unit.femtosecond**-1) == pytest.approx(1 / (15 * STRIDE))
    integrator.setFriction(4)
    integrator.setTau(0.2)
    copy = TrajCastIntegrator.cast(openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(integrator)))
    assert (copy.getFriction()._value, copy.getTau()._value) == (pytest.approx(4), pytest.approx(0.2))
    warm = 350 * unit.kelvin
    langevin = TrajCastIntegrator(
        propagator64, topology, temperature=warm, thermostat="langevin", friction=10 / unit.picosecond, seed=4
    )
    assert langevin.getTau().value_in_unit(unit.femtosecond) == pytest.approx(100)
    assert langevin.getFriction().value_in_unit(unit.picosecond**-1) == pytest.approx(10)
    langevin.setTemperature(20)
    langevin.setTau(50 * unit.femtosecond)
    assert (langevin.getTemperature()._value, langevin.getRandomNumberSeed()) == (20, 4)
    assert langevin.getFriction()._value == pytest.approx(20)


def test_seeds(propagator64: Path) -> None:
    ends = []
    for seed in (7, 7, 8, 0, 0):
        made = context_of(propagator64, bulk(), seed=seed)
        made.getIntegrator().step(3)
        ends.append(moving(made).velocities)
    assert np.array_equal(ends[0], ends[1])
    assert not any(np.array_equal(ends[i], ends[j]) for i, j in ((1, 2), (2, 3), (3, 4)))


@pytest.mark.parametrize("thermostat", [None, "csvr", "langevin", "langevin+csvr"])
def test_resuming_repeats_every_bit(propagator32: Path, thermostat: str | None) -> None:
    made = context_of(propagator32, bulk(), thermostat=thermostat, seed=5)
    made.getIntegrator().step(7)
    checkpoint = made.createCheckpoint()
    state = made.getState(positions=True, velocities=True, integratorParameters=True)
    made.getIntegrator().step(13)
    again = context_of(propagator32, bulk(), thermostat=thermostat, seed=99)
    again.loadCheckpoint(checkpoint)
    again.getIntegrator().step(13)
    assert same_bits(made, again)
    third = context_of(propagator32, bulk(), thermostat=thermostat, seed=99)
    third.setState(openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(state)))
    third.getIntegrator().step(13)
    assert same_bits(made, third)
    made.reinitialize(preserveState=True)
    made.getIntegrator().step(2)
    again.getIntegrator().step(2)
    assert same_bits(made, again)


SCRIPT = """
import os, signal, sys
sys.path[:0] = {paths!r}
from propagated import bulk, simulation_of
simulation = simulation_of({artifact!r}, bulk(), thermostat="langevin", seed=5)
for k in range(4):
    simulation.step(5)
    simulation.saveCheckpoint({checkpoint!r})
    if k == 2:
        simulation.step(2)
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_run_goes_on(propagator32: Path, tmp_path: Path) -> None:
    """Killed after 17 strides, with a checkpoint at 15, it ends at 20 as an unbroken run does."""
    checkpoint = tmp_path / "run.chk"
    here = Path(__file__).resolve().parent
    script = SCRIPT.format(paths=[str(here), str(here.parent)], artifact=str(propagator32), checkpoint=str(checkpoint))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == -9, done.stderr
    resumed = simulation_of(propagator32, bulk(), thermostat="langevin", seed=1)
    resumed.loadCheckpoint(str(checkpoint))
    assert resumed.currentStep == 15
    resumed.step(5)
    whole = simulation_of(propagator32, bulk(), thermostat="langevin", seed=5)
    whole.step(20)
    assert same_bits(resumed.context, whole.context)


def test_xml_and_copies(propagator64: Path) -> None:
    atoms = bulk()
    topology, positions = topology_from_ase(atoms)
    original = TrajCastIntegrator(
        propagator64, topology, thermostat="langevin", friction=7, temperature=250, seed=6, ignore_forces=True
    )
    text = openmm.XmlSerializer.serialize(original)
    copies = [
        TrajCastIntegrator.cast(openmm.XmlSerializer.deserialize(text)),
        copy.deepcopy(original),
        copy.copy(original),
    ]
    ends = []
    for integrator in [original, *copies]:
        assert TrajCastIntegrator.isinstance(integrator)
        assert integrator.getElements() == atoms.get_chemical_symbols()
        assert integrator.getThermostat() == "langevin"
        assert integrator.getFriction()._value == pytest.approx(7)
        assert integrator.getTemperature()._value == 250
        assert integrator.getIntegrationForceGroups() == 0
        assert integrator.usesPeriodicBoundaryConditions()
        assert integrator.getFile() == str(propagator64)
        made = openmm.Context(
            create_system(propagator64, topology), integrator, openmm.Platform.getPlatformByName("Reference")
        )
        made.setPositions(positions)
        made.setVelocitiesToTemperature(250, 1)
        made.getIntegrator().step(3)
        ends.append(moving(made).positions)
    assert all(np.array_equal(ends[0], end) for end in ends[1:])


def test_simulation_with_reporters(propagator64: Path, tmp_path: Path) -> None:
    simulation = simulation_of(propagator64, bulk(), temperature=300, seed=2)
    log = tmp_path / "log.csv"
    simulation.reporters += [
        app.StateDataReporter(
            str(log), 5, step=True, time=True, kineticEnergy=True, temperature=True, volume=True, speed=True
        ),
        app.DCDReporter(str(tmp_path / "run.dcd"), 5),
        app.CheckpointReporter(str(tmp_path / "run.chk"), 10),
    ]
    simulation.step(20)
    rows = [row.split(",") for row in log.read_text().splitlines()[1:]]
    assert [int(row[0]) for row in rows] == [5, 10, 15, 20]
    assert float(rows[-1][1]) == pytest.approx(20 * STRIDE / 1000)
    state = simulation.context.getState(velocities=True, energy=True)
    masses = masses_of(simulation.context)
    # the reporter counts 3N - 3 degrees of freedom, as the System has a CMMotionRemover
    kelvin = temperature(state.getVelocities(asNumpy=True)._value / 100, masses, 3 * 27 - 3)
    assert float(rows[-1][3]) == pytest.approx(kelvin, rel=1e-5)
    assert (tmp_path / "run.dcd").stat().st_size > 4 * 27 * 12
    simulation.saveState(str(tmp_path / "state.xml"))
    other = simulation_of(propagator64, bulk(), temperature=300, seed=3)
    other.loadState(str(tmp_path / "state.xml"))
    for run in (simulation, other):
        run.step(3)
    assert same_bits(simulation.context, other.context)


def test_compound_integrator(propagator64: Path, random_artifact64: Path) -> None:
    """Strides of the network between steps of Verlet under a potential; in the System the force acts for Verlet alone."""
    atoms = bulk()
    topology, positions = topology_from_ase(atoms)
    both = openmm.CompoundIntegrator()
    both.addIntegrator(openmm.VerletIntegrator(0.0005))
    both.addIntegrator(TrajCastIntegrator(propagator64, topology, seed=1, ignore_forces=True))
    system = create_system(random_artifact64, topology, backend="plugin")
    made = openmm.Context(system, both, openmm.Platform.getPlatformByName("Reference"))
    made.setPositions(positions)
    made.setVelocitiesToTemperature(100, 1)
    both.step(2)
    both.setCurrentIntegrator(1)
    assert both.getStepSize()._value == pytest.approx(STRIDE / 1000)
    checkpoint = made.createCheckpoint()
    both.step(3)
    assert made.getStepCount() == 5
    assert made.getState().getTime()._value == pytest.approx(0.001 + 3 * STRIDE / 1000)
    end = made.getState(positions=True).getPositions(asNumpy=True)._value
    made.loadCheckpoint(checkpoint)
    both.step(3)
    assert np.array_equal(made.getState(positions=True).getPositions(asNumpy=True)._value, end)
    assert TrajCastIntegrator.isinstance(both.getIntegrator(1))
    assert not TrajCastIntegrator.isinstance(both.getIntegrator(0))


def test_elements_from_masses(propagator64: Path) -> None:
    """Without a topology the masses of the System tell elements."""
    atoms = bulk()
    topology, positions = topology_from_ase(atoms)
    ends = []
    for integrator in (
        TrajCastIntegrator(propagator64, topology, thermostat=None),
        TrajCastIntegrator(propagator64, periodic=True, thermostat=None),
    ):
        made = openmm.Context(
            create_system(propagator64, topology), integrator, openmm.Platform.getPlatformByName("Reference")
        )
        made.setPositions(positions)
        made.setVelocitiesToTemperature(300, 5)
        integrator.step(3)
        ends.append(moving(made).positions)
    assert np.array_equal(*ends)


@pytest.mark.parametrize("name", ["quartz", "benzene"])
def test_upstream_weights(name: str, shared_data: Path, tmp_path: Path) -> None:
    """The published networks: five strides in OpenMM are those of Python."""
    arrays = dict(np.load(shared_data / "trajcast" / f"eff_{name}_small.npz"))
    numbers = sorted({int(z) for z in arrays["numbers"]})
    mapper = {z: i for i, z in enumerate(numbers)}
    settings = {"model": json.loads(str(arrays["config"])), "data": {"atom_type_mapper": mapper}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    torch.save({k[3:]: torch.from_numpy(v) for k, v in arrays.items() if k.startswith("sd/")}, tmp_path / "state.pt")
    path = tmp_path / "upstream.pt"
    import_trajcast(tmp_path / "config.yaml", tmp_path / "state.pt", path, stride_fs=7.0, dtype="float64")
    periodic = name == "quartz"
    cell = reduced_cell(arrays["cell"].reshape(3, 3)) if periodic else None
    atoms = Atoms(arrays["numbers"], positions=arrays["positions"], cell=cell, pbc=periodic)
    topology, _ = topology_from_ase(atoms)
    system = create_system(path, topology, remove_cm_motion=False)
    made = context_of(path, atoms, system=system, thermostat=None)
    made.setVelocities(arrays["velocities"] * 100)
    start = moving(made)
    x, v = strides_in_python(path, atoms, start, 5)
    made.getIntegrator().step(5)
    np.testing.assert_allclose(moving(made).positions, x, atol=1e-10, rtol=0)
    np.testing.assert_allclose(moving(made).velocities, v, atol=1e-12, rtol=0)
