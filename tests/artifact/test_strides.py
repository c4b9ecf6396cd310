"""An artifact of several strides: each is the network's, a lie about them is refused, and one stride is as it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rewritten import rewritten
from trajcast_systems import STRIDES, config, crystal, propagator, several

from equistride.artifact import load
from equistride.artifact.metadata import Metadata
from equistride.artifact.model import Stride
from equistride.artifact.propagators import save_propagator
from equistride.artifact.summary import summary
from equistride.errors import EquistrideError
from equistride.models.strides import StridesPropagator
from equistride.models.trajcast import TrajCast

FRAME = crystal()


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("strides") / "several.pt"
    save_propagator(several(), path, dtype="float64")
    return path


def moved(model: Any) -> Stride:
    return model.propagate(FRAME.positions, FRAME.velocities, FRAME.species, FRAME.cell, True)


def test_each_stride_is_the_networks(artifact: Path, tmp_path: Path) -> None:
    """With tables and without, in any order; the longest where nothing is said. Errors of sums alone (float64)."""
    network = several()
    save_propagator(network, tmp_path / "tables.pt", dtype="float64", tables=1e-9)
    for path, tolerance in ((artifact, 1e-12), (tmp_path / "tables.pt", 1e-7)):
        model = load(path)
        assert (model.metadata.stride_fs, model.metadata.strides_fs) == (20.0, STRIDES)
        seen = [moved(model)]
        for stride in (20.0, 5.0, 10.0 * (1 + 1e-9), 20.0):
            model.set_stride(stride)
            assert model.metadata.stride_fs == round(stride)
            network.set_stride(STRIDES.index(round(stride)))
            found, expected = moved(model), network(*FRAME)
            for ours, theirs in zip(found, expected, strict=True):
                assert float((ours - theirs).abs().max()) <= tolerance * float(theirs.abs().max())
            centre = (FRAME.masses * found.displacements).sum(0)  # moves by its momentum
            assert torch.allclose(centre, FRAME.momentum() * round(stride), rtol=0, atol=1e-9)
            seen.append(found)
        assert torch.equal(seen[0].displacements, seen[1].displacements)
        assert torch.equal(seen[0].displacements, seen[4].displacements)
        assert not torch.allclose(seen[2].velocities, seen[3].velocities, rtol=0, atol=1e-4)


def test_another_stride_is_refused(artifact: Path, tmp_path: Path) -> None:
    model = load(artifact)
    with pytest.raises(EquistrideError, match="not a stride of the propagator; expected 5, 10 or 20 fs; found 7 fs"):
        model.set_stride(7.0)
    assert model.metadata.stride_fs == 20.0
    save_propagator(propagator(), tmp_path / "one.pt")
    with pytest.raises(EquistrideError, match="not a stride of the propagator; expected 20 fs; found 10 fs"):
        load(tmp_path / "one.pt").set_stride(10.0)
    with pytest.raises(EquistrideError, match=r"a compiled program makes one stride.*found strides of 5, 10, 20 fs"):
        save_propagator(several(), tmp_path / "no.pt", container="aoti")
    with pytest.raises(EquistrideError, match="two or more, the shortest first, each with its scales"):
        StridesPropagator(
            TrajCast(config(), 2, num_strides=2), ["O", "Si"], [16.0, 28.0], 4.0, [5.0, 5.0], [(1, 1)] * 2
        )


def test_inspect_shows_them(artifact: Path) -> None:
    metadata = load(artifact).metadata
    assert dict(summary(metadata))["stride"] == "5, 10 or 20 fs, 20 where nothing is said, trained on NVE"
    assert metadata.stride_near(5.0 + 1e-7) == 5.0
    with pytest.raises(EquistrideError, match="expected 5, 10 or 20 fs; found 6 fs"):
        metadata.stride_near(6.0)


def changed(where: str, change: Callable[[dict[str, Any]], None]) -> Callable[[str, bytes], bytes]:
    def edit(name: str, data: bytes) -> bytes:
        if name != f"extra/{where}.json":
            return data
        facts = json.loads(data)
        change(facts)
        return json.dumps(facts).encode()

    return edit


LIES: dict[str, tuple[str, Callable[[dict[str, Any]], Any], str]] = {
    "others": ("metadata", lambda f: f.update(strides_fs=[5.0, 15.0, 20.0]), "strides_fs; expected 5, 10, 20 fs"),
    "one": ("metadata", lambda f: f.update(strides_fs=[]), "strides_fs; expected 5, 10, 20 fs.*found 20 fs"),
    "another to begin with": ("metadata", lambda f: f.update(stride_fs=5.0), "stride_fs; expected 20 fs.*found 5 fs"),
    "none of them": ("metadata", lambda f: f.update(stride_fs=7.0), "is none of 'strides_fs'; expected 5, 10 or 20"),
    "no order": ("metadata", lambda f: f["strides_fs"].reverse(), "expected times above 0, the shortest first"),
    "swapped outputs": ("reference", lambda f: f["outputs_of_strides"].reverse(), "reference frame: at 5 fs displace"),
    "no outputs": ("reference", lambda f: f.pop("outputs_of_strides"), "lacks 'outputs_of_strides'"),
    "fewer outputs": ("reference", lambda f: f["outputs_of_strides"].pop(), "has outputs of 2 strides; expected 3"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_refused(artifact: Path, tmp_path: Path, lie: str) -> None:
    where, change, said = LIES[lie]
    with pytest.raises(EquistrideError, match=said) as info:
        load(rewritten(artifact, tmp_path / "lie.pt", changed(where, change)))
    assert "\n" not in str(info.value)


def test_one_stride_that_says_it_has_several(tmp_path: Path) -> None:
    save_propagator(propagator(), tmp_path / "one.pt")
    with pytest.raises(EquistrideError, match="strides_fs; expected 20 fs, as the module has it; found 10 or 20 fs"):
        load(rewritten(tmp_path / "one.pt", tmp_path / "lie.pt",
                       changed("metadata", lambda f: f.update(strides_fs=[10.0, 20.0]))))  # fmt: skip


def test_metadata_of_one_stride_have_no_list() -> None:
    assert Metadata.model_fields["strides_fs"].default == []
