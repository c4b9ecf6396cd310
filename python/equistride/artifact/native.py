"""The C++ model behind the Python one: opened, and its errors as one sentence."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import equistride._library  # noqa: F401  (registers torch.classes.equistride)
from equistride.errors import EquistrideError


def sentence(error: Exception) -> EquistrideError:
    """Turn an error of the native library into one sentence, without its stack."""
    text = str(error).split("\nException raised from")[0].strip()
    if "TorchScript interpreter" in text:
        text = text.splitlines()[-1].partition("Error: ")[2] or text.splitlines()[-1]
    return EquistrideError(" ".join(text.removeprefix("ValueError: ").split()) or type(error).__name__)


def _tensor(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else torch.empty(0, dtype=torch.uint8)


def trust(source: str | Path | bytes) -> None:
    """Give the word for a compiled artifact, by its path or its content, which is machine code: from now on this process loads it
    by every way, also from a System's XML. No file brings the word itself."""
    if isinstance(source, bytes) or Path(source).is_file():  # whoever loads it says what is missing
        content = source if isinstance(source, bytes) else Path(source).read_bytes()
        torch.classes.equistride.Model.trust(_tensor(content))


def open_script(content: bytes, name: str) -> Any:
    """Return the module of a TorchScript file, on the CPU, after its code was read.

    Raises
    ------
    EquistrideError
        Where the file may not run, or cannot be read.
    """
    try:
        torch.classes.equistride.Model.look_at(_tensor(content), name)
    except (RuntimeError, ValueError, IndexError) as error:
        raise sentence(error) from None
    return torch.jit.load(io.BytesIO(content), map_location="cpu")


def open_native(source: str | Path | bytes, verify: bool = True, trust_compiled: bool = False) -> Any:
    """Open an artifact, by its path or its content, as a ``torch.classes.equistride.Model``; ``verify`` runs its self-test.

    Raises
    ------
    EquistrideError
        As :func:`equistride.artifact.model.load`.
    """
    content, name = None, "the artifact"
    if isinstance(source, bytes):
        content = _tensor(source)
    else:
        name = str(source)
        if not Path(source).is_file():
            what = "is a folder" if Path(name).is_dir() else "does not exist"
            raise EquistrideError(f"the artifact {name} {what}", hint="give the file that `equistride export` wrote")
    if trust_compiled:
        trust(source)
    try:
        return torch.classes.equistride.Model(content, name, verify)
    except (RuntimeError, ValueError, IndexError) as error:
        reason = sentence(error)
        if name in str(reason):
            raise reason from None
        hint = "it is damaged: copy or export it again"
        raise EquistrideError(f"the artifact {name} fails its self-test ({reason})", hint=hint) from None
