"""Artifacts that were changed: record by record, by one who writes the digest anew or by one who does not."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TypeVar

T = TypeVar("T", Path, BytesIO)

DIGEST = "extra/digest.json"


def rewritten(source: Path, target: T, change: Callable[[str, bytes], bytes | None], *, digest: bool = True) -> T:
    """Copy an artifact; ``change(name, content)`` gives a record's new content, None leaves it out.

    ``digest`` makes that of the file true again, where it has one; False leaves it as it was.
    """
    with zipfile.ZipFile(source) as old:
        folder = old.namelist()[0].partition("/")[0]
        before = {name.partition("/")[2]: old.read(name) for name in old.namelist()}
    records = {name: content for name, data in before.items() if (content := change(name, data)) is not None}
    if digest and DIGEST in records:
        named = [name for name in records if name != DIGEST and not name.startswith(".data/")]
        hashes = {name: hashlib.sha256(records[name]).hexdigest() for name in named}
        records[DIGEST] = json.dumps({"algorithm": "sha256", "records": hashes}).encode()
    with zipfile.ZipFile(target, "w") as new:
        for name, content in records.items():
            new.writestr(f"{folder}/{name}", content)
    return target
