"""What a user can get wrong, said in one sentence."""

from __future__ import annotations


class EquistrideError(ValueError):
    """An error that a user can mend.

    Parameters
    ----------
    what
        What is wrong, naming the thing ("the structure has an element that the model does not know").
    expected, found
        What was expected and what was found, where that helps.
    mend
        What to do about it.
    """

    def __init__(self, what: str, *, expected: object = None, found: object = None, mend: str = "") -> None:
        self.what, self.expected, self.found, self.mend = what, expected, found, mend
        parts = [what]
        if expected is not None:
            parts.append(f"expected {expected}")
        if found is not None:
            parts.append(f"found {found}")
        if mend:
            parts.append(mend)
        super().__init__("; ".join(parts))
