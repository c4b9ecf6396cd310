"""The C++ model behind the Python one: opened, and its errors as one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

import equistride._library  # noqa: F401  (registers torch.classes.equistride)
from equistride.errors import EquistrideError


def sentence(error: Exception) -> EquistrideError:
    """Turn an error of the native library into one sentence, without its stack."""
    text = str(error).split("\nException raised from")[0].strip()
    if "TorchScript interpreter" in text:
        text = text.splitlines()[-1].partition("Error: ")[2] or text.splitlines()[-1]
    return EquistrideError(" ".join(text.removeprefix("ValueError: ").split()) or type(error).__name__)


def open_native(source: str | Path | bytes, verify: bool = True) -> Any:
    """Open an artifact, by its path or its content, as a ``torch.classes.equistride.Model``; ``verify`` runs its self-test.

    Raises
    ------
    EquistrideError
        As :func:`equistride.artifact.model.load`.
    """
    content, name = None, "the artifact"
    if isinstance(source, bytes):
        content = (
            torch.frombuffer(bytearray(source), dtype=torch.uint8) if source else torch.empty(0, dtype=torch.uint8)
        )
    else:
        name = str(source)
        if not Path(source).is_file():
            raise EquistrideError(f"the artifact {name} does not exist", hint="write it with `equistride export`")
    try:
        return torch.classes.equistride.Model(content, name, verify)
    except (RuntimeError, ValueError, IndexError) as error:
        reason = sentence(error)
        if name in str(reason):
            raise reason from None
        hint = "it is damaged: copy or export it again"
        raise EquistrideError(f"the artifact {name} fails its self-test ({reason})", hint=hint) from None
