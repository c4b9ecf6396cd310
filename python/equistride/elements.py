"""Element symbols: which of them exist, which of them a model knows, and isotopes of hydrogen, which are hydrogen to it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
from ase.data import atomic_masses, atomic_numbers
from numpy.typing import NDArray

from equistride.errors import EquistrideError

ISOTOPES = {"D": 2.014101778, "T": 3.016049281}
"""Isotopes of hydrogen with symbols of their own: their masses [amu] (AME2020)."""
_EXTRA_PARTICLE = re.compile(r"(M|MW|EP|EPW|LP|VS)\d*", re.IGNORECASE)
"""Names that force fields give to particles that are no atoms."""


def element_of(symbol: str) -> str:
    """Return the element of a symbol: hydrogen for deuterium and tritium, any other as it is."""
    return "H" if symbol in ISOTOPES else symbol


def missing_element(what: str, name: str, hint: str = "write its symbol into the file") -> EquistrideError:
    """Return the sentence for an atom without an element.

    Parameters
    ----------
    what
        Which atom of what, for the message.
    name
        Its name; those that force fields give to extra particles are told apart.
    hint
        What to do about an atom that lacks its element.
    """
    if _EXTRA_PARTICLE.fullmatch(name.strip()):
        return EquistrideError(
            f"{what} ({name}) has no element: by its name it is a virtual site or an extra particle, which a model of "
            "atoms cannot see",
            hint="leave it out",
        )
    return EquistrideError(f"{what} ({name}) has no element", expected="a symbol such as C", found="none", hint=hint)


def atomic_numbers_of(symbols: Iterable[str], what: str) -> NDArray[np.int64]:
    """Return the atomic number of each symbol [N].

    Parameters
    ----------
    symbols
        Element symbols, or those of isotopes of hydrogen.
    what
        What has them, for the message.

    Raises
    ------
    EquistrideError
        Where a symbol is not that of an element.
    """
    found = [element_of(s) for s in symbols]
    unknown = sorted(set(found) - set(atomic_numbers))
    if unknown:
        raise EquistrideError(
            f"{what} has elements that do not exist",
            found=", ".join(unknown),
            hint="use symbols such as Si, not names of atoms",
        )
    return np.array([atomic_numbers[s] for s in found], np.int64)


def masses_of(symbols: Sequence[str], what: str) -> NDArray[np.float64]:
    """Return the standard mass [N] of each symbol [amu], of an isotope its own; parameters as :func:`atomic_numbers_of`."""
    masses = atomic_masses[atomic_numbers_of(symbols, what)].astype(float)
    for k, symbol in enumerate(symbols):
        masses[k] = ISOTOPES.get(symbol, masses[k])
    return masses


def species_index(
    symbols: Iterable[str], species: Sequence[str], *, what: str = "the data", who: str = "the model", hint: str = ""
) -> list[int]:
    """Return the place of each symbol in ``species``.

    Parameters
    ----------
    symbols
        Element symbols; isotopes of hydrogen are hydrogen.
    species
        Those that a model knows, in its order.
    what, who, hint
        What has the symbols and who knows the species, for the message, and what to do.

    Raises
    ------
    EquistrideError
        Where a symbol is not among the species.
    """
    found = [element_of(s) for s in symbols]
    unknown = sorted(set(found) - set(species))
    if unknown:
        raise EquistrideError(
            f"{what} has elements that {who} does not know: {', '.join(unknown)}",
            expected=", ".join(species),
            hint=hint,
        )
    index = {symbol: k for k, symbol in enumerate(species)}
    return [index[symbol] for symbol in found]
