"""Training with FRAMES through the public interface: one section of the configuration, any backbone, the artifact as ever."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from equistride.artifact import load
from equistride.artifact.export import export, read_checkpoint
from equistride.data.oscillators import trajectories
from equistride.errors import EquistrideError
from equistride.training.config import load_config
from equistride.training.module import PotentialModule
from equistride.training.run import train
from equistride.units import EV_PER_KCAL_MOL

SYMBOLS = ["C", "N", "O", "F", "S"]
REPOSITORY = Path(__file__).resolve().parents[2]
EQUIFORMER = {
    "architecture": "equiformer", "num_layers": 1, "channels": [8, 6], "hidden_channels": [8, 6], "head_channels": [4, 3],
    "num_heads": 2, "scalar_channels": 8, "num_basis": 6, "radial_channels": 8,
}  # fmt: skip
ESEN = {
    "architecture": "esen", "cutoff": 5.0, "num_layers": 1, "channels": 6, "hidden_channels": 6, "edge_channels": 6,
    "l_max": 1, "m_max": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with trajectories of coupled springs."""
    path = tmp_path_factory.mktemp("frames")
    trajectories(8, 8).save(path / "train.npz")
    trajectories(2, 8, seed=4).save(path / "test.npz")
    return path


def configure(folder: Path, model: dict[str, object], *overrides: str, **sections: object) -> object:
    tree = {
        "name": "springs", "model": model,
        "data": {"files": ["train.npz"], "test_files": ["test.npz"], "validation_fraction": 0.2, "batch_size": 4},
        "trainer": {"steps": 6, "validate_every": 3, "checkpoint_every": 3, "precision": "float64"},
        "optimiser": {"warmup_steps": 1, "ema_decay": 0.5}, **sections,
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    return load_config(folder / "config.yaml", list(overrides))


@pytest.mark.parametrize("model", [EQUIFORMER, ESEN], ids=["equiformer", "esen"])
def test_one_line_of_config_and_nothing_in_the_artifact(model: dict[str, object], folder: Path, tmp_path: Path) -> None:
    files = {}
    for name, overrides in (("baseline", []), ("frames", ["frames.weight=1.0"])):
        results = train(configure(folder, model, *overrides), folder, tmp_path / name, progress=False)
        assert np.isfinite(results["test_force_mae"])
        checkpoint = read_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt")
        assert any(k.startswith("auxiliary.") for k in checkpoint["state_dict"]) == (name == "frames")
        files[name] = tmp_path / f"{name}.pt"
        metadata = export(tmp_path / name / "checkpoints" / "last.ckpt", files[name], dtype="float64")
        assert metadata.architecture == model["architecture"]
        assert metadata.conservative
    codes = {name: str(torch.jit.load(str(path)).inlined_graph) for name, path in files.items()}
    assert codes["baseline"] == codes["frames"]
    sizes = [path.stat().st_size for path in files.values()]
    assert abs(sizes[0] - sizes[1]) < 0.02 * sizes[0]  # weights are compressed, code is the same
    frame = trajectories(1, 1, seed=9)
    forces = []
    for path in files.values():
        served = load(path)
        forces.append(np.asarray(served.compute(frame.positions[0], served.species_index(SYMBOLS)).forces))
    assert forces[0].shape == (5, 3)
    assert np.abs(forces[0] - forces[1]).max() > 1e-4  # another training, the same network


def test_the_first_step_is_that_of_the_baseline(folder: Path, tmp_path: Path) -> None:
    """Same initial weights, same batches: with a weight too small to matter the run is the baseline's."""
    weights = {}
    for name, sections in (("baseline", {}), ("tiny", {"frames": {"weight": 1e-13}})):
        train(configure(folder, EQUIFORMER, **sections), folder, tmp_path / name, progress=False)
        state = read_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt")["state_dict"]
        weights[name] = {k: v for k, v in state.items() if k.startswith("model.")}
    assert weights["baseline"].keys() == weights["tiny"].keys()
    assert max(float((weights["baseline"][k] - w).abs().max()) for k, w in weights["tiny"].items()) < 1e-6


def test_a_run_goes_on_bit_for_bit(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that dies after step 4 goes on from the end of its first epoch, of three steps."""
    frames = {"weight": 0.5, "mode": "history"}
    config = configure(folder, EQUIFORMER, "data.batch_size=16", frames=frames)
    train(config, folder, tmp_path / "whole", progress=False)

    def die(module: PotentialModule, *_: object) -> None:
        if module.global_step == 4:
            raise RuntimeError("power cut")

    monkeypatch.setattr(PotentialModule, "on_train_batch_end", die)
    with pytest.raises(RuntimeError, match="power cut"):
        train(config, folder, tmp_path / "broken", progress=False)
    monkeypatch.undo()
    train(config, folder, tmp_path / "broken", resume=True, progress=False)
    one, other = (
        read_checkpoint(tmp_path / n / "checkpoints" / "last.ckpt")["state_dict"] for n in ("whole", "broken")
    )
    assert max(float((one[k] - other[k]).abs().max()) for k in one) == 0.0


def test_unlabelled_trajectories_and_bad_input(folder: Path, tmp_path: Path) -> None:
    bare = trajectories(3, 5, seed=6)
    np.savez(folder / "bare.npz", z=bare.numbers, R=bare.positions, time_fs=bare.time_fs, segment=bare.segment)
    results = train(
        configure(folder, EQUIFORMER, frames={"files": ["bare.npz"]}), folder, tmp_path / "bare", progress=False
    )
    assert np.isfinite(results["test_force_mae"])
    np.savez(folder / "timeless.npz", z=bare.numbers, R=bare.positions)
    with pytest.raises(EquistrideError, match="no time stamps, so that no frames can be paired"):
        train(configure(folder, EQUIFORMER, frames={"files": ["timeless.npz"]}), folder, tmp_path / "a", progress=False)
    with pytest.raises(
        EquistrideError, match=r"unknown key 'frames.wieght'; check its spelling: did you mean 'weight'"
    ):
        configure(folder, EQUIFORMER, frames={"wieght": 1.0})
    with pytest.raises(EquistrideError, match=r"'frames' is not valid; expected .*a control only with mode: pair"):
        configure(folder, EQUIFORMER, frames={"control": "noise", "frames": 2})
    with pytest.raises(EquistrideError, match=r"unknown key 'model.m_max'"):
        configure(folder, EQUIFORMER | {"m_max": 1})
    with pytest.raises(
        EquistrideError, match="expected 'esen' or 'equiformer' or 'nequip' or 'mace' or 'trajcast'; found 'painn'"
    ):
        configure(folder, {"architecture": "painn"})


def test_charges_and_spins_of_pairs(folder: Path, tmp_path: Path) -> None:
    """A network that takes charge and spin is told those of the frames of a pair, and refuses pairs without any."""
    data = trajectories(8, 8)
    replace(data, charge=data.segment % 2.0, spin=1.0 + data.segment % 2).save(folder / "charged.npz")
    files = {"files": ["charged.npz"], "validation_fraction": 0.2, "batch_size": 4}
    model = ESEN | {"charge_spin": "linear"}
    config = configure(folder, model, "frames.weight=1.0", data=files)
    train(config, folder, tmp_path / "charged", progress=False)
    last = tmp_path / "charged" / "checkpoints" / "last.ckpt"
    assert export(last, tmp_path / "charged.pt", dtype="float64").charge_spin == "input"
    with pytest.raises(EquistrideError, match="charge_spin is on and no frame has a charge or a spin"):
        train(
            configure(folder, model, data=files, frames={"files": ["test.npz"]}), folder, tmp_path / "a", progress=False
        )


def test_the_published_form_is_not_exported_unawares(folder: Path, tmp_path: Path) -> None:
    train(configure(folder, EQUIFORMER | {"smooth": False}), folder, tmp_path / "run", progress=False)
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    with pytest.raises(
        EquistrideError, match=r"cannot conserve energy .*no envelope.*train it with model.smooth=true, or add --allow"
    ):
        export(checkpoint, tmp_path / "a.pt")
    metadata = export(checkpoint, tmp_path / "a.pt", allow_nonconservative=True)
    assert not metadata.conservative
    assert "no envelope" in metadata.caveats[0]


def test_a_dry_run_of_the_published_experiment(tmp_path: Path) -> None:
    """The command of the benchmark on a file of MD17's form, 20 steps: published sizes, then the table."""
    frames = trajectories(1, 1300, spacing_fs=0.5)
    (tmp_path / "data").mkdir()
    np.savez(
        tmp_path / "data" / "md17_ethanol.npz", z=frames.numbers, R=frames.positions, E=frames.energy / EV_PER_KCAL_MOL,
        F=frames.forces / EV_PER_KCAL_MOL,
    )  # fmt: skip
    main = runpy.run_path(str(REPOSITORY / "benchmarks" / "frames.py"))["main"]
    command = f"md17 --published {tmp_path / 'data'} --full --steps 20 --seeds 1 --test-frames 20 --variants frames"
    arguments = [*command.split(), "--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    results = main(arguments)
    assert set(results) == {"frames"}
    assert results == main(arguments)  # nothing is trained again
    assert (tmp_path / "results" / "frames-md17-ethanol.json").is_file()
