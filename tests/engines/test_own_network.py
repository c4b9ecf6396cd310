"""The networks of docs/own-network.md, as they stand there: exported by its commands, then one answer in every engine."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import lammps_runs as lmp
import numpy as np
import pytest
import torch
from ase import Atoms
from lammps_runs import crystal
from openmm_systems import context, energy_forces

from equistride import artifact
from equistride.artifact.validate import validate
from equistride.engines.ase import EquistrideCalculator
from equistride.engines.openmm import create_system
from equistride.engines.openmm_structure import topology_from_ase
from equistride.graph import neighbor_list
from equistride.units import KJ_MOL_PER_EV

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "own-network.md"
NAMES = ("schnet", "painn")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's files, and what its commands write."""
    place = tmp_path_factory.mktemp("own")
    text = DOCUMENT.read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    for name, block in zip(NAMES, blocks, strict=True):
        assert f"`{name}.py`" in text
        (place / f"{name}.py").write_text(block)
    commands = re.findall(r"^equistride export (.*)$", text, re.MULTILINE)
    assert len(commands) == len(NAMES)
    for command in commands:
        line = [sys.executable, "-m", "equistride.cli.main", "export", *command.split(), "--dtype", "float64"]
        done = subprocess.run(line, cwd=place, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        assert "sums over neighbours" in done.stdout
    return place


def truth(folder: Path, name: str, atoms: Atoms) -> tuple[float, np.ndarray, np.ndarray]:
    """Return energy [eV], forces [eV/A] and stress [eV/A^3] of the page's module, by autograd to positions and a strain."""
    space: dict[str, object] = {"__name__": name}
    exec(compile((folder / f"{name}.py").read_text(), f"{name}.py", "exec"), space)
    module = space["build"]().double()  # type: ignore[operator]
    positions, cell = torch.tensor(atoms.positions), torch.tensor(atoms.cell.array)
    edges, shifts = neighbor_list(positions, cell, True, module.cutoff)
    leaf, strain = positions.requires_grad_(True), torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    places, box = leaf + leaf @ strain, cell + cell @ strain
    numbers, whole = torch.tensor(atoms.numbers), shifts.double()
    if name == "schnet":
        energy = module(places[edges[1]] - places[edges[0]] + whole @ box, (numbers == 14).long(), edges).sum()
    else:
        # it takes the shifts away from source less target: they are those of the target
        energy = module(numbers, places, edges.flip(0), -whole, box, torch.zeros_like(numbers)).sum()
    of_places, of_strain = torch.autograd.grad(energy, [leaf, strain])
    return float(energy.detach()), -of_places.numpy(), of_strain.numpy() / atoms.get_volume()


@pytest.mark.parametrize("name", NAMES)
def test_ase_has_the_modules_own_answer(folder: Path, name: str) -> None:
    atoms = crystal()
    energy, forces, stress = truth(folder, name, atoms)
    atoms.calc = EquistrideCalculator(folder / f"{name}.pt")
    assert atoms.get_potential_energy() == pytest.approx(energy, rel=1e-12)
    np.testing.assert_allclose(atoms.get_forces(), forces, rtol=0, atol=1e-11)  # sums of some hundred terms of 1 eV/A
    np.testing.assert_allclose(atoms.get_stress(voigt=False), stress, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_lammps_divides_it(folder: Path, name: str, tmp_path: Path) -> None:
    lmp.require_plugin()
    atoms = crystal()
    energy, forces, _ = truth(folder, name, atoms)
    found = lmp.once(folder / f"{name}.pt", atoms, tmp_path, ranks=2)
    assert found.energies.sum() == pytest.approx(energy, rel=1e-12)
    np.testing.assert_allclose(found.forces, forces, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_openmm_and_torch_sim(folder: Path, name: str) -> None:
    atoms = crystal()
    topology, positions = topology_from_ase(atoms)
    atoms.positions = np.array(positions._value) * 10
    atoms.cell = np.array(topology.getPeriodicBoxVectors()._value) * 10
    energy, forces, stress = truth(folder, name, atoms)
    system = create_system(folder / f"{name}.pt", topology, backend="plugin")
    found, gradient = energy_forces(context(system, atoms.positions))
    assert found == pytest.approx(energy * KJ_MOL_PER_EV, rel=1e-12)
    np.testing.assert_allclose(gradient / (10 * KJ_MOL_PER_EV), forces, rtol=0, atol=1e-10)
    torch_sim = pytest.importorskip("torch_sim", reason="torch-sim is not installed")
    from equistride.engines.torch_sim import EquistrideModel

    model = EquistrideModel(folder / f"{name}.pt")
    batch = model(torch_sim.io.atoms_to_state([atoms, atoms], device="cpu", dtype=torch.float64))
    assert batch["energy"].tolist() == pytest.approx([energy] * 2, rel=1e-12)
    np.testing.assert_allclose(batch["stress"][0].numpy(), stress, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_validate_passes(folder: Path, name: str) -> None:
    assert all(check.passed for check in validate(folder / f"{name}.pt"))
    metadata = artifact.load(folder / f"{name}.pt").metadata
    assert metadata.message_passing_steps == {"schnet": 3, "painn": 2}[name]
