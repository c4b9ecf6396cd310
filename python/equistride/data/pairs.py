"""Pairs of frames one stride apart, from trajectories: which frames follow each other, and which to keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from equistride.data.frames import Frames
from equistride.data.unwrap import unwrap
from equistride.errors import EquistrideError
from equistride.units import ACCELERATION


def spacing(frames: Frames) -> float:
    """Return the time between consecutive frames [fs].

    Raises
    ------
    EquistrideError
        Where there are no velocities or time stamps, or the frames of a segment are not evenly spaced.
    """
    if frames.velocities is None:
        raise EquistrideError(
            "the data has no velocities", expected="velocities [frames, atoms, 3] in A/fs",
            hint="make the data with `equistride data pairs` from a trajectory that has them; DCD and XTC have none",
        )  # fmt: skip
    if not np.isfinite(frames.velocities).all():
        bad = int(np.argwhere(~np.isfinite(frames.velocities))[0][0])
        raise EquistrideError(f"the velocities of frame {bad} are not finite", hint="drop that frame")
    if frames.time_fs is None:
        raise EquistrideError(
            "the data has no time stamps", expected="time_fs [frames]", hint="add them to the npz file"
        )
    steps = np.diff(frames.time_fs)
    steps = steps if frames.segment is None else steps[np.diff(frames.segment) == 0]
    if not len(steps):
        raise EquistrideError("no two frames of the data follow each other", expected="segments of 2 frames or more")
    usual = float(np.median(steps))
    if usual <= 0 or np.abs(steps - usual).max() > 1e-3 * abs(usual):
        raise EquistrideError(
            "the frames of a segment are not evenly spaced in time", expected=f"{usual:g} fs",
            found=f"{steps.min():g} to {steps.max():g} fs", hint="give every stretch without a gap a segment of its own",
        )  # fmt: skip
    return usual


def frames_apart(frames: Frames, stride_fs: float) -> int:
    """Return how many frames lie ``stride_fs`` apart; the error where that is no whole number names the spacing."""
    usual = spacing(frames)
    ratio = stride_fs / usual
    if round(ratio) < 1 or abs(ratio - round(ratio)) > 1e-3:
        raise EquistrideError(
            "the stride is not a multiple of the time between frames", expected=f"a multiple of {usual:g} fs",
            found=f"{stride_fs:g} fs", hint="choose another stride, or write frames more often",
        )  # fmt: skip
    return round(ratio)


def chains(frames: Frames, stride_fs: float, rollout: int) -> NDArray[np.int64]:
    """Return the first frames from which ``rollout`` strides stay in one segment."""
    reach = frames_apart(frames, stride_fs) * rollout
    segment = np.zeros(len(frames), int) if frames.segment is None else frames.segment
    return np.flatnonzero(segment[reach:] == segment[:-reach]) if len(frames) > reach else np.zeros(0, np.int64)


def synchronise(frames: Frames, timestep_fs: float) -> Frames:
    """Return the frames with velocities of the time of the positions, where they are half a time step old.

    Leapfrog integrators (OpenMM's Verlet and LangevinMiddle, GROMACS's md, Amber's) report v(t - dt/2); with the forces at t,
    v(t) = v(t - dt/2) + F dt / 2m.

    Parameters
    ----------
    frames
        With velocities, forces [eV/A] and masses.
    timestep_fs
        dt of the integrator, not the time between frames.

    Raises
    ------
    EquistrideError
        Where there are no velocities, forces or masses.
    """
    if frames.velocities is None or frames.masses is None:
        lacking = "velocities" if frames.velocities is None else "masses"
        raise EquistrideError(
            f"the trajectory has no {lacking}", hint="write them while the simulation runs; DCD and XTC have none"
        )
    if not np.isfinite(frames.forces).all():
        raise EquistrideError(
            "velocities half a step old cannot be corrected without forces", expected="forces in every frame",
            hint="write forces too, or use an integrator that reports synchronous velocities (velocity Verlet)",
        )  # fmt: skip
    kick = ACCELERATION * frames.forces / frames.masses[:, None] * (0.5 * timestep_fs)
    return replace(frames, velocities=frames.velocities + kick)


def select_pairs(
    frames: Frames, stride_fs: float, *, spacing_fs: float | None = None, skip_fs: float = 0.0, segment: int = 11,
    thin: int = 1,
) -> Frames:  # fmt: skip
    """Return the frames of a trajectory that training needs, unwrapped, in segments.

    Parameters
    ----------
    frames
        A trajectory, or several one after the other (``segment`` tells them apart).
    stride_fs
        Time from the one frame of a pair to the other.
    spacing_fs
        Time between the frames kept; the stride where left out. A shorter one keeps pairs of shorter strides too, and pairs that
        overlap; it must divide the stride.
    skip_fs
        Leave out the beginning of each trajectory.
    segment
        Frames of a segment; a segment goes to training or validation as a whole, and no pair crosses two.
    thin
        Keep every n-th segment: what follows at once is correlated.

    Raises
    ------
    EquistrideError
        Where velocities or times are missing, the stride or the spacing do not fit the frames, the cell changes, an atom cannot
        be followed across the boundary, or nothing is left.
    """
    kept = frames_apart(frames, spacing_fs or stride_fs)
    length = frames_apart(frames, stride_fs)
    if length % kept:
        raise EquistrideError(
            "the spacing does not divide the stride", expected=f"{stride_fs:g} fs over a whole number", found=f"{spacing_fs:g} fs"
        )  # fmt: skip
    if segment <= length // kept:
        raise EquistrideError(
            "a segment is too short for one pair", expected=f"{length // kept + 1} frames or more", found=segment
        )
    usual = spacing(frames)
    parts, number = [], 0
    for part in _stretches(frames):
        path = _followed(frames[part])[round(skip_fs / usual) :: kept]
        for first in range(0, len(path), segment * thin):
            piece = path[first : first + segment]
            if len(piece) > length // kept:
                parts.append(replace(piece, segment=np.full(len(piece), number)))
                number += 1
    if not parts:
        raise EquistrideError(
            "no pair of frames is left", expected=f"a trajectory of more than {skip_fs + stride_fs:g} fs",
            found=f"{usual * max(p.stop - p.start - 1 for p in _stretches(frames)):g} fs", hint="lower skip or stride",
        )  # fmt: skip
    return Frames.concatenate(parts)


def _stretches(frames: Frames) -> list[slice]:
    """Return the slices of consecutive frames of one segment."""
    if frames.segment is None:
        return [slice(0, len(frames))]
    edges = [0, *(np.flatnonzero(np.diff(frames.segment)) + 1).tolist(), len(frames)]
    return [slice(a, b) for a, b in pairwise(edges)]


def _followed(path: Frames) -> Frames:
    """Return a trajectory with its atoms followed across the boundaries of a constant cell."""
    change = float(np.abs(path.cell - path.cell[0]).max())
    if change > 1e-5 * max(1.0, float(np.abs(path.cell[0]).max())):
        raise EquistrideError(
            "the cell changes along the trajectory", expected="constant volume: a propagator moves atoms, not the cell",
            found=f"a change of {change:.3g} A", hint="run NVE, or NVT with a weak thermostat, from a frame of this run",
        )  # fmt: skip
    if not path.pbc.any():
        return path
    if not path.pbc.all():
        raise EquistrideError(
            "pairs need a box along all three axes or none", found=f"pbc = {path.pbc.tolist()}",
            hint="give the open axes a cell that leaves room, and mark them periodic",
        )  # fmt: skip
    return replace(path, positions=np.asarray(unwrap(path.positions, path.cell), np.float64))


def join(trajectories: Sequence[Frames]) -> Frames:
    """Return trajectories of the same atoms one after the other; no pair crosses from one to the next."""
    parts, first = [], 0
    for frames in trajectories:
        own = (
            np.zeros(len(frames), np.int64)
            if frames.segment is None
            else np.unique(frames.segment, return_inverse=True)[1]
        )
        parts.append(replace(frames, segment=own + first))
        first += int(own.max()) + 1
    return Frames.concatenate(parts)
