"""``architecture: mace`` in ``equistride train``: the errors fall, export; test_nequip_training.py interrupts it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_nequip_training import config
from test_training import folder as folder

from equistride.artifact import load
from equistride.artifact.export import export, read_checkpoint
from equistride.errors import EquistrideError
from equistride.training.run import train

MODEL = {
    "architecture": "mace", "cutoff": 4.0, "l_max": 2, "l_features": 1, "channels": 6, "correlation": [2, 2],
    "radial_widths": [8], "divisors": ["number", "density"], "transform": "agnesi",
    "transform_parameters": [1.0805, 4.5791, 0.9183], "repulsion_exponent": 5,
}  # fmt: skip


def test_the_errors_fall_and_the_artifact_is_the_network(folder: Path, tmp_path: Path) -> None:
    """Forces to a quarter of their rms in 250 steps; the mean number of neighbours is that of the data; it is exported."""
    trainer = {"steps": 250, "validate_every": 125, "checkpoint_every": 125, "precision": "float64"}
    results = train(config(tmp_path, MODEL, trainer=trainer), folder, tmp_path / "run", progress=False)
    with np.load(folder / "test.npz") as z:
        rms = 1000 * float(np.sqrt(np.mean(z["forces"] ** 2)))
        positions, symbols = z["positions"], z["numbers"].tolist()
        forces = z["forces"]
    assert results["test_force_mae"] < 0.25 * rms
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    facts = read_checkpoint(checkpoint)["equistride"]
    assert facts["config"]["model"]["avg_num_neighbors"] == pytest.approx([4.0, 4.0])  # SiO4
    metadata = export(checkpoint, tmp_path / "toy.pt", dtype="float64")
    assert (metadata.architecture, metadata.message_passing_steps) == ("mace", 2)
    model = load(tmp_path / "toy.pt")
    found = [model.compute(x, model.species_index(symbols)).forces.numpy() for x in positions]
    assert 1000 * np.abs(np.array(found) - forces).mean() == pytest.approx(results["test_force_mae"], rel=1e-5)


@pytest.mark.parametrize(
    ("model", "sections", "reason"),
    [
        ({"agnostic": True}, {}, "agnostic"),
        ({"divisors": ["number", "nonlinear"]}, {}, "smoothly"),
        ({"transform": "soft"}, {}, "steepness for soft"),
        ({}, {"frames": {}}, "no section frames"),
    ],
)
def test_what_is_not_trained_is_refused(
    model: dict[str, object], sections: dict[str, dict[str, object]], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(EquistrideError, match=reason):
        config(tmp_path, MODEL | model, **sections)
