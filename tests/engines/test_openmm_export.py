"""Files for the stock openmm-torch: the same numbers, torch's own operators, no need of equistride."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import openmm
import pytest
import torch
import toy_artifact
from openmm_systems import Structure, context, energy_forces
from torch import Tensor, nn

from equistride.engines.openmm import Force, create_system
from equistride.engines.openmm_export import write_torchforce
from equistride.errors import EquistrideError


def run(file: Path, structure: Structure, box: bool) -> tuple[float, np.ndarray]:
    """Energy and forces of an exported file as a plain module of the TorchForce contract."""
    force = Force(file, periodic=box)
    force.setOutputsForces(True)
    assert not force.isArtifact()
    system = openmm.System()
    for _ in structure.positions:
        system.addParticle(1.0)
    if box:
        system.setDefaultPeriodicBoxVectors(*structure.topology.getPeriodicBoxVectors())
    system.addForce(force)
    return energy_forces(context(system, structure.positions))


@pytest.mark.parametrize("shape", ["molecule", "crystal", "skewed"])
def test_same_numbers(
    shape: str, artifact64: Path, artifact32: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    structure: Structure = request.getfixturevalue(shape)
    system = create_system(artifact64, structure.topology, backend="plugin")
    energy, forces = energy_forces(context(system, structure.positions))
    for file, tolerance in ((artifact64, 1e-9), (artifact32, 1e-5)):
        box = write_torchforce(file, tmp_path / "omt.pt", structure.topology)
        assert box == (structure.box is not None)
        found = run(tmp_path / "omt.pt", structure, box)
        assert found[0] == pytest.approx(energy, rel=tolerance)
        assert np.abs(found[1] - forces).max() <= tolerance * np.abs(forces).max()


def test_some_of_the_atoms(artifact64: Path, tmp_path: Path, crystal: Structure) -> None:
    atoms = [8, 1, 14]
    write_torchforce(artifact64, tmp_path / "omt.pt", crystal.topology, atoms=atoms)
    system = create_system(artifact64, crystal.topology, atoms=atoms, backend="plugin")
    energy, forces = energy_forces(context(system, crystal.positions))
    found = run(tmp_path / "omt.pt", crystal, True)
    assert found[0] == pytest.approx(energy, rel=1e-9)
    np.testing.assert_allclose(found[1], forces, atol=1e-9 * np.abs(forces).max())


def test_frozen_on_any_precision_of_positions(artifact32: Path, tmp_path: Path, crystal: Structure) -> None:
    # openmm-torch freezes the module, gives it double positions on Reference and single ones on CUDA, and
    # reads the forces in the precision of the positions.
    write_torchforce(artifact32, tmp_path / "omt.pt", crystal.topology)
    module = torch.jit.freeze(torch.jit.load(str(tmp_path / "omt.pt")).eval())
    results = []
    for dtype in (torch.float64, torch.float32):
        positions = torch.tensor(crystal.positions / 10, dtype=dtype, requires_grad=True)
        energy, forces = module(positions, torch.tensor(crystal.box / 10, dtype=dtype))
        assert forces.dtype == dtype
        assert forces.is_contiguous()
        assert not forces.requires_grad
        results.append((energy.item(), forces.double()))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    assert (results[0][1] - results[1][1]).abs().max() <= 1e-5 * results[0][1].abs().max()


def test_loads_where_equistride_is_not(artifact64: Path, tmp_path: Path, skewed: Structure) -> None:
    file = tmp_path / "omt.pt"
    write_torchforce(artifact64, file, skewed.symbols, periodic=True)
    np.savez(tmp_path / "frame.npz", positions=skewed.positions / 10, box=skewed.box / 10)
    program = f"""
import sys
sys.modules["equistride"] = None  # importing it raises
import numpy as np, torch
frame = np.load({str(tmp_path / "frame.npz")!r})
module = torch.jit.load({str(file)!r})
energy, forces = module(torch.tensor(frame["positions"]), torch.tensor(frame["box"]))
assert not hasattr(torch.ops.equistride, "neighbors")
print(repr(energy.item()))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    system = create_system(artifact64, skewed.topology, backend="plugin")
    assert float(done.stdout) == pytest.approx(energy_forces(context(system, skewed.positions))[0], rel=1e-9)


def test_refusals(artifact64: Path, tmp_path: Path, crystal: Structure) -> None:
    target = tmp_path / "omt.pt"
    with pytest.raises(EquistrideError, match=r"element symbol is not known.*Qq"):
        write_torchforce(artifact64, target, ["Qq"])
    with pytest.raises(EquistrideError, match=r"does not know: C"):
        write_torchforce(artifact64, target, ["C", "H"])
    with pytest.raises(EquistrideError, match="no atoms"):
        write_torchforce(artifact64, target, [])
    with pytest.raises(EquistrideError, match=r"precision is not known.*float16"):
        write_torchforce(artifact64, target, crystal.topology, dtype="float16")
    bulk = toy_artifact.write(tmp_path / "bulk.pt", change={"periodic": "required"})
    with pytest.raises(EquistrideError, match=r"periodic systems alone.*periodic=True"):
        write_torchforce(bulk, target, ["O", "H"])
    change = {"kind": "propagator", "stride_fs": 7.0, "ensemble": "nve"}
    stride = toy_artifact.write(
        tmp_path / "stride.pt",
        change=change,
        scripted=torch.jit.script(Stride()),
        change_reference={"velocities": [[0.0] * 3] * 3},
        change_output={"displacements": [[0.0] * 3] * 3, "velocities": [[0.0] * 3] * 3},
    )
    with pytest.raises(EquistrideError, match="is a propagator"):
        write_torchforce(stride, target, ["O", "H"])
    assert not target.exists()


class Stride(nn.Module):
    """A propagator that stands still."""

    def forward(
        self,
        positions: Tensor,
        velocities: Tensor,
        species: Tensor,
        cell: Tensor,
        edge_index: Tensor,
        shifts: Tensor,
    ) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(positions), velocities


class Native(toy_artifact.PairPotential):
    """Uses an operator of ours."""

    def forward(
        self, positions: Tensor, species: Tensor, cell: Tensor, edge_index: Tensor, shifts: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        vectors = torch.ops.equistride.edge_vectors(positions, cell, edge_index, shifts)
        vectors = vectors.detach().requires_grad_(True)
        energies = self.atomic_energies(vectors, species, edge_index)
        gradient = torch.autograd.grad([energies.sum()], [vectors])[0]
        if gradient is None:
            gradient = torch.zeros_like(vectors)
        forces = (
            torch.zeros_like(positions).index_add(0, edge_index[0], gradient).index_add(0, edge_index[1], -gradient)
        )
        return energies.detach(), forces, torch.matmul(vectors.detach().t(), -gradient)


def test_our_operators_are_found(tmp_path: Path) -> None:
    module = torch.jit.script(Native(toy_artifact.CUTOFF, torch.float64))
    file = toy_artifact.write(tmp_path / "native.pt", scripted=module)
    Force(file)  # runs here
    with pytest.raises(EquistrideError, match=r"equistride::edge_vectors.*without fused operators"):
        write_torchforce(file, tmp_path / "omt.pt", ["O", "H"])
