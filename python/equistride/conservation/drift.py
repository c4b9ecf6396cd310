"""Does a run in the microcanonical ensemble conserve its energy, and how well is that known?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from equistride.errors import EquistrideError
from equistride.series import Floats, Verdict, block_means, check_series, plateau
from equistride.units import FS_PER_PS

MEV_PER_EV = 1000.0


@dataclass(frozen=True)
class Drift:
    """Drift of the total energy.

    Attributes
    ----------
    slope, error
        Least-squares slope and its standard error [meV/atom/ps].
    interval
        Confidence interval of the slope [meV/atom/ps].
    level
        Confidence level of the interval.
    protocol
        The figure of the eSEN paper, see :func:`protocol_drift` [meV/atom/ps]; None for a series that is too
        short.
    fluctuation
        Rms deviation from the line [meV/atom].
    span
        Length of the series [ps].
    samples, block, blocks
        Samples, length of a block in samples, and blocks that the error rests on.
    """

    slope: float
    error: float
    interval: tuple[float, float]
    level: float
    protocol: float | None
    fluctuation: float
    span: float
    samples: int
    block: int
    blocks: int

    def verdict(self, bound: float) -> Verdict:
        """Compare with ``bound`` [meV/atom/ps].

        Returns
        -------
        str
            "pass" where the whole interval lies within -bound..bound, "fail" where none of it does, else
            "undecided".
        """
        low, high = self.interval
        if -bound <= low and high <= bound:
            return "pass"
        return "fail" if low > bound or high < -bound else "undecided"


@dataclass(frozen=True)
class Exponent:
    """Power p in rms = c dt^p, with standard error and confidence interval."""

    value: float
    error: float
    interval: tuple[float, float]
    prefactor: float


def _student(level: float, freedom: int) -> float:
    from scipy.stats import t

    return float(t.ppf(0.5 + 0.5 * level, freedom))


def _checked(time: ArrayLike, energy: ArrayLike, atoms: int, minimum: int) -> tuple[Floats, Floats]:
    energies = check_series(energy, "the total energy", minimum=minimum)
    times = check_series(time, "the time", minimum=minimum)
    if len(times) != len(energies):
        raise EquistrideError(
            "time and total energy differ in length",
            expected=len(energies),
            found=len(times),
            hint="pass one time a sample",
        )
    steps = np.diff(times)
    if steps.min() <= 0.0 or steps.max() > 1.01 * steps.min():
        raise EquistrideError(
            "the time must grow by equal steps",
            expected=f"steps of {np.median(steps):.6g} fs",
            found=f"{steps.min():.6g} to {steps.max():.6g} fs",
            hint="pass one uninterrupted run, written at one interval",
        )
    if atoms < 1:
        raise EquistrideError("the number of atoms must be positive", found=atoms, hint="pass atoms=N")
    return times, energies


def energy_drift(time: ArrayLike, energy: ArrayLike, atoms: int, *, level: float = 0.95) -> Drift:
    """Slope of the total energy by least squares, with an interval that respects autocorrelation.

    The slope uses every sample. Its variance comes from the regression of block means, with blocks as long as
    the residuals need (see :func:`equistride.series.plateau`) and Student's t for the number of
    blocks.

    Parameters
    ----------
    time
        [n] equally spaced times [fs].
    energy
        [n] total energies [eV].
    atoms
        Number of atoms.
    level
        Confidence level.

    Returns
    -------
    Drift
        In meV/atom/ps.

    Raises
    ------
    EquistrideError
        For fewer than 8 samples, NaN, unequal steps, or a level outside (0, 1).
    """
    times, energies = _checked(time, energy, atoms, 8)
    if not 0.0 < level < 1.0:
        raise EquistrideError("the confidence level must lie between 0 and 1", found=level, hint="pass 0.95")
    x = (times - times.mean()) / FS_PER_PS
    y = (energies - energies.mean()) * (MEV_PER_EV / atoms)
    slope = float(x @ y / (x @ x))
    residual = y - slope * x
    block, _ = plateau(residual)
    block = min(block, len(x) // 4)
    bx, br = block_means(x, block), block_means(residual, block)
    bx = bx - bx.mean()
    br = br - br.mean()
    br = br - bx * (bx @ br) / (bx @ bx)
    freedom = len(bx) - 2
    error = float(np.sqrt(br @ br / freedom / (bx @ bx)))
    half = _student(level, freedom) * error
    try:
        protocol = protocol_drift(times, energies, atoms)
    except EquistrideError:
        protocol = None
    return Drift(
        slope=slope,
        error=error,
        interval=(slope - half, slope + half),
        level=level,
        protocol=protocol,
        fluctuation=float(np.sqrt(np.mean(residual**2))),
        span=float(times[-1] - times[0]) / FS_PER_PS,
        samples=len(x),
        block=block,
        blocks=len(bx),
    )


def protocol_drift(time: ArrayLike, energy: ArrayLike, atoms: int, *, discard: float = 0.1, window: int = 20) -> float:
    """Drift as the eSEN paper reports it (Fu et al., arXiv:2502.12147).

    The first tenth is dropped, the rest smoothed with a moving average of 20 samples, and the figure is
    |E_end - E_start| / time of the smoothed series, per atom. The time is the one between the two ends.

    Parameters
    ----------
    time
        [n] times [fs].
    energy
        [n] total energies [eV].
    atoms
        Number of atoms.
    discard
        Share of the samples to drop at the start.
    window
        Samples in the moving average.

    Returns
    -------
    float
        Drift, not negative [meV/atom/ps].
    """
    times, energies = _checked(time, energy, atoms, 2)
    if not 0.0 <= discard < 1.0 or window < 1:
        raise EquistrideError(
            "discard or window is out of range",
            expected="0 <= discard < 1 and window >= 1",
            found=f"discard {discard}, window {window}",
            hint="use the paper's 0.1 and 20",
        )
    start = int(len(energies) * discard)
    if len(energies) - start < window + 1:
        raise EquistrideError(
            "the series is too short for the moving average",
            expected=f"more than {window} samples after the first {discard:.0%}",
            found=len(energies) - start,
            hint="write energies more often, or pass a smaller window",
        )
    kernel = np.full(window, 1.0 / window)
    reference = energies[start]
    smooth = np.convolve(energies[start:] - reference, kernel, mode="valid")
    centres = np.convolve(times[start:] - times[start], kernel, mode="valid")
    return float(MEV_PER_EV * abs(smooth[-1] - smooth[0]) / ((centres[-1] - centres[0]) / FS_PER_PS) / atoms)


def energy_error_exponent(steps: ArrayLike, fluctuations: ArrayLike, *, level: float = 0.95) -> Exponent:
    """Order of the energy error in the time step, from a straight line through the logarithms.

    A second-order integrator on a smooth potential gives 2; a kink or a jump in the forces gives less.

    Parameters
    ----------
    steps
        [k] time steps, three or more that differ [fs].
    fluctuations
        [k] rms energy fluctuations at these steps [any energy].
    level
        Confidence level.

    Returns
    -------
    Exponent
        The interval uses Student's t with k - 2 degrees of freedom.
    """
    dt = check_series(steps, "the time steps", minimum=3)
    rms = check_series(fluctuations, "the energy fluctuations", minimum=3, shape=(len(dt),))
    if dt.min() <= 0.0 or rms.min() <= 0.0 or len(np.unique(dt)) < 3:
        raise EquistrideError(
            "the exponent needs three or more different positive time steps with positive fluctuations",
            found=f"steps {dt.tolist()}, fluctuations {rms.tolist()}",
            hint="run the same system at 0.25, 0.5 and 1 fs, say",
        )
    x, y = np.log(dt), np.log(rms)
    cx = x - x.mean()
    value = float(cx @ y / (cx @ cx))
    residual = y - y.mean() - value * cx
    error = float(np.sqrt(residual @ residual / (len(x) - 2) / (cx @ cx)))
    half = _student(level, len(x) - 2) * error
    return Exponent(value, error, (value - half, value + half), float(np.exp(y.mean() - value * x.mean())))
