"""Files that are no sound artifact are refused with one sentence, and nothing in them is run."""

from __future__ import annotations

import json
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from random_models import random_potential, write_artifact
from rewritten import rewritten

from equistride.artifact import load
from equistride.errors import EquistrideError


class Trap:
    """A pickle of this makes a file when it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.target,)


def refusal(path: Path) -> str:
    """Load a file that must be refused; return the sentence."""
    with pytest.raises(EquistrideError) as info:
        load(path)
    sentence = str(info.value)
    assert path.name in sentence
    assert "\n" not in sentence
    assert "Traceback" not in sentence
    return sentence


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "none.pt")
    assert "is a folder" in refusal(tmp_path)


@pytest.mark.parametrize("share", [0.0, 1e-4, 0.01, 0.5, 0.9, 0.999, 1.0])
def test_truncated_at_any_length(tmp_path: Path, random_artifact64: Path, share: float) -> None:
    whole = random_artifact64.read_bytes()
    path = tmp_path / "cut.pt"
    path.write_bytes(whole[: min(int(share * len(whole)), len(whole) - 1)])
    refusal(path)


@pytest.mark.parametrize("place", np.linspace(0.0, 0.99, 12).round(2).tolist())
def test_damaged_anywhere(tmp_path: Path, random_artifact64: Path, place: float) -> None:
    """64 bytes of zeros anywhere: refused with a sentence, or harmless (padding, debug records) and then exact."""
    whole = random_artifact64.read_bytes()
    start = int(place * len(whole))
    path = tmp_path / "damaged.pt"
    path.write_bytes(whole[:start] + bytes(64) + whole[start + 64 :])
    try:
        model = load(path)
    except EquistrideError as error:
        said = str(error)
        assert path.name in said
        assert "\n" not in said
    else:
        positions = np.array([[0.0, 0, 0], [0, 0, 1.6], [1.5, 0, 0]])
        intact = load(random_artifact64)
        np.testing.assert_allclose(
            model.compute(positions, [1, 0, 0]).forces, intact.compute(positions, [1, 0, 0]).forces, atol=1e-8
        )


def test_other_kinds_of_file(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(np.random.default_rng(1).bytes(20_000))
    assert "no model file" in refusal(path)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    assert "git lfs pull" in refusal(path)
    torch.save({"weights": torch.zeros(3)}, path)
    assert "pickled weights and no program" in refusal(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "nothing")
    refusal(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(path))
    assert "without equistride's metadata" in refusal(path)


def test_pickles_are_never_loaded(tmp_path: Path, random_artifact64: Path) -> None:
    """A bare pickle, one inside torch.save, and one in the place of an artifact's own data: none is run."""
    target = tmp_path / "touched"
    bare, saved, inside = (tmp_path / f"{name}.pt" for name in ("bare", "saved", "inside"))
    bare.write_bytes(pickle.dumps(Trap(target)))
    torch.save(Trap(target), saved)
    rewritten(
        random_artifact64,
        inside,
        lambda name, data: pickle.dumps(Trap(target), protocol=2) if name == "data.pkl" else data,
    )
    assert "never unpickles" in refusal(bare)
    for path in (saved, inside):
        refusal(path)
    assert not target.exists()
    pickle.loads(bare.read_bytes())
    assert target.exists()  # the trap works


def test_a_newer_format_is_refused(tmp_path: Path, random_artifact64: Path) -> None:
    def newer(name: str, data: bytes) -> bytes:
        return data.replace(b'"format_version": 2', b'"format_version": 3') if name.endswith("metadata.json") else data

    sentence = refusal(rewritten(random_artifact64, tmp_path / "newer.pt", newer))
    assert "expected a version up to 2; found 3; update equistride" in sentence


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b'"kind": "potential"', b'"kind": "oracle"', "'oracle'"),
        (b'"dtype": "float64"', b'"dtype": "float16"', "'float16'"),
        (b'"cutoff": 4.0', b'"cutoff": -4.0', "positive"),
        (b'"length": "angstrom"', b'"length": "bohr"', "bohr"),
        (b'"format": "equistride"', b'"format": "other"', "'other'"),
        (b'"species": [', b'"species": "', "metadata.json"),
        (b'"conservative": true', b'"conservative": ["\\u001b[red]"]', "conservative"),
        (b'"caveats": [', b'"caveats": -1, "more": [', "caveats"),
    ],
    ids=["kind", "precision", "cutoff", "unit", "format", "not JSON", "no truth", "no list"],
)
def test_metadata_that_makes_no_sense(
    tmp_path: Path, random_artifact64: Path, old: bytes, new: bytes, said: str
) -> None:
    def change(name: str, data: bytes) -> bytes:
        if not name.endswith("metadata.json"):
            return data
        assert old in data
        return data.replace(old, new)

    path = rewritten(random_artifact64, tmp_path / "odd.pt", change)
    with pytest.raises(EquistrideError, match=said) as info:
        load(path)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_altered_weights_fail_the_self_test(tmp_path: Path, dtype: str) -> None:
    """One weight in a thousand changed by 1 %: the reference frame no longer comes out, also by one who takes the digest away."""
    source = write_artifact(random_potential(), tmp_path / "good.pt", dtype)
    extra = {"metadata.json": "", "reference.json": ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.jit.load(str(source), _extra_files=extra)
        with torch.no_grad():
            name, weight = next((n, p) for n, p in program.named_parameters() if n == "network.head.2.weight")
            weight[0, 0] += 0.01 * weight.abs().max()
        path = tmp_path / "altered.pt"
        torch.jit.save(program, str(path), _extra_files=extra)
    assert "its digest (extra/digest.json) is gone" in refusal(path)
    facts = json.loads(extra["metadata.json"]) | {"digest": None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(program, str(path), _extra_files=extra | {"metadata.json": json.dumps(facts)})
    assert "does not reproduce its reference frame" in refusal(path)
    assert name in dict(torch.jit.load(str(path)).named_parameters())
    load(path, verify=False)  # a host that has verified these bytes before may say so


def test_an_artifact_without_its_reference_frame(tmp_path: Path, random_artifact64: Path) -> None:
    path = rewritten(
        random_artifact64, tmp_path / "bare.pt", lambda name, data: None if name.endswith("reference.json") else data
    )
    assert "no reference frame" in refusal(path)
