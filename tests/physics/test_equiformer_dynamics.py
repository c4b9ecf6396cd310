"""A trained Equiformer in molecular dynamics: its smooth form conserves energy, the published one does not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from ase import Atoms
from typer.testing import CliRunner

from equistride.artifact.export import export
from equistride.cli.main import app
from equistride.data.frames import load
from equistride.training.config import load_config
from equistride.training.run import train

# hydrogens of ethanol cross a radius of 3 A all the time; all its atoms lie within 5 A
MODEL = {
    "architecture": "equiformer", "cutoff": 3.0, "num_layers": 1, "channels": [16, 8], "hidden_channels": [32, 16],
    "head_channels": [4, 2], "num_heads": 4, "scalar_channels": 32, "radial_channels": 16, "num_basis": 16,
}  # fmt: skip


def trained(folder: Path, data: Path, smooth: bool) -> Path:
    """Return the artifact of a network trained for some seconds."""
    tree = {
        "name": "ethanol", "model": MODEL | {"smooth": smooth},
        "data": {"files": [str(data)], "validation_fraction": 0.1, "batch_size": 8},
        "loss": {"energy": 1.0, "force": 80.0, "virial": 0.0},
        "optimiser": {"learning_rate": 1e-2, "warmup_steps": 20, "ema_decay": 0.99},
        "trainer": {"steps": 250, "validate_every": 250},
    }  # fmt: skip
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    results = train(load_config(folder / "config.yaml"), folder, folder / "run", progress=False)
    assert results["val_force_mae"] < 400.0  # meV/A, of 1,000: a molecule that holds together
    path = folder / "model.pt"
    export(folder / "run" / "checkpoints" / "last.ckpt", path, dtype="float64", allow_nonconservative=not smooth)
    return path


@pytest.mark.slow
def test_the_smooth_form_conserves_and_the_published_one_jumps(shared_data: Path, tmp_path: Path) -> None:
    """``equistride validate --nve`` on ethanol, with the bounds of eSEN: 0.01 meV/atom/ps, exponent 1.8 to 2.2."""
    (frames,) = load(shared_data / "md17" / "ethanol_random1000.npz")
    frames[np.arange(200)].save(tmp_path / "data.npz")
    Atoms(frames.numbers, frames.positions[0]).write(tmp_path / "ethanol.extxyz")
    found = {}
    for smooth in (True, False):
        artifact = trained(tmp_path / f"smooth-{smooth}", tmp_path / "data.npz", smooth)
        command = f"validate {artifact} --nve {tmp_path / 'ethanol.extxyz'} --json --time 1 --timestep 0.25"
        done = CliRunner().invoke(app, [*command.split(), "--timesteps", "0.25,0.5,1"])
        assert done.exit_code == (0 if smooth else 1), done.output
        found[smooth] = json.loads(done.stdout)
    assert 1.8 < found[True]["exponent"] < 2.2
    assert found[False]["causes"] == ["no envelope at the cutoff"]
    left = {smooth: result["fluctuation_meV_per_atom"]["0.25"] for smooth, result in found.items()}
    assert left[False] > 100 * left[True]
