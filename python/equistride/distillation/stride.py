"""The stride of a propagator: how long it may be beside the fastest vibration, read from the teacher's velocity spectrum."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from equistride.errors import EquistrideError
from equistride.series import block_means
from equistride.trajectories.msd import unwrapped
from equistride.trajectories.trajectory import Trajectory
from equistride.trajectories.vdos import vibrational_density

GOOD = {False: 0.75, True: 0.5}
"""Stride in periods of the fastest vibration that is chosen, for what stays in place and for a liquid: paracetamol at 7 fs and
water at 5 fs of arXiv 2503.23794 are 0.7 and 0.5."""
MOST = {False: 1.25, True: 0.8}
"""Beyond it a stride is refused: quartz at 30 fs is 1.1; water at 15 fs, 1.6, was never stable there."""
LONGEST_FS = 30.0
"""The longest stride that is chosen: that of the slowest system which was shown to hold."""
SEEN = 0.02
"""Share of an element's highest peak above which there is a vibration."""
WANDERS = 0.25
"""Share of the spacing of an element's atoms which all elements of a liquid move in the run, and at least one of a solid not."""


@dataclass(frozen=True)
class Motion:
    """What a run of the teacher tells of its motion.

    Attributes
    ----------
    fastest
        Frequency of the fastest vibration [THz].
    element
        Element that has it.
    liquid
        Whether atoms of all elements leave their places.
    moved
        Rms displacement over half of the run, of the element that moves least, as a share of the spacing of its atoms; 0
        without a box.
    """

    fastest: float
    element: str
    liquid: bool
    moved: float

    @property
    def period_fs(self) -> float:
        """Period of the fastest vibration [fs]."""
        return 1000.0 / self.fastest

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def motion_of(run: Trajectory) -> Motion:
    """Read the fastest vibration, and whether the system is a liquid, from an NVE run that is sampled finely."""
    spectrum = vibrational_density(run)
    fastest, element = 0.0, run.elements[0]
    for symbol, density in spectrum.by_element.items():
        highest = float(spectrum.frequency[density > SEEN * density.max()].max())
        if highest > fastest:
            fastest, element = highest, symbol
    moved = _wandering(run) if run.periodic else 0.0
    return Motion(fastest, element, moved > WANDERS, moved)


def _wandering(run: Trajectory) -> float:
    """Return the distance between the mean places of the first and the last quarter, as :class:`Motion` has it."""
    path = unwrapped(run)
    path = path - np.einsum("n,fni->fi", run.masses, path)[:, None] / run.masses.sum()
    quarters = block_means(path, len(path) // 4)
    far = np.linalg.norm(quarters[-1] - quarters[0], axis=1)
    volume = abs(float(np.linalg.det(run.cells[0])))
    shares = []
    for element in run.elements:
        chosen = run.indices(element)
        spacing = (volume / len(chosen)) ** (1 / 3)
        shares.append(float(np.sqrt((far[chosen] ** 2).mean())) / spacing)
    return min(shares)


def choose(motion: Motion, timestep_fs: float, wanted: float | None = None) -> tuple[float, str]:
    """Return the stride [fs], a whole number of time steps, and why it is that.

    Parameters
    ----------
    motion
        Of the teacher.
    timestep_fs
        Of its dynamics.
    wanted
        The stride that is asked for; None: the best by the spectrum.

    Raises
    ------
    EquistrideError
        Where the stride is too long for the fastest vibration, or no whole number of time steps.
    """
    kind = "liquid" if motion.liquid else "system whose atoms keep their places"
    vibration = f"the fastest vibration, {motion.fastest:.3g} THz of {motion.element}, has a period of {motion.period_fs:.3g} fs"
    most = MOST[motion.liquid] * motion.period_fs
    if wanted is None:
        best = min(GOOD[motion.liquid] * motion.period_fs, LONGEST_FS)
        stride = max(1, math.floor(round(best) / timestep_fs + 1e-9)) * timestep_fs
        capped = f"; longer than {LONGEST_FS:g} fs is not tried unasked" if best == LONGEST_FS else ""
        return stride, f"{vibration}; of a {kind} a stride takes {GOOD[motion.liquid]:g} of it at best{capped}"
    steps = wanted / timestep_fs
    if round(steps) < 1 or abs(steps - round(steps)) > 1e-6 * steps:
        raise EquistrideError(
            "the stride must be a whole number of the teacher's time steps", expected=f"a multiple of {timestep_fs:g} fs",
            found=f"{wanted:g} fs", hint="choose another stride or --timestep",
        )  # fmt: skip
    if wanted > most:
        raise EquistrideError(
            f"a stride of {wanted:g} fs is too long: {vibration}, and no network was shown to hold a {kind} for more than "
            f"{MOST[motion.liquid]:g} of it",
            expected=f"{most:.3g} fs or less", found=f"{wanted:g} fs", hint="leave --stride to auto",
        )  # fmt: skip
    return wanted, f"asked for; {vibration}"
