"""Segments of a molecule's motion under GFN2-xTB, for propagators and potentials."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from equistride.data.frames import Frames, load
from equistride.data.pairs import join
from equistride.data.tight_binding import MoleculeRun
from equistride.errors import EquistrideError
from equistride.writing import write as write_file


@dataclass(frozen=True)
class MoleculeRecipe:
    """Walks under Langevin dynamics (BAOAB) of GFN2-xTB; from each, segments of NVE that are ``apart_fs`` apart.

    ``frames`` of a segment are ``stride_fs`` apart, a whole number of time steps. A walk has ``segments`` segments and
    begins at a relaxed structure of its own.
    """

    smiles: str
    stride_fs: float
    temperature_K: float = 300.0
    walks: int = 10
    segments: int = 100
    frames: int = 11
    timestep_fs: float = 0.5
    friction_fs: float = 50.0
    equilibrate_fs: float = 1000.0
    apart_fs: float = 100.0
    seed: int = 1

    def __post_init__(self) -> None:
        """Refuse what makes no segments."""
        for name in ("walks", "segments"):
            if getattr(self, name) < 1:
                raise EquistrideError(f"the number of {name} must be 1 or more", found=getattr(self, name))
        if self.frames < 2:
            raise EquistrideError(
                "a segment must hold a pair of frames", expected="2 frames or more", found=self.frames
            )
        steps = self.stride_fs / self.timestep_fs if self.timestep_fs > 0 else 0.0
        if round(steps) < 1 or abs(steps - round(steps)) > 1e-9 * steps:
            raise EquistrideError(
                "the stride must be a whole number of time steps", expected=f"a multiple of {self.timestep_fs:g} fs",
                found=f"{self.stride_fs:g} fs", hint="choose another time step",
            )  # fmt: skip


def walk(recipe: MoleculeRecipe, number: int) -> Frames:
    """Return the segments of one walk."""
    rng = np.random.default_rng((recipe.seed, number))
    run = MoleculeRun(
        recipe.smiles, rng, temperature_K=recipe.temperature_K, timestep_fs=recipe.timestep_fs,
        friction_fs=recipe.friction_fs,
    )  # fmt: skip
    run.thermalise(recipe.equilibrate_fs)
    parts = []
    for _ in range(recipe.segments):
        run.thermalise(recipe.apart_fs)
        parts.append(run.follow(recipe.frames, round(recipe.stride_fs / recipe.timestep_fs)))
    return join(parts)


def write(recipe: MoleculeRecipe, path: Path, progress: Callable[[int, int], None] | None = None) -> Frames:
    """Make all walks and write them as one file; a run that was stopped goes on after the last whole walk.

    Raises
    ------
    EquistrideError
        Where the molecule is not understood or breaks, or the walks beside ``path`` are of another recipe.
    """
    folder = path.with_name(path.name + ".walks")
    folder.mkdir(parents=True, exist_ok=True)
    note, text = folder / "recipe.txt", repr(asdict(recipe))
    if note.is_file() and note.read_text() != text:
        raise EquistrideError(f"{folder} holds walks of another recipe", hint="delete it, or choose another file")
    write_file(note, text)
    parts = []
    for number in range(recipe.walks):
        kept = folder / f"{number}.npz"
        if not kept.is_file():
            walk(recipe, number).save(kept)
        parts.append(load(kept)[0])
        if progress is not None:
            progress(number + 1, recipe.walks)
    whole = join(parts)
    whole.save(path)
    shutil.rmtree(folder)
    return whole
