"""Whole simulations: reporters, minimiser, barostat, resuming, memory and threads."""

from __future__ import annotations

import gc
import threading
from pathlib import Path

import numpy as np
import openmm
import psutil
import pytest
import torch
from openmm import app, unit
from openmm_systems import Structure, context, energy_forces

from equistride.engines.openmm import create_system

INTEGRATORS = {
    "verlet": lambda: openmm.VerletIntegrator(0.0005),
    "langevin": lambda: openmm.LangevinMiddleIntegrator(300, 1.0, 0.0005),
}


def integrator_of(name: str, seed: int = 42) -> openmm.Integrator:
    """An integrator with a fixed seed."""
    made = INTEGRATORS[name]()
    if name == "langevin":
        made.setRandomNumberSeed(seed)
    return made


def relaxed(file: Path, structure: Structure) -> np.ndarray:
    """Positions near a minimum [A]."""
    made = context(create_system(file, structure.topology, backend="plugin"), structure.positions)
    openmm.LocalEnergyMinimizer.minimize(made, 1.0, 500)
    return made.getState(positions=True).getPositions(asNumpy=True)._value * 10


def simulation_of(
    file: Path, structure: Structure, name: str = "langevin", platform: str = "Reference"
) -> app.Simulation:
    """A Simulation at 300 K from a minimum."""
    system = create_system(file, structure.topology, backend="plugin")
    made = app.Simulation(structure.topology, system, integrator_of(name), openmm.Platform.getPlatformByName(platform))
    made.context.setPositions(relaxed(file, structure) / 10)
    made.context.setVelocitiesToTemperature(300, 5)
    return made


@pytest.mark.parametrize("platform", ["Reference", "CPU"])
def test_reporters(artifact64: Path, crystal: Structure, tmp_path: Path, platform: str) -> None:
    simulation = simulation_of(artifact64, crystal, platform=platform)
    table = tmp_path / "log.csv"
    simulation.reporters += [
        app.StateDataReporter(
            str(table), 10, step=True, potentialEnergy=True, temperature=True, volume=True, speed=True
        ),
        app.DCDReporter(str(tmp_path / "run.dcd"), 10),
        app.CheckpointReporter(str(tmp_path / "run.chk"), 20),
    ]
    simulation.step(40)
    rows = table.read_text().splitlines()
    assert len(rows) == 5
    assert all(np.isfinite(float(value)) for value in rows[-1].split(",")[:4])
    assert (tmp_path / "run.dcd").stat().st_size > 4 * 30 * 3 * 4
    assert (tmp_path / "run.chk").stat().st_size > 0


def test_energy_is_conserved(artifact64: Path, crystal: Structure) -> None:
    # The toy is C^2 at its cutoff. Verlet's energy error at 0.5 fs is of the order (omega dt)^2 / 24 of the
    # kinetic energy, some percent for the fastest modes; a wrong force would drift by many times the kinetic
    # energy.
    simulation = simulation_of(artifact64, crystal, "verlet")
    energies, kinetic = [], []
    for _ in range(20):
        simulation.step(20)
        state = simulation.context.getState(energy=True)
        energies.append((state.getPotentialEnergy() + state.getKineticEnergy())._value)
        kinetic.append(state.getKineticEnergy()._value)
    assert np.ptp(energies) < 0.05 * np.mean(kinetic)


def test_minimizer(artifact64: Path, molecule: Structure) -> None:
    made = context(create_system(artifact64, molecule.topology, backend="plugin"), molecule.positions)
    before, _ = energy_forces(made)
    openmm.LocalEnergyMinimizer.minimize(made, 0.5, 2000)
    after, forces = energy_forces(made)
    assert after < before
    assert np.sqrt((forces**2).mean()) < 5.0

    class Reporter(openmm.MinimizationReporter):
        calls = 0

        def report(self, iteration, x, grad, args):
            self.calls += 1
            return self.calls >= 5

    # With a reporter OpenMM holds the GIL while it evaluates; autograd would refuse to run.
    made.setPositions(molecule.positions / 10)
    reporter = Reporter()
    openmm.LocalEnergyMinimizer.minimize(made, 0.5, 50, reporter)
    assert reporter.calls >= 5
    assert energy_forces(made)[0] < before


def test_barostat_changes_the_volume(artifact64: Path, crystal: Structure) -> None:
    system = create_system(artifact64, crystal.topology, backend="plugin")
    barostat = openmm.MonteCarloBarostat(1.0, 300, 2)
    barostat.setRandomNumberSeed(3)
    system.addForce(barostat)
    made = context(system, relaxed(artifact64, crystal), integrator=integrator_of("langevin"))
    made.setVelocitiesToTemperature(300, 1)
    before = made.getState().getPeriodicBoxVolume()._value
    made.getIntegrator().step(100)
    state = made.getState(positions=True, energy=True)
    assert state.getPeriodicBoxVolume()._value != before
    # The energy is that of the new box: a fresh Context at this state agrees.
    fresh = context(create_system(artifact64, crystal.topology, backend="plugin"), crystal.positions)
    fresh.setPeriodicBoxVectors(*state.getPeriodicBoxVectors())
    fresh.setPositions(state.getPositions())
    assert energy_forces(fresh)[0] == pytest.approx(state.getPotentialEnergy()._value, rel=1e-9)


@pytest.mark.parametrize("name", ["verlet", "langevin"])
@pytest.mark.parametrize("backend", ["plugin", "python"])
def test_resuming_repeats_every_bit(artifact64: Path, crystal: Structure, name: str, backend: str) -> None:
    start = relaxed(artifact64, crystal)
    system = create_system(artifact64, crystal.topology, backend=backend)
    made = context(system, start, integrator=integrator_of(name))
    made.setVelocitiesToTemperature(300, 9)
    made.getIntegrator().step(50)
    checkpoint = made.createCheckpoint()
    made.getIntegrator().step(100)
    expected = made.getState(positions=True, velocities=True)

    text = openmm.XmlSerializer.serialize(system)
    again = context(openmm.XmlSerializer.deserialize(text), start, integrator=integrator_of(name, seed=7))
    again.loadCheckpoint(checkpoint)
    again.getIntegrator().step(100)
    found = again.getState(positions=True, velocities=True)
    assert (found.getPositions(asNumpy=True)._value == expected.getPositions(asNumpy=True)._value).all()
    assert (found.getVelocities(asNumpy=True)._value == expected.getVelocities(asNumpy=True)._value).all()


def test_memory_stays(artifact64: Path, crystal: Structure) -> None:
    # Edges change at every call; neither graphs nor plans may pile up. 2,000 calls that kept 4 kB each would
    # show.
    made = context(create_system(artifact64, crystal.topology, backend="plugin"), crystal.positions)
    random = np.random.default_rng(0)
    process = psutil.Process()

    def call(times: int) -> None:
        for _ in range(times):
            made.setPositions((crystal.positions + random.normal(0, 0.05, crystal.positions.shape)) / 10)
            energy_forces(made)

    call(300)
    gc.collect()
    before = process.memory_info().rss
    call(2000)
    gc.collect()
    assert process.memory_info().rss - before < 8 * 2**20


def test_time_of_a_call_is_flat(artifact64: Path, molecule: Structure) -> None:
    # TorchScript's profiling executor would compile anew for new numbers of edges: hundreds of times a call's
    # cost.
    from time import process_time

    def run() -> list[float]:
        made = context(create_system(artifact64, molecule.topology, backend="plugin"), molecule.positions)
        times = []
        for scale in np.linspace(1.0, 3.0, 200):  # fewer and fewer edges, down to none
            made.setPositions(molecule.positions * scale / 10)
            begin = process_time()
            energy_forces(made)
            times.append(process_time() - begin)
        return times

    # a model that compiles does so at the same sizes in every run; what else the machine does comes at any time
    times = np.min([run() for _ in range(3)], axis=0)
    assert max(times[1:]) < 20 * np.median(times) + 0.01


def test_two_contexts_in_two_threads(artifact64: Path, crystal: Structure, molecule: Structure) -> None:
    expected, found = {}, {}
    contexts = {
        name: context(create_system(artifact64, s.topology, backend="plugin"), s.positions, "CPU")
        for name, s in (("crystal", crystal), ("molecule", molecule))
    }
    for name, made in contexts.items():
        expected[name] = energy_forces(made)

    def work(name: str) -> None:
        found[name] = [energy_forces(contexts[name]) for _ in range(50)]

    threads = [threading.Thread(target=work, args=(name,)) for name in contexts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    for name, results in found.items():
        assert len(results) == 50
        for energy, forces in results:
            assert energy == expected[name][0]
            assert (forces == expected[name][1]).all()
    assert set(found) == set(contexts)


def test_units_of_the_topology_box(artifact64: Path, crystal: Structure) -> None:
    system = create_system(artifact64, crystal.topology, backend="plugin")
    box = system.getDefaultPeriodicBoxVectors()
    np.testing.assert_allclose([list(row.value_in_unit(unit.angstrom)) for row in box], crystal.box, atol=1e-12)
    masses = [system.getParticleMass(i)._value for i in range(30)]
    assert masses == [atom.element.mass._value for atom in crystal.topology.atoms()]
    assert any(isinstance(force, openmm.CMMotionRemover) for force in system.getForces())


@pytest.mark.parametrize("backend", ["plugin", "python"])
def test_callers_without_gradients(artifact64: Path, crystal: Structure, backend: str) -> None:
    # The model differentiates inside, whatever the script around it has switched off.
    made = context(create_system(artifact64, crystal.topology, backend=backend), crystal.positions)
    expected = energy_forces(made)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            found = energy_forces(made)
            fresh = context(create_system(artifact64, crystal.topology, backend=backend), crystal.positions)
            assert energy_forces(fresh)[0] == expected[0]
        assert found[0] == expected[0]
        assert (found[1] == expected[1]).all()


def test_reinitialized_and_second_contexts(artifact64: Path, crystal: Structure) -> None:
    system = create_system(artifact64, crystal.topology, backend="plugin")
    first, second = (context(system, crystal.positions) for _ in range(2))
    expected = energy_forces(first)
    first.reinitialize(preserveState=True)
    assert energy_forces(first)[0] == expected[0]
    del first
    gc.collect()
    assert energy_forces(second)[0] == expected[0]
