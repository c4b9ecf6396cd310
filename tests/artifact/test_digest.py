"""What was edited in a file after it was written is found, and what it asks for at load has bounds."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rewritten import DIGEST, rewritten
from toy_metadata import toy_metadata

from equistride.artifact import load
from equistride.artifact.archive import save
from equistride.errors import EquistrideError

CHANGED = "was changed after it was written"


def edited(source: Path, target: Path, record: str, *, digest: bool = False, **change: Any) -> Path:
    """Copy an artifact with other values in a JSON record."""

    def edit(name: str, data: bytes) -> bytes:
        return json.dumps(json.loads(data) | change).encode() if name == f"extra/{record}" else data

    return rewritten(source, target, edit, digest=digest)


def refusal(path: Path) -> str:
    with pytest.raises(EquistrideError) as info:
        load(path, verify=False)
    assert "\n" not in str(info.value)
    return str(info.value)


@pytest.mark.parametrize(
    "change", [{"species": ["Si", "O"]}, {"dtype": "float32"}, {"cutoff": 3.5}, {"description": "another"}]
)
def test_edited_metadata_are_found(random_artifact64: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    """Swapped species and another precision pass the self-test, whose frame has indices and a tolerance."""
    path = edited(random_artifact64, tmp_path / "edited.pt", "metadata.json", **change)
    said = refusal(path)
    assert CHANGED in said
    assert "extra/metadata.json" in said


def test_one_doubled_weight_is_found(random_artifact64: Path, tmp_path: Path) -> None:
    def edit(name: str, data: bytes) -> bytes:
        if name != "data/0":
            return data
        numbers = np.frombuffer(data).copy()
        numbers[0] *= 1 + 1e-12
        return numbers.tobytes()

    said = refusal(rewritten(random_artifact64, tmp_path / "edited.pt", edit, digest=False))
    assert CHANGED in said
    assert "data/0" in said


def test_a_layer_in_half_precision_is_found(random_artifact32: Path, tmp_path: Path) -> None:
    """By torch itself, which writes no digest: the metadata say that there was one."""
    extra = {"metadata.json": "", "reference.json": ""}
    path = tmp_path / "half.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.jit.load(str(random_artifact32), _extra_files=extra)
        with torch.no_grad():
            for weight in program.network.head.parameters():
                weight.copy_(weight.half())
        torch.jit.save(program, str(path), _extra_files=extra)
    facts = json.loads(extra["metadata.json"]) | {"digest": None}
    bare = json.dumps(facts).encode()
    silent = rewritten(path, tmp_path / "silent.pt", lambda n, d: bare if n == "extra/metadata.json" else d)
    load(silent)  # the self-test of float32 sees nothing
    assert "its digest (extra/digest.json) is gone" in refusal(path)


def test_records_that_come_and_go_are_found(random_artifact64: Path, tmp_path: Path) -> None:
    gone = rewritten(
        random_artifact64, tmp_path / "gone.pt", lambda n, d: None if n == "extra/reference.json" else d, digest=False
    )
    assert "extra/reference.json, which its digest names, is gone" in refusal(gone)
    fewer = rewritten(
        random_artifact64,
        tmp_path / "fewer.pt",
        lambda n, d: json.dumps({"algorithm": "sha256", "records": {}}).encode() if n == DIGEST else d,
        digest=False,
    )
    assert "which its digest does not name" in refusal(fewer)
    for text in (b"{}", b"[]", b'{"algorithm": "md5", "records": {}}', b"\xff"):
        odd = rewritten(
            random_artifact64, tmp_path / "odd.pt", lambda n, d, t=text: t if n == DIGEST else d, digest=False
        )  # type: ignore[misc]
        assert "odd.pt" in refusal(odd)


@pytest.mark.parametrize("instructions", ["", "portable"])
def test_the_hash_is_sha256_at_every_length(
    random_artifact64: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instructions: str
) -> None:
    """Against Python's own, by metadata of 130 lengths: two blocks and what is left of one."""
    if instructions:
        monkeypatch.setenv("EQUISTRIDE_SIMD", instructions)
    for length in range(0, 130, 1 if instructions else 3):
        path = edited(random_artifact64, tmp_path / "same.pt", "metadata.json", digest=True, note="x" * length)
        load(path, verify=False)


def test_inspect_prints_the_hash_of_the_file_and_compares_it(random_artifact64: Path, repository: Path) -> None:
    def inspect(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "equistride.cli.main", "inspect", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"COLUMNS": "200"})

    right = hashlib.sha256(random_artifact64.read_bytes()).hexdigest()
    said = inspect(random_artifact64, "--verify", right.upper())
    assert said.returncode == 0
    assert right in said.stdout
    assert "without hashes" not in said.stdout
    wrong = inspect(random_artifact64, "--verify", "0" * 64)
    assert wrong.returncode == 2
    assert f"is not the file that you expect; expected the SHA-256 {'0' * 64}; found {right}" in wrong.stderr
    old = inspect(repository / "tests/artifact/format1/esen-plain-float64.pt")
    assert "written without hashes of its records" in old.stdout
    assert old.stderr == ""  # a note, no warning


def test_the_self_test_has_bounds(random_artifact64: Path, tmp_path: Path) -> None:
    """Whoever looks at a file does not wait for it."""

    def said(record: str, **change: Any) -> str:
        path = edited(random_artifact64, tmp_path / "large.pt", record, digest=True, **change)
        with pytest.raises(EquistrideError) as info:
            load(path)
        return str(info.value)

    many = 100_000
    assert "asks for too much: atoms; expected at most 1000; found 100000" in said(
        "reference.json", species=[0] * many, positions=[[0.0, 0.0, 0.0]] * many
    )
    assert "pairs of atoms and images; expected at most 1e+07" in said(
        "reference.json", cell=[[0.1, 0, 0], [0, 0.1, 0], [0, 0, 0.1]]
    )
    assert "expected a whole number from 1 to 64; found 1000000000" in said(
        "metadata.json", message_passing_steps=10**9, interaction_range=4e9
    )


class Wide(torch.nn.Module):
    """A module that does not say its cutoff."""

    def forward(
        self, positions: torch.Tensor, species: torch.Tensor, cell: torch.Tensor, edge_index: torch.Tensor,
        shifts: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
        return positions.sum(1).double() * 0, torch.zeros_like(positions), torch.zeros_like(cell)


def test_a_cutoff_of_60_a_on_a_small_frame_is_refused(tmp_path: Path) -> None:
    save(Wide(), toy_metadata(["Si"], 5.0), tmp_path / "wide.pt")
    path = edited(
        tmp_path / "wide.pt", tmp_path / "wider.pt", "metadata.json", digest=True, cutoff=60.0, interaction_range=60.0
    )
    with pytest.raises(EquistrideError, match=r"asks for too much: edges; expected at most 100000; found \d+"):
        load(path)
