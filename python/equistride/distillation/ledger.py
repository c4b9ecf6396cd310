"""What a distillation has decided and found, in one JSON file: each entry is made once and stays."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from equistride.errors import reading
from equistride.writing import write


class Ledger:
    """The entries of a folder.

    Parameters
    ----------
    path
        The JSON file; it is read where it is there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: dict[str, Any] = {}
        if path.is_file():
            with reading(path, "the plan of a distillation"):
                self._entries = dict(json.loads(path.read_text()))

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __getitem__(self, name: str) -> Any:
        return self._entries[name]

    @property
    def entries(self) -> dict[str, Any]:
        """All entries by name, and ``seconds``, those that each took."""
        return dict(self._entries)

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """Return an entry; the first time it is made and written, with the seconds that took, and read back as later runs do."""
        if name not in self._entries:
            begun = time.monotonic()
            made = make()
            spent = {**self._entries.get("seconds", {}), name: round(time.monotonic() - begun, 1)}
            text = json.dumps({**self._entries, name: made, "seconds": spent}, indent=1)
            write(self._path, text + "\n")
            self._entries = json.loads(text)
        return self._entries[name]

    @property
    def spent(self) -> float:
        """Seconds that all entries took together, each in its last attempt."""
        return float(sum(self._entries.get("seconds", {}).values()))
