"""The archive behind an artifact: which records a released file keeps."""

from __future__ import annotations

from pathlib import Path

import torch

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
