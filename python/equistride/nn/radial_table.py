"""Frozen radial functions as splines, with a measured error."""

import math
from collections.abc import Callable
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from equistride.errors import EquistrideError

__all__ = ["QuinticTable", "RadialTable"]


class RadialTable(nn.Module):
    """A function of length with many values, as a cubic spline with evenly spaced knots (C2).

    Parameters
    ----------
    coefficients
        [K, columns]: B-spline coefficients of K - 3 intervals.
    start, step
        First knot and distance of the knots [A].
    error, slope_error
        Largest measured deviations of value and slope from the function, as shares of the largest |value| and
        |slope|.
    kink
        Where curvature may jump [A]: a knot at which a second spline begins, whose coefficients follow those of the first. In
        the table it begins three knots further, where the first one's coefficients end; see :meth:`place`.
    """

    coefficients: Tensor

    def __init__(
        self,
        coefficients: Tensor,
        start: float,
        step: float,
        error: float = math.nan,
        slope_error: float = math.nan,
        kink: float = math.inf,
    ) -> None:
        super().__init__()
        if coefficients.ndim != 2 or coefficients.size(0) < 4 or not (math.isfinite(start) and step > 0):
            raise EquistrideError(
                "the coefficients are not those of a spline",
                expected="[K >= 4, columns], a start and a step above 0",
                found=f"{list(coefficients.shape)}, {start}, {step}",
                hint="make the table with RadialTable.tabulate",
            )
        # row after row, as the kernels read it; a solver's columns would be copied in each step
        self.register_buffer("coefficients", coefficients.contiguous())
        self.start, self.step, self.error, self.slope_error = float(start), float(step), error, slope_error
        self.kink = float(kink)

    @property
    def stop(self) -> float:
        """The last knot [A]."""
        return self.start + self.step * (self.coefficients.size(0) - (3 if math.isinf(self.kink) else 6))

    def place(self, lengths: Tensor) -> Tensor:
        """Return where lengths [E] lie in the table [A]: those beyond the kink three knots further."""
        if math.isinf(self.kink):
            return lengths
        return lengths + (lengths >= self.kink).to(lengths.dtype) * (3.0 * self.step)

    @classmethod
    def tabulate(
        cls,
        function: Callable[[Tensor], Tensor],
        start: float,
        stop: float,
        *,
        tolerance: float = 1e-6,
        max_intervals: int = 4096,
        kink: float = math.inf,
    ) -> "RadialTable":
        """Tabulate a function to a measured error, with the fewest intervals among 32, 64, 128, ...

        Parameters
        ----------
        function
            Maps lengths [K] float64 to values [K, columns], differentiable; a row depends on its own length.
        start, stop
            Range of lengths [A]. Values and slopes at both ends are exact.
        tolerance
            Largest deviation from the function allowed, as a share of its largest magnitude, measured at
            eight points within every interval.
        kink
            Where the function's curvature jumps [A]; its slope does not.

        Raises
        ------
        EquistrideError
            Where `max_intervals` do not reach the tolerance.
        """

        def make(function: Callable[[Tensor], Tensor], start: float, stop: float, intervals: int) -> "RadialTable":
            return cls.interpolating(function, start, stop, intervals, kink)

        return fewest_intervals(make, function, start, stop, tolerance, max_intervals)

    @classmethod
    def interpolating(
        cls, function: Callable[[Tensor], Tensor], start: float, stop: float, intervals: int, kink: float = math.inf
    ) -> "RadialTable":
        """Return the table of so many intervals; other arguments as for :meth:`tabulate`.

        With a kink, a few more intervals make it a knot, and the table begins up to one of them before `start`.
        """
        if not start < kink < stop:
            return cls(_spline_coefficients(function, start, stop, intervals), start, (stop - start) / intervals)
        after = math.ceil((stop - kink) / ((stop - start) / intervals))
        step = (stop - kink) / after
        before = math.ceil((kink - start) / step)
        if kink - before * step <= 0:
            before -= 1
        start = kink - before * step
        parts = [_spline_coefficients(function, start, kink, before), _spline_coefficients(function, kink, stop, after)]
        return cls(torch.cat(parts), start, step, kink=kink)

    def forward(self, lengths: Tensor) -> Tensor:
        """Return the values [E, columns] at lengths [E] in A that lie within the table, in plain torch."""
        place = (self.place(lengths) - self.start) / self.step
        knot = place.detach().floor().clamp(0, self.coefficients.size(0) - 4)
        t = (place - knot)[:, None]
        u, row = 1 - t, knot.to(torch.int64)
        basis = [u**3 / 6, (4 + t * t * (3 * t - 6)) / 6, (4 + u * u * (3 * u - 6)) / 6, t**3 / 6]
        total = basis[0] * self.coefficients.index_select(0, row)
        for k in range(1, 4):
            total = total + basis[k] * self.coefficients.index_select(0, row + k)
        return total


class Table(Protocol):
    """A function of length that knows how far it is from the one that it stands for."""

    error: float
    slope_error: float

    def __call__(self, lengths: Tensor) -> Tensor:
        """Return [K, columns] for lengths [K]."""
        ...


T = TypeVar("T", bound=Table)


def fewest_intervals(
    make: Callable[[Callable[[Tensor], Tensor], float, float, int], T],
    function: Callable[[Tensor], Tensor],
    start: float,
    stop: float,
    tolerance: float,
    max_intervals: int,
) -> T:
    """Return ``make(function, start, stop, intervals)`` for the fewest intervals among 32, 64, 128, ... that reach a tolerance,
    with its errors.

    Arguments and errors as for :meth:`RadialTable.tabulate`.
    """
    if not 0 <= start < stop or not tolerance > 0:
        raise EquistrideError(
            "the range or the tolerance of a table is not valid",
            expected="0 <= start < stop and a tolerance above 0",
            found=(start, stop, tolerance),
            hint="give the shortest length that can occur, and the cutoff",
        )
    intervals, error = 32, math.inf
    while intervals <= max_intervals:
        table = make(function, start, stop, intervals)
        between = start + (stop - start) * (torch.arange(8 * intervals, dtype=torch.float64) + 0.5) / (8 * intervals)
        value, slope = _value_and_slope(function, between)
        found, found_slope = _value_and_slope(table, between)
        error = float((found - value).abs().max() / value.abs().max())
        if error <= tolerance:
            table.error = error
            table.slope_error = float((found_slope - slope).abs().max() / slope.abs().max())
            return table
        intervals *= 2
    raise EquistrideError(
        "the function is too rough for a table",
        expected=f"an error of at most {tolerance} with {max_intervals} intervals",
        found=error,
        hint="allow more intervals or a larger error, or start the table at a larger length",
    )


def _value_and_slope(function: Callable[[Tensor], Tensor], lengths: Tensor) -> tuple[Tensor, Tensor]:
    lengths = lengths.detach().requires_grad_()
    value = function(lengths)
    # The slope of every column at once: the gradient of a gradient with respect to its seed.
    seed = torch.zeros_like(value, requires_grad=True)
    (gradient,) = torch.autograd.grad(value, lengths, seed, create_graph=True)
    (slope,) = torch.autograd.grad(gradient, seed, torch.ones_like(gradient))
    return value.detach(), slope


class QuinticTable:
    """A function of length as polynomials of degree five between evenly spaced knots, where value, slope and curvature are
    the function's (C2). Its error falls with the sixth power of the step; arguments as for :meth:`RadialTable.interpolating`.

    ``powers`` [intervals, 6, columns]: coefficients of t^0 to t^5, t = 0 to 1 within an interval.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], start: float, stop: float, intervals: int) -> None:
        step = (stop - start) / intervals
        knots = torch.linspace(start, stop, intervals + 1, dtype=torch.float64)
        value, slope = _value_and_slope(function, knots)
        # by differences of slopes: torch's third derivative of a layer norm is wrong
        near = step / 32
        before2, before, after, after2 = (_value_and_slope(function, knots + k * near)[1] for k in (-2, -1, 1, 2))
        curvature = (8 * (after - before) - (after2 - before2)) / (12 * near)
        slope, curvature = slope * step, curvature * step**2
        rise, (s0, s1), (c0, c1) = value[1:] - value[:-1], (slope[:-1], slope[1:]), (curvature[:-1], curvature[1:])
        self.powers = torch.stack(
            [
                value[:-1],
                s0,
                c0 / 2,
                10 * rise - 6 * s0 - 4 * s1 - 1.5 * c0 + 0.5 * c1,
                -15 * rise + 8 * s0 + 7 * s1 + 1.5 * c0 - c1,
                6 * rise - 3 * s0 - 3 * s1 - 0.5 * c0 + 0.5 * c1,
            ],
            1,
        )
        self.start, self.step, self.error, self.slope_error = start, step, math.nan, math.nan

    def __call__(self, lengths: Tensor) -> Tensor:
        """Return the values [E, columns] at lengths [E] in A."""
        place = (lengths - self.start) / self.step
        knot = place.detach().floor().clamp(0, self.powers.size(0) - 1)
        t = (place - knot)[:, None]
        rows = self.powers.index_select(0, knot.to(torch.int64))
        total = rows[:, 5]
        for k in range(4, -1, -1):
            total = total * t + rows[:, k]
        return total


def _spline_coefficients(function: Callable[[Tensor], Tensor], start: float, stop: float, intervals: int) -> Tensor:
    """Interpolate at all knots, with the function's slopes at both ends."""
    step = (stop - start) / intervals
    knots = torch.linspace(start, stop, intervals + 1, dtype=torch.float64)
    value, _ = _value_and_slope(function, knots)
    _, slope = _value_and_slope(function, knots[[0, -1]])
    n = intervals + 3
    matrix = torch.zeros(n, n, dtype=torch.float64)
    row = torch.arange(1, n - 1)
    for offset, factor in ((-1, 1 / 6), (0, 4 / 6), (1, 1 / 6)):
        matrix[row, row + offset] = factor
    matrix[0, 0], matrix[0, 2] = -0.5, 0.5
    matrix[n - 1, n - 3], matrix[n - 1, n - 1] = -0.5, 0.5
    return torch.linalg.solve(matrix, torch.cat([slope[:1] * step, value, slope[1:] * step]))
