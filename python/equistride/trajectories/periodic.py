"""Pairs of atoms within a cutoff, in periodic cells of any shape."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equistride.cell import heights
from equistride.series import Floats

Ints = NDArray[np.int64]


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


def _wrapped(fractions: Floats) -> Floats:
    wrapped = fractions - np.floor(fractions)
    return np.where(wrapped >= 1.0, 0.0, wrapped)
