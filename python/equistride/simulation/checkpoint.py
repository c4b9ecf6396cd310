"""Checkpoints of a simulation: written whole; two are kept, each with its SHA-256."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equistride.errors import EquistrideError, tell
from equistride.writing import write_keeping

NAMES = ("checkpoint", "checkpoint.previous")
HEAD = 1 << 20
"""Bytes that the first line of a checkpoint has at most."""


@dataclass(frozen=True)
class Checkpoint:
    """Where a simulation was.

    Attributes
    ----------
    step
        Steps made.
    settings
        Of the run, and the SHA-256 of its model and structure.
    sizes
        Lengths of trajectory and table in bytes.
    state
        What the engine needs.
    """

    step: int
    settings: dict[str, Any]
    sizes: dict[str, int]
    state: bytes

    def save(self, folder: Path) -> None:
        """Write it; the one before is kept."""
        last, previous = (folder / name for name in NAMES)
        facts = {"step": self.step, "settings": self.settings, "sizes": self.sizes}
        head = json.dumps(facts | {"sha256": hashlib.sha256(json.dumps(facts).encode() + self.state).hexdigest()})
        write_keeping(last, previous, head.encode() + b"\n" + self.state)


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read the last checkpoint of a folder, or where that is damaged, which is told, the one before.

    Raises
    ------
    EquistrideError
        Where there is none, or none that is whole.
    """
    paths = [folder / name for name in NAMES if (folder / name).is_file()]
    if not paths:
        raise EquistrideError(f"there is no checkpoint in {folder}", hint="run it without --resume")
    for path in paths:
        found = _read(path)
        if found is not None:
            return found
        tell(f"{path} is damaged")
    raise EquistrideError(f"no checkpoint in {folder} is whole", hint="run it anew, into another folder")


def _read(path: Path) -> Checkpoint | None:
    with path.open("rb") as f:
        head, state = f.readline(HEAD), f.read()
    try:
        facts = json.loads(head)
        digest = facts.pop("sha256")
        if digest != hashlib.sha256(json.dumps(facts).encode() + state).hexdigest():
            return None
        return Checkpoint(facts["step"], facts["settings"], facts["sizes"], state)
    except (ValueError, KeyError, AttributeError, TypeError):
        return None
