"""Phonons by finite displacements (phonopy): bands, density of states, thermal functions, and how two potentials differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.cell import Cell
from ase.dft.kpoints import parse_path_string
from numpy.typing import NDArray

from equistride.errors import EquistrideError
from equistride.properties.lattice import Repeats, check_mesh, displaced_crystal, forces_of
from equistride.properties.relax import Progress
from equistride.writing import whole_file

Array = NDArray[np.float64]
IMAGINARY = -0.01
"""Frequency [THz] below which a mode counts as imaginary; above, it is the rounding of an acoustic mode at Gamma."""
THERMAL_CUTOFF = 0.01
"""Modes below [THz] are left out of thermal functions, where they have no limit."""


@dataclass(frozen=True)
class Bands:
    """Frequencies along a path through the Brillouin zone.

    Attributes
    ----------
    distance
        For each unbroken stretch of the path, [Q] in 1/A (without 2 pi); stretches follow each other.
    frequencies
        For each stretch, [Q, 3n] in THz; imaginary frequencies are negative.
    ticks
        Distance and name of the special points.
    """

    distance: list[Array]
    frequencies: list[Array]
    ticks: list[tuple[float, str]]


@dataclass(frozen=True)
class Density:
    """Density of states: ``frequency`` [F] THz, ``total`` [F] 1/THz per primitive cell, ``by_element`` the shares."""

    frequency: Array
    total: Array
    by_element: dict[str, Array]


@dataclass(frozen=True)
class Thermal:
    """Harmonic thermal functions of one mole of primitive cells at ``temperatures`` [T] in K.

    Free energy [T] in kJ/mol (with the zero point), entropy [T] and heat capacity [T] at constant volume in J/K/mol.
    """

    temperatures: Array
    free_energy: Array
    entropy: Array
    heat_capacity: Array


class Phonons:
    """The harmonic lattice dynamics of a crystal.

    Attributes
    ----------
    phonopy
        phonopy's object with structure, displacements and force constants.
    sum_rule
        Largest entry of ``sum_i Phi_ij`` [eV/A^2] before it was set to zero: the force on an atom as the whole crystal is
        moved by 1 A, an error of the differences.
    """

    def __init__(self, phonopy: Any, sum_rule: float) -> None:
        self.phonopy, self.sum_rule = phonopy, sum_rule

    @property
    def elements(self) -> list[str]:
        """Element of each atom of the primitive cell."""
        return list(self.phonopy.primitive.symbols)

    def at(self, qpoints: Array | Sequence[Sequence[float]]) -> Array:
        """Return the frequencies [Q, 3n] in THz at ``qpoints`` [Q, 3], in units of the primitive reciprocal lattice."""
        self.phonopy.run_qpoints(np.asarray(qpoints, float))
        return np.array(self.phonopy.qpoints.frequencies)

    def mesh(self, mesh: Sequence[int]) -> Array:
        """Return the frequencies [Q, 3n] in THz on a whole mesh with Gamma."""
        check_mesh(mesh)
        axes = [np.arange(n) / n for n in mesh]
        return self.at(np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3))

    def imaginary(self, mesh: Sequence[int]) -> float:
        """Return the share of imaginary modes on a mesh."""
        return float((self.mesh(mesh) < IMAGINARY).mean())

    def bands(self, points: int = 40) -> Bands:
        """Return the bands along the standard path of the lattice (Setyawan & Curtarolo, 2010), as ASE has it.

        ``points`` are those of each straight piece.
        """
        cell = Cell(self.phonopy.primitive.cell)
        path = cell.bandpath(npoints=0)
        reciprocal = cell.reciprocal()
        start = 0.0
        distance: list[Array] = []
        frequencies: list[Array] = []
        ticks: list[tuple[float, str]] = []
        for names in parse_path_string(path.path):
            corners = [path.special_points[n] for n in names]
            stretch_q, stretch_d = [corners[0][None]], [np.array([start])]
            broken = f"{ticks.pop()[1]}|" if ticks else ""
            ticks.append((start, broken + names[0]))
            for name, a, b in zip(names[1:], corners[:-1], corners[1:], strict=True):
                length = float(np.linalg.norm((b - a) @ reciprocal))
                steps = np.arange(1, points + 1)[:, None] / points
                stretch_q.append(a + steps * (b - a))
                stretch_d.append(start + length * steps[:, 0])
                start += length
                ticks.append((start, name))
            distance.append(np.concatenate(stretch_d))
            frequencies.append(self.at(np.concatenate(stretch_q)))
        return Bands(distance, frequencies, ticks)

    def density(self, mesh: Sequence[int]) -> Density:
        """Return the density of states on a mesh, by the tetrahedron method, with the share of each element."""
        check_mesh(mesh)
        self.phonopy.run_mesh(list(mesh), is_mesh_symmetry=False, is_gamma_center=True, with_eigenvectors=True)
        self.phonopy.run_projected_dos()
        found = self.phonopy.projected_dos
        shares = np.array(found.projected_dos)
        elements = np.array(self.elements)
        by_element = {str(e): shares[elements == e].sum(0) for e in dict.fromkeys(self.elements)}
        return Density(np.array(found.frequency_points), shares.sum(0), by_element)

    def thermal(self, mesh: Sequence[int], temperatures: Sequence[float]) -> Thermal:
        """Return the harmonic thermal functions, with modes above 0.01 THz."""
        check_mesh(mesh)
        self.phonopy.run_mesh(list(mesh), is_gamma_center=True)
        self.phonopy.run_thermal_properties(temperatures=list(temperatures), cutoff_frequency=THERMAL_CUTOFF)
        t = self.phonopy.thermal_properties
        return Thermal(*(np.array(x) for x in (t.temperatures, t.free_energy, t.entropy, t.heat_capacity)))

    def summary(self, mesh: Sequence[int], temperatures: Sequence[float] = (300.0,)) -> dict[str, Any]:
        """Return the numbers as plain types, for JSON."""
        frequencies, thermal = self.mesh(mesh), self.thermal(mesh, temperatures)
        bands, density = self.bands(), self.density(mesh)
        return {
            "mesh": list(mesh),
            "supercell": np.array(self.phonopy.supercell_matrix).tolist(),
            "primitive_atoms": len(self.elements),
            "lowest_THz": float(frequencies.min()),
            "highest_THz": float(frequencies.max()),
            "imaginary_share": float((frequencies < IMAGINARY).mean()),
            "gamma_THz": self.at([[0.0, 0.0, 0.0]])[0].tolist(),
            "sum_rule_eV_per_A2": self.sum_rule,
            "thermal": {
                "temperature_K": thermal.temperatures.tolist(),
                "free_energy_kJ_per_mol": thermal.free_energy.tolist(),
                "entropy_J_per_K_mol": thermal.entropy.tolist(),
                "heat_capacity_J_per_K_mol": thermal.heat_capacity.tolist(),
            },
            "bands": {
                "distance_per_A": [d.tolist() for d in bands.distance],
                "frequency_THz": [f.tolist() for f in bands.frequencies],
                "ticks": [[d, n] for d, n in bands.ticks],
            },
            "density_of_states": {
                "frequency_THz": density.frequency.tolist(),
                "total_per_THz": density.total.tolist(),
                "by_element_per_THz": {e: d.tolist() for e, d in density.by_element.items()},
            },
        }

    def save(self, path: Path) -> None:
        """Write phonopy's YAML file (structure, displacements, forces, force constants), which phonopy loads again."""
        settings = {"force_sets": True, "displacements": True, "force_constants": True}
        with whole_file(path) as partial:
            self.phonopy.save(str(partial), settings=settings)


def phonons(
    atoms: Atoms,
    calculator: Calculator,
    *,
    supercell: Repeats | None = None,
    displacement: float = 0.01,
    progress: Progress | None = None,
) -> Phonons:
    """Return the phonons of a relaxed crystal, from finite displacements reduced by symmetry.

    The acoustic sum rule and the symmetry of the force constants are imposed afterwards; how far they were off is kept.

    Parameters
    ----------
    atoms
        The relaxed unit cell, with the masses that count.
    calculator
        An ASE calculator; double precision is wanted, since forces are differenced.
    supercell
        Repeats of the unit cell; the fewest that span 10 A where left out.
    displacement
        A.

    Raises
    ------
    EquistrideError
        Where phonopy is missing, or the structure, the supercell or the displacement are not valid.
    """
    found = displaced_crystal("phonopy", atoms, supercell, displacement)
    found.forces = forces_of(found.supercells_with_displacements, calculator, found.supercell, progress)
    found.produce_force_constants(show_drift=False)
    sum_rule = float(np.abs(found.force_constants.sum(0)).max())
    found.symmetrize_force_constants(show_drift=False)
    return Phonons(found, sum_rule)


def frequency_error(model: Phonons, reference: Phonons, mesh: Sequence[int] = (4, 4, 4)) -> dict[str, float]:
    """Return how the frequencies of two potentials of one crystal differ, mode by mode in order, on a mesh with Gamma.

    Returns
    -------
    dict
        ``mean_absolute``, ``root_mean_square``, ``largest`` and ``mean`` (model less reference) in THz.

    Raises
    ------
    EquistrideError
        Where the two are phonons of different primitive cells.
    """
    if model.elements != reference.elements:
        raise EquistrideError(
            "phonons can be compared only where both are of one crystal",
            expected=" ".join(reference.elements),
            found=" ".join(model.elements),
        )
    difference = model.mesh(mesh) - reference.mesh(mesh)
    return {
        "mean_absolute": float(np.abs(difference).mean()),
        "root_mean_square": float(np.sqrt((difference**2).mean())),
        "largest": float(np.abs(difference).max()),
        "mean": float(difference.mean()),
    }
