"""A large model has its weights in memory once: its numbers are those of a small one, and its file is read again when needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from random_models import random_potential

from equistride.artifact import Model, load
from equistride.artifact.export import save_potential
from equistride.data.quartz import quartz
from equistride.models.esen import ESENConfig

MEGABYTE = 1 << 20
LARGE = 64 * MEGABYTE
"""Of what is stored, from where on a model is read again: as in csrc/model/torchscript.cpp."""
WIDE = {"cutoff": 4.0, "num_layers": 2, "channels": 256, "hidden_channels": 256, "edge_channels": 64}


def write(path: Path, dtype: str = "float32", seed: int = 0, **sizes: object) -> Path:
    sizes = WIDE | sizes
    save_potential(
        random_potential(seed, **sizes), ESENConfig.model_validate(sizes), path, dtype=dtype, fused=True, provenance={}
    )
    return path


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write(tmp_path_factory.mktemp("large") / "model.pt")
    assert path.stat().st_size > LARGE
    return path


def forces(model: Model) -> torch.Tensor:
    atoms = quartz((1, 1, 1))
    atoms.rattle(0.05, seed=1)
    return model.compute(atoms.positions, list(atoms.symbols), atoms.cell.array, True).forces


def test_precisions_there_and_back(large: Path) -> None:
    """Loaded by its path or its bytes, and against the plain network, which has no layout."""
    file, content = load(large), load(large.read_bytes())
    first = forces(file)
    assert torch.equal(first, forces(content))
    for double in (True, False):
        for model in (file, content):
            model.native.to("cpu", double)
        assert torch.equal(forces(file), forces(content))
    assert torch.equal(forces(file), first)
    file.native.to("cpu", True)
    assert (forces(file).double() - first.double()).abs().max() < 1e-4 * first.abs().max()  # float32's


def test_weights_that_two_blocks_share(tmp_path: Path) -> None:
    """They are packed twice: the first time must not let them go."""
    potential = random_potential(0, **WIDE)
    first, second = potential.network.blocks
    second.edgewise.first.scalar.weight = first.edgewise.first.scalar.weight
    found = []
    for fused in (True, False):
        path = tmp_path / f"tied-{fused}.pt"
        save_potential(potential, ESENConfig.model_validate(WIDE), path, dtype="float64", fused=fused, provenance={})
        found.append(forces(load(path)))
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-8)  # splines


def test_a_file_that_is_written_over_is_not_read_again(large: Path, tmp_path: Path) -> None:
    """One that another took the place of, or that was deleted, still is what was opened."""
    path = tmp_path / "model.pt"
    path.write_bytes(large.read_bytes())
    model = load(path)
    before = forces(model)
    other = tmp_path / "other.pt"
    other.write_bytes(b"something else")
    os.replace(other, path)
    model.native.to("cpu", True)
    path.unlink()
    model.native.to("cpu", False)
    assert torch.equal(forces(model), before)

    path.write_bytes(large.read_bytes())
    model = load(path)
    path.write_bytes(b"something else")
    assert torch.equal(forces(model), before)
    with pytest.raises(
        (RuntimeError, ValueError), match=r"model\.pt was written to since it was opened; load the model again"
    ):
        model.native.to("cpu", True)
    assert torch.equal(forces(model), before)


MEMORY = """
import resource, sys
from equistride.artifact import load
load(sys.argv[1])  # what torch needs once
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model = load(sys.argv[2], verify=False)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def test_weights_are_in_memory_once(large: Path, tmp_path: Path) -> None:
    """At no time the file and the layout; a layout in float32 is nine tenths of the file, whose numbers are doubles."""
    small = write(tmp_path / "small.pt", channels=8, hidden_channels=8, edge_channels=8)
    command = [sys.executable, "-c", MEMORY, str(small), str(large)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    # 1.3 found: the file, and of one of the two blocks its layout; 3.0 with the file's bytes, converted ones and all layouts
    assert float(done.stdout) * MEGABYTE < 1.7 * large.stat().st_size
