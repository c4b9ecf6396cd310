"""Atoms far from the origin, or unwrapped by many cells, cost a float32 model no digit, whichever way they come in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import lammps_runs as lmp
import numpy as np
import openmm
import pytest
import torch
from ase import Atoms
from openmm_systems import context, energy_forces
from random_models import random_potential

from equistride.artifact import load
from equistride.artifact.export import save_potential
from equistride.data.quartz import quartz
from equistride.engines import openmm as engine
from equistride.engines.ase import EquistrideCalculator
from equistride.engines.openmm_export import write_torchforce
from equistride.engines.openmm_force import Force
from equistride.engines.openmm_structure import topology_from_ase
from equistride.models.esen import ESENConfig
from equistride.units import ANGSTROM_PER_NM, EV_PER_KJ_MOL

BOUND = 5e-5
"""eV/A: float32 against float64 where the atoms are at the origin is 1e-6 here."""
MOVES = {"100 A": 1e2, "10,000 A": 1e4, "1,000,000 A": 1e6, "1,000 cells": 0.0}


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random potential that runs in float32."""
    config = ESENConfig(cutoff=4.0, num_layers=1, channels=8, hidden_channels=8, edge_channels=8)
    path = tmp_path_factory.mktemp("far") / "model.pt"
    potential = random_potential(**config.model_dump(exclude={"cutoff"}))
    save_potential(potential, config, path, dtype="float32", fused=False, provenance={})
    return path


@pytest.fixture(scope="module")
def crystal() -> Atoms:
    """72 atoms of quartz with a cell that OpenMM and LAMMPS take as it is."""
    atoms = quartz((2, 2, 2))
    cell, turn = atoms.cell.standard_form()
    atoms.set_cell(cell)
    atoms.positions = atoms.positions @ turn.T
    atoms.rattle(0.05, seed=3)
    return atoms


@pytest.fixture(scope="module")
def exact(artifact: Path, crystal: Atoms) -> np.ndarray:
    """Forces in float64, at the origin."""
    model = load(artifact, dtype=torch.float64)
    return model.compute(crystal.positions, crystal.get_chemical_symbols(), crystal.cell.array, True).forces.numpy()


def moved(atoms: Atoms, name: str) -> Atoms:
    """All atoms along a skew direction, or each by whole lattice vectors of its own."""
    out = atoms.copy()
    if "cells" in name:
        out.positions += np.random.default_rng(1).integers(-1000, 1001, (len(atoms), 3)) @ atoms.cell.array
    else:
        out.positions += MOVES[name] * np.array([1.0, -0.7, 0.3])
    return out


def through_ase(artifact: Path, atoms: Atoms) -> np.ndarray:
    atoms.calc = EquistrideCalculator(artifact)
    return atoms.get_forces()


def through_torch_sim(artifact: Path, atoms: Atoms) -> np.ndarray:
    """Two systems in one state of double precision; one of single precision has no such digits itself."""
    pytest.importorskip("torch_sim", reason="torch-sim is not installed")
    from torch_sim.io import atoms_to_state

    from equistride.engines.torch_sim import EquistrideModel

    state = atoms_to_state([atoms, atoms], torch.device("cpu"), torch.float64)
    return EquistrideModel(artifact)(state)["forces"][: len(atoms)].numpy()


def through_openmm(backend: str) -> Callable[[Path, Atoms], np.ndarray]:
    def forces(artifact: Path, atoms: Atoms) -> np.ndarray:
        topology, _ = topology_from_ase(atoms)
        if backend == "torchforce":  # the file that openmm-torch loads, by its contract
            file = artifact.with_name("torchforce.pt")
            write_torchforce(artifact, file, topology)
            force = Force(file)
            force.setOutputsForces(True)
            force.setUsesPeriodicBoundaryConditions(True)
            system = openmm.System()
            system.setDefaultPeriodicBoxVectors(*topology.getPeriodicBoxVectors())
            for _ in atoms:
                system.addParticle(1.0)
            system.addForce(force)
        else:
            system = engine.create_system(artifact, topology, backend=backend)
        found = energy_forces(context(system, atoms.positions))[1]
        return np.asarray(found) * EV_PER_KJ_MOL / ANGSTROM_PER_NM

    return forces


WAYS = {
    "ase": through_ase,
    "torch-sim": through_torch_sim,
    "plugin": through_openmm("plugin"),
    "python": through_openmm("python"),
    "torchforce": through_openmm("torchforce"),
}


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("way", WAYS)
def test_forces_stay(way: str, move: str, artifact: Path, crystal: Atoms, exact: np.ndarray) -> None:
    found = WAYS[way](artifact, moved(crystal, move))
    assert np.abs(found - exact).max() < BOUND


@pytest.mark.parametrize("move", ["100 A", "1,000,000 A"])
def test_an_open_molecule_and_a_slab(artifact: Path, crystal: Atoms, move: str) -> None:
    """Along open axes atoms are centred; a slab is wrapped along the others."""
    for pbc in ([False] * 3, [True, True, False]):
        frame = (crystal.get_chemical_symbols(), crystal.cell.array, pbc)
        at_home = load(artifact, dtype=torch.float64).compute(crystal.positions, *frame).forces
        away = load(artifact).compute(moved(crystal, move).positions, *frame).forces
        assert float((away.double() - at_home).abs().max()) < BOUND


def test_lammps_wraps_them_itself(artifact: Path, crystal: Atoms, exact: np.ndarray, tmp_path: Path) -> None:
    script = lmp.head("equistride", f"* * {artifact} Si O") + lmp.OUTPUT + "run 0\n"
    run = lmp.run(moved(crystal, "1,000 cells"), script, tmp_path)
    assert np.abs(run.forces - exact).max() < BOUND


@pytest.mark.parametrize("way", ["ase", "openmm"])
def test_molecules_that_fly_apart_keep_their_digits(artifact: Path, way: str) -> None:
    """Clusters without a box, each far from the others in its own direction: forces are those of each alone."""
    cluster = quartz((1, 1, 1))
    cluster.set_pbc(False)
    cluster.set_cell(None)
    alone = (
        load(artifact, dtype=torch.float64).compute(cluster.positions, cluster.get_chemical_symbols()).forces.numpy()
    )
    for distance in (9.0, 150.0, 1e4, 1e6):
        gas = cluster.copy()
        for direction in ([1, 0, 0], [0.3, -1, 0.2], [-1, -1, 1]):
            other = cluster.copy()
            other.positions += distance * np.array(direction)
            gas += other
        if way == "ase":
            gas.calc = EquistrideCalculator(artifact)
            forces = gas.get_forces()
        else:
            topology, _ = topology_from_ase(gas)
            made = context(engine.create_system(artifact, topology), gas.positions)
            forces = energy_forces(made)[1] * EV_PER_KJ_MOL / ANGSTROM_PER_NM
        assert np.abs(forces.reshape(4, 9, 3) - alone).max() < BOUND
