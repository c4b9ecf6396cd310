"""An artifact that is loaded by its path stays on the disk: its numbers are those of its content, and no other file's."""

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
from equistride.errors import EquistrideError
from equistride.models.esen import ESENConfig

SIZES = {
    "cutoff": 4.0,
    "num_layers": 2,
    "channels": 8,
    "hidden_channels": 8,
    "edge_channels": 8,
    "charge_channels": (1, 2),
}
MEGABYTE = 1 << 20


def write(path: Path, dtype: str = "float32", fused: bool = True, seed: int = 0, **sizes: object) -> Path:
    sizes = SIZES | sizes
    potential = random_potential(seed, **sizes)
    save_potential(potential, ESENConfig.model_validate(sizes), path, dtype=dtype, fused=fused, provenance={})
    return path


def forces(model: Model) -> torch.Tensor:
    atoms = quartz((1, 1, 1))
    atoms.rattle(0.05, seed=1)
    return model.compute(atoms.positions, list(atoms.symbols), atoms.cell.array, True).forces


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_file_and_its_content_have_the_same_bits(tmp_path: Path, dtype: str, fused: bool) -> None:
    """In both precisions, there and back: weights that a kernel packs are packed from those of the file."""
    path = write(tmp_path / "model.pt", dtype, fused)
    file, content = load(path), load(path.read_bytes())
    first = forces(file)
    assert torch.equal(first, forces(content))
    for double in (True, False, dtype == "float64"):
        for model in (file, content):
            model.native.to("cpu", double)
        assert torch.equal(forces(file), forces(content))
    assert torch.equal(forces(file), first)


def test_a_file_that_is_written_over_is_no_longer_read(tmp_path: Path) -> None:
    """Not where another takes its place, or it is deleted: what was opened is still there."""
    path = write(tmp_path / "model.pt", "float64")
    model = load(path)
    before = forces(model)
    os.replace(write(tmp_path / "other.pt", "float64", seed=1), path)
    model.native.to("cpu", False)
    path.unlink()
    model.native.to("cpu", True)
    assert torch.equal(forces(model), before)

    model = load(write(path, "float64"))
    content = path.read_bytes()
    path.write_bytes(content[::-1])
    assert torch.equal(forces(model), before)  # of its weights nothing is left in the file
    with pytest.raises(
        (RuntimeError, ValueError), match=r"model\.pt was written to after it was opened; load the model again"
    ):
        model.native.to("cpu", False)
    path.write_bytes(b"")
    assert torch.equal(forces(model), before)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "model.pt")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user reads every file")
    with pytest.raises(EquistrideError, match="cannot be read; check its permissions"):
        load(path)


MEMORY = """
import sys
from equistride.artifact import load
def anonymous():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")) / 1024
load(sys.argv[1])  # what torch needs once
before = anonymous()
model = load(sys.argv[2], verify=False)
print(anonymous() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="no /proc to ask for memory")
def test_packed_weights_are_in_memory_once(tmp_path: Path) -> None:
    """As the kernels read them, with what a backward needs; neither as in the file nor converted."""
    wide = {"num_layers": 1, "channels": 128, "hidden_channels": 128, "edge_channels": 64, "charge_channels": None}
    path = write(tmp_path / "wide.pt", **wide)
    small = write(tmp_path / "small.pt")
    numbers = path.stat().st_size / 8
    environment = os.environ | {"EQUISTRIDE_MALLOC": "system"}
    command = [sys.executable, "-c", MEMORY, str(small), str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    # 13 found: two forms in float32, of orders above 0 half more; 25 with the numbers of the file, and converted
    assert float(done.stdout) * MEGABYTE < 16 * numbers
