"""Systems whose answers are known."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from equistride.trajectories import Trajectory
from equistride.units import BOLTZMANN, EV_PER_KINETIC

TRICLINIC = np.array([[10.0, 0.0, 0.0], [-3.5, 9.0, 0.0], [2.0, -2.5, 8.5]])
STILL = np.zeros((3, 3))


def shared_data(name: str) -> Path:
    """Path of a shared data file, or skip."""
    root = Path(os.environ.get("EQUISTRIDE_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (root / name).is_file():
        pytest.skip(f"{name} is not in {root} (set EQUISTRIDE_SHARED_DATA)")
    return root / name


def gas(atoms: int, frames: int, cell: np.ndarray, *, seed: int = 1, symbols: list[str] | None = None) -> Trajectory:
    """Independent uniform positions."""
    rng = np.random.default_rng(seed)
    positions = rng.random((frames, atoms, 3)) @ cell
    return Trajectory(positions, tuple(symbols or ["Ar"] * atoms), np.arange(frames) * 1.0, cell)


def thermal(
    symbols: list[str], frames: int, kelvin: dict[str, float], *, seed: int = 2, fixed_momentum: bool = True
) -> Trajectory:
    """Independent Maxwell-Boltzmann velocities, each element at its own temperature."""
    from equistride.trajectories.trajectory import standard_masses

    rng = np.random.default_rng(seed)
    masses = standard_masses(tuple(symbols))
    warm = np.array([kelvin[s] for s in symbols])
    width = np.sqrt(BOLTZMANN * warm / (EV_PER_KINETIC * masses))
    velocities = rng.normal(size=(frames, len(symbols), 3)) * width[:, None]
    if fixed_momentum:
        velocities -= np.einsum("n,fni->fi", masses, velocities)[:, None] / masses.sum()
    return Trajectory(
        np.zeros((frames, len(symbols), 3)),
        tuple(symbols),
        np.arange(frames) * 5.0,
        STILL,
        velocities=velocities,
    )


def oscillators(
    frequencies: list[float], dt: float, frames: int, *, pieces: int = 1, atoms: int = 30, symbol: str = "Si"
) -> Trajectory:
    """Free harmonic oscillators of equal energy, frequencies in THz, dt in fs."""
    rng = np.random.default_rng(3)
    nu = rng.choice(frequencies, size=(atoms, 3))
    omega = 2e-3 * np.pi * nu
    t = np.arange(frames)[:, None, None] * dt
    where, moving, piece = [], [], []
    for k in range(pieces):
        phase = rng.uniform(0, 2 * np.pi, (atoms, 3))
        where.append(np.sin(omega * t + phase) / nu)
        moving.append(omega * np.cos(omega * t + phase) / nu)
        piece += [k] * frames
    return Trajectory(
        np.concatenate(where), (symbol,) * atoms, np.arange(frames * pieces) * dt, STILL,
        velocities=np.concatenate(moving), pieces_of=np.array(piece),
    )  # fmt: skip


def walk(
    atoms: int, frames: int, dt: float, coefficient: float, *, cell: np.ndarray = STILL, seed: int = 4
) -> Trajectory:
    """Random walk with a known diffusion coefficient [A^2/fs], unwrapped."""
    rng = np.random.default_rng(seed)
    start = rng.random((1, atoms, 3)) @ (cell if cell.any() else 10.0 * np.eye(3))
    steps = rng.normal(size=(frames - 1, atoms, 3)) * np.sqrt(2.0 * coefficient * dt)
    positions = np.concatenate([start, start + np.cumsum(steps, axis=0)])
    return Trajectory(positions, ("Ar",) * atoms, np.arange(frames) * dt, cell)


def coloured(rng: np.random.Generator, samples: int, time_constant: float) -> np.ndarray:
    """Unit-variance noise with exp(-t / time_constant) for its autocorrelation."""
    from scipy.signal import lfilter

    memory = np.exp(-1.0 / time_constant)
    white = rng.normal(size=samples + int(20 * time_constant))
    return lfilter([np.sqrt(1.0 - memory**2)], [1.0, -memory], white)[-samples:]
