"""A model file that is not right is refused with a sentence, by the C++ interface that all engines share."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
import zlib
from pathlib import Path

import pytest
import torch
import toy_artifact
from rewritten import rewritten

from equistride import artifact
from equistride.engines.openmm import Force
from equistride.errors import EquistrideError


def load(content: bytes | Path) -> None:
    """Load through the plugin."""
    Force(content)


def with_record(path: Path, name: str, change: bytes) -> bytes:
    """The archive with one extra file replaced (stored, as torch writes)."""
    out = io.BytesIO()
    rewritten(path, out, lambda record, data: change if record.endswith(name) else data)
    return out.getvalue()


def test_other_files(tmp_path: Path, artifact64: Path) -> None:
    content = artifact64.read_bytes()
    with pytest.raises(EquistrideError, match="is empty"):
        load(b"")
    with pytest.raises(EquistrideError, match=r"truncated at \d+ bytes.*again"):
        load(content[: len(content) // 2])
    with pytest.raises(EquistrideError, match="is no model file"):
        load(b"HDF and what not")
    with pytest.raises(EquistrideError, match="pickle, and equistride never unpickles"):
        load(pickle.dumps({"weights": 1}))
    with pytest.raises(EquistrideError, match="git-lfs"):
        load(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n")
    torch.save({"weights": torch.ones(3)}, tmp_path / "weights.ckpt")
    with pytest.raises(EquistrideError, match=r"pickled weights and no program"):
        load(tmp_path / "weights.ckpt")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a/hello.txt", "hello")
    with pytest.raises(EquistrideError, match=r"an archive but no model|damaged"):
        load(archive.getvalue())
    with pytest.raises(EquistrideError, match=r"nowhere\.pt cannot be read"):
        load(tmp_path / "nowhere.pt")
    with pytest.raises(EquistrideError, match=r"expected a path.*found int"):
        Force(7)  # type: ignore[arg-type]


def test_damaged_bytes(artifact64: Path) -> None:
    content = bytearray(artifact64.read_bytes())
    middle = content.find(b"import __torch__")
    content[middle if middle > 0 else len(content) // 3] ^= 0xFF
    with pytest.raises(EquistrideError):
        load(bytes(content))


def readable(content: bytes) -> bool:
    """Whether Python's reader finds all checksums right."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, zlib.error):
        return False


def test_a_bit_that_has_turned(artifact64: Path) -> None:
    """Wherever it lies in a record, also where torch would read a slightly other number."""
    content = artifact64.read_bytes()
    with zipfile.ZipFile(artifact64) as archive:
        records = [item for item in archive.infolist() if item.file_size]
    starts = {item.header_offset: item for item in records}
    assert len(starts) > 5
    for offset, item in starts.items():
        name, extra = (int.from_bytes(content[offset + k : offset + k + 2], "little") for k in (26, 28))
        begin = offset + 30 + name + extra
        for place in (begin, begin + item.compress_size - 1):
            turned = bytearray(content)
            turned[place] ^= 4
            if item.compress_type and readable(bytes(turned)):
                continue  # a bit that deflate does not use
            with pytest.raises(EquistrideError, match=r"damaged.*copy or download it again"):
                load(bytes(turned))


def test_damaged_bytes_in_a_message(artifact64: Path) -> None:
    """A message that quotes what is no text stays readable."""
    content = artifact64.read_bytes()
    with zipfile.ZipFile(artifact64) as archive:
        code = next(n for n in archive.namelist() if "/code/" in n and n.endswith(".py"))
        source = archive.read(code)
    for junk in (b"\xbd\xff", b"\xed\xa0\x80", b"\xf0\x9f", "\u00e9".encode()):
        damaged = with_record(artifact64, code.partition("/")[2], source.replace(b"def forward", junk + b" forward", 1))
        with pytest.raises(EquistrideError, match=r"cannot be loaded by this torch"):
            load(damaged)
        (where := artifact64.with_name("damaged.pt")).write_bytes(damaged)
        with pytest.raises(EquistrideError, match=r"cannot be loaded by this torch"):
            artifact.load(where)
    bad = with_record(artifact64, "metadata.json", b'{"format": "equistride", "kind": "\xbd\xff"}')
    assert bad != content
    with pytest.raises(EquistrideError, match="metadata"):
        load(bad)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "no equistride artifact"),
        ({"format_version": 3}, r"cannot read; expected a version up to 2; found 3; update equistride"),
        ({"format_version": "1"}, r"'format_version'.*expected a number; found a string"),
        ({"kind": "charges"}, r"'kind'.*potential, propagator; found 'charges'"),
        ({"species": []}, r"'species'.*is empty"),
        ({"species": [1, 8, 14]}, r"'species'.*expected a string; found a number"),
        ({"masses": [1.0]}, r"'masses'.*expected 3; found 1"),
        ({"cutoff": -4.0}, r"'cutoff'.*positive number; found -4"),
        ({"cutoff": None}, r"'cutoff'.*is missing"),
        ({"dtype": "float16"}, r"'dtype'.*float32, float64; found 'float16'"),
        ({"periodic": "maybe"}, r"'periodic'.*any, required"),
        ({"units": {"length": "nanometer"}}, r"unit of length.*expected angstrom; found nanometer"),
        ({"kind": "propagator", "ensemble": "nve"}, r"'stride_fs'.*is missing"),
        ({"kind": "propagator", "stride_fs": 7, "ensemble": "nve", "masses": None}, r"'masses'.*propagator"),
    ],
)
def test_metadata(tmp_path: Path, change: dict, message: str) -> None:
    file = toy_artifact.write(tmp_path / "toy.pt", change=change)
    with pytest.raises(EquistrideError, match=message):
        load(file)
    with pytest.raises(EquistrideError, match=message):
        artifact.load(file)


def test_reference_frame(tmp_path: Path, artifact64: Path) -> None:
    with pytest.raises(EquistrideError, match=r"does not reproduce its reference frame: forces.*expected at most"):
        load(toy_artifact.write(tmp_path / "f.pt", change_output={"forces": [[1.0, 0.0, 0.0]] * 3}))
    with pytest.raises(EquistrideError, match=r"expected 9; found 6"):
        load(toy_artifact.write(tmp_path / "g.pt", change_output={"forces": [[1.0, 0.0, 0.0]] * 2}))
    with pytest.raises(EquistrideError, match=r"species out of range"):
        load(toy_artifact.write(tmp_path / "h.pt", change_reference={"species": [0, 1, 3]}))
    with pytest.raises(EquistrideError, match=r"element C"):
        load(toy_artifact.write(tmp_path / "c.pt", change_reference={"species": ["H", "O", "C"]}))
    load(toy_artifact.write(tmp_path / "s.pt", change_reference={"species": ["H", "O", "Si"]}))
    with pytest.raises(EquistrideError, match=r"no outputs to compare"):
        load(toy_artifact.write(tmp_path / "i.pt", change_reference={"outputs": {}}))
    with pytest.raises(EquistrideError, match=r"lacks 'tolerance'"):
        load(
            with_record(
                artifact64,
                "reference.json",
                json.dumps(
                    {k: v for k, v in json.loads(reference_text(artifact64)).items() if k != "tolerance"}
                ).encode(),
            )
        )


def reference_text(path: Path) -> str:
    """The stored reference frame."""
    with zipfile.ZipFile(path) as archive:
        return next(archive.read(n).decode() for n in archive.namelist() if n.endswith("reference.json"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (" ", "a digit is missing at line 1, column 2"),
        ('{"format": "equistride",}', "a key must be a string"),
        ('{"format": "equistride"', "'}' is missing"),
        ('{"format": NaN}', "a value or a digit is missing"),
        ('{"cutoff": 1e999}', "out of range"),
        ('{"cutoff": 04}', "starts with 0"),
        ('{"format": "x", "format": "y"}', "there twice"),
        ('{"format": "\\q"}', "unknown escape"),
        ('{"format": "\\ud800"}', "surrogate"),
        ('{"format": "equistride"} x', "text after the end"),
        ("[" * 200, "nesting is too deep"),
        ('{"format": "a\nb"}', "control character"),
    ],
)
def test_json(artifact64: Path, text: str, message: str) -> None:
    with pytest.raises(EquistrideError, match=rf"metadata.json.*not valid JSON.*{message}"):
        load(with_record(artifact64, "metadata.json", text.encode()))


def test_json_values(tmp_path: Path) -> None:
    # Escapes, surrogate pairs and exponents are read as Python writes them.
    text = 'quote " back \\ tab \t é 水 \U0001f4a7'
    force = Force(toy_artifact.write(tmp_path / "toy.pt", change={"description": text, "extra": [1e-3, -2.5e4, True]}))
    assert force.getMetadata()["description"] == text
    assert force.getMetadata()["extra"] == [1e-3, -2.5e4, True]


def test_wrong_number_of_outputs(tmp_path: Path) -> None:
    class Two(torch.nn.Module):
        def forward(self, positions, species, cell, edge_index, shifts):
            return positions.sum(1), positions

    file = toy_artifact.write(tmp_path / "two.pt", scripted=torch.jit.trace(Two(), toy_artifact.arguments()))
    with pytest.raises(EquistrideError, match=r"wrong number of outputs; expected 3"):
        load(file)
