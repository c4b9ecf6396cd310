"""Where a verb writes: checked as the command line is read, before the work whose result would be lost.

Each function is the callback of an option: it returns the path, or None where the option is not given.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from equistride.errors import EquistrideError


def file(path: Path | None) -> Path | None:
    """Accept a file in a folder that is there and can be written to.

    Raises
    ------
    EquistrideError
        For the path of a folder, and where the folder of the file is missing, a file itself, or closed.
    """
    if path is not None:
        _no_folder(path)
        if not path.parent.exists():
            raise EquistrideError(f"the folder {path.parent} does not exist", hint="make it first")
        _open_folder(path.parent)
    return path


def new_file(path: Path | None) -> Path | None:
    """Accept a file whose folders are made as needed; refuse as :func:`file` does."""
    if path is not None:
        _no_folder(path)
        _open_folder(_standing(path.parent))
    return path


def folder(path: Path | None) -> Path | None:
    """Accept a folder that is there or can be made.

    Raises
    ------
    EquistrideError
        For the path of a file or below one, and where nothing can be written.
    """
    if path is not None:
        _open_folder(_standing(path))
    return path


def _no_folder(path: Path) -> None:
    if path.is_dir():
        raise EquistrideError(f"{path} is a folder", expected="the path of a file", hint="add the name of the file")


def _standing(path: Path) -> Path:
    """Return the path, or the nearest folder above it that is there."""
    return next((p for p in (path, *path.parents) if p.exists()), path)


def _open_folder(path: Path) -> None:
    """Refuse a folder in which no file can be made; one is made and taken away: permissions do not tell all."""
    if not path.is_dir():
        raise EquistrideError(f"{path} is a file", expected="a folder", hint="choose another place for the output")
    try:
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise EquistrideError(
            f"no file can be made in the folder {path} ({error.strerror})", hint="choose another place for the output"
        ) from None
