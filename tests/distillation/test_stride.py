"""The stride by the spectrum of a motion that is known: oscillators of one frequency, and atoms that wander."""

from __future__ import annotations

import numpy as np
import pytest

from equistride.distillation.stride import Motion, choose, motion_of
from equistride.errors import EquistrideError
from equistride.trajectories.trajectory import Trajectory

SOLID = Motion(fastest=18.5, element="Si", liquid=False, moved=0.0)
LIQUID = Motion(fastest=105.0, element="H", liquid=True, moved=0.5)


def oscillators(frequencies: dict[str, float], wander: float = 0.0) -> Trajectory:
    """Return 8 atoms of each element about places 3 A apart, every atom with the frequency [THz] of its element, for 2 ps;
    ``wander`` is the rms step [A] of a random walk beside, in each direction and 2 fs."""
    rng, time = np.random.default_rng(5), 2.0 * np.arange(1000)
    symbols = [symbol for symbol in frequencies for _ in range(8)]
    omega = 2 * np.pi * np.array([frequencies[s] for s in symbols])[:, None] / 1000
    phase = rng.uniform(0, 2 * np.pi, size=(len(symbols), 3))
    places = 3.0 * np.stack(np.meshgrid(*[np.arange(4)] * 3), -1).reshape(-1, 3)[: len(symbols)]
    angle = omega * time[:, None, None] + phase
    walk = wander * rng.normal(size=(1000, len(symbols), 3)).cumsum(0)
    return Trajectory(
        positions=places + 0.1 * np.sin(angle) + walk, velocities=0.1 * omega * np.cos(angle), symbols=tuple(symbols),
        time=time, cell=12.0 * np.eye(3), name="oscillators",
    )  # fmt: skip


def test_the_fastest_vibration_is_found() -> None:
    """Within the resolution of 2 ps, 1.3 THz for half of the frames as lags; that of few atoms counts as that of many."""
    motion = motion_of(oscillators({"Si": 8.0, "O": 35.0}))
    assert motion.element == "O"
    assert motion.fastest == pytest.approx(35.0, abs=1.5)
    assert not motion.liquid
    assert motion.moved < 0.05


def test_a_liquid_is_told_from_a_crystal_and_from_one_that_conducts() -> None:
    """Atoms that walk 2 A in 2 ps all leave their places; where one element stays it is no liquid."""
    assert motion_of(oscillators({"Si": 8.0, "O": 35.0}, wander=0.06)).liquid
    mixed = oscillators({"Si": 8.0, "O": 35.0}, wander=0.06)
    still = oscillators({"Si": 8.0, "O": 35.0})
    positions = mixed.positions.copy()
    positions[:, :8] = still.positions[:, :8]
    half = Trajectory(
        positions=positions, velocities=mixed.velocities, symbols=mixed.symbols, time=mixed.time, cell=mixed.cell
    )
    assert not motion_of(half).liquid


@pytest.mark.parametrize(
    ("motion", "stride"),
    [
        (SOLID, 30.0),  # 0.75 of 54 fs is longer than what was shown to hold
        (Motion(36.0, "O", False, 0.0), 21.0),
        (Motion(110.0, "H", False, 0.0), 7.0),  # the published stride of a molecule with hydrogen
        (LIQUID, 5.0),  # and of water
    ],
)
def test_strides_that_are_chosen(motion: Motion, stride: float) -> None:
    found, why = choose(motion, 0.5)
    assert found == stride
    assert f"{motion.fastest:g} THz of {motion.element}" in why


def test_strides_that_are_asked_for() -> None:
    """A liquid at 30 fs, a solid beyond 1.25 periods, and what the time step does not divide are refused with the reason."""
    assert choose(SOLID, 1.0, 45.0)[0] == 45.0
    with pytest.raises(
        EquistrideError,
        match=r"a stride of 30 fs is too long: .* 9.52 fs.* a liquid for more than 0.8 of it; expected 7.62",
    ):
        choose(LIQUID, 0.5, 30.0)
    with pytest.raises(
        EquistrideError, match=r"keep their places for more than 1.25 of it; expected 67.6 fs or less; found 70"
    ):
        choose(SOLID, 1.0, 70.0)
    with pytest.raises(EquistrideError, match="whole number of the teacher's time steps; expected a multiple of 2 fs"):
        choose(SOLID, 2.0, 7.0)
