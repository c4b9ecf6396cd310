"""Element symbols: which of them exist, and which of them a model knows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray

from equistride.errors import EquistrideError


def atomic_numbers_of(symbols: Iterable[str], what: str) -> NDArray[np.int64]:
    """Return the atomic number of each symbol [N].

    Parameters
    ----------
    symbols
        Element symbols.
    what
        What has them, for the message.

    Raises
    ------
    EquistrideError
        Where a symbol is not that of an element.
    """
    found = list(symbols)
    unknown = sorted(set(found) - set(atomic_numbers))
    if unknown:
        raise EquistrideError(
            f"{what} has elements that do not exist",
            found=", ".join(unknown),
            hint="use symbols such as Si, not names of atoms",
        )
    return np.array([atomic_numbers[s] for s in found], np.int64)


def species_index(
    symbols: Iterable[str], species: Sequence[str], *, what: str = "the data", who: str = "the model", hint: str = ""
) -> list[int]:
    """Return the place of each symbol in ``species``.

    Parameters
    ----------
    symbols
        Element symbols.
    species
        Those that a model knows, in its order.
    what, who, hint
        What has the symbols and who knows the species, for the message, and what to do.

    Raises
    ------
    EquistrideError
        Where a symbol is not among the species.
    """
    found = list(symbols)
    unknown = sorted(set(found) - set(species))
    if unknown:
        raise EquistrideError(
            f"{what} has elements that {who} does not know: {', '.join(unknown)}",
            expected=", ".join(species),
            hint=hint,
        )
    index = {symbol: k for k, symbol in enumerate(species)}
    return [index[symbol] for symbol in found]
