"""Periodic cells of any shape: heights, standard form, pairs within a cutoff, unwrapping."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equistride.analysis.blocks import Floats
from equistride.errors import EquistrideError

Ints = NDArray[np.int64]


def heights(cell: Floats) -> Floats:
    """Distances between opposite faces of the cell [3] (A); ``cell`` [3, 3] holds the vectors as rows."""
    area = np.linalg.norm(np.cross(np.roll(cell, -1, axis=0), np.roll(cell, -2, axis=0)), axis=1)
    return np.abs(np.linalg.det(cell)) / area


def has_box(cells: Floats) -> bool:
    """Whether every cell of ``cells`` [..., 3, 3] spans a volume."""
    return bool((np.abs(np.linalg.det(cells)) > 1e-6).all())


def standard_form(cells: Floats) -> Floats:
    """The same cells turned so that a lies along x and b in the xy plane (lower triangular) [..., 3, 3]."""
    return np.linalg.cholesky(cells @ np.swapaxes(cells, -1, -2))


def neighbours(centres: Floats, others: Floats, cell: Floats | None, cutoff: float) -> tuple[Ints, Ints, Floats]:
    """Every pair closer than ``cutoff``, all periodic images counted.

    Parameters
    ----------
    centres, others
        [A, 3] and [B, 3] positions (A), wrapped or not.
    cell
        [3, 3] lattice vectors as rows (A), or None without a box.
    cutoff
        Distance (A); may be longer than the cell.

    Returns
    -------
    i, j, vectors
        Indices into ``centres`` and ``others`` [P], and others[j] + image - centres[i] [P, 3]. An atom is not
        its own neighbour, but its images are. Sorted by i, then j.
    """
    from scipy.spatial import cKDTree

    if cell is None:
        images, index = others, np.arange(len(others))
    else:
        inverse = np.linalg.inv(cell)
        centres = _wrapped(centres @ inverse) @ cell
        fractions = _wrapped(others @ inverse)
        reach = cutoff / heights(cell) + 1e-9
        shells = np.ceil(reach).astype(int)
        shifts = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in shells), indexing="ij"), axis=-1)
        spread = fractions[:, None, :] + shifts.reshape(1, -1, 3)
        index, which = np.nonzero(((spread > -reach) & (spread < 1.0 + reach)).all(axis=2))
        images = spread[index, which] @ cell
    found = cKDTree(centres).sparse_distance_matrix(cKDTree(images), cutoff, output_type="ndarray")
    found = found[found["v"] > 1e-8]
    i, k = found["i"].astype(np.int64), found["j"].astype(np.int64)
    order = np.lexsort((index[k], i))
    i, k = i[order], k[order]
    return i, index[k].astype(np.int64), images[k] - centres[i]


def unwrap(positions: Floats, cell: Floats) -> Floats:
    """Follow atoms across periodic boundaries.

    Each step is taken as the shortest one in fractional coordinates and added up in cartesian ones (the
    scheme of von Buelow et al., J. Chem. Phys. 153, 021101 (2020), which stays right when the cell changes).
    Unwrapped positions come back as they are.

    Parameters
    ----------
    positions
        [F, N, 3] (A), wrapped or unwrapped.
    cell
        [3, 3] or [F, 3, 3] lattice vectors as rows (A), any shape.

    Returns
    -------
    ndarray
        [F, N, 3] unwrapped positions (A); the first frame as given.

    Raises
    ------
    EquistrideError
        Where an atom moves so far between two frames that the image is a guess.
    """
    cells = np.broadcast_to(cell, (len(positions), 3, 3))
    if not has_box(cells):
        raise EquistrideError(
            "unwrapping needs a box",
            expected="three lattice vectors that span a volume",
            found="a flat or empty cell",
            mend="pass the cell of the run; without a box positions are unwrapped already",
        )
    steps = np.diff(positions, axis=0)
    fractions = np.einsum("fni,fij->fnj", steps, np.linalg.inv(cells[1:]))
    turns = np.round(fractions)
    farthest = float(np.abs(fractions - turns).max(initial=0.0))
    if farthest > 0.45:
        raise EquistrideError(
            "an atom moves almost half the cell between two frames, so its path cannot be followed",
            expected="steps below 0.45 of a lattice vector",
            found=f"{farthest:.2f}",
            mend="write frames more often, or write unwrapped positions",
        )
    steps -= np.einsum("fni,fij->fnj", turns, cells[1:])
    return np.concatenate([positions[:1], positions[:1] + np.cumsum(steps, axis=0)])


def _wrapped(fractions: Floats) -> Floats:
    wrapped = fractions - np.floor(fractions)
    return np.where(wrapped >= 1.0, 0.0, wrapped)
