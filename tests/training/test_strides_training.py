"""Training one network of several strides: they take turns, each in its own units, and a run goes on bit for bit."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import moving_toy
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from test_propagator_training import assert_goes_on, config, weights

from equistride.artifact import load
from equistride.artifact.checkpoint import read_checkpoint
from equistride.artifact.export import export
from equistride.data import frames as data
from equistride.errors import EquistrideError
from equistride.training.config import load_config
from equistride.training.pairs import RunOrder
from equistride.training.run import train
from equistride.training.task import propagator_task

BOTH: dict[str, Any] = {"stride_fs": [4, 2]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return moving_toy.write_folder(tmp_path_factory.mktemp("moving"))


def test_a_list_in_the_configuration(tmp_path: Path) -> None:
    found = config(data=BOTH).data
    assert (found.stride_fs, found.strides_fs, found.strides) == (4.0, [2.0, 4.0], [2.0, 4.0])
    one = config(data={"stride_fs": [4.0]}).data
    assert (one, one.strides) == (config().data, [4.0])
    (tmp_path / "config.yaml").write_text(
        "name: n\nmodel: {architecture: trajcast}\ndata: {files: [a.npz], stride_fs: [5, 10, 30]}\n"
    )
    assert load_config(tmp_path / "config.yaml").data.strides == [5.0, 10.0, 30.0]
    assert load_config(tmp_path / "config.yaml", ["data.stride_fs=7"]).data.strides == [7.0]
    for wrong in ([], [5, -1], [5, "ten"], [True, 5], [5, [10]]):
        with pytest.raises(EquistrideError, match="stride_fs") as info:
            load_config(tmp_path / "config.yaml", [f"data.stride_fs={wrong}".replace("True", "true")])
        assert "\n" not in str(info.value)
    for one, several in (
        (7, [5, 10]),
        (10, [20, 5]),
        (10, [5, 20]),
    ):  # of a configuration that was written, and changed
        with pytest.raises(ValidationError, match="to be the list of all strides"):
            config(data={"stride_fs": one, "strides_fs": several})
    with pytest.raises(ValidationError, match="no stride_fs in the curriculum of one network of several strides"):
        config(data=BOTH, curriculum=[{"stride_fs": 2.0}, {"from_step": 5}])


def test_strides_take_turns() -> None:
    """Each chain of a stride once in an epoch of its own; the order from a step on is that of the whole run."""
    counts = [(0, 10), (0, 6), (9, 4), (9, 4)]
    whole = list(RunOrder(counts, 20, 2, seed=3, strides=2))
    assert [batch[0][0] for batch in whole] == [0, 1] * 4 + [0] + [2, 3] * 5 + [2]
    assert all(len({stage for stage, _ in batch}) == 1 for batch in whole)
    assert sorted(k for batch in whole[:9:2] for _, k in batch) == list(range(10))
    assert sorted(k for batch in whole[1:7:2] for _, k in batch) == list(range(6))
    for start in range(20):
        assert list(RunOrder(counts, 20, 2, seed=3, start=start, strides=2)) == whole[start:]


def test_each_stride_has_its_own_units(folder: Path) -> None:
    task = propagator_task(config(data=BOTH, loss={"by_element": True}), folder)
    strides = task.module.facts["strides"]
    assert [stride["stride_fs"] for stride in strides] == [2.0, 4.0]
    (frames,) = data.load(folder / "train.npz", labelled=False)
    assert strides[0]["rms_displacement"] < 0.7 * strides[1]["rms_displacement"]
    for stride in strides:  # ballistic, nearly
        assert 0.5 < stride["rms_displacement"] / (stride["rms_velocity"] * stride["stride_fs"]) < 1.2
    assert task.module.scale.shape == (2, 2, 2)
    assert task.module.facts["rms_displacement"] == strides[1]["rms_displacement"]
    held = [batch.stride_fs for batch in task.validation]
    assert held == sorted(held)
    assert set(held) == {2.0, 4.0}
    assert len(frames) == 210


def test_the_errors_fall_and_the_artifact_is_the_network(folder: Path, tmp_path: Path) -> None:
    """200 steps, half for each stride, the last of them two strides deep; without training errors are 80 % of the rms."""
    settings = config(
        data=BOTH, curriculum=[{}, {"from_step": 160, "rollout": 2}],
        trainer={"steps": 200, "validate_every": 100, "checkpoint_every": 100},
    )  # fmt: skip
    results = train(settings, folder, tmp_path / "run", progress=False)
    each = {stride: results[f"test_displacement_{stride}fs_percent"] for stride in (2, 4)}
    assert max(each.values()) < 40
    assert results["test_displacement_percent"] == pytest.approx(np.mean(list(each.values())), rel=1e-5)
    metadata = export(tmp_path / "run" / "checkpoints" / "last.ckpt", tmp_path / "toy.pt", dtype="float64", tables=None)
    assert (metadata.stride_fs, metadata.strides_fs) == (4.0, [2.0, 4.0])
    model = load(tmp_path / "toy.pt")
    (held,) = data.load(folder / "test.npz", labelled=False)
    species = model.species_index(held.numbers.tolist())
    for apart, (stride, percent) in enumerate(each.items(), 1):
        model.set_stride(stride)
        starts = [k for k in range(len(held)) if k % 7 < 7 - apart]
        moved = [model.propagate(held.positions[k], held.velocities[k], species).displacements.numpy() for k in starts]
        target = np.array([held.positions[k + apart] - held.positions[k] for k in starts])
        found = 100 * np.abs(np.array(moved) - target).mean() / np.sqrt((target**2).mean())
        assert found == pytest.approx(percent, rel=1e-5)  # Lightning logs in float32


def test_an_interrupted_run_goes_on_bit_for_bit(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after an odd step, in the second stage."""
    whole = config(data=BOTH, curriculum=[{}, {"from_step": 6, "rollout": 2}], trainer={"checkpoint_every": 7})
    assert_goes_on(whole, folder, tmp_path, monkeypatch)
    one = weights(tmp_path / "unbroken")
    with pytest.raises(EquistrideError, match=r"have learned other strides; expected data.stride_fs of \[2.0, 4.0\]"):
        train(config(data={"stride_fs": [2, 6]}), folder, tmp_path / "broken", resume=True, progress=False)

    # and another run begins with its weights, where it learns the same strides
    last = str(tmp_path / "unbroken" / "checkpoints" / "last.ckpt")
    task = propagator_task(config(data=BOTH, initialise_from=last), folder)
    assert torch.equal(task.module.model.network.readout.weight, one["model.network.readout.weight"])
    before = read_checkpoint(Path(last))["equistride"]["strides"]
    assert task.module.facts["strides"] == before
    for other_strides in ([2, 6], 4.0):
        with pytest.raises(EquistrideError, match="have learned other strides"):
            propagator_task(config(data={"stride_fs": other_strides}, initialise_from=last), folder)


def test_strides_that_do_not_fit_the_data(folder: Path) -> None:
    with pytest.raises(EquistrideError, match="expected a multiple of 2 fs; found 3 fs"):
        propagator_task(config(data={"stride_fs": [3, 4]}), folder)
    with pytest.raises(EquistrideError, match="expected segments of 16 fs or more"):
        propagator_task(config(data={"stride_fs": [2, 8]}, curriculum=[{"rollout": 2}]), folder)
    first = propagator_task(config(data=BOTH), folder)
    assert all(a <= b for a, b in pairwise(first.module.config.data.strides))
