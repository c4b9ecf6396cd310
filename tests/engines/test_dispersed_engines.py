"""A potential with dispersion in every engine: one answer, also where processes divide the atoms."""

from __future__ import annotations

from pathlib import Path

import lammps_runs as lmp
import numpy as np
import pytest
from openmm_systems import context, energy_forces

from equistride import artifact
from equistride.engines.openmm import create_system
from equistride.engines.openmm_structure import topology_from_ase
from equistride.units import KJ_MOL_PER_EV

pytest.importorskip("tad_dftd3", reason="tad-dftd3 is not installed: pip install 'equistride[dispersion]'")
from equistride.artifact.dispersion import with_dispersion


@pytest.fixture(scope="module")
def dispersed(random_artifact64: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dispersed") / "both.pt"
    with_dispersion(random_artifact64, path, "pbe", cutoff=7.0)
    return path


@pytest.mark.parametrize(("ranks", "ghosts"), [(1, "wide"), (2, "exchange")])
def test_engines_agree(dispersed: Path, tmp_path: Path, ranks: int, ghosts: str) -> None:
    """Forces to 1e-10 eV/A: coordination numbers go from process to process as features do."""
    lmp.require_plugin()
    atoms = lmp.crystal()
    model = artifact.load(dispersed)
    kinds = model.species_index(atoms.get_chemical_symbols())
    true = model.compute(atoms.positions, kinds, atoms.cell.array, atoms.pbc)
    found = lmp.once(dispersed, atoms, tmp_path, f"ghost {ghosts}", ranks)
    assert found.energies == pytest.approx(true.atomic_energies.numpy(), rel=1e-12)
    np.testing.assert_allclose(found.forces, true.forces.numpy(), rtol=0, atol=1e-10)
    if ranks > 1:
        return
    topology, _ = topology_from_ase(atoms)
    energy, forces = energy_forces(context(create_system(dispersed, topology, backend="plugin"), atoms.positions))
    # OpenMM's box has ten digits
    assert energy == pytest.approx(float(true.atomic_energies.sum()) * KJ_MOL_PER_EV, rel=1e-8)
    np.testing.assert_allclose(forces / (10 * KJ_MOL_PER_EV), true.forces.numpy(), rtol=0, atol=1e-6)
