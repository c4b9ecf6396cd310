"""Released propagators in tests: errors of a stride on the teacher's motion, and strides in OpenMM."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from ase import Atoms
from openmm import unit

from equistride.artifact import Model
from equistride.data.frames import Frames
from equistride.data.molecules import build, same_bonds
from equistride.data.pairs import chains
from equistride.engines.openmm import TrajCastIntegrator, create_system
from equistride.engines.openmm_structure import topology_from_ase


def percents(model: Model, frames: Frames) -> tuple[float, float]:
    """Return the mean absolute errors of displacement and velocity over one stride, in per cent of their rms."""
    species = model.species_index(frames.numbers.tolist())
    first = chains(frames, model.metadata.stride_fs, 1)
    assert frames.velocities is not None
    box = [(frames.cell[k], True) if frames.pbc.all() else () for k in first]
    found = [
        model.propagate(frames.positions[k], frames.velocities[k], species, *cell)
        for k, cell in zip(first, box, strict=True)
    ]
    moved, after = frames.positions[first + 1] - frames.positions[first], frames.velocities[first + 1]
    displacement = np.stack([f.displacements.numpy() for f in found]) - moved
    velocity = np.stack([f.velocities.numpy() for f in found]) - after
    relative = lambda error, target: 100.0 * float(np.abs(error).mean() / np.sqrt((target**2).mean()))  # noqa: E731
    return relative(displacement, moved), relative(velocity, after)


def momenta_changed(model: Model, frames: Frames) -> tuple[float, float]:
    """Return by how much a stride changes momentum and angular momentum of a free molecule that also drifts, as shares of what
    its thermal motion could have."""
    assert frames.velocities is not None
    assert frames.masses is not None
    x, v, mass = frames.positions[0], frames.velocities[0] + np.array([1e-3, 0.0, -2e-3]), frames.masses[:, None]
    out = model.propagate(x, v, model.species_index(frames.numbers.tolist()))
    after, speeds = x + out.displacements.numpy(), out.velocities.numpy()
    thermal = np.sqrt((mass * v**2).sum() * mass.sum())
    moved = np.abs((mass * (speeds - v)).sum(0)).max()
    turned = np.abs(np.cross(after, mass * speeds).sum(0) - np.cross(x, mass * v).sum(0)).max()
    return moved / thermal, turned / (thermal * np.abs(x - x.mean(0)).max())


def looks(path: Path, atoms: Atoms, count: int, temperature: float = 300.0) -> Iterator[Any]:
    """Yield States with energies and positions, each ten strides after the last, from velocities at a temperature [K]."""
    topology, positions = topology_from_ase(atoms)
    integrator = TrajCastIntegrator(path, topology, temperature=temperature * unit.kelvin, seed=2)
    context = openmm.Context(create_system(path, topology), integrator)
    context.setPositions(positions)
    context.setVelocitiesToTemperature(temperature * unit.kelvin, 2)
    for _ in range(count):
        integrator.step(10)
        yield context.getState(energy=True, positions=True)


def temperature_of_the_whole(path: Path, smiles: str) -> float:
    """Let a free molecule make 1,000 strides from 300 K, see that its bonds stay whole, and return its temperature [K] after the
    first hundred; it neither drifts nor turns, which leaves 3 N - 6 degrees of freedom."""
    molecule = build(smiles, np.random.default_rng(3))
    kinetic = []
    for state in looks(path, Atoms(molecule.numbers, molecule.positions), 100):
        kinetic.append(state.getKineticEnergy()._value)
        assert same_bonds(molecule, state.getPositions(asNumpy=True)._value * 10)
    freedom = 3 * len(molecule.numbers) - 6
    return float(2 * np.mean(kinetic[10:]) / (freedom * unit.MOLAR_GAS_CONSTANT_R._value * 1e-3))
