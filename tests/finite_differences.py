"""Derivatives of an energy by central differences of fourth order."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

Array = TypeVar("Array", np.ndarray, Tensor)


def derivative(value: Callable[[float], float], step: float) -> float:
    """Return dE/dh at 0."""
    return (8 * (value(step) - value(-step)) - (value(2 * step) - value(-2 * step))) / (12 * step)


def force_on(energy: Callable[[Array], float], positions: Array, atom: int, axis: int, step: float = 2e-4) -> float:
    """Return -dE/dx of a coordinate of ``positions`` [N, 3], in the energy's unit over that of the positions."""

    def moved(h: float) -> float:
        there = positions.clone() if isinstance(positions, Tensor) else positions.copy()
        there[atom, axis] += h
        return energy(there)

    return -derivative(moved, step)


def strain_derivative(
    energy: Callable[[Array, Array], float], positions: Array, cell: Array, a: int, b: int, step: float = 1e-4
) -> float:
    """Return dE/d(strain ab), with positions [N, 3] and cell [3, 3] both times 1 + strain."""

    def strained(h: float) -> float:
        strain = np.eye(3)
        strain[a, b] += h
        by = torch.tensor(strain) if isinstance(positions, Tensor) else strain
        return energy(positions @ by, cell @ by)

    return derivative(strained, step)
