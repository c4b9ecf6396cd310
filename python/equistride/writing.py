"""How every file is written: it appears whole, on the disk and not in a cache, or not at all."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from equistride.errors import EquistrideError

PARTIAL = ".partial"
"""Part of the names of files that are being written."""


def _sweep(target: Path) -> None:
    """Take away what writers of this file left that were killed; those that still write hold a lock."""
    for left in target.parent.glob(f".{target.stem}.*{PARTIAL}{target.suffix}"):
        with suppress(OSError), left.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()


def synced(path: Path) -> None:
    """Wait until a file is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Give a path to write to; what was written there takes the place of ``path`` when the block ends well.

    Parameters
    ----------
    path
        The file, in a folder that is there. Of a link the file it points to is replaced; what is no plain file, such as
        ``/dev/stdout``, is written to directly.

    Yields
    ------
    Path
        An empty file in the same folder whose name ends as that of ``path``.

    Raises
    ------
    OSError
        Where the file cannot be written; then an older one of this name is as it was, and nothing else is left.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        yield target
        return
    _sweep(target)
    partial = target.with_name(f".{target.stem}.{secrets.token_hex(4)}{PARTIAL}{target.suffix}")
    descriptor = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
    try:
        with suppress(OSError):  # some file systems have no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield partial
        synced(partial)
        os.replace(partial, target)
    finally:
        os.close(descriptor)
        partial.unlink(missing_ok=True)
    with suppress(OSError):  # the name too; some file systems do not sync folders
        synced(target.parent)


def write(path: str | Path, content: bytes | str) -> None:
    """Write bytes, or text in UTF-8, as :func:`whole_file`."""
    with whole_file(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def write_keeping(path: Path, previous: Path, content: bytes) -> None:
    """Write bytes as :func:`write`; the file that was there stays under another name.

    Parameters
    ----------
    path, previous
        The file, and the name in the same folder for the one before; what had that name goes.
    content
        What the file holds.

    Raises
    ------
    OSError
        Where the file cannot be written; then both are as they were. On a file system where a file has one name alone the one
        that was there is under ``previous``.
    """
    beside = previous.with_name(f".{previous.name}")
    beside.unlink(missing_ok=True)
    try:
        with whole_file(path) as partial:
            partial.write_bytes(content)
            try:
                os.link(path, beside)
            except FileNotFoundError:  # the first
                pass
            except OSError:
                os.replace(path, previous)
        if beside.exists():
            os.replace(beside, previous)
    finally:
        beside.unlink(missing_ok=True)


def write_arrays(path: str | Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays as a compressed npz file, as :func:`whole_file`."""
    content = BytesIO()  # numpy's writer leaves a message behind where a disk is full
    np.savez_compressed(content, **arrays)
    write(path, content.getvalue())


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from writing into a folder that is there, as long as the block runs or this process lives.

    Raises
    ------
    EquistrideError
        Where another process has it.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EquistrideError(
                f"another process is writing into {folder}", hint="wait until it has ended, or choose another folder"
            ) from None
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(descriptor)
