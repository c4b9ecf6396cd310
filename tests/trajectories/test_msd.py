"""Unwrapping, mean square displacement, diffusion."""

import numpy as np
import pytest
from known_systems import STILL, TRICLINIC, walk

from equistride.errors import EquistrideError
from equistride.trajectories import Trajectory, mean_square_displacement, unwrap


def wrap(positions, cell):
    fractions = positions @ np.linalg.inv(cell)
    return (fractions - np.floor(fractions)) @ cell


def test_unwrap_follows_atoms_across_triclinic_boundaries():
    run = walk(20, 400, 1.0, 0.02, cell=TRICLINIC)
    wrapped = wrap(run.positions, TRICLINIC)
    assert np.abs(np.diff(wrapped, axis=0)).max() > 5.0
    path = unwrap(wrapped, TRICLINIC)
    assert path - path[0] == pytest.approx(run.positions - run.positions[0], abs=1e-9)


def test_unwrapped_positions_stay():
    run = walk(20, 400, 1.0, 0.02, cell=TRICLINIC)
    assert unwrap(run.positions, TRICLINIC) == pytest.approx(run.positions, abs=1e-9)


def test_unwrap_in_a_breathing_cell():
    """Atoms at rest in space stay at rest while the cell swells around them and they cross its faces."""
    frames = 200
    swell = 1.0 + 0.002 * np.sin(np.arange(frames) / 5.0)
    cells = TRICLINIC * swell[:, None, None]
    where = np.random.default_rng(1).random((30, 3)) @ TRICLINIC
    still = np.broadcast_to(where, (frames, 30, 3))
    wrapped = np.stack([wrap(p, c) for p, c in zip(still, cells, strict=True)])
    assert unwrap(wrapped, cells) - wrapped[:1] == pytest.approx(0.0 * still, abs=0.1)


def test_unwrap_refuses_to_guess():
    jump = np.zeros((2, 1, 3))
    jump[1, 0, 0] = 4.9
    with pytest.raises(EquistrideError, match=r"half the cell.*write frames more often"):
        unwrap(jump, 10.0 * np.eye(3))
    with pytest.raises(EquistrideError, match="needs a box"):
        unwrap(jump, STILL)


@pytest.mark.parametrize("cell", [STILL, TRICLINIC])
def test_random_walk_has_its_diffusion_coefficient(cell):
    run = walk(300, 2000, 2.0, 0.01, cell=cell)
    if cell.any():
        run = Trajectory(wrap(run.positions, cell), run.symbols, run.time, cell)
    diffusion = mean_square_displacement(run, "Ar", max_lag=100.0).diffusion()
    assert diffusion.error < 0.0005
    assert diffusion.coefficient == pytest.approx(0.01 * (1 - 1 / 300), abs=4 * diffusion.error)
    assert diffusion.diffusive
    assert diffusion.exponent == pytest.approx(1.0, abs=0.05)


def test_fast_algorithm_equals_the_definition():
    run = walk(5, 40, 1.0, 0.05)
    msd = mean_square_displacement(run, max_lag=12.0, blocks=1, remove_drift=False)
    for lag in (0, 1, 5, 12):
        steps = run.positions[lag:] - run.positions[: 40 - lag]
        assert msd.values[lag] == pytest.approx((steps**2).sum(axis=2).mean(), abs=1e-10)


def test_drift_of_the_whole_is_removed():
    run = walk(50, 200, 1.0, 0.01)
    pushed = Trajectory(run.positions + np.arange(200)[:, None, None] * 0.3, run.symbols, run.time, STILL)
    assert mean_square_displacement(pushed).values == pytest.approx(mean_square_displacement(run).values, abs=1e-8)


def test_free_flight_and_rattling_are_no_diffusion():
    rng = np.random.default_rng(2)
    velocity = rng.normal(size=(1, 60, 3))
    t = np.arange(300.0)[:, None, None]
    flight = Trajectory(velocity * t, ("Ar",) * 60, np.arange(300.0), STILL)
    assert mean_square_displacement(flight).diffusion().exponent == pytest.approx(2.0, abs=0.01)
    rattle = Trajectory(rng.normal(size=(300, 60, 3)), ("Ar",) * 60, np.arange(300.0), STILL)
    found = mean_square_displacement(rattle).diffusion()
    assert not found.diffusive
    assert found.coefficient == pytest.approx(0.0, abs=5 * found.error)


def test_pieces_are_kept_apart():
    """A jump between two pieces is no displacement."""
    run = walk(40, 100, 1.0, 0.01)
    other = Trajectory(
        np.concatenate([run.positions, run.positions + 500.0 * np.arange(40)[:, None]]), run.symbols,
        np.arange(200.0), STILL, pieces_of=np.repeat([0, 1], 100),
    )  # fmt: skip
    assert mean_square_displacement(other).values.max() < 20.0


def test_bad_input():
    run = walk(5, 40, 1.0, 0.01)
    with pytest.raises(EquistrideError, match="longest lag"):
        mean_square_displacement(run, max_lag=1000.0)
    with pytest.raises(EquistrideError, match="has no O"):
        mean_square_displacement(run, "O")
    with pytest.raises(EquistrideError, match="too short for a mean square"):
        mean_square_displacement(run.select(slice(0, 1)))
    with pytest.raises(EquistrideError, match="too few lags"):
        mean_square_displacement(run).diffusion(start=2.0, stop=2.5)
