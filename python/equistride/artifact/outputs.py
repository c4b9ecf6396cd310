"""What a model is asked for, and what it gives."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor


class Frame(NamedTuple):
    """One configuration: positions [N, 3] A, species index [N], cell [3, 3] A (rows), pbc [3] or one flag."""

    positions: Any
    species: Any
    cell: Any = None
    pbc: Any = False


class Outputs(NamedTuple):
    """What a potential gives: atomic energies [N] eV (float64), forces [N, 3] eV/A, virial [3, 3] eV."""

    atomic_energies: Tensor
    forces: Tensor
    virial: Tensor


class BatchOutputs(NamedTuple):
    """Energies [B] eV (float64), atomic energies [N] eV, forces [N, 3] eV/A, virials [B, 3, 3] eV; N counts the atoms of all."""

    energies: Tensor
    atomic_energies: Tensor
    forces: Tensor
    virials: Tensor


class Stride(NamedTuple):
    """What a propagator gives: displacements [N, 3] A and new velocities [N, 3] A/fs."""

    displacements: Tensor
    velocities: Tensor
