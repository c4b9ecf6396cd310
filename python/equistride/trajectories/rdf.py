"""Partial radial distribution functions and coordination numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from equistride.cell import heights, lower_triangular
from equistride.errors import EquistrideError
from equistride.series import Floats
from equistride.trajectories.periodic import neighbours
from equistride.trajectories.trajectory import Trajectory
from equistride.units import ANGSTROM_PER_NM

_MOST_PAIRS = 1_000_000
_CHUNK = 8_000_000


@dataclass(frozen=True)
class RDF:
    """g_ab(r), the density of b around a over the mean density of b.

    Attributes
    ----------
    pair
        The elements a and b.
    r
        [K] centres of the bins (A).
    g
        [K]. For like elements the mean density counts all N atoms, so an ideal gas gives 1 - 1/N.
    error
        [K] standard error over blocks of frames; NaN for a single frame.
    density
        Mean number density of b (1/A^3).
    """

    pair: tuple[str, str]
    r: Floats
    g: Floats
    error: Floats
    density: float

    @property
    def bin_width(self) -> float:
        """Width of a bin (A)."""
        return float(self.r[1] - self.r[0])

    @property
    def running_number(self) -> Floats:
        """[K] mean number of b around a, up to the outer edge of each bin."""
        edges = np.append(self.r - 0.5 * self.bin_width, self.r[-1] + 0.5 * self.bin_width)
        shells = 4.0 / 3.0 * np.pi * np.diff(edges**3)
        return np.cumsum(self.density * self.g * shells)

    @property
    def first_peak(self) -> float:
        """Place of the first peak, with a parabola through the top three bins (A)."""
        return _top(self.r, self.g, _first_peak(self))


@dataclass(frozen=True)
class Coordination:
    """Neighbours up to the first minimum of g(r) at ``radius`` (A)."""

    number: float
    radius: float


def radial_distribution(
    trajectory: Trajectory,
    a: str,
    b: str,
    *,
    r_max: float | None = None,
    bin_width: float = 0.05,
    blocks: int = 10,
) -> RDF:
    """g_ab(r) with block errors.

    Up to half the smallest height of the cell, mdtraj's minimum-image histogram is exact and is used (after
    turning the cell to mdtraj's standard orientation). Beyond that, and for systems with more than a million
    pairs, all periodic images within r_max are counted here instead.

    Parameters
    ----------
    trajectory
        With a box of any shape.
    a, b
        Elements.
    r_max
        Largest distance (A). None: half the smallest height of the cell, at most 8 A.
    bin_width
        Width of a bin (A).
    blocks
        Number of blocks of frames for the errors.

    Returns
    -------
    RDF

    Raises
    ------
    EquistrideError
        Without a box, for an unknown element, or where r_max or bin_width make no sense.
    """
    cells = trajectory.need_box("a radial distribution function")
    first, second = trajectory.indices(a), trajectory.indices(b)
    half = 0.5 * min(float(heights(c).min()) for c in np.unique(cells, axis=0))
    reach = min(half, 8.0) if r_max is None else float(r_max)
    if not (bin_width > 0.0 and reach >= 3.0 * bin_width):
        raise EquistrideError(
            "r_max and bin_width do not fit",
            expected="bin_width > 0 and at least three bins up to r_max",
            found=f"r_max {reach:.3g} A, bin_width {bin_width:.3g} A",
            hint="pass a larger r_max or a smaller bin_width",
        )
    bins = round(reach / bin_width)
    like = a == b
    count = len(first) * (len(first) - 1) // 2 if like else len(first) * len(second)
    if reach > 4.0 * half and count * (reach / half) ** 3 > 1e9:
        raise EquistrideError(
            "r_max is far beyond the cell",
            expected=f"at most {4.0 * half:.1f} A",
            found=f"{reach:.1f} A",
            hint="use a smaller r_max or a larger cell",
        )
    by_mdtraj = reach <= half + 1e-9 and 0 < count <= _MOST_PAIRS
    method = _minimum_image if by_mdtraj else _all_images
    parts = [p for p in np.array_split(np.arange(trajectory.frames), min(blocks, trajectory.frames)) if len(p)]
    values = np.stack([method(trajectory, part, first, second, reach, bins) for part in parts])
    weights = np.array([len(p) for p in parts], dtype=np.float64) / trajectory.frames
    mean = weights @ values
    error = np.full(bins, np.nan)
    if len(parts) > 1:
        error = values.std(axis=0, ddof=1) / np.sqrt(len(parts))
    edges = np.linspace(0.0, reach, bins + 1)
    volume = 1.0 / np.mean(1.0 / np.abs(np.linalg.det(cells)))
    return RDF((a, b), 0.5 * (edges[1:] + edges[:-1]), mean, error, len(second) / float(volume))


def radial_distributions(
    trajectory: Trajectory, *, r_max: float | None = None, bin_width: float = 0.05, blocks: int = 10
) -> dict[tuple[str, str], RDF]:
    """:func:`radial_distribution` of every pair of elements."""
    return {
        pair: radial_distribution(trajectory, *pair, r_max=r_max, bin_width=bin_width, blocks=blocks)
        for pair in trajectory.pairs
    }


def rdf_difference(rdf: RDF, reference: RDF) -> float:
    """Integral of |g - g_ref| over the integral of g_ref, on one grid; 0.02 is "within 2 %".

    Raises
    ------
    EquistrideError
        Where the two differ in elements or grid.
    """
    if rdf.pair != reference.pair or len(rdf.r) != len(reference.r) or not np.allclose(rdf.r, reference.r):
        raise EquistrideError(
            "two radial distribution functions on different grids cannot be compared",
            expected=f"{'-'.join(reference.pair)} up to {reference.r[-1]:.2f} A in {len(reference.r)} bins",
            found=f"{'-'.join(rdf.pair)} up to {rdf.r[-1]:.2f} A in {len(rdf.r)} bins",
            hint="compute both with one r_max and one bin_width",
        )
    return float(np.abs(rdf.g - reference.g).sum() / reference.g.sum())


def rdf_noise(rdf: RDF, reference: RDF) -> float:
    """What :func:`rdf_difference` would be for two samples of one distribution, by their block errors.

    A difference near this figure says that the two agree as far as the sampling can tell; NaN where an error
    is unknown.
    """
    expected = np.sqrt(2.0 / np.pi) * np.sqrt(rdf.error**2 + reference.error**2)
    return float(expected.sum() / reference.g.sum())


def coordination_number(rdf: RDF) -> Coordination:
    """Mean number of neighbours up to the first minimum.

    The minimum is the lowest bin between the first two peaks; where g is zero over a stretch, its middle.

    Raises
    ------
    EquistrideError
        Where g has no first peak, or no minimum before r_max.
    """
    peak = _first_peak(rdf)
    low = _first_minimum(rdf, peak)
    return Coordination(float(rdf.running_number[low]), float(rdf.r[low] + 0.5 * rdf.bin_width))


def _smooth(g: Floats) -> Floats:
    return np.convolve(np.pad(g, 1, mode="edge"), [0.25, 0.5, 0.25], mode="valid")


def _first_peak(rdf: RDF) -> int:
    from scipy.signal import find_peaks

    smooth = _smooth(rdf.g)
    tops, _ = find_peaks(np.append(smooth, 0.0), height=1.0, prominence=0.1 * smooth.max(initial=0.0))
    tops = tops[tops < len(smooth)]
    if not len(tops):
        raise EquistrideError(
            f"g({'-'.join(rdf.pair)}) has no peak",
            expected="a maximum above 1",
            found=f"at most {rdf.g.max():.2f} up to {rdf.r[-1]:.2f} A",
            hint="pass a larger r_max",
        )
    near = slice(max(tops[0] - 1, 0), tops[0] + 2)
    return int(near.start + np.argmax(rdf.g[near]))


def _first_minimum(rdf: RDF, peak: int) -> int:
    from scipy.signal import find_peaks

    smooth = _smooth(rdf.g)
    tops, _ = find_peaks(smooth[peak:], prominence=0.1 * min(1.0, smooth.max()))
    later = tops[tops > 1]
    stop = peak + int(later[0]) if len(later) else len(smooth)
    stretch = smooth[peak:stop]
    lowest = np.flatnonzero(stretch <= stretch.min() + 1e-12)
    place = peak + int(lowest[(len(lowest) - 1) // 2])
    if place >= len(smooth) - 1 or smooth[place] > 0.95 * smooth[peak]:
        raise EquistrideError(
            f"g({'-'.join(rdf.pair)}) has no minimum after its first peak",
            expected=f"one between {rdf.r[peak]:.2f} and {rdf.r[-1]:.2f} A",
            hint="pass a larger r_max",
        )
    return place


def _top(x: Floats, y: Floats, k: int) -> float:
    if not 0 < k < len(x) - 1:
        return float(x[k])
    bend = y[k - 1] - 2.0 * y[k] + y[k + 1]
    return float(x[k] + (0.5 * (y[k - 1] - y[k + 1]) / bend * (x[1] - x[0]) if bend < 0.0 else 0.0))


def _minimum_image(
    trajectory: Trajectory, frames: np.ndarray, first: np.ndarray, second: np.ndarray, reach: float, bins: int
) -> Floats:
    import mdtraj

    like = first[0] == second[0]
    if like:
        pairs = first[np.stack(np.triu_indices(len(first), 1), axis=1)]
        scale = (len(first) - 1) / len(first)
    else:
        pairs = np.stack(np.meshgrid(first, second, indexing="ij"), axis=-1).reshape(-1, 2)
        scale = 1.0
    total, weight = np.zeros(bins), 0.0
    size = max(1, _CHUNK // len(pairs))
    for start in range(0, len(frames), size):
        some = frames[start : start + size]
        cells = trajectory.cells[some]
        fractions = np.einsum("fni,fij->fnj", trajectory.positions[some], np.linalg.inv(cells))
        box = lower_triangular(cells)[0] / ANGSTROM_PER_NM
        wrapped = np.einsum("fni,fij->fnj", fractions - np.floor(fractions), box)
        frame_set = mdtraj.Trajectory(wrapped.astype(np.float32), None)
        frame_set.unitcell_vectors = box.astype(np.float32)
        _, g = mdtraj.compute_rdf(frame_set, pairs, r_range=(0.0, reach / ANGSTROM_PER_NM), n_bins=bins)
        share = float((1.0 / np.abs(np.linalg.det(cells))).sum())
        total += g * share
        weight += share
    return scale * total / weight


def _all_images(
    trajectory: Trajectory, frames: np.ndarray, first: np.ndarray, second: np.ndarray, reach: float, bins: int
) -> Floats:
    edges = np.linspace(0.0, reach, bins + 1)
    counts, ideal = np.zeros(bins), np.zeros(bins)
    shells = 4.0 / 3.0 * np.pi * np.diff(edges**3)
    for k in frames:
        cell, positions = trajectory.cells[k], trajectory.positions[k]
        _, _, vectors = neighbours(positions[first], positions[second], cell, reach)
        counts += np.histogram(np.linalg.norm(vectors, axis=1), bins=edges)[0]
        ideal += len(first) * len(second) / abs(np.linalg.det(cell)) * shells
    return counts / ideal
