"""What a distillation is told: temperatures, sizes, stride, student, and how much work; checked before anything runs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from equistride.errors import EquistrideError
from equistride.simulation.settings import quantity

Student = Literal["trajcast", "esen", "nequip"]
Relaxed = Literal["all", "atoms", "none"]
BUDGET_S = 1800.0
"""Seconds of a distillation that is told neither a budget nor its numbers."""
UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
STRAIN = 0.01
"""Width of the strains of a potential's cells, from which it learns its virials."""


def seconds(text: str) -> float:
    """Read ``90s``, ``20m`` or ``1.5h``.

    Raises
    ------
    EquistrideError
        For anything else, and for what is not above 0.
    """
    value = quantity(text, UNITS)
    if value is None:
        raise EquistrideError("the budget is not valid", expected="a number with s, m, h or d, as 2h", found=text)
    return value


@dataclass(frozen=True)
class Settings:
    """One distillation.

    Parameters
    ----------
    student
        ``trajcast``, a propagator; ``esen`` or ``nequip``, a small potential.
    temperatures
        K; most of the data are of the first, at which the student is validated.
    stride_fs
        Of the propagator; None: chosen by the teacher's spectrum. Frames for a potential lie that far apart.
    strain
        Width of the normal distribution of a quarter of the cells' strain components.
    supercell
        Repeats of the structure; None: the fewest whose faces lie 10 A apart.
    relax
        ``all``: cell and atoms, ``atoms`` alone, or ``none``; None: cell and atoms of a crystal, atoms of a molecule.
    cutoff
        Of the student [A]; None: by the number of neighbours.
    timestep_fs
        Of the teacher's dynamics; None: 1 fs, and 0.5 fs with hydrogen.
    budget_s
        Seconds; the numbers below that are None are fixed by it, from measured speeds, once.
    walks, steps, frames, strides
        Walks of the teacher, each of its own start; steps of the training; frames of the teacher's run for comparison; strides
        (of a potential: frames) of the student's run.
    seed
        Of everything.

    Raises
    ------
    EquistrideError
        For a word that is not known, or a number that makes no sense.
    """

    student: Student = "trajcast"
    temperatures: tuple[float, ...] = (300.0, 200.0, 400.0)
    stride_fs: float | None = None
    strain: float | None = None
    supercell: tuple[int, int, int] | None = None
    relax: Relaxed | None = None
    cutoff: float | None = None
    timestep_fs: float | None = None
    budget_s: float | None = None
    walks: int | None = None
    steps: int | None = None
    frames: int | None = None
    strides: int | None = None
    seed: int = 1

    def __post_init__(self) -> None:
        for name, known in (("student", Student), ("relax", Relaxed)):
            value = getattr(self, name)
            if value is not None and value not in get_args(known):
                raise EquistrideError(f"the {name} is not known", expected=" or ".join(get_args(known)), found=value)
        if not self.temperatures:
            raise EquistrideError("a distillation needs a temperature", expected="one or more, as 300,200,400")
        named = {
            "stride": self.stride_fs,
            "cutoff": self.cutoff,
            "time step": self.timestep_fs,
            "budget": self.budget_s,
        }
        for what, number in [*named.items(), *(("temperature", t) for t in self.temperatures)]:
            if number is not None and not 0.0 < number < math.inf:
                raise EquistrideError(f"the {what} must be above 0", found=number)
        if self.strain is not None and not 0.0 <= self.strain <= 0.1:
            raise EquistrideError("the strain must be small", expected="0 to 0.1", found=self.strain)
        for what, least in (("walks", 4), ("steps", 1), ("frames", 10), ("strides", 10), ("seed", 1)):
            count = getattr(self, what)
            if count is not None and count < least:
                raise EquistrideError(f"the number of {what} is too small", expected=f"{least} or more", found=count)

    @property
    def temperature(self) -> float:
        """Temperature [K] at which the student is validated."""
        return self.temperatures[0]

    @property
    def strides_through(self) -> bool:
        """Whether the student is a propagator."""
        return self.student == "trajcast"

    @property
    def strained(self) -> float:
        """Width of the strains of a quarter of the cells."""
        return self.strain if self.strain is not None else 0.0 if self.strides_through else STRAIN

    @property
    def budget(self) -> float:
        """Seconds in which what is not told is fitted."""
        return self.budget_s or BUDGET_S

    def step_fs(self, symbols: list[str]) -> float:
        """Return the time step [fs] of the teacher's dynamics."""
        return self.timestep_fs or (0.5 if "H" in symbols else 1.0)
