"""What a simulation does: ensemble, times, temperature; checked before anything runs."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from equistride.errors import EquistrideError
from equistride.units import FS_PER_PS

EngineName = Literal["openmm", "lammps", "ase"]
Ensemble = Literal["nve", "nvt", "npt", "minimise"]
Format = Literal["dcd", "xtc", "extxyz"]
UNITS = {"fs": 1.0, "ps": FS_PER_PS, "ns": 1e3 * FS_PER_PS, "us": 1e6 * FS_PER_PS}
"""Femtoseconds in a unit of time."""
FRICTION = 2.0
"""Of the Langevin baths [1/ps]."""


def quantity(text: str, units: Mapping[str, float], number: str = "[0-9.]+") -> float | None:
    """Return a number with a unit behind it, as ``10ps``, times what the unit is worth.

    Parameters
    ----------
    text
        What was given.
    units
        Their names, and what each is worth.
    number
        Pattern of the number.

    Returns
    -------
    float or None
        None for anything else, and for what is not above 0.
    """
    found = re.fullmatch(rf"\s*({number})\s*([a-z]+)\s*", text)
    try:
        value = float(found[1]) * units[found[2]] if found else 0.0
    except (ValueError, KeyError):
        value = 0.0
    return value if 0.0 < value < math.inf else None


def femtoseconds(text: str, name: str) -> float:
    """Read ``10ps``, ``0.5 ns`` or ``500 fs``.

    Raises
    ------
    EquistrideError
        For anything else, and for what is not above 0.
    """
    value = quantity(text, UNITS, "[0-9.eE+-]+")
    if value is None:
        raise EquistrideError(f"the {name} is not valid", expected="a number with fs, ps or ns, as 10ps", found=text)
    return value


@dataclass(frozen=True)
class Settings:
    """One simulation.

    Parameters
    ----------
    engine
        ``openmm``, ``lammps`` or ``ase``.
    ensemble
        ``nve``, ``nvt``, ``npt``, or ``minimise`` for the nearest minimum of the energy in the cell as it is.
    time_fs
        Simulated time; rounded to whole steps.
    timestep_fs
        Of a potential, 1 fs by default; of a propagator, a stride that it was trained for, the longest by default.
    every
        Steps between frames and lines of the table.
    temperature, pressure
        K and bar, of bath and barostat; velocities are drawn at that temperature.
    seed
        Of velocities and baths.
    trajectory
        ``dcd``, ``xtc`` (positions, rounded) or ``extxyz`` (velocities and energies too).
    precision, device
        Of the network: ``float32``, ``float64`` or None for the artifact's own; ``cpu``, ``cuda`` ...
    max_force
        Where a minimisation ends [eV/A].
    guard
        Artifact of a potential that watches over a propagator's strides, and by whose energy ``npt`` moves the box.

    Raises
    ------
    EquistrideError
        For a word that is not known, or a number that makes no sense.
    """

    engine: EngineName = "openmm"
    ensemble: Ensemble = "nvt"
    time_fs: float = 10_000.0
    timestep_fs: float | None = None
    every: int = 100
    temperature: float = 300.0
    pressure: float = 1.0
    seed: int = 1
    trajectory: Format = "dcd"
    precision: str | None = None
    device: str = "cpu"
    max_force: float = 0.01
    guard: str | None = None

    def __post_init__(self) -> None:
        for name, known in (("engine", EngineName), ("ensemble", Ensemble), ("trajectory", Format)):
            if getattr(self, name) not in get_args(known):
                raise EquistrideError(
                    f"the {name} is not known", expected=" or ".join(get_args(known)), found=getattr(self, name)
                )
        for name in ("time_fs", "timestep_fs", "temperature", "max_force"):
            value = getattr(self, name)
            if value is not None and not 0.0 < value < math.inf:
                raise EquistrideError(f"the {name.removesuffix('_fs')} must be above 0", found=value)
        for name in ("every", "seed"):
            if getattr(self, name) < 1:
                raise EquistrideError(f"{name} must be 1 or more", found=getattr(self, name))
        if not math.isfinite(self.pressure):
            raise EquistrideError("the pressure must be finite", found=self.pressure)

    @property
    def step_fs(self) -> float:
        """Time of one step [fs]."""
        return self.timestep_fs or 1.0

    @property
    def barostat_bar(self) -> float | None:
        """Pressure of the barostat [bar]; None without one."""
        return self.pressure if self.ensemble == "npt" else None

    @property
    def steps(self) -> int:
        """Steps in the simulated time."""
        return max(1, round(self.time_fs / self.step_fs))

    def differing(self, other: dict[str, Any]) -> list[str]:
        """Return the names of settings that differ from those of a checkpoint; a run may become longer, and files are known
        by what they hold."""
        free = ("time_fs", "guard")
        return [name for name, value in asdict(self).items() if name not in free and other.get(name) != value]
