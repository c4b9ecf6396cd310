"""Frames to compare on: from files of structures and trajectories, or those of an artifact's own test."""

from __future__ import annotations

import json
import os
import sys
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms, units

from equistride.artifact.metadata import Metadata
from equistride.data.structures import read_atoms, read_images
from equistride.errors import EquistrideError, reading
from equistride.trajectories import read_trajectory
from equistride.trajectories.trajectory import Trajectory

TRAJECTORIES = (".npz", ".dcd", ".xtc", ".trr", ".nc", ".h5")
"""Endings of files that ASE does not read and the readers of trajectories do."""


class Frame(NamedTuple):
    """Atoms, and where they are from: ``quartz.extxyz, frame 3``."""

    atoms: Atoms
    name: str


def frames_of_file(path: Path, most: int, topology: Path | None = None) -> list[Frame]:
    """Return the frames of a file, at most ``most`` of them, evenly spread from the first to the last.

    Parameters
    ----------
    path
        A structure or many in any format that ASE reads, or a trajectory.
    most
        The largest number of frames; one or more.
    topology
        Structure with the elements, for trajectories that hold none (DCD, XTC).

    Raises
    ------
    EquistrideError
        For a file that is missing, damaged or empty, and a trajectory without its elements.
    """
    if topology is not None or path.suffix.lower() in TRAJECTORIES:
        with _printing_to_stderr():
            run = read_trajectory(path, topology=topology, interval=1.0)
        return [Frame(_atoms_of(run, k), f"{path.name}, frame {k}") for k in spread(run.frames, most)]
    if not path.is_file():
        read_atoms(path)  # which says what is wrong
    with reading(path, "a structure"):
        images = list(read_images(path))
    if len(images) < 2:
        return [Frame(read_atoms(path, moving=True), path.name)]
    for atoms in images:
        atoms.set_constraint()
    return [Frame(images[k], f"{path.name}, frame {k}") for k in spread(len(images), most)]


@contextmanager
def _printing_to_stderr() -> Iterator[None]:
    """Send what native code prints to stderr: mdtraj's reader of DCD greets on stdout, where a result may be JSON."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def spread(count: int, most: int) -> list[int]:
    """Return at most ``most`` of ``count`` indices, evenly spread, the first and the last among them."""
    return sorted({int(k) for k in np.linspace(0, count - 1, min(most, count)).round()})


def _atoms_of(run: Trajectory, frame: int) -> Atoms:
    atoms = Atoms(run.symbols, positions=run.positions[frame], cell=run.cells[frame], pbc=run.periodic)
    atoms.set_masses(run.masses)
    if run.velocities is not None:
        atoms.set_velocities(run.velocities[frame] / units.fs)
    return atoms


def frame_of_test(path: Path, metadata: Metadata) -> Frame:
    """Return the frame of the artifact's self-test.

    Raises
    ------
    EquistrideError
        Where the file has none that can be read.
    """
    with reading(path, "an artifact"), zipfile.ZipFile(path) as archive:
        name = next(n for n in archive.namelist() if n.endswith("/extra/reference.json"))
        found = json.loads(archive.read(name))
        symbols = [metadata.species[int(k)] for k in found["species"]]
        atoms = Atoms(symbols, positions=found["positions"], cell=found["cell"], pbc=found["pbc"])
        if metadata.masses:
            mass = dict(zip(metadata.species, metadata.masses, strict=True))
            atoms.set_masses([mass[s] for s in symbols])
        if "velocities" in found:
            atoms.set_velocities(np.array(found["velocities"]) / units.fs)
    return Frame(atoms, f"the test of {path.name}")


def check_elements(frames: Sequence[Frame], models: Sequence[tuple[Path, Metadata]]) -> None:
    """Refuse frames with an element that one of the models does not know."""
    for path, metadata in models:
        for frame in frames:
            strange = sorted(set(frame.atoms.get_chemical_symbols()) - set(metadata.species))
            if strange:
                raise EquistrideError(
                    f"{path} does not know all elements of {frame.name}", expected=", ".join(metadata.species),
                    found=", ".join(strange), hint="give structures of elements that both models know",
                )  # fmt: skip
