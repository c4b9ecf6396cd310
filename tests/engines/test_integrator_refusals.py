"""What the propagating integrator refuses, each with a sentence, when it is made, in a Context and in a run."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openmm
import pytest
import toy_propagator
from ase import Atoms
from openmm import app, unit
from propagated import atoms_of, bulk, context_of, molecule, moving
from trajcast_systems import cluster

from equistride.engines.openmm import Guard, TrajCastIntegrator, create_force, create_system
from equistride.engines.openmm_structure import topology_from_ase
from equistride.engines.openmm_topology import bare_system
from equistride.errors import EquistrideError


@pytest.fixture
def file(propagator64: Path) -> Path:
    return propagator64


def refusal(file: Path, change: Callable[[openmm.System], object], **options: object) -> str:
    """The sentence with which a Context of a changed System fails."""
    topology, _ = topology_from_ase(bulk())
    system = create_system(file, topology)
    change(system)
    integrator = TrajCastIntegrator(file, topology, **options)
    with pytest.raises(openmm.OpenMMException) as caught:
        openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    return str(caught.value)


def test_systems(file: Path) -> None:
    assert "particles 0 and 1 is constrained" in refusal(file, lambda s: s.addConstraint(0, 1, 0.1))
    assert "particle 3 has no mass" in refusal(file, lambda s: s.setParticleMass(3, 0))

    def virtual(system: openmm.System) -> None:
        system.setParticleMass(2, 0)
        system.setVirtualSite(2, openmm.TwoParticleAverageSite(0, 1, 0.5, 0.5))

    assert "particle 2 is a virtual site" in refusal(file, virtual)
    heavy = refusal(file, lambda s: s.setParticleMass(1, 27.0))
    assert "mass of atom 1 (Si) is not the one" in heavy
    assert "expected 28.085 amu; found 27 amu" in heavy
    assert "number of elements is wrong; expected 28, one an atom; found 27" in refusal(
        file, lambda s: s.addParticle(15.999)
    )


def test_masses_of_another_table_are_taken(file: Path) -> None:
    """OpenMM's own masses differ from ASE's in the fifth digit."""
    topology, positions = topology_from_ase(bulk())
    system = create_system(file, topology)
    assert system.getParticleMass(0)._value == 15.999
    for k, atom in enumerate(topology.atoms()):
        system.setParticleMass(k, atom.element.mass)
    assert system.getParticleMass(0)._value == 15.99943
    made = openmm.Context(system, TrajCastIntegrator(file, topology), openmm.Platform.getPlatformByName("Reference"))
    made.setPositions(positions)
    made.setVelocitiesToTemperature(300)
    made.getIntegrator().step(1)


@pytest.mark.parametrize(
    "barostat",
    [
        lambda: openmm.MonteCarloBarostat(1.0, 300),
        lambda: openmm.MonteCarloAnisotropicBarostat(openmm.Vec3(1, 1, 1), 300),
        lambda: openmm.MonteCarloFlexibleBarostat(1.0, 300),
        lambda: openmm.MonteCarloMembraneBarostat(
            1.0, 0.0, 300, openmm.MonteCarloMembraneBarostat.XYIsotropic, openmm.MonteCarloMembraneBarostat.ZFree
        ),
    ],
)
def test_barostats(file: Path, barostat: Callable[[], openmm.Force]) -> None:
    def change(system: openmm.System) -> None:
        bonds = openmm.HarmonicBondForce()  # OpenMM's barostats want a periodic force
        bonds.setUsesPeriodicBoundaryConditions(True)
        system.addForce(barostat())
        system.addForce(bonds)

    for options in ({}, {"ignore_forces": True}):
        assert "is a barostat that goes by the energy of a System's forces" in refusal(file, change, **options)


def test_forces_that_would_do_nothing(file: Path, random_artifact64: Path) -> None:
    topology, positions = topology_from_ase(bulk())
    assert "the force HarmonicBondForce would do nothing" in refusal(
        file, lambda s: s.addForce(openmm.HarmonicBondForce())
    )
    assert "is a second thermostat" in refusal(file, lambda s: s.addForce(openmm.AndersenThermostat(300, 1)))
    # to report energies they may stay
    system = create_system(file, topology)
    system.addForce(create_force(random_artifact64, topology, backend="plugin"))
    integrator = TrajCastIntegrator(file, topology, thermostat=None, ignore_forces=True)
    made = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    made.setPositions(positions)
    made.setVelocitiesToTemperature(300, 5)
    integrator.step(3)
    assert made.getState(energy=True).getPotentialEnergy()._value != 0
    bare = context_of(file, bulk(), thermostat=None)
    bare.getIntegrator().step(3)
    np.testing.assert_array_equal(moving(made).positions, moving(bare).positions)
    thermostat = create_system(file, topology)
    thermostat.addForce(openmm.AndersenThermostat(300, 1))
    openmm.Context(thermostat, TrajCastIntegrator(file, topology, thermostat=None))


def test_no_other_integrator_moves_a_system_without_forces(file: Path, random_artifact64: Path) -> None:
    """Its atoms would fly on in straight lines; in XML and in a CompoundIntegrator too."""
    reference = openmm.Platform.getPlatformByName("Reference")
    topology, _ = topology_from_ase(bulk())
    system = create_system(file, topology)
    again = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(system))
    both = openmm.CompoundIntegrator()
    both.addIntegrator(openmm.VerletIntegrator(0.001))
    for made in (system, again, create_system(file, topology, remove_cm_motion=False)):
        for integrator in (openmm.LangevinMiddleIntegrator(300, 1, 0.001), copy.deepcopy(both)):
            with pytest.raises(openmm.OpenMMException, match=r"no forces.*expected a TrajCastIntegrator") as caught:
                openmm.Context(made, integrator, reference)
            assert "\n" not in str(caught.value)
    both.addIntegrator(TrajCastIntegrator(file, topology))
    openmm.Context(again, both, reference)
    system.addForce(create_force(random_artifact64, topology, backend="plugin"))
    openmm.Context(system, openmm.VerletIntegrator(0.001), reference)


def test_a_minimization_would_move_nothing(file: Path, random_artifact64: Path) -> None:
    """Neither without forces nor with forces that only report energies; positions and energies may be asked for."""
    topology, positions = topology_from_ase(bulk())
    said = (
        r"without forces and has no constraints, so that minimizeEnergy, .*would move nothing; .*System of a potential"
    )
    reference = openmm.Platform.getPlatformByName("Reference")
    reporting = create_system(file, topology)
    reporting.addForce(create_force(random_artifact64, topology, backend="plugin"))
    own, biased = bare_system(topology), bare_system(topology)
    bond = openmm.HarmonicBondForce()
    bond.addBond(0, 1, 0.2, 1000.0)
    biased.addForce(bond)
    for system, options, platform in (
        (own, {}, "Reference"),
        (own, {}, "CPU"),
        (biased, {"ignore_forces": True}, "Reference"),
        (create_system(file, topology), {}, "Reference"),
        (reporting, {"ignore_forces": True}, "Reference"),
    ):
        integrator = TrajCastIntegrator(file, topology, **options)
        assert integrator.getConstraintTolerance() == 1e-5
        run = app.Simulation(topology, system, integrator, openmm.Platform.getPlatformByName(platform))
        run.context.setPositions(positions)
        with pytest.raises(openmm.OpenMMException, match=said):
            run.minimizeEnergy()
        assert integrator.getConstraintTolerance() == 1e-5
        run.reporters.append(app.StateDataReporter(io.StringIO(), 1, potentialEnergy=True))  # no minimizer
        run.step(1)
        run.context.getState(positions=True, velocities=True, energy=True)
    assert np.any(run.context.getState(forces=True).getForces(asNumpy=True)._value)
    with pytest.raises(
        openmm.OpenMMException, match=r"without forces, so that there are none to ask for; ask a System"
    ):
        context_of(file, bulk()).getState(forces=True)
    both = openmm.CompoundIntegrator()
    both.addIntegrator(openmm.VerletIntegrator(0.001))
    both.addIntegrator(TrajCastIntegrator(file, topology, ignore_forces=True))
    context = openmm.Context(biased, both, reference)
    context.setPositions(positions)
    before = context.getState(energy=True).getPotentialEnergy()
    openmm.LocalEnergyMinimizer.minimize(context)
    assert context.getState(energy=True).getPotentialEnergy() < 0.01 * before  # Verlet's turn
    both.setCurrentIntegrator(1)
    with pytest.raises(openmm.OpenMMException, match=said):
        openmm.LocalEnergyMinimizer.minimize(context)


def test_a_box_that_nobody_set(file: Path) -> None:
    """A System of one's own has OpenMM's 2 nm until its box is set."""
    reference = openmm.Platform.getPlatformByName("Reference")
    topology, _ = topology_from_ase(bulk())
    own = openmm.System()
    for atom in topology.atoms():
        own.addParticle(atom.element.mass)
    with pytest.raises(openmm.OpenMMException, match=r"where none is set, 2 nm wide, and its topology has another"):
        openmm.Context(own, TrajCastIntegrator(file, topology), reference)
    openmm.Context(own, TrajCastIntegrator(file, topology, periodic=False), reference)
    own.setDefaultPeriodicBoxVectors(*topology.getPeriodicBoxVectors())
    openmm.Context(own, TrajCastIntegrator(file, topology), reference)


def test_step_size(file: Path) -> None:
    topology, _ = topology_from_ase(bulk())
    integrator = TrajCastIntegrator(file, topology)
    integrator.setStepSize(20 * unit.femtosecond)
    with pytest.raises(
        openmm.OpenMMException, match=r"the stride that it was trained for; expected 0.02 ps; found 0.001"
    ):
        integrator.setStepSize(0.001)
    assert integrator.getStepSize() == 0.02 * unit.picosecond


def test_files_and_topologies(file: Path, crystal_propagator: Path, random_artifact64: Path, tmp_path: Path) -> None:
    topology, _ = topology_from_ase(bulk())
    with pytest.raises(EquistrideError, match=r"is a potential, which has forces and moves no atoms"):
        TrajCastIntegrator(random_artifact64, topology)
    with pytest.raises(EquistrideError, match=r"cannot be read"):
        TrajCastIntegrator(tmp_path / "none.pt", topology)
    (tmp_path / "bad.pt").write_bytes(b"nothing")
    with pytest.raises(EquistrideError, match=r"no model file"):
        TrajCastIntegrator(tmp_path / "bad.pt", topology)
    foreign = Atoms("OSiC", positions=[[0, 0, 0], [2, 0, 0], [4, 0, 0]])
    with pytest.raises(EquistrideError, match=r"does not know: C"):
        TrajCastIntegrator(file, topology_from_ase(foreign)[0])
    with pytest.raises(EquistrideError, match=r"does not know: C"):
        create_system(file, topology_from_ase(foreign)[0])
    with pytest.raises(EquistrideError, match=r"no atoms"):
        TrajCastIntegrator(file, app.Topology())
    unboxed, _ = topology_from_ase(molecule())
    with pytest.raises(EquistrideError, match=r"periodic systems alone.*box"):
        TrajCastIntegrator(crystal_propagator, unboxed)
    with pytest.raises(EquistrideError, match=r"topology, or periodic=True or False"):
        TrajCastIntegrator(file)
    assert TrajCastIntegrator(crystal_propagator).usesPeriodicBoundaryConditions()
    with pytest.raises(EquistrideError, match=r"moves all atoms of a System and adds no force"):
        create_system(file, topology, system=openmm.System())


def test_masses_that_tell_no_element(file: Path) -> None:
    topology, _ = topology_from_ase(bulk())
    system = create_system(file, topology)
    system.setParticleMass(4, 12.0)
    with pytest.raises(openmm.OpenMMException, match=r"mass of atom 4 is that of no element.*15.999, 28.085.*found 12"):
        openmm.Context(system, TrajCastIntegrator(file, periodic=True))


def test_thermostats(file: Path) -> None:
    topology, _ = topology_from_ase(bulk())
    for options, message in (
        ({"thermostat": "nose"}, r"thermostat is not known.*found nose"),
        ({"thermostat": None, "tau": 0.1}, r"tau and friction need a thermostat"),
        (
            {"thermostat": "langevin", "tau": 0.1, "friction": 10},
            r"tau and friction cannot both be given, friction is 1 / tau",
        ),
        ({"thermostat": "csvr", "friction": 10}, r"the thermostat csvr takes tau, not friction"),
        ({"tau": -0.1}, r"tau must be above 0.*found -0.1"),
        ({"temperature": -3}, r"temperature of a thermostat makes no sense.*found -3"),
        ({"temperature": float("nan")}, r"temperature of a thermostat makes no sense"),
        (
            {"temperature": None},
            r"temperature, step size, friction and tau are numbers or quantities; expected kelvin; found None",
        ),
        ({"seed": -1}, r"seed.*found -1"),
    ):
        with pytest.raises(EquistrideError, match=message):
            TrajCastIntegrator(file, topology, **options)


def test_guards(file: Path, random_artifact64: Path) -> None:
    topology, _ = topology_from_ase(bulk())
    for options, message in (
        ({"mode": "hint"}, r"mode of a guard is not known.*found hint"),
        ({"every": 0}, r"interval of a guard.*found 0"),
        ({"bound": -1.0}, r"bound of a guard.*found -1.0"),
        ({"substep": 0.0}, r"substep of a guard.*found 0.0"),
    ):
        with pytest.raises(EquistrideError, match=message):
            Guard(random_artifact64, **options)
    with pytest.raises(EquistrideError, match=r"does not exist"):
        Guard("nowhere.pt")
    with pytest.raises(EquistrideError, match=r"needs the energy of a potential; found a propagator"):
        TrajCastIntegrator(file, topology, guard=Guard(file))
    with pytest.raises(EquistrideError, match=r"no guard at work"):
        TrajCastIntegrator(file, topology).getGuardStatistics()


def test_a_run_from_rest(file: Path) -> None:
    made = context_of(file, bulk(), thermostat="csvr")
    made.setVelocities(np.zeros((27, 3)))
    with pytest.raises(openmm.OpenMMException, match=r"atoms are at rest.*velocities of the temperature first"):
        made.getIntegrator().step(1)


def test_one_context_each(file: Path) -> None:
    made = context_of(file, bulk())
    topology, _ = topology_from_ase(bulk())
    with pytest.raises(openmm.OpenMMException, match=r"already bound to a (C|c)ontext"):
        openmm.Context(create_system(file, topology), made.getIntegrator())
    with pytest.raises(openmm.OpenMMException, match=r"not bound to a Context"):
        TrajCastIntegrator(file, topology).step(1)


@pytest.mark.parametrize("platform", ["Reference", "CPU"])
def test_errors_of_a_run_arrive_and_the_context_lives(file: Path, platform: str) -> None:
    made = context_of(file, bulk(), platform=platform, thermostat=None)
    start = moving(made)
    fast = start.velocities.copy()
    fast[4] = [0.06, 0.0, 0.0]
    made.setVelocities(fast * 100)
    with pytest.raises(openmm.OpenMMException) as caught:
        made.getIntegrator().step(1)
    # one sentence, without a traceback (the CMMotionRemover takes a part of the speed)
    assert str(caught.value).startswith("atom 4 moves at 5")
    assert "expected below 5000 m/s; lower the temperature" in str(caught.value)
    assert "\n" not in str(caught.value)
    together = start.positions.copy()
    together[3] = together[8]
    made.setVelocities(start.velocities * 100)
    made.setPositions(together / 10)
    with pytest.raises(openmm.OpenMMException, match=r"atoms 3 and 8 are on top of each other"):
        made.getIntegrator().step(1)
    lost = start.positions.copy()
    lost[5, 1] = np.nan
    made.setPositions(lost / 10)
    with pytest.raises(openmm.OpenMMException, match=r"position of atom 5 is not finite"):
        made.getIntegrator().step(1)
    made.setPositions(start.positions / 10)
    made.setVelocities(start.velocities * 100)
    assert made.getStepCount() == 0
    made.getIntegrator().step(1)
    assert made.getStepCount() == 1


def test_velocities_need_positions(file: Path) -> None:
    topology, _ = topology_from_ase(molecule())
    made = openmm.Context(create_system(file, topology), TrajCastIntegrator(file, topology))
    with pytest.raises(openmm.OpenMMException, match=r"setPositions\(\) first"):
        made.setVelocitiesToTemperature(300)


def test_checkpoints_of_another_run(file: Path, tmp_path: Path) -> None:
    potential = toy_propagator.write_potential(tmp_path / "potential.pt")
    toy = toy_propagator.write_propagator(tmp_path / "toy.pt")
    atoms = atoms_of(cluster(6))
    plain = context_of(toy, atoms, seed=1)
    watched = context_of(toy, atoms, seed=1, guard=Guard(potential))
    with pytest.raises(openmm.OpenMMException, match=r"one of them has a guard"):
        watched.loadCheckpoint(plain.createCheckpoint())


def test_deuterium_has_the_mass_that_the_propagator_knows() -> None:
    """It is hydrogen to a network, which was trained with hydrogen's mass."""
    topology = app.Topology()
    residue = topology.addResidue("D", topology.addChain())
    for name in ("D", "O"):
        topology.addAtom(name, app.Element.getBySymbol(name), residue)
    system = bare_system(topology, {"H": 1.008, "O": 15.999})
    masses = [system.getParticleMass(k).value_in_unit(unit.dalton) for k in range(2)]
    assert masses == [1.008, 15.999]
