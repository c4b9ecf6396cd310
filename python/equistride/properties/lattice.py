"""What lattice dynamics shares: phonopy's structures, the size of a supercell, forces of displaced ones."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from numpy.typing import NDArray

from equistride.cell import heights
from equistride.errors import EquistrideError
from equistride.properties.relax import Progress, require_free

Repeats = tuple[int, int, int]


def require(package: str) -> Any:
    """Import phonopy, phono3py or spglib; an error names the extra that has them."""
    try:
        return importlib.import_module(package)
    except ImportError:
        raise EquistrideError(f"{package} is not installed", hint="pip install 'equistride[properties]'") from None


def supercell_for(atoms: Atoms, length: float = 10.0) -> Repeats:
    """Return the fewest repeats whose faces lie ``length`` [A] apart or more along each axis."""
    a, b, c = np.ceil(length / heights(atoms.cell.array) - 1e-6).astype(int).tolist()
    return a, b, c


def check_crystal(atoms: Atoms, repeats: Sequence[int], displacement: float) -> None:
    """Refuse what has no lattice, no supercell or no sensible displacement [A], and atoms that are held."""
    require_free(atoms, "phonons")
    if not atoms.pbc.all() or atoms.cell.rank < 3:
        raise EquistrideError(
            "phonons need a crystal", expected="a box along all three axes", found=f"pbc = {atoms.pbc.tolist()}"
        )
    if len(repeats) != 3 or min(repeats) < 1:
        raise EquistrideError("the supercell is not valid", expected="three repeats of 1 or more", found=list(repeats))
    if not 0 < displacement <= 0.2:
        raise EquistrideError("the displacement must be small and positive", expected="0 to 0.2 A", found=displacement)


def check_mesh(mesh: Sequence[int]) -> None:
    """Refuse a mesh that is not three numbers of 1 or more."""
    if len(mesh) != 3 or min(mesh) < 1:
        raise EquistrideError("the mesh is not valid", expected="three numbers of 1 or more", found=list(mesh))


def to_phonopy(atoms: Atoms) -> Any:
    """Return a structure as phonopy's, with the masses [amu] of ``atoms``."""
    require("phonopy")
    from phonopy.structure.atoms import PhonopyAtoms

    return PhonopyAtoms(
        symbols=atoms.get_chemical_symbols(),
        cell=atoms.cell.array,
        scaled_positions=atoms.get_scaled_positions(),
        masses=atoms.get_masses(),
    )


def primitive_matrix(unit: Any) -> NDArray[np.float64]:
    """Return phonopy's matrix from a unit cell (its own type) to the primitive cell, from the symmetry."""
    from phonopy.structure.cells import guess_primitive_matrix

    return np.array(guess_primitive_matrix(unit))


def from_phonopy(cell: Any) -> Atoms:
    """Return a structure of phonopy's as ASE's."""
    return Atoms(cell.symbols, cell=cell.cell, scaled_positions=cell.scaled_positions, masses=cell.masses, pbc=True)


def displaced_crystal(
    package: Literal["phonopy", "phono3py"],
    atoms: Atoms,
    supercell: Repeats | None,
    displacement: float,
    **options: Any,
) -> Any:
    """Return the package's object of a crystal, with its supercells displaced by ``displacement`` [A].

    Parameters
    ----------
    package
        Which: phonopy makes single displacements, phono3py pairs of them too.
    atoms, supercell
        The crystal, and the repeats of it; :func:`supercell_for`'s by default.
    displacement, options
        For the package's ``generate_displacements``.

    Raises
    ------
    EquistrideError
        As :func:`check_crystal`, and where the package is not installed.
    """
    repeats = supercell or supercell_for(atoms)
    check_crystal(atoms, repeats, displacement)
    kind, unit = getattr(require(package), package.capitalize()), to_phonopy(atoms)
    found = kind(unit, supercell_matrix=np.diag(repeats), primitive_matrix=primitive_matrix(unit))
    found.generate_displacements(distance=displacement, **options)
    return found


def forces_of(
    cells: Sequence[Any], calculator: Calculator, rest: Any, progress: Progress | None = None
) -> NDArray[np.float64]:
    """Return the forces [F, N, 3] in eV/A of displaced supercells of phonopy's, less those of the supercell at ``rest``.

    Taking off the forces at rest removes what an imperfect relaxation and the rounding of a network leave there.
    """
    images = [from_phonopy(c) for c in (rest, *cells)]
    forces = []
    for k, image in enumerate(images):
        image.calc = calculator
        forces.append(image.get_forces())
        if progress is not None:
            progress(k + 1, len(images))
    return np.stack(forces[1:]) - forces[0]
