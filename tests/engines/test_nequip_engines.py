"""Imported networks of NequIP's kind in every engine: one answer, however the atoms are divided."""

from __future__ import annotations

from pathlib import Path

import lammps_runs as lmp
import numpy as np
import pytest
import torch
from ase import Atoms
from lammps_runs import crystal
from numpy.typing import NDArray
from openmm_systems import context, energy_forces

from equistride import artifact
from equistride.engines.ase import EquistrideCalculator
from equistride.engines.openmm import create_system
from equistride.engines.openmm_structure import topology_from_ase
from equistride.errors import EquistrideError
from equistride.importers.sevennet import import_sevennet
from equistride.units import KJ_MOL_PER_EV

Array = NDArray[np.float64]
FOLDER = Path(__file__).resolve().parents[1] / "data" / "nequip"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Artifacts: both parities, biases and self-connections by species; XPLOR, and served with tables."""
    folder = tmp_path_factory.mktemp("nequip")
    for name, dtype in (("c", "float64"), ("d", "float32")):
        import_sevennet(FOLDER / f"sevennet-{name}.pth", folder / f"{name}.pt", elements=["O", "Si"], dtype=dtype)
    return {name: folder / f"{name}.pt" for name in "cd"}


def expected(path: Path, atoms: Atoms, dtype: torch.dtype | None = None) -> artifact.Outputs:
    model = artifact.load(path, dtype=dtype)
    return model.compute(
        atoms.positions, model.species_index(atoms.get_chemical_symbols()), atoms.cell.array, atoms.pbc
    )


@pytest.mark.parametrize("name", ["c", "d"])
@pytest.mark.parametrize(("ranks", "ghosts"), [(1, "wide"), (1, "exchange"), (2, "auto"), (4, "exchange")])
def test_lammps_divides_it(written: dict[str, Path], tmp_path: Path, name: str, ranks: int, ghosts: str) -> None:
    """Forces to 1e-10 eV/A in double precision, also from tables."""
    lmp.require_plugin()
    atoms = crystal()
    found = lmp.once(written[name], atoms, tmp_path, f"ghost {ghosts}", ranks)
    true = expected(written[name], atoms, torch.float64)
    assert found.energies == pytest.approx(true.atomic_energies.numpy(), rel=1e-12)
    np.testing.assert_allclose(found.forces, true.forces.numpy(), rtol=0, atol=1e-10)


def test_openmm_and_ase_give_the_same(written: dict[str, Path]) -> None:
    atoms = crystal()
    topology, positions = topology_from_ase(atoms)
    atoms.positions = np.array(positions._value) * 10
    atoms.cell = np.array(topology.getPeriodicBoxVectors()._value) * 10
    true = expected(written["c"], atoms)
    system = create_system(written["c"], topology, backend="plugin")
    energy, forces = energy_forces(context(system, atoms.positions))
    assert energy == pytest.approx(float(true.atomic_energies.sum()) * KJ_MOL_PER_EV, rel=1e-12)
    np.testing.assert_allclose(forces / (10 * KJ_MOL_PER_EV), true.forces.numpy(), rtol=0, atol=1e-10)
    atoms.calc = EquistrideCalculator(written["c"])
    np.testing.assert_allclose(atoms.get_forces(), true.forces.numpy(), rtol=0, atol=1e-12)
    stress = -true.virial.numpy() / atoms.get_volume()
    np.testing.assert_allclose(atoms.get_stress(voigt=False), stress, rtol=0, atol=1e-12)


def test_short_bonds_are_refused_with_their_atoms(written: dict[str, Path]) -> None:
    """Where tables end: a twentieth of the cutoff."""
    atoms = crystal()
    atoms.positions[5] = atoms.positions[7] + [0.1, 0.0, 0.0]
    with pytest.raises(EquistrideError, match=r"atoms (5 and 7|7 and 5)"):
        expected(written["d"], atoms)
