"""A UMA or eSEN checkpoint of any size in every engine, in float64, beside what its artifact says itself.

    OMP_NUM_THREADS=1 python benchmarks/uma_engines.py CHECKPOINT [--dataset omat] [--ranks 1 2 4] [--json FILE]

Displaced quartz of 36 atoms below a vacuum: ASE, torch-sim, OpenMM, and LAMMPS on 1, 2 and 4 processes, the last of which has no
atom where there are several. For each the largest deviations are printed, of forces in eV/A and of atomic energies in eV; and
those of forces from central differences of the energy, for atoms beside the vacuum and inside. Random weights will do.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from in_engines import ROOT, in_openmm, in_torch_sim, lmp
from machine import processor

from equistride import artifact
from equistride.data.quartz import quartz
from equistride.engines.ase import EquistrideCalculator
from equistride.importers.fairchem import import_fairchem

sys.path.insert(0, str(ROOT / "tests"))
from finite_differences import force_on


def slab(processes: int) -> Atoms:
    """Return quartz in the lower part of a box that so many processes divide along z: the last has no atom."""
    atoms = quartz((2, 2, 1))
    atoms.rattle(0.05, seed=3)
    atoms.set_cell(atoms.cell.standard_form()[0], scale_atoms=True)
    atoms.wrap()
    atoms.positions[:, 2] -= atoms.positions[:, 2].min() - 0.1
    cell = atoms.cell.array
    if processes > 1:
        cell[2, 2] = (atoms.positions[:, 2].max() + 0.1) * processes / (processes - 1)
    atoms.set_cell(cell)
    return atoms


def deviations(path: Path, ranks: list[int], folder: Path) -> dict[str, float]:
    """Return the largest deviations of each engine."""
    model, found = artifact.load(path), {}
    for processes in ranks:
        atoms = slab(processes)
        system = (list(atoms.symbols), atoms.cell.array, True)
        whole = model.compute(atoms.positions, *system)
        forces, energies = whole.forces.numpy(), whole.atomic_energies.numpy()
        here = np.bincount((atoms.positions[:, 2] / atoms.cell[2, 2] * processes).astype(int), minlength=processes)
        lmp.TYPES[:] = sorted(set(atoms.symbols))
        head = lmp.head("equistride precision float64", f"* * {path} {' '.join(lmp.TYPES)}")
        step = lmp.run(atoms, f"processors 1 1 {processes}\n{head}{lmp.OUTPUT}run 0\n", folder, processes)
        name = f"LAMMPS, {' + '.join(map(str, here))} atoms"
        found[f"{name}, forces"] = float(np.abs(step.forces - forces).max())
        found[f"{name}, energies"] = float(np.abs(step.energies - energies).max())
        if processes != ranks[-1]:
            continue
        atoms.calc = EquistrideCalculator(path)
        found["ASE, forces"] = float(np.abs(atoms.get_forces() - forces).max())
        energy, others = in_openmm(path, atoms)
        found["OpenMM, energy"] = abs(energy - float(energies.sum()))
        found["OpenMM, forces"] = float(np.abs(others - forces).max())
        state = in_torch_sim(path, atoms)
        found["torch-sim, energy"] = abs(float(state["energy"].item()) - float(energies.sum()))
        found["torch-sim, forces"] = float(np.abs(state["forces"] - forces).max())
        order = atoms.positions[:, 2].argsort()
        differences = [
            force_on(lambda there, of=system: float(model.compute(there, *of).atomic_energies.sum()), atoms.positions, k, axis)
            - forces[k, axis]
            for k, axis in ((int(order[0]), 2), (int(order[18]), 0), (int(order[-1]), 1))
        ]  # fmt: skip
        found["differences of the energy, forces"] = float(np.abs(differences).max())
        found["largest force"] = float(np.abs(forces).max())
    return found


def main() -> None:
    """Print the table of one checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--dataset", default="omat")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4], help="processes of LAMMPS")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "uma.pt"
        facts = import_fairchem(
            options.checkpoint, path, dataset=options.dataset, composition=Counter(slab(1).symbols), dtype="float64"
        )
        result: dict[str, Any] = {
            "checkpoint": options.checkpoint.name, "sums over all atoms": facts.global_sums,
            "machine": processor(), **deviations(path, options.ranks, Path(name) / "lammps"),
        }  # fmt: skip
    for key, value in result.items():
        print(f"{key:>40}: {value:.1e}" if isinstance(value, float) else f"{key:>40}: {value}")
    if options.json:
        table = json.loads(options.json.read_text()) if options.json.is_file() else []
        options.json.write_text(json.dumps([*table, result], indent=1) + "\n")


if __name__ == "__main__":
    main()
