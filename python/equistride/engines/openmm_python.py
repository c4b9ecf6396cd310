"""A model inside OpenMM's own PythonForce: it needs no compiler, and is the slowest way in."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import torch

from equistride import artifact
from equistride.engines.openmm_topology import check_constraints
from equistride.units import ANGSTROM_PER_NM, KJ_MOL_PER_EV

_ALIVE: weakref.WeakSet[Computation] = weakref.WeakSet()


def computation_of(force: openmm.PythonForce) -> Computation | None:
    """Return what a PythonForce of ours runs, which it does not tell itself; None for another's."""
    return next((found for found in _ALIVE if found.name == force.getName()), None)


def hold(name: str, system: openmm.System) -> None:
    """Have the force of this name look at the constraints of the System that it is in, which OpenMM does not show it."""
    for found in _ALIVE:
        if found.name == name and found.system is None:
            found.system = weakref.ref(system)


class Computation:
    """Energy [kJ/mol] and forces [kJ/mol/nm] of an ``openmm.State``, as ``openmm.PythonForce`` wants them.

    It pickles with the content of its artifact, so an XML file with it needs no other file.

    Parameters
    ----------
    content
        Content of the artifact file.
    symbols
        Element symbols of the particles that the force sees.
    periodic
        Whether the model sees the box.
    device, dtype, charge, spin
        As ``equistride.artifact.load`` takes them, the precision by its name.
    particles
        Indices of the particles that the force sees; none for all.
    """

    def __init__(
        self,
        content: bytes,
        symbols: list[str],
        periodic: bool,
        device: str = "cpu",
        dtype: str | None = None,
        charge: float | None = None,
        spin: float | None = None,
        particles: Sequence[int] = (),
    ) -> None:
        self._arguments = (content, symbols, periodic, device, dtype, charge, spin, particles)
        self.model = artifact.load(content, device=device, dtype=None if dtype is None else getattr(torch, dtype),
                                   charge=charge, spin=spin)  # fmt: skip
        self.symbols, self.particles, self.periodic = symbols, particles, periodic
        facts = repr(self._arguments[1:]).encode()
        self.name = f"EquistridePythonForce {hashlib.sha256(content + facts).hexdigest()[:16]}"
        _ALIVE.add(self)
        self.species = self.model.species_index(symbols)
        self.system: weakref.ref[openmm.System] | None = None
        self._constraints = 0  # that were looked at

    def __reduce__(self) -> tuple[Any, ...]:
        return Computation, self._arguments

    def _look(self) -> None:
        system = self.system() if self.system is not None else None
        if system is not None and system.getNumConstraints() != self._constraints:
            check_constraints(system, self.particles or range(system.getNumParticles()))
            self._constraints = system.getNumConstraints()

    def __call__(self, state: openmm.State) -> tuple[float, np.ndarray]:
        self._look()
        positions = state.getPositions(asNumpy=True)._value * ANGSTROM_PER_NM
        cell = np.zeros((3, 3))
        if self.periodic:
            cell = np.asarray(state.getPeriodicBoxVectors(asNumpy=True)._value) * ANGSTROM_PER_NM
        outputs = self.model.compute(positions, self.species, cell, np.full(3, self.periodic))
        energy = float(outputs.atomic_energies.double().sum()) * KJ_MOL_PER_EV
        forces = outputs.forces.double().cpu().numpy() * (KJ_MOL_PER_EV * ANGSTROM_PER_NM)
        return energy, forces


def python_force(
    path: Path, symbols: list[str], particles: list[int], periodic: bool, device: str, dtype: str | None,
    charge: float | None = None, spin: float | None = None,
) -> openmm.PythonForce:  # fmt: skip
    """Return a PythonForce that runs an artifact.

    Parameters
    ----------
    path
        The artifact.
    symbols, particles
        Element symbols and indices of the particles that the model sees; no indices for all.
    periodic
        Whether the model sees the box.
    device, dtype, charge, spin
        As ``equistride.artifact.load`` takes them.

    Raises
    ------
    EquistrideError
        As ``equistride.artifact.load``.
    """
    computation = Computation(path.read_bytes(), symbols, periodic, device, dtype, charge, spin, particles)
    force = openmm.PythonForce(computation, {}, particles)
    force.setName(computation.name)
    force.setUsesPeriodicBoundaryConditions(periodic)
    return force
