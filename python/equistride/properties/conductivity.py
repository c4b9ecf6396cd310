"""Lattice thermal conductivity from third-order force constants and the Boltzmann equation (phono3py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from numpy.typing import NDArray

from equistride.errors import EquistrideError
from equistride.properties.lattice import Repeats, check_mesh, displaced_crystal, forces_of
from equistride.properties.phonons import IMAGINARY
from equistride.properties.relax import Progress

Array = NDArray[np.float64]
Method = Literal["rta", "lbte"]


@dataclass(frozen=True)
class Conductivity:
    """The lattice thermal conductivity of a crystal.

    Attributes
    ----------
    temperatures [T]
        K.
    tensor [T, 6]
        W/m/K; xx, yy, zz, yz, xz, xy.
    frequencies, cumulative
        Frequency [F] in THz, and the conductivity [F] (mean of xx, yy, zz in W/m/K) that modes up to it carry at the first
        temperature.
    method
        ``"rta"``, relaxation times alone; ``"lbte"``, the linearised Boltzmann equation solved directly.
    mesh
        Of wave vectors.
    supercells
        Number of displaced supercells that were evaluated.
    """

    temperatures: Array
    tensor: Array
    frequencies: Array
    cumulative: Array
    method: Method
    mesh: Repeats
    supercells: int

    @property
    def mean(self) -> Array:
        """Mean of xx, yy, zz [T] in W/m/K: that of a polycrystal of large grains."""
        return self.tensor[:, :3].mean(1)

    def summary(self) -> dict[str, Any]:
        """Return the numbers as plain types, for JSON."""
        return {
            "temperature_K": self.temperatures.tolist(),
            "voigt_order": ["xx", "yy", "zz", "yz", "xz", "xy"],
            "conductivity_W_per_m_K": self.tensor.tolist(),
            "mean_W_per_m_K": self.mean.tolist(),
            "frequency_THz": self.frequencies.tolist(),
            "cumulative_W_per_m_K": self.cumulative.tolist(),
            "method": self.method,
            "mesh": list(self.mesh),
            "supercells": self.supercells,
        }


def thermal_conductivity(
    atoms: Atoms,
    calculator: Calculator,
    *,
    supercell: Repeats | None = None,
    mesh: Repeats = (11, 11, 11),
    temperatures: Sequence[float] = (300.0,),
    method: Method = "rta",
    displacement: float = 0.03,
    pair_cutoff: float | None = None,
    isotopes: bool = False,
    progress: Progress | None = None,
) -> Conductivity:
    """Return the lattice thermal conductivity of a relaxed crystal.

    Second- and third-order force constants come from one set of supercells with one and two displaced atoms, reduced by
    symmetry; three-phonon scattering from the tetrahedron method (Togo, Chaput & Tanaka, Phys. Rev. B 91, 094306 (2015)).

    Parameters
    ----------
    atoms
        The relaxed unit cell.
    calculator
        An ASE calculator; double precision is wanted, since forces are differenced twice.
    supercell
        Repeats of the unit cell; the fewest that span 10 A where left out.
    mesh
        Of wave vectors, odd numbers are best; the result has to be converged with it.
    temperatures
        K.
    method
        ``"rta"`` or ``"lbte"``.
    displacement
        A.
    pair_cutoff
        Leave out pairs of displaced atoms that are further apart [A].
    isotopes
        Add the scattering by the natural mixture of isotopes.

    Raises
    ------
    EquistrideError
        Where phono3py is missing, or a setting is not valid, or the crystal has imaginary modes.
    """
    check_mesh(mesh)
    if not len(temperatures) or min(temperatures) <= 0:
        raise EquistrideError("temperatures must be positive", expected="one or more, in K", found=list(temperatures))
    if method not in ("rta", "lbte"):
        raise EquistrideError("the method is not known", expected="rta or lbte", found=method)
    found = displaced_crystal("phono3py", atoms, supercell, displacement, cutoff_pair_distance=pair_cutoff)
    cells = [c for c in found.supercells_with_displacements if c is not None]
    if len(cells) == len(found.supercells_with_displacements):
        found.forces = forces_of(cells, calculator, found.supercell, progress)
    else:  # pairs beyond the cutoff have no supercell, and no force
        forces = iter(forces_of(cells, calculator, found.supercell, progress))
        still = np.zeros((len(found.supercell), 3))
        found.forces = [still if c is None else next(forces) for c in found.supercells_with_displacements]
    found.produce_fc3()
    found.symmetrize_fc3()
    found.produce_fc2()
    found.symmetrize_fc2()
    found.mesh_numbers = list(mesh)
    found.init_phph_interaction()
    found.run_thermal_conductivity(
        is_LBTE=method == "lbte", temperatures=list(temperatures), is_isotope=isotopes, log_level=0
    )
    result = found.thermal_conductivity
    frequencies = np.array(result.frequencies)
    if frequencies.min() < IMAGINARY:
        raise EquistrideError(
            "the crystal has imaginary modes, and no conductivity",
            expected="frequencies of 0 or more",
            found=f"{frequencies.min():.2f} THz",
            hint="relax it, or take a larger supercell",
        )
    tensor = np.array(result.kappa)[0]
    edges = np.linspace(0, 1.02 * frequencies.max(), 101)[1:]
    of_mode = np.array(result.mode_kappa)[0, 0][..., :3].mean(-1)
    share = np.array([of_mode[frequencies <= f].sum() for f in edges])
    total = tensor[0, :3].mean()
    return Conductivity(
        temperatures=np.array(result.temperatures),
        tensor=tensor,
        frequencies=edges,
        cumulative=share * (total / share[-1]),
        method=method,
        mesh=mesh,
        supercells=len(cells),
    )
