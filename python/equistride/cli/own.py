"""A module of one's own, from the words of a command line."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from equistride.errors import EquistrideError

Number = TypeVar("Number", int, float)


def numbers(text: str | None, kind: Callable[[str], Number], option: str) -> list[Number] | None:
    """Return the numbers of an option, which commas part.

    Raises
    ------
    EquistrideError
        Where they are none.
    """
    if text is None:
        return None
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise EquistrideError(f"{option} must be numbers with commas between them", found=text) from None


def _imported(place: str) -> ModuleType:
    if not place.endswith(".py"):
        sys.path.insert(0, str(Path.cwd()))
        return importlib.import_module(place)
    path = Path(place).resolve()
    if not path.is_file():
        raise EquistrideError(f"{place} does not exist", expected="a file with Python code")
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise EquistrideError(f"{place} cannot be imported", expected="a file with Python code")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # where TorchScript looks for its names
    spec.loader.exec_module(module)
    return module


def built(place_and_name: str) -> Any:
    """Import ``package.module:build`` or ``file.py:build`` and return the module that it is or makes.

    Raises
    ------
    EquistrideError
        Where it cannot be imported, fails, or makes no ``torch.nn.Module``.
    """
    from torch import nn

    place, _, name = place_and_name.rpartition(":")
    if not place or not name:
        raise EquistrideError(
            f"--module {place_and_name!r} names no module", expected="package.module:build or file.py:build"
        )
    try:
        found = getattr(_imported(place), name, None)
        made = found if isinstance(found, nn.Module) or found is None else found()
    except EquistrideError:
        raise
    except Exception as error:  # whatever the user's own code raises
        raise EquistrideError(
            f"--module {place_and_name} fails ({type(error).__name__}: {error})", hint="mend the code that it names"
        ) from error
    if found is None:
        raise EquistrideError(f"{place} has no {name}", expected="a torch.nn.Module, or a function that returns one")
    if not isinstance(made, nn.Module):
        raise EquistrideError(f"{name} of {place} makes no torch.nn.Module", found=type(made).__name__)
    return made
