"""Named stretches of a run (NVT, then NVE) with temperature and energies against time."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from equistride.errors import EquistrideError, reading, tell
from equistride.series import Floats, check_series
from equistride.trajectories.trajectory import Trajectory
from equistride.units import EV_PER_KJ_MOL, FS_PER_PS


@dataclass(frozen=True)
class Segment:
    """One stretch of a run in one ensemble.

    Attributes
    ----------
    name
        Such as "equilibration" or "production".
    time
        [n] fs.
    ensemble
        "NVE", "NVT", "NPT" or "" where unknown; the drift is taken on NVE.
    temperature
        [n] K, or None.
    potential, kinetic, total
        [n] eV, or None. A missing total is the sum of the others where both are there.
    step
        [n] step numbers, or None.
    speed
        Typical speed [ns/day], or None.

    Raises
    ------
    EquistrideError
        For empty or unequal series, or NaN.
    """

    name: str
    time: Floats
    ensemble: str = ""
    temperature: Floats | None = None
    potential: Floats | None = None
    kinetic: Floats | None = None
    total: Floats | None = None
    step: Floats | None = None
    speed: float | None = None

    def __post_init__(self) -> None:
        time = check_series(self.time, f"segment {self.name}: time", minimum=1)
        object.__setattr__(self, "time", time)
        object.__setattr__(self, "ensemble", self.ensemble.upper())
        if self.total is None and self.potential is not None and self.kinetic is not None:
            object.__setattr__(self, "total", np.asarray(self.potential) + np.asarray(self.kinetic))
        for key in ("temperature", "potential", "kinetic", "total", "step"):
            value = getattr(self, key)
            if value is not None:
                label = f"segment {self.name}: {key}"
                object.__setattr__(self, key, check_series(value, label, minimum=1, shape=(len(time),)))

    @property
    def span(self) -> float:
        """Length [ps]."""
        return float(self.time[-1] - self.time[0]) / FS_PER_PS

    def cut(self, start: float, stop: float) -> Segment:
        """The samples with start <= time < stop [fs]."""
        keep = (self.time >= start) & (self.time < stop)
        pick = lambda x: None if x is None else x[keep]  # noqa: E731
        return Segment(
            self.name,
            self.time[keep],
            self.ensemble,
            pick(self.temperature),
            pick(self.potential),
            pick(self.kinetic),
            pick(self.total),
            pick(self.step),
            self.speed,
        )


_COLUMNS = {
    "Step": ("step", 1.0),
    "Time (ps)": ("time", FS_PER_PS),
    "Potential Energy (kJ/mole)": ("potential", EV_PER_KJ_MOL),
    "Kinetic Energy (kJ/mole)": ("kinetic", EV_PER_KJ_MOL),
    "Total Energy (kJ/mole)": ("total", EV_PER_KJ_MOL),
    "Temperature (K)": ("temperature", 1.0),
    "Speed (ns/day)": ("speed", 1.0),
}


def read_state_csv(path: str | Path, *, name: str | None = None, ensemble: str = "") -> Segment:
    """Read what OpenMM's StateDataReporter writes, whatever its separator.

    Parameters
    ----------
    path
        The file. It needs the column "Time (ps)".
    name
        Name of the segment; the file's name otherwise.
    ensemble
        "NVE", "NVT" or "NPT".

    Returns
    -------
    Segment
        In fs, eV and K; its speed is the median of the speeds written.
    """
    file = Path(path)
    if not file.is_file():
        raise EquistrideError(f"there is no file {file}", hint="check the path")
    with reading(file.name, "a state-data table"):
        return _state_table(file, name, ensemble)


def _state_table(file: Path, name: str | None, ensemble: str) -> Segment:
    try:
        lines = [line for line in file.read_text().splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise EquistrideError(
            f"{file.name} is not text", expected="a table of StateDataReporter", hint="give the log, not the trajectory"
        ) from None
    if not lines or "Time (ps)" not in lines[0]:
        raise EquistrideError(
            f"{file.name} is not a state-data table",
            expected='a first line with "Time (ps)"',
            found=lines[0][:60] if lines else "an empty file",
            hint="make the reporter with StateDataReporter(..., time=True)",
        )
    between = lines[0].split('"')[2:3]
    separator = "\t" if "\t" in lines[0] else ("," if "," in lines[0] else (between or [","])[0] or ",")
    header = [
        field.strip().lstrip("#").strip('"') for field in next(csv.reader([lines[0].lstrip("#")], delimiter=separator))
    ]
    rows = []
    for number, fields in enumerate(csv.reader(lines[1:], delimiter=separator), start=2):
        if fields[0].startswith("#"):
            continue
        if len(fields) != len(header):
            if number == len(lines):
                tell(f"{file.name} breaks off in its last line, which is not read")
                continue
            raise EquistrideError(
                f"{file.name}, line {number} is broken",
                expected=f"{len(header)} fields",
                found=len(fields),
                hint="remove that line",
            )
        rows.append(fields)
    values: dict[str, Floats] = {}
    for k, title in enumerate(header):
        if title in _COLUMNS:
            key, factor = _COLUMNS[title]
            try:
                values[key] = np.array([np.nan if r[k] == "--" else float(r[k]) for r in rows]) * factor
            except ValueError as error:
                raise EquistrideError(
                    f'{file.name}: column "{title}" must hold numbers',
                    found=str(error),
                    hint="look at the file",
                ) from error
    if (np.diff(values["time"]) <= 0).any():
        raise EquistrideError(
            f"the times of {file.name} do not grow",
            expected="one uninterrupted run",
            found=f"{values['time'][int(np.argmax(np.diff(values['time']) <= 0)) + 1] / FS_PER_PS:g} ps a second time",
            hint="give each stretch of the run a file of its own",
        )
    speeds = values.pop("speed", np.zeros(0))
    speeds = speeds[np.isfinite(speeds)]
    return Segment(
        name=name or file.stem,
        ensemble=ensemble,
        speed=float(np.median(speeds)) if len(speeds) else None,
        **values,
    )


def segment_of(trajectory: Trajectory, *, name: str = "", ensemble: str = "") -> Segment | None:
    """Temperature and energies of a trajectory that is one piece, as far as it holds any; else None.

    The kinetic energy and the temperature come from the velocities (3N - 3 degrees of freedom where the
    momentum is zero).
    """
    from equistride.trajectories.temperature import kinetic_energy, kinetic_series

    if len(trajectory.pieces()) > 1 or (trajectory.velocities is None and trajectory.energies is None):
        return None
    moving = trajectory.velocities is not None
    temperature = kinetic_series(trajectory) if moving else trajectory.temperature
    return Segment(
        name=name or trajectory.name,
        time=trajectory.time,
        ensemble=ensemble,
        temperature=temperature,
        potential=trajectory.energies,
        kinetic=kinetic_energy(trajectory) if moving else None,
    )
