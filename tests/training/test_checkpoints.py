"""Checkpoints of training: damage of any kind is refused, and the one before is taken; one is whole at any moment."""

from __future__ import annotations

import errno
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from file_limit import file_limit

from equistride.artifact.checkpoint import LAST, PREVIOUS, SEAL, checkpoint_bytes, read_checkpoint
from equistride.errors import EquistrideError, Notice
from equistride.training.checkpoints import CheckpointFiles, newest

FILES = CheckpointFiles()


def content(step: int) -> dict[str, object]:
    weights = torch.randn(64, 33, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
    return {"global_step": step, "equistride": {"config": {"name": "toy"}}, "state_dict": {"model.weights": weights}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the checkpoints of steps 10 and 20."""
    for step in (10, 20):
        FILES.save_checkpoint(content(step), tmp_path / LAST)
    return tmp_path


def test_two_are_kept(folder: Path, recwarn: pytest.WarningsRecorder) -> None:
    assert sorted(p.name for p in folder.iterdir()) == [LAST, PREVIOUS]
    assert read_checkpoint(folder / LAST)["global_step"] == 20
    assert read_checkpoint(folder / PREVIOUS)["global_step"] == 10
    assert newest(folder)[0].name == LAST
    plain = torch.load(folder / LAST, weights_only=True)  # any reader of torch's files takes it
    assert torch.equal(plain["state_dict"]["model.weights"], content(20)["state_dict"]["model.weights"])  # type: ignore[index]
    (folder / LAST).unlink()
    assert newest(folder)[1]["global_step"] == 10
    assert not recwarn.list


def test_damage_anywhere_is_refused(folder: Path) -> None:
    """One bit in 300 places, 512 bytes of zeros in 60, and ends at 40 lengths: never other numbers, never a traceback."""
    whole, path = (folder / LAST).read_bytes(), folder / "damaged.ckpt"
    rng = np.random.default_rng(7)
    damaged = []
    for place in rng.integers(len(whole), size=300):
        data = bytearray(whole)
        data[place] ^= 1 << int(rng.integers(8))
        damaged.append(bytes(data))
    for place in rng.integers(len(whole) - 512, size=60):
        damaged.append(whole[:place] + bytes(512) + whole[place + 512 :])
    damaged += [whole[:length] for length in rng.integers(len(whole), size=40)]
    for data in damaged:
        if data == whole:
            continue
        path.write_bytes(data)
        try:
            found = read_checkpoint(path)
        except EquistrideError:
            continue
        # a flipped letter of the seal makes the file one of an older version, whose records have checksums
        assert SEAL not in data
        assert torch.equal(found["state_dict"]["model.weights"], content(20)["state_dict"]["model.weights"])  # type: ignore[index]


def test_the_one_before_is_taken_with_a_sentence(folder: Path) -> None:
    data = bytearray((folder / LAST).read_bytes())
    data[len(data) // 2] ^= 4
    (folder / LAST).write_bytes(data)
    with pytest.warns(Notice, match=r"last.ckpt is damaged: .*; the run goes on from .*previous.ckpt \(step 10\)"):
        path, found = newest(folder)
    assert path.name == PREVIOUS
    assert found["global_step"] == 10
    (folder / PREVIOUS).write_bytes(data)
    with pytest.raises(EquistrideError, match=r"last.ckpt is damaged: its bytes are not those that were written"):
        newest(folder)


def test_files_of_before_are_read_and_their_records_checked(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(content(5), buffer)
    old, path = buffer.getvalue(), tmp_path / LAST
    assert len(checkpoint_bytes(content(5))) == len(old) + len(SEAL) + 64
    path.write_bytes(old)
    assert read_checkpoint(path)["global_step"] == 5
    where = old.index(content(5)["state_dict"]["model.weights"].numpy().tobytes()[:64])  # type: ignore[index]
    path.write_bytes(old[: where + 100] + bytes(512) + old[where + 612 :])
    with pytest.raises(EquistrideError, match="is damaged"):
        read_checkpoint(path)


def test_a_full_disk_leaves_both(folder: Path) -> None:
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    with file_limit(5000), pytest.raises(OSError, match="File too large") as refused:
        FILES.save_checkpoint(content(30), folder / LAST)
    assert refused.value.errno == errno.EFBIG
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
