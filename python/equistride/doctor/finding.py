"""What the doctor finds."""

from __future__ import annotations

from typing import Literal, NamedTuple

State = Literal["ok", "absent", "warning", "fault"]


class Finding(NamedTuple):
    """One fact.

    ``ok``: works. ``absent``: optional, and not there. ``warning``: works, but not as it could. ``fault``: broken.
    ``advice`` is one sentence of what to do, empty where there is nothing to do.
    """

    part: str
    name: str
    value: str
    state: State = "ok"
    advice: str = ""
