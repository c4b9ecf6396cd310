"""What a user can get wrong, said in one sentence."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class EquistrideError(ValueError):
    """An error that a user can mend.

    Parameters
    ----------
    what
        What is wrong, naming the thing ("the structure has an element that the model does not know").
    expected, found
        What was expected and what was found, where that helps.
    hint
        What to do about it.
    """

    def __init__(self, what: str, *, expected: object = None, found: object = None, hint: str = "") -> None:
        self.what, self.expected, self.found, self.hint = what, expected, found, hint
        parts = [what]
        if expected is not None:
            parts.append(f"expected {expected}")
        if found is not None:
            parts.append(f"found {found}")
        if hint:
            parts.append(hint)
        super().__init__("; ".join(parts))


def not_valid(what: str, error: ValidationError, hint: str = "") -> EquistrideError:
    """Return one sentence for the first field that pydantic refuses; ``what`` is what is wrong, before the field's name."""
    first = error.errors()[0]
    return EquistrideError(
        f"{what} ({'.'.join(map(str, first['loc'])) or 'its sizes'})", expected=first["msg"].lower(),
        found=printable(repr(first["input"]))[:80], hint=hint,
    )  # fmt: skip


def first_line(error: Exception) -> str:
    """Return the first line of what an error says; its class where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def printable(text: object) -> str:
    """Return a text of somebody else without what a terminal would obey."""
    return "".join(c if c.isprintable() else " " for c in str(text))


@contextmanager
def quiet(package: str, modules: str = "") -> Iterator[None]:
    """Keep from the user what a package has to say about itself.

    Parameters
    ----------
    package
        Name of its logger, of which errors alone are let through.
    modules
        Pattern of the modules whose warnings are silent; all by default.
    """
    logger = logging.getLogger(package)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=modules)
            yield
    finally:
        logger.setLevel(before)


@contextmanager
def reading(path: Path | str, kind: str) -> Iterator[None]:
    """Make one sentence of whatever a reader raises on a damaged file; those of :class:`EquistrideError` stay as they are.

    Parameters
    ----------
    path, kind
        What is read, and as what, for the message.

    Raises
    ------
    EquistrideError
        In the place of any other exception.
    """
    try:
        yield
    except EquistrideError:
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        reason = reason if len(reason) < 300 else reason[:300] + " ..."
        raise EquistrideError(
            f"{path} cannot be read as {kind} ({reason})",
            hint="the file may be truncated or damaged; copy or make it again",
        ) from error


class Notice(UserWarning):
    """What a file or an argument says and what is not used, or is used otherwise than one may think, in one sentence."""


def tell(sentence: str) -> None:
    """Warn with a :class:`Notice`; the command line prints it as one line on stderr."""
    warnings.warn(sentence, Notice, stacklevel=3)
