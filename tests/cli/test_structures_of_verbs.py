"""What a structure file says reaches every verb the same way, as a note on stderr or one sentence that refuses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms

from equistride.errors import EquistrideError
from equistride.properties.elastic import elastic_constants
from equistride.properties.eos import equation_of_state
from equistride.properties.lattice import check_crystal
from equistride.properties.relax import relax

MODEL = Path(__file__).parents[2] / "models" / "silicon-esen" / "silicon-esen.pt"


def equistride(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "equistride.cli.main", *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


@pytest.fixture
def held(tmp_path: Path) -> Path:
    """A POSCAR file of silicon, two atoms off their places, with selective dynamics that fixes one of them."""
    atoms = bulk("Si", cubic=True)
    atoms.positions[0] += [0.1, 0, 0]
    atoms.positions[5] += [0, 0.1, 0]
    atoms.set_constraint(FixAtoms([0]))
    ase.io.write(tmp_path / "POSCAR", atoms)
    return tmp_path


def test_relax_frees_what_the_file_fixes(held: Path) -> None:
    done = equistride("relax", str(MODEL), "POSCAR", "-o", "out", "--max-force", "0.01", "--fixed-cell", cwd=held)
    assert done.returncode == 0, done.stderr
    assert "equistride: note: POSCAR fixes 1 of its 8 atoms, wholly or in part; all are free here" in done.stderr
    assert "Warning" not in done.stderr
    assert json.loads((held / "out" / "relax.json").read_text())["model"]["max_force_eV_per_A"] < 0.01
    kept = equistride(
        "relax", str(MODEL), "POSCAR", "-o", "held", "--max-force", "0.01", "--fixed-cell", "--keep-fixed", cwd=held
    )
    assert kept.returncode == 0, kept.stderr
    assert "note" not in kept.stderr
    # the crystal, whose atoms may all shift, follows the one that is held: its own force is what the others leave
    found = json.loads((held / "held" / "relax.json").read_text())["model"]
    relaxed = ase.io.read(held / "held" / "relaxed.extxyz")
    assert isinstance(relaxed, Atoms)
    assert found["energy_eV"] >= json.loads((held / "out" / "relax.json").read_text())["model"]["energy_eV"] - 1e-3
    start = ase.io.read(held / "POSCAR")
    assert isinstance(start, Atoms)
    np.testing.assert_allclose(relaxed.positions[0], start.positions[0], atol=1e-6)


def test_the_force_on_a_held_atom_is_reported() -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=2)
    atoms.set_constraint(FixAtoms([0, 1]))
    found = relax(atoms, EMT(), cell="fixed", max_force=1e-3)
    assert found.max_force > 0.1, "two atoms are held off their places"
    assert found.summary()["max_force_eV_per_A"] == found.max_force


def test_properties_of_held_atoms_are_refused() -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.set_constraint(FixAtoms([0]))
    for what, compute in (
        ("elastic constants", lambda: elastic_constants(atoms, EMT())),
        ("an equation of state", lambda: equation_of_state(atoms, EMT())),
        ("phonons", lambda: check_crystal(atoms, (1, 1, 1), 0.01)),
    ):
        with pytest.raises(EquistrideError, match=f"{what} of atoms that are held would be wrong; .* FixAtoms"):
            compute()


def test_every_verb_reads_by_the_one_reader(tmp_path: Path) -> None:
    """A site that two elements share is refused by each; no other place of the package calls ASE's readers of structures."""
    source = Path(__file__).parents[2] / "python" / "equistride"
    calls = re.compile(r"ase\.io\.i?read\(|mdtraj\.load|PDBFile\(")
    readers = {str(p.relative_to(source)) for p in source.rglob("*.py") if calls.search(p.read_text())}
    assert readers == {"data/structures.py"}


def test_a_pickled_module_is_called_one(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pt")
    torch.save({"model": torch.nn.Linear(2, 2).state_dict()}, tmp_path / "state.pt")
    done = equistride("export", "model.pt", "-o", "a.pt", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "model.pt is a whole module, as torch.save(model) writes it" in done.stderr
    done = equistride("export", "state.pt", "-o", "a.pt", cwd=tmp_path)
    assert "state.pt is no checkpoint of equistride" in done.stderr
