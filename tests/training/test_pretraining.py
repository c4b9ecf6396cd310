"""Pretraining with direct forces, denoising, bfloat16, and fine-tuning from its weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from random_models import graph_of, random_potential

from equistride.artifact import load
from equistride.artifact.export import export, read_checkpoint
from equistride.data.frames import Frames
from equistride.errors import EquistrideError
from equistride.models.esen import ESENConfig
from equistride.models.potential import DirectPotential
from equistride.training.config import TrainConfig, load_config
from equistride.training.data import EpochShuffle, GraphDataset, collate
from equistride.training.direct import Denoiser, direct_outputs, displaced
from equistride.training.module import predict
from equistride.training.run import train

MODEL = {
    "cutoff": 4.0,
    "num_layers": 1,
    "l_max": 1,
    "m_max": 1,
    "channels": 6,
    "hidden_channels": 6,
    "edge_channels": 6,
}


@pytest.fixture(scope="module")
def frames() -> Frames:
    """16 frames of SiO4 with the energies and forces of a random potential."""
    teacher, numbers = random_potential(seed=3), np.array([14, 8, 8, 8, 8])
    corners = 0.95 * np.array([[0, 0, 0], [1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    positions = corners + 0.1 * np.random.default_rng(1).normal(size=(16, 5, 3))
    outputs = [teacher(*graph_of(torch.tensor(x), torch.tensor(numbers == 14).long())) for x in positions]
    return Frames(
        numbers=numbers, positions=positions, cell=np.zeros((16, 3, 3)), pbc=np.zeros(3, bool),
        energy=np.array([float(o[0].sum()) for o in outputs]), forces=np.stack([o[1].numpy() for o in outputs]),
        virial=np.stack([o[2].numpy() for o in outputs]),
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, frames: Frames) -> Path:
    frames.save(tmp_path / "frames.npz")
    return tmp_path


def config(model: dict[str, Any] | None = None, **settings: Any) -> TrainConfig:
    trainer = {"steps": 6, "validate_every": 6, "checkpoint_every": 6, **settings.pop("trainer", {})}
    return TrainConfig.model_validate({
        "name": "toy", "model": MODEL | (model or {}),
        "data": {"files": ["frames.npz"], "test_files": ["frames.npz"], "validation_fraction": 0.25, "batch_size": 3},
        "optimiser": {"learning_rate": 1e-2, "warmup_steps": 2, "ema_decay": 0.5}, "trainer": trainer, **settings,
    })  # fmt: skip


def test_channels_that_sum_over_all_atoms_cannot_be_trained() -> None:
    with pytest.raises(ValueError, match=r"no model\.charge_channels and spin_channels: frames are joined"):
        config({"charge_channels": [0, 1]})


def test_pretrain_then_fine_tune_with_the_head_swapped(folder: Path) -> None:
    """The paper's recipe through the public functions: direct forces, cap and denoising; then gradients and neither."""
    first = config({"forces": "direct", "max_neighbors": 3}, denoising={"probability": 0.5})
    results = train(first, folder, folder / "direct", progress=False)
    assert np.isfinite(list(results.values())).all()
    last = folder / "direct" / "checkpoints" / "last.ckpt"
    with pytest.raises(EquistrideError, match=r"direct forces.*neighbour cap of 3.*add --allow-nonconservative"):
        export(last, folder / "direct.pt")
    metadata = export(last, folder / "direct.pt", dtype="float64", allow_nonconservative=True)
    assert not metadata.conservative
    assert len(metadata.caveats) == 2
    assert load(folder / "direct.pt").metadata == metadata

    second = config(initialise_from="direct/checkpoints/last.ckpt", trainer={"steps": 1})
    train(second, folder, folder / "fine", progress=False)
    earlier, later = (read_checkpoint(folder / run / "checkpoints" / "last.ckpt") for run in ("direct", "fine"))
    for key in ("species", "scale", "references"):
        assert later["equistride"][key] == earlier["equistride"][key]
    assert "frames" in later["equistride"]["provenance"]["initialised_from"]
    weights = {k: v for k, v in later["state_dict"].items() if k.startswith("model.")}
    assert not any("force_head" in k for k in weights)
    # one step at a third of the learning rate moves a weight by 0.0033 at most, EMA by less
    moved = max(float((earlier["state_dict"][k] - v).abs().max()) for k, v in weights.items())
    assert 0 < moved < 0.005
    assert export(folder / "fine" / "checkpoints" / "last.ckpt", folder / "fine.pt").conservative


def test_weights_that_do_not_fit_are_refused(folder: Path, frames: Frames) -> None:
    train(config({"forces": "direct"}), folder, folder / "direct", progress=False)
    start = "direct/checkpoints/last.ckpt"
    with pytest.raises(EquistrideError, match="do not fit the model; expected channels = 6; found channels = 8"):
        train(config({"channels": 8}, initialise_from=start), folder, folder / "a", progress=False)
    with pytest.raises(EquistrideError, match=r"none\.ckpt does not exist"):
        train(config(initialise_from="none.ckpt"), folder, folder / "b", progress=False)
    dataclasses.replace(frames, numbers=np.array([14, 8, 8, 8, 6])).save(folder / "frames.npz")
    with pytest.raises(EquistrideError, match="does not know: C; expected O, Si"):
        train(config(initialise_from=start), folder, folder / "c", progress=False)


@pytest.mark.parametrize(
    "extra", ["trainer.bfloat16=true", "denoising.probability=0.5", "trainer.precision=float64 trainer.bfloat16=true"]
)
def test_pretraining_needs_direct_forces(folder: Path, extra: str) -> None:
    path = folder / "config.yaml"
    path.write_text("{name: toy, model: {cutoff: 4.0}, data: {files: [frames.npz]}}")
    forces = ["model.forces=direct"] if "float64" in extra else []
    with pytest.raises(EquistrideError, match=r"has settings that contradict each other; expected trainer\.bfloat16"):
        load_config(path, [*forces, *extra.split()])
    settings = load_config(
        path, ["model.forces=direct", "model.envelope=off", "trainer.bfloat16=true", "trainer.devices=2"]
    )
    assert settings.model.envelope == "off"
    assert settings.trainer.devices == 2


@pytest.fixture
def direct() -> DirectPotential:
    potential = random_potential(forces="direct")
    assert isinstance(potential, DirectPotential)
    return potential


def test_direct_outputs_are_those_of_the_exported_model(direct: DirectPotential, frames: Frames) -> None:
    dataset = GraphDataset([frames], ["O", "Si"], 4.0, torch.float64)
    batch = collate([dataset[0], dataset[1]])
    energies, forces, virials = predict(direct, batch, create_graph=False)
    assert torch.isnan(virials).all()
    for k in range(2):
        expected = direct(*graph_of(torch.tensor(frames.positions[k]), dataset[k].species))
        assert float(energies[k].detach()) == pytest.approx(float(expected[0].sum()), abs=1e-12)
        assert torch.allclose(forces[5 * k : 5 * k + 5], expected[1], rtol=0, atol=1e-12)


def test_bfloat16_changes_products_alone(direct: DirectPotential, frames: Frames) -> None:
    """Results differ by a few roundings of bfloat16, 2^-8 each, which a network of random weights amplifies; the bond frames'
    own products are not rounded, and results stay in single precision."""
    potential = direct.float()
    dataset = GraphDataset([frames], ["O", "Si"], 4.0, torch.float32)
    batch = collate([dataset[0], dataset[1]])
    exact = direct_outputs(potential, batch, batch.vectors)
    rounded = direct_outputs(potential, batch, batch.vectors, bfloat16=True)
    assert rounded[1].dtype == torch.float32
    error = float(((rounded[1] - exact[1]).abs().max() / exact[1].abs().max()).detach())
    assert 1e-4 < error < 0.2


def test_a_displaced_batch_is_that_of_moved_atoms(frames: Frames) -> None:
    batch = GraphDataset([frames], ["O", "Si"], 4.0, torch.float64)[0]
    noise = 0.05 * torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    receiver, sender = batch.edge_index.long()
    moved = torch.tensor(frames.positions[0]) + noise
    assert torch.allclose(displaced(batch, noise), moved[sender] - moved[receiver], rtol=0, atol=1e-14)


def test_denoising_commutes_with_rotations(frames: Frames) -> None:
    """Forces in and displacements out turn together."""
    torch.manual_seed(0)
    potential = random_potential(forces="direct")
    denoiser = Denoiser(ESENConfig(channels=8)).double()
    batch = GraphDataset([frames], ["O", "Si"], 4.0, torch.float64)[0]
    angle = torch.tensor(0.7).double()
    q = torch.eye(3).double()
    q[:2, :2] = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).view(2, 2)

    def out(turn: torch.Tensor) -> torch.Tensor:
        extra = denoiser.encode(batch.forces @ turn.t())
        return denoiser.displacements(direct_outputs(potential, batch, batch.vectors @ turn.t(), extra)[2])

    assert torch.allclose(out(q), out(torch.eye(3).double()) @ q.t(), rtol=0, atol=1e-11)


def test_processes_share_the_frames_of_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = list(EpochShuffle(11, seed=4))
    parts = []
    for rank in range(3):
        monkeypatch.setattr(EpochShuffle, "_processes", staticmethod(lambda rank=rank: (rank, 3)))
        parts.append(list(EpochShuffle(11, seed=4)))
        assert len(EpochShuffle(11, seed=4)) == len(parts[-1]) == 3
    assert sorted(frame for part in parts for frame in part) == sorted(alone[:9])
