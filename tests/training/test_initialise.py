"""Runs that begin with the weights of others: deeper potentials, propagators; and runs that two processes share."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import moving_toy
import numpy as np
import pytest
import torch
import yaml
from test_pretraining import MODEL, folder, frames  # noqa: F401  (fixtures)
from test_pretraining import config as potential_config
from test_propagator_training import config as propagator_config

from equistride.artifact.checkpoint import checkpoint_bytes, read_checkpoint, write_weights
from equistride.artifact.propagators import build_propagator
from equistride.errors import EquistrideError
from equistride.models.trajcast import TrajCastConfig
from equistride.training.module import predict
from equistride.training.run import train
from equistride.training.task import potential_task, propagator_task


@pytest.mark.parametrize("network", [{}, {"activation": "s2", "feed_forward": "grid"}])
def test_new_layers_add_nothing_at_first(folder: Path, network: dict[str, str]) -> None:  # noqa: F811
    """The deeper network's energies and forces are the trained one's to rounding, and its new layers learn."""
    precise = {"trainer": {"precision": "float64"}}
    train(potential_config(network, **precise), folder, folder / "first", progress=False)
    start = {"initialise_from": "first/checkpoints/last.ckpt"}
    before = potential_task(potential_config(network, **start, **precise), folder)
    after = potential_task(potential_config(network | {"num_layers": 3}, **start, **precise), folder)
    batch = next(iter(before.validation))
    outputs = [predict(task.module.model, batch, create_graph=False) for task in (before, after)]  # type: ignore[arg-type]
    for shallow, deep in zip(*outputs, strict=True):
        assert torch.allclose(shallow, deep, rtol=1e-12, atol=1e-13)
    after.module.training_step(batch, 0).backward()
    grown = dict(after.module.model.named_parameters())
    for k in (1, 2):
        assert any(
            float(p.grad.abs().max()) > 0 for n, p in grown.items() if f"blocks.{k}." in n and p.grad is not None
        )
    train(potential_config(network | {"num_layers": 3}, **precise), folder, folder / "deep", progress=False)
    with pytest.raises(EquistrideError, match="do not fit the model; expected num_layers = 3; found num_layers = 1"):
        potential_task(potential_config(network, initialise_from="deep/checkpoints/last.ckpt"), folder)


def test_a_propagator_begins_with_the_weights_of_another(tmp_path: Path) -> None:
    """Weights, scales and sizes are taken over, with a deeper roll-out; a file of another kind or other sizes is refused."""
    moving_toy.write(tmp_path / "train.npz", 20, 100)
    first = propagator_config(data={"test_files": []})
    train(first, tmp_path, tmp_path / "first", progress=False)
    start = {"initialise_from": "first/checkpoints/last.ckpt", "curriculum": [{"rollout": 2}]}
    moving_toy.write(tmp_path / "train.npz", 20, 500)  # other data, of other scales
    task = propagator_task(propagator_config(data={"test_files": []}, **start), tmp_path)
    saved = read_checkpoint(tmp_path / "first" / "checkpoints" / "last.ckpt")
    earlier = saved["equistride"]
    for key in ("rms_displacement", "rms_velocity", "rms_by_element"):
        assert task.module.facts[key] == earlier[key]
    assert task.module.config.model.max_speed == earlier["config"]["model"]["max_speed"]
    assert "pairs" in task.module.facts["provenance"]["initialised_from"]
    found = [
        max(float(np.linalg.norm(f.velocities[:, f.numbers == z], axis=2).max()) for f in task.training.dataset.groups)
        for z in (8, 14)
    ]
    assert earlier["fastest"] != found
    assert task.module.facts["fastest"] == pytest.approx([max(p) for p in zip(found, earlier["fastest"], strict=True)])
    assert task.module.model.network.speeds.known.tolist() == pytest.approx(task.module.facts["fastest"])
    alone = tmp_path / "weights.ckpt"
    write_weights(tmp_path / "first" / "checkpoints" / "last.ckpt", alone)
    assert alone.stat().st_size < 0.7 * (tmp_path / "first" / "checkpoints" / "last.ckpt").stat().st_size
    begun = propagator_task(
        propagator_config(data={"test_files": []}, **start | {"initialise_from": "weights.ckpt"}), tmp_path
    )
    kept = {k.removeprefix("model."): v for k, v in saved["state_dict"].items()}
    model = build_propagator(TrajCastConfig(**earlier["config"]["model"]), earlier).double()
    model.load_state_dict(model.state_dict() | kept)
    for name, value in model.state_dict().items():
        assert torch.equal(task.module.model.state_dict()[name], value), name
        assert torch.equal(begun.module.model.state_dict()[name], value), name
    del saved["equistride"]["config"]["model"]["parity"]  # a checkpoint from before there was this key
    (tmp_path / "old.ckpt").write_bytes(checkpoint_bytes(saved))
    propagator_task(propagator_config(data={"test_files": []}, **start | {"initialise_from": "old.ckpt"}), tmp_path)
    with pytest.raises(EquistrideError, match=r"do not fit the model; expected channels = 4; found channels = 6"):
        propagator_task(propagator_config(model={"channels": 6}, data={"test_files": []}, **start), tmp_path)
    with pytest.raises(EquistrideError, match=r"belong to other masses; expected 15.999 amu, 28.085 amu; found 17.999"):
        propagator_task(propagator_config(data={"masses": {"O": 17.999}, "test_files": []}, **start), tmp_path)


def test_a_potential_is_no_propagator(folder: Path) -> None:  # noqa: F811
    train(potential_config(), folder, folder / "first", progress=False)
    moving_toy.write(folder / "train.npz", 20, 100)
    start = {"initialise_from": "first/checkpoints/last.ckpt"}
    with pytest.raises(EquistrideError, match="is not a checkpoint of a propagator; check initialise_from"):
        propagator_task(propagator_config(data={"test_files": []}, **start), folder)


def test_two_processes_take_the_steps_of_one(folder: Path) -> None:  # noqa: F811
    """DDP with a frame a process makes the same weights as one process with two frames a step, to rounding."""
    settings = potential_config(
        trainer={"precision": "float64", "steps": 4, "validate_every": 4, "checkpoint_every": 4}
    )
    tree = settings.model_dump(mode="json")
    tree["model"] = {"architecture": "esen"} | MODEL
    runs = {}
    for processes in (1, 2):
        tree["data"] |= {"batch_size": 2 // processes, "files": [str(folder / "frames.npz")], "test_files": []}
        tree["trainer"] |= {"devices": processes}
        path = folder / f"{processes}.yaml"
        path.write_text(yaml.safe_dump({k: v for k, v in tree.items() if v is not None}))
        output = folder / f"run{processes}"
        done = subprocess.run(
            [str(Path(sys.executable).with_name("equistride")), "train", str(path), "-o", str(output)],
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        runs[processes] = read_checkpoint(output / "checkpoints" / "last.ckpt")["state_dict"]
    assert runs[1].keys() == runs[2].keys()
    for name, value in runs[1].items():
        assert torch.allclose(value, runs[2][name], rtol=1e-9, atol=1e-11), name
