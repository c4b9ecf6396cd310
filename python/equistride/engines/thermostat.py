"""The settings of a propagator's thermostat, checked."""

from __future__ import annotations

import math
from typing import Literal

from equistride.errors import EquistrideError

FRICTION_STRIDES = 15.0
"""1 / friction of ``langevin+csvr`` in strides, where nothing else is asked for; as in csrc/propagation/thermostat.h."""
THERMOSTATS = ("langevin+csvr", "langevin", "csvr", None)
Thermostat = Literal["langevin+csvr", "langevin", "csvr"]


def relaxation_times(
    thermostat: str | None, stride: float, tau: float | None, friction: float | None
) -> tuple[str, float, float]:
    """Return the native library's name of a thermostat, its relaxation time, and that of the rescaling beside friction.

    Parameters
    ----------
    thermostat
        ``csvr``, ``langevin``, ``langevin+csvr`` or None.
    stride, tau
        Times in any one unit; ``tau`` of None is half a stride of ``langevin+csvr`` and 2.5 strides of the others. Of
        ``langevin`` alone it is 1 / friction.
    friction
        1 / time; of ``langevin+csvr`` 1 / (15 strides) by default.

    Raises
    ------
    EquistrideError
        For an unknown thermostat, times of 0 or less, and for both of ``langevin``'s.
    """
    if thermostat not in THERMOSTATS:
        raise EquistrideError(
            "the thermostat is not known", expected="csvr, langevin, langevin+csvr or None", found=thermostat
        )
    if thermostat is None and (tau is not None or friction is not None):
        raise EquistrideError("tau and friction need a thermostat", found="thermostat=None", hint="leave them out")
    if thermostat == "langevin" and tau is not None and friction is not None:
        raise EquistrideError(
            "tau and friction cannot both be given, friction is 1 / tau",
            expected="one of them",
            found="both",
            hint="leave one out",
        )
    if friction is not None and thermostat == "csvr":
        raise EquistrideError(
            "the thermostat csvr takes tau, not friction", expected="tau", found=f"friction={friction}", hint="give tau"
        )
    for name, value in (("tau", tau), ("friction", friction)):
        if value is not None and not 0 < value < math.inf:
            raise EquistrideError(f"{name} must be above 0", found=value)
    if thermostat == "langevin+csvr":
        # strong rescaling: a network loses up to a per cent of the kinetic energy in a stride
        slow = FRICTION_STRIDES * stride if friction is None else 1.0 / friction
        return thermostat, slow, 0.5 * stride if tau is None else tau
    short = 2.5 * stride if tau is None else tau
    return thermostat or "none", 1.0 / friction if friction is not None else short, 0.0
