"""One MACE network in OpenMM and in LAMMPS on several processes, in captured and joined frames: the same numbers."""

from __future__ import annotations

from pathlib import Path

import lammps_runs as lmp
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.data import covalent_radii
from lammps_runs import crystal
from openmm_systems import context, energy_forces

from equistride.artifact import load
from equistride.artifact.export import save_potential
from equistride.engines.ase import EquistrideCalculator
from equistride.engines.openmm import create_system
from equistride.engines.openmm_structure import topology_from_ase
from equistride.models.mace import MACE
from equistride.models.mace_config import MACEConfig
from equistride.models.potential import ConservativePotential
from equistride.units import ANGSTROM_PER_NM, KJ_MOL_PER_EV


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A layer with densities, one with a gate, vectors between, a distance transform, a nuclear repulsion; random, float64."""
    config = MACEConfig(
        cutoff=3.5, channels=6, l_max=2, l_features=1, radial_widths=(8,), divisors=("density", "nonlinear"), transform="agnesi",
        transform_parameters=(1.0805, 4.5791, 0.9183), repulsion_exponent=6, residual=(False, True), envelope_last=True,
        sent_channels=((5,), (4, 3)),
    )  # fmt: skip
    torch.manual_seed(4)
    numbers = [8, 14]
    network = MACE(config, 2, numbers=numbers, radii=[float(covalent_radii[z]) for z in numbers]).double()
    potential = ConservativePotential(network, ["O", "Si"], config.cutoff, 0.05, [-3.0, -4.0])
    path = tmp_path_factory.mktemp("mace") / "mace.pt"
    save_potential(potential, config, path, dtype="float64", fused=True, provenance={})
    return path


def of_ase(path: Path, atoms: Atoms) -> tuple[float, np.ndarray]:
    copied = atoms.copy()
    copied.calc = EquistrideCalculator(path)
    return copied.get_potential_energy(), copied.get_forces()


def test_lammps_on_several_processes(artifact: Path, tmp_path: Path) -> None:
    """With features exchanged between the layers, and with wide ghosts; forces of each other to 1e-10 eV/A."""
    lmp.require_plugin()
    atoms = crystal()
    energy, forces = of_ase(artifact, atoms)
    assert np.abs(forces).max() > 0.1
    for ranks, options in ((1, ""), (2, "ghost exchange"), (2, "ghost wide"), (4, "")):
        found = lmp.once(artifact, atoms, tmp_path / f"{ranks}{options.replace(' ', '')}", options, ranks)
        assert np.abs(found.forces - forces).max() < 1e-10
        assert found.thermo[0]["PotEng"] == pytest.approx(energy, abs=1e-9)


def test_openmm(artifact: Path, quartz_atoms: Atoms) -> None:
    energy, forces = of_ase(artifact, quartz_atoms)
    system = create_system(artifact, topology_from_ase(quartz_atoms)[0])
    made = context(system, quartz_atoms.positions)
    found = energy_forces(made)
    assert found[0] == pytest.approx(energy * KJ_MOL_PER_EV, rel=1e-11)
    np.testing.assert_allclose(found[1] / (ANGSTROM_PER_NM * KJ_MOL_PER_EV), forces, rtol=0, atol=1e-10)


def test_forces_are_slopes(artifact: Path, quartz_atoms: Atoms) -> None:
    """Of the energy, at one atom along one direction: central differences of 1e-4 A, whose error is some 1e-6 eV/A here."""
    _, forces = of_ase(artifact, quartz_atoms)
    direction = np.array([0.6, 0.0, 0.8])
    energies = []
    for sign in (-1, 1):
        moved = quartz_atoms.copy()
        moved.positions[7] += sign * 1e-4 * direction
        energies.append(of_ase(artifact, moved)[0])
    assert -(energies[1] - energies[0]) / 2e-4 == pytest.approx(forces[7] @ direction, abs=5e-6)


def test_joined_frames(artifact: Path, quartz_atoms: Atoms) -> None:
    model = load(artifact)
    species = model.species_index(quartz_atoms.get_chemical_symbols())
    frames = [(quartz_atoms.positions + shift, species, quartz_atoms.cell.array, True) for shift in (0.0, 0.3)]
    joined = model.compute_batch(frames)
    alone = model.compute(*frames[0])
    assert torch.allclose(joined.energies[0], alone.atomic_energies.sum(), rtol=1e-12)
    assert torch.allclose(joined.forces[: len(quartz_atoms)], alone.forces, atol=1e-11)
