"""alpha-quartz: the structure, and reference trajectories of it under a published SiO2 potential."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.spacegroup import crystal
from numpy.typing import NDArray

from equistride.data.frames import Frames
from equistride.data.lammps import LammpsRun
from equistride.errors import EquistrideError
from equistride.units import EV_PER_KINETIC

Array = NDArray[np.float64]

MASSES = {"O": 15.999, "Si": 28.085}
"""Standard atomic weights [amu]."""
LATTICE = {"SiO.1990.vashishta": (4.846, 5.316), "SiO.1994.vashishta": (5.06, 5.38)}
"""Equilibrium a, c [A] of alpha-quartz at 300 K under each potential file of LAMMPS."""


def quartz(repeats: tuple[int, int, int] = (1, 1, 1), *, a: float = 4.846, c: float = 5.316) -> Atoms:
    """Return alpha-quartz (P3_221) as ``repeats`` of the 9-atom cell with lattice constants a, c [A].

    Fractional coordinates are those of Levien, Prewitt & Weidner, Am. Mineral. 65, 920 (1980).
    Their origin is moved by 2c/3 to that of the International Tables. The cell is lower triangular:
    (a, 0, 0), (-a/2, a sqrt(3)/2, 0), (0, 0, c).
    """
    atoms = crystal(
        ["Si", "O"],
        [(0.4697, 0.0, 2 / 3), (0.4133, 0.2672, 0.1188 + 2 / 3)],
        spacegroup=154,
        cellpar=[a, a, c, 90, 90, 120],
    )
    atoms.info.clear()
    atoms = atoms.repeat(repeats)
    del atoms.arrays["spacegroup_kinds"]
    return atoms


def repeats_for(num_atoms: int) -> tuple[int, int, int]:
    """Return the repeats (n, n, m) of the most cubic quartz cell with ``num_atoms`` atoms.

    Raises
    ------
    EquistrideError
        Where the number is not 9 n^2 m.
    """
    cells, rest = divmod(num_atoms, 9)
    found = [(n, n, cells // n**2) for n in range(1, 200) if not rest and cells and cells % n**2 == 0]
    if not found:
        raise EquistrideError(
            f"no quartz cell has {num_atoms} atoms", expected="9 n^2 m atoms, for example 72, 162, 576, 4374"
        )
    return min(found, key=lambda r: abs(np.log(r[0] * 4.85 / (r[2] * 5.32))))


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
class QuartzRecipe:
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
    potential_file: str = "SiO.1990.vashishta"
    seed: int = 1

    def steps(self, femtoseconds: float) -> int:
        """Number of time steps in ``femtoseconds``."""
        return round(femtoseconds / self.timestep_fs)


def generate(recipe: QuartzRecipe) -> Iterator[tuple[int, int, Frames]]:
    """Run the recipe; yield (segments done, segments in all, frames of this segment).

    Segments are independent of each other given the seed, so two runs with one seed agree bit for bit.
    """
    a, c = LATTICE.get(recipe.potential_file, LATTICE["SiO.1990.vashishta"])
    ideal = quartz(repeats_for(recipe.num_atoms), a=a, c=c)
    symbols = ideal.get_chemical_symbols()
    masses = np.array([MASSES[s] for s in symbols])
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
                    MASSES,
                    potential_file=recipe.potential_file,
                    timestep_fs=recipe.timestep_fs,
                )
                run.thermalise(
                    condition.temperature, recipe.steps(recipe.equilibrate_fs), damping_fs=100.0, seed=seed, fresh=True
                )
            run.thermalise(condition.temperature, recipe.steps(recipe.decorrelate_fs), damping_fs=100.0, seed=seed + 1)
            shots = [run.nve(recipe.steps(recipe.stride_fs) if f else 0) for f in range(recipe.frames)]
            kinetic = [0.5 * EV_PER_KINETIC * float((masses[:, None] * s.velocities**2).sum()) for s in shots]
            done += 1
            yield (
                done,
                total,
                Frames(
                    numbers=ideal.numbers.astype(np.int64),
                    positions=np.stack([s.positions for s in shots]),
                    velocities=np.stack([s.velocities for s in shots]),
                    forces=np.stack([s.forces for s in shots]),
                    energy=np.array([s.energy for s in shots]),
                    virial=np.stack([s.virial for s in shots]),
                    cell=np.repeat(cell[None], recipe.frames, 0),
                    pbc=np.ones(3, bool),
                    segment=np.full(recipe.frames, done - 1),
                    time_fs=recipe.stride_fs * np.arange(recipe.frames, dtype=np.float64),
                    temperature_K=np.full(recipe.frames, condition.temperature),
                    total_energy=np.array(kinetic) + [s.energy for s in shots],
                ),
            )
        if run is not None:
            run.close()


def write(recipe: QuartzRecipe, path: Path, progress: object = None) -> Frames:
    """Run the recipe and write one npz file; returns the frames. ``progress(done, total)`` is called after each segment."""
    parts = []
    for done, total, frames in generate(recipe):
        parts.append(frames)
        if callable(progress):
            progress(done, total)
    whole = Frames.concatenate(parts)
    whole.save(path)
    return whole


RECIPES = {
    "quartz72": QuartzRecipe(
        72,
        (Condition(300.0, 240), Condition(300.0, 60, 0.015), Condition(600.0, 60, 0.01), Condition(900.0, 40, 0.01)),
        seed=72,
    ),
    "quartz72-test": QuartzRecipe(72, (Condition(300.0, 20),), seed=1072),
    "quartz162-test": QuartzRecipe(162, (Condition(300.0, 20),), seed=1162),
}
"""The reference data of the released quartz models, by the name of the file that holds them."""
