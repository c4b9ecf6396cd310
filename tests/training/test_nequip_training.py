"""``architecture: nequip`` in ``equistride train``: the errors fall, a run goes on bit for bit, FRAMES, export."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from test_training import folder as folder
from test_training import weights

from equistride.artifact import load
from equistride.artifact.export import export, read_checkpoint
from equistride.training.config import TrainConfig, load_config
from equistride.training.module import PotentialModule
from equistride.training.run import train

MODEL = {"architecture": "nequip", "cutoff": 4.0, "num_layers": 2, "l_max": 1, "channels": 6, "radial_widths": [8]}


def config(tmp_path: Path, model: dict[str, object] | None = None, **sections: dict[str, object]) -> TrainConfig:
    """Return a configuration read from YAML, in float64 so that two runs can be compared to rounding."""
    content = {
        "name": "toy", "model": MODEL | (model or {}),
        "data": {"files": ["train.npz"], "test_files": ["test.npz"], "validation_fraction": 0.25, "batch_size": 3},
        "loss": {"energy": 2.0, "force": 10.0, "virial": 0.2},
        "optimiser": {"learning_rate": 1e-2, "warmup_steps": 5, "ema_decay": 0.9},
        "trainer": {"steps": 12, "validate_every": 6, "checkpoint_every": 6, "precision": "float64"}, **sections,
    }  # fmt: skip
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    read = load_config(path)
    assert isinstance(read, TrainConfig)
    return read


def test_the_errors_fall_and_the_artifact_is_the_network(folder: Path, tmp_path: Path) -> None:
    made = config(
        tmp_path,
        trainer={"steps": 250, "validate_every": 125, "checkpoint_every": 125, "precision": "float64"},
    )  # fmt: skip
    results = train(made, folder, tmp_path / "run", progress=False)
    with np.load(folder / "test.npz") as z:
        rms = 1000 * float(np.sqrt(np.mean(z["forces"] ** 2)))
    assert results["test_force_mae"] < 0.15 * rms
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    facts = read_checkpoint(checkpoint)["equistride"]
    assert facts["config"]["model"]["avg_num_neighbors"] == pytest.approx(4.0)  # SiO4: each atom has four neighbours
    for dtype, bound in (("float64", 1e-5), ("float32", 1e-3)):
        metadata = export(checkpoint, tmp_path / "toy.pt", dtype=dtype)
        assert (metadata.architecture, metadata.message_passing_steps) == ("nequip", 2)
        model = load(tmp_path / "toy.pt")
        with np.load(folder / "test.npz") as z:
            found = [
                model.compute(x, model.species_index(z["numbers"].tolist())).forces.numpy() for x in z["positions"]
            ]
            mae = 1000 * np.abs(np.array(found) - z["forces"]).mean()
        assert mae == pytest.approx(results["test_force_mae"], rel=bound)


@pytest.mark.parametrize("model", [{}, {"architecture": "mace", "correlation": [2, 2], "radial_widths": [8]}])
def test_an_interrupted_run_goes_on_bit_for_bit(
    model: dict[str, object],
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A MACE too."""
    made = config(tmp_path, model)
    train(made, folder, tmp_path / "whole", progress=False)

    def die(module: PotentialModule, *_: object) -> None:
        if module.global_step == 7:
            raise RuntimeError("power cut")

    monkeypatch.setattr(PotentialModule, "on_train_batch_end", die)
    with pytest.raises(RuntimeError, match="power cut"):
        train(made, folder, tmp_path / "broken", progress=False)
    monkeypatch.undo()
    train(made, folder, tmp_path / "broken", resume=True, progress=False)
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "broken")
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_another_run_begins_with_its_weights(folder: Path, tmp_path: Path) -> None:
    train(config(tmp_path), folder, tmp_path / "first", progress=False)
    made = config(tmp_path).model_copy(
        update={"initialise_from": str(tmp_path / "first" / "checkpoints" / "last.ckpt")}
    )
    train(made, folder, tmp_path / "second", progress=False)
    facts = read_checkpoint(tmp_path / "second" / "checkpoints" / "last.ckpt")["equistride"]
    assert facts["config"]["model"]["avg_num_neighbors"] == pytest.approx(4.0)
    assert "initialised_from" in facts["provenance"]
