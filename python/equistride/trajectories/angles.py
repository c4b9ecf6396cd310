"""Distributions of bond angles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from equistride.errors import EquistrideError
from equistride.series import Floats
from equistride.trajectories.periodic import Ints, neighbours
from equistride.trajectories.trajectory import Trajectory

_BOND_STRETCH = 1.25


@dataclass(frozen=True)
class AngleDistribution:
    """Distribution of the angle end-centre-end.

    Attributes
    ----------
    triple
        Elements (end, centre, end).
    angle
        [K] centres of the bins (degrees).
    density
        [K] 1/degree; the integral is 1.
    mean, spread
        Mean and standard deviation (degrees).
    per_centre
        Angles for each centre atom and frame.
    cutoff
        Longest bond (A), for each of the two ends.
    """

    triple: tuple[str, str, str]
    angle: Floats
    density: Floats
    mean: float
    spread: float
    per_centre: float
    cutoff: tuple[float, float]


def bond_cutoff(a: str, b: str) -> float:
    """1.25 times the sum of the covalent radii (A) (Cordero et al., Dalton Trans. 2832 (2008), as ASE has
    them).
    """
    from ase.data import atomic_numbers, covalent_radii

    return float(_BOND_STRETCH * (covalent_radii[atomic_numbers[a]] + covalent_radii[atomic_numbers[b]]))


def angle_distribution(
    trajectory: Trajectory,
    end: str,
    centre: str,
    other_end: str | None = None,
    *,
    cutoff: float | None = None,
    bin_width: float = 1.0,
) -> AngleDistribution:
    """Angles between the bonds of a centre atom, all periodic images counted.

    Parameters
    ----------
    trajectory
        With or without a box.
    end, centre, other_end
        Elements; ``other_end`` is ``end`` where it is left out.
    cutoff
        Longest bond (A); see :func:`bond_cutoff` otherwise.
    bin_width
        Width of a bin (degrees).

    Returns
    -------
    AngleDistribution

    Raises
    ------
    EquistrideError
        For an element that is not there, or where no centre has two bonds.
    """
    far = other_end or end
    if not 0.0 < bin_width <= 90.0:
        raise EquistrideError(
            "the width of a bin must lie between 0 and 90 degrees", found=bin_width, hint="pass 1.0, say"
        )
    lengths = (cutoff or bond_cutoff(centre, end), cutoff or bond_cutoff(centre, far))
    middle, first, second = (trajectory.indices(e) for e in (centre, end, far))
    cells = trajectory.cells if trajectory.periodic else None
    edges = np.linspace(0.0, 180.0, round(180.0 / bin_width) + 1)
    counts, total, squares, number = np.zeros(len(edges) - 1), 0.0, 0.0, 0
    for k, positions in enumerate(trajectory.positions):
        cell = None if cells is None else cells[k]
        i, _, u = neighbours(positions[middle], positions[first], cell, lengths[0])
        if far == end:
            p, q = _within_groups(i, len(middle))
            v = u[q]
        else:
            m, _, w = neighbours(positions[middle], positions[second], cell, lengths[1])
            p, q = _between_groups(i, m, len(middle))
            v = w[q]
        u = u[p]
        cosine = np.einsum("pi,pi->p", u, v) / (np.linalg.norm(u, axis=1) * np.linalg.norm(v, axis=1))
        angles = np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))
        counts += np.histogram(angles, bins=edges)[0]
        total += float(angles.sum())
        squares += float((angles**2).sum())
        number += len(angles)
    name = f"{end}-{centre}-{far}"
    if number == 0:
        raise EquistrideError(
            f"there is no angle {name}",
            expected=f"{centre} atoms with two bonds of at most {lengths[0]:.2f} and {lengths[1]:.2f} A",
            found="none",
            hint="pass a longer cutoff or other elements",
        )
    mean = total / number
    spread = float(np.sqrt(max(squares / number - mean**2, 0.0)))
    density = counts / (number * (edges[1] - edges[0]))
    per_centre = number / (len(middle) * trajectory.frames)
    return AngleDistribution(
        (end, centre, far), 0.5 * (edges[1:] + edges[:-1]), density, mean, spread, per_centre, lengths
    )


def _within_groups(groups: Ints, count: int) -> tuple[Ints, Ints]:
    """Indices of every unordered pair of entries with one group number; ``groups`` is sorted."""
    p, q = _between_groups(groups, groups, count)
    return p[p < q], q[p < q]


def _between_groups(left: Ints, right: Ints, count: int) -> tuple[Ints, Ints]:
    """Indices (into left, into right) of every pair of entries with one group number; both are sorted."""
    sizes = np.bincount(right, minlength=count)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    repeat = sizes[left]
    p = np.repeat(np.arange(len(left)), repeat)
    within = np.arange(len(p)) - np.repeat(np.cumsum(repeat) - repeat, repeat)
    return p, starts[left[p]] + within
