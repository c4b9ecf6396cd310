"""After an error in a step or a stride all is as it was before it: the run that goes on is the unbroken one, bit for bit."""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
import openmm
import pytest
from openmm_systems import Structure, context
from propagated import bulk, context_of, moving, same_bits

from equistride.engines.openmm import create_system
from equistride.engines.openmm_force import Force
from equistride.errors import EquistrideError

FAR, FAST = 1e30, 1e32


def velocity_verlet() -> openmm.CustomIntegrator:
    """Forces are evaluated in the middle of its step, when atoms have moved already."""
    made = openmm.CustomIntegrator(0.0005)
    made.addPerDofVariable("a", 0)
    made.addUpdateContextState()
    made.addComputePerDof("v", "v+0.5*dt*f/m")
    made.addComputePerDof("x", "x+dt*v")
    made.addComputePerDof("v", "v+0.5*dt*f/m")
    return made


def langevin() -> openmm.Integrator:
    made = openmm.LangevinMiddleIntegrator(300, 1.0, 0.0005)
    made.setRandomNumberSeed(42)
    return made


INTEGRATORS = {
    "verlet": lambda: openmm.VerletIntegrator(0.0005), "langevin": langevin, "custom": velocity_verlet,
}  # fmt: skip


def arrays(made: openmm.Context) -> tuple[np.ndarray, np.ndarray, int]:
    """Positions nm, velocities nm/ps, number of steps."""
    state = made.getState(positions=True, velocities=True)
    return (
        state.getPositions(asNumpy=True)._value,
        state.getVelocities(asNumpy=True)._value,
        made.getStepCount(),
    )


def beginning(file: Path, structure: Structure, integrator: str, platform: str) -> openmm.Context:
    system = create_system(file, structure.topology, backend="plugin")
    made = context(system, structure.positions, platform, INTEGRATORS[integrator]())
    made.setVelocitiesToTemperature(300, 5)
    return made


@pytest.mark.parametrize("platform", ["Reference", "CPU"])
@pytest.mark.parametrize("integrator", list(INTEGRATORS))
def test_a_step_that_fails_changes_nothing(
    artifact64: Path, crystal: Structure, integrator: str, platform: str
) -> None:
    """A NaN velocity, an atom that flies away, one far away, two on one place; then the run goes on."""
    unbroken, broken = (beginning(artifact64, crystal, integrator, platform) for _ in range(2))
    for made in (unbroken, broken):
        made.getIntegrator().step(2)
    positions, velocities, _ = arrays(broken)
    for what, place, value in (
        ("velocities", 3, np.nan), ("velocities", 3, FAST), ("positions", 5, np.nan), ("positions", 5, FAR),
        ("positions", 0, None),
    ):  # fmt: skip
        bad = {"positions": positions.copy(), "velocities": velocities.copy()}
        bad[what][place] = bad[what][1] if value is None else value
        # numpy arrays of NaN are refused by OpenMM's Python already, lists are not
        broken.setPositions([openmm.Vec3(*x) for x in bad["positions"]])
        broken.setVelocities([openmm.Vec3(*v) for v in bad["velocities"]])
        before = arrays(broken)
        with pytest.raises(openmm.OpenMMException, match=r"atom|box|finite"):
            broken.getIntegrator().step(3)
        after = arrays(broken)
        if value != FAST:  # which fails in the step after, but where forces are evaluated in its middle
            assert after[2] == before[2]
            assert np.array_equal(after[0], before[0], equal_nan=True)
            assert np.array_equal(after[1], before[1], equal_nan=True)
        elif integrator == "custom":
            assert np.array_equal(after[0], before[0])
            assert after[2] == before[2]
        broken.setPositions(positions)
        broken.setVelocities(velocities)
        broken.setStepCount(2)
    if integrator == "langevin":  # the steps that did not fail have drawn noise
        return
    for made in (unbroken, broken):
        made.getIntegrator().step(3)
    for one, other in zip(arrays(unbroken), arrays(broken), strict=True):
        assert np.array_equal(one, other)


def test_noise_is_that_of_the_unbroken_run(artifact64: Path, crystal: Structure) -> None:
    """One Context, whose checkpoint has the random state of the Reference platform."""
    made = beginning(artifact64, crystal, "langevin", "Reference")
    made.getIntegrator().step(1)
    start = made.createCheckpoint()
    made.getIntegrator().step(4)
    unbroken = arrays(made)
    made.loadCheckpoint(start)
    good = arrays(made)[1]
    bad = good.copy()
    bad[4, 1] = np.nan
    made.setVelocities([openmm.Vec3(*v) for v in bad])
    with pytest.raises(openmm.OpenMMException, match="the velocity of atom 4 is not finite; set the velocities anew"):
        made.getIntegrator().step(1)
    made.setVelocities(good)
    made.getIntegrator().step(4)
    for one, other in zip(unbroken, arrays(made), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("kind", ["langevin", "csvr", "none"])
def test_a_stride_that_fails_changes_nothing(propagator64: Path, kind: str) -> None:
    options = {"seed": 7} | ({"thermostat": None} if kind == "none" else {"thermostat": kind, "temperature": 300})
    unbroken, broken = (context_of(propagator64, bulk(), **options) for _ in range(2))
    for made in (unbroken, broken):
        made.getIntegrator().step(2)
    state = broken.getState(positions=True, velocities=True)
    positions, velocities = state.getPositions(asNumpy=True)._value, state.getVelocities(asNumpy=True)._value
    fast = velocities.copy()
    fast[2] = 1e4
    broken.setVelocities(fast)
    before = moving(broken)
    with pytest.raises(openmm.OpenMMException, match="atom"):
        broken.getIntegrator().step(1)
    after = moving(broken)
    assert np.array_equal(before.velocities, after.velocities)
    assert np.array_equal(before.positions, after.positions)
    assert broken.getStepCount() == 2
    broken.setPositions(positions)
    broken.setVelocities(velocities)
    for made in (unbroken, broken):
        made.getIntegrator().step(3)
    assert same_bits(unbroken, broken)


def test_bounds_stop_a_run_and_its_frame_is_kept(artifact64: Path, crystal: Structure, tmp_path: Path) -> None:
    file = tmp_path / "broken.xyz"
    for bound, said in (
        ({"maxForce": "1e-6"}, r"the force on atom \d+ is .* eV/A; expected at most 1e-06 eV/A"),
        ({"maxTemperature": "100"}, "the temperature of the model's atoms is .* K; expected at most 100 K"),
        ({"minDistance": "2.0"}, r"atoms \d+ and \d+ are nearer than 2 A"),
    ):
        system = create_system(artifact64, crystal.topology, backend="plugin")
        force = system.getForce(0)
        for name, value in (bound | {"brokenFrame": str(file)}).items():
            Force.cast(force).setProperty(name, value)
        made = context(system, crystal.positions)
        made.setVelocities(np.random.default_rng(5).normal(size=crystal.positions.shape))
        before = arrays(made)
        with pytest.raises(openmm.OpenMMException, match=said + f".*; its frame is in {file}"):
            made.getIntegrator().step(1)
        for one, other in zip(before, arrays(made), strict=True):
            assert np.array_equal(one, other)
        frame = ase.io.read(file, format="extxyz")
        np.testing.assert_allclose(frame.positions, crystal.positions, atol=1e-9)
        assert frame.get_chemical_symbols() == crystal.symbols
        assert "expected" in frame.info["error"] or "nearer" in frame.info["error"]
        assert list(tmp_path.iterdir()) == [file]


def test_bounds_that_warn(artifact64: Path, crystal: Structure, capfd: pytest.CaptureFixture[str]) -> None:
    system = create_system(artifact64, crystal.topology, backend="plugin")
    force = Force.cast(system.getForce(0))
    force.setProperty("maxForce", "1e-6")
    force.setProperty("onBound", "warn")
    made = context(system, crystal.positions)
    made.getIntegrator().step(3)
    assert capfd.readouterr().err.count("the force on atom") == 1
    for name, value in (("maxForce", "-1"), ("maxForce", "much"), ("minDistance", "nan"), ("onBound", "shout")):
        with pytest.raises(EquistrideError, match=f"the property '{name}'"):
            force.setProperty(name, value)
