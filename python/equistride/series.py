"""Means of correlated series, with errors that know about the correlation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from equistride.errors import EquistrideError

Floats = NDArray[np.floating[Any]]
Verdict = Literal["pass", "fail", "undecided"]
"""Of a figure against its bound; undecided where its interval reaches over the bound."""

_COLUMNS = 512


@dataclass(frozen=True)
class Estimate:
    """A mean and its standard error.

    Attributes
    ----------
    value, error
        Mean and standard error of the mean, in the unit of the series. The error is NaN where the
        series is too short to tell.
    block
        Length of the blocks [samples] at which the error has levelled off.
    samples, blocks
        Number of samples and of whole blocks.
    converged
        False where the series holds fewer than eight blocks, so that the error is a lower bound.
    """

    value: float
    error: float
    block: int
    samples: int
    blocks: int
    converged: bool

    @property
    def inefficiency(self) -> float:
        """Samples for one independent sample, by the length of the block."""
        return self.samples / max(self.blocks, 1)


def check_series(values: ArrayLike, name: str, *, minimum: int = 2, shape: tuple[int | None, ...] = (None,)) -> Floats:
    """Return ``values`` as float64, or say what is wrong with them.

    Parameters
    ----------
    values
        Array whose first axis is time.
    name
        What to call it in a message.
    minimum
        Fewest samples along the first axis.
    shape
        Expected shape; None stands for any length.

    Raises
    ------
    EquistrideError
        For a wrong shape, too few samples, or values that are not finite.
    """
    array = np.asarray(values, dtype=np.float64)
    wanted = "[" + ", ".join("any" if n is None else str(n) for n in shape) + "]"
    if array.ndim != len(shape) or any(n is not None and n != m for n, m in zip(shape, array.shape, strict=True)):
        raise EquistrideError(
            f"{name} has the wrong shape",
            expected=wanted,
            found=list(array.shape),
            hint="pass one value a sample along the first axis",
        )
    if len(array) < minimum:
        raise EquistrideError(
            f"{name} is too short",
            expected=f"at least {minimum} samples",
            found=len(array),
            hint="run longer or write more often",
        )
    if not np.isfinite(array).all():
        first = int(np.argwhere(~np.isfinite(array))[0][0])
        raise EquistrideError(
            f"{name} holds NaN or infinity",
            expected="finite numbers",
            found=f"{array[first] if array.ndim == 1 else 'such a value'} at sample {first}",
            hint="cut the series before that sample and look at why the run blew up",
        )
    return array


def block_means(values: Floats, block: int) -> Floats:
    """Means of consecutive blocks [blocks, ...]; a remainder at the start is dropped."""
    count = len(values) // block
    kept = values[len(values) - count * block :]
    return kept.reshape(count, block, *values.shape[1:]).mean(axis=1)


def plateau(series: Floats) -> tuple[int, bool]:
    """Length of block at which the error of the mean stops growing.

    Blocks are doubled (Flyvbjerg and Petersen, J. Chem. Phys. 91, 461 (1989)) and the first length B with
    B^3 > 2 n (s_B / s_1)^4 is taken (Wolff, Comput. Phys. Commun. 156, 143 (2004); Lee et al., Phys. Rev. E
    83, 066706 (2011)), which balances the bias left by correlation against the noise of few blocks.

    Parameters
    ----------
    series
        [n] samples.

    Returns
    -------
    block, converged
        ``converged`` is False where fewer than eight blocks of that length fit.
    """
    n = len(series)
    spread = float(series.std())
    if n < 4 or spread <= 1e-14 * max(1.0, float(np.abs(series).max())):
        return 1, n >= 4
    first = spread / np.sqrt(n - 1)
    block, best, largest = 1, 1, 0.0
    while n // block >= 2:
        means = block_means(series, block)
        error = float(means.std()) / np.sqrt(len(means) - 1)
        if len(means) >= 4 and error >= largest:
            best, largest = block, error
        if block**3 > 2 * n * (error / first) ** 4:
            return block, len(means) >= 8
        block *= 2
    return best, False


def block_average(values: ArrayLike, *, name: str = "the series") -> Estimate:
    """Mean of a correlated series with its standard error.

    Parameters
    ----------
    values
        [n] equally spaced samples.
    name
        What to call the series in a message.

    Returns
    -------
    Estimate
        In the unit of ``values``.

    Raises
    ------
    EquistrideError
        For an empty series or one with NaN.
    """
    series = check_series(values, name, minimum=1)
    if len(series) == 1:
        return Estimate(float(series[0]), float("nan"), 1, 1, 1, False)
    block, converged = plateau(series)
    means = block_means(series, block)
    error = float(means.std(ddof=1) / np.sqrt(len(means))) if len(means) > 1 else float("nan")
    return Estimate(float(series.mean()), error, block, len(series), len(means), converged)


def statistical_inefficiency(values: ArrayLike, *, name: str = "the series") -> float:
    """Samples that one independent sample is worth, 1 + 2 sum of the autocorrelation.

    The sum ends at the first lag where a pair of neighbouring terms is negative (Geyer's initial positive
    sequence, Stat. Sci. 7, 473 (1992)).

    Parameters
    ----------
    values
        [n] samples, or [n, m] for m series that share one correlation time (their autocovariances are added).

    Returns
    -------
    float
        At least 1, at most n.
    """
    array = np.asarray(values, dtype=np.float64)
    series = check_series(values, name, shape=(None,) * max(array.ndim, 1))
    series = series.reshape(len(series), -1)
    n = len(series)
    covariance = autocorrelation(series - series.mean(axis=0))
    if covariance[0] <= 0.0:
        return 1.0
    rho = covariance / covariance[0]
    pairs = rho[: n - n % 2].reshape(-1, 2).sum(axis=1)
    stop = int(np.argmax(pairs <= 0.0)) if (pairs <= 0.0).any() else len(pairs)
    return float(np.clip(2.0 * pairs[:stop].sum() - 1.0, 1.0, n))


def autocorrelation(values: Floats) -> Floats:
    """Sum over time and over all columns of x(t) x(t + lag), by FFT.

    Parameters
    ----------
    values
        [n, ...] samples; the first axis is time.

    Returns
    -------
    ndarray
        [n] sums at lags 0 to n - 1, not divided by the number of terms.
    """
    n = len(values)
    columns = values.reshape(n, -1)
    power = np.zeros(n + 1)
    for start in range(0, columns.shape[1], _COLUMNS):
        spectrum = np.fft.rfft(columns[:, start : start + _COLUMNS], n=2 * n, axis=0)
        power += (spectrum.real**2 + spectrum.imag**2).sum(axis=1)
    return np.fft.irfft(power, n=2 * n)[:n]
