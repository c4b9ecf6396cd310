"""A model's molecule in water under a force field, in OpenMM's default environment: the step beside those of its parts.

    python benchmarks/mixed_system.py [--model FILE] [--waters 2937] [--seconds 5] [--json FILE]

An ethanol of nine atoms in TIP3P water with PME on the CPU platform: 8,820 atoms with the default 2,937 waters. It is under an
eSEN of 2 x 64 (5 A, random weights), or the model of an artifact, such as a UMA that was imported for ethanol. The parts are
water with ethanol's charges, and the model; nothing of OpenMP is in the environment. `over` is the step of the mixed System over
the sum of its parts' steps where each part has the caches for itself. In the mixed System neither has: a step of water leaves
nothing of the model's weights there. `over_in_turns` is the same beside a step of the one part and a step of the other by turns,
which is what a mixed System can hope for. `sum_of_parts` is how far the energy of the mixed System is from that of its parts, eV.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import openmm
from machine import processor, publish, without_openmp
from openmm import app, unit

ROUNDS = 15
SPACING = 0.3107
"""nm between waters on a grid: 1 g/cm^3."""
CHARGES = [0.145, -0.18, -0.683, 0.418, 0.06, 0.06, 0.06, 0.06, 0.06]
"""Of ethanol in ASE's order: C, C, O, H of the alcohol, then the others [e]."""
WATER = {"O": (-0.834, 0.315075, 0.635968), "H": (0.417, 0.1, 0.0)}
"""TIP3P: charge [e], sigma [nm], epsilon [kJ/mol]."""


def build(waters: int) -> tuple[app.Topology, np.ndarray, openmm.System]:
    """Return topology, positions [n, 3] nm and the force field's System of ethanol in a cube of water."""
    from ase.build import molecule

    from equistride.engines.openmm_structure import topology_from_ase

    ethanol, drop = molecule("CH3CH2OH"), molecule("H2O")
    side = int(np.ceil((waters + 8) ** (1 / 3)))
    grid = np.array(sorted(np.ndindex(side, side, side), key=lambda n: np.abs(np.array(n) - side // 2).max()))
    topology, _ = topology_from_ase(ethanol)
    topology.setPeriodicBoxVectors(np.eye(3) * side * SPACING * unit.nanometer)
    system, pairs = openmm.System(), openmm.NonbondedForce()
    system.setDefaultPeriodicBoxVectors(*topology.getPeriodicBoxVectors())
    pairs.setNonbondedMethod(openmm.NonbondedForce.PME)
    pairs.setCutoffDistance(0.9)
    places = [ethanol.positions / 10 - ethanol.positions.mean(0) / 10 + side // 2 * SPACING]
    for charge, mass in zip(CHARGES, ethanol.get_masses(), strict=True):
        system.addParticle(mass)
        pairs.addParticle(charge, 0.3, 0.2)
    for first, second in np.ndindex(9, 9):
        if first < second:
            pairs.addException(first, second, 0, 0.3, 0)
    chain = topology.addChain()
    for n in range(waters):
        residue, first = topology.addResidue("HOH", chain), system.getNumParticles()
        for symbol, mass in zip("OHH", drop.get_masses(), strict=True):
            topology.addAtom(symbol, app.Element.getBySymbol(symbol), residue)
            system.addParticle(mass)
            pairs.addParticle(*WATER[symbol])
        for one, other, length in ((0, 1, 0.09572), (0, 2, 0.09572), (1, 2, 0.15139)):
            system.addConstraint(first + one, first + other, length)
            pairs.addException(first + one, first + other, 0, 0.3, 0)
        places.append(drop.positions / 10 + grid[n + 8] * SPACING)  # the middle is ethanol's
    system.addForce(pairs)
    return topology, np.concatenate(places), system


def settled(field: openmm.System, positions: np.ndarray) -> np.ndarray:
    """Return positions [n, 3] nm of water at 300 K around an ethanol that keeps its place."""
    system = copy.deepcopy(field)
    for atom in range(9):
        system.setParticleMass(atom, 0)
    bath = openmm.LangevinMiddleIntegrator(300, 50, 0.0005)
    context = openmm.Context(system, bath, openmm.Platform.getPlatformByName("CPU"))
    context.setPositions(positions)
    openmm.LocalEnergyMinimizer.minimize(context, maxIterations=100)
    context.setVelocitiesToTemperature(300, 1)
    bath.step(500)
    return context.getState(getPositions=True).getPositions(asNumpy=True).value_in_unit(unit.nanometer)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="an artifact that takes ethanol")
    parser.add_argument("--waters", type=int, default=2937)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    from openmmml import MLPotential

    from equistride.artifact.export import save_potential
    from equistride.bench.models import POTENTIAL, random_potential
    from equistride.engines.openmm import create_system
    from equistride.units import EV_PER_KJ_MOL

    topology, positions, field = build(options.waters)
    with tempfile.TemporaryDirectory() as folder:
        path = options.model or Path(folder) / "ethanol.pt"
        if options.model is None:
            save_potential(
                random_potential(["H", "C", "O"], 5.0), POTENTIAL, path, dtype="float32", fused=True, provenance={}
            )
        alone = app.Topology()
        residue = alone.addResidue("EOH", alone.addChain())
        for atom in list(topology.atoms())[:9]:
            alone.addAtom(atom.name, atom.element, residue)
        systems = {
            "force field": field,
            "model": create_system(path, alone),
            "mixed": MLPotential("equistride", modelPath=path).createMixedSystem(topology, field, list(range(9))),
        }
        start = settled(field, positions)
        contexts = {}
        for name, system in systems.items():
            bath = openmm.LangevinMiddleIntegrator(300, 5, 0.0005)
            contexts[name] = openmm.Context(system, bath, openmm.Platform.getPlatformByName("CPU"))
    energies = {}
    for name, context in contexts.items():
        context.setPositions(start[: context.getSystem().getNumParticles()])
        energies[name] = context.getState(energy=True).getPotentialEnergy()._value * EV_PER_KJ_MOL
    times: dict[str, list[float]] = {name: [] for name in (*contexts, "in turns")}
    parts = [context for name, context in contexts.items() if name != "mixed"]
    for _ in range(ROUNDS):
        for name in times:
            turn = parts if name == "in turns" else [contexts[name]]
            steps = 1 if name == "in turns" else 5
            for context in turn:
                context.setPositions(start[: context.getSystem().getNumParticles()])
                context.setVelocitiesToTemperature(300, 1)
                context.getIntegrator().step(2)
            begun, done = time.perf_counter(), 0
            while time.perf_counter() - begun < options.seconds / ROUNDS:
                for context in turn:
                    context.getIntegrator().step(steps)
                done += steps
            times[name].append(1e3 * (time.perf_counter() - begun) / done)
    field_ms, model_ms, mixed_ms, turns_ms = map(statistics.median, times.values())
    figures = {name.replace(" ", "_") + "_ms": round(statistics.median(values), 3) for name, values in times.items()}
    figures |= {"over": round(mixed_ms / (field_ms + model_ms), 3), "over_in_turns": round(mixed_ms / turns_ms, 3)}
    figures["sum_of_parts"] = energies["mixed"] - energies["model"] - energies["force field"]
    publish({"machine": f"{processor()}, {os.cpu_count()} cores", "atoms": len(positions), **figures}, options.json)


if __name__ == "__main__":
    if (environment := without_openmp()) != dict(os.environ):
        os.execve(sys.executable, [sys.executable, *sys.argv], environment)
    main()
