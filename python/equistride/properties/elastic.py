"""Elastic constants from the stress of small strains, with the atoms relaxed in each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.stress import voigt_6_to_full_3x3_strain
from numpy.typing import NDArray

from equistride.errors import EquistrideError
from equistride.properties.relax import Progress, relax, require_free, stress_of

Array = NDArray[np.float64]
VOIGT = ("xx", "yy", "zz", "yz", "xz", "xy")
LARGEST_STRESS = 0.05
"""Stress [GPa] above which a structure does not count as relaxed."""


@dataclass(frozen=True)
class Elastic:
    """Elastic constants of a crystal.

    Attributes
    ----------
    constants [6, 6]
        C_ij in GPa with the atoms relaxed, symmetric; Voigt order xx, yy, zz, yz, xz, xy, engineering shear strains.
    clamped [6, 6]
        The same with the atoms moved by the strain alone.
    asymmetry
        Largest ``|C_ij - C_ji|`` before they were averaged [GPa]: the error of the finite differences.
    stress [6]
        Stress of the structure as given [GPa].
    """

    constants: Array
    clamped: Array
    asymmetry: float
    stress: Array

    @property
    def stable(self) -> bool:
        """Whether every strain costs energy (Born's criterion: all eigenvalues are positive)."""
        return bool(np.linalg.eigvalsh(self.constants)[0] > 0)

    @property
    def bulk_modulus(self) -> float:
        """Bulk modulus under hydrostatic pressure [GPa] (Reuss): the one that an equation of state has."""
        return float(1 / np.linalg.inv(self.constants)[:3, :3].sum())

    def averages(self) -> dict[str, float]:
        """Return the moduli of a polycrystal [GPa] and Poisson's ratio (Voigt, Reuss; Hill's mean of both).

        Hill, Proc. Phys. Soc. A 65, 349 (1952).
        """
        c, s = self.constants, np.linalg.inv(self.constants)
        bulk_voigt = c[:3, :3].sum() / 9
        shear_voigt = (3 * np.trace(c[:3, :3]) - c[:3, :3].sum()) / 30 + np.trace(c[3:, 3:]) / 5
        shear_reuss = 15 / (6 * np.trace(s[:3, :3]) - 2 * s[:3, :3].sum() + 3 * np.trace(s[3:, 3:]))
        bulk, shear = (bulk_voigt + self.bulk_modulus) / 2, (shear_voigt + shear_reuss) / 2
        return {
            "bulk_voigt": float(bulk_voigt),
            "bulk_reuss": self.bulk_modulus,
            "bulk_hill": float(bulk),
            "shear_voigt": float(shear_voigt),
            "shear_reuss": float(shear_reuss),
            "shear_hill": float(shear),
            "young_hill": float(9 * bulk * shear / (3 * bulk + shear)),
            "poisson_hill": float((3 * bulk - 2 * shear) / (6 * bulk + 2 * shear)),
        }

    def summary(self) -> dict[str, Any]:
        """Return the numbers as plain types, for JSON."""
        return {
            "voigt_order": list(VOIGT),
            "constants_GPa": self.constants.tolist(),
            "clamped_ion_constants_GPa": self.clamped.tolist(),
            "asymmetry_GPa": self.asymmetry,
            "stress_GPa": self.stress.tolist(),
            "stable": self.stable,
            "moduli_GPa": self.averages(),
        }


def elastic_constants(
    atoms: Atoms,
    calculator: Calculator,
    *,
    strain: float = 0.002,
    max_force: float = 1e-4,
    progress: Progress | None = None,
) -> Elastic:
    """Return the elastic constants of a relaxed crystal.

    The six strains of Voigt's notation are applied with both signs; the constants are central differences of the stress,
    so that their error falls with the square of the strain.

    Parameters
    ----------
    atoms
        A periodic structure at rest and without stress (``relax``).
    calculator
        An ASE calculator with stress.
    strain
        Amplitude; shear components are engineering strains.
    max_force
        Bound of the relaxation of the atoms in each strained cell [eV/A].

    Raises
    ------
    EquistrideError
        Where the structure is not periodic, is not relaxed, or the strain is no small positive number.
    """
    if not 0 < strain <= 0.05:
        raise EquistrideError("the strain must be small and positive", expected="0 to 0.05", found=strain)
    if not atoms.pbc.all() or atoms.cell.rank < 3:
        raise EquistrideError("elastic constants need a crystal", expected="a box along all three axes",
                              found=f"pbc = {atoms.pbc.tolist()}")  # fmt: skip
    require_free(atoms, "elastic constants")
    work = atoms.copy()
    work.calc = calculator
    residual, force = stress_of(work), float(np.abs(work.get_forces()).max())
    if np.abs(residual).max() > LARGEST_STRESS or force > 0.01:
        raise EquistrideError(
            "elastic constants need a relaxed structure",
            expected=f"forces below 0.01 eV/A and stress below {LARGEST_STRESS} GPa",
            found=f"{force:.2g} eV/A and {np.abs(residual).max():.2g} GPa",
            hint="relax it with its cell first (`equistride relax`)",
        )
    relaxed, clamped = np.zeros((2, 6, 6)), np.zeros((2, 6, 6))
    for k in range(12):
        component, sign = divmod(k, 2)
        voigt = np.zeros(6)
        voigt[component] = strain if sign == 0 else -strain
        bent = atoms.copy()  # ASE's matrix of a strain holds the unit matrix already
        bent.set_cell(atoms.cell.array @ voigt_6_to_full_3x3_strain(voigt), scale_atoms=True)
        bent.calc = calculator
        clamped[sign, :, component] = stress_of(bent)
        bent = relax(bent, calculator, cell="fixed", max_force=max_force).atoms
        bent.calc = calculator
        relaxed[sign, :, component] = stress_of(bent)
        if progress is not None:
            progress(k + 1, 12)
    full, stiff = ((s[0] - s[1]) / (2 * strain) for s in (relaxed, clamped))
    return Elastic((full + full.T) / 2, (stiff + stiff.T) / 2, float(np.abs(full - full.T).max()), residual)
