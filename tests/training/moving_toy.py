"""A toy that moves: SiO4 held together by Morse wells, its dynamics integrated in small steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase.data import atomic_masses
from test_training import morse

from equistride.data.frames import Frames
from equistride.units import ACCELERATION

NUMBERS = np.array([14, 8, 8, 8, 8])
CORNERS = 0.95 * np.array([[0, 0, 0], [1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=float)
SPACING_FS = 2.0


def run(frames: int, seed: int, steps: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Return positions and velocities [frames, 5, 3], ``SPACING_FS`` apart, by velocity Verlet without drift or rotation."""
    rng = np.random.default_rng(seed)
    mass = atomic_masses[NUMBERS][:, None]
    x, v = CORNERS + 0.04 * rng.normal(size=CORNERS.shape), 0.003 * rng.normal(size=CORNERS.shape)
    v -= (mass * v).sum(0) / mass.sum()
    dt = SPACING_FS / steps
    acceleration = lambda x: ACCELERATION * morse(NUMBERS, x)[1] / mass  # noqa: E731
    a, out = acceleration(x), [(x, v)]
    for _ in range(frames - 1):
        for _ in range(steps):
            v = v + 0.5 * dt * a
            x = x + dt * v
            a = acceleration(x)
            v = v + 0.5 * dt * a
        out.append((x, v))
    return np.stack([o[0] for o in out]), np.stack([o[1] for o in out])


def write_folder(path: Path) -> Path:
    """Write 30 runs of 12 fs for training and 6 for the test, a frame each 2 fs."""
    write(path / "train.npz", 30, 100)
    write(path / "test.npz", 6, 900)
    return path


def write(path: Path, segments: int, seed: int, frames: int = 7) -> Frames:
    """Write runs of the toy as one npz file without labels."""
    runs = [run(frames, seed + k) for k in range(segments)]
    count = segments * frames
    data = Frames(
        numbers=NUMBERS,
        positions=np.concatenate([r[0] for r in runs]),
        velocities=np.concatenate([r[1] for r in runs]),
        cell=np.zeros((count, 3, 3)),
        pbc=np.zeros(3, bool),
        energy=np.full(count, np.nan),
        forces=np.full((count, 5, 3), np.nan),
        segment=np.arange(count) // frames,
        time_fs=SPACING_FS * (np.arange(count) % frames),
    )
    data.save(path)
    return data
