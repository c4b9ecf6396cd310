"""Charge and spin in ASE and torch-sim: what structures say, what is given, what changes, and models in other processes."""

from __future__ import annotations

import multiprocessing
import pickle
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from equistride.artifact import load
from equistride.artifact.system import with_system
from equistride.engines.ase import EquistrideCalculator
from equistride.engines.openmm import create_force
from equistride.engines.openmm_structure import topology_from_ase
from equistride.errors import EquistrideError, Notice


@pytest.fixture(scope="module")
def model(omol: Path) -> Any:
    return load(omol)


def energy(model: Any, charge: float, spin: float, atoms: Atoms | None = None) -> float:
    """eV, of a model that is set back."""
    atoms, before = atoms or molecule("H2O"), model.metadata.system
    model.set_system(charge, spin)
    found = float(model.energies(atoms.positions, atoms.get_chemical_symbols()).sum())
    model.set_system(**before)
    return found


def water(calculator: EquistrideCalculator, **info: Any) -> Atoms:
    atoms = molecule("H2O")
    atoms.info |= info
    atoms.calc = calculator
    return atoms


def test_what_a_structure_says(model: Any) -> None:
    """Of one calculator for many structures, and of one structure that changes its mind."""
    calculator = EquistrideCalculator(model)
    ion, neutral = energy(model, -1, 2), energy(model, 0, 1)
    assert abs(ion - neutral) > 1e-3
    atoms = water(calculator)
    assert atoms.get_potential_energy() == neutral
    atoms.info |= {"charge": np.int64(-1), "spin": 2.0}
    assert calculator.calculation_required(atoms, ["energy"])
    assert atoms.get_potential_energy() == ion
    assert not calculator.calculation_required(atoms, ["energy"])
    atoms.info |= {"origin": "a database"}
    assert not calculator.calculation_required(atoms, ["energy"])
    forces = atoms.get_forces()
    assert water(calculator).get_potential_energy() == neutral
    assert np.abs(water(calculator).get_forces() - forces).max() > 1e-3
    assert model.metadata.system == {"charge": 0.0, "spin": 1.0}, "a model that others hold is set back"


def test_settings(omol: Path, model: Any) -> None:
    ion = energy(model, -1, 2)
    calculator = EquistrideCalculator(omol)
    atoms = water(calculator)
    assert atoms.get_potential_energy() == energy(model, 0, 1)
    assert calculator.set(charge=-1, spin=2) == {"charge": -1.0, "spin": 2.0}
    assert atoms.get_potential_energy() == ion
    assert calculator.set(charge=-1) == {}
    assert water(EquistrideCalculator(omol, charge=-1, spin=2), charge=-1).get_potential_energy() == ion
    assert water(EquistrideCalculator(model, charge=-1), spin=2).get_potential_energy() == ion
    calculator.set(charge=None, spin=None)
    assert atoms.get_potential_energy() == energy(model, 0, 1)


def test_initial_charges_and_moments(model: Any) -> None:
    calculator = EquistrideCalculator(model)
    atoms = water(calculator)
    atoms.set_initial_charges([-1 / 3] * 3)
    atoms.set_initial_magnetic_moments([0, 1.0, 0])
    assert atoms.get_potential_energy() == energy(model, -1, 2)
    atoms.info["charge"] = -1
    assert atoms.get_potential_energy() == energy(model, -1, 2)
    atoms.set_initial_charges([0.1, -0.1, 0.0])
    with pytest.raises(
        EquistrideError, match=r"initial charges of the structure are of another charge than it says.*-1"
    ):
        atoms.get_potential_energy()
    del atoms.info["charge"]
    assert atoms.get_potential_energy() == energy(model, 0, 2)
    atoms.set_initial_charges([0.4, 0.0, 0.0])
    with pytest.raises(
        EquistrideError, match=r"another charge than a whole one; .*found 0.4; set atoms.info\['charge'\]"
    ):
        atoms.get_potential_energy()
    atoms.set_initial_charges(None)
    atoms.set_initial_magnetic_moments(None)
    atoms.set_initial_magnetic_moments(np.eye(3))
    with pytest.raises(EquistrideError, match="moments in three directions give no spin"):
        atoms.get_potential_energy()


def test_what_contradicts_or_is_no_number(omol: Path, model: Any, tmp_path: Path, random_artifact64: Path) -> None:
    with pytest.raises(
        EquistrideError, match=r"charge of the structure is not the one that the engine was given.*-1.*0"
    ):
        water(EquistrideCalculator(model, charge=-1), charge=0).get_potential_energy()
    for info, said in (
        ({"charge": 0.5}, "the charge of a system must be a whole number; found 0.5"),
        ({"spin": "doublet"}, "the spin of a system must be a whole number; found 'doublet'"),
        ({"multiplicity": 2}, r"says multiplicity, which is not read; expected atoms.info\['spin'\]"),
        ({"total_charge": 1}, r"says total_charge, which is not read; expected atoms.info\['charge'\]"),
        ({"charge": 1000}, "charge is out of range"),
    ):
        with pytest.raises(EquistrideError, match=said):
            water(EquistrideCalculator(model), **info).get_potential_energy()
    with pytest.raises(EquistrideError, match="has no setting chrage; expected charge, spin"):
        EquistrideCalculator(omol, chrage=1)
    with pytest.raises(EquistrideError, match=r"has no setting dtype; .*given when it is made"):
        EquistrideCalculator(model).set(dtype="float32")
    with pytest.raises(
        EquistrideError, match=r"loaded model keeps its device and precision; expected cpu, torch.float64"
    ):
        EquistrideCalculator(model, dtype="float32")
    with pytest.raises(EquistrideError, match="knows no charge and no spin"):
        EquistrideCalculator(random_artifact64, charge=0)
    with pytest.raises(EquistrideError, match="knows no charge and no spin"):
        EquistrideCalculator(random_artifact64).set(spin=2)


def test_a_model_that_knows_none_says_so_once(random_artifact64: Path) -> None:
    calculator = EquistrideCalculator(random_artifact64)
    silica = Atoms("SiO2", [[0, 0, 0], [1.6, 0, 0], [-1.6, 0, 0]], info={"charge": 1, "spin": 2})
    silica.calc = calculator
    with pytest.warns(
        UserWarning, match="knows no charge and no spin: the structure's charge 1 and spin 2 are set aside"
    ):
        silica.get_potential_energy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        silica.rattle(0.01)
        silica.get_potential_energy()
        neutral = Atoms(
            "SiO2", silica.positions, info={"charge": 0, "spin": 1}, calculator=EquistrideCalculator(random_artifact64)
        )
        neutral.get_potential_energy()


def test_spins_that_the_electrons_do_not_allow_are_told(model: Any, omol: Path) -> None:
    """Once a calculator, also where the model's own charge and spin are meant; in torch-sim and OpenMM too."""
    said = (
        "a system of 11 electrons .charge -1. has no spin multiplicity of 1: give the spin that belongs to its charge"
    )
    calculator = EquistrideCalculator(model)
    with pytest.warns(Notice, match=said):
        water(calculator, charge=-1).get_potential_energy()
    radical = Atoms("OH", [[0, 0, 0], [0, 0, 0.97]])
    radical.calc = EquistrideCalculator(model)
    with pytest.warns(Notice, match="a system of 9 electrons .charge 0. has no spin multiplicity of 1"):
        radical.get_potential_energy()
    topology = topology_from_ase(molecule("H2O"))[0]
    for backend in ("plugin", "python"):
        with pytest.warns(Notice, match=said):
            create_force(omol, topology, charge=-1, backend=backend)  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        water(calculator, charge=-1).get_potential_energy()  # told already
        for charge, spin in ((0, 1), (0, 3), (1, 2), (1, 0)):  # 0: not given
            water(EquistrideCalculator(model), charge=charge, spin=spin).get_potential_energy()
            create_force(omol, topology, charge=charge, spin=spin)


def test_an_atom_without_an_element_is_called_so(random_artifact64: Path) -> None:
    atoms = Atoms("OX", [[0, 0, 0], [0, 0, 1.0]], calculator=EquistrideCalculator(random_artifact64))
    with pytest.raises(EquistrideError, match=r"atom 1 of the structure \(X\) has no element"):
        atoms.get_potential_energy()


def test_the_files_own_come_last(omol: Path, model: Any, tmp_path: Path) -> None:
    with_system(omol, tmp_path / "ion.pt", charge=-1, spin=2)
    ion = EquistrideCalculator(tmp_path / "ion.pt")
    assert water(ion).get_potential_energy() == energy(model, -1, 2)
    assert water(ion, charge=1).get_potential_energy() == energy(model, 1, 2)
    assert water(ion).get_potential_energy() == energy(model, -1, 2)


def potential_energy(task: tuple[Any, Atoms]) -> float:
    """What a worker of a pool does."""
    torch.set_num_threads(1)
    calculator, atoms = task
    atoms.calc = calculator
    return float(atoms.get_potential_energy())


def test_calculators_in_a_pool(omol: Path, model: Any, tmp_path: Path) -> None:
    """Sent with their charge, spin and precision; also where the worker cannot see the file."""
    atoms = molecule("H2O")
    moved = shutil.copy(omol, tmp_path / "omol.pt")
    calculators = [EquistrideCalculator(moved, charge=-1, spin=2), EquistrideCalculator(moved, dtype="float32")]
    tasks = pickle.dumps([(calculator, atoms) for calculator in calculators])
    (tmp_path / "omol.pt").unlink()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        energies = pool.map_async(potential_energy, pickle.loads(tasks), chunksize=1).get(timeout=120)
    single = energy(load(omol, dtype=torch.float32), 0, 1)
    assert energies == [energy(model, -1, 2), single]
    assert single != energy(model, 0, 1)


def test_models_are_pickled_with_their_state(omol: Path, tmp_path: Path) -> None:
    atoms = molecule("H2O")
    for source in (omol, omol.read_bytes()):
        model = load(source, dtype=torch.float32, charge=1, spin=2)
        again = pickle.loads(pickle.dumps(model))
        assert again.metadata == model.metadata
        assert again.dtype == torch.float32
        out, expected = (m.compute(atoms.positions, atoms.get_chemical_symbols()) for m in (again, model))
        assert torch.equal(out.forces, expected.forces)
    moved = tmp_path / "changed.pt"
    shutil.copy(omol, moved)
    model = load(moved)
    moved.write_bytes(b"another")
    with pytest.raises(EquistrideError, match=r"cannot be pickled: its file .*changed.pt is no longer what was loaded"):
        pickle.dumps(model)


def test_charges_of_a_state_of_torch_sim(omol: Path, model: Any, random_artifact64: Path) -> None:
    """Systems of several charges in one state, in order; 0 is what torch-sim has where nothing is said."""
    torch_sim = pytest.importorskip("torch_sim")
    from equistride.engines.torch_sim import EquistrideModel

    structures = [molecule(name) for name in ("H2O", "CH4", "NH3", "H2O")]
    state = torch_sim.io.atoms_to_state(structures, torch.device("cpu"), torch.float64)
    state.charge, state.spin = torch.tensor([0.0, 1.0, -1.0, 1.0]), torch.tensor([0.0, 2.0, 2.0, 2.0])
    served = EquistrideModel(model, compute_stress=False)
    found = served(state)
    expected = [energy(model, q, s, a) for q, s, a in zip((0, 1, -1, 1), (1, 2, 2, 2), structures, strict=True)]
    assert found["energy"].tolist() == pytest.approx(expected, rel=1e-12)
    for k, system in ((0, {}), (3, {"charge": 1, "spin": 2})):
        forces = water(EquistrideCalculator(model, **system)).get_forces()
        assert np.abs(found["forces"][state.system_idx == k].numpy() - forces).max() < 1e-9
    assert model.metadata.system == {"charge": 0.0, "spin": 1.0}
    del state.charge, state.spin
    ions = EquistrideModel(omol, charge=-1, spin=2, compute_stress=False)
    assert ions(state)["energy"].tolist() == pytest.approx([energy(model, -1, 2, a) for a in structures], rel=1e-12)
    state.charge, state.spin = torch.tensor([0.0, 1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0, 0.0])
    with pytest.warns(Notice, match="a system of 9 electrons .charge 1. has no spin multiplicity of 1"):
        served(state)
    del state.spin
    with pytest.raises(EquistrideError, match=r"charge of the structure is not the one that the engine was given"):
        ions(state)
    state.charge = torch.tensor([0.0, 1.0])
    with pytest.raises(EquistrideError, match="a state has one charge a system; expected 4; found 2"):
        served(state)
    with pytest.raises(EquistrideError, match="knows no charge and no spin"):
        EquistrideModel(random_artifact64, charge=1)
    again = pickle.loads(pickle.dumps(ions))
    del state.charge
    assert torch.equal(again(state)["energy"], ions(state)["energy"])
