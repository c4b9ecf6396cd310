"""Lattice vectors as rows: whether they span a volume, how thick the cell is, and its lower triangular form."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


def has_box(cells: Floats) -> bool:
    """Whether every cell of ``cells`` [..., 3, 3] spans a volume."""
    return bool((np.abs(np.linalg.det(cells)) > 1e-6).all())


def heights(cell: Floats) -> Floats:
    """Distances between opposite faces of the cell [3] (A); ``cell`` [3, 3] holds the vectors as rows."""
    area = np.linalg.norm(np.cross(np.roll(cell, -1, axis=0), np.roll(cell, -2, axis=0)), axis=1)
    return np.abs(np.linalg.det(cell)) / area


def lower_triangular(cells: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Turn cells so that a lies along x and b in the xy plane, as OpenMM, LAMMPS and mdtraj want them.

    Parameters
    ----------
    cells
        [..., 3, 3] (A) that span a volume.

    Returns
    -------
    turned, rotation
        Both [..., 3, 3]; ``turned = cells @ rotation``, with a positive diagonal. Positions, velocities and forces turn
        by ``@ rotation`` too. Of a left-handed cell the rotation holds a reflection.
    """
    q, r = np.linalg.qr(np.swapaxes(np.asarray(cells, np.float64), -1, -2))
    signs = np.sign(np.diagonal(r, axis1=-2, axis2=-1))
    return np.tril(np.swapaxes(signs[..., :, None] * r, -1, -2)), q * signs[..., None, :]
