"""The guard of a propagator: a potential of the same system that checks strides and mends the bad ones."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from equistride.errors import EquistrideError

MODES = ("correct", "reject", "midpoint")


@dataclass(frozen=True)
class Guard:
    """What is checked, how often, and what happens to a stride that breaks the bound.

    Every ``every`` strides the total energy before and after the stride is compared, the work of a thermostat left out.
    A stride that the network refuses (an atom too fast, a bond too short) is always made by the potential instead, in
    steps of ``substep``.

    Parameters
    ----------
    potential
        Artifact of a potential of the same system.
    every
        Strides between checks. A check costs one or two evaluations of the potential.
    bound
        Largest change of the total energy over a stride, meV/atom; ``math.inf`` for none. ``statistics`` tells what is usual.
    mode
        ``correct`` scales the velocities so that the energy is that before the stride, and rejects where that would take a
        factor beyond 2; ``reject`` makes the stride again with velocity Verlet under the potential; ``midpoint`` solves the
        implicit midpoint rule from the network's stride, and rejects where that does not converge. That rule is symplectic,
        but turns a frequency w into 2/dt arctan(w dt/2): it is for strides that are short beside the fastest vibration.
    rescale
        Scale the velocities at every check, whatever the bound: with a thermostat to the energy before the stride; without one
        to the total energy of the start, so that it cannot drift, and then each stride is given back what the network was found
        to take, so that it does not wander between checks either.
    substep
        Longest step of velocity Verlet, fs.

    Raises
    ------
    EquistrideError
        For an unknown mode and for numbers that make no sense.
    """

    potential: str | os.PathLike[str]
    every: int = 10
    bound: float = 2.0
    mode: Literal["correct", "reject", "midpoint"] = "correct"
    rescale: bool = False
    substep: float = 1.0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise EquistrideError("the mode of a guard is not known", expected=" or ".join(MODES), found=self.mode)
        if int(self.every) != self.every or self.every < 1:
            raise EquistrideError(
                "the interval of a guard must be a number of strides", expected="1 or more", found=self.every
            )
        if not self.bound >= 0:
            raise EquistrideError(
                "the bound of a guard must be an energy", expected="0 meV/atom or more", found=self.bound
            )
        if not 0 < self.substep < math.inf:
            raise EquistrideError(
                "the substep of a guard must be a time", expected="more than 0 fs", found=self.substep
            )
        if not Path(self.potential).is_file():
            raise EquistrideError(f"the guard's potential {self.potential} does not exist", hint="check the path")

    @property
    def settings(self) -> tuple[str, int, float, bool, float]:
        """Mode, every, bound [eV/atom], rescale, substep [fs], as the native library takes them."""
        return self.mode, int(self.every), self.bound / 1000.0, self.rescale, float(self.substep)


@dataclass(frozen=True)
class GuardStatistics:
    """What a guard did in a run.

    ``mean_change``, ``rms_change`` and ``largest_change`` are of the total energy over a checked stride, meV/atom, as the network
    made it: before anything was mended or given back.
    """

    strides: int
    checks: int
    violations: int
    """Strides that broke the bound."""
    corrected: int
    """Of these, mended by scaling or by the midpoint rule."""
    rejected: int
    """Strides made again with velocity Verlet."""
    refused: int
    """Strides that the network would not make, made with velocity Verlet."""
    evaluations: int
    """Evaluations of the potential."""
    mean_change: float
    rms_change: float
    largest_change: float
    guard_seconds: float
    network_seconds: float

    @property
    def cost(self) -> float:
        """Time of the guard as a share of the network's."""
        return self.guard_seconds / self.network_seconds if self.network_seconds > 0 else 0.0


def require_at_work(values: dict[str, float], kind: str) -> None:
    """Refuse to tell what nothing did: the native library's statistics are empty without a ``Guard`` or ``Barostat``."""
    if not values:
        name = kind.lower()
        raise EquistrideError(
            f"there is no {name} at work", hint=f"give {name}={kind}(...), and make the Context first"
        )


def guard_statistics(values: dict[str, float]) -> GuardStatistics:
    """Return the statistics of the native library, with energies in meV/atom.

    Raises
    ------
    EquistrideError
        Where there is no guard, or no run yet.
    """
    require_at_work(values, "Guard")
    found: dict[str, Any] = {}
    for name, value in values.items():
        if name.endswith("_change"):
            found[name] = 1000.0 * value
        else:
            found[name] = value if name.endswith("_seconds") else int(value)
    return GuardStatistics(**found)
