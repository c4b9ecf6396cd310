"""The ASE calculator: numbers, signs and order of ASE, its cache, and one sentence for what it cannot take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from random_models import random_potential, write_artifact

from equistride.artifact import Model, load
from equistride.engines.ase import EquistrideCalculator
from equistride.errors import EquistrideError


@pytest.fixture(scope="module")
def crystal() -> Atoms:
    """Nine atoms in a cell that is skewed, with stress in all six components."""
    from equistride.data.quartz import quartz

    atoms = quartz()
    atoms.rattle(0.05, seed=4)
    strain = np.eye(3) + np.array([[0.02, 0.01, 0.03], [0.0, -0.01, 0.02], [0.0, 0.0, 0.03]])
    atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
    return atoms


@pytest.fixture
def calculated(crystal: Atoms, random_artifact64: Path) -> Atoms:
    atoms = crystal.copy()
    atoms.calc = EquistrideCalculator(random_artifact64)
    return atoms


def test_energies_and_forces_are_the_models(calculated: Atoms, random_artifact64: Path) -> None:
    model = load(random_artifact64)
    species = model.species_index(calculated.get_chemical_symbols())
    outputs = model.compute(calculated.positions, species, calculated.cell.array, True)
    assert calculated.get_potential_energy() == pytest.approx(float(outputs.atomic_energies.sum()), abs=1e-12)
    assert calculated.get_potential_energy(force_consistent=True) == calculated.get_potential_energy()
    assert np.array_equal(calculated.get_potential_energies(), outputs.atomic_energies.numpy())
    assert np.array_equal(calculated.get_forces(), outputs.forces.numpy())
    numeric = calculate_numerical_forces(calculated, eps=1e-4, iatoms=[0, 5])
    assert np.abs(numeric - calculated.get_forces()[[0, 5]]).max() < 1e-6


def test_stress_is_the_derivative_by_strain(calculated: Atoms) -> None:
    """ASE's own finite differences have ASE's sign and order; the six components differ, so that an exchange would show."""
    stress = calculated.get_stress()
    numeric = calculate_numerical_stress(calculated, eps=1e-4)
    assert np.abs(stress - numeric).max() < 1e-6 * np.abs(stress).max()
    assert np.diff(np.sort(stress)).min() > 1e-4 * np.abs(stress).max()
    whole = calculated.get_stress(voigt=False)
    assert np.abs(whole - whole.T).max() < 1e-10


def test_asked_twice_computed_once(calculated: Atoms, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    compute = Model.compute
    monkeypatch.setattr(Model, "compute", lambda *a, **k: calls.append(1) or compute(*a, **k))
    calculated.get_forces()
    calculated.get_potential_energy()
    calculated.get_stress()
    assert len(calls) == 1
    calculated.positions[0, 0] += 0.01
    calculated.get_potential_energy()
    assert len(calls) == 2
    calculated.set_cell(calculated.cell.array * 1.01)
    calculated.get_stress()
    assert len(calls) == 3
    calculated.numbers[[0, 5]] = calculated.numbers[[5, 0]]
    before = calculated.calc.results["energy"]
    assert calculated.get_potential_energy() != before
    assert len(calls) == 4


def test_molecules_have_energy_and_no_stress(random_artifact64: Path) -> None:
    atoms = Atoms(
        "SiO2", [[0, 0, 0], [0, 0.2, 1.6], [1.5, 0, -0.3]], calculator=EquistrideCalculator(random_artifact64)
    )
    assert np.isfinite(atoms.get_potential_energy())
    assert np.abs(atoms.get_forces().sum(0)).max() < 1e-12
    assert "stress" not in atoms.calc.results
    with pytest.raises(EquistrideError, match="without a cell has no stress; expected three lattice vectors"):
        atoms.get_stress()
    with pytest.raises(PropertyNotImplementedError):  # what ASE's own code looks for
        atoms.get_stress()
    atoms.set_cell([8, 8, 8])
    assert atoms.get_stress().shape == (6,)


def test_a_slab_is_periodic_along_two_axes(random_artifact64: Path, crystal: Atoms) -> None:
    slab = crystal.copy()
    slab.pbc = [True, True, False]
    slab.calc = EquistrideCalculator(random_artifact64)
    open_energy = slab.get_potential_energy()
    assert np.abs(calculate_numerical_forces(slab, eps=1e-4, iatoms=[2]) - slab.get_forces()[[2]]).max() < 1e-6
    slab.pbc = True
    assert abs(slab.get_potential_energy() - open_energy) > 1e-6


def test_precision_and_a_loaded_model(crystal: Atoms, random_artifact64: Path) -> None:
    forces = {}
    for name, calculator in {
        "double": EquistrideCalculator(random_artifact64),
        "single": EquistrideCalculator(random_artifact64, dtype="float32"),
        "loaded": EquistrideCalculator(load(random_artifact64, dtype=torch.float32)),
    }.items():
        atoms = crystal.copy()
        atoms.calc = calculator
        forces[name] = atoms.get_forces()
        assert forces[name].dtype == np.float64
    assert np.array_equal(forces["single"], forces["loaded"])
    assert 0 < np.abs(forces["single"] - forces["double"]).max() < 1e-4 * np.abs(forces["double"]).max()


def test_ase_relaxes_a_cell_with_it(crystal: Atoms, repository: Path) -> None:
    """Quartz under the released model: forces and stress of wrong sign or order would climb."""
    atoms = crystal.copy()
    atoms.calc = EquistrideCalculator(repository / "models" / "quartz-esen" / "quartz-esen.pt", dtype="float64")
    before, strained = atoms.get_potential_energy(), np.abs(atoms.get_stress()).max()
    assert BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=0.01, steps=60)
    assert atoms.get_potential_energy() < before - 0.5
    assert np.abs(atoms.get_stress()).max() < 0.01 * strained
    assert atoms.cell.cellpar()[3:] == pytest.approx([90, 90, 120], abs=0.2)


@pytest.mark.parametrize(
    ("atoms", "said"),
    [
        (Atoms("SiC", [[0, 0, 0], [0, 0, 1.8]]), "does not know: C; expected O, Si"),
        (Atoms("SiO", [[0, 0, 0], [0, 0, np.nan]]), "position of atom 1 is not finite"),
        (Atoms("SiO2", [[0, 0, 0], [0, 0, 1.6], [0, 0, 1.6]]), "atoms 1 and 2 are on top of each other"),
        (Atoms("SiO", [[0, 0, 0], [0, 0, 1.6]], pbc=True), "independent, finite vectors"),
        (Atoms(), "no atoms"),
    ],
)
def test_what_it_cannot_take(random_artifact64: Path, atoms: Atoms, said: str) -> None:
    atoms.calc = EquistrideCalculator(random_artifact64)
    with pytest.raises(EquistrideError, match=said) as info:
        atoms.get_potential_energy()
    assert "\n" not in str(info.value)


def test_models_and_files_that_it_cannot_take(tmp_path: Path, random_artifact64: Path) -> None:
    with pytest.raises(EquistrideError, match="does not exist"):
        EquistrideCalculator(tmp_path / "none.pt")
    with pytest.raises(EquistrideError, match="precision is not known; expected float32, float64 or None; found half"):
        EquistrideCalculator(random_artifact64, dtype="half")
    path = write_artifact(random_potential(), tmp_path / "crystal.pt", "float64", periodic="required")
    atoms = Atoms("SiO", [[0, 0, 0], [0, 0, 1.6]], calculator=EquistrideCalculator(path))
    with pytest.raises(EquistrideError, match="trained on periodic systems alone"):
        atoms.get_forces()


def test_a_propagator_has_no_forces(tmp_path: Path) -> None:
    from equistride.artifact.propagators import build_propagator, save_propagator
    from equistride.models.trajcast import TrajCastConfig

    config = TrajCastConfig(cutoff=4.0, channels=4, num_layers=1, max_speed=0.1, avg_num_neighbors=10.0)
    facts = {"species": ["O"], "masses": [15.999], "stride_fs": 7.0, "rms_displacement": 0.1, "rms_velocity": 0.01}
    save_propagator(build_propagator(config, facts), tmp_path / "jump.pt")
    with pytest.raises(EquistrideError, match="propagator, which moves atoms and has no forces"):
        EquistrideCalculator(tmp_path / "jump.pt")
