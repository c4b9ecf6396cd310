"""The checks of `equistride validate` pass on a sound artifact and catch one that is not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.io import write
from random_models import random_potential, write_artifact
from torch import Tensor, nn
from toy_metadata import toy_metadata

from equistride.artifact.export import save
from equistride.artifact.validate import validate
from equistride.errors import EquistrideError


def test_a_sound_artifact_passes(random_artifact64: Path, tmp_path: Path, quartz_atoms: Atoms) -> None:
    checks = validate(random_artifact64)
    assert all(check.passed for check in checks), checks
    names = " ".join(check.name for check in checks)
    for word in ("forces", "virial", "rotation", "reflection", "reordering", "translations", "float32 forces"):
        assert word in names
    write(tmp_path / "quartz.xyz", quartz_atoms[:20])
    checks = validate(random_artifact64, tmp_path / "quartz.xyz")
    assert all(check.passed for check in checks), checks


def test_a_crystal_at_rest_passes(tmp_path: Path) -> None:
    """Its forces vanish by symmetry; what is left in float32 is rounding of bonds that cancel."""
    artifact = write_artifact(random_potential(), tmp_path / "random32.pt", "float32")
    write(tmp_path / "rest.extxyz", bulk("Si", cubic=True))
    checks = validate(artifact, tmp_path / "rest.extxyz")
    assert [c.name for c in checks if not c.passed] == []


class Skewed(nn.Module):
    """Pair energies whose forces, virial or symmetry are wrong on purpose."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault
        self.strength = nn.Parameter(torch.tensor(2.0))

    def forward(
        self, positions: Tensor, species: Tensor, cell: Tensor, edge_index: Tensor, shifts: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        i, j = edge_index[0], edge_index[1]
        vectors = positions[j] - positions[i] + torch.matmul(shifts.to(cell.dtype), cell)
        square = vectors.square().sum(1)
        decay = self.strength * torch.exp(-square)
        gradient = -2.0 * decay[:, None] * vectors
        if self.fault == "anisotropic":
            slope = 2.0 * decay * vectors[:, 0]
            factor = 1.0 + vectors[:, 0].square()
            decay, gradient = decay * factor, gradient * factor[:, None]
            gradient = gradient + slope[:, None] * torch.tensor([1.0, 0.0, 0.0]).to(gradient)
        energies = torch.zeros(positions.size(0), dtype=positions.dtype).index_add(0, i, decay)
        forces = torch.zeros_like(positions).index_add(0, i, gradient).index_add(0, j, -gradient)
        virial = -torch.matmul(vectors.t(), gradient)
        if self.fault == "forces":
            forces = 1.001 * forces
        if self.fault == "virial":
            virial = -virial
        return energies.double(), forces, virial


@pytest.mark.parametrize(
    ("fault", "failing"),
    [
        ("none", set()),
        ("forces", {"forces against finite differences"}),
        ("virial", {"virial against strain derivative"}),
        ("anisotropic", {"virial against strain derivative", "invariance: rotation", "invariance: reflection"}),
    ],
)
def test_faults_are_found(tmp_path: Path, fault: str, failing: set[str]) -> None:
    save(Skewed(fault), toy_metadata(["O", "Si"], 6.0), tmp_path / "toy.pt")
    found = {check.name for check in validate(tmp_path / "toy.pt") if not check.passed}
    assert found == failing


def test_a_published_network_fails_the_reflection_alone(tmp_path: Path) -> None:
    write_artifact(random_potential(mirror=False), tmp_path / "toy.pt", "float64")
    assert {c.name for c in validate(tmp_path / "toy.pt") if not c.passed} == {"invariance: reflection"}


def test_structures_that_are_refused(random_artifact64: Path, tmp_path: Path) -> None:
    path = tmp_path / "gold.xyz"
    write(path, Atoms("AuO", [[0, 0, 0], [0, 0, 2.0]]))
    with pytest.raises(EquistrideError, match="does not know: Au"):
        validate(random_artifact64, path)
    path.write_text("not a structure")
    with pytest.raises(EquistrideError, match="cannot be read as a structure"):
        validate(random_artifact64, path)
    with pytest.raises(EquistrideError, match="does not exist"):
        validate(random_artifact64, tmp_path / "none.xyz")
