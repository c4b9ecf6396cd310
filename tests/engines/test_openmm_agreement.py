"""Every way into OpenMM gives the eager module's numbers, and forces are the gradient of OpenMM's energy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import toy_artifact
from finite_differences import force_on
from openmm_systems import Structure, context, energy_forces

from equistride.engines.openmm import create_force, create_system
from equistride.graph import neighbor_list
from equistride.units import ANGSTROM_PER_NM, KJ_MOL_PER_EV

PLATFORMS = ["Reference", "CPU"]
BACKENDS = ["plugin", "python"]


def eager(structure: Structure, dtype: torch.dtype, model: torch.nn.Module | None = None) -> tuple[float, np.ndarray]:
    """Energy [kJ/mol] and forces [kJ/mol/nm] without OpenMM."""
    positions = torch.tensor(structure.positions, dtype=dtype)
    cell = torch.tensor(structure.cell(), dtype=dtype)
    pbc = torch.full((3,), structure.box is not None)
    edges, shifts = neighbor_list(positions, cell, pbc, toy_artifact.CUTOFF)
    model = model or toy_artifact.PairPotential(toy_artifact.CUTOFF, dtype)
    energies, forces, _ = model(positions, torch.tensor(structure.species), cell, edges, shifts)
    scale = KJ_MOL_PER_EV * ANGSTROM_PER_NM
    return energies.double().sum().item() * KJ_MOL_PER_EV, forces.double().numpy() * scale


def assert_same(found: tuple[float, np.ndarray], expected: tuple[float, np.ndarray], tolerance: float) -> None:
    """Compare energy and forces relative to the energy and the largest force."""
    assert found[0] == pytest.approx(expected[0], rel=tolerance)
    assert np.abs(found[1] - expected[1]).max() <= tolerance * np.abs(expected[1]).max()


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", ["molecule", "crystal", "skewed"])
def test_double(shape: str, backend: str, platform: str, artifact64: Path, request: pytest.FixtureRequest) -> None:
    structure: Structure = request.getfixturevalue(shape)
    expected = eager(structure, torch.float64)
    scripted = torch.jit.load(str(artifact64))
    assert_same(eager(structure, torch.float64, scripted), expected, 1e-12)
    made = context(create_system(artifact64, structure.topology, backend=backend), structure.positions, platform)
    assert_same(energy_forces(made), expected, 1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", ["molecule", "crystal", "skewed"])
def test_single(shape: str, backend: str, artifact32: Path, request: pytest.FixtureRequest) -> None:
    structure: Structure = request.getfixturevalue(shape)
    made = context(create_system(artifact32, structure.topology, backend=backend), structure.positions)
    assert_same(energy_forces(made), eager(structure, torch.float64), 1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", ["crystal", "skewed"])
def test_unwrapped_atoms(
    shape: str, backend: str, artifact64: Path, artifact32: Path, request: pytest.FixtureRequest
) -> None:
    # Thirty boxes away a float32 position has lost two digits; the force must not have.
    structure: Structure = request.getfixturevalue(shape)
    expected = eager(structure, torch.float64)
    for file, tolerance in ((artifact64, 1e-9), (artifact32, 1e-5)):
        made = context(create_system(file, structure.topology, backend=backend), structure.unwrapped)
        assert_same(energy_forces(made), expected, tolerance)


@pytest.mark.parametrize("backend", BACKENDS)
def test_far_molecule_in_single(backend: str, artifact32: Path, molecule: Structure) -> None:
    made = context(create_system(artifact32, molecule.topology, backend=backend), molecule.positions + 3000.0)
    assert_same(energy_forces(made), eager(molecule, torch.float64), 1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_precision_can_be_chosen(backend: str, artifact32: Path, artifact64: Path, crystal: Structure) -> None:
    expected = eager(crystal, torch.float64)
    double = context(
        create_system(artifact32, crystal.topology, backend=backend, precision="float64"), crystal.positions
    )
    assert energy_forces(double)[0] == pytest.approx(expected[0], rel=1e-6)  # float32 parameters, double sums
    single = context(
        create_system(artifact64, crystal.topology, backend=backend, precision="float32"), crystal.positions
    )
    error = abs(energy_forces(single)[0] / expected[0] - 1)
    assert 1e-12 < error < 1e-5


@pytest.mark.parametrize("backend", BACKENDS)
def test_some_of_the_atoms(backend: str, artifact64: Path, crystal: Structure) -> None:
    atoms = [21, 3, 4, 17, 9]  # in an order of their own
    part = Structure.__new__(Structure)
    part.box, part.positions, part.species = crystal.box, crystal.positions[atoms], crystal.species[atoms]
    energy, forces = eager(part, torch.float64)
    everyone = np.zeros_like(crystal.positions)
    everyone[atoms] = forces
    made = context(create_system(artifact64, crystal.topology, atoms=atoms, backend=backend), crystal.positions)
    assert_same(energy_forces(made), (energy, everyone), 1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_periodic_can_be_switched_off(backend: str, artifact64: Path, crystal: Structure) -> None:
    isolated = Structure.__new__(Structure)
    isolated.box, isolated.positions, isolated.species = None, crystal.positions, crystal.species
    force = create_force(artifact64, crystal.topology, backend=backend, periodic=False)
    assert not force.usesPeriodicBoundaryConditions()
    made = context(create_system(artifact64, crystal.topology, backend=backend, periodic=False), crystal.positions)
    assert_same(energy_forces(made), eager(isolated, torch.float64), 1e-9)


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("shape", ["molecule", "skewed"])
def test_forces_are_the_gradient(shape: str, platform: str, artifact64: Path, request: pytest.FixtureRequest) -> None:
    structure: Structure = request.getfixturevalue(shape)
    made = context(create_system(artifact64, structure.topology, backend="plugin"), structure.positions, platform)
    _, forces = energy_forces(made)

    def energy(positions: np.ndarray) -> float:
        made.setPositions(positions)
        return made.getState(energy=True).getPotentialEnergy()._value

    for atom, axis in [(0, 0), (3, 1), (7, 2), (11, 0)]:
        assert force_on(energy, structure.positions / 10, atom, axis) == pytest.approx(
            forces[atom, axis], abs=2e-6 * np.abs(forces).max()
        )


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_single_atom(backend: str, artifact64: Path) -> None:
    lone = Structure(1, None)
    energy, forces = energy_forces(context(create_system(artifact64, lone.topology, backend=backend), lone.positions))
    assert energy == 0.0
    assert not forces.any()
