"""What a simulation writes as it runs: trajectory and table, which can be cut back to a checkpoint and continued."""

from __future__ import annotations

import io
import math
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.io.extxyz import write_extxyz
from openmm import Vec3, app, unit

from equistride.data.structures import columns_of
from equistride.engines.openmm_structure import topology_from_ase
from equistride.errors import EquistrideError
from equistride.simulation.engine import Moment
from equistride.simulation.settings import Settings
from equistride.units import ANGSTROM_PER_NM, EV_PER_KJ_MOL, FS_PER_PS
from equistride.writing import synced, whole_file

COLUMNS = ("Step", "Time (ps)", "Temperature (K)", "Kinetic Energy (kJ/mole)")
ENERGIES = ("Potential Energy (kJ/mole)", "Total Energy (kJ/mole)")


def _cut_back(path: Path, size: int) -> None:
    """Cut a file back to its length at the checkpoint; refuse one that has less."""
    there = path.stat().st_size if path.exists() else 0
    if there < size:
        raise EquistrideError(
            f"{path} has lost what was written before the checkpoint", expected=f"{size} bytes or more",
            found=f"{there}", hint="run it anew, into another folder",
        )  # fmt: skip
    os.truncate(path, size)


class Table:
    """The table of energies and temperatures, with the columns of OpenMM's ``StateDataReporter``.

    Parameters
    ----------
    path
        The file.
    energies
        Whether there are potential energies; a propagator knows none.
    box
        Whether there is a volume.
    size
        Bytes that are kept of the file that is there; 0 for a new one.
    """

    def __init__(self, path: Path, energies: bool, box: bool, size: int) -> None:
        self._path, self._energies, self._box = path, energies, box
        if size:
            _cut_back(path, size)
        else:
            names = [*COLUMNS, *(ENERGIES if energies else ()), *(["Box Volume (nm^3)"] if box else ())]
            path.write_text(",".join(f'"{name}"' for name in names) + "\n")

    def write(self, moment: Moment, step: int, time_fs: float) -> None:
        """Add a line."""
        values = [step, time_fs / FS_PER_PS, moment.temperature, moment.kinetic / EV_PER_KJ_MOL]
        if self._energies:
            values += [moment.potential / EV_PER_KJ_MOL, (moment.potential + moment.kinetic) / EV_PER_KJ_MOL]
        if self._box:
            values.append(abs(np.linalg.det(moment.cell)) / ANGSTROM_PER_NM**3)
        with self._path.open("a") as f:
            f.write(",".join(f"{value:.10g}" for value in values) + "\n")

    def size(self) -> int:
        """Return the length of the file in bytes."""
        return self._path.stat().st_size


class Trajectory:
    """A trajectory in DCD, XTC or extended XYZ.

    Parameters
    ----------
    path
        The file; its ending is that of the format.
    atoms
        Elements, masses and periodicity.
    topology
        The same for OpenMM's writers.
    settings
        Time step and interval.
    size
        Bytes that are kept of the file that is there; 0 for a new one.
    """

    def __init__(self, path: Path, atoms: Atoms, topology: app.Topology, settings: Settings, size: int) -> None:
        self._path, self._atoms, self._format = path, atoms, settings.trajectory
        self._columns = columns_of(atoms, "momenta")
        if size:
            _cut_back(path, size)
        else:
            path.unlink(missing_ok=True)
        arguments = (topology, settings.step_fs / FS_PER_PS, 0, settings.every, bool(size))
        self._writer: Any = None
        if self._format == "dcd":
            self._handle = path.open("r+b" if size else "w+b")
            if size:
                _count_frames(self._handle, len(atoms), topology.getPeriodicBoxVectors() is not None, size)
            self._writer = app.DCDFile(self._handle, *arguments)
        elif self._format == "xtc":
            self._writer = app.XTCFile(str(path), *arguments)

    def write(self, moment: Moment, time_fs: float) -> None:
        """Add a frame."""
        if self._writer is None:
            self._write_text(moment, time_fs)
            return
        box = None
        if self._atoms.pbc.any():
            box = [Vec3(*map(float, row)) for row in moment.cell / ANGSTROM_PER_NM] * unit.nanometer
        self._writer.writeModel(moment.positions / ANGSTROM_PER_NM * unit.nanometer, periodicBoxVectors=box)

    def _write_text(self, moment: Moment, time_fs: float) -> None:
        frame = Atoms(self._atoms.numbers, moment.positions, cell=moment.cell, pbc=self._atoms.pbc)
        frame.set_masses(self._atoms.get_masses())
        frame.set_velocities(moment.velocities / units.fs)
        frame.info["time"] = time_fs
        if math.isfinite(moment.potential):
            frame.info["energy"] = moment.potential
        text = io.StringIO()
        write_extxyz(text, [frame], columns=self._columns)
        with self._path.open("a") as f:
            f.write(text.getvalue())

    def size(self) -> int:
        """Return the length of the file in bytes."""
        return self._path.stat().st_size if self._path.exists() else 0


def _count_frames(handle: Any, atoms: int, box: bool, size: int) -> None:
    """Write into the header of a DCD file that was cut how many frames are left."""
    handle.seek(0, os.SEEK_END)
    frame = 3 * (8 + 4 * atoms) + (56 if box else 0)
    header = 276
    handle.seek(8)
    handle.write(struct.pack("<i", (size - header) // frame))


class Files:
    """What a folder of a simulation holds: ``structure.pdb``, ``state.csv``, and the trajectory.

    Parameters
    ----------
    folder
        A folder that is there.
    atoms, settings
        Of the run.
    energies
        Whether there are potential energies.
    sizes
        Bytes that are kept of each file, as :meth:`sizes` gave them; none for a new run.
    """

    def __init__(self, folder: Path, atoms: Atoms, settings: Settings, energies: bool, sizes: dict[str, int]) -> None:
        self._step_fs = settings.step_fs
        boxed = atoms.copy()
        boxed.pbc = atoms.pbc.all()  # OpenMM's writers know boxes along all axes or none
        topology, positions = topology_from_ase(boxed)
        paths = run_files(folder, settings)
        with whole_file(paths["structure"]) as partial, partial.open("w") as f:
            app.PDBFile.writeFile(topology, positions, f)
        self._paths = paths["table"], paths["trajectory"]
        self._table = Table(paths["table"], energies, bool(atoms.pbc.any()), sizes.get("table", 0))
        self._trajectory = Trajectory(paths["trajectory"], atoms, topology, settings, sizes.get("trajectory", 0))

    def write(self, moment: Moment, step: int) -> None:
        """Add a frame and a line."""
        time = step * self._step_fs
        self._table.write(moment, step, time)
        self._trajectory.write(moment, time)

    def sizes(self) -> dict[str, int]:
        """Return the lengths of the files in bytes, all of which are on the disk then."""
        for path in filter(Path.exists, self._paths):
            synced(path)
        return {"table": self._table.size(), "trajectory": self._trajectory.size()}


def run_files(folder: Path, settings: Settings) -> dict[str, Path]:
    """Return where the files of a run lie."""
    return {
        "structure": folder / "structure.pdb",
        "table": folder / "state.csv",
        "trajectory": folder / f"trajectory.{settings.trajectory}",
    }
