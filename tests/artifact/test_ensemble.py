"""An ensemble is the mean of its members, a potential like any other, and knows where they disagree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from faulty_potentials import write_argon
from random_models import SPECIES, random_potential, write_artifact
from toy_metadata import toy_metadata

from equistride.artifact import Frame, load
from equistride.artifact.ensemble import combine
from equistride.artifact.export import save
from equistride.artifact.validate import validate
from equistride.errors import EquistrideError

MOLECULE = np.array([[0, 0, 0], [0, 0.2, 1.6], [1.5, 0, -0.3], [1.2, 1.9, 0.4]])
KINDS = [1, 0, 0, 1]


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("members")
    return [write_artifact(random_potential(k), folder / f"{k}.pt", "float64") for k in range(3)]


@pytest.fixture(scope="module")
def ensemble(members: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ensemble") / "ensemble.pt"
    combine(members, path, description="three of a kind")
    return path


def test_it_is_the_mean_and_knows_the_spread(members: list[Path], ensemble: Path, quartz_atoms: Atoms) -> None:
    model = load(ensemble)
    species = model.species_index(quartz_atoms.get_chemical_symbols())
    frame = (quartz_atoms.positions, species, quartz_atoms.cell.array, True)
    outputs = [load(path).compute(*frame) for path in members]
    for name, value in model.compute(*frame)._asdict().items():
        mean = torch.stack([getattr(one, name) for one in outputs]).mean(0)
        assert (value - mean).abs().max() < 1e-13 * max(1, mean.abs().max()), name
    forces = torch.stack([one.forces for one in outputs])
    spread = ((forces - forces.mean(0)) ** 2).sum((0, 2)) / (3 * (len(members) - 1))
    uncertainty = model.uncertainty(*frame)
    assert uncertainty.shape == (72,)
    assert (uncertainty - spread.sqrt()).abs().max() < 1e-13
    turned = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    other = model.uncertainty(quartz_atoms.positions @ turned, species, quartz_atoms.cell.array @ turned, True)
    assert (other - uncertainty).abs().max() < 1e-10, "it must not depend on axes"


def test_it_is_a_sound_potential(ensemble: Path) -> None:
    """Forces are the gradient of the mean energy, virial the strain derivative; symmetries hold."""
    assert all(check.passed for check in validate(ensemble)), validate(ensemble)


def test_what_the_file_says(members: list[Path], ensemble: Path) -> None:
    facts, member = load(ensemble).metadata, load(members[0]).metadata
    assert (facts.members, facts.kind, facts.species, facts.cutoff) == (3, "potential", SPECIES, 4.0)
    assert (facts.dtype, facts.description, facts.interaction_range) == (
        "float64",
        "three of a kind",
        member.interaction_range,
    )
    assert [m["file"] for m in facts.provenance["members"]] == ["0.pt", "1.pt", "2.pt"]
    assert len({m["sha256"] for m in facts.provenance["members"]}) == 3


def test_batches_and_precisions(ensemble: Path) -> None:
    model = load(ensemble)
    frames = [Frame(MOLECULE, KINDS), Frame(MOLECULE[:3] * 1.1, KINDS[:3]), Frame(MOLECULE, KINDS, 6 * np.eye(3), True)]
    assert model.metadata.capabilities.batched
    batch = model.compute_batch(frames)
    for k, frame in enumerate(frames):
        one = model.compute(*frame)
        assert abs(batch.energies[k] - one.atomic_energies.sum()) < 1e-12
        assert (batch.virials[k] - one.virial).abs().max() < 1e-12
    single = load(ensemble, dtype=torch.float32).uncertainty(MOLECULE, KINDS)
    double = model.uncertainty(MOLECULE, KINDS)
    assert 0 < (single - double).abs().max() < 1e-4 * double.max()
    with torch.inference_mode():
        assert torch.equal(model.uncertainty(MOLECULE, KINDS), double)


def test_members_without_the_batch_method(tmp_path: Path) -> None:
    """Modules of another make, of which only forward is known."""
    paths = [write_argon(tmp_path / f"{fault}.pt", fault) for fault in ("none", "envelope")]
    assert combine(paths, tmp_path / "both.pt").members == 2
    model = load(tmp_path / "both.pt")
    pair = [[0.0, 0, 0], [4.0, 0, 0]]
    f = [load(path).compute(pair, [0, 0]).forces[0, 0] for path in paths]
    expected = abs(f[0] - f[1]) / np.sqrt(2) / np.sqrt(3)
    assert model.uncertainty(pair, [0, 0]) == pytest.approx([float(expected)] * 2, rel=1e-10)


def test_uncertainty_needs_an_ensemble_and_sound_atoms(members: list[Path], ensemble: Path) -> None:
    with pytest.raises(EquistrideError, match="no uncertainty; expected an ensemble; found 1 set of weights"):
        load(members[0]).uncertainty(MOLECULE, KINDS)
    model = load(ensemble)
    for positions, said in (
        (MOLECULE * [1, 1, np.nan], "finite"),
        (MOLECULE[[0, 0, 2, 3]], "atoms 0 and 1 are on top of each other"),
        (MOLECULE[:3], "one index an atom"),
    ):
        with pytest.raises(EquistrideError, match=said):
            model.uncertainty(positions, KINDS)


def test_one_network_in_two_precisions_is_no_ensemble(members: list[Path], tmp_path: Path) -> None:
    potential = random_potential(7)
    twins = [write_artifact(potential, tmp_path / f"{dtype}.pt", dtype) for dtype in ("float32", "float64")]
    with pytest.raises(
        EquistrideError, match=r"float32.pt and .*float64.pt have the same forces: they are one network"
    ):
        combine([members[0], *twins], tmp_path / "out.pt")


def test_members_that_do_not_fit(members: list[Path], ensemble: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.pt"
    wide = write_artifact(random_potential(cutoff=4.5), tmp_path / "wide.pt", "float64")
    argon = write_argon(tmp_path / "argon.pt", "none")
    jump = tmp_path / "jump.pt"

    class Still(torch.nn.Module):
        def forward(self, positions, velocities, species, cell, edge_index, shifts):  # type: ignore[no-untyped-def]
            return velocities * 1.0, velocities * 1.0

    moving = {"masses": [16.0, 28.0], "stride_fs": 1.0, "max_speed": 1.0, "ensemble": "NVE"}
    save(Still(), toy_metadata(SPECIES, 4.0, kind="propagator", **moving), jump)
    for paths, said in (
        ([], "an ensemble needs members; expected two artifacts or more; found 0"),
        (members[:1], "expected two artifacts or more; found 1"),
        ([members[0], wide], "has not the cutoff of .*expected 4.0; found 4.5"),
        ([members[0], argon], "has not the elements of"),
        ([members[0], ensemble], "is an ensemble itself; give its members"),
        ([members[0], jump], "cannot be a member; expected a potential; found a propagator"),
        ([members[0], members[1], members[0]], "in the ensemble twice"),
        ([members[0], tmp_path / "none.pt"], "does not exist"),
        ([members[0], Path(__file__)], "is no model file"),
    ):
        with pytest.raises(EquistrideError, match=said):
            combine(paths, output)
        assert not output.exists()
    with pytest.raises(EquistrideError, match=r"folder .* does not exist"):
        combine(members, tmp_path / "nowhere" / "out.pt")
