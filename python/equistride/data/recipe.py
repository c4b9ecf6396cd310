"""Recipes of reference data: which states of a crystal are run under a classical potential, and how often they are read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from equistride.data.frames import Frames
from equistride.data.lammps import LammpsRun, Snapshot
from equistride.units import EV_PER_KINETIC

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Condition:
    """One state point of the reference data.

    ``segments`` NVE segments at ``temperature`` [K], each in its own cell whose strain components are drawn
    from a normal distribution of width ``strain``.
    """

    temperature: float
    segments: int
    strain: float = 0.0


@dataclass(frozen=True)
class Recipe(ABC):
    """How reference frames are made: a Langevin run, from which NVE segments are branched.

    Each segment has ``frames`` frames, ``stride_fs`` apart, in NVE (velocity Verlet, ``timestep_fs``), so positions and
    velocities belong to the same instant and no thermostat touches a pair. Between segments the system is thermalised for
    ``decorrelate_fs``; a new cell starts from fresh velocities and ``equilibrate_fs``.
    """

    num_atoms: int
    conditions: tuple[Condition, ...]
    frames: int = 11
    stride_fs: float = 30.0
    timestep_fs: float = 1.0
    equilibrate_fs: float = 2000.0
    decorrelate_fs: float = 600.0
    potential_file: str = ""
    seed: int = 1

    @abstractmethod
    def ideal(self) -> Atoms:
        """Return the crystal that the runs start from; its cell is lower triangular."""

    def steps(self, femtoseconds: float) -> int:
        """Number of time steps in ``femtoseconds``."""
        return round(femtoseconds / self.timestep_fs)


def segment_of(
    shots: Sequence[Snapshot], numbers: NDArray[np.int64], cell: Array, masses: Array, *, number: int, stride_fs: float,
    temperature: float,
) -> Frames:  # fmt: skip
    """Return snapshots of one NVE segment as frames.

    Parameters
    ----------
    shots
        ``stride_fs`` apart.
    numbers, masses
        Of the atoms [N]; amu.
    cell
        [3, 3] A; zeros where there is none.
    number
        Of the segment.
    temperature
        K, of the bath before it.
    """
    count, energies = len(shots), np.array([s.energy for s in shots])
    kinetic = [0.5 * EV_PER_KINETIC * float((masses[:, None] * s.velocities**2).sum()) for s in shots]
    return Frames(
        numbers=numbers.astype(np.int64),
        positions=np.stack([s.positions for s in shots]),
        velocities=np.stack([s.velocities for s in shots]),
        forces=np.stack([s.forces for s in shots]),
        energy=energies,
        virial=np.stack([s.virial for s in shots]),
        cell=np.repeat(cell[None], count, 0),
        pbc=np.full(3, bool(cell.any())),
        segment=np.full(count, number),
        time_fs=stride_fs * np.arange(count, dtype=np.float64),
        temperature_K=np.full(count, temperature),
        total_energy=np.array(kinetic) + energies,
    )


def generate(recipe: Recipe) -> Iterator[tuple[int, int, Frames]]:
    """Run the recipe; yield (segments done, segments in all, frames of this segment).

    Segments are independent of each other given the seed, so two runs with one seed agree bit for bit.
    """
    ideal = recipe.ideal()
    symbols = ideal.get_chemical_symbols()
    masses = ideal.get_masses()
    mass_of = dict(zip(symbols, masses.tolist(), strict=True))
    rng = np.random.default_rng(recipe.seed)
    total, done = sum(c.segments for c in recipe.conditions), 0
    for condition in recipe.conditions:
        run: LammpsRun | None = None
        for _ in range(condition.segments):
            seed = int(rng.integers(1, 800_000_000))
            if run is None or condition.strain > 0:
                if run is not None:
                    run.close()
                strain = np.eye(3) + np.tril(
                    rng.normal(scale=condition.strain, size=(3, 3)) if condition.strain else np.zeros((3, 3))
                )
                cell = ideal.cell.array @ strain
                run = LammpsRun(
                    ideal.get_scaled_positions() @ cell,
                    cell,
                    symbols,
                    mass_of,
                    potential_file=recipe.potential_file,
                    timestep_fs=recipe.timestep_fs,
                )
                run.thermalise(
                    condition.temperature, recipe.steps(recipe.equilibrate_fs), damping_fs=100.0, seed=seed, fresh=True
                )
            run.thermalise(condition.temperature, recipe.steps(recipe.decorrelate_fs), damping_fs=100.0, seed=seed + 1)
            shots = [run.nve(recipe.steps(recipe.stride_fs) if f else 0) for f in range(recipe.frames)]
            done += 1
            yield (
                done,
                total,
                segment_of(
                    shots, ideal.numbers, cell, masses, number=done - 1, stride_fs=recipe.stride_fs,
                    temperature=condition.temperature,
                ),
            )  # fmt: skip
        if run is not None:
            run.close()


def write(recipe: Recipe, path: Path, progress: object = None) -> Frames:
    """Run the recipe and write one npz file; returns the frames. ``progress(done, total)`` is called after each segment."""
    parts = []
    for done, total, frames in generate(recipe):
        parts.append(frames)
        if callable(progress):
            progress(done, total)
    whole = Frames.concatenate(parts)
    whole.save(path)
    return whole
