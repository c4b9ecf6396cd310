"""From a checkpoint to an artifact: what is written, and what is refused without leaving half a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from file_limit import file_limit
from random_models import SPECIES, Graph, random_potential, write_artifact

from equistride.artifact import load
from equistride.artifact.export import export, read_checkpoint
from equistride.artifact.metadata import FORMAT_VERSION
from equistride.errors import EquistrideError
from equistride.models.potential import ConservativePotential
from equistride.nn.packing import Packed

SIZES = {"cutoff": 4.0, "num_layers": 2, "channels": 8, "hidden_channels": 8, "edge_channels": 8}


def content(potential: ConservativePotential, **changes: Any) -> dict[str, Any]:
    """Return what `equistride train` writes for a potential: its weights and, in plain types, how to build it."""
    facts = {
        "config": {"name": "toy", "model": {"architecture": "esen", **SIZES}},
        "species": SPECIES,
        "scale": potential.scale,
        "references": potential.references,
        "periodic": True,
        "provenance": {"data": {"toy.npz": "00ff"}, "frames": 3},
    }
    weights = {f"model.{name}": value for name, value in potential.state_dict().items()}
    return {"state_dict": weights, "equistride": facts, "global_step": 5} | changes


@pytest.fixture
def checkpoint(tmp_path: Path, potential: ConservativePotential) -> Path:
    torch.save(content(potential), tmp_path / "last.ckpt")
    return tmp_path / "last.ckpt"


@pytest.mark.parametrize(("dtype", "bound"), [("float64", 1e-9), ("float32", 1e-5)])
def test_a_loaded_artifact_equals_the_network(
    checkpoint: Path,
    quartz_atoms: Atoms,
    quartz_graph: Graph,
    potential: ConservativePotential,
    dtype: str,
    bound: float,
) -> None:
    path = checkpoint.with_name("toy.pt")
    export(checkpoint, path, dtype=dtype)
    model = load(path)
    assert model.dtype == getattr(torch, dtype)
    out = model.compute(
        quartz_atoms.positions, model.species_index(quartz_atoms.numbers.tolist()), quartz_atoms.cell.array, True
    )
    eager = random_potential().to(model.dtype)
    rounded = [t.to(model.dtype) if t.is_floating_point() else t for t in quartz_graph]
    for found, expected, exact in zip(out, eager(*rounded), potential(*quartz_graph), strict=True):
        assert (found - expected).abs().max() <= bound * expected.abs().max()
        assert (found - exact).abs().max() <= 10 * bound * exact.abs().max()  # also next to the float64 network


def test_metadata_comes_back(checkpoint: Path, tmp_path: Path) -> None:
    written = export(
        checkpoint,
        tmp_path / "toy.pt",
        description="a toy",
        licence="CC0",
        references=["doi:10/xyz"],
        accuracy={"force_mae_meV_per_A": 12.5},
    )
    metadata = load(tmp_path / "toy.pt").metadata
    assert metadata == written
    assert metadata.format_version == FORMAT_VERSION
    assert (metadata.kind, metadata.architecture, metadata.dtype) == ("potential", "esen", "float32")
    assert metadata.species == SPECIES
    assert (metadata.cutoff, metadata.message_passing_steps, metadata.interaction_range) == (4.0, 3, 12.0)
    assert metadata.periodic == "required"
    assert metadata.description == "a toy"
    assert metadata.licence == "CC0"
    assert metadata.accuracy == {"force_mae_meV_per_A": 12.5}
    assert metadata.units.model_dump() == {"length": "angstrom", "energy": "eV", "time": "fs", "mass": "amu"}
    assert metadata.provenance["data"] == {"toy.npz": "00ff"}
    assert torch.__version__ in metadata.provenance["exported_by"]
    assert len(metadata.provenance["config_sha256"]) == 64
    assert metadata.num_parameters == sum(p.numel() for p in random_potential().parameters())


def test_an_older_file_stays_where_the_new_one_fails(checkpoint: Path, tmp_path: Path) -> None:
    """The system refuses to write half-way, as on a full disk: an error, nothing half-written, the older artifact untouched."""
    path = tmp_path / "toy.pt"
    export(checkpoint, path)
    before = path.read_bytes()
    with file_limit(len(before) // 2), pytest.raises(OSError, match="File too large"):
        export(checkpoint, path)
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.ckpt", "toy.pt"]


@pytest.mark.parametrize("length", [0, 10, 1000, -200, -10])
def test_a_truncated_checkpoint_is_refused(checkpoint: Path, tmp_path: Path, length: int) -> None:
    checkpoint.write_bytes(checkpoint.read_bytes()[:length])
    with pytest.raises(EquistrideError, match=r"last\.ckpt"):
        export(checkpoint, tmp_path / "toy.pt")
    assert not (tmp_path / "toy.pt").exists()


class Trap:
    """A pickle of this makes a file when it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.touch, (self.target,)


def test_a_checkpoint_is_read_without_running_its_code(tmp_path: Path, potential: ConservativePotential) -> None:
    path, target = tmp_path / "last.ckpt", tmp_path / "touched"
    torch.save(content(potential, callbacks=Trap(target)), path)
    with pytest.raises(EquistrideError, match="cannot be read as a checkpoint"):
        read_checkpoint(path)
    assert not target.exists()
    torch.load(path, weights_only=False)
    assert target.exists()  # the trap works


def test_checkpoints_that_do_not_fit_are_refused(tmp_path: Path, potential: ConservativePotential) -> None:
    path, out = tmp_path / "last.ckpt", tmp_path / "toy.pt"

    def refusal(**changes: Any) -> str:
        torch.save(content(potential, **changes), path)
        with pytest.raises(EquistrideError) as info:
            export(path, out)
        assert "\n" not in str(info.value)
        assert not out.exists()
        return str(info.value)

    weights = content(potential)["state_dict"]
    broken = weights | {"model.network.sender": torch.full_like(weights["model.network.sender"], np.nan)}
    assert "not finite" in refusal(state_dict=broken)
    assert "do not fit its config" in refusal(state_dict={k: v for k, v in weights.items() if "head" not in k})
    facts = content(potential)["equistride"]
    wide = {"name": "toy", "model": {**SIZES, "architecture": "esen", "channels": 9}}
    assert "do not fit its config" in refusal(equistride=facts | {"config": wide})
    for odd in (
        None,
        {},
        facts | {"config": {"name": "toy"}},
        facts | {"config": {"name": "toy", "model": {"l_max": 0}}},
    ):
        assert "is no checkpoint of equistride" in refusal(equistride=odd)
    torch.save(content(potential), path)
    with pytest.raises(EquistrideError, match="expected float32 or float64; found float16"):
        export(path, out, dtype="float16")
    with pytest.raises(EquistrideError, match=r"folder .* does not exist"):
        export(path, tmp_path / "nowhere" / "toy.pt")
    with pytest.raises(EquistrideError, match="does not exist"):
        export(tmp_path / "none.ckpt", out)
    assert not out.exists()


def test_the_callers_module_keeps_nothing_of_its_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights packed for the self-test are forgotten, also where writing fails: who trains on would have those of before."""
    potential = random_potential()
    packed = [part for part in potential.modules() if isinstance(part, Packed)]
    assert packed
    write_artifact(potential, tmp_path / "good.pt", "float64")
    assert not any(part.packed for part in packed)
    monkeypatch.setattr("equistride.artifact.archive.reference_json", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_artifact(potential, tmp_path / "bad.pt", "float64")
    assert not any(part.packed for part in packed)
