"""The guard: what it sees, what each mode does to a bad stride, energy without drift, counts, reporter, checkpoints."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import openmm
import pytest
import toy_propagator
from ase import Atoms
from openmm import app
from openmm_systems import Structure
from propagated import Array, Moving, bulk, context_of, masses_of, moving, same_bits, simulation_of
from toy_propagator import MAX_SPEED, STRIDE

from equistride import artifact
from equistride.engines.openmm import Guard, GuardReporter, TrajCastIntegrator, create_force
from equistride.units import ACCELERATION, EV_PER_KINETIC

SPOILT = 1.03
"""Factor on the velocities after each stride of the spoilt propagator: 6 % of the kinetic energy."""


@pytest.fixture(scope="module")
def potential(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_propagator.write_potential(tmp_path_factory.mktemp("toy") / "potential.pt")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_propagator.write_propagator(tmp_path_factory.mktemp("toy") / "good.pt")


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_propagator.write_propagator(tmp_path_factory.mktemp("toy") / "spoilt.pt", factor=SPOILT)


@pytest.fixture(scope="module")
def bound_atoms(potential: Path) -> Atoms:
    """Eight atoms near a minimum of the toy potential."""
    structure = Structure(8, None)
    system = openmm.System()
    for atom in structure.topology.atoms():
        system.addParticle(atom.element.mass)
    system.addForce(create_force(potential, structure.topology, backend="plugin"))
    made = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    made.setPositions(structure.positions / 10)
    openmm.LocalEnergyMinimizer.minimize(made, 0.1)
    return Atoms(structure.symbols, positions=made.getState(positions=True).getPositions(asNumpy=True)._value * 10)


class Reference:
    """Energies and velocity Verlet in NumPy, from the artifact in Python."""

    def __init__(self, potential: Path, atoms: Atoms, masses: Array) -> None:
        self.model, self.masses = artifact.load(potential), masses
        self.species = self.model.species_index(atoms.get_chemical_symbols())

    def forces(self, positions: Array) -> Array:
        return self.model.compute(positions, self.species).forces.numpy()

    def energy(self, now: Moving) -> float:
        static = float(self.model.compute(now.positions, self.species).atomic_energies.sum())
        return static + 0.5 * EV_PER_KINETIC * float((self.masses * now.velocities**2).sum())

    def verlet(self, start: Moving, steps: int) -> tuple[Array, Array]:
        h, x, v = STRIDE / steps, start.positions, start.velocities
        for _ in range(steps):
            v = v + 0.5 * h * ACCELERATION * self.forces(x) / self.masses
            x = x + h * v
            v = v + 0.5 * h * ACCELERATION * self.forces(x) / self.masses
        return x, v


def test_a_good_propagator_is_left_alone(good: Path, potential: Path, bound_atoms: Atoms) -> None:
    plain = context_of(good, bound_atoms, thermostat="csvr", seed=2)
    watched = context_of(good, bound_atoms, thermostat="csvr", seed=2, guard=Guard(potential, every=2, bound=1.0))
    for made in (plain, watched):
        made.getIntegrator().step(40)
    assert same_bits(plain, watched)
    found = watched.getIntegrator().getGuardStatistics()
    assert (found.strides, found.checks, found.violations, found.rejected, found.refused) == (40, 20, 0, 0, 0)
    # Verlet's energy error at 0.5 fs; the thermostat's work, tens of meV/atom, is not in it
    assert 0 < found.rms_change <= found.largest_change < 0.5
    assert found.evaluations == 40


def test_the_change_of_energy_is_that_of_the_stride(spoilt: Path, potential: Path, bound_atoms: Atoms) -> None:
    made = context_of(spoilt, bound_atoms, thermostat=None, guard=Guard(potential, every=1, bound=math.inf))
    reference = Reference(potential, bound_atoms, masses_of(made))
    energies = [reference.energy(moving(made))]
    for _ in range(5):
        made.getIntegrator().step(1)
        energies.append(reference.energy(moving(made)))
    changes = 1000 * np.diff(energies) / len(bound_atoms)
    found = made.getIntegrator().getGuardStatistics()
    assert found.mean_change == pytest.approx(changes.mean(), rel=1e-9)
    assert found.rms_change == pytest.approx(np.sqrt((changes**2).mean()), rel=1e-9)
    assert found.largest_change == pytest.approx(np.abs(changes).max(), rel=1e-9)
    assert found.violations == 0
    assert found.evaluations == 6  # the energy after one stride is that before the next


def test_energies_of_a_network(random_artifact64: Path, propagator64: Path) -> None:
    """The guard asks eSEN for energies without forces; they are those of a full evaluation."""
    made = context_of(propagator64, bulk(), thermostat=None, guard=Guard(random_artifact64, every=1, bound=math.inf))
    model = artifact.load(random_artifact64)
    species, masses = model.species_index(bulk().get_chemical_symbols()), masses_of(made)
    energies = []
    for step in range(3):
        made.getIntegrator().step(step > 0)
        now = moving(made)
        static = model.compute(now.positions, species, now.box, True).atomic_energies.sum()
        energies.append(float(static) + 0.5 * EV_PER_KINETIC * float((masses * now.velocities**2).sum()))
    found = made.getIntegrator().getGuardStatistics()
    assert found.mean_change == pytest.approx(1000 * np.diff(energies).mean() / 27, rel=1e-8)


def test_correct_restores_the_energy(spoilt: Path, potential: Path, bound_atoms: Atoms) -> None:
    made = context_of(spoilt, bound_atoms, thermostat=None, guard=Guard(potential, every=1, bound=0.1))
    masses = masses_of(made)
    reference = Reference(potential, bound_atoms, masses)
    before, free = reference.energy(moving(made)), context_of(spoilt, bound_atoms, thermostat=None)
    for run in (made, free):
        run.getIntegrator().step(1)
    assert abs(reference.energy(moving(free)) - before) > 1e-3
    assert reference.energy(moving(made)) == pytest.approx(before, abs=1e-9)
    # positions are the network's, velocities a multiple of its velocities
    assert np.array_equal(moving(made).positions, moving(free).positions)
    ratio = moving(made).velocities / moving(free).velocities
    assert np.ptp(ratio) < 1e-9
    assert ratio.mean() < 1
    found = made.getIntegrator().getGuardStatistics()
    assert (found.violations, found.corrected, found.rejected) == (1, 1, 0)


def test_reject_is_velocity_verlet(spoilt: Path, potential: Path, bound_atoms: Atoms) -> None:
    guard = Guard(potential, every=1, bound=0.1, mode="reject", substep=0.5)
    made = context_of(spoilt, bound_atoms, thermostat=None, guard=guard)
    start = moving(made)
    x, v = Reference(potential, bound_atoms, masses_of(made)).verlet(start, 8)
    made.getIntegrator().step(1)
    np.testing.assert_allclose(moving(made).positions, x, atol=1e-12)
    np.testing.assert_allclose(moving(made).velocities, v, atol=1e-14)
    found = made.getIntegrator().getGuardStatistics()
    assert (found.violations, found.corrected, found.rejected) == (1, 0, 1)


def test_midpoint_solves_its_equation_and_is_reversible(spoilt: Path, potential: Path, bound_atoms: Atoms) -> None:
    guard = Guard(potential, every=1, bound=0.0, mode="midpoint")
    made = context_of(spoilt, bound_atoms, thermostat=None, guard=guard)
    masses = masses_of(made)
    reference = Reference(potential, bound_atoms, masses)
    start, energy = moving(made), reference.energy(moving(made))
    made.getIntegrator().step(1)
    end = moving(made)
    acceleration = ACCELERATION * reference.forces(0.5 * (start.positions + end.positions)) / masses
    np.testing.assert_allclose(end.velocities - start.velocities, STRIDE * acceleration, atol=1e-10)
    middle = 0.5 * (start.velocities + end.velocities)
    np.testing.assert_allclose(end.positions - start.positions, STRIDE * middle, atol=1e-10)
    made.getIntegrator().step(19)
    found = made.getIntegrator().getGuardStatistics()
    assert (found.corrected, found.rejected) == (20, 0)
    # symplectic: the energy swings, by less than a fifth of the kinetic energy here, and does not run away
    assert (
        abs(reference.energy(moving(made)) - energy) < 0.2 * 0.5 * EV_PER_KINETIC * (masses * start.velocities**2).sum()
    )
    made.setVelocities(-moving(made).velocities * 100)
    made.getIntegrator().step(20)
    np.testing.assert_allclose(moving(made).positions, start.positions, atol=1e-7)  # 40 solves to 1e-10 A
    np.testing.assert_allclose(-moving(made).velocities, start.velocities, atol=1e-8)


def test_rescaling_stops_the_drift(spoilt: Path, potential: Path, bound_atoms: Atoms) -> None:
    """Without a thermostat the energy of the start is kept; the guard looks at every fifth stride."""
    guard = Guard(potential, every=5, bound=math.inf, rescale=True)
    watched, free = (context_of(spoilt, bound_atoms, thermostat=None, guard=g) for g in (guard, None))
    reference = Reference(potential, bound_atoms, masses_of(watched))
    start = reference.energy(moving(watched))
    for made in (watched, free):
        made.getIntegrator().step(26)  # the last stride is a checked one
    assert reference.energy(moving(free)) - start > 0.1
    assert reference.energy(moving(watched)) == pytest.approx(start, abs=1e-9)
    found = watched.getIntegrator().getGuardStatistics()
    assert found.checks == 6
    assert found.evaluations == 7  # one a check, and one for the energy of the start
    # velocities set from outside make a new start
    watched.setVelocities(moving(watched).velocities * 50)
    hotter = reference.energy(moving(watched))
    watched.getIntegrator().step(5)
    assert reference.energy(moving(watched)) == pytest.approx(hotter, abs=1e-9)


def test_between_checks_the_network_gets_back_what_it_takes(spoilt: Path, potential: Path, bound_atoms: Atoms) -> None:
    """Each stride of the spoilt network adds 6 % to the kinetic energy; after some checks the guard takes that out at each
    stride, not at every tenth alone."""
    guard = Guard(potential, every=10, bound=math.inf, rescale=True)
    made = context_of(spoilt, bound_atoms, thermostat=None, guard=guard)
    reference = Reference(potential, bound_atoms, masses_of(made))
    start, gathered = reference.energy(moving(made)), []
    made.getIntegrator().step(1)  # the first stride is a checked one
    for _ in range(25):
        made.getIntegrator().step(9)
        gathered.append(reference.energy(moving(made)) - start)
        made.getIntegrator().step(1)
    assert gathered[0] > 0.05
    # what a stride of the network adds is told as it was before
    first, later = (context_of(spoilt, bound_atoms, thermostat=None, guard=guard) for _ in range(2))
    first.getIntegrator().step(11)
    later.getIntegrator().step(241)
    means = [c.getIntegrator().getGuardStatistics().mean_change for c in (first, later)]
    assert means[1] > 0.3 * means[0] > 0
    assert abs(np.mean(gathered[-10:])) < 0.1 * gathered[0]


def test_a_stride_that_the_network_refuses(good: Path, potential: Path, bound_atoms: Atoms) -> None:
    """An atom beyond the network's top speed: the potential takes over, and the run goes on."""
    made = context_of(good, bound_atoms, thermostat=None, guard=Guard(potential, every=100, substep=0.25))
    start = moving(made)
    velocities = start.velocities.copy()
    lightest = int(np.argmin(masses_of(made)))
    velocities[lightest] *= 1.2 * MAX_SPEED / np.linalg.norm(velocities[lightest])
    made.setVelocities(velocities * 100)
    start = moving(made)
    reference = Reference(potential, bound_atoms, masses_of(made))
    made.getIntegrator().step(3)
    found = made.getIntegrator().getGuardStatistics()
    assert found.refused >= 1
    assert found.strides == 3
    error = reference.energy(moving(made)) - reference.energy(start)
    assert abs(error) < 0.05  # of 3 eV of that atom alone
    lost = start.positions.copy()
    lost[2, 0] = np.nan
    made.setPositions(lost / 10)
    with pytest.raises(openmm.OpenMMException, match=r"position of atom 2 is not finite"):
        made.getIntegrator().step(1)


def test_momentum_is_kept_by_every_mode(spoilt: Path, potential: Path, bound_atoms: Atoms) -> None:
    for mode in ("correct", "reject", "midpoint"):
        guard = Guard(potential, every=1, bound=0.1, mode=mode, rescale=mode == "reject")
        made = context_of(spoilt, bound_atoms, thermostat=None, guard=guard)
        masses = masses_of(made)
        made.getIntegrator().step(5)
        p = (masses * moving(made).velocities).sum(0)
        assert np.abs(p).max() < 1e-12 * np.abs(masses * moving(made).velocities).sum()
        assert made.getIntegrator().getGuardStatistics().violations >= 1


@pytest.mark.parametrize("thermostat", [None, "csvr"])
def test_resuming_repeats_every_bit(spoilt: Path, potential: Path, bound_atoms: Atoms, thermostat: str | None) -> None:
    """With the energy of the start and the counts."""
    guard = Guard(potential, every=3, bound=0.1, rescale=True)
    made = context_of(spoilt, bound_atoms, thermostat=thermostat, seed=4, guard=guard)
    made.getIntegrator().step(8)
    checkpoint = made.createCheckpoint()
    state = made.getState(positions=True, velocities=True, integratorParameters=True)
    made.getIntegrator().step(10)
    for load in (lambda c: c.loadCheckpoint(checkpoint), lambda c: c.setState(state)):
        again = context_of(spoilt, bound_atoms, thermostat=thermostat, seed=9, guard=guard)
        load(again)
        again.getIntegrator().step(10)
        assert same_bits(made, again)
        mine, theirs = (c.getIntegrator().getGuardStatistics() for c in (made, again))
        assert (mine.checks, mine.violations, mine.corrected) == (theirs.checks, theirs.violations, theirs.corrected)
        assert mine.rms_change == theirs.rms_change


def test_another_integrator_between(spoilt: Path, potential: Path, bound_atoms: Atoms) -> None:
    """In a CompoundIntegrator the energy that is kept is that from which the strides start."""
    from equistride.engines.openmm_structure import topology_from_ase

    topology, positions = topology_from_ase(bound_atoms)
    both = openmm.CompoundIntegrator()
    both.addIntegrator(
        TrajCastIntegrator(
            spoilt, topology, thermostat=None, guard=Guard(potential, every=1, bound=math.inf, rescale=True)
        )
    )
    heating = openmm.CustomIntegrator(0.001)
    heating.addComputePerDof("v", "1.2 * v")
    both.addIntegrator(heating)
    system = openmm.System()
    for mass in (1.008 if s == "H" else 15.999 if s == "O" else 28.085 for s in bound_atoms.get_chemical_symbols()):
        system.addParticle(mass)
    made = openmm.Context(system, both, openmm.Platform.getPlatformByName("Reference"))
    made.setPositions(positions)
    made.setVelocitiesToTemperature(300, 1)
    both.step(2)
    both.setCurrentIntegrator(1)
    both.step(1)
    both.setCurrentIntegrator(0)
    masses = masses_of(made)
    reference = Reference(potential, bound_atoms, masses)

    def energy() -> float:
        state = made.getState(positions=True, velocities=True)
        velocities = state.getVelocities(asNumpy=True)._value / 100
        return reference.energy(Moving(state.getPositions(asNumpy=True)._value * 10, velocities, np.zeros((3, 3)), 0))

    hotter = energy()
    both.step(3)
    assert energy() == pytest.approx(hotter, abs=1e-9)


def test_xml_keeps_the_guard(spoilt: Path, potential: Path, bound_atoms: Atoms) -> None:
    from equistride.engines.openmm_structure import topology_from_ase

    topology, _ = topology_from_ase(bound_atoms)
    for bound in (0.1, math.inf):
        guard = Guard(potential, every=4, bound=bound, mode="reject", substep=2.0)
        text = openmm.XmlSerializer.serialize(TrajCastIntegrator(spoilt, topology, guard=guard))
        assert 'every="4"' in text
        assert ('bound="' in text) == (bound < 1)
        again = openmm.XmlSerializer.serialize(openmm.XmlSerializer.deserialize(text))
        assert again == text


def test_reporter(spoilt: Path, potential: Path, bound_atoms: Atoms, tmp_path: Path) -> None:
    simulation = simulation_of(spoilt, bound_atoms, seed=3, guard=Guard(potential, every=5, bound=0.1))
    log = tmp_path / "guard.csv"
    simulation.reporters += [GuardReporter(log, 10), app.StateDataReporter(str(tmp_path / "log.csv"), 10, step=True)]
    simulation.step(30)
    head, *rows = [row.split(",") for row in log.read_text().splitlines()]
    assert head[:5] == ["#step", "time (ps)", "checks", "violations", "corrected"]
    assert [int(row[0]) for row in rows] == [10, 20, 30]
    assert float(rows[-1][1]) == pytest.approx(30 * STRIDE / 1000)
    found = simulation.integrator.getGuardStatistics()
    assert [int(value) for value in rows[-1][2:7]] == [
        found.checks, found.violations, found.corrected, found.rejected, found.refused,
    ]  # fmt: skip
    assert found.checks == 6
    assert found.violations > 0
    assert float(rows[-1][-1]) == pytest.approx(100 * found.cost, abs=0.06)
    assert found.cost > 0


def test_energy_beyond_mending(potential: Path, bound_atoms: Atoms, tmp_path: Path) -> None:
    """A propagator that heats the atoms by half between two checks: the guard says so, and does not go on in silence."""
    wild = toy_propagator.write_propagator(tmp_path / "wild.pt", factor=1.25)
    guard = Guard(potential, every=9, bound=math.inf, rescale=True)
    made = context_of(wild, bound_atoms, thermostat=None, guard=guard)
    with pytest.raises(
        openmm.OpenMMException, match=r"meV/atom away from that of the start.*look more often \(every\)"
    ):
        made.getIntegrator().step(10)
