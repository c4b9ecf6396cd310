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


def open_native(path: str | Path, verify: bool = True) -> Any:
    """Open an artifact as a ``torch.classes.equistride.Model``; ``verify`` runs its reference frame.

    Raises
    ------
    EquistrideError
        As :func:`equistride.artifact.model.load`.
    """
    if not Path(path).is_file():
        raise EquistrideError(f"the artifact {path} does not exist", hint="write it with `equistride export`")
    try:
        return torch.classes.equistride.Model(str(path), verify)
    except (RuntimeError, ValueError, IndexError) as error:
        reason = sentence(error)
        if str(path) in str(reason):
            raise reason from None
        hint = "it is damaged: copy or export it again"
        raise EquistrideError(f"the artifact {path} fails its self-test ({reason})", hint=hint) from None
