"""A potential as `equistride export` writes it by default, fused: its file, in OpenMM, and as a TorchForce."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from openmm_systems import context, energy_forces
from random_models import SPECIES, random_potential

from equistride.artifact import load
from equistride.artifact.ensemble import combine
from equistride.artifact.export import export
from equistride.artifact.metadata import Metadata
from equistride.data.quartz import quartz
from equistride.engines.openmm import create_system
from equistride.engines.openmm_export import write_torchforce
from equistride.engines.openmm_structure import topology_from_ase
from equistride.units import KJ_MOL_PER_EV

SIZES = {"cutoff": 4.0, "num_layers": 2, "channels": 24, "hidden_channels": 20, "edge_channels": 16, "mirror": False}


def checkpoint(folder: Path, seed: int = 0, **choices: object) -> Path:
    """What `equistride train` writes, with random weights."""
    potential = random_potential(seed, **SIZES, **choices)
    facts = {
        "config": {"name": "toy", "model": {"architecture": "esen", **SIZES, **choices}},
        "species": SPECIES,
        "scale": potential.scale,
        "references": potential.references,
    }
    weights = {f"model.{name}": value for name, value in potential.state_dict().items()}
    path = folder / f"toy{seed}.ckpt"
    torch.save({"state_dict": weights, "equistride": facts, "global_step": 5}, path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fused")


@pytest.fixture(scope="module")
def written(folder: Path) -> dict[str, Metadata]:
    """Artifacts by file name: fused and plain, in both precisions."""
    source = checkpoint(folder)
    return {
        f"{kind}-{dtype}.pt": export(source, folder / f"{kind}-{dtype}.pt", dtype=dtype, fused=kind == "fused")
        for kind in ("fused", "plain")
        for dtype in ("float64", "float32")
    }


@pytest.fixture(scope="module")
def atoms() -> Atoms:
    """72 atoms of displaced quartz, as OpenMM holds them: with the box in its reduced form."""
    atoms = quartz((2, 2, 2))
    atoms.rattle(0.05, seed=2)
    topology, positions = topology_from_ase(atoms)
    atoms.positions = np.array(positions._value) * 10
    atoms.cell = np.array(topology.getPeriodicBoxVectors()._value) * 10
    return atoms


def operators(path: Path) -> set[str]:
    """The operators of ours that a file needs."""
    names = torch.jit.export_opnames(torch.jit.load(str(path)))
    return {name for name in names if name.startswith("equistride::")}


def test_export_fuses_unless_told_otherwise(written: dict[str, Metadata], folder: Path) -> None:
    for name, metadata in written.items():
        fused = name.startswith("fused")
        assert metadata.fused == fused
        assert ("equistride::edge_block" in operators(folder / name)) == fused
        assert metadata.num_parameters == written["plain-float32.pt"].num_parameters
    assert 0 < written["fused-float32.pt"].spline_error <= 1e-8
    assert written["fused-float64.pt"].spline_error == 0
    assert written["plain-float64.pt"].spline_error is None


def test_networks_without_a_fused_form_stay_plain(folder: Path) -> None:
    metadata = export(checkpoint(folder, 7, activation="s2"), folder / "s2.pt")
    assert not metadata.fused
    assert "equistride::edge_block" not in operators(folder / "s2.pt")


@pytest.mark.parametrize(("dtype", "bound"), [("float64", 1e-10), ("float32", 1e-5)])
def test_fused_equals_plain(written: dict[str, Metadata], folder: Path, atoms: Atoms, dtype: str, bound: float) -> None:
    outputs = []
    for name in (f"fused-{dtype}.pt", "plain-float64.pt"):
        model = load(folder / name)
        species = model.species_index(atoms.get_chemical_symbols())
        outputs.append(model.compute(atoms.positions, species, atoms.cell.array, True))
    for found, expected in zip(*outputs, strict=True):
        assert (found.double() - expected).abs().max() <= bound * expected.abs().max()


@pytest.mark.parametrize(("dtype", "bound"), [("float64", 1e-9), ("float32", 1e-5)])
def test_in_openmm(written: dict[str, Metadata], folder: Path, atoms: Atoms, dtype: str, bound: float) -> None:
    topology, _ = topology_from_ase(atoms)
    expected = energy_forces(context(create_system(folder / "plain-float64.pt", topology), atoms.positions))
    for platform in ("Reference", "CPU"):
        system = create_system(folder / f"fused-{dtype}.pt", topology, backend="plugin")
        found = energy_forces(context(system, atoms.positions, platform))
        assert found[0] == pytest.approx(expected[0], rel=bound)
        assert np.abs(found[1] - expected[1]).max() <= bound * np.abs(expected[1]).max()


def test_a_torchforce_needs_no_operator_of_ours(written: dict[str, Metadata], folder: Path, atoms: Atoms) -> None:
    """It takes the plain network that a fused file holds; so does one of an ensemble."""
    topology, _ = topology_from_ase(atoms)
    export(checkpoint(folder, 1), folder / "second.pt", dtype="float64")
    combine([folder / "fused-float64.pt", folder / "second.pt"], folder / "both.pt")
    outputs = []
    for name in ("fused-float64.pt", "plain-float64.pt", "both.pt"):
        target = folder / f"torchforce-{name}"
        write_torchforce(folder / name, target, topology)
        assert not operators(target)
        box = torch.tensor(atoms.cell.array) / 10
        outputs.append(torch.jit.load(str(target))(torch.tensor(atoms.positions) / 10, box))
    assert float(outputs[0][0]) == pytest.approx(float(outputs[1][0]), rel=1e-12)
    assert (outputs[0][1] - outputs[1][1]).abs().max() <= 1e-9 * outputs[1][1].abs().max()
    model = load(folder / "both.pt")
    species = model.species_index(atoms.get_chemical_symbols())
    energies = model.compute(atoms.positions, species, atoms.cell.array, True).atomic_energies
    assert float(outputs[2][0]) == pytest.approx(float(energies.sum()) * KJ_MOL_PER_EV, rel=1e-9)
