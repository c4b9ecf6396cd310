"""The teacher's motion: walks, each from its own start and by its own seed, and NVE segments along them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from ase import Atoms

from equistride.data.frames import Frames, load
from equistride.data.lammps import Snapshot
from equistride.data.pairs import join
from equistride.data.recipe import segment_of
from equistride.distillation.crystal import box_of
from equistride.distillation.settings import Settings
from equistride.distillation.teacher import Run, Teacher

DAMPING_FS = 100.0
"""Of the baths that prepare segments."""
EQUILIBRATE_FS, DECORRELATE_FS = 1000.0, 200.0
"""Before a walk's segments, and between them."""
SEGMENTS = 8
"""NVE segments of a walk; and one more of a structure that was relaxed, which begins there with twice the kinetic energy, as
simulations do."""
FRAMES = 9
"""Frames of a segment, a stride apart."""
TEST_WALKS = 2
"""Walks that no training sees."""


@dataclass(frozen=True)
class Walk:
    """One walk: at which temperature [K], with which strain of the cell, and whether it is held back for the test."""

    number: int
    temperature: float
    strain: float
    test: bool = False


def walks_of(settings: Settings, count: int) -> list[Walk]:
    """Return ``count`` walks for training, then those for the test.

    Every second walk has the first temperature and the others take turns; where cells are strained every fourth is.
    """
    first, *others = settings.temperatures
    found = []
    for k in range(count):
        temperature = others[(k // 2) % len(others)] if others and k % 2 else first
        found.append(Walk(k, temperature, settings.strained if k % 4 == 2 else 0.0))
    return found + [Walk(count + k, first, 0.0, test=True) for k in range(TEST_WALKS)]


def walk_steps(stride_steps: int, timestep_fs: float) -> int:
    """Return how many time steps a walk takes."""
    prepare = round((EQUILIBRATE_FS + SEGMENTS * DECORRELATE_FS) / timestep_fs)
    return prepare + (SEGMENTS + 1) * (FRAMES - 1) * stride_steps


def follow(teacher: Teacher, atoms: Atoms, walk: Walk, settings: Settings, stride_fs: float) -> Frames:
    """Return the segments of a walk; they depend on the settings and its number alone."""
    dt = settings.step_fs(atoms.get_chemical_symbols())
    rng = np.random.default_rng((settings.seed, walk.number))
    start = atoms.copy()
    if walk.strain:
        strain = np.eye(3) + np.tril(rng.normal(scale=walk.strain, size=(3, 3)))
        start.set_cell(atoms.cell.array @ strain, scale_atoms=True)
    seeds = iter(rng.integers(1, 800_000_000, size=SEGMENTS + 2).tolist())
    run, parts = teacher.run(start, dt), list[Frames]()

    def go_on() -> None:
        shots = segment(run, stride_fs, dt)
        parts.append(frames_of(shots, start, number=len(parts), stride_fs=stride_fs, temperature=walk.temperature))

    try:
        run.thermalise(walk.temperature, 0, damping_fs=DAMPING_FS, seed=next(seeds), fresh=True)
        if not walk.test and settings.relax != "none":
            go_on()
        equilibrate(run, walk.temperature, round(EQUILIBRATE_FS / dt), next(seeds))
        for seed in list(seeds):
            equilibrate(run, walk.temperature, round(DECORRELATE_FS / dt), seed)
            go_on()
    finally:
        run.close()
    return join(parts)


def segment(run: Run, stride_fs: float, step_fs: float) -> list[Snapshot]:
    """Let the teacher go on at constant energy from where a run is; return the frames of a segment."""
    return [run.nve(round(stride_fs / step_fs) if frame else 0) for frame in range(FRAMES)]


def frames_of(shots: list[Snapshot], atoms: Atoms, *, number: int, stride_fs: float, temperature: float) -> Frames:
    """Return snapshots of atoms with their masses, as :func:`equistride.data.recipe.segment_of`."""
    masses = atoms.get_masses()
    found = segment_of(
        shots, atoms.numbers, box_of(atoms), masses, number=number, stride_fs=stride_fs, temperature=temperature
    )
    return replace(found, masses=masses)


def equilibrate(run: Run, temperature: float, steps: int, seed: int) -> None:
    """Thermalise a run."""
    run.thermalise(temperature, steps, damping_fs=DAMPING_FS, seed=seed)


def make(
    teacher: Teacher, atoms: Atoms, settings: Settings, stride_fs: float, count: int, folder: Path,
    progress: Callable[[int, int], None],
) -> tuple[Path, Path]:  # fmt: skip
    """Make all walks, each a file that stays, and join them; return the files for training and for the test."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "train.npz", folder / "test.npz"
    if all(path.is_file() for path in paths):
        return paths
    walks = walks_of(settings, count)
    parts: dict[bool, list[Frames]] = {False: [], True: []}
    for done, walk in enumerate(walks):
        kept = folder / f"walk-{walk.number}.npz"
        progress(done, len(walks))
        if not kept.is_file():
            follow(teacher, atoms, walk, settings, stride_fs).save(kept)
        parts[walk.test].extend(load(kept))
    progress(len(walks), len(walks))
    for path, test in zip(paths, (False, True), strict=True):
        join(parts[test]).save(path)
    for walk in walks:
        (folder / f"walk-{walk.number}.npz").unlink()
    return paths
