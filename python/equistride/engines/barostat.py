"""The barostat of a propagator: moves of the box that the guard's potential takes or refuses."""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Any, Literal

from equistride.engines.guard import Guard, require_at_work
from equistride.errors import EquistrideError

AXES = ("xyz", "xy,z", "x,y,z")


@dataclass(frozen=True)
class Barostat:
    """What pressure is kept, how often the box is moved, and along which axes.

    Every ``every`` strides a move of the volume is tried, in which each atom moves with the box, and taken or refused by its
    energy under the guard's potential and the work against the pressure (Metropolis, as in OpenMM's MonteCarloBarostat; Chow and
    Ferguson 1995). The size of the moves is adapted, up to 5 % of an axis. A move costs two evaluations of the potential, and one
    where the guard looks at the same stride.

    Atoms are moved, not molecules, whose bonds a move stretches: it is for crystals and atomic liquids. The propagator must
    have been trained on cells strained as far as the box will go.

    Parameters
    ----------
    pressure
        bar.
    every
        Strides between moves.
    axes
        Axes that are stretched alike stand together: ``xyz`` for one factor, ``xy,z`` for the plane and the third axis, ``x,y,z``
        for each alone. Axes are those of space; angles of a cell change where its vectors lie between axes of two groups.

    Raises
    ------
    EquistrideError
        For settings that make no sense.
    """

    pressure: float = 1.0
    every: int = 10
    axes: Literal["xyz", "xy,z", "x,y,z"] = "xyz"

    def __post_init__(self) -> None:
        if not isinstance(self.pressure, numbers.Real) or not abs(self.pressure) < 1e9:
            raise EquistrideError("the pressure of a barostat is not valid", expected="a number, in bar", found=self.pressure,
                                  hint="take a quantity's value_in_unit(openmm.unit.bar)")  # fmt: skip
        if not isinstance(self.every, numbers.Real) or int(self.every) != self.every or self.every < 1:
            raise EquistrideError(
                "the interval of a barostat must be a number of strides", expected="1 or more", found=self.every
            )
        if self.axes not in AXES:
            raise EquistrideError("the axes of a barostat are not known", expected=" or ".join(AXES), found=self.axes)

    @property
    def settings(self) -> tuple[float, int, str]:
        """What the native library takes."""
        return float(self.pressure), int(self.every), self.axes


@dataclass(frozen=True)
class BarostatStatistics:
    """What a barostat did: moves tried and taken, and its seconds."""

    moves: int
    taken: int
    seconds: float


def guard_and_barostat(potential: str | None, pressure: float | None) -> dict[str, Any]:
    """Return ``guard`` and ``barostat`` as the engines' propagators take them, each where there is one.

    Parameters
    ----------
    potential
        Artifact of the guard's potential.
    pressure
        bar; of a barostat that moves each axis for itself.
    """
    found: dict[str, Any] = {} if potential is None else {"guard": Guard(potential)}
    return found if pressure is None else found | {"barostat": Barostat(pressure, axes="x,y,z")}


def barostat_statistics(values: dict[str, float]) -> BarostatStatistics:
    """Return the statistics of the native library.

    Raises
    ------
    EquistrideError
        Where there is no barostat, or no run yet.
    """
    require_at_work(values, "Barostat")
    return BarostatStatistics(int(values["moves"]), int(values["taken"]), values["seconds"])


def require_barostat(barostat: Any) -> tuple[float, int, str]:
    """Return the settings of a barostat.

    Raises
    ------
    EquistrideError
        Where it is none.
    """
    if not isinstance(barostat, Barostat):
        raise EquistrideError("barostat must be a Barostat", expected="a Barostat", found=repr(barostat)[:80],
                              hint="give Barostat(pressure=1.0)")  # fmt: skip
    return barostat.settings
