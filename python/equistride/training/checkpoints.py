"""The checkpoints of a run: two are kept, each whole, so that one is there whenever the process or the machine stops."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch.plugins.io import TorchCheckpointIO

from equistride.artifact.checkpoint import LAST, PREVIOUS, checkpoint_bytes, read_checkpoint
from equistride.errors import EquistrideError, tell
from equistride.writing import write_keeping


class CheckpointFiles(TorchCheckpointIO):
    """How Lightning writes and reads ``last.ckpt``: with a hash, as a whole, and the one before stays as ``previous.ckpt``."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint; until it is on the disk the older ones are as they were."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_keeping(path, path.with_name(PREVIOUS), checkpoint_bytes(checkpoint))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint as :func:`equistride.artifact.checkpoint.read_checkpoint`, on the CPU."""
        return read_checkpoint(Path(path))


def newest(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Return the newest whole checkpoint of a folder, its path and content; that the last one is damaged is told.

    Raises
    ------
    EquistrideError
        Where neither can be read: what is wrong with the last one, or with the other where that alone is there.
    """
    last, previous = folder / LAST, folder / PREVIOUS
    if not last.is_file() and previous.is_file():
        return previous, read_checkpoint(previous)
    try:
        return last, read_checkpoint(last)
    except EquistrideError as damage:
        if not previous.is_file():
            raise
        with suppress(EquistrideError):
            content = read_checkpoint(previous)
            tell(f"{damage.what}; the run goes on from {previous} (step {content['global_step']})")
            return previous, content
        raise
