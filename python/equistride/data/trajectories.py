"""Trajectories with velocities, from the files of LAMMPS, ASE, OpenMM (mdtraj's HDF5), GROMACS and Amber."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_masses, atomic_numbers, chemical_symbols
from numpy.typing import NDArray

from equistride.data.frames import Frames
from equistride.data.lammps_dump import read_dump
from equistride.errors import EquistrideError
from equistride.units import ANGSTROM_PER_NM, EV_PER_KJ_MOL, FS_PER_PS

Floats = NDArray[np.float64]
AMBER_VELOCITY = 20.455
"""Amber's unit of velocity is 1/20.455 ps; its files say so as a scale factor."""
LEAPFROG = {".h5": "OpenMM", ".hdf5": "OpenMM", ".trr": "GROMACS", ".nc": "Amber"}
"""Endings of files whose velocities are usually half a time step old."""


@dataclass(frozen=True)
class Source:
    """What a file does not say of itself.

    Attributes
    ----------
    topology
        Structure file with the elements, for TRR and NetCDF.
    elements
        Symbols of LAMMPS's types 1, 2, ...
    units, timestep_fs
        LAMMPS's, see :func:`equistride.data.lammps_dump.read_dump`.
    interval_fs
        Time between frames, for files of ASE.
    masses
        amu by element, where they were not the standard ones.
    """

    topology: Path | None = None
    elements: Sequence[str] = ()
    units: str | None = None
    timestep_fs: float | None = None
    interval_fs: float | None = None
    masses: Mapping[str, float] = field(default_factory=dict)


def read_motion(path: Path, source: Source | None = None) -> Frames:
    """Read a trajectory with velocities by the ending of its name.

    Parameters
    ----------
    path
        ``.dump``, ``.lammpstrj`` (also ``.gz``), ``.traj``, ``.xyz``, ``.extxyz``, ``.h5``, ``.trr``, ``.nc`` or ``.npz``.
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
        raise EquistrideError(f"the trajectory {path} does not exist")
    endings = [s.lower() for s in path.suffixes if s.lower() != ".gz"]
    ending = endings[-1] if endings else ""
    if ending in (".dump", ".lammpstrj"):
        frames = read_dump(path, elements=source.elements, units=source.units, timestep_fs=source.timestep_fs)
    elif ending in (".traj", ".xyz", ".extxyz"):
        frames = _from_ase(path, source.interval_fs)
    elif ending in LEAPFROG:
        reader = {".trr": _from_trr, ".nc": _from_netcdf}.get(ending, _from_hdf5)
        try:
            frames = reader(path, source.topology)
        except EquistrideError:
            raise
        except Exception as error:  # the readers raise what they like on damaged files
            reason = " ".join(str(error).split())
            raise EquistrideError(
                f"{path.name} cannot be read as {ending} ({type(error).__name__}: {reason})"
            ) from error
    elif ending == ".npz":
        frames = _from_npz(path)
    else:
        raise EquistrideError(
            f"{path.name} is not of a known type with velocities",
            expected=".dump, .lammpstrj, .traj, .extxyz, .h5, .trr, .nc or .npz", found=ending or "no ending",
            hint="DCD and XTC hold no velocities: write another format while the simulation runs",
        )  # fmt: skip
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
    import ase.io
    import ase.units

    try:
        images: list[Any] = list(ase.io.iread(path, index=":"))
    except Exception as error:
        raise EquistrideError(f"{path.name} cannot be read by ASE ({type(error).__name__}: {error})") from error
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
            hint="give --interval-fs, the time between frames",
        )  # fmt: skip
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


def _frames(
    numbers: NDArray[np.int64], positions: Any, time: Any, box: Floats | None, velocities: Any, forces: Any = None
) -> Frames:
    """Return frames of nm, ps and kJ/mol."""
    count = len(positions)
    periodic = box is not None and bool((np.abs(np.linalg.det(box)) > 1e-9).all())
    exact = np.asarray(time, np.float64) * FS_PER_PS
    if count > 1:  # single precision in the file: equal steps where the two differ by rounding alone
        even = np.linspace(exact[0], exact[-1], count)
        exact = even if np.abs(even - exact).max() <= 4e-7 * np.abs(even).max() else exact
    shape = np.shape(positions)
    return Frames(
        numbers=numbers,
        positions=np.asarray(positions, np.float64) * ANGSTROM_PER_NM,
        cell=box * ANGSTROM_PER_NM if periodic and box is not None else np.zeros((count, 3, 3)),
        pbc=np.full(3, periodic),
        energy=np.full(count, np.nan),
        forces=np.full(shape, np.nan) if forces is None else np.asarray(forces) * EV_PER_KJ_MOL / ANGSTROM_PER_NM,
        velocities=None if velocities is None else np.asarray(velocities, np.float64) * ANGSTROM_PER_NM / FS_PER_PS,
        time_fs=exact,
    )


def _numbers(topology: Any, path: Path) -> NDArray[np.int64]:
    """Return atomic numbers of an mdtraj topology."""
    atoms = list(topology.atoms)
    if any(atom.element is None or atom.element.atomic_number == 0 for atom in atoms):
        raise EquistrideError(f"the topology of {path.name} has atoms without an element, such as virtual sites")
    return np.array([atom.element.atomic_number for atom in atoms], np.int64)


def _topology(path: Path, topology: Path | None) -> NDArray[np.int64]:
    if topology is None:
        raise EquistrideError(f"{path.name} holds no elements", hint="give --topology, a structure file of the system")
    if topology.suffix.lower() == ".pdb":
        import mdtraj

        return _numbers(mdtraj.load_topology(str(topology)), topology)
    from equistride.data.structures import read_atoms

    return read_atoms(topology).numbers.astype(np.int64)


def _box(lengths: Any, angles: Any) -> Floats | None:
    from mdtraj.utils import lengths_and_angles_to_box_vectors

    if lengths is None or angles is None or np.size(lengths) == 0:
        return None
    rows = lengths_and_angles_to_box_vectors(*np.asarray(lengths, float).T, *np.asarray(angles, float).T)
    return np.stack(rows, 1).astype(np.float64)


def _from_hdf5(path: Path, _: Path | None) -> Frames:
    from mdtraj.formats import HDF5TrajectoryFile

    with HDF5TrajectoryFile(str(path)) as handle:
        data, topology = handle.read(), handle.topology
    return _frames(
        _numbers(topology, path),
        data.coordinates,
        data.time,
        _box(data.cell_lengths, data.cell_angles),
        data.velocities,
    )


def _from_trr(path: Path, topology: Path | None) -> Frames:
    from mdtraj.formats import TRRTrajectoryFile

    numbers = _topology(path, topology)
    with TRRTrajectoryFile(str(path)) as handle:
        count = len(handle)
    found = {}
    for what in ("velocities", "forces"):  # asking for what the file lacks is an error of the reader
        with TRRTrajectoryFile(str(path)) as handle:
            try:
                found[what] = handle._read(count, None, **{f"get_{what}": True})[5 if what == "velocities" else 6]
            except (RuntimeError, OSError):
                found[what] = None
    with TRRTrajectoryFile(str(path)) as handle:
        positions, time, _, box, _ = handle.read()
    _fit(path, numbers, positions)
    return _frames(numbers, positions, time, np.asarray(box, np.float64), found["velocities"], found["forces"])


def _from_netcdf(path: Path, topology: Path | None) -> Frames:
    from scipy.io import netcdf_file

    numbers = _topology(path, topology)
    with netcdf_file(str(path), mmap=False) as data:
        variables = data.variables
        positions = np.array(variables["coordinates"][:], np.float64)
        time = np.array(variables["time"][:], np.float64)
        velocities = None
        if "velocities" in variables:
            scale = float(getattr(variables["velocities"], "scale_factor", AMBER_VELOCITY))
            velocities = np.array(variables["velocities"][:], np.float64) * scale / ANGSTROM_PER_NM
        box = None
        if "cell_lengths" in variables:
            lengths, angles = variables["cell_lengths"][:], variables["cell_angles"][:]
            box = _box(np.array(lengths) / ANGSTROM_PER_NM, np.array(angles))
    _fit(path, numbers, positions)
    return _frames(numbers, positions / ANGSTROM_PER_NM, time, box, velocities)


def _fit(path: Path, numbers: NDArray[np.int64], positions: Any) -> None:
    if np.shape(positions)[1] != len(numbers):
        raise EquistrideError(
            f"{path.name} does not fit its topology", expected=f"{len(numbers)} atoms", found=np.shape(positions)[1]
        )


def _from_npz(path: Path) -> Frames:
    """Read arrays of ours; times may be ``time_fs``, ``time``, or follow from ``stride_fs`` or ``dt_fs``."""
    from equistride.data.frames import load

    (frames,) = load(path, labelled=False)
    if frames.time_fs is not None:
        return frames
    with np.load(path, allow_pickle=False) as data:
        if "time" in data.files:
            return replace(frames, time_fs=np.array(data["time"], np.float64))
        for key in ("stride_fs", "dt_fs"):
            if key in data.files:
                return replace(frames, time_fs=float(data[key]) * np.arange(len(frames), dtype=np.float64))
    raise EquistrideError(f"{path.name} does not tell the time", expected="time_fs, time, stride_fs or dt_fs")
