"""The whole chain with the real architecture: an untrained eSEN, exported, in OpenMM."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openmm
import pytest
import torch
from openmm_systems import context, energy_forces

from equistride.artifact.export import build_potential, save
from equistride.artifact.metadata import Metadata
from equistride.data.quartz import quartz
from equistride.engines.openmm import create_system
from equistride.engines.openmm_structure import topology_from_ase
from equistride.graph import neighbor_list
from equistride.models.esen import ESENConfig
from equistride.units import ANGSTROM_PER_NM, KJ_MOL_PER_EV

CUTOFF = 4.0


@pytest.fixture(scope="module")
def esen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.nn.Module]:
    """An artifact with random weights, and the module that it was made of."""
    torch.manual_seed(5)
    config = ESENConfig(cutoff=CUTOFF, num_layers=2, channels=8, hidden_channels=8, edge_channels=8)
    facts = {"species": ["O", "Si"], "scale": 1.0, "references": [-1.0, -2.0]}
    potential = build_potential(config, facts).double()
    path = tmp_path_factory.mktemp("esen") / "esen.pt"
    metadata = Metadata(
        kind="potential",
        architecture="esen",
        species=["O", "Si"],
        cutoff=CUTOFF,
        num_layers=2,
        interaction_range=2 * CUTOFF,
        dtype="float64",
    )
    save(potential, metadata, path)
    return path, potential


@pytest.mark.parametrize("periodic", [True, False])
def test_eager_plugin_and_python_agree(esen: tuple[Path, torch.nn.Module], periodic: bool) -> None:
    path, potential = esen
    atoms = quartz((2, 2, 1))
    atoms.rattle(0.05, seed=2)
    atoms.pbc = periodic
    topology, positions = topology_from_ase(atoms)
    x = torch.tensor(np.array(positions._value) * ANGSTROM_PER_NM)
    box = topology.getPeriodicBoxVectors()
    cell = torch.zeros(3, 3, dtype=x.dtype) if box is None else torch.tensor(np.array(box._value) * ANGSTROM_PER_NM)
    edges, shifts = neighbor_list(x, cell, torch.full((3,), periodic), CUTOFF)
    species = torch.tensor([["O", "Si"].index(s) for s in atoms.get_chemical_symbols()])
    energies, forces, _ = potential(x, species, cell, edges, shifts)
    expected = forces.numpy() * KJ_MOL_PER_EV * ANGSTROM_PER_NM
    for backend in ("plugin", "python"):
        made = context(create_system(path, topology, backend=backend), x.numpy(), "CPU")
        energy, found = energy_forces(made)
        assert energy == pytest.approx(energies.sum().item() * KJ_MOL_PER_EV, rel=1e-9)
        assert np.abs(found - expected).max() <= 1e-9 * np.abs(expected).max()


def test_forces_are_the_gradient(esen: tuple[Path, torch.nn.Module]) -> None:
    # Central differences: h^2 f'''/6 and rounding of the energy (1e-16 * 1e4 / 2h) both stay below 1e-6 of
    # the force.
    atoms = quartz((1, 1, 1))
    atoms.rattle(0.05, seed=4)
    topology, _ = topology_from_ase(atoms)
    made = context(create_system(esen[0], topology, backend="plugin"), atoms.positions)
    _, forces = energy_forces(made)
    step = 1e-4  # A
    for atom, axis in [(0, 0), (4, 1), (8, 2)]:
        energies = []
        for sign in (1, -1):
            moved = atoms.positions.copy()
            moved[atom, axis] += sign * step
            made.setPositions(moved / 10)
            energies.append(made.getState(energy=True).getPotentialEnergy()._value)
        slope = -(energies[0] - energies[1]) / (2 * step / 10)
        assert slope == pytest.approx(forces[atom, axis], abs=1e-5 * np.abs(forces).max())


def test_minimizes_and_runs(esen: tuple[Path, torch.nn.Module]) -> None:
    topology, positions = topology_from_ase(quartz((1, 1, 1)))
    system = create_system(esen[0], topology, backend="plugin")
    integrator = openmm.LangevinMiddleIntegrator(300, 1.0, 0.0005)
    made = context(system, np.array(positions._value) * 10, integrator=integrator)
    openmm.LocalEnergyMinimizer.minimize(made, 10.0, 20)
    made.setVelocitiesToTemperature(300, 1)
    integrator.step(10)
    assert np.isfinite(made.getState(energy=True).getPotentialEnergy()._value)
