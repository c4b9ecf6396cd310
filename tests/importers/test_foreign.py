"""Reading other programs' pickles: nothing in them runs, and what is broken or too large is said in one sentence."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from equistride.errors import EquistrideError
from equistride.importers import mace, nequip, sevennet
from equistride.importers.foreign import Archive, Record, plain, read_file, tensors_of

MEND = "give another file"
ENDINGS = [".pth", ".ckpt", ".nequip.zip", ".model"]


class Trap:
    """Whose unpickling by ``pickle`` would make a file."""

    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call, self.arguments


def rewritten(source: Path, target: Path, **records: bytes) -> Path:
    """Copy an archive with other content in some records, their checksums right."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        for name in old.namelist():
            new.writestr(name, records.get(Path(name).name.replace(".", "_"), old.read(name)))
    return target


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A state dict, with values and classes of several kinds."""
    shared = torch.arange(24.0)
    content = {
        "model_state_dict": OrderedDict(a=shared.view(4, 6).t(), b=shared[3:9], c=torch.tensor([1, 2], dtype=torch.int64)),
        "config": {"scale": np.float64(0.5), "table": np.arange(3.0), "device": torch.device("cpu"), "size": torch.Size([2, 3])},
        "model": torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)),
        "empty": torch.zeros(0, 5), "half": torch.ones(3, dtype=torch.bfloat16), "where": Path("somewhere"),
    }  # fmt: skip
    torch.save(content, tmp_path / "saved.pth")
    return tmp_path / "saved.pth"


def test_tensors_are_those_that_torch_reads(saved: Path) -> None:
    expected = torch.load(saved, weights_only=False)
    found = read_file(saved, MEND)
    for key, value in expected["model_state_dict"].items():
        assert torch.equal(found["model_state_dict"][key], value)
        assert found["model_state_dict"][key].dtype == value.dtype
    assert found["model_state_dict"]["a"].untyped_storage().data_ptr() == (
        found["model_state_dict"]["b"].untyped_storage().data_ptr()
    )  # two views of one storage
    assert found["empty"].shape == (0, 5)
    assert torch.equal(found["half"], expected["half"])
    module = tensors_of(found["model"])
    assert module.keys() == expected["model"].state_dict().keys()
    assert all(torch.equal(module[key], value) for key, value in expected["model"].state_dict().items())


def test_foreign_classes_are_inert_records(saved: Path) -> None:
    found = read_file(saved, MEND)
    where, device, module = found["where"], found["config"]["device"], found["model"]
    assert isinstance(where, Record)
    assert where.name in ("PosixPath", "WindowsPath")
    assert where.arguments == ("somewhere",)
    assert (device.origin, device.arguments) == ("torch.device", ("cpu",))
    assert found["config"]["size"] == (2, 3)
    assert module.origin == "torch.nn.modules.container.Sequential"
    assert module.attribute("0").attribute("in_features") == 3
    assert plain([module.attribute("0")])[0]["in_features"] == 3
    assert module.attribute("no such thing", 7) == 7


def test_nothing_done_to_a_tensor_reaches_the_file(saved: Path) -> None:
    before = saved.read_bytes()
    read_file(saved, MEND)["model_state_dict"]["a"].zero_()
    assert saved.read_bytes() == before
    assert read_file(saved, MEND)["model_state_dict"]["a"].max() == 23


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("form", ["torch.save", "torch.package"])
def test_a_planted_pickle_runs_nothing(tmp_path: Path, ending: str, form: str) -> None:
    mark = tmp_path / "ran"
    traps = [
        Trap(Path.touch, mark), Trap(os.system, f"touch {mark}"), Trap(eval, f"open({str(mark)!r}, 'w')"),
        Trap(shutil.copy, __file__, mark), Trap(torch.save, 1, mark),
    ]  # fmt: skip
    path = tmp_path / f"planted{ending}"
    if form == "torch.save":
        torch.save({"model_state_dict": {}, "traps": traps}, path)
        found = read_file(path, MEND)["traps"]
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr("model/model/eager_model.pkl", pickle.dumps(traps))
        found = Archive(path, MEND).unpickle("model/eager_model.pkl", ".data/{}.storage")
    assert not mark.exists()
    assert all(isinstance(trap, Record) for trap in found)
    pickle.loads(pickle.dumps(traps[0]))  # what it would have done
    assert mark.exists()


def message(path: Path) -> str:
    with pytest.raises(EquistrideError) as caught:
        read_file(path, MEND)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 500
    return text


def test_files_of_other_kinds_are_refused(saved: Path, tmp_path: Path) -> None:
    assert "does not exist" in message(tmp_path / "nothing.pth")
    for content in (b"", b"\x80\x04]", b"PK\x03\x04", os.urandom(500)):
        path = tmp_path / "other.pth"
        path.write_bytes(content)
        assert "damaged or no file of this kind" in message(path)
    legacy = tmp_path / "legacy.pth"
    torch.save({"a": torch.ones(2)}, legacy, _use_new_zipfile_serialization=False)
    assert "saved in the old format of torch.save; expected a zip archive" in message(legacy)
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as archive:
        archive.writestr("a/b", b"")
    assert "not a file of torch.save" in message(tmp_path / "empty.zip")
    big = rewritten(saved, tmp_path / "big.pth", byteorder=b"big")
    assert "not little-endian" in message(big)
    deflated = tmp_path / "deflated.pth"
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(deflated, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert "is compressed" in message(deflated)


def tensor_pickle(count: int, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    """Return a pickle of a tensor over storage 0, whatever its numbers."""

    class Storage:
        pass

    class Tensor:
        def __reduce__(self) -> tuple[Any, ...]:
            return torch._utils._rebuild_tensor_v2, (Storage(), offset, size, stride, False, OrderedDict())

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return ("storage", torch.FloatStorage, "0", "cpu", count) if isinstance(value, Storage) else None

    buffer = io.BytesIO()
    Pickler(buffer, 2).dump(Tensor())
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (tensor_pickle(2**40, 0, (2,), (1,)), "shorter than its tensor"),
        (tensor_pickle(24, 20, (5,), (1,)), "beyond its storage"),
        (tensor_pickle(24, 0, (2**40,), (0,)), "beyond its storage"),
        (tensor_pickle(24, -1, (2,), (1,)), "no whole number"),
        (tensor_pickle(24, 0, (2, 2), (1,)), "do not fit its strides"),
        (b"\x80\x02]r" + struct.pack("<I", 2**32 - 1) + b".", "remembers more objects"),
        (b"\x80\x02\x82\x01.", "an operation that no file has"),
        (b"\x80\x04\x96" + struct.pack("<Q", 2**50) + b".", "damaged"),
        (b"\x80\x02" + b"]" * 3, "damaged"),
    ],
    ids=["storage", "offset", "expanded", "negative", "strides", "memo", "extension", "bytes", "unfinished"],
)
def test_sizes_are_bounded_before_anything_is_allocated(
    saved: Path, tmp_path: Path, content: bytes, reason: str
) -> None:
    assert reason in message(rewritten(saved, tmp_path / "planted.pth", data_pkl=content))


def damaged(data: bytes, generator: np.random.Generator) -> bytes:
    """Return a file cut short, with bytes changed, or with a piece of it gone."""
    kind, at = generator.integers(4), int(generator.integers(len(data)))
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + data[at + int(generator.integers(1, 200)) :]
    changed = bytearray(data)
    for place in generator.integers(len(data), size=1 if kind == 2 else 20):
        changed[place] ^= 1 << int(generator.integers(8))
    return bytes(changed)


@pytest.mark.parametrize("count", [40, pytest.param(200, marks=pytest.mark.slow)])
def test_damaged_files_are_refused_in_a_sentence_or_read_as_they_were(saved: Path, tmp_path: Path, count: int) -> None:
    whole, generator = saved.read_bytes(), np.random.default_rng(1)
    expected = torch.load(saved, weights_only=False)["model_state_dict"]
    refused = 0
    for _ in range(count):
        path = tmp_path / "damaged.pth"
        path.write_bytes(damaged(whole, generator))
        try:
            found = read_file(path, MEND)["model_state_dict"]
        except EquistrideError as error:
            refused += "\n" not in str(error)
            continue
        assert all(torch.equal(found[key], value) for key, value in expected.items())  # the damage lies in between
    assert refused > count // 2


def of_sevennet(path: Path) -> dict[str, torch.Tensor]:
    return sevennet.potential_of(sevennet.read_checkpoint(path))[0].state_dict()


def of_nequip(path: Path) -> dict[str, torch.Tensor]:
    return nequip.potential_of(nequip.read_checkpoint(path))[0].state_dict()


def of_mace(path: Path) -> dict[str, torch.Tensor]:
    return mace.potential_of(path)[0].state_dict()


READERS = {
    "sevennet-c.pth": of_sevennet, "nequip-a.ckpt": of_nequip, "nequip-a.nequip.zip": of_nequip, "mace-a.model": of_mace,
}  # fmt: skip


@pytest.mark.parametrize("count", [6, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", READERS)
def test_damaged_checkpoints_are_refused_by_their_importers(
    tmp_path: Path, request: pytest.FixtureRequest, name: str, count: int
) -> None:
    """In a sentence, or read as they were where the damage lies in what is not read."""
    reader, path, generator = READERS[name], tmp_path / name, np.random.default_rng(2)
    source = Path(__file__).resolve().parents[1] / "data" / "nequip" / name
    if not source.is_file():
        source = request.getfixturevalue("shared_data") / "golden-foreign" / name
    if not source.is_file():
        pytest.skip("no golden files of MACE")
    expected = reader(source)
    refused = 0
    for _ in range(count):
        path.write_bytes(damaged(source.read_bytes(), generator))
        try:
            found = reader(path)
        except EquistrideError as error:
            refused += "\n" not in str(error)
            continue
        assert all(torch.equal(found[key], value) for key, value in expected.items())
    assert refused > count // 3
