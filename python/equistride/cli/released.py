"""The released models that come with the package, for the demo."""

from __future__ import annotations

from pathlib import Path

from equistride import _native
from equistride.errors import EquistrideError

FOLDER = Path(_native.__file__).resolve().parent / "released"


def released(name: str) -> Path:
    """Return the artifact of a released model, by the name of its folder in ``models/``.

    Raises
    ------
    EquistrideError
        Where the package was installed without it.
    """
    path = FOLDER / f"{name}.pt"
    if not path.is_file():
        raise EquistrideError(
            f"the model {name} did not come with this installation", expected=f"a file {path}",
            hint="install the package again, or name an artifact",
        )  # fmt: skip
    return path
