"""Vibrational density of states, with a check that the sampling was fast enough."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from equistride.errors import EquistrideError
from equistride.series import Floats, autocorrelation, check_series
from equistride.trajectories.trajectory import Trajectory

_THZ_FS = 1000.0
"""THz times fs: a frequency of 1/fs is 1000 THz."""
_ALIASED = 0.02
_PARZEN_WIDTH = 1.275
"""Full width at half maximum of the Parzen window's spectrum, times the longest lag."""


@dataclass(frozen=True)
class VDOS:
    """Vibrational density of states; its integral over frequency is 1.

    Attributes
    ----------
    frequency
        [K] THz, from 0 to the Nyquist limit.
    density
        [K] 1/THz; weighted by mass, so that each vibration counts by its kinetic energy.
    by_element
        Element -> its part of ``density``; the parts add up.
    nyquist
        Highest frequency that the sampling can tell, 1 / (2 interval) [THz].
    interval
        Time between frames [fs].
    resolution
        Full width at half maximum of a sharp line [THz].
    aliased
        Share of the kinetic energy that vibrates faster than the Nyquist limit and is folded back below it.
    """

    frequency: Floats
    density: Floats
    by_element: dict[str, Floats]
    nyquist: float
    interval: float
    resolution: float
    aliased: float

    @property
    def aliases(self) -> bool:
        """Whether more than 2 % of the kinetic energy lies above the Nyquist limit."""
        return self.aliased > _ALIASED

    @property
    def message(self) -> str:
        """One sentence on the sampling."""
        limit = f"frames every {self.interval:g} fs tell frequencies up to {self.nyquist:.1f} THz"
        if np.isnan(self.aliased):
            return f"{limit}; whether anything moves faster cannot be told from positions."
        if not self.aliases:
            return f"{limit}, and the motion lies below."
        return (
            f"{limit}, but {100.0 * self.aliased:.0f} % of the kinetic energy vibrates faster and appears "
            "folded back: read no peaks from this spectrum, and write frames more often."
        )

    def peaks(self, *, prominence: float = 0.1) -> Floats:
        """Frequencies of the peaks of ``density`` [THz]; see :func:`find_peaks`."""
        return find_peaks(self.frequency, self.density, prominence=prominence)


def vibrational_density(
    trajectory: Trajectory,
    *,
    resolution: float | None = None,
    source: Literal["velocities", "positions"] = "velocities",
) -> VDOS:
    """Spectrum of the mass-weighted velocity autocorrelation.

    The autocorrelation is taken by FFT with zero padding, over lags up to the one that the resolution asks
    for, and a Parzen window keeps the spectrum from going negative. From positions alone, the spectrum of
    their increments is divided by (2 sin(pi f dt) / (2 pi f))^2, which is exact below the Nyquist limit.

    Aliasing is seen by comparing the spectra of velocities and of increments: where all motion lies at the
    frequency f, their ratio is (2 pi f)^2 / (2 sin(pi f dt))^2. Motion folded back from 1/dt - f has a larger
    one, and the excess gives its share. It cannot be seen from positions alone, and ``aliased`` is then NaN.

    Parameters
    ----------
    trajectory
        Equally spaced frames in pieces; with velocities unless ``source`` is "positions". Positions may be
        wrapped.
    resolution
        Width at half maximum of a sharp line [THz]. None: 0.3 THz, or what the longest piece allows.
    source
        What to take the spectrum from.

    Returns
    -------
    VDOS

    Raises
    ------
    EquistrideError
        Without velocities, for fewer than 8 consecutive frames, or for a resolution that the run is too short
        for.
    """
    from equistride.trajectories.msd import unwrapped

    velocities = trajectory.need_velocities("the vibrational density of states") if source == "velocities" else None
    pieces = trajectory.pieces()
    longest = max(p.stop - p.start for p in pieces)
    if longest < 8:
        raise EquistrideError(
            "the trajectory is too short for a spectrum",
            expected="8 consecutive frames or more",
            found=longest,
            hint="write a longer run",
        )
    dt = trajectory.interval
    nyquist = 0.5 * _THZ_FS / dt
    finest = _PARZEN_WIDTH * _THZ_FS / ((longest - 1) * dt)
    width = max(0.3, finest) if resolution is None else float(resolution)
    if not finest * (1.0 - 1e-9) <= width:
        raise EquistrideError(
            "the run is too short for this resolution",
            expected=f"{finest:.3g} THz or more",
            found=f"{width:.3g} THz",
            hint="write a longer run or ask for a coarser resolution",
        )
    lags = int(np.clip(np.ceil(_PARZEN_WIDTH * _THZ_FS / (width * dt)), 4, longest - 1))
    grid = 1 << int(np.ceil(np.log2(8 * lags)))
    frequency = np.fft.rfftfreq(grid, dt) * _THZ_FS
    omega = 2.0 * np.pi * frequency / _THZ_FS
    gain = np.where(omega > 0.0, (2.0 * np.sin(0.5 * omega * dt)) ** 2 / np.where(omega > 0.0, omega, 1.0) ** 2, dt**2)

    moving: dict[str, Floats] = {}
    shifted: dict[str, Floats] = {}
    positions = [unwrapped(trajectory, part) for part in pieces]
    for element in trajectory.elements:
        chosen = trajectory.indices(element)
        masses = trajectory.masses[chosen, None]
        steps = [np.diff(p[:, chosen], axis=0) for p in positions if len(p) > 2]
        shifted[element] = _spectrum(steps, masses, lags, grid)
        if velocities is not None:
            moving[element] = _spectrum([velocities[p, chosen] for p in pieces], masses, lags, grid)
    aliased = float("nan")
    if velocities is not None:
        aliased = _folded(
            np.add.reduce([*moving.values()]), np.add.reduce([*shifted.values()]), frequency, gain, nyquist
        )
    spectra = moving if velocities is not None else {e: s / gain for e, s in shifted.items()}
    total = np.asarray(sum(spectra.values()))
    area = float(np.trapezoid(total, frequency))
    if area <= 0.0:
        raise EquistrideError("nothing moves", expected="vibrations", found="no motion", hint="run it warm")
    return VDOS(
        frequency,
        total / area,
        {e: s / area for e, s in spectra.items()},
        nyquist,
        dt,
        _PARZEN_WIDTH * _THZ_FS / (lags * dt),
        aliased,
    )


def find_peaks(frequency: ArrayLike, density: ArrayLike, *, prominence: float = 0.1) -> Floats:
    """Peaks of a spectrum, refined by a parabola through the top three points.

    Parameters
    ----------
    frequency
        [K] equally spaced.
    density
        [K].
    prominence
        Smallest prominence, as a share of the highest point.

    Returns
    -------
    ndarray
        Frequencies in the unit of ``frequency``, growing.
    """
    from scipy.signal import find_peaks as local_maxima

    x = check_series(frequency, "the frequencies", minimum=3)
    y = check_series(density, "the spectrum", minimum=3, shape=(len(x),))
    tops, _ = local_maxima(np.concatenate([[0.0], y, [0.0]]), prominence=prominence * float(y.max()))
    tops = tops - 1
    inner = np.clip(tops, 1, len(x) - 2)
    bend = y[inner - 1] - 2.0 * y[inner] + y[inner + 1]
    move = np.where(
        (inner == tops) & (bend < 0.0),
        0.5 * (y[inner - 1] - y[inner + 1]) / np.where(bend < 0.0, bend, 1.0),
        0.0,
    )
    return x[tops] + move * (x[1] - x[0])


def _parzen(lags: int) -> Floats:
    u = np.arange(lags + 1) / lags
    return np.where(u <= 0.5, 1.0 - 6.0 * u**2 * (1.0 - u), 2.0 * (1.0 - u) ** 3)


def _spectrum(series: list[Floats], masses: Floats, lags: int, grid: int) -> Floats:
    """Smoothed power spectrum of several pieces [F, n, 3], summed over atoms and axes [grid / 2 + 1]."""
    total, samples = np.zeros(lags + 1), 0
    for piece in series:
        lagged = autocorrelation(piece * np.sqrt(masses))[: lags + 1]
        total[: len(lagged)] += lagged
        samples += len(piece)
    windowed = _parzen(lags) * total / samples
    even = np.zeros(grid)
    even[: lags + 1] = windowed
    even[grid - lags :] = windowed[:0:-1]
    return np.maximum(np.fft.rfft(even).real, 0.0)


def _folded(moving: Floats, shifted: Floats, frequency: Floats, gain: Floats, nyquist: float) -> float:
    """Share of the kinetic energy that lies in the first image above the Nyquist limit."""
    inside = frequency <= 0.9 * nyquist  # nearer to the limit a line and its image are one
    f = frequency[inside]
    missing = moving[inside] - shifted[inside] / gain[inside]
    folded = (missing / (1.0 - (f / (2.0 * nyquist - f)) ** 2)).sum()
    whole = float(moving.sum())
    return float(np.clip(folded / whole, 0.0, 1.0)) if whole > 0.0 else 0.0
