"""One artifact through OpenMM, ASE and torch-sim: equal energies, forces and stress; and torch-sim's own contract."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openmm
import pytest
import torch
from ase import Atoms
from finite_differences import strain_derivative
from openmm import unit

from equistride.data.quartz import quartz
from equistride.engines.ase import EquistrideCalculator
from equistride.engines.nve import standard
from equistride.engines.openmm import create_system
from equistride.engines.openmm_structure import topology_from_ase
from equistride.errors import EquistrideError
from equistride.units import ANGSTROM_PER_NM, EV_PER_KJ_MOL

ts = pytest.importorskip("torch_sim", reason="torch-sim is not installed (extra torch-sim)")
from equistride.engines.torch_sim import EquistrideModel  # noqa: E402

DOUBLE, CPU = torch.float64, torch.device("cpu")


@pytest.fixture(scope="module")
def systems() -> list[Atoms]:
    """Three crystals of different sizes, strained, in the form that OpenMM takes."""
    found = []
    random = np.random.default_rng(6)
    for repeats in ((1, 1, 1), (1, 1, 2), (2, 2, 1)):
        atoms = quartz(repeats)
        atoms.rattle(0.05, seed=2)
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.02 * random.normal(size=(3, 3))), scale_atoms=True)
        found.append(standard(atoms))
    return found


def in_openmm(artifact: Path, atoms: Atoms) -> openmm.Context:
    topology, positions = topology_from_ase(atoms)
    system = create_system(artifact, topology, precision="float64")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(positions)
    return context


def energy_of(context: openmm.Context) -> float:
    """Energy in eV."""
    return context.getState(energy=True).getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole) * EV_PER_KJ_MOL


def forces_of(context: openmm.Context) -> np.ndarray:
    """Forces in eV/A."""
    forces = context.getState(forces=True).getForces(asNumpy=True)
    return forces.value_in_unit(unit.kilojoule_per_mole / unit.nanometer) * (EV_PER_KJ_MOL / ANGSTROM_PER_NM)


def openmm_stress(artifact: Path, atoms: Atoms, step: float = 1e-4) -> np.ndarray:
    """Stress [3, 3] by central differences of OpenMM's energy in the strain (lower triangular, as its boxes are)."""
    stress = np.zeros((3, 3))
    context = in_openmm(artifact, atoms)

    def energy(positions: np.ndarray, cell: np.ndarray) -> float:
        context.setPeriodicBoxVectors(*(cell / ANGSTROM_PER_NM))
        context.setPositions(positions / ANGSTROM_PER_NM)
        return energy_of(context)

    for a in range(3):
        for b in range(a + 1):
            slope = strain_derivative(energy, atoms.positions, atoms.cell.array, a, b, step)
            stress[a, b] = stress[b, a] = slope / atoms.cell.volume
    return stress


def test_three_engines_one_answer(random_artifact64: Path, systems: list[Atoms]) -> None:
    model = EquistrideModel(random_artifact64)
    batch = model(ts.io.atoms_to_state(systems, CPU, DOUBLE))
    first = 0
    for k, atoms in enumerate(systems):
        calculated = atoms.copy()
        calculated.calc = EquistrideCalculator(random_artifact64)
        context = in_openmm(random_artifact64, atoms)
        energy, forces = calculated.get_potential_energy(), calculated.get_forces()
        rows = slice(first, first + len(atoms))
        first += len(atoms)
        scale = max(1.0, float(np.abs(forces).max()))
        assert abs(float(batch["energy"][k]) - energy) < 1e-9
        assert abs(energy_of(context) - energy) < 1e-9 * max(1.0, abs(energy))
        assert np.abs(batch["forces"][rows].numpy() - forces).max() < 1e-9 * scale
        assert np.abs(forces_of(context) - forces).max() < 1e-9 * scale
        assert np.abs(batch["energies"][rows].numpy() - calculated.get_potential_energies()).max() < 1e-9
        assert np.abs(batch["stress"][k].numpy() - calculated.get_stress(voigt=False)).max() < 1e-12


def test_stress_is_the_strain_derivative_in_each(repository: Path, systems: list[Atoms]) -> None:
    """The released model, 9 atoms: finite differences of the energy that each engine gives."""
    artifact, atoms = repository / "models" / "quartz-esen" / "quartz-esen.pt", systems[0]
    model = EquistrideModel(artifact, dtype="float64")
    stress = model(ts.io.atoms_to_state([atoms], CPU, DOUBLE))["stress"][0].numpy()
    largest = np.abs(stress).max()
    calculated = atoms.copy()
    calculated.calc = EquistrideCalculator(artifact, dtype="float64")
    assert np.abs(calculated.get_stress(voigt=False) - stress).max() < 1e-9 * largest
    assert np.abs(openmm_stress(artifact, atoms) - stress).max() < 1e-6 * largest
    strained = []
    steps = (1e-4, -1e-4, 2e-4, -2e-4)
    for h in steps:
        strain = np.eye(3)
        strain[2, 0] += h
        other = atoms.copy()
        other.set_cell(atoms.cell.array @ strain)
        other.positions = atoms.positions @ strain
        strained.append(other)
    e = model(ts.io.atoms_to_state(strained, CPU, DOUBLE))["energy"].numpy()
    slope = (8 * (e[0] - e[1]) - (e[2] - e[3])) / 12e-4
    assert abs(slope / atoms.cell.volume - stress[2, 0]) < 1e-6 * largest


def test_torch_sims_own_contract(tmp_path: Path) -> None:
    """Its validator runs Si and Fe, alone and batched."""
    import toy_artifact
    from torch_sim.models.interface import validate_model_outputs

    path = toy_artifact.write(tmp_path / "toy.pt", change={"species": ["H", "Fe", "Si"], "masses": []})
    validate_model_outputs(EquistrideModel(path), CPU, DOUBLE)


def test_torch_sim_runs_it(repository: Path) -> None:
    """Ten steps of its optimiser for two systems at once; a force of wrong sign or place would climb."""
    model = EquistrideModel(repository / "models" / "quartz-esen" / "quartz-esen.pt", dtype="float64")
    start = [quartz((1, 1, 1)), quartz((1, 1, 2))]
    for atoms in start:
        atoms.rattle(0.05, seed=1)
    before = model(ts.io.atoms_to_state(start, CPU, DOUBLE))["energy"]
    relaxed = ts.optimize(system=start, model=model, optimizer=ts.optimizers.fire, max_steps=10)
    after = model(relaxed)["energy"]
    assert (after < before).all()


def test_what_is_wanted_is_given(random_artifact64: Path, systems: list[Atoms]) -> None:
    model = EquistrideModel(random_artifact64, compute_stress=False)
    state = ts.io.atoms_to_state(systems[:1], CPU, DOUBLE)
    assert set(model(state)) == {"energy", "energies", "forces"}
    model.compute_stress, model.compute_forces = True, False
    assert set(model(state)) == {"energy", "energies", "stress"}
    assert (model.dtype, model.device, model.memory_scales_with) == (DOUBLE, CPU, "n_atoms_x_density")
    as_dictionary = {"positions": state.positions, "cell": state.cell, "pbc": state.pbc}
    as_dictionary |= {"atomic_numbers": state.atomic_numbers}
    assert torch.equal(model(as_dictionary)["energy"], model(state)["energy"])


def test_states_that_it_cannot_take(random_artifact64: Path, systems: list[Atoms]) -> None:
    model = EquistrideModel(random_artifact64)
    good = systems[0]
    for atoms, said in (
        (Atoms("SiC", [[0, 0, 0], [0, 0, 1.8]], cell=[9, 9, 9], pbc=True), "does not know: C"),
        (Atoms("SiO", [[0, 0, 0], [0, 0, np.nan]], cell=[9, 9, 9], pbc=True), "position of atom 1 is not finite"),
        (Atoms("SiO", [[0, 0, 0], [0, 0, 9.0]], cell=[9, 9, 9], pbc=True), "atoms 0 and 1 are on top"),
    ):
        with pytest.raises(EquistrideError, match=said):
            model(ts.io.atoms_to_state([good, atoms], CPU, DOUBLE))
    molecule = ts.io.atoms_to_state([Atoms("SiO", [[0, 0, 0], [0, 0, 1.6]])], CPU, DOUBLE)
    with pytest.raises(EquistrideError, match=r"without a cell has no stress.*compute_stress=False"):
        model(molecule)
    assert model.compute_stress
    model.compute_stress = False
    assert torch.isfinite(model(molecule)["energy"]).all()
    with pytest.raises(
        EquistrideError, match=r"less than the model's precision; expected torch\.float64; found torch\.float32"
    ):
        model(ts.io.atoms_to_state([good], CPU, torch.float32))
    with pytest.raises(EquistrideError, match="lacks atomic_numbers"):
        model({"positions": molecule.positions, "cell": molecule.cell, "pbc": False})
