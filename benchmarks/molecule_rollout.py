"""A long roll-out of a molecule's propagator in OpenMM, beside frames of its teacher at the same temperature.

    equistride data molecule CCO --stride-fs 7 -o data/ethanol-300.npz --walks 12
    python benchmarks/molecule_rollout.py models/ethanol-trajcast-7fs/ethanol-trajcast-7fs.pt CCO data/ethanol-300.npz

Temperature and equipartition, mean and spread of the bonds and angles of each kind, distributions of torsions, and whether all
bonds are whole. Spreads of bonds tell the temperature of fast vibrations, those of angles that of slow ones.
"""

from __future__ import annotations

import argparse
import os
import time
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from machine import processor, publish
from numpy.typing import NDArray
from striding import frame_of, strider

from equistride.data.frames import load
from equistride.data.molecules import Molecule, build, same_bonds
from equistride.series import block_average
from equistride.trajectories.temperature import equipartition, kinetic_temperature
from equistride.trajectories.trajectory import Trajectory
from equistride.units import FS_PER_PS

Array = NDArray[np.float64]


BINS = np.arange(-180.0, 181.0, 10.0)
"""Of torsions, degrees."""


def partners_of(molecule: Molecule) -> dict[int, list[int]]:
    """The atoms bonded to each."""
    partners: dict[int, list[int]] = {}
    for i, j in molecule.bonds.tolist():
        partners.setdefault(i, []).append(j)
        partners.setdefault(j, []).append(i)
    return partners


def torsions(molecule: Molecule, positions: Array) -> dict[str, Array]:
    """Torsions [degrees] by the elements along them: [frames, how many]. A molecule and its image have opposite ones."""
    symbols, partners = Atoms(molecule.numbers).get_chemical_symbols(), partners_of(molecule)
    found: dict[str, list[Array]] = {}
    for j, k in molecule.bonds.tolist():
        for i, m in product(partners[j], partners[k]):
            if i in (k, m) or m == j:
                continue
            axis = positions[:, k] - positions[:, j]
            axis /= np.linalg.norm(axis, axis=1, keepdims=True)
            first, last = (
                np.cross(positions[:, i] - positions[:, j], axis),
                np.cross(positions[:, m] - positions[:, k], axis),
            )
            sine = (np.cross(first, last) * axis).sum(1)
            along = [symbols[a] for a in (i, j, k, m)]
            name = "-".join(min(along, along[::-1]))
            found.setdefault(name, []).append(np.degrees(np.arctan2(sine, (first * last).sum(1))))
    return {name: np.stack(values, 1) for name, values in found.items()}


def apart(a: Array, b: Array) -> float:
    """How far distributions of torsions are apart, of both signs alike: 0 to 100 %."""
    shares = [np.histogram(np.concatenate([t, -t]), BINS)[0] / (2 * t.size) for t in (a, b)]
    return float(50 * np.abs(shares[0] - shares[1]).sum())


def internal_coordinates(molecule: Molecule, positions: Array) -> dict[str, Array]:
    """Lengths [A] of the bonds and sizes [degrees] of the angles, by the elements along them: [frames, how many]."""
    symbols, partners = Atoms(molecule.numbers).get_chemical_symbols(), partners_of(molecule)
    found: dict[str, list[Array]] = {}
    for i, j in molecule.bonds.tolist():
        name = "-".join(sorted((symbols[i], symbols[j])))
        found.setdefault(name, []).append(np.linalg.norm(positions[:, j] - positions[:, i], axis=1))
    for middle, ends in sorted(partners.items()):
        for i, j in combinations(ends, 2):
            a, b = positions[:, i] - positions[:, middle], positions[:, j] - positions[:, middle]
            cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
            first, last = sorted((symbols[i], symbols[j]))
            found.setdefault(f"{first}-{symbols[middle]}-{last}", []).append(np.degrees(np.arccos(cosine)))
    return {name: np.stack(values, 1) for name, values in found.items()}


def rollout(arguments: argparse.Namespace, molecule: Molecule, start: Array) -> tuple[Trajectory, float]:
    """Strides in OpenMM; the trajectory and the CPU seconds of a stride."""
    atoms = Atoms(molecule.numbers, start)
    context = strider(arguments.model, atoms, arguments.temperature, arguments.seed)
    integrator = context.getIntegrator()
    shots, spent = [], 0.0
    for stride in range(arguments.strides):
        begin = time.process_time()
        integrator.step(1)
        spent += time.process_time() - begin
        if stride >= arguments.settle and stride % arguments.every == 0:
            shots.append(frame_of(context))
    x, v = zip(*shots, strict=True)
    stride_fs = integrator.getStepSize()._value * FS_PER_PS
    return Trajectory(
        positions=np.stack(x), velocities=np.stack(v), symbols=tuple(atoms.get_chemical_symbols()),
        time=stride_fs * arguments.every * np.arange(len(x)), cell=np.zeros((3, 3)), name="roll-out",
    ), spent / arguments.strides  # fmt: skip


def main() -> None:
    """Run and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("smiles", help="the molecule's bonds, without hydrogen")
    parser.add_argument("reference", type=Path, help="npz of the teacher at the same temperature")
    parser.add_argument("--temperature", type=float, default=300.0, help="K")
    parser.add_argument("--strides", type=int, default=10_000)
    parser.add_argument("--settle", type=int, default=200)
    parser.add_argument("--every", type=int, default=1, help="strides from the one frame that is kept to the next")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    molecule = build(arguments.smiles, np.random.default_rng(0))
    taught = load(arguments.reference)[0]
    moved, cost = rollout(arguments, molecule, taught.positions[0])
    shared, whole = equipartition(moved), kinetic_temperature(moved)
    own, wanted = (internal_coordinates(molecule, np.asarray(f.positions)) for f in (moved, taught))
    turned, known = (torsions(molecule, np.asarray(f.positions)) for f in (moved, taught))
    half = len(taught.positions) // 2
    result: dict[str, Any] = {
        "machine": processor(),
        "load": os.getloadavg()[0],
        "strides": arguments.strides,
        "cpu_seconds_a_stride": cost,
        "bonds_whole": all(same_bonds(molecule, r) for r in moved.positions[::10]),
        "temperature_K": [whole.value, whole.error],
        "temperature_of_elements_K": {e: [t.value, t.error] for e, t in shared.temperature.items()},
        "teacher_temperature_K": None if taught.temperature_K is None else float(taught.temperature_K.mean()),
        "coordinates": {
            name: {
                "mean": float(own[name].mean()),
                "error": float(block_average(own[name].mean(1)).error),
                "spread": float(own[name].std()),
                "teacher_mean": float(wanted[name].mean()),
                "teacher_spread": float(wanted[name].std()),
            }
            for name in own
        },
        "torsions_apart_percent": {
            name: {"roll-out": apart(turned[name], known[name]), "teacher's halves": apart(t[:half], t[half:])}
            for name, t in known.items()
        },
    }
    publish(result, arguments.json)


if __name__ == "__main__":
    main()
