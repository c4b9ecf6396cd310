"""Trajectories, with velocities where the file has them, of LAMMPS, ASE, OpenMM, GROMACS, Amber and our own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_masses, atomic_numbers, chemical_symbols

from equistride.data.engine_files import READERS, Topology, read_engine_file
from equistride.data.frames import Frames, check_finite, load, tell_broken_off
from equistride.data.lammps_dump import read_dump
from equistride.data.structures import fixed_atoms, read_images
from equistride.errors import EquistrideError, reading, tell


@dataclass(frozen=True)
class Source:
    """What a file does not say of itself.

    Attributes
    ----------
    topology
        Structure file with the elements, or the symbols of the atoms, for TRR, NetCDF, DCD and XTC.
    elements
        Symbols of LAMMPS's types 1, 2, ...
    units, timestep_fs
        LAMMPS's, see :func:`equistride.data.lammps_dump.read_dump`.
    interval_fs
        Time between frames, for files of ASE, DCD and XTC.
    masses
        amu by element, where they were not the standard ones.
    """

    topology: Topology = None
    elements: Sequence[str] = ()
    units: str | None = None
    timestep_fs: float | None = None
    interval_fs: float | None = None
    masses: Mapping[str, float] = field(default_factory=dict)


def read_motion(path: Path, source: Source | None = None) -> Frames:
    """Read a trajectory by the ending of its name.

    Parameters
    ----------
    path
        ``.dump``, ``.lammpstrj`` (also ``.gz``), ``.traj``, ``.xyz``, ``.extxyz``, ``.h5``, ``.trr``, ``.nc``, ``.dcd``,
        ``.xtc`` or ``.npz``.
    source
        What the file does not say.

    Returns
    -------
    Frames
        Without labels where the file has none; velocities as the file has them, or None.

    Raises
    ------
    EquistrideError
        Where the file is missing, damaged, of an unknown kind, or does not say what is needed.
    """
    source = source or Source()
    path = Path(path)
    if not path.is_file():
        raise EquistrideError(f"the trajectory {path} does not exist", hint="check the path")
    endings = [s.lower() for s in path.suffixes if s.lower() != ".gz"]
    ending = endings[-1] if endings else ""
    with reading(path.name, ending or "a trajectory"):
        return _checked(path, ending, source)


def _checked(path: Path, ending: str, source: Source) -> Frames:
    if ending in (".dump", ".lammpstrj"):
        frames = read_dump(path, elements=source.elements, units=source.units, timestep_fs=source.timestep_fs)
    elif ending in (".traj", ".xyz", ".extxyz"):
        frames = _from_ase(path, source.interval_fs)
    elif ending in READERS:
        frames = read_engine_file(path, source.topology, source.interval_fs)
    elif ending == ".npz":
        frames = _from_npz(path)
    else:
        raise EquistrideError(
            f"{path.name} is not of a known type",
            expected=".dump, .lammpstrj, .traj, .extxyz, .h5, .trr, .nc, .dcd, .xtc or .npz",
            found=ending or "no ending",
            hint="convert it, with ASE or mdtraj for instance",
        )
    check_finite(frames, path, ("positions", "cell", "velocities"))
    return _with_masses(frames, source.masses)


def _with_masses(frames: Frames, given: Mapping[str, float]) -> Frames:
    present = {chemical_symbols[z] for z in frames.numbers}
    stray = sorted(set(given) - present)
    if stray:
        raise EquistrideError(
            f"masses are given for elements that the trajectory does not have: {', '.join(stray)}",
            expected=", ".join(sorted(present)),
        )
    masses = np.array(atomic_masses[frames.numbers] if frames.masses is None else frames.masses, float)
    for symbol, mass in given.items():
        masses[frames.numbers == atomic_numbers[symbol]] = mass
    return replace(frames, masses=masses)


def _from_ase(path: Path, interval_fs: float | None) -> Frames:
    import ase.units

    images: list[Any] = []
    try:
        images.extend(read_images(path))
    except EquistrideError:
        raise
    except Exception:  # ASE's readers raise what they like where a file ends within a frame
        if not images:
            raise
        tell_broken_off(path, len(images))
    if not images:
        raise EquistrideError(f"{path.name} holds no frames")
    first = images[0]
    if any(not np.array_equal(i.numbers, first.numbers) or (i.pbc != first.pbc).any() for i in images):
        raise EquistrideError(
            f"{path.name} mixes systems", expected="the same atoms in every frame", hint="split the file"
        )
    if all("time" in image.info for image in images):
        time = np.array([float(image.info["time"]) for image in images])
    elif interval_fs is not None:
        time = np.arange(len(images)) * interval_fs
    else:
        raise EquistrideError(
            f"{path.name} does not tell the time", expected="time=... [fs] in every frame",
            hint="give the time between frames: --interval-fs, in a report --interval",
        )  # fmt: skip
    if first.constraints:
        tell(f"{path.name} is of a run that held {len(fixed_atoms(first))} of its atoms; they are taken as they moved")
    moving = all(image.has("momenta") for image in images)
    results = [image.calc.results if image.calc is not None else {} for image in images]
    return Frames(
        numbers=first.numbers.astype(np.int64),
        positions=np.stack([image.positions for image in images]),
        cell=np.stack([image.cell.array * image.pbc.any() for image in images]),
        pbc=np.array(first.pbc, bool),
        energy=np.array([r.get("energy", np.nan) for r in results], float),
        forces=np.stack([r.get("forces", np.full(first.positions.shape, np.nan)) for r in results]),
        velocities=np.stack([image.get_velocities() * ase.units.fs for image in images]) if moving else None,
        time_fs=time,
        masses=first.get_masses(),
    )


def _from_npz(path: Path) -> Frames:
    """Read arrays of ours; times may also follow from ``stride_fs`` or ``dt_fs``."""
    (frames,) = load(path, labelled=False)
    if frames.time_fs is not None:
        return frames
    with np.load(path, allow_pickle=False) as data:
        for key in ("stride_fs", "dt_fs"):
            if key in data.files:
                if data[key].size != 1 or data[key].dtype.kind not in "iuf":
                    raise EquistrideError(
                        f"the array {key!r} of {path.name} is no time between frames", expected="one number [fs]",
                        found=f"{data[key].dtype} of shape {list(data[key].shape)}",
                    )  # fmt: skip
                return replace(frames, time_fs=data[key].item() * np.arange(len(frames), dtype=np.float64))
    raise EquistrideError(
        f"{path.name} does not tell the time between frames",
        expected="time_fs, stride_fs or dt_fs",
        hint="add one of them",
    )
