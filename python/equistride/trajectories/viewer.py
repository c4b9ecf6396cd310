"""The trajectory in chemiscope's viewer (BSD-3-Clause), which is read from the installed package as a page is written."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from equistride.errors import EquistrideError
from equistride.trajectories.msd import unwrapped
from equistride.trajectories.trajectory import Trajectory
from equistride.units import FS_PER_PS

_MOST_FRAMES = 100
_MOST_PLACES = 60_000
"""Atoms times frames: some 2 MB of the page."""


def viewer_script() -> str:
    """Return chemiscope's program for a page; empty where the package is not installed or keeps it elsewhere."""
    found = find_spec("chemiscope")
    if found is None or found.origin is None:
        return ""
    path = Path(found.origin).parent / "sphinx" / "static" / "chemiscope.min.js"
    return path.read_text(encoding="utf-8").replace("</script", "<\\/script") if path.is_file() else ""


def viewer_data(trajectory: Trajectory) -> dict[str, object]:
    """Return the frames as chemiscope reads them: evenly chosen, atoms on whole paths that begin in the cell.

    Parameters
    ----------
    trajectory
        Frames; positions in A, times in fs.
    """
    piece = trajectory.pieces()[0]
    count = max(1, min(piece.stop - piece.start, _MOST_FRAMES, _MOST_PLACES // trajectory.atoms))
    chosen = np.unique(np.linspace(0, piece.stop - piece.start - 1, count).round().astype(int))
    try:
        path = unwrapped(trajectory, piece)[chosen]
    except EquistrideError:
        path = trajectory.positions[piece][chosen]
    if trajectory.periodic:
        cell = trajectory.cells[piece.start]
        path = path - np.floor(path[0] @ np.linalg.inv(cell)) @ cell
    structures = []
    for frame, places in zip(chosen, np.round(path, 3), strict=True):
        structure = {"size": trajectory.atoms, "names": list(trajectory.symbols)}
        structure |= dict(zip("xyz", places.T.tolist(), strict=True))
        if trajectory.periodic:
            structure["cell"] = np.round(trajectory.cells[piece.start + frame], 4).ravel().tolist()
        structures.append(structure)
    times = (np.asarray(trajectory.time)[piece][chosen] / FS_PER_PS).round(6).tolist()
    return {
        "meta": {"name": trajectory.name or trajectory.formula},
        "structures": structures,
        "properties": {"time": {"target": "structure", "values": times, "units": "ps"}},
        "settings": {"structure": [{"unitCell": trajectory.periodic, "keepOrientation": True, "playbackDelay": 60}]},
    }
