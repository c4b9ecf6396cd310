"""Objects of the user's own code, by the words of a command line: ``package.module:name`` or ``file.py:name``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from equistride.errors import EquistrideError


def imported(place: str) -> ModuleType:
    """Return the module ``package.module``, or that of ``file.py``.

    Raises
    ------
    EquistrideError
        Where there is no such file.
    """
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


def made(option: str, place_and_name: str, kind: type, what: str) -> Any:
    """Return what a name stands for, or what it returns where it is a class or a function.

    Parameters
    ----------
    option
        Of the command line, for messages.
    place_and_name
        ``package.module:name`` or ``file.py:name``.
    kind, what
        Class of the object, and its name in messages.

    Raises
    ------
    EquistrideError
        Where it cannot be imported, fails, or is and makes no ``kind``.
    """
    place, _, name = place_and_name.rpartition(":")
    if not place or not name:
        raise EquistrideError(
            f"{option} {place_and_name!r} names no module", expected="package.module:build or file.py:build"
        )
    try:
        found = getattr(imported(place), name, None)
        result = found if isinstance(found, kind) or found is None else found()
    except EquistrideError:
        raise
    except Exception as error:  # whatever the user's own code raises
        raise EquistrideError(
            f"{option} {place_and_name} fails ({type(error).__name__}: {error})", hint="mend the code that it names"
        ) from error
    if found is None:
        raise EquistrideError(f"{place} has no {name}", expected=f"a {what}, or a function that returns one")
    if not isinstance(result, kind):
        raise EquistrideError(f"{name} of {place} makes no {what}", found=type(result).__name__)
    return result
