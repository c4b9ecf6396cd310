"""What the checks of an artifact share: a result with its bound, and a rotation to turn a system by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Check:
    """One check: its name, the error found, the bound, and what the error is measured in."""

    name: str
    error: float
    bound: float
    unit: str

    @property
    def passed(self) -> bool:
        """Whether the error is a number within the bound."""
        return bool(self.error <= self.bound)


def random_rotation(seed: int, improper: bool) -> NDArray[np.float64]:
    """Return a rotation [3, 3], or one with a reflection where ``improper``; row vectors turn as ``v @ rotation``."""
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return -q if (np.linalg.det(q) < 0) != improper else q
