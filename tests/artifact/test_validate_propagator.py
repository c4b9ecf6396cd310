"""`equistride validate` passes the released propagators, and names the property that a faulty one lacks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import molecule
from ase.io import write
from torch import Tensor, nn
from toy_metadata import toy_metadata

from equistride.artifact import load
from equistride.artifact.export import save
from equistride.artifact.model import Model
from equistride.artifact.outputs import Stride
from equistride.artifact.validate import validate
from equistride.artifact.validate_propagator import angular_momentum_error, read_motion
from equistride.errors import EquistrideError

MODELS = Path(__file__).resolve().parents[2] / "models"
QUARTZ, ETHANOL = (MODELS / name / f"{name}.pt" for name in ("quartz-trajcast-30fs", "ethanol-trajcast-7fs"))
CUTOFF, MAX_SPEED, SHORTEST, STRIDE = 4.0, 0.2, 0.8, 4.0  # A, A/fs, A, fs
MASSES = [15.999, 28.085]  # amu
SPEEDS, BONDS = "range of speeds", "range of bonds"
ANGULAR = "angular momentum is kept (no box)"


def names(path: Path, structure: Path | None = None) -> tuple[set[str], set[str]]:
    """Return the names of the checks, and of those that fail."""
    checks = validate(path, structure)
    return {c.name for c in checks}, {c.name for c in checks if not c.passed}


@pytest.mark.parametrize(("path", "angular"), [(QUARTZ, False), (ETHANOL, True)], ids=["quartz", "ethanol"])
def test_released_models_pass_on_their_reference_frame(path: Path, angular: bool) -> None:
    found, failed = names(path)
    assert failed == set()
    words = "rotation", "reflection", "reordering", "translations", "total momentum", "centre", "float32 velocities"
    assert all(any(word in name for name in found) for word in words)
    assert {SPEEDS, BONDS} <= found
    assert (ANGULAR in found) == angular


def test_a_molecule_passes_without_a_box(tmp_path: Path) -> None:
    write(tmp_path / "ethanol.xyz", molecule("CH3CH2OH"))
    found, failed = names(ETHANOL, tmp_path / "ethanol.xyz")
    assert failed == set()
    assert ANGULAR in found
    assert "equivariance: lattice translations" not in found


def test_velocities_of_the_file_or_of_300_kelvin(tmp_path: Path) -> None:
    model, atoms = load(ETHANOL), molecule("CH3CH2OH")
    path = tmp_path / "ethanol.extxyz"
    write(path, atoms)
    drawn = read_motion(path, model).velocities
    kinetic = 0.5 * (atoms.get_masses()[:, None] * (drawn / units.fs) ** 2).sum()
    assert 100 < 2 * kinetic / (3 * len(atoms) * units.kB) < 600  # K, of nine atoms
    given = np.linspace(-0.01, 0.01, 27).reshape(9, 3)  # A/fs
    atoms.set_velocities(given / units.fs)
    write(path, atoms)
    np.testing.assert_allclose(read_motion(path, model).velocities, given, atol=1e-6)


def test_structures_out_of_range_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "close.xyz", Atoms("OH", [[0, 0, 0], [0, 0, 0.3]]))
    with pytest.raises(EquistrideError, match="pm apart"):
        validate(ETHANOL, tmp_path / "close.xyz")


class Faulty(nn.Module):
    """Free flight, pulled by neighbours, with the momentum kept, and wrong in one property on purpose.

    Not decomposable: its own ``forward`` is what is called, and nobody mends its momenta.
    """

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault, self.stride = fault, STRIDE
        self.max_speed, self.shortest, self.tabled = MAX_SPEED, SHORTEST, True
        self.own_speed = (0.8 if fault == "timid" else 1.0) * MAX_SPEED
        self.own_shortest = (1.2 if fault == "stiff" else 1.0) * SHORTEST
        self.register_buffer("masses", torch.tensor(MASSES, dtype=torch.float64))
        self.register_buffer("skew", torch.tensor([1.01, 1.0, 1.0], dtype=torch.float64))
        self.register_buffer("unit", torch.ones((), dtype=torch.float64))  # has the precision of the network

    def forward(
        self, positions: Tensor, velocities: Tensor, species: Tensor, cell: Tensor, edge_index: Tensor, shifts: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Obey the contract of a propagator, but for the fault."""
        i, j = edge_index[0], edge_index[1]
        vectors = positions[j] - positions[i] + torch.matmul(shifts.to(cell.dtype), cell)
        square = vectors.square().sum(1, keepdim=True)
        if float(velocities.square().sum(1).max()) ** 0.5 > self.own_speed:
            raise ValueError("an atom is too fast for the toy")
        if float(square.min()) ** 0.5 < self.own_shortest:
            raise ValueError("a bond is too short for the toy")
        strength = 1e3 if self.fault == "wild" else 1e-3
        weight = strength * (1.0 - square / 16.0).clamp(min=0.0).square() * (1.0 + species[j].double())[:, None]
        pulls = weight * vectors
        if self.fault == "skewed":
            pulls = pulls * self.skew.double()
        if self.fault == "chiral":
            pulls = pulls + weight * torch.linalg.cross(velocities[j], vectors)
        if self.fault == "ordered":
            pulls = pulls * (1.0 + 0.01 * j.double())[:, None]
        if self.fault == "wrapped":
            pulls = pulls * (1.0 + 0.01 * positions[j].square().sum(1, keepdim=True).sqrt())
        if self.fault == "rounded" and self.unit.dtype == torch.float32:
            pulls = pulls * 1.1
        after = velocities + torch.zeros_like(velocities).index_add(0, i, pulls)
        masses = self.masses.double()[species][:, None]
        drift = (masses * velocities).sum(0) / masses.sum()
        after = after + drift - (masses * after).sum(0) / masses.sum()
        displacements = 0.5 * self.stride * (velocities + after)
        if self.fault == "lossy":
            after = after * 1.001
        if self.fault == "astray":
            displacements = displacements * 1.001
        return displacements, after


def write_faulty(path: Path, fault: str) -> Path:
    """Write such a propagator."""
    facts = {"masses": MASSES, "stride_fs": STRIDE, "max_speed": MAX_SPEED, "ensemble": "NVE", "dtype": "float64"}
    save(Faulty(fault), toy_metadata(["O", "Si"], CUTOFF, kind="propagator", **facts), path)
    return path


@pytest.mark.parametrize(
    ("fault", "failing"),
    [
        ("none", set()),
        ("skewed", {"equivariance: rotation", "equivariance: reflection"}),
        ("chiral", {"equivariance: reflection"}),
        ("ordered", {"equivariance: reordering of atoms"}),
        ("wrapped", {"equivariance: lattice translations"}),
        ("lossy", {"total momentum is kept"}),
        ("astray", {"centre of mass moves by its velocity"}),
        ("rounded", {"float32 displacements against float64", "float32 velocities against float64"}),
        ("timid", {SPEEDS}),
        ("stiff", {BONDS}),
    ],
)
def test_faults_are_found(tmp_path: Path, fault: str, failing: set[str]) -> None:
    found, failed = names(write_faulty(tmp_path / "toy.pt", fault))
    assert {SPEEDS, BONDS} <= found
    assert failed == failing


def test_what_throws_the_atoms_of_its_own_frame_needs_a_structure(tmp_path: Path) -> None:
    """As a network may that knows one crystal alone; on atoms of its kind it passes, and a bond at its limit may be thrown."""
    wild = write_faulty(tmp_path / "wild.pt", "wild")
    with pytest.raises(EquistrideError, match=r"its file carries \(atom \d+ would move .*--structure FILE"):
        validate(wild)
    apart = Atoms("OSi", [[0, 0, 0], [0, 0, 3.999]], cell=[20, 20, 20], pbc=True)
    assert all(check.passed for check in validate(wild, apart))


def test_a_range_that_is_not_watched_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines refuse by the file's limits; where they did not, this check would say so."""
    genuine, fastest = Model.propagate, float(load(QUARTZ).metadata.max_speed or 0.0)

    def careless(self: Model, positions: object, velocities: np.ndarray, *rest: object) -> Stride:
        return genuine(self, positions, velocities * min(1.0, 0.9 * fastest / np.abs(velocities).max()), *rest)

    monkeypatch.setattr(Model, "propagate", careless)
    assert names(QUARTZ)[1] == {SPEEDS}


def test_angular_momentum_that_is_lost_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Momenta are kept after any network that promises it, so the fault is put behind that: velocities that turn a little."""
    write(tmp_path / "ethanol.xyz", molecule("CH3CH2OH"))
    genuine = Model.propagate

    def turning(self: Model, positions: np.ndarray, *rest: object) -> Stride:
        stride = genuine(self, positions, *rest)
        masses = torch.tensor(self.metadata.masses, dtype=torch.float64)[torch.as_tensor(rest[1])][:, None]
        after = torch.as_tensor(positions) + stride.displacements
        arms = after - (masses * after).sum(0) / masses.sum()
        axis = (masses * torch.linalg.cross(arms, stride.velocities)).sum(0, keepdim=True)
        axis = 1e-6 * axis / axis.norm()
        return Stride(stride.displacements, stride.velocities + torch.linalg.cross(axis.expand_as(arms), arms))

    monkeypatch.setattr(Model, "propagate", turning)
    assert names(ETHANOL, tmp_path / "ethanol.xyz")[1] == {ANGULAR}


@pytest.mark.parametrize("bent", [0.0, 0.02])
def test_about_the_axis_of_a_linear_molecule_nothing_is_asked(tmp_path: Path, bent: float) -> None:
    write(tmp_path / "co2.extxyz", Atoms("OCO", [[-1.16, 0, 0], [0, bent, 0], [1.16, 0, 0]]))
    model = load(ETHANOL)
    assert angular_momentum_error(model, read_motion(tmp_path / "co2.extxyz", model)) < 1e-12


def test_the_command_line_prints_a_table_and_its_status(tmp_path: Path) -> None:
    def equistride(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "equistride.cli.main", "validate", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)

    sound = equistride(QUARTZ)
    assert sound.returncode == 0, sound.stdout + sound.stderr
    assert sound.stdout.count("pass") == 10
    faulty = write_faulty(tmp_path / "toy.pt", "lossy")
    wrong = equistride(faulty)
    assert wrong.returncode == 1, wrong.stdout + wrong.stderr
    assert wrong.stdout.count("FAIL") == 1
    told = json.loads(equistride(faulty, "--json").stdout)
    assert not told["passed"]
    assert [c["name"] for c in told["checks"] if not c["passed"]] == ["total momentum is kept"]
