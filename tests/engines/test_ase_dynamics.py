"""ASE dynamics under a propagator: the strides of the OpenMM integrator, ASE's logs and trajectories, and refusals."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import toy_propagator
from ase import Atoms, units
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms
from ase.io import read
from propagated import atoms_of, bulk, context_of, moving, temperature
from trajcast_systems import MASSES, STRIDE, cluster, crystal

from equistride.engines.ase_dynamics import TrajCastDynamics
from equistride.engines.guard import Guard
from equistride.errors import EquistrideError


@pytest.fixture
def file(propagator32: Path) -> Path:
    return propagator32


def warm(atoms: Atoms, file: Path, **options: object) -> TrajCastDynamics:
    """Dynamics with masses of the training and 300 K."""
    atoms = atoms.copy()
    atoms.set_masses([MASSES[0] if s == "O" else MASSES[1] for s in atoms.get_chemical_symbols()])
    made = TrajCastDynamics(atoms, file, **options)
    made.set_temperature(300)
    return made


@pytest.mark.parametrize("thermostat", [None, "csvr", "langevin", "langevin+csvr"])
@pytest.mark.parametrize("frame", [crystal(), cluster()], ids=["bulk", "molecule"])
def test_the_same_strides_as_in_openmm(file: Path, frame: object, thermostat: str | None) -> None:
    """20 strides to 1e-10 A; with a thermostat too, since the random numbers are the same."""
    atoms = atoms_of(frame)
    made = context_of(file, atoms, thermostat=thermostat, temperature=250, seed=7)
    start = moving(made)
    dynamics = warm(atoms, file, thermostat=thermostat, temperature_K=250, seed=7)
    if atoms.pbc.any():
        dynamics.atoms.set_cell(start.box)  # OpenMM's reduced form of the same lattice
    dynamics.atoms.positions[:] = start.positions
    dynamics.atoms.set_velocities(start.velocities / units.fs)
    dynamics.run(20)
    made.getIntegrator().step(20)
    end = moving(made)
    np.testing.assert_allclose(dynamics.atoms.positions, end.positions, atol=1e-10, rtol=0)
    np.testing.assert_allclose(dynamics.atoms.get_velocities() * units.fs, end.velocities, atol=1e-12, rtol=0)
    assert np.abs(end.positions - start.positions).max() > 0.05
    assert dynamics.get_time() == pytest.approx(20 * STRIDE * units.fs)


@pytest.mark.parametrize("frame", [crystal(), cluster()], ids=["bulk", "molecule"])
def test_velocities_of_a_temperature(file: Path, frame: object) -> None:
    atoms = warm(atoms_of(frame), file).atoms
    masses = atoms.get_masses()[:, None]
    degrees = 3 * len(atoms) - (3 if atoms.pbc.any() else 6)
    # ASE's constants are those of CODATA 2014
    assert temperature(atoms.get_velocities() * units.fs, masses, degrees) == pytest.approx(300, rel=1e-12)
    thermal = np.abs(atoms.get_momenta()).sum()
    assert np.abs(atoms.get_momenta().sum(0)).max() < 1e-12 * thermal
    if not atoms.pbc.any():
        assert np.abs(atoms.get_angular_momentum()).max() < 1e-12 * thermal


def test_one_periodic_axis(file: Path) -> None:
    """A wire: lattice vectors along its axis change nothing, and momentum is kept."""
    atoms = atoms_of(cluster())
    atoms.set_cell([0, 0, 9.0])
    atoms.pbc = [False, False, True]
    ends = []
    for shift in (0, 2):
        dynamics = warm(atoms, file, thermostat="langevin", seed=3)
        velocities = dynamics.atoms.get_velocities()
        dynamics.atoms.positions[::2, 2] += 9.0 * shift
        dynamics.atoms.set_velocities(velocities)
        dynamics.run(5)
        dynamics.atoms.positions[::2, 2] -= 9.0 * shift
        ends.append(dynamics.atoms)
        assert np.abs(ends[-1].get_momenta().sum(0)).max() < 1e-12 * np.abs(ends[-1].get_momenta()).sum()
    np.testing.assert_allclose(ends[0].positions, ends[1].positions, atol=1e-10)


def test_log_trajectory_and_observers(file: Path, tmp_path: Path) -> None:
    log, trajectory = tmp_path / "md.log", tmp_path / "md.traj"
    seen: list[int] = []
    dynamics = warm(atoms_of(crystal()), file, seed=2, logfile=str(log), trajectory=str(trajectory), loginterval=5)
    dynamics.attach(lambda: seen.append(dynamics.nsteps), interval=10)
    dynamics.run(20)
    rows = [row.split() for row in log.read_text().splitlines()[1:]]
    assert [float(row[0]) for row in rows] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert all(math.isnan(float(row[2])) for row in rows)  # no calculator, no potential energy
    assert float(rows[-1][4]) == pytest.approx(dynamics.atoms.get_temperature(), abs=0.06)
    frames = read(trajectory, ":")
    assert len(frames) == 5
    np.testing.assert_array_equal(frames[-1].positions, dynamics.atoms.positions)
    np.testing.assert_allclose(frames[-1].get_velocities(), dynamics.atoms.get_velocities(), rtol=1e-12)
    assert seen == [0, 10, 20]


def test_log_with_a_calculator(file: Path, tmp_path: Path) -> None:
    log = tmp_path / "md.log"
    dynamics = warm(atoms_of(cluster()), file, logfile=str(log), loginterval=2)
    dynamics.atoms.calc = LennardJones()
    dynamics.run(4)
    rows = [row.split() for row in log.read_text().splitlines()[1:]]
    assert float(rows[-1][2]) == pytest.approx(dynamics.atoms.get_potential_energy(), abs=1e-4)


def test_seeds_and_resuming(file: Path) -> None:
    first, again = (warm(atoms_of(crystal()), file, thermostat="langevin", seed=4) for _ in range(2))
    first.run(4)
    atoms, state = first.atoms.copy(), first.state()
    first.run(6)
    again.run(10)
    assert np.array_equal(first.atoms.positions, again.atoms.positions)
    resumed = TrajCastDynamics(atoms, file, thermostat="langevin", seed=99)
    resumed.set_state(state)
    resumed.run(6)
    assert resumed.nsteps == 10
    assert np.array_equal(resumed.atoms.positions, first.atoms.positions)
    assert np.array_equal(resumed.atoms.get_momenta(), first.atoms.get_momenta())
    assert state["run"].startswith("equistride-run-3 random=")
    with pytest.raises(EquistrideError, match=r"the state is of an older version"):
        resumed.set_state({"nsteps": 4, "run": [12345]})
    with pytest.raises(EquistrideError, match=r"not of this version.*begins with equistride-run-3; found 'other'"):
        resumed.set_state({"nsteps": 4, "run": "other random=1"})
    with pytest.raises(EquistrideError, match=r"it has no random"):
        resumed.set_state({"nsteps": 4, "run": "equistride-run-3"})


def test_guard(tmp_path: Path) -> None:
    """The guard of the OpenMM integrator, with its statistics."""
    potential = toy_propagator.write_potential(tmp_path / "potential.pt")
    spoilt = toy_propagator.write_propagator(tmp_path / "spoilt.pt", factor=1.03)
    atoms = Atoms("OSiOSi", positions=[[0, 0, 0], [2.0, 0, 0], [2.1, 1.9, 0], [0, 2.1, 0.4]])
    atoms.set_masses([15.999, 28.085] * 2)
    guard = Guard(potential, every=1, bound=0.1)
    dynamics = TrajCastDynamics(atoms, spoilt, thermostat=None, seed=3, guard=guard)
    dynamics.set_temperature(300)
    made = context_of(spoilt, atoms, thermostat=None, guard=guard)
    start = moving(made)
    atoms.positions[:] = start.positions
    atoms.set_velocities(start.velocities / units.fs)
    dynamics.run(10)
    made.getIntegrator().step(10)
    np.testing.assert_allclose(atoms.positions, moving(made).positions, atol=1e-9)
    mine, theirs = dynamics.guard_statistics(), made.getIntegrator().getGuardStatistics()
    assert (mine.checks, mine.violations, mine.corrected) == (10, 10, 10)
    assert mine.rms_change == pytest.approx(theirs.rms_change, rel=1e-6)
    with pytest.raises(EquistrideError, match=r"needs the energy of a potential; found a propagator"):
        TrajCastDynamics(atoms, spoilt, guard=Guard(spoilt))
    with pytest.raises(EquistrideError, match=r"no guard at work"):
        TrajCastDynamics(atoms, spoilt).guard_statistics()


def test_refusals(file: Path, crystal_propagator: Path, random_artifact64: Path, tmp_path: Path) -> None:
    atoms = bulk()
    with pytest.raises(EquistrideError, match=r"no atoms"):
        TrajCastDynamics(Atoms(), file)
    with pytest.raises(EquistrideError, match=r"does not know the element C"):
        TrajCastDynamics(Atoms("C", pbc=False), file)
    with pytest.raises(EquistrideError, match=r"expected a propagator; found a potential"):
        TrajCastDynamics(atoms, random_artifact64)
    with pytest.raises(EquistrideError, match=r"does not exist"):
        TrajCastDynamics(atoms, tmp_path / "none.pt")
    with pytest.raises(EquistrideError, match=r"thermostat is not known.*found nose"):
        TrajCastDynamics(atoms, file, thermostat="nose")  # type: ignore[arg-type]
    with pytest.raises(EquistrideError, match=r"temperature of a thermostat makes no sense"):
        TrajCastDynamics(atoms, file, temperature_K=-1)
    held = atoms.copy()
    held.set_constraint(FixAtoms([0]))
    with pytest.raises(EquistrideError, match=r"free atoms.*found FixAtoms"):
        TrajCastDynamics(held, file)
    heavy = atoms.copy()
    heavy.set_masses([17.0] * len(heavy))
    with pytest.raises(EquistrideError, match=r"mass of atom 0 \(O\).*found 17 amu"):
        TrajCastDynamics(heavy, file)
    dynamics = warm(atoms, file, thermostat=None)
    velocities = dynamics.atoms.get_velocities()
    velocities[6] = [0, 0.07 / units.fs, 0]
    dynamics.atoms.set_velocities(velocities)
    with pytest.raises(EquistrideError, match=r"^atom 6 moves at 7000 m/s.*expected below 5000 m/s"):
        dynamics.run(1)
    resting = warm(atoms, file, thermostat="csvr")
    resting.atoms.set_velocities(np.zeros((len(atoms), 3)))
    with pytest.raises(EquistrideError, match=r"atoms are at rest"):
        resting.run(1)
    with pytest.raises(EquistrideError, match=r"periodic systems alone"):
        TrajCastDynamics(atoms_of(cluster()), crystal_propagator)
