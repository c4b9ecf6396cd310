"""Equation of state: energy against volume, and Birch and Murnaghan's curve through it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from numpy.typing import NDArray

from equistride.errors import EquistrideError
from equistride.properties.relax import GPA, Progress, relax, require_free

Array = NDArray[np.float64]


@dataclass(frozen=True)
class EquationOfState:
    """Third-order Birch-Murnaghan equation of state (Birch, Phys. Rev. 71, 809 (1947)).

    Attributes
    ----------
    volumes, energies [P]
        The points, in A^3 and eV, of the whole structure.
    volume, energy
        The minimum, in A^3 and eV.
    bulk_modulus
        At the minimum [GPa].
    derivative
        Of the bulk modulus by the pressure, at the minimum.
    residual
        Root mean square of the points about the curve [eV].
    atoms
        Number of atoms.
    """

    volumes: Array
    energies: Array
    volume: float
    energy: float
    bulk_modulus: float
    derivative: float
    residual: float
    atoms: int

    def curve(self, volumes: Array) -> Array:
        """Return the energy [eV] of the fitted curve at ``volumes`` [A^3]."""
        f = ((self.volume / volumes) ** (2 / 3) - 1) / 2
        scale = 4.5 * self.volume * self.bulk_modulus / GPA
        return self.energy + scale * f**2 * (1 + (self.derivative - 4) * f)

    def summary(self) -> dict[str, Any]:
        """Return the numbers as plain types, for JSON."""
        return {
            "equation": "Birch-Murnaghan, third order",
            "atoms": self.atoms,
            "volume_A3": self.volume,
            "volume_per_atom_A3": self.volume / self.atoms,
            "energy_eV": self.energy,
            "bulk_modulus_GPa": self.bulk_modulus,
            "bulk_modulus_derivative": self.derivative,
            "residual_meV_per_atom": 1000 * self.residual / self.atoms,
            "points": {"volume_A3": self.volumes.tolist(), "energy_eV": self.energies.tolist()},
        }


def fit_birch_murnaghan(volumes: Array, energies: Array, atoms: int = 1) -> EquationOfState:
    """Fit the curve to ``volumes`` [P] in A^3 and ``energies`` [P] in eV; it is a cubic in V^(-2/3), so the fit is linear.

    Raises
    ------
    EquistrideError
        With fewer than five points, or where the points have no minimum inside their range.
    """
    volumes, energies = np.asarray(volumes, float), np.asarray(energies, float)
    if len(volumes) < 5:
        raise EquistrideError(
            "an equation of state needs more points", expected="5 volumes or more", found=len(volumes)
        )
    middle = float(volumes.mean())
    x = (middle / volumes) ** (2 / 3)
    cubic = np.polynomial.Polynomial.fit(x, energies, 3).convert()
    slope, bend = cubic.deriv(), cubic.deriv(2)
    roots = [float(r.real) for r in np.atleast_1d(slope.roots()) if abs(r.imag) < 1e-9 and bend(r.real) > 0]
    roots = [r for r in roots if x.min() <= r <= x.max()]
    if not roots:
        raise EquistrideError(
            "the energy has no minimum among the volumes",
            expected=f"a minimum between {volumes.min():.4g} and {volumes.max():.4g} A^3",
            hint="relax the structure with its cell first, or take a wider range",
        )
    x0 = roots[0]
    v0 = middle * x0**-1.5
    # E(f) with x = x0 (1 + 2 f): E'' = 9 V0 B0, E''' = 27 V0 B0 (B' - 4)
    second = 4 * x0**2 * float(bend(x0))
    third = 8 * x0**3 * float(cubic.deriv(3)(x0))
    residual = float(np.sqrt(np.mean((cubic(x) - energies) ** 2)))
    return EquationOfState(
        volumes=volumes,
        energies=energies,
        volume=v0,
        energy=float(cubic(x0)),
        bulk_modulus=GPA * second / (9 * v0),
        derivative=4 + third / (3 * second),
        residual=residual,
        atoms=atoms,
    )


def equation_of_state(
    atoms: Atoms,
    calculator: Calculator,
    *,
    span: float = 0.06,
    points: int = 9,
    max_force: float = 1e-4,
    progress: Progress | None = None,
) -> EquationOfState:
    """Return the equation of state of a relaxed crystal; at each volume the atoms and the cell's shape are relaxed.

    Parameters
    ----------
    atoms
        The relaxed structure.
    calculator
        An ASE calculator with stress.
    span
        Volumes go from ``1 - span`` to ``1 + span`` times that of the structure.
    points
        Number of volumes, 5 or more.
    max_force
        Bound of each relaxation [eV/A].

    Raises
    ------
    EquistrideError
        Where the structure is not periodic, a setting is not valid, or the energy has no minimum in the range.
    """
    if not atoms.pbc.all() or atoms.cell.rank < 3:
        raise EquistrideError(
            "an equation of state needs a crystal",
            expected="a box along all three axes",
            found=f"pbc = {atoms.pbc.tolist()}",
        )
    require_free(atoms, "an equation of state")
    if not 0 < span <= 0.3:
        raise EquistrideError("the range of volumes is not valid", expected="more than 0, at most 0.3", found=span)
    if points < 5:
        raise EquistrideError("an equation of state needs more points", expected="5 volumes or more", found=points)
    volumes, energies = [], []
    for k, factor in enumerate(np.linspace(1 - span, 1 + span, points)):
        scaled = atoms.copy()
        scaled.set_cell(atoms.cell.array * factor ** (1 / 3), scale_atoms=True)
        found = relax(scaled, calculator, cell="shape", max_force=max_force)
        volumes.append(float(found.atoms.get_volume()))
        energies.append(found.energy)
        if progress is not None:
            progress(k + 1, points)
    return fit_birch_murnaghan(np.array(volumes), np.array(energies), len(atoms))
