"""Spectra of oscillators whose frequencies are known."""

import numpy as np
import pytest
from known_systems import STILL, TRICLINIC, oscillators, shared_data

from equistride.errors import EquistrideError
from equistride.trajectories import Trajectory, find_peaks, read_trajectory, vibrational_density


@pytest.mark.parametrize("source", ["velocities", "positions"])
def test_peaks_lie_at_the_frequencies(source):
    vdos = vibrational_density(oscillators([6.0, 14.5, 31.0], 4.0, 3000), source=source)
    assert vdos.peaks() == pytest.approx([6.0, 14.5, 31.0], abs=0.02)
    assert vdos.nyquist == pytest.approx(125.0)


def test_area_is_one_and_elements_add_up():
    a, b = oscillators([8.0], 5.0, 800, symbol="Si"), oscillators([20.0], 5.0, 800, symbol="O")
    both = Trajectory(
        np.concatenate([a.positions, b.positions], axis=1), a.symbols + b.symbols, a.time, STILL,
        velocities=np.concatenate([a.velocities, b.velocities], axis=1),
    )  # fmt: skip
    vdos = vibrational_density(both)
    assert np.trapezoid(vdos.density, vdos.frequency) == pytest.approx(1.0)
    assert np.allclose(sum(vdos.by_element.values()), vdos.density)
    assert (vdos.density >= 0.0).all()
    assert vdos.frequency[vdos.by_element["Si"].argmax()] == pytest.approx(8.0, abs=0.2)
    assert vdos.frequency[vdos.by_element["O"].argmax()] == pytest.approx(20.0, abs=0.2)


def test_a_sharp_line_has_the_width_that_is_promised():
    vdos = vibrational_density(oscillators([20.0], 5.0, 4000), resolution=1.0)
    above = vdos.frequency[vdos.density > 0.5 * vdos.density.max()]
    assert above[-1] - above[0] == pytest.approx(vdos.resolution, rel=0.15)
    assert vdos.resolution == pytest.approx(1.0, rel=0.02)


@pytest.mark.parametrize(("dt", "frames", "pieces"), [(10.0, 2000, 1), (10.0, 40, 60)])
def test_slow_motion_is_not_called_aliased(dt, frames, pieces):
    vdos = vibrational_density(oscillators([4.0, 12.0, 35.0], dt, frames, pieces=pieces))
    assert not vdos.aliases
    assert vdos.message.endswith("the motion lies below.")


@pytest.mark.parametrize("fast", [60.0, 70.0, 95.0])
@pytest.mark.parametrize(("frames", "pieces"), [(2000, 1), (40, 60)])
def test_fast_motion_is_announced(fast, frames, pieces):
    """Sampled every 10 fs, the limit is 50 THz; one oscillator in three is faster."""
    run = oscillators([4.0, 12.0, fast], 10.0, frames, pieces=pieces, atoms=60)
    vdos = vibrational_density(run)
    # The share is one in three up to the draw of frequencies (sigma 0.035).
    assert vdos.aliased == pytest.approx(1 / 3, abs=0.11)
    assert vdos.aliases
    assert "50.0 THz" in vdos.message
    assert "folded back" in vdos.message


def test_aliasing_cannot_be_told_from_positions_alone():
    assert np.isnan(vibrational_density(oscillators([70.0], 10.0, 500), source="positions").aliased)


def test_wrapped_positions_do_not_matter():
    run = oscillators([9.0], 5.0, 600)
    shift = np.array([0.02, -0.1, 9.9])
    fractions = (run.positions + shift) @ np.linalg.inv(TRICLINIC)
    wrapped = Trajectory(
        (fractions - np.floor(fractions)) @ TRICLINIC,
        run.symbols,
        run.time,
        TRICLINIC,
        velocities=run.velocities,
    )
    assert not vibrational_density(wrapped).aliases
    assert vibrational_density(wrapped, source="positions").peaks() == pytest.approx([9.0], abs=0.05)


def test_quartz_at_30_fs_is_too_coarse():
    """Si-O bonds stretch at 30 THz and more; 30 fs tells 16.7."""
    vdos = vibrational_density(read_trajectory(shared_data("reference/quartz72_vash1990_300K.npz")))
    assert vdos.aliases
    assert 0.3 < vdos.aliased < 0.7


def test_find_peaks():
    x = np.linspace(0.0, 40.0, 801)
    y = np.exp(-((x - 10.03) ** 2)) + 0.5 * np.exp(-((x - 30.01) ** 2)) + 0.01 * np.exp(-((x - 20.0) ** 2))
    assert find_peaks(x, y) == pytest.approx([10.03, 30.01], abs=2e-3)
    assert len(find_peaks(x, y, prominence=0.001)) == 3
    with pytest.raises(EquistrideError, match="NaN"):
        find_peaks(x, y * np.nan)


def test_bad_input():
    run = oscillators([9.0], 5.0, 100)
    bare = Trajectory(run.positions, run.symbols, run.time, STILL)
    with pytest.raises(EquistrideError, match="density of states needs velocities"):
        vibrational_density(bare)
    with pytest.raises(EquistrideError, match="too short for a spectrum"):
        vibrational_density(run.select(slice(0, 5)))
    with pytest.raises(EquistrideError, match="too short for this resolution"):
        vibrational_density(run, resolution=0.01)
    frozen = Trajectory(0 * run.positions, run.symbols, run.time, STILL, velocities=0 * run.velocities)
    with pytest.raises(EquistrideError, match="nothing moves"):
        vibrational_density(frozen)
