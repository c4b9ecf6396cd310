"""A ball-and-stick picture of the system: a scene that the page can turn, and a still image."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from numpy.typing import NDArray

from equistride.errors import EquistrideError
from equistride.series import Floats
from equistride.trajectories.angles import bond_cutoff
from equistride.trajectories.msd import unwrapped
from equistride.trajectories.periodic import Ints, neighbours
from equistride.trajectories.trajectory import Trajectory

_COLOURS = {
    "H": "#e9e6df", "C": "#5f6b78", "N": "#4f77b8", "O": "#cf5a4e", "Si": "#e3b677", "Al": "#9fb0bd",
    "Na": "#8f7cc3", "Cl": "#6fae78", "S": "#d9b93f",
}  # fmt: skip
_MOST_NUMBERS = 90_000
_MOST_FRAMES = 60
_SMOOTH_FS = 60.0
_SLICES = 32


@dataclass(frozen=True)
class Scene:
    """What to draw.

    Attributes
    ----------
    positions
        [F, M, 3] A about the middle of the scene; M counts the images that complete bonds.
    symbols
        M symbols.
    bonds
        [B, 2] indices.
    corners
        [8, 3] corners of the cell about the same middle (A), or None; corner k has bit 0, 1, 2 for the three
        vectors.
    interval
        Time between frames [fs]; 0 for a still.
    """

    positions: Floats
    symbols: tuple[str, ...]
    bonds: Ints
    corners: Floats | None
    interval: float


def build_scene(trajectory: Trajectory) -> Scene:
    """Choose atoms, images, bonds and frames.

    Atoms are wrapped into the cell. In a cell of two elements the neighbours of each atom of the rarer one
    are completed across the boundary, so that polyhedra and molecules are whole. Frames move where they are
    close enough in time to look smooth.
    """
    first = trajectory.pieces()[0]
    count = min(first.stop - first.start, _MOST_FRAMES)
    smooth = count > 2 and trajectory.interval <= _SMOOTH_FS
    try:
        path = unwrapped(trajectory, slice(first.start, first.start + (count if smooth else 1)))
    except EquistrideError:
        path = trajectory.positions[:1]
    start, index = path[0], np.arange(trajectory.atoms)
    corners = None
    if trajectory.periodic:
        cell = trajectory.cells[first.start]
        fractions = start @ np.linalg.inv(cell)
        start = (fractions - np.floor(fractions)) @ cell
        corners = np.array([[k & 1, k >> 1 & 1, k >> 2 & 1] for k in range(8)]) @ cell
        start, index = _completed(trajectory, start, cell)
    bonds = _bonds(start, [trajectory.symbols[k] for k in index])
    moves = path[:, index] - path[0, index]
    moves -= moves.mean(axis=1, keepdims=True)
    keep = max(1, _MOST_NUMBERS // (3 * len(index)))
    middle = corners.mean(axis=0) if corners is not None else start.mean(axis=0)
    return Scene(
        positions=(start[None] + moves)[:keep] - middle,
        symbols=tuple(trajectory.symbols[k] for k in index),
        bonds=bonds,
        corners=None if corners is None else corners - middle,
        interval=trajectory.interval if smooth and keep > 2 else 0.0,
    )


def scene_data(scene: Scene) -> dict[str, object]:
    """The scene for the page's script: numbers packed as base64, colours and radii by element."""
    elements = sorted(set(scene.symbols))
    scale = float(np.abs(scene.positions).max(initial=1.0)) / 32000.0
    return {
        "scale": scale,
        "frames": len(scene.positions) if scene.interval else 1,
        "atoms": len(scene.symbols),
        "positions": _packed(np.round(scene.positions / scale).astype("<i2")),
        "kinds": _packed(np.array([elements.index(s) for s in scene.symbols], dtype="<u1")),
        "bonds": _packed(scene.bonds.astype("<u2")),
        "elements": [{"symbol": e, "colour": colour_of(e), "radius": radius_of(e)} for e in elements],
        "corners": None if scene.corners is None else np.round(scene.corners, 3).tolist(),
        "view": np.round(view_angles(scene), 4).tolist(),
    }


def draw_scene(scene: Scene, *, pixels: int = 900) -> bytes:
    """A still PNG of the first frame on a transparent ground."""
    turned = scene.positions[0] @ _rotation(*view_angles(scene)).T
    corners = None if scene.corners is None else scene.corners @ _rotation(*view_angles(scene)).T
    everything = turned if corners is None else np.concatenate([turned, corners])
    low, high = everything[:, :2].min(axis=0) - 0.8, everything[:, :2].max(axis=0) + 0.8
    inch = 5.0 / float((high - low).max())
    figure = Figure(figsize=tuple((high - low) * inch), dpi=pixels / 5)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(low[0], high[0])
    axes.set_ylim(low[1], high[1])
    axes.set_axis_off()
    figure.patch.set_alpha(0.0)
    point = 72.0 * inch
    if corners is not None:
        for a, b in ((a, a | 1 << k) for a in range(8) for k in range(3) if not a >> k & 1):
            axes.plot(*corners[[a, b], :2].T, color="#8a8a8a", linewidth=0.8, zorder=0)
    depth, bonds = turned[:, 2], scene.bonds
    shade = np.array([to_rgba(colour_of(s)) for s in scene.symbols])
    middles = 0.5 * (turned[bonds[:, 0]] + turned[bonds[:, 1]])
    behind = np.minimum(depth[bonds[:, 0]], depth[bonds[:, 1]])
    slices = np.linspace(depth.min() - 1e-6, depth.max() + 1e-6, _SLICES + 1)
    for back, front in pairwise(slices):
        some = (behind > back) & (behind <= front)
        for end in (0, 1):
            sticks = np.stack([turned[bonds[some, end], :2], middles[some, :2]], axis=1)
            axes.add_collection(
                LineCollection(
                    list(sticks),
                    colors=shade[bonds[some, end]],
                    linewidths=0.32 * point,
                    capstyle="round",
                    zorder=1,
                )
            )
        here = np.flatnonzero((depth > back) & (depth <= front))
        here = here[np.argsort(depth[here])]
        sizes = np.array([radius_of(scene.symbols[k]) for k in here]) * 2.0 * point
        axes.scatter(
            turned[here, 0],
            turned[here, 1],
            s=sizes**2,
            c=shade[here],
            zorder=1,
            edgecolors="#00000055",
            linewidths=0.4,
        )
    return _png(figure)


def colour_of(symbol: str) -> str:
    """Colour of an element as #rrggbb."""
    if symbol in _COLOURS:
        return _COLOURS[symbol]
    from ase.data import atomic_numbers
    from ase.data.colors import jmol_colors

    return "#" + "".join(f"{round(255 * c):02x}" for c in jmol_colors[atomic_numbers[symbol]])


def radius_of(symbol: str) -> float:
    """Drawn radius of an element (A)."""
    from ase.data import atomic_numbers, covalent_radii

    return round(0.22 + 0.26 * float(covalent_radii[atomic_numbers[symbol]]), 3)


def view_angles(scene: Scene) -> tuple[float, float]:
    """Yaw and pitch (rad) of a view along the edge that is most upright on the other two, tilted so that
    depth shows.
    """
    if scene.corners is None:
        return 0.6, -0.35
    edges = scene.corners[[1, 2, 4]] - scene.corners[0]
    units = edges / np.linalg.norm(edges, axis=1, keepdims=True)
    lean = np.abs(units @ units.T).sum(axis=1) + 0.01 * np.linalg.norm(edges, axis=1) / np.abs(edges).max()
    axis = units[int(np.argmin(np.round(lean, 3)))]
    return float(-np.arctan2(axis[0], axis[2]) + 0.30), float(np.arcsin(axis[1])) * 0.5 - 0.24


def _rotation(yaw: float, pitch: float) -> NDArray[np.float64]:
    cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    return np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]]) @ np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])


def _completed(trajectory: Trajectory, start: Floats, cell: Floats) -> tuple[Floats, Ints]:
    index = np.arange(trajectory.atoms)
    if len(trajectory.elements) != 2 or trajectory.atoms > 1500:
        return start, index
    centre, other = trajectory.elements
    centres, others = trajectory.indices(centre), trajectory.indices(other)
    i, j, vectors = neighbours(start[centres], start[others], cell, bond_cutoff(centre, other))
    if not len(i):
        return start, index
    images = start[centres][i] + vectors
    _, unique = np.unique(np.round(images, 3), axis=0, return_index=True)
    free = np.setdiff1d(others, others[j])
    places = np.concatenate([start[centres], images[unique], start[free]])
    return places, np.concatenate([centres, others[j][unique], free]).astype(np.int64)


def _bonds(positions: Floats, symbols: list[str]) -> Ints:
    elements = sorted(set(symbols))
    kinds = np.array(symbols)
    found = [np.zeros((0, 2), dtype=np.int64)]
    for k, a in enumerate(elements):
        for b in elements[k:]:
            if a == b == "H":
                continue
            first, second = np.flatnonzero(kinds == a), np.flatnonzero(kinds == b)
            i, j, _ = neighbours(positions[first], positions[second], None, bond_cutoff(a, b))
            pair = np.stack([first[i], second[j]], axis=1)
            found.append(pair[pair[:, 0] < pair[:, 1]] if a == b else pair)
    return np.concatenate(found)


def _packed(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()
