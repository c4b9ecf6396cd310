"""From ASE to OpenMM, and through a file of OpenMM's."""

from __future__ import annotations

import warnings
from pathlib import Path

import mdtraj
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from openmm import app, unit

from equistride.data.quartz import quartz
from equistride.engines.openmm_structure import topology_from_ase

STRUCTURES = [quartz((3, 3, 2)), bulk("Si", cubic=True).repeat(5), molecule("CH3CH2OH"), Atoms("H", [[1, 2, 3]])]


@pytest.mark.parametrize("atoms", STRUCTURES, ids=lambda atoms: atoms.get_chemical_formula())
def test_no_atom_is_lost_in_a_pdb_file(atoms: Atoms, tmp_path: Path) -> None:
    """Names of more than four characters would be cut off, and of equal ones OpenMM's reader keeps the first."""
    topology, positions = topology_from_ase(atoms)
    file = tmp_path / "structure.pdb"
    with file.open("w") as out:
        app.PDBFile.writeFile(topology, positions, out)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = app.PDBFile(str(file))
    assert [atom.element.symbol for atom in read.topology.atoms()] == atoms.get_chemical_symbols()
    found = np.array(read.positions.value_in_unit(unit.angstrom))
    assert np.abs(found - atoms.positions).max() < 0.00051  # three decimals
    assert mdtraj.load(str(file)).n_atoms == len(atoms)
    for residue in topology.residues():
        names = [atom.name for atom in residue.atoms()]
        assert len(set(names)) == len(names)
        assert max(map(len, names)) <= 4
