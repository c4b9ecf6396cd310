"""Follow atoms across periodic boundaries."""

from __future__ import annotations

import numpy as np

from equistride.cell import Floats, has_box
from equistride.errors import EquistrideError


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
            hint="pass the cell of the run; without a box positions are unwrapped already",
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
            hint="write frames more often, or write unwrapped positions",
        )
    steps -= np.einsum("fni,fij->fnj", turns, cells[1:])
    return np.concatenate([positions[:1], positions[:1] + np.cumsum(steps, axis=0)])
