"""Relaxation: atoms, and the cell with them, to where forces and stress vanish."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.stress import full_3x3_to_voigt_6_stress
from numpy.typing import NDArray

from equistride.errors import EquistrideError
from equistride.units import EV_PER_ANGSTROM3_IN_BAR

BAR_PER_GPA = 1e4
GPA = EV_PER_ANGSTROM3_IN_BAR / BAR_PER_GPA
"""1 eV/A^3 in GPa."""
Optimiser = Literal["bfgs", "lbfgs", "fire"]
Cell = Literal["all", "shape", "fixed"]
Progress = Callable[[int, int], None]
"""Called with (done, total)."""


@dataclass(frozen=True)
class Relaxation:
    """The end of a relaxation.

    Attributes
    ----------
    atoms
        The relaxed structure, without a calculator.
    energies
        Potential energy at every step [eV]; the first is that of the structure as given.
    max_force
        Largest force on an atom [eV/A], on those too that constraints hold.
    stress
        Stress [6] in GPa, Voigt order xx, yy, zz, yz, xz, xy, positive in tension; zeros where there is no cell.
    """

    atoms: Atoms
    energies: NDArray[np.float64]
    max_force: float
    stress: NDArray[np.float64]

    @property
    def energy(self) -> float:
        """Potential energy at the end [eV]."""
        return float(self.energies[-1])

    @property
    def steps(self) -> int:
        """Steps of the optimiser."""
        return len(self.energies) - 1

    def summary(self) -> dict[str, Any]:
        """Return the numbers as plain types, for JSON."""
        lengths = self.atoms.cell.cellpar()
        return {
            "energy_eV": self.energy,
            "energy_per_atom_eV": self.energy / len(self.atoms),
            "energy_gain_eV": float(self.energies[0] - self.energies[-1]),
            "atoms": len(self.atoms),
            "steps": self.steps,
            "max_force_eV_per_A": self.max_force,
            "stress_GPa": self.stress.tolist(),
            "cell_A_degrees": lengths.tolist(),
            "volume_A3": float(self.atoms.get_volume()) if self.atoms.cell.rank == 3 else None,
        }


def _target(atoms: Atoms, cell: Cell, pressure: float) -> Any:
    from ase.filters import FrechetCellFilter

    if cell == "fixed":
        return atoms
    if atoms.cell.rank < 3 or not atoms.pbc.all():
        raise EquistrideError(
            "a cell can be relaxed only where the structure is periodic along three axes",
            found=f"pbc = {atoms.pbc.tolist()}",
            hint="relax the atoms alone (--fixed-cell)",
        )
    return FrechetCellFilter(atoms, constant_volume=cell == "shape", scalar_pressure=pressure / GPA)


def relax(
    atoms: Atoms,
    calculator: Calculator,
    *,
    cell: Cell = "all",
    pressure: float = 0.0,
    max_force: float = 1e-4,
    steps: int = 500,
    optimiser: Optimiser = "bfgs",
    symmetry: bool = False,
    progress: Progress | None = None,
) -> Relaxation:
    """Relax a structure with ASE's optimisers.

    Parameters
    ----------
    atoms
        The structure; it is not changed. Its constraints are kept.
    calculator
        Any ASE calculator.
    cell
        ``"all"`` relaxes the cell, ``"shape"`` its shape at constant volume, ``"fixed"`` the atoms alone.
    pressure
        External pressure [GPa], with ``cell="all"``.
    max_force
        Converged where no atom feels more [eV/A]; the same bound holds for the virial per atom [eV].
    steps
        Most steps of the optimiser.
    symmetry
        Keep the space group (needs spglib).
    progress
        Called after each step.

    Raises
    ------
    EquistrideError
        Where the structure has no cell to relax, or the relaxation does not converge.
    """
    from ase.optimize import BFGS, FIRE, LBFGS

    if steps < 1 or max_force <= 0:
        raise EquistrideError(
            "a relaxation needs a step and a positive bound", found=f"{steps} steps, {max_force} eV/A"
        )
    work = atoms.copy()
    work.calc = calculator
    if symmetry:
        from ase.constraints import FixSymmetry

        work.set_constraint([*work.constraints, FixSymmetry(work)])
    target = _target(work, cell, pressure)
    run: Any = {"bfgs": BFGS, "lbfgs": LBFGS, "fire": FIRE}[optimiser](target, logfile=None)
    energies: list[float] = []
    converged = False
    for converged in run.irun(fmax=max_force, steps=steps):  # noqa: B007  (the last one is asked for below)
        energies.append(float(work.get_potential_energy()))
        if progress is not None:
            progress(len(energies) - 1, steps)
        if not np.isfinite(energies[-1]):
            raise EquistrideError("the energy is not finite in the relaxation", hint="start from a better structure")
    if not converged:
        left = float(np.linalg.norm(work.get_forces(), axis=1).max())
        raise EquistrideError(
            f"the relaxation did not converge in {steps} steps",
            expected=f"forces below {max_force:g} eV/A",
            found=f"{left:.2g} eV/A",
            hint="allow more steps or a larger force",
        )
    largest = float(np.linalg.norm(work.get_forces(apply_constraint=False), axis=1).max())
    stress = stress_of(work) if work.cell.rank == 3 and "stress" in calculator.implemented_properties else np.zeros(6)
    if progress is not None:
        progress(len(energies) - 1, len(energies) - 1)
    work.calc = None
    if symmetry:
        work.set_constraint(atoms.constraints)
    return Relaxation(work, np.array(energies), largest, stress)


def require_free(atoms: Atoms, what: str) -> None:
    """Refuse atoms that constraints hold: their forces would be missing in ``what``, without a trace in the numbers."""
    held = sorted({type(constraint).__name__ for constraint in atoms.constraints})
    if held:
        raise EquistrideError(
            f"{what} of atoms that are held would be wrong",
            expected="atoms without constraints",
            found=", ".join(held),
            hint="take them off: atoms.set_constraint()",
        )


def stress_of(atoms: Atoms) -> NDArray[np.float64]:
    """Return the stress [6] of atoms with a calculator in GPa: xx, yy, zz, yz, xz, xy."""
    return GPA * full_3x3_to_voigt_6_stress(atoms.get_stress(voigt=False))
