"""Checkpoints of ``equistride train``: read, and put into a model."""

from __future__ import annotations

import hashlib
import pickle
import pickletools
import zipfile
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from equistride import __version__
from equistride.errors import EquistrideError
from equistride.writing import write

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
"""The checkpoint of a run that was written last, and the one before it."""
SEAL = b"equistride-sha256:"
"""The comment of the zip archive begins with this; the SHA-256 of all that is before it follows."""
END_OF_ZIP, END_SIZE, HASH_SIZE = b"PK\x05\x06", 22, 64


def checkpoint_bytes(content: dict[str, Any]) -> bytes:
    """Return a file of ``torch.save`` that holds the SHA-256 of itself, which any reader of zip archives passes over."""
    buffer = BytesIO()
    torch.save(content, buffer)
    data = buffer.getvalue()
    if data[-END_SIZE:-18] != END_OF_ZIP:
        raise RuntimeError(f"torch {torch.__version__} writes other archives than are known: without a plain end")
    data = data[:-2] + (len(SEAL) + HASH_SIZE).to_bytes(2, "little")
    return data + SEAL + hashlib.sha256(data).hexdigest().encode()


def _whole(data: bytes) -> bool:
    """Whether a file is as it was written: by its seal, or of an older version by the checksums of its records."""
    length = len(SEAL) + HASH_SIZE
    if data[-length:-HASH_SIZE] == SEAL:
        return hashlib.sha256(data[:-length]).hexdigest().encode() == data[-HASH_SIZE:]
    with zipfile.ZipFile(BytesIO(data)) as archive:
        return not archive.comment and archive.testzip() is None


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of ``equistride train``: plain types and tensors alone, no code runs.

    Raises
    ------
    EquistrideError
        Where the file is missing, truncated, damaged, or not such a checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise EquistrideError(
            f"the checkpoint {path} does not exist", hint="give the file that `equistride train` wrote"
        )
    hint = "give checkpoints/last.ckpt of a run of `equistride train`"
    data = path.read_bytes()
    if not zipfile.is_zipfile(BytesIO(data)):
        raise EquistrideError(
            f"{path} is truncated or no checkpoint", expected="a zip archive of torch.save", hint=hint
        )
    try:
        whole = _whole(data)
    except (zipfile.BadZipFile, zlib.error, OSError, ValueError, NotImplementedError, RuntimeError, EOFError):
        whole = False
    if not whole:
        raise EquistrideError(
            f"{path} is damaged: its bytes are not those that were written",
            hint=f"take {PREVIOUS}, if it lies beside it",
        )
    try:
        checkpoint = torch.load(BytesIO(data), map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, ValueError, TypeError, AttributeError) as error:
        if _is_pickled_module(path):
            raise EquistrideError(
                f"{path} is a whole module, as torch.save(model) writes it, which runs code of its author when it is read",
                expected="a checkpoint of weights and plain values",
                hint=hint + "; `equistride import` reads checkpoints of other programs",
            ) from None
        reason = str(error).splitlines()[0]
        raise EquistrideError(f"{path} cannot be read as a checkpoint ({reason})", hint=hint) from None
    if not isinstance(checkpoint, dict) or "equistride" not in checkpoint or "state_dict" not in checkpoint:
        raise EquistrideError(
            f"{path} is no checkpoint of equistride", expected="keys 'equistride' and 'state_dict'", hint=hint
        )
    return checkpoint


def _is_pickled_module(path: Path) -> bool:
    """Tell whether the pickle of an archive begins with a class, as an object does, and not with a dictionary."""
    try:
        with zipfile.ZipFile(path) as archive:
            (name,) = [n for n in archive.namelist() if n.endswith("data.pkl")]
            codes = ((code.name, value) for code, value, _ in pickletools.genops(archive.read(name)))
            first, value = next(code for code in codes if code[0] not in ("PROTO", "FRAME"))
    except (ValueError, OSError, zipfile.BadZipFile, StopIteration):
        return False
    return "UNICODE" in first or (first == "GLOBAL" and not str(value).startswith("collections "))


def unreadable(checkpoint: Path, error: Exception) -> EquistrideError:
    """Return the sentence for a checkpoint whose configuration cannot be read."""
    reason = str(error).splitlines()[0]
    return EquistrideError(
        f"{checkpoint} is no checkpoint of equistride: its configuration cannot be read ({reason})",
        hint="give checkpoints/last.ckpt of a run of `equistride train`",
    )


def weights_of(content: dict[str, Any]) -> dict[str, Tensor]:
    """Return a checkpoint's weights under their names in the model."""
    return {k.removeprefix("model."): v for k, v in content["state_dict"].items() if k.startswith("model.")}


def write_weights(checkpoint: Path, output: Path) -> None:
    """Write what a later training can begin with (``initialise_from``): weights and facts, without the optimiser's state.

    Raises
    ------
    EquistrideError
        As :func:`read_checkpoint`.
    """
    content = read_checkpoint(checkpoint)
    write(output, checkpoint_bytes({key: content[key] for key in ("equistride", "state_dict")}))


def load_weights(model: nn.Module, content: dict[str, Any], checkpoint: Path) -> None:
    """Put a checkpoint's weights into a model; they must fit and be finite."""
    weights = weights_of(content)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise EquistrideError(
            f"the weights of {checkpoint} do not fit its config ({str(error).splitlines()[1].strip()})"
        ) from None
    if any(not bool(torch.isfinite(w).all()) for w in weights.values()):
        raise EquistrideError(
            f"{checkpoint} has weights that are not finite", hint="the training diverged: lower the learning rate"
        )


def provenance(facts: dict[str, Any]) -> dict[str, Any]:
    """Return where a checkpoint comes from: its own facts, this package, a hash of its configuration."""
    return {
        **facts.get("provenance", {}),
        "exported_by": f"equistride {__version__}, torch {torch.__version__}",
        "config_sha256": hashlib.sha256(repr(sorted(facts["config"].items())).encode()).hexdigest(),
    }
