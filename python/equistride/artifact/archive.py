"""The archive behind an artifact: how it is written, and which records it keeps."""

from __future__ import annotations

import hashlib
import json
import warnings
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import nn

from equistride.artifact.aoti import compile_program
from equistride.artifact.metadata import Container, Metadata, check_container
from equistride.artifact.native import open_native, open_script
from equistride.artifact.reference import reference_json
from equistride.errors import EquistrideError
from equistride.writing import write

DEBUG = ".debug_pkl"
"""Ending of the records that hold source ranges of the machine that exported: paths, and pickles that nothing reads."""
OWN = {"version", ".data/serialization_id"}
"""Records that every writer makes itself."""


COMPILED = "data/aotinductor/"
"""Where a package of torch keeps its programs."""
SOURCE = ".cpp"
"""Ending of the records with the source of a compiled program, which names folders of the machine that compiled it."""


DIGEST = "extra/digest.json"
"""The record with the SHA-256 of every other."""


def without_debug(source: bytes, extra: dict[str, str]) -> bytes:
    """Return an archive of torch without debug records and sources; code and weights stay byte for byte.

    In memory, because torch's writer ends the process where a disk is full. ``extra`` are more records, by their names.
    """
    reader = torch._C.PyTorchFileReader(BytesIO(source))
    target = BytesIO()
    writer = torch._C.PyTorchFileWriter(target)
    for name in reader.get_all_records():
        if not name.endswith((DEBUG, SOURCE)) and name not in OWN:
            record = reader.get_record(name)
            writer.write_record(name, record, len(record))
    for name, text in extra.items():
        record = text.encode()
        writer.write_record(name, record, len(record))
    writer.write_end_of_file()
    return target.getvalue()


def digest(archive: bytes) -> str:
    """Return the record ``extra/digest.json`` for an archive."""
    reader = torch._C.PyTorchFileReader(BytesIO(archive))
    names = [name for name in reader.get_all_records() if not name.startswith(".data/")]
    hashes = {name: hashlib.sha256(reader.get_record(name)).hexdigest() for name in names}
    return json.dumps({"algorithm": "sha256", "records": hashes}, indent=1)


def _with_digest(source: bytes, records: dict[str, str]) -> bytes:
    """Return an artifact with its digest: the program of ``source``, and ``records``."""
    bare = without_debug(source, records)
    return without_debug(bare, {DIGEST: digest(bare)})


def is_compiled(path: str | Path) -> bool:
    """Whether a file is an archive of the AOTInductor container."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(f"/{COMPILED}" in name for name in archive.namelist())


def script_of(path: str | Path) -> Any:
    """Return the module of a TorchScript artifact, on the CPU.

    Raises
    ------
    EquistrideError
        For a compiled artifact, whose program cannot be taken apart, and for code that a model may not have.
    """
    if is_compiled(path):
        raise EquistrideError(
            f"{path} is a compiled program, which cannot be changed or taken apart", expected="a TorchScript artifact",
            hint="export the checkpoint with --container torchscript",
        )  # fmt: skip
    return open_script(Path(path).read_bytes(), str(path))


def save(
    module: nn.Module,
    metadata: Metadata,
    path: Path,
    container: Container = "torchscript",
    spacing: float | None = None,
) -> Metadata:
    """Write a model with its metadata and reference frame; the file appears whole or not at all.

    Parameters
    ----------
    module
        Scriptable (or scripted) module that obeys the contract of ``metadata.kind``. It is stored in double precision, so that
        constant tables stay exact; engines convert it to ``metadata.dtype`` as they load it.
    metadata, path
        What the file says of itself; where it goes.
    container
        ``"torchscript"``, or ``"aoti"``: compiled for the CPU of this machine, and tested before the file appears. Then the
        module must be a conservative potential or a propagator, and not scripted.
    spacing
        Distance of neighbours in the reference frame [A]; by the cutoff where not given.

    Returns
    -------
    Metadata
        What the file says of itself; for ``"aoti"`` also what it was compiled for.
    """
    check_container(container)
    path = Path(path)
    if not path.parent.is_dir():
        raise EquistrideError(f"the folder {path.parent} does not exist", hint="make it first")
    metadata = metadata.model_copy(update={"digest": "sha256"})
    module = module.cpu().double().eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    parts: list[Any] = [part for part in module.modules() if hasattr(part, "pack")]
    for part in parts:
        part.pack()
    try:
        reference = reference_json(
            module, len(metadata.species), metadata.cutoff, metadata.dtype, max_speed=metadata.max_speed,
            counts=metadata.counts, spacing=spacing, strides=len(metadata.strides_fs),
        )  # fmt: skip
        if container == "aoti":
            content, metadata = _compile(module, metadata, reference)
    finally:
        for part in parts:
            part.unpack()  # files hold weights as they are, once, and who trains on has no copy of before
    if container == "torchscript":
        content, metadata = _script(module, metadata, reference)
    write(path, content)
    return metadata


def _records(metadata: dict[str, Any], reference: str) -> dict[str, str]:
    return {"extra/metadata.json": json.dumps(metadata, indent=1), "extra/reference.json": reference}


def _script(module: nn.Module, metadata: Metadata, reference: str) -> tuple[bytes, Metadata]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # torch.jit is the format that the engines load
        scripted = torch.jit.script(module)
    whole = BytesIO()
    torch.jit.save(scripted, whole)
    # A file of format 1 has no contract: its reader looks into the module, and tries it.
    range_ = metadata.message_passing_steps * metadata.cutoff
    facts = metadata.model_dump() | {
        "format_version": 1, "interaction_range": range_, "max_speed": metadata.max_speed, "digest": None
    }  # fmt: skip
    bare = without_debug(whole.getvalue(), _records(facts, reference))
    metadata = metadata.with_contract(open_native(bare).contract())
    content = _with_digest(whole.getvalue(), _records(metadata.model_dump(), reference))
    open_native(content, verify=False)  # what was tried is compared alone
    return content, metadata


def _compile(module: nn.Module, metadata: Metadata, reference: str) -> tuple[bytes, Metadata]:
    package = BytesIO()
    metadata = compile_program(module, metadata, package)
    with zipfile.ZipFile(package) as archive:
        (program,) = (entry for entry in archive.infolist() if entry.filename.endswith(".so"))
    records = _records(metadata.model_dump(), reference) | {"extra/program.crc32": str(program.CRC)}
    content = _with_digest(package.getvalue(), records)
    open_native(content, trust_compiled=True)  # its reference frame, on the machine that it was compiled on
    return content, metadata
