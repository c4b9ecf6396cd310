"""Drift of the total energy: slope, interval, protocol, order of the error."""

import numpy as np
import pytest
from known_systems import coloured

from equistride.conservation import energy_drift, energy_error_exponent, protocol_drift
from equistride.errors import EquistrideError

ATOMS = 72
TIME = np.arange(3000) * 10.0


def series(slope, noise=0.0):
    """Energies [eV] with a slope in meV/atom/ps and noise in meV/atom."""
    return -900.0 + 1e-3 * ATOMS * (slope * TIME / 1000.0 + noise)


def test_clean_slope_is_exact():
    drift = energy_drift(TIME, series(0.25), ATOMS)
    assert drift.slope == pytest.approx(0.25, rel=1e-8)
    assert drift.protocol == pytest.approx(0.25, rel=1e-8)
    assert drift.fluctuation < 1e-6
    assert drift.span == pytest.approx(29.99)


def test_sign_is_kept_by_the_slope_and_dropped_by_the_protocol():
    drift = energy_drift(TIME, series(-0.25), ATOMS)
    assert drift.slope == pytest.approx(-0.25, rel=1e-8)
    assert drift.protocol == pytest.approx(0.25, rel=1e-8)


@pytest.mark.parametrize("time_constant", [0.2, 10.0, 40.0])
def test_interval_covers_the_true_slope(time_constant):
    rng = np.random.default_rng(5)
    draws, hits = 300, 0
    for _ in range(draws):
        drift = energy_drift(TIME, series(0.1, coloured(rng, len(TIME), time_constant)), ATOMS)
        hits += drift.interval[0] <= 0.1 <= drift.interval[1]
    # Binomial noise is 1.3 %; long correlation costs a few percent since blocks are finite.
    assert 0.88 <= hits / draws <= 0.99


def test_naive_interval_would_be_too_narrow():
    noise = coloured(np.random.default_rng(6), len(TIME), 40.0)
    drift = energy_drift(TIME, series(0.0, noise), ATOMS)
    x = (TIME - TIME.mean()) / 1000.0
    naive = noise.std() / np.sqrt(x @ x)
    assert drift.error > 4.0 * naive


def test_fluctuation_is_the_noise():
    noise = np.random.default_rng(7).normal(size=len(TIME)) * 0.3
    assert energy_drift(TIME, series(0.1, noise), ATOMS).fluctuation == pytest.approx(0.3, rel=0.05)


def test_verdict():
    quiet = energy_drift(TIME, series(0.05, 1e-3 * np.random.default_rng(8).normal(size=len(TIME))), ATOMS)
    assert quiet.verdict(0.1) == "pass"
    assert quiet.verdict(0.01) == "fail"
    loud = energy_drift(TIME, series(0.1, 5.0 * np.random.default_rng(8).normal(size=len(TIME))), ATOMS)
    assert loud.verdict(loud.slope) == "undecided"


def test_protocol_matches_its_definition():
    rng = np.random.default_rng(9)
    energy = series(0.1, rng.normal(size=len(TIME)))
    kept = energy[300:]
    first, last = kept[:20].mean(), kept[-20:].mean()
    span = (len(kept) - 20) * 10.0 / 1000.0
    expected = 1000.0 * abs(last - first) / span / ATOMS
    assert protocol_drift(TIME, energy, ATOMS) == pytest.approx(expected, rel=1e-9)


def test_short_series_has_a_slope_but_no_protocol_figure():
    drift = energy_drift(TIME[:16], series(0.1)[:16], ATOMS)
    assert drift.protocol is None
    with pytest.raises(EquistrideError, match="too short for the moving average"):
        protocol_drift(TIME[:16], series(0.1)[:16], ATOMS)


def test_verlet_error_is_second_order():
    """The energy of a harmonic oscillator under velocity Verlet fluctuates as dt^2."""
    steps, rms = [0.02, 0.04, 0.08, 0.16], []
    for dt in steps:
        x, v = 1.0, 0.0
        energies = []
        for _ in range(int(200 / dt)):
            v -= 0.5 * dt * x
            x += dt * v
            v -= 0.5 * dt * x
            energies.append(0.5 * (x * x + v * v))
        rms.append(np.std(energies))
    exponent = energy_error_exponent(steps, rms)
    assert exponent.value == pytest.approx(2.0, abs=0.02)
    assert exponent.interval[0] < exponent.value < exponent.interval[1]


def test_exponent_and_prefactor_of_an_exact_law():
    exponent = energy_error_exponent([0.5, 1.0, 2.0], [0.3 * 0.5**2, 0.3, 1.2])
    assert exponent.value == pytest.approx(2.0)
    assert exponent.prefactor == pytest.approx(0.3)
    assert exponent.error < 1e-12


@pytest.mark.parametrize(
    ("time", "energy", "atoms", "words"),
    [
        ([], [], 3, "too short"),
        (TIME[:5], TIME[:5], 3, "too short"),
        (TIME, np.append(TIME[:-1], np.nan), 3, "NaN or infinity"),
        (TIME, TIME[:-1], 3, "differ in length"),
        (TIME**2, TIME, 3, "equal steps"),
        (TIME[::-1], TIME, 3, "equal steps"),
        (TIME, TIME, 0, "number of atoms"),
    ],
)
def test_bad_input(time, energy, atoms, words):
    with pytest.raises(EquistrideError, match=words):
        energy_drift(time, energy, atoms)


def test_bad_level_and_bad_exponent():
    with pytest.raises(EquistrideError, match="confidence level"):
        energy_drift(TIME, TIME, 3, level=1.0)
    with pytest.raises(EquistrideError, match="three or more different"):
        energy_error_exponent([1.0, 1.0, 2.0], [1.0, 1.0, 4.0])
    with pytest.raises(EquistrideError, match="too short"):
        energy_error_exponent([1.0, 2.0], [1.0, 4.0])
