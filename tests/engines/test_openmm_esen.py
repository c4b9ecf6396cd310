"""The whole chain with the real architecture: an untrained eSEN, exported, in OpenMM."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openmm
import pytest
import torch
from ase import Atoms
from finite_differences import force_on
from openmm_systems import context, energy_forces
from toy_metadata import toy_metadata

from equistride.artifact.export import build_potential, save
from equistride.data.quartz import quartz
from equistride.engines.openmm import Force, create_system
from equistride.engines.openmm_export import write_torchforce
from equistride.engines.openmm_structure import topology_from_ase
from equistride.graph import neighbor_list
from equistride.models.esen import ESENConfig
from equistride.units import ANGSTROM_PER_NM, KJ_MOL_PER_EV

CUTOFF = 4.0
METADATA = toy_metadata(["O", "Si"], CUTOFF, layers=2, architecture="esen")


@pytest.fixture(scope="module")
def esen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.nn.Module]:
    """An artifact with random weights, and the module that it was made of."""
    torch.manual_seed(5)
    config = ESENConfig(cutoff=CUTOFF, num_layers=2, channels=8, hidden_channels=8, edge_channels=8)
    facts = {"species": ["O", "Si"], "scale": 1.0, "references": [-1.0, -2.0]}
    potential = build_potential(config, facts).double()
    path = tmp_path_factory.mktemp("esen") / "esen.pt"
    save(potential, METADATA, path)
    return path, potential


@pytest.fixture(scope="module")
def esen32(esen: tuple[Path, torch.nn.Module], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights in an artifact that computes in single precision."""
    path = tmp_path_factory.mktemp("esen") / "esen32.pt"
    save(esen[1], METADATA.model_copy(update={"dtype": "float32"}), path)
    return path


def eager(potential: torch.nn.Module, atoms: Atoms) -> tuple[float, np.ndarray]:
    """Energy [kJ/mol] and forces [kJ/mol/nm] without OpenMM, in double precision."""
    x, cell = torch.tensor(atoms.positions), torch.tensor(atoms.cell.array * atoms.pbc[:, None])
    edges, shifts = neighbor_list(x, cell, torch.tensor(atoms.pbc), CUTOFF)
    species = torch.tensor([["O", "Si"].index(s) for s in atoms.get_chemical_symbols()])
    energies, forces, _ = potential(x, species, cell, edges, shifts)
    return float(energies.sum()) * KJ_MOL_PER_EV, forces.numpy() * KJ_MOL_PER_EV * ANGSTROM_PER_NM


def torchforce(path: Path, atoms: Atoms, folder: Path) -> openmm.System:
    """A System with the file that the genuine openmm-torch loads, by the TorchForce contract."""
    topology, _ = topology_from_ase(atoms)
    periodic = write_torchforce(path, folder / "torchforce.pt", topology)
    force = Force(folder / "torchforce.pt", periodic=periodic)
    force.setOutputsForces(True)
    system = openmm.System()
    for atom in topology.atoms():
        system.addParticle(atom.element.mass)
    if periodic:
        system.setDefaultPeriodicBoxVectors(*topology.getPeriodicBoxVectors())
    system.addForce(force)
    return system


@pytest.mark.parametrize("repeats", [(2, 2, 2), (3, 3, 2)], ids=["72 atoms", "162 atoms"])
@pytest.mark.parametrize("periodic", [True, False], ids=["periodic", "open"])
def test_every_way_in_agrees(
    esen: tuple[Path, torch.nn.Module],
    esen32: Path,
    periodic: bool,
    repeats: tuple[int, int, int],
    tmp_path: Path,
) -> None:
    """TorchScript and each backend on each platform give eager's numbers: 1e-9 in double, 1e-5 in single precision."""
    path, potential = esen
    atoms = quartz(repeats)
    atoms.rattle(0.05, seed=2)
    atoms.pbc = periodic
    topology, positions = topology_from_ase(atoms)
    # what OpenMM holds: the box in its reduced form
    atoms.positions = np.array(positions._value) * ANGSTROM_PER_NM
    if periodic:
        atoms.cell = np.array(topology.getPeriodicBoxVectors()._value) * ANGSTROM_PER_NM
    energy, forces = eager(potential, atoms)
    scripted = eager(torch.jit.load(str(path)), atoms)
    assert scripted[0] == pytest.approx(energy, rel=1e-12)
    assert np.abs(scripted[1] - forces).max() <= 1e-9 * np.abs(forces).max()
    for file, tolerance in ((path, 1e-9), (esen32, 1e-5)):
        systems = {b: create_system(file, topology, backend=b) for b in ("plugin", "python")}
        systems["torchforce"] = torchforce(file, atoms, tmp_path)
        for name, system in systems.items():
            for platform in ("Reference", "CPU"):
                found = energy_forces(context(system, atoms.positions, platform))
                assert found[0] == pytest.approx(energy, rel=tolerance), (name, platform)
                assert np.abs(found[1] - forces).max() <= tolerance * np.abs(forces).max(), (name, platform)


def test_forces_are_the_gradient(esen: tuple[Path, torch.nn.Module]) -> None:
    atoms = quartz((1, 1, 1))
    atoms.rattle(0.05, seed=4)
    topology, _ = topology_from_ase(atoms)
    made = context(create_system(esen[0], topology, backend="plugin"), atoms.positions)
    _, forces = energy_forces(made)

    def energy(positions: np.ndarray) -> float:
        made.setPositions(positions)
        return made.getState(energy=True).getPotentialEnergy()._value

    for atom, axis in [(0, 0), (4, 1), (8, 2)]:
        assert force_on(energy, atoms.positions / 10, atom, axis) == pytest.approx(
            forces[atom, axis], abs=1e-5 * np.abs(forces).max()
        )


def test_minimizes_and_runs(esen: tuple[Path, torch.nn.Module]) -> None:
    topology, positions = topology_from_ase(quartz((1, 1, 1)))
    system = create_system(esen[0], topology, backend="plugin")
    integrator = openmm.LangevinMiddleIntegrator(300, 1.0, 0.0005)
    made = context(system, np.array(positions._value) * 10, integrator=integrator)
    openmm.LocalEnergyMinimizer.minimize(made, 10.0, 20)
    made.setVelocitiesToTemperature(300, 1)
    integrator.step(10)
    assert np.isfinite(made.getState(energy=True).getPotentialEnergy()._value)
