"""One network of several strides in OpenMM, LAMMPS and ASE: the same strides, mixed, changed in mid-run, and resumed."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import lammps_runs as lmp
import numpy as np
import openmm
import pytest
import torch
import trajcast_systems as systems
from ase import Atoms, units
from numpy.typing import NDArray
from openmm import unit
from propagated import context_of, moving, same_bits, simulation_of
from trajcast_systems import MASSES, STRIDES

from equistride.artifact.propagators import save_propagator
from equistride.data.quartz import quartz
from equistride.engines.ase_dynamics import TrajCastDynamics
from equistride.engines.guard import Guard
from equistride.engines.openmm import TrajCastIntegrator, create_system
from equistride.engines.openmm_structure import topology_from_ase
from equistride.errors import EquistrideError

Array = NDArray[np.float64]
PLAN = [(20.0, 2), (5.0, 3), (10.0, 2), (20.0, 1)]
"""Stride [fs] and how many of it."""
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=[pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]),
]
BATH: dict[str, Any] = {"temperature": 300, "tau": 0.01, "friction": 5.0, "seed": 5}  # K, ps, 1/ps


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights that take small steps: a crystal stays whole for some strides."""
    path = tmp_path_factory.mktemp("several") / "several.pt"
    save_propagator(systems.several(scale=0.01, cutoff=3.5, max_speed=0.2), path, dtype="float64")
    return path


def atoms() -> Atoms:
    """72 atoms of quartz in motion, in the cell that LAMMPS wants; velocities in A/ps in ``info`` too."""
    made = quartz((2, 2, 2))
    made.set_cell(made.cell.standard_form()[0], scale_atoms=True)
    made.info["velocities"] = np.random.default_rng(4).normal(0.0, 3.0, (len(made), 3))
    made.set_masses([MASSES[1] if z == 14 else MASSES[0] for z in made.numbers])
    made.set_velocities(made.info["velocities"] / (1000 * units.fs))
    return made


def in_openmm(artifact: Path) -> tuple[Array, Array]:
    """Positions [A] and velocities [A/fs] after the plan, by setStepSize in a running Context."""
    system = create_system(artifact, topology_from_ase(atoms())[0], remove_cm_motion=False)
    made = context_of(artifact, atoms(), system=system, **BATH)
    made.setVelocities(atoms().info["velocities"] / 10)
    for stride, count in PLAN:
        made.getIntegrator().setStepSize(stride / 1000)
        made.getIntegrator().step(count)
    now = moving(made)
    assert now.time == pytest.approx(sum(stride * count for stride, count in PLAN) / 1000)
    return now.positions, now.velocities


def in_ase(artifact: Path) -> tuple[Array, Array]:
    """The same, by ``dt``."""
    here, ps = atoms(), 1000 * units.fs
    dynamics = TrajCastDynamics(
        here, artifact, timestep=PLAN[0][0] * units.fs, temperature_K=300, tau=0.01 * ps, friction=5.0 / ps, seed=5
    )
    for stride, count in PLAN:
        dynamics.dt = stride * units.fs
        dynamics.run(count)
    return here.positions, here.get_velocities() * units.fs


def in_lammps(artifact: Path, folder: Path, ranks: int) -> tuple[Array, Array]:
    """The same, by ``timestep`` between runs."""
    lmp.require_plugin()
    script = (
        "units metal\natom_style atomic\nboundary p p p\nread_data data.lmp\n"
        f"mass 1 {MASSES[1]}\nmass 2 {MASSES[0]}\n"
        f"fix p all equistride/propagate {artifact} Si O temp 300 300 0.01 friction 5.0 seed 5\n"
        "dump out all custom 1 out.dump id xu yu zu vx vy vz fx fy fz id\n"
        'dump_modify out sort id format float "%.17g"\n'
    )
    script += "".join(f"timestep {stride / 1000}\nrun {count}\n" for stride, count in PLAN)
    found = lmp.run(atoms(), script, folder, ranks)
    return found.positions, found.velocities / 1000


def test_the_same_strides_in_all_engines(artifact: Path, tmp_path: Path) -> None:
    """One seed, one trajectory, with the thermostat of each stride in effect; eight strides in double precision."""
    expected = in_openmm(artifact)
    others = [in_ase(artifact), in_lammps(artifact, tmp_path / "one", 1), in_lammps(artifact, tmp_path / "two", 2)]
    for found in others:
        for ours, theirs in zip(found, expected, strict=True):
            assert np.abs(ours - theirs).max() <= 1e-10 * np.abs(theirs).max()


def test_each_stride_has_noise_of_its_own(artifact: Path) -> None:
    """Or integrators of one seed that take turns would repeat theirs. Under such friction velocities are noise alone."""
    ends = []
    for stride in STRIDES:
        here = atoms()
        bath: dict[str, Any] = {"thermostat": "langevin", "temperature_K": 300, "tau": 0.01 * units.fs}
        TrajCastDynamics(here, artifact, timestep=stride * units.fs, seed=5, **bath).run(1)
        ends.append((here.get_masses()[:, None] ** 0.5 * here.get_velocities()).ravel())
    shared = np.corrcoef(ends) - np.eye(len(ends))
    assert np.abs(shared).max() < 0.3  # 216 numbers: 4 standard deviations


def test_time_goes_on_where_the_step_changes(artifact: Path) -> None:
    dynamics = TrajCastDynamics(atoms(), artifact, timestep=20 * units.fs)
    dynamics.run(2)
    dynamics.dt = 5 * units.fs
    dynamics.run(1)
    assert dynamics.get_time() == pytest.approx(45 * units.fs)
    again = TrajCastDynamics(atoms(), artifact)
    again.set_state(dynamics.state())
    assert again.get_time() == dynamics.get_time()


def test_a_compound_integrator_mixes_them(artifact: Path) -> None:
    """Integrators of one file with a step each do what one does whose step is changed."""
    topology, positions = topology_from_ase(atoms())
    both = openmm.CompoundIntegrator()
    for stride in STRIDES:
        both.addIntegrator(TrajCastIntegrator(artifact, topology, thermostat=None, step_size=stride / 1000))
    made = openmm.Context(create_system(artifact, topology), both, openmm.Platform.getPlatformByName("Reference"))
    made.setPositions(positions)
    one = context_of(artifact, atoms(), thermostat=None)
    for context in (made, one):
        context.setVelocities(atoms().info["velocities"] / 10)
    for stride, count in PLAN:
        both.setCurrentIntegrator(STRIDES.index(stride))
        assert both.getStepSize() == stride / 1000 * unit.picosecond
        both.step(count)
        one.getIntegrator().setStepSize(stride * unit.femtosecond)
        one.getIntegrator().step(count)
    ends = [context.getState(positions=True, velocities=True) for context in (made, one)]
    assert np.array_equal(ends[0].getPositions(asNumpy=True)._value, ends[1].getPositions(asNumpy=True)._value)
    assert np.array_equal(ends[0].getVelocities(asNumpy=True)._value, ends[1].getVelocities(asNumpy=True)._value)
    assert ends[0].getTime() == ends[1].getTime()


def test_a_checkpoint_brings_its_stride(artifact: Path, random_artifact64: Path, tmp_path: Path) -> None:
    """Checkpoint, State and XML go on bit for bit with a guard that has changed strides; ASE's state likewise."""
    guard = Guard(random_artifact64, every=1, mode="reject", substep=5.0)
    made = context_of(artifact, atoms(), guard=guard, **BATH)
    made.getIntegrator().step(1)
    made.getIntegrator().setStepSize(0.005)
    made.getIntegrator().step(2)
    state = made.getState(positions=True, velocities=True, parameters=True, integratorParameters=True)
    checkpoint = made.createCheckpoint()
    made.getIntegrator().step(2)
    again = context_of(artifact, atoms(), guard=guard, **BATH)
    for restore in (lambda: again.loadCheckpoint(checkpoint), lambda: again.setState(state)):
        again.getIntegrator().setStepSize(0.02)
        restore()
        assert again.getIntegrator().getStepSize() == 0.005 * unit.picosecond
        again.getIntegrator().step(2)
        assert same_bits(made, again)
    text = openmm.XmlSerializer.serialize(made.getIntegrator())
    for copied in (openmm.XmlSerializer.deserialize(text), copy.deepcopy(again.getIntegrator())):
        assert copied.getStepSize() == 0.005 * unit.picosecond

    here, bath = atoms(), {"tau": 10 * units.fs, "thermostat": "csvr", "seed": 3}
    dynamics = TrajCastDynamics(here, artifact, timestep=10 * units.fs, **bath)
    dynamics.run(2)
    kept, start = dynamics.state(), here.copy()
    dynamics.run(2)
    resumed = TrajCastDynamics(start, artifact, **bath)
    resumed.set_state(kept)
    assert resumed.dt == 10 * units.fs
    resumed.run(2)
    assert np.array_equal(here.positions, start.positions)


def test_a_lammps_restart_goes_on(artifact: Path, tmp_path: Path) -> None:
    """A run of two strides' lengths, and the same with a restart in between."""
    lmp.require_plugin()
    head = "units metal\natom_style atomic\nboundary p p p\n"
    masses = f"mass 1 {MASSES[1]}\nmass 2 {MASSES[0]}\n"
    fix = (
        f"fix p all equistride/propagate {artifact} Si O temp 300 300 0.01 seed 5\n"
        "dump out all custom 1 out.dump id xu yu zu vx vy vz fx fy fz id\n"
        'dump_modify out sort id format float "%.17g"\n'
    )
    first = f"{head}read_data data.lmp\n{masses}timestep 0.02\n{fix}run 2\ntimestep 0.005\nrun 2\n"
    whole = lmp.run(atoms(), first + "run 2\n", tmp_path)
    lmp.run(atoms(), first + "write_restart half\n", tmp_path)
    again = lmp.run(atoms(), f"{head}read_restart half\n{masses}timestep 0.005\n{fix}run 2\n", tmp_path)
    assert np.abs(again.positions - whole.positions).max() <= 1e-10 * np.abs(whole.positions).max()


def test_other_steps_are_refused(artifact: Path, tmp_path: Path) -> None:
    """In one sentence, which names those that there are; what was set stays."""
    topology, _ = topology_from_ase(atoms())
    with pytest.raises(EquistrideError, match=r"expected 0.005, 0.01 or 0.02 ps; found 0.007 ps") as info:
        TrajCastIntegrator(artifact, topology, step_size=0.007)
    assert "\n" not in str(info.value)
    simulation = simulation_of(artifact, atoms())
    assert simulation.integrator.getStepSize() == 0.02 * unit.picosecond
    simulation.integrator.setStepSize(0.005)
    with pytest.raises(openmm.OpenMMException, match=r"expected 0.005, 0.01 or 0.02 ps; found 0.015 ps"):
        simulation.integrator.setStepSize(0.015)
    assert simulation.integrator.getStepSize() == 0.005 * unit.picosecond
    with pytest.raises(EquistrideError, match="expected 5, 10 or 20 fs; found 7 fs"):
        TrajCastDynamics(atoms(), artifact, timestep=7 * units.fs)
    dynamics = TrajCastDynamics(atoms(), artifact)
    assert dynamics.dt == pytest.approx(20 * units.fs)
    dynamics.dt = 6 * units.fs
    with pytest.raises(EquistrideError, match="expected 5, 10 or 20 fs; found 6 fs"):
        dynamics.run(1)
    lmp.require_plugin()
    lmp.write_data(atoms(), tmp_path / "data.lmp")
    script = f"units metal\nboundary p p p\nread_data data.lmp\nmass 1 {MASSES[1]}\nmass 2 {MASSES[0]}\n"
    script += f"timestep 0.007\nfix p all equistride/propagate {artifact} Si O\nrun 1\n"
    said = lmp.refused(script, tmp_path)
    assert "expected 5, 10 or 20 fs; found 7 fs; set `timestep` to 0.005, 0.01 or 0.02" in said


@pytest.mark.parametrize("device", DEVICES)
def test_a_state_that_stays_on_the_device(artifact: Path, device: str) -> None:
    """Steps of fixed size, on a GPU a captured graph for each stride: the strides of the host."""
    frame = systems.crystal()
    ends = []
    for there in (False, True):
        run = systems.run_of(artifact, frame, "langevin+csvr", device if there else "cpu")
        if there:
            run.stay_on_device()
        x, v, number = frame.positions, frame.velocities, 0
        for stride, count in PLAN[:3]:
            run.set_stride(stride)
            for _ in range(count):
                x, v, _ = run.step(x, v, frame.cell.double(), number)
                number += 1
        run.finish()
        ends.append((x.cpu(), v.cpu()))
    for ours, theirs in zip(*ends, strict=True):
        assert float((ours - theirs).abs().max()) <= 1e-9 * float(theirs.abs().max())
