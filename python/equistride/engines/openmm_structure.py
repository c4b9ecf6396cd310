"""From an ASE structure to what an OpenMM script needs: a topology, positions, a box in OpenMM's reduced form."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from openmm import Vec3, app, unit

from equistride.errors import EquistrideError
from equistride.units import ANGSTROM_PER_NM

NAME_LENGTH = 4
"""Characters of an atom's name in a PDB file."""


def reduced_cell(cell: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the same lattice [3, 3] (A) in OpenMM's reduced form.

    Lower triangular with a positive diagonal, |b_x| <= a_x/2, |c_x| <= a_x/2, |c_y| <= b_y/2. Only whole lattice vectors
    are added, so atoms stay where they are.

    Raises
    ------
    EquistrideError
        Where the cell is not lower triangular with a positive diagonal: it would have to be rotated, and the atoms with it.
    """
    a, b, c = np.array(cell, dtype=float)
    if not np.allclose(cell, np.tril(cell), atol=1e-10) or min(a[0], b[1], c[2]) <= 0:
        raise EquistrideError(
            "OpenMM needs a lower triangular cell with a positive diagonal",
            found=np.array2string(np.asarray(cell)).replace("\n", " "),
            hint="rotate cell and atoms together (ASE: atoms.set_cell(atoms.cell.standard_form()[0], scale_atoms=True))",
        )
    b -= a * np.round(b[0] / a[0])
    c -= b * np.round(c[1] / b[1])
    c -= a * np.round(c[0] / a[0])
    return np.tril(np.array([a, b, c]))


def topology_from_ase(atoms: Atoms) -> tuple[app.Topology, unit.Quantity]:
    """Return an OpenMM topology (one chain) and the positions [N, 3] with units.

    Atoms are named by element and number (Si1, O2). A residue ends where a name would exceed the four characters of a PDB
    file, which would be cut off there, and of equal names in a residue OpenMM's reader drops all but one.

    Parameters
    ----------
    atoms
        Periodic along all axes, or along none.
    """
    if atoms.pbc.any() and not atoms.pbc.all():
        raise EquistrideError(
            "OpenMM knows boxes that are periodic along all axes or none", found=f"pbc = {atoms.pbc.tolist()}",
            hint="make the open axes periodic, with more vacuum than the model sees, or choose another engine",
        )  # fmt: skip
    topology = app.Topology()
    chain = topology.addChain()
    residue, number = topology.addResidue("CELL", chain), 0
    for symbol in atoms.get_chemical_symbols():
        number += 1
        if len(f"{symbol}{number}") > NAME_LENGTH:
            residue, number = topology.addResidue("CELL", chain), 1
        topology.addAtom(f"{symbol}{number}", app.Element.getBySymbol(symbol), residue)
    if atoms.pbc.all():
        vectors = reduced_cell(atoms.cell.array) / ANGSTROM_PER_NM
        topology.setPeriodicBoxVectors([Vec3(*map(float, row)) for row in vectors] * unit.nanometer)
    return topology, [Vec3(*map(float, p)) for p in atoms.positions / ANGSTROM_PER_NM] * unit.nanometer
