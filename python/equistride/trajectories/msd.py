"""Mean square displacement and self-diffusion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from equistride.data.unwrap import unwrap
from equistride.errors import EquistrideError
from equistride.series import Floats, autocorrelation
from equistride.trajectories.trajectory import Trajectory

CM2_S_PER_A2_FS = 0.1
"""1 A^2/fs in cm^2/s."""


@dataclass(frozen=True)
class Diffusion:
    """Self-diffusion from the slope of the mean square displacement, MSD = 6 D t.

    Attributes
    ----------
    coefficient, error
        A^2/fs (times :data:`CM2_S_PER_A2_FS` in cm^2/s); the error is that of the mean over pieces.
    exponent
        Power of time in the fitted stretch: 1 for diffusion, 0 for vibration about fixed places, 2 for free
        flight.
    reach
        Rms displacement at the end of the fitted stretch [A].
    """

    coefficient: float
    error: float
    exponent: float
    reach: float

    @property
    def diffusive(self) -> bool:
        """Whether the displacement grows as time to a power of 0.8 to 1.2, and to more than 1 A."""
        return abs(self.exponent - 1.0) < 0.2 and self.reach > 1.0


@dataclass(frozen=True)
class MSD:
    """Mean square displacement of one element (or of all atoms).

    Attributes
    ----------
    element
        Symbol, or "all".
    time
        [L] lag [fs], from 0.
    values, error
        [L] A^2, with the standard error over independent pieces (NaN for one piece).
    pieces
        [P, L] the same by piece.
    """

    element: str
    time: Floats
    values: Floats
    error: Floats
    pieces: Floats

    def diffusion(self, *, start: float | None = None, stop: float | None = None) -> Diffusion:
        """Fit a line between two lags.

        Parameters
        ----------
        start, stop
            Lags [fs]; the last three quarters of the range otherwise.

        Raises
        ------
        EquistrideError
            Where fewer than three lags lie between the two.
        """
        low = 0.25 * self.time[-1] if start is None else start
        high = self.time[-1] if stop is None else stop
        keep = (self.time >= low) & (self.time <= high) & (self.time > 0.0)
        if keep.sum() < 3:
            raise EquistrideError(
                "too few lags to fit a diffusion coefficient",
                expected=f"three between {low:g} and {high:g} fs",
                found=int(keep.sum()),
                hint="write a longer run or widen the window",
            )
        t = self.time[keep]
        slopes = np.array([np.polyfit(t, piece[keep], 1)[0] for piece in self.pieces]) / 6.0
        value = float(np.polyfit(t, self.values[keep], 1)[0]) / 6.0
        error = float(slopes.std(ddof=1) / np.sqrt(len(slopes))) if len(slopes) > 1 else float("nan")
        positive = np.maximum(self.values[keep], 1e-30)
        exponent = float(np.polyfit(np.log(t), np.log(positive), 1)[0])
        return Diffusion(value, error, exponent, float(np.sqrt(positive[-1])))


def unwrapped(trajectory: Trajectory, part: slice | None = None) -> Floats:
    """Unwrapped positions of the trajectory or of one piece [F, N, 3] (A); as they are where there is no
    box.
    """
    chosen = slice(0, trajectory.frames) if part is None else part
    positions = trajectory.positions[chosen]
    return unwrap(positions, trajectory.cells[chosen]) if trajectory.periodic else positions


def mean_square_displacement(
    trajectory: Trajectory,
    element: str | None = None,
    *,
    max_lag: float | None = None,
    blocks: int = 5,
    remove_drift: bool = True,
) -> MSD:
    """Mean square displacement by FFT, over all time origins of each piece.

    A single piece is cut into ``blocks`` equal ones, whose scatter gives the error (the fast algorithm is
    that of Calandrini et al., Collection SFN 12, 201 (2011)).

    Parameters
    ----------
    trajectory
        Wrapped or unwrapped positions.
    element
        None takes all atoms.
    max_lag
        Longest lag [fs]; half a piece otherwise.
    blocks
        Number of pieces to cut a single one into.
    remove_drift
        Whether to take displacements relative to the centre of mass.

    Returns
    -------
    MSD

    Raises
    ------
    EquistrideError
        For pieces of fewer than four frames, an unknown element, or a lag longer than a piece.
    """
    chosen = np.arange(trajectory.atoms) if element is None else trajectory.indices(element)
    paths = [unwrapped(trajectory, part) for part in trajectory.pieces()]
    if len(paths) == 1:
        size = len(paths[0]) // blocks
        if size >= 4:
            rest = len(paths[0]) - size * blocks
            paths = [paths[0][rest + k * size : rest + (k + 1) * size] for k in range(blocks)]
    length = min(len(p) for p in paths)
    if length < 4:
        raise EquistrideError(
            "the trajectory is too short for a mean square displacement",
            expected="4 consecutive frames or more",
            found=length,
            hint="write a longer run",
        )
    dt = trajectory.interval
    lags = length // 2 if max_lag is None else int(np.floor(max_lag / dt + 1e-9))
    if not 1 <= lags < length:
        raise EquistrideError(
            "the longest lag does not fit the run",
            expected=f"{dt:g} to {(length - 1) * dt:g} fs",
            found=f"{max_lag} fs",
            hint="pass a max_lag within a piece",
        )
    masses = trajectory.masses
    values = np.empty((len(paths), lags + 1))
    for k, path in enumerate(paths):
        moved = path - path[:1]
        if remove_drift:
            moved = moved - np.einsum("n,fni->fi", masses, moved)[:, None] / masses.sum()
        values[k] = _by_fft(moved[:, chosen], lags)
    weights = np.array([len(p) for p in paths], dtype=np.float64)
    mean = weights @ values / weights.sum()
    error = values.std(axis=0, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.full(lags + 1, np.nan)
    return MSD(element or "all", np.arange(lags + 1) * dt, mean, error, values)


def _by_fft(path: Floats, lags: int) -> Floats:
    """<|r(t + lag) - r(t)|^2> over origins and atoms [lags + 1] for a path [F, n, 3]."""
    frames = len(path)
    centred = path - path.mean(axis=0)
    counts = frames - np.arange(lags + 1)
    cross = autocorrelation(centred)[: lags + 1]
    squares = (centred**2).sum(axis=(1, 2))
    ends = np.concatenate([[0.0], np.cumsum(squares)])
    head = ends[frames - np.arange(lags + 1)]
    tail = ends[frames] - ends[np.arange(lags + 1)]
    result = (head + tail - 2.0 * cross) / (counts * path.shape[1])
    result[0] = 0.0
    return np.maximum(result, 0.0)
