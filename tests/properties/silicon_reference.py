"""Silicon under Stillinger and Weber's potential: the crystal whose properties are known to four digits."""

from __future__ import annotations

from ase import Atoms

from equistride.data.reference import ReferenceCalculator
from equistride.data.silicon import silicon

CONSTANT = 5.43095
"""Lattice constant at rest [A]: the potential's 2.35170 A bond, times 4 / sqrt(3)."""


def relaxed_silicon() -> tuple[Atoms, ReferenceCalculator]:
    """Return 8 atoms at rest, and the potential."""
    return silicon(a=CONSTANT), ReferenceCalculator("Si.sw")
