"""Temperature, equipartition and the Maxwell-Boltzmann law."""

import numpy as np
import pytest
from known_systems import STILL, oscillators, shared_data, thermal

from equistride.errors import EquistrideError
from equistride.trajectories import (  # fmt: skip
    Trajectory,
    equipartition,
    kinetic_energy,
    kinetic_temperature,
    maxwell_test,
    momentum,
    read_trajectory,
)
from equistride.trajectories.temperature import degrees_of_freedom
from equistride.units import BOLTZMANN

QUARTZ = ["Si"] * 8 + ["O"] * 16


@pytest.mark.parametrize("fixed", [True, False])
def test_temperature_of_all_and_of_each(fixed):
    run = thermal(QUARTZ, 3000, {"Si": 300.0, "O": 300.0}, fixed_momentum=fixed)
    assert degrees_of_freedom(run) == (69.0 if fixed else 72.0)
    for element in (None, "Si", "O"):
        found = kinetic_temperature(run, element)
        assert found.value == pytest.approx(300.0, abs=4 * found.error)
        # The scatter of T is T sqrt(2 / f), frames are independent.
        ideal = 300.0 * np.sqrt(2.0 / degrees_of_freedom(run, element) / 3000)
        assert found.error == pytest.approx(ideal, rel=0.3)


def test_kinetic_energy_units():
    """One atom of 1 amu at 0.01 A/fs has 0.518 eV."""
    run = Trajectory(np.zeros((1, 1, 3)), ("H",), [0.0], STILL, velocities=[[[0.1, 0, 0]]], masses=[1.0])
    assert kinetic_energy(run)[0] == pytest.approx(0.5 * 0.01 * 103.642697, rel=1e-6)


def test_equipartition_passes():
    found = equipartition(thermal(QUARTZ, 10000, {"Si": 300.0, "O": 300.0}))
    assert found.verdict(0.02) == "pass"
    assert found.verdict(0.002) == "undecided"
    for ratio in found.ratio.values():
        assert ratio.value == pytest.approx(1.0, abs=4 * ratio.error)


def test_equipartition_fails_where_one_element_is_hotter():
    found = equipartition(thermal(QUARTZ, 10000, {"Si": 330.0, "O": 300.0}, fixed_momentum=False))
    assert found.verdict() == "fail"
    assert found.ratio["Si"].value / found.ratio["O"].value == pytest.approx(1.1, abs=0.02)
    assert found.temperature["Si"].value == pytest.approx(330.0, abs=4 * found.temperature["Si"].error)


def test_momentum():
    assert np.abs(momentum(thermal(QUARTZ, 10, {"Si": 300.0, "O": 300.0}))).max() < 1e-12
    pushed = Trajectory(np.zeros((1, 2, 3)), ("H", "H"), [0.0], STILL, velocities=np.ones((1, 2, 3)), masses=[1.0, 2.0])
    assert momentum(pushed)[0] == pytest.approx([3.0, 3.0, 3.0])


def test_maxwell_law_is_accepted():
    run = thermal(QUARTZ, 400, {"Si": 300.0, "O": 300.0})
    assert maxwell_test(run).p_value > 0.01
    assert maxwell_test(run).effective_samples == pytest.approx(24 * 400, rel=0.15)
    assert maxwell_test(run, temperature=300.0).p_value > 0.01


def test_maxwell_law_rejects_uniform_velocities_and_a_wrong_bath():
    run = thermal(QUARTZ, 400, {"Si": 300.0, "O": 300.0})
    flat = np.random.default_rng(1).uniform(-1, 1, run.velocities.shape) * run.velocities.std(axis=0) * np.sqrt(3.0)
    uniform = Trajectory(run.positions, run.symbols, run.time, STILL, velocities=flat)
    assert maxwell_test(uniform).p_value < 1e-6
    assert maxwell_test(run, temperature=330.0).p_value < 1e-6


def test_correlated_frames_count_less():
    assert maxwell_test(oscillators([5.0], 2.0, 500)).effective_samples < 0.3 * 30 * 500


def test_quartz_reference():
    run = read_trajectory(shared_data("reference/quartz72_vash1990_300K.npz"))
    found = kinetic_temperature(run)
    assert found.value == pytest.approx(300.0, abs=10.0)
    assert equipartition(run).verdict() == "pass"
    assert maxwell_test(run).p_value > 0.001


def test_a_molecule_that_neither_moves_nor_turns():
    """The temperature of each element is still right, though rotation takes more from the atoms far out."""
    rng = np.random.default_rng(5)
    symbols = ("C",) * 2 + ("O",) * 2 + ("H",) * 4
    run = thermal(list(symbols), 20000, {"C": 300.0, "O": 300.0, "H": 300.0})
    places = rng.normal(size=(8, 3)) * np.array([1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 3.0, 3.0])[:, None]
    m = run.masses
    q = places - (m[:, None] * places).sum(axis=0) / m.sum()
    inertia = np.einsum("n,nij->ij", m, (q**2).sum(1)[:, None, None] * np.eye(3) - q[:, :, None] * q[:, None])
    spin = np.einsum("n,fni->fi", m, np.cross(q, run.velocities)) @ np.linalg.inv(inertia)
    still = run.velocities - np.cross(spin[:, None], q)
    where = np.broadcast_to(places, still.shape)
    turning = Trajectory(where, symbols, run.time, STILL, velocities=run.velocities)
    fixed = Trajectory(where, symbols, run.time, STILL, velocities=still)
    assert degrees_of_freedom(turning) == pytest.approx(21.0)
    assert degrees_of_freedom(fixed) == pytest.approx(18.0)
    for molecule in (turning, fixed):
        for ratio in equipartition(molecule).ratio.values():
            assert ratio.value == pytest.approx(1.0, abs=4 * ratio.error)
            assert ratio.error < 0.006
    assert kinetic_energy(fixed).mean() == pytest.approx(9 * BOLTZMANN * kinetic_temperature(fixed).value)


def test_two_atoms_turn_about_two_axes():
    run = thermal(["N", "N"], 50, {"N": 300.0})
    where = np.zeros((50, 2, 3))
    where[:, 1, 2] = 1.1
    along = run.velocities * np.array([0.0, 0.0, 1.0])
    stretching = Trajectory(where, run.symbols, run.time, STILL, velocities=along)
    assert degrees_of_freedom(stretching) == pytest.approx(1.0)


def test_paracetamol_shares_its_energy():
    run = read_trajectory(shared_data("reference/paracetamol_gfn2_300K.npz"))
    assert degrees_of_freedom(run) == pytest.approx(54.0)
    assert kinetic_temperature(run).value == pytest.approx(312.0, abs=20.0)


def test_bad_input():
    bare = Trajectory(np.zeros((2, 1, 3)), ("Ar",), [0.0, 1.0], STILL)
    for task in (kinetic_temperature, equipartition, maxwell_test, momentum):
        with pytest.raises(EquistrideError, match=r"needs velocities.*write velocities"):
            task(bare)
    frozen = Trajectory(np.zeros((2, 2, 3)), ("Ar", "Ar"), [0.0, 1.0], STILL, velocities=np.zeros((2, 2, 3)))
    with pytest.raises(EquistrideError, match="nothing moves"):
        equipartition(frozen)
    with pytest.raises(EquistrideError, match="temperature must be positive"):
        maxwell_test(frozen)
    lone = Trajectory(np.zeros((1, 1, 3)), ("Ar",), [0.0], STILL, velocities=np.zeros((1, 1, 3)))
    with pytest.raises(EquistrideError, match="no degree of freedom"):
        kinetic_temperature(lone)
