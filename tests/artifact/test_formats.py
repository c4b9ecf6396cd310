"""Files of every format load for ever and give what they gave; ``format1/make.py`` and the like have made the frozen ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ase.data import atomic_numbers

from equistride.artifact import Model, load

FIRST, SECOND = (Path(__file__).parent / name for name in ("format1", "format2"))
FILES = sorted(FIRST.glob("*.pt"))
TOLERANCE = {torch.float64: 1e-12, torch.float32: 3e-6}
"""As a share of the largest output: processors and torch versions sum in other orders."""


def outputs_of(model: Model, frame: dict[str, np.ndarray], *, periodic: bool) -> dict[str, torch.Tensor]:
    """What the model gives for a frame of Si and O, or of its first and last element in their places, by the outputs' names."""
    known = model.metadata.species
    numbers = frame["numbers"]
    if not {"O", "Si"} <= set(known):
        numbers = np.where(numbers == 14, atomic_numbers[known[0]], atomic_numbers[known[-1]])
    system = (model.species_index(numbers.tolist()), frame["cell"], periodic)
    if model.metadata.kind == "propagator":
        return model.propagate(frame["positions"], frame["velocities"], *system)._asdict()
    found = model.compute(frame["positions"], *system)._asdict()
    if model.metadata.capabilities.uncertainty:
        found["uncertainty"] = model.uncertainty(frame["positions"], *system)
    return found


@pytest.mark.parametrize("name", ["crystal", "molecule"])
@pytest.mark.parametrize(
    "path", [*FILES, *sorted(SECOND.glob("*.pt"))], ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_a_frozen_file_gives_what_it_gave(path: Path, name: str) -> None:
    stored = np.load(path.parent / "outputs.npz")
    frame = {key: stored[f"{name}/{key}"] for key in ("positions", "numbers", "cell", "velocities")}
    model = load(path)
    assert model.metadata.format_version == (1 if path.parent == FIRST else 2)
    for key, value in outputs_of(model, frame, periodic=name == "crystal").items():
        expected = torch.from_numpy(stored[f"{name}/{path.stem}/{key}"])
        assert value.shape == expected.shape
        scale = (
            max(1.0, float(expected.abs().max())) if model.metadata.kind == "potential" else float(expected.abs().max())
        )
        assert float((value.double() - expected.double()).abs().max()) <= TOLERANCE[model.dtype] * scale, key


def test_what_a_file_of_format_1_does_not_say_is_read_off_its_module() -> None:
    contracts = {path.stem: load(path).metadata for path in FILES}
    assert {name: facts.message_passing_steps for name, facts in contracts.items()} == {
        "ensemble-float32": 2,
        "equiformer-float64": 3,
        "esen-charged-float32": 2,
        "esen-direct-float64": 3,
        "esen-fused-float32": 2,
        "esen-plain-float64": 3,
        "trajcast-float64": 2,
        "trajcast-tables-float32": 2,
    }
    assert not contracts["esen-direct-float64"].capabilities.decomposable  # its forces are no gradient
    assert contracts["ensemble-float32"].capabilities.uncertainty
    assert contracts["trajcast-tables-float32"].limits.shortest_bond == 0.5
    assert contracts["trajcast-float64"].limits.fastest_atom == 0.1
    assert contracts["esen-fused-float32"].operators["equistride::edge_block"] == 1
