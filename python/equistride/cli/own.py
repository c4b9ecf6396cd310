"""A module of one's own, from the words of a command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from equistride.errors import EquistrideError
from equistride.user_code import made

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


def built(place_and_name: str) -> Any:
    """Import ``package.module:build`` or ``file.py:build`` and return the module that it is or makes.

    Raises
    ------
    EquistrideError
        As :func:`equistride.user_code.made`.
    """
    from torch import nn

    return made("--module", place_and_name, nn.Module, "torch.nn.Module")
