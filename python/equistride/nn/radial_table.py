"""Frozen radial functions as splines, with a measured error."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from equistride.errors import EquistrideError

__all__ = ["RadialTable"]


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
    """

    coefficients: Tensor

    def __init__(
        self,
        coefficients: Tensor,
        start: float,
        step: float,
        error: float = math.nan,
        slope_error: float = math.nan,
    ) -> None:
        super().__init__()
        if coefficients.ndim != 2 or coefficients.size(0) < 4 or not (math.isfinite(start) and step > 0):
            raise EquistrideError(
                "the coefficients are no spline",
                expected="[K >= 4, columns], a start and a step above 0",
                found=f"{list(coefficients.shape)}, {start}, {step}",
                mend="make the table with RadialTable.tabulate",
            )
        self.register_buffer("coefficients", coefficients)
        self.start, self.step, self.error, self.slope_error = float(start), float(step), error, slope_error

    @property
    def stop(self) -> float:
        """The last knot [A]."""
        return self.start + self.step * (self.coefficients.size(0) - 3)

    @classmethod
    def tabulate(
        cls,
        function: Callable[[Tensor], Tensor],
        start: float,
        stop: float,
        *,
        tolerance: float = 1e-6,
        max_intervals: int = 4096,
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

        Raises
        ------
        EquistrideError
            Where `max_intervals` do not reach the tolerance.
        """
        if not 0 <= start < stop or not tolerance > 0:
            raise EquistrideError(
                "the range or the tolerance makes no table",
                expected="0 <= start < stop and a tolerance above 0",
                found=(start, stop, tolerance),
                mend="give the shortest length that can occur, and the cutoff",
            )
        intervals, error = 32, math.inf
        while intervals <= max_intervals:
            table = cls(_spline_coefficients(function, start, stop, intervals), start, (stop - start) / intervals)
            between = start + table.step * (torch.arange(8 * intervals, dtype=torch.float64) + 0.5) / 8
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
            mend="allow more intervals or a larger error, or start the table at a larger length",
        )

    def forward(self, lengths: Tensor) -> Tensor:
        """Return the values [E, columns] at lengths [E] in A that lie within the table, in plain torch."""
        place = (lengths - self.start) / self.step
        knot = place.detach().floor().clamp(0, self.coefficients.size(0) - 4)
        t = (place - knot)[:, None]
        u, row = 1 - t, knot.to(torch.int64)
        basis = [u**3 / 6, (4 + t * t * (3 * t - 6)) / 6, (4 + u * u * (3 * u - 6)) / 6, t**3 / 6]
        total = basis[0] * self.coefficients.index_select(0, row)
        for k in range(1, 4):
            total = total + basis[k] * self.coefficients.index_select(0, row + k)
        return total


def _value_and_slope(function: Callable[[Tensor], Tensor], lengths: Tensor) -> tuple[Tensor, Tensor]:
    lengths = lengths.detach().requires_grad_()
    value = function(lengths)
    # The slope of every column at once: the gradient of a gradient with respect to its seed.
    seed = torch.zeros_like(value, requires_grad=True)
    (gradient,) = torch.autograd.grad(value, lengths, seed, create_graph=True)
    (slope,) = torch.autograd.grad(gradient, seed, torch.ones_like(gradient))
    return value.detach(), slope


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
