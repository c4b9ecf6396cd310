"""Errors of correlated means."""

import numpy as np
import pytest
from known_systems import coloured

from equistride.errors import EquistrideError
from equistride.series import block_average, block_means, check_series, statistical_inefficiency


def test_white_noise_has_the_textbook_error():
    series = np.random.default_rng(0).normal(5.0, 2.0, 4096)
    estimate = block_average(series)
    assert estimate.value == pytest.approx(5.0, abs=0.15)
    # Blocks of (2n)^(1/3) leave some 128 of them: 6 % of noise in the error, 4 sigma allowed.
    assert estimate.error == pytest.approx(2.0 / 64.0, rel=0.25)
    assert estimate.converged


@pytest.mark.parametrize("time_constant", [5.0, 20.0])
def test_coloured_noise_has_a_larger_error(time_constant):
    rng = np.random.default_rng(1)
    samples = 8000
    true = np.sqrt((1 + np.exp(-1 / time_constant)) / (1 - np.exp(-1 / time_constant)) / samples)
    errors = [block_average(coloured(rng, samples, time_constant)).error for _ in range(60)]
    # Blocks of a finite length miss a part of the correlation; the bias stays below 15 %.
    assert np.mean(errors) == pytest.approx(true, rel=0.15)


def test_interval_of_a_coloured_mean_covers_the_truth():
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(300):
        estimate = block_average(coloured(rng, 2000, 8.0))
        hits += abs(estimate.value) < 2.0 * estimate.error
    assert 0.88 < hits / 300 < 0.99


def test_inefficiency_of_coloured_noise():
    rng = np.random.default_rng(3)
    series = np.stack([coloured(rng, 5000, 10.0) for _ in range(20)], axis=1)
    expected = (1 + np.exp(-0.1)) / (1 - np.exp(-0.1))
    assert statistical_inefficiency(series) == pytest.approx(expected, rel=0.1)
    assert statistical_inefficiency(rng.normal(size=20000)) == pytest.approx(1.0, abs=0.1)


def test_short_and_constant_series():
    assert np.isnan(block_average([3.0]).error)
    constant = block_average(np.full(100, 7.0))
    assert constant.value == 7.0
    assert constant.error == 0.0
    assert statistical_inefficiency(np.full(100, 7.0)) == 1.0


def test_block_means_drop_the_start():
    assert block_means(np.arange(7.0), 3).tolist() == [2.0, 5.0]


@pytest.mark.parametrize(
    ("values", "words"),
    [([], "too short"), ([1.0, np.nan, 2.0], "NaN or infinity.*sample 1"), ([[1.0, 2.0]], "wrong shape")],
)
def test_bad_series(values, words):
    with pytest.raises(EquistrideError, match=words):
        block_average(values)


def test_message_says_what_and_how():
    with pytest.raises(EquistrideError) as caught:
        check_series([1.0], "the pressure", minimum=3)
    assert str(caught.value) == (
        "the pressure is too short; expected at least 3 samples; found 1; run longer or write more often"
    )
