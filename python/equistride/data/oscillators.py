"""Coupled oscillators: five different atoms, a spring between any two, in motion; the synthetic system of FRAMES.

Small enough to train a network on in a minute, with exact forces, and with frames that follow each other.
"""

from __future__ import annotations

import numpy as np
from ase.data import atomic_masses
from numpy.typing import NDArray

from equistride.data.frames import Frames
from equistride.units import ACCELERATION, BOLTZMANN

Array = NDArray[np.float64]
NUMBERS = np.array([6, 7, 8, 9, 16])


def springs(seed: int) -> tuple[Array, Array, Array]:
    """Return stiffness [5, 5] (eV/A^2), rest lengths [5, 5] (A) and positions at rest [5, 3] (A) of one system."""
    rng = np.random.default_rng(seed)
    while True:
        rest = rng.normal(size=(5, 3)) * 1.2
        lengths = np.linalg.norm(rest[:, None] - rest[None], axis=2)
        if lengths[np.triu_indices(5, 1)].min() > 1.2:
            break
    stiffness = rng.uniform(2.0, 12.0, (5, 5))
    stiffness = np.triu(stiffness, 1)
    return stiffness + stiffness.T, lengths, rest


def energy_and_forces(positions: Array, stiffness: Array, lengths: Array) -> tuple[Array, Array]:
    """Return energies [...] (eV), half the sum over pairs of k (r - l)^2, and forces (eV/A) of positions [..., 5, 3] (A)."""
    apart = positions[..., :, None, :] - positions[..., None, :, :]
    r = np.sqrt((apart**2).sum(-1)) + np.eye(len(lengths))
    stretch = np.where(np.eye(len(lengths), dtype=bool), 0.0, r - lengths)
    return 0.25 * (stiffness * stretch**2).sum((-2, -1)), -((stiffness * stretch / r)[..., None] * apart).sum(-2)


def trajectories(
    count: int, frames: int, *, spacing_fs: float = 2.0, temperature_K: float = 600.0, seed: int = 0, system: int = 0
) -> Frames:
    """Return ``count`` trajectories (segments) of ``frames`` frames each, velocity Verlet at 0.5 fs.

    Parameters
    ----------
    count, frames
        Each trajectory starts from rest positions with velocities of its own and is left to itself for 500 fs.
    spacing_fs
        Time between frames; a multiple of 0.5 fs.
    temperature_K
        Twice that which is left once the springs have taken their half.
    seed, system
        Of the velocities, and of the springs.
    """
    stiffness, lengths, rest = springs(system)
    mass, dt, steps = atomic_masses[NUMBERS][:, None], 0.5, round(spacing_fs / 0.5)
    rng = np.random.default_rng((system, seed))
    r = np.repeat(rest[None], count, 0)
    v = rng.normal(size=r.shape) * np.sqrt(2 * BOLTZMANN * temperature_K * ACCELERATION / mass)
    v -= (mass * v).sum(1, keepdims=True) / mass.sum()
    energy, f = energy_and_forces(r, stiffness, lengths)
    kept: list[tuple[Array, Array, Array, Array]] = []
    for step in range(1000 + (frames - 1) * steps + 1):
        if step >= 1000 and (step - 1000) % steps == 0:
            kept.append((r, v, energy, f))
        v = v + 0.5 * dt * ACCELERATION * f / mass
        r = r + dt * v
        energy, f = energy_and_forces(r, stiffness, lengths)
        v = v + 0.5 * dt * ACCELERATION * f / mass
    positions, velocities, energies, forces = (
        np.stack(x, 1).reshape(count * frames, *x[0].shape[1:]) for x in zip(*kept, strict=True)
    )
    return Frames(
        numbers=NUMBERS, pbc=np.zeros(3, bool), positions=positions, cell=np.zeros((count * frames, 3, 3)), energy=energies,
        forces=forces, velocities=velocities, segment=np.repeat(np.arange(count), frames),
        time_fs=np.tile(np.arange(frames) * spacing_fs, count), masses=mass[:, 0].copy(),
    )  # fmt: skip
