"""Load the native operators (``torch.ops.equistride``) once."""

from __future__ import annotations

from pathlib import Path

import torch

import equistride._native as _native
from equistride.errors import EquistrideError


def _same_torch(built: str, running: str) -> bool:
    return built.split("+")[0].split(".")[:2] == running.split("+")[0].split(".")[:2]


if not _same_torch(_native.torch_version, torch.__version__):
    raise EquistrideError(
        "equistride's operators were built for another torch",
        expected=f"torch {_native.torch_version}",
        found=f"torch {torch.__version__}",
        hint=f"pip install 'torch=={'.'.join(_native.torch_version.split('.')[:2])}.*', or build equistride again for this one: "
        "pip install --no-build-isolation --force-reinstall --no-deps . in its sources",
    )

LIBRARY_DIR = Path(_native.__file__).resolve().parent / "lib"
OPERATORS = LIBRARY_DIR / "libequistride_ops.so"
torch.ops.load_library(str(OPERATORS))
