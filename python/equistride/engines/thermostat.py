"""The settings of a propagator's thermostat, checked."""

from __future__ import annotations

import math

from equistride.errors import EquistrideError


def relaxation_time(
    thermostat: str | None, stride: float, tau: float | None, friction: float | None
) -> tuple[str, float]:
    """Return the native library's name of a thermostat and its relaxation time.

    Parameters
    ----------
    thermostat
        ``csvr``, ``langevin`` or None.
    stride, tau
        Times in any one unit; ``tau`` of None is 2.5 strides.
    friction
        1 / time, of ``langevin`` alone.

    Raises
    ------
    EquistrideError
        For an unknown thermostat, times of 0 or less, and for tau and friction together.
    """
    if thermostat not in ("csvr", "langevin", None):
        raise EquistrideError("the thermostat is not known", expected="csvr, langevin or None", found=thermostat)
    if thermostat is None and (tau is not None or friction is not None):
        raise EquistrideError(
            "tau and friction are those of a thermostat", found="thermostat=None", mend="leave them out"
        )
    if tau is not None and friction is not None:
        raise EquistrideError("friction is 1 / tau", expected="one of them", found="both", mend="leave one out")
    if friction is not None and thermostat == "csvr":
        raise EquistrideError("csvr has no friction", expected="tau", found=f"friction={friction}", mend="give tau")
    for name, value in (("tau", tau), ("friction", friction)):
        if value is not None and not 0 < value < math.inf:
            raise EquistrideError(f"{name} makes no sense", expected="more than 0", found=value)
    time = 2.5 * stride if tau is None else tau
    return thermostat or "none", 1.0 / friction if friction is not None else time
