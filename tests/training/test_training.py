"""Training on real (toy) physics: the loss falls, a run can go on, the checkpoint holds what export needs."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from equistride.artifact import load
from equistride.artifact.export import export, read_checkpoint
from equistride.data.frames import Frames
from equistride.errors import EquistrideError, Notice
from equistride.training.config import TrainConfig
from equistride.training.module import PotentialModule
from equistride.training.run import train
from equistride.writing import locked

WELLS = {(8, 8): (0.05, 3.0), (8, 14): (0.9, 1.7), (14, 14): (0.05, 3.2)}
"""Depth [eV] and distance [A] of Morse wells between two elements."""


def morse(numbers: np.ndarray, positions: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Return energy, forces and virial of pairwise Morse wells of range 1/1.5 A, on atomic energies of -3 and -5 eV."""
    energy, forces, virial = float(np.where(numbers == 8, -3.0, -5.0).sum()), np.zeros_like(positions), np.zeros((3, 3))
    for i in range(len(numbers)):
        for j in range(i):
            r = positions[j] - positions[i]
            depth, distance = WELLS[tuple(sorted((int(numbers[i]), int(numbers[j]))))]
            length = np.linalg.norm(r)
            decay = np.exp(-1.5 * (length - distance))
            energy += depth * decay * (decay - 2)
            gradient = -3.0 * depth * decay * (decay - 1) * r / length
            forces[i] += gradient
            forces[j] -= gradient
            virial -= np.outer(r, gradient)
    return energy, forces, virial


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 24 frames of SiO4 for training and 8 for the test."""
    path = tmp_path_factory.mktemp("data")
    numbers = np.array([14, 8, 8, 8, 8])
    corners = 0.95 * np.array([[0, 0, 0], [1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    for name, count, seed in (("train", 24, 1), ("test", 8, 2)):
        positions = corners + 0.1 * np.random.default_rng(seed).normal(size=(count, 5, 3))
        labels = [morse(numbers, x) for x in positions]
        energy, forces, virial = (np.array([label[k] for label in labels]) for k in range(3))
        Frames(
            numbers=numbers, positions=positions, cell=np.zeros((count, 3, 3)), pbc=np.zeros(3, bool),
            energy=energy, forces=forces, virial=virial,
        ).save(path / f"{name}.npz")  # fmt: skip
    return path


def config(**trainer: object) -> TrainConfig:
    """A network of 3,000 weights, in float64 so that two runs can be compared to rounding."""
    return TrainConfig.model_validate({
        "name": "toy",
        "model": {
            "cutoff": 4.0, "num_layers": 1, "l_max": 1, "m_max": 1,
            "channels": 6, "hidden_channels": 6, "edge_channels": 6,
        },
        "data": {"files": ["train.npz"], "test_files": ["test.npz"], "validation_fraction": 0.25, "batch_size": 3},
        "loss": {"energy": 2.0, "force": 10.0, "virial": 0.2},
        "optimiser": {"learning_rate": 1e-2, "warmup_steps": 5, "ema_decay": 0.9},
        "trainer": {"steps": 12, "validate_every": 6, "checkpoint_every": 6, "precision": "float64"} | trainer,
    })  # fmt: skip


def on_data(made: TrainConfig, **data: object) -> TrainConfig:
    """The same with other keys of ``data``."""
    return made.model_copy(update={"data": made.data.model_copy(update=data)})


def weights(run: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"]


def test_labels_are_derivatives() -> None:
    """The toy itself: forces and virial are derivatives of its energy, with the signs of the contract."""
    numbers, x = np.array([14, 8, 8]), np.array([[0.0, 0, 0], [1.5, 0.2, 0], [-0.3, 1.8, 0.4]])
    _, forces, virial = morse(numbers, x)
    for k in range(9):
        step = np.zeros(9)
        step[k] = 1e-5
        difference = morse(numbers, x + step.reshape(3, 3))[0] - morse(numbers, x - step.reshape(3, 3))[0]
        assert -difference / 2e-5 == pytest.approx(forces.flat[k], abs=1e-8)
        strain = step.reshape(3, 3)
        difference = morse(numbers, x @ (np.eye(3) + strain))[0] - morse(numbers, x @ (np.eye(3) - strain))[0]
        assert -difference / 2e-5 == pytest.approx(virial.flat[k], abs=1e-8)


def test_the_errors_fall(folder: Path, tmp_path: Path) -> None:
    """300 steps on 18 frames: on frames never seen, errors of 2 % were measured; three times that is allowed."""
    results = train(
        config(steps=300, validate_every=150, checkpoint_every=150), folder, tmp_path / "run", progress=False
    )
    with np.load(folder / "test.npz") as z:
        rms = 1000 * float(np.sqrt(np.mean(z["forces"] ** 2)))
        spread = 1000 * float(z["energy"].std()) / 5
    assert results["test_force_mae"] < 0.06 * rms
    assert results["test_energy_mae"] < 0.1 * spread
    assert results["val_force_mae"] < 0.06 * rms
    rows = list(csv.DictReader(next((tmp_path / "run").rglob("metrics.csv")).open()))
    validation = [float(row["val_force_mae"]) for row in rows if row.get("val_force_mae")]
    assert len(validation) == 2
    assert validation[1] < validation[0]

    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    facts = read_checkpoint(checkpoint)["equistride"]
    assert facts["species"] == ["O", "Si"]
    assert not facts["periodic"]
    assert facts["provenance"]["frames"] == 18
    export(checkpoint, tmp_path / "toy.pt", dtype="float64")
    model = load(tmp_path / "toy.pt")
    with np.load(folder / "test.npz") as z:
        found = [model.compute(x, model.species_index(z["numbers"].tolist())).forces.numpy() for x in z["positions"]]
        mae = 1000 * np.abs(np.array(found) - z["forces"]).mean()
    # the artifact is the network that was tested; Lightning keeps means in float32
    assert mae == pytest.approx(results["test_force_mae"], rel=1e-5)


def test_a_seed_decides_everything(folder: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(config(seed=seed), folder, tmp_path / name, progress=False)
    a, b, c = (weights(tmp_path / name) for name in "abc")
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert any(not torch.equal(a[k], c[k]) for k in a)


@pytest.mark.parametrize("checkpoint", [6, 4], ids=["end of an epoch", "inside an epoch"])
def test_an_interrupted_run_goes_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: int
) -> None:
    """A run that dies after step 7 goes on from its checkpoint and ends where the unbroken run does.

    18 training frames in batches of 3 make epochs of 6 steps. Optimiser, schedule, averaged weights and step count come
    from the checkpoint, and the order of the frames depends on seed and step alone: the weights are equal
    bit for bit, also where it dies inside an epoch.
    """
    whole = config(checkpoint_every=checkpoint)
    train(whole, folder, tmp_path / "unbroken", progress=False)

    def die(module: PotentialModule, *_: object) -> None:
        if module.global_step == 7:
            raise RuntimeError("power cut")

    monkeypatch.setattr(PotentialModule, "on_train_batch_end", die)
    with pytest.raises(RuntimeError, match="power cut"):
        train(whole, folder, tmp_path / "broken", progress=False)
    monkeypatch.undo()
    last = tmp_path / "broken" / "checkpoints" / "last.ckpt"
    assert read_checkpoint(last)["global_step"] == checkpoint
    train(whole, folder, tmp_path / "broken", resume=True, progress=False)
    assert read_checkpoint(last)["global_step"] == 12
    one, other = weights(tmp_path / "unbroken"), weights(tmp_path / "broken")
    deviation = max(float((one[k] - other[k]).abs().max()) for k in one)
    assert deviation == 0.0


def test_a_run_goes_on_with_its_own_scales(folder: Path, tmp_path: Path) -> None:
    """Other labels, or fewer elements, do not turn trained weights into another model; unknown elements are refused."""
    train(config(steps=6), folder, tmp_path / "run", progress=False)
    before = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["equistride"]
    with np.load(folder / "train.npz") as z:
        arrays = dict(z)
    hot = arrays | {"energy": 3 * arrays["energy"], "forces": 3 * arrays["forces"], "numbers": np.full(5, 8)}
    np.savez(folder / "hot.npz", **hot)
    longer = on_data(config(steps=9), files=["hot.npz"])
    train(longer, folder, tmp_path / "run", resume=True, progress=False)
    after = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["equistride"]
    for key in ("species", "scale", "references"):
        assert after[key] == before[key]
    assert after["provenance"]["data"].keys() == {"hot.npz"}
    np.savez(folder / "other.npz", **(arrays | {"numbers": np.full(5, 28)}))
    other = on_data(config(steps=12), files=["other.npz"])
    with pytest.raises(EquistrideError, match="elements that the model does not know: Ni; expected O, Si"):
        train(other, folder, tmp_path / "run", resume=True, progress=False)


def test_errors_are_those_of_the_weights_that_are_kept(folder: Path, tmp_path: Path) -> None:
    """Steps that are no multiple of the interval between validations: the last weights are evaluated all the same."""
    one = train(config(steps=8, validate_every=6), folder, tmp_path / "one", progress=False)
    other = train(config(steps=8, validate_every=8), folder, tmp_path / "other", progress=False)
    assert one == other
    assert "val_force_mae" in train(config(steps=8, validate_every=100), folder, tmp_path / "none", progress=False)


def test_virials_are_measured_where_there_are_labels(folder: Path, tmp_path: Path) -> None:
    """A file with labels on a part of its frames has the error of these frames, one without has none."""
    with np.load(folder / "test.npz") as z:
        arrays = dict(z)
    few = arrays["virial"].copy()
    few[2:] = np.nan
    for name, frames in (("few", {"virial": few}), ("two", {}), ("bare", {})):
        keep = slice(0, 2) if name == "two" else slice(None)
        picked = {k: v if k in ("numbers", "pbc") else v[keep] for k, v in (arrays | frames).items()}
        if name == "bare":
            del picked["virial"]
        np.savez(folder / f"{name}.npz", **picked)
    found = {}
    for name in ("few", "two", "bare"):
        made = on_data(config(steps=6), test_files=[f"{name}.npz"])
        found[name] = train(made, folder, tmp_path / name, progress=False)
    assert found["few"]["test_virial_mae"] == pytest.approx(found["two"]["test_virial_mae"], rel=1e-6)
    assert "test_virial_mae" not in found["bare"]
    assert found["bare"]["val_virial_mae"] > 0


def test_data_that_nothing_can_be_learnt_from(folder: Path, tmp_path: Path) -> None:
    with np.load(folder / "train.npz") as z:
        arrays = dict(z)
    twins = arrays["positions"].copy()
    twins[7, 3] = twins[7, 1]
    for change, said in (
        ({"positions": twins}, "atoms 1 and 3 of frame 7 of a data file are on top of each other"),
        ({"forces": np.zeros_like(arrays["forces"])}, "all forces of the training data are zero"),
    ):
        np.savez(folder / "bad.npz", **(arrays | change))
        made = on_data(config(), files=["bad.npz"])
        with pytest.raises(EquistrideError, match=said):
            train(made, folder, tmp_path / "bad", progress=False)
    wild = config(steps=12)
    wild = wild.model_copy(update={"optimiser": wild.optimiser.model_copy(update={"learning_rate": 1e200})})
    with pytest.raises(EquistrideError, match="the run has diverged"):
        train(wild, folder, tmp_path / "wild", progress=False)


def test_a_run_can_be_made_longer_but_not_another(folder: Path, tmp_path: Path) -> None:
    train(config(steps=6), folder, tmp_path / "run", progress=False)
    train(config(steps=9), folder, tmp_path / "run", resume=True, progress=False)
    assert read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == 9
    other = config()
    other = other.model_copy(update={"model": other.model.model_copy(update={"channels": 7})})
    with pytest.raises(EquistrideError, match="is of another model; expected channels = 6; found channels = 7"):
        train(other, folder, tmp_path / "run", resume=True, progress=False)


def test_runs_that_cannot_start(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(EquistrideError, match="nothing to resume"):
        train(config(), folder, tmp_path / "run", resume=True, progress=False)
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "last.ckpt").write_bytes(b"")
    with pytest.raises(EquistrideError, match="already holds a run; add --resume"):
        train(config(), folder, tmp_path / "run", progress=False)
    with pytest.raises(EquistrideError, match="truncated or no checkpoint"):
        train(config(), folder, tmp_path / "run", resume=True, progress=False)
    few = on_data(config(), thin=100, batch_size=8)
    with pytest.raises(EquistrideError, match="fewer training frames than a batch"):
        train(few, folder, tmp_path / "few", progress=False)
    assert not (tmp_path / "few").exists()


def test_a_damaged_checkpoint_and_a_folder_in_use(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run whose last checkpoint has a flipped bit goes on from the one before, and ends where the unbroken one does."""
    whole, run = config(checkpoint_every=4), tmp_path / "run"
    train(whole, folder, tmp_path / "unbroken", progress=False)

    def die(module: PotentialModule, *_: object) -> None:
        if module.global_step == 9:
            raise RuntimeError("power cut")

    monkeypatch.setattr(PotentialModule, "on_train_batch_end", die)
    with pytest.raises(RuntimeError, match="power cut"):
        train(whole, folder, run, progress=False)
    monkeypatch.undo()
    last = run / "checkpoints" / "last.ckpt"
    data = bytearray(last.read_bytes())
    data[len(data) // 2] ^= 1
    last.write_bytes(data)
    with locked(run), pytest.raises(EquistrideError, match="another process is writing into"):
        train(whole, folder, run, resume=True, progress=False)
    with pytest.warns(Notice, match=r"last.ckpt is damaged: .*; the run goes on from .*previous.ckpt \(step 4\)"):
        train(whole, folder, run, resume=True, progress=False)
    one, other = weights(tmp_path / "unbroken"), weights(run)
    assert all(torch.equal(one[k], other[k]) for k in one)
    assert read_checkpoint(last.with_name("previous.ckpt"))["global_step"] > 4
