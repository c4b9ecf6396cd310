"""Ethanol under a small force field of our own, to be mixed with a model: topology, positions, System."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from openmm import app, unit

from equistride.engines.openmm import Harvester

ELEMENTS = "CCOHHHHHH"
BONDS = [(0, 1), (1, 2), (0, 3), (0, 4), (0, 5), (1, 6), (1, 7), (2, 8)]
ETHANOL = np.array([[-1.21, -0.23, 0.0], [0.05, 0.61, 0.0], [1.19, -0.24, 0.0], [-2.09, 0.42, 0.0], [-1.24, -0.86, 0.89],
                    [-1.24, -0.86, -0.89], [0.08, 1.25, 0.89], [0.08, 1.25, -0.89], [1.97, 0.33, 0.0]])  # fmt: skip
"""A."""
METHANOL = [1, 2, 6, 7, 8]
"""CH2OH: the region of which a link atom takes the place of the methyl group."""
CHARGES = [-0.18, 0.145, -0.683, 0.06, 0.06, 0.06, 0.06, 0.06, 0.418]
SPREAD = np.array([5.5, 5.0, 4.5])
"""A, from one molecule to the next."""
GROUP = 5
"""Force group of the model in :func:`mixed`."""


def ethanols(count: int = 1, box: float | None = None) -> tuple[app.Topology, np.ndarray]:
    """Return the topology of some molecules, in a cube [A] or without, and positions [n, 3] A."""
    topology = app.Topology()
    for _ in range(count):
        residue = topology.addResidue("EOH", topology.addChain())
        atoms = [topology.addAtom(f"{e}{k}", app.Element.getBySymbol(e), residue) for k, e in enumerate(ELEMENTS)]
        for first, second in BONDS:
            topology.addBond(atoms[first], atoms[second])
    if box is not None:
        topology.setPeriodicBoxVectors(np.eye(3) * box / 10 * unit.nanometer)
    return topology, np.concatenate([ETHANOL + k * SPREAD for k in range(count)])


def force_field(topology: app.Topology, *, constrain: bool = False) -> openmm.System:
    """Return a System with bonds, angles, torsions and pairs of the topology; bonds of hydrogen constrained if wanted."""
    system = openmm.System()
    box = topology.getPeriodicBoxVectors()
    if box is not None:
        system.setDefaultPeriodicBoxVectors(*box)
    bonds, angles, torsions = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce(), openmm.PeriodicTorsionForce()
    pairs = openmm.NonbondedForce()
    for atom in topology.atoms():
        system.addParticle(atom.element.mass)
        pairs.addParticle(CHARGES[atom.index % 9], 0.3, 0.3 if atom.element.symbol != "H" else 0.1)
    joined = [(bond.atom1.index, bond.atom2.index) for bond in topology.bonds()]
    partners: dict[int, set[int]] = {}
    for first, second in joined:
        light = "H" in (ELEMENTS[first % 9], ELEMENTS[second % 9])
        if constrain and light:
            system.addConstraint(first, second, 0.1)
        else:
            bonds.addBond(first, second, 0.11 if light else 0.15, 2.5e5)
        partners.setdefault(first, set()).add(second)
        partners.setdefault(second, set()).add(first)
    for middle, around in partners.items():
        for first, second in itertools.combinations(sorted(around), 2):
            angles.addAngle(first, middle, second, 1.9, 300.0)
    for first, second in joined:
        for before, after in itertools.product(partners[first] - {second}, partners[second] - {first}):
            torsions.addTorsion(before, first, second, after, 3, 0.0, 0.7)
    pairs.createExceptionsFromBonds(joined, 0.8, 0.5)
    if box is not None:
        pairs.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
        pairs.setCutoffDistance(0.9)
    for force in (bonds, angles, torsions, pairs):
        system.addForce(force)
    return system


def with_caps(system: openmm.System, positions: np.ndarray, platform: str = "Reference") -> openmm.Context:
    """Return a Context of a mixed System at positions [n, 3] A of the atoms; link atoms are put in their places."""
    made = openmm.Context(system, openmm.VerletIntegrator(0.0005), openmm.Platform.getPlatformByName(platform))
    place(made, positions)
    return made


def place(context: openmm.Context, positions: np.ndarray) -> None:
    """Set positions [n, 3] A of the atoms, and with them those of link atoms."""
    missing = context.getSystem().getNumParticles() - len(positions)
    context.setPositions(np.concatenate([positions, np.zeros((missing, 3))]) / 10)
    context.computeVirtualSites()


def mixed(artifact: Path, region: Any, *, constrain: bool = False, **options: Any) -> openmm.System:
    """A System of one ethanol in which the model's force is in GROUP."""
    from openmmml import MLPotential  # not where the rest of this file is used alone

    topology, _ = ethanols()
    return MLPotential("equistride", modelPath=artifact).createMixedSystem(
        topology, force_field(topology, constrain=constrain), region, forceGroup=GROUP, **options
    )


def harvest(system: openmm.System, topology: app.Topology, watch: Harvester) -> None:
    count = topology.getNumAtoms()
    platform = openmm.Platform.getPlatformByName("Reference")
    run = app.Simulation(topology, system, openmm.VerletIntegrator(1e-4), platform)
    place(run.context, np.concatenate([ETHANOL + k * SPREAD for k in range(count // 9)]))
    run.reporters.append(watch)
    run.step(1)
