"""The archive behind an artifact: how it is written, and which records it keeps."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import torch
from torch import nn

from equistride.artifact.metadata import Metadata
from equistride.artifact.reference import reference_json
from equistride.errors import EquistrideError

DEBUG = ".debug_pkl"
"""Ending of the records that hold source ranges of the machine that exported: paths, and pickles that nothing reads."""
OWN = {"version", ".data/serialization_id"}
"""Records that every writer makes itself."""


def without_debug(source: Path, target: Path) -> None:
    """Copy a TorchScript archive without its debug records; code and weights stay byte for byte.

    Parameters
    ----------
    source, target
        Two different files.
    """
    reader = torch._C.PyTorchFileReader(str(source))
    writer = torch._C.PyTorchFileWriter(str(target))
    for name in reader.get_all_records():
        if not name.endswith(DEBUG) and name not in OWN:
            record = reader.get_record(name)
            writer.write_record(name, record, len(record))
    writer.write_end_of_file()


def save(module: nn.Module, metadata: Metadata, path: Path) -> None:
    """Script a model and write it with its metadata and reference frame; the file appears whole or not at all.

    Parameters
    ----------
    module
        Scriptable (or scripted) module that obeys the contract of ``metadata.kind``. It is stored in double precision, so that
        constant tables stay exact; engines convert it to ``metadata.dtype`` as they load it.
    metadata, path
        What the file says of itself; where it goes.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise EquistrideError(f"the folder {path.parent} does not exist", mend="make it first")
    module = module.cpu().double().eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # torch.jit is the format that the engines load
        scripted = torch.jit.script(module)
    extra = {
        "metadata.json": metadata.model_dump_json(indent=1),
        "reference.json": reference_json(
            module, len(metadata.species), metadata.cutoff, metadata.dtype, max_speed=metadata.max_speed
        ),
    }
    whole, partial = path.with_name(path.name + ".whole"), path.with_name(path.name + ".partial")
    try:
        torch.jit.save(scripted, str(whole), _extra_files=extra)
        without_debug(whole, partial)
        os.replace(partial, path)
    finally:
        whole.unlink(missing_ok=True)
        partial.unlink(missing_ok=True)
