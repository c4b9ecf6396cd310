"""Phonons of silicon, MgO and quartz with SevenNet-0, beside those by SevenNet's own ASE calculator.

    OMP_NUM_THREADS=1 python benchmarks/foreign_phonons.py --python PEER/bin/python [--dtype float32]

``PEER`` is an environment with sevenn, which never imports equistride: forces of the same displaced supercells go there and
back as arrays. The crystals are relaxed with the artifact in double precision; SevenNet's calculator computes in float32.
The table is written to benchmarks/results/foreign_phonons.json.
"""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk

RESULTS = Path(__file__).resolve().parent / "results" / "foreign_phonons.json"
THEIRS = """
import sys
import numpy as np
from ase import Atoms
from sevenn.calculator import SevenNetCalculator

cells, calculator, out = np.load(sys.argv[1]), SevenNetCalculator("7net-0", device="cpu"), []
for numbers, positions, cell in zip(cells["numbers"], cells["positions"], cells["cells"]):
    out.append(Atoms(numbers, positions, cell=cell, pbc=True, calculator=calculator).get_forces())
np.save(sys.argv[2], np.array(out))
"""


def crystals() -> dict[str, tuple[Atoms, tuple[int, int, int]]]:
    """Return each crystal with the repeats of its supercell."""
    from equistride.data.quartz import quartz

    return {
        "silicon": (bulk("Si", "diamond", 5.43, cubic=True), (2, 2, 2)),
        "MgO": (bulk("MgO", "rocksalt", 4.21, cubic=True), (2, 2, 2)),
        "quartz": (quartz(a=4.91, c=5.41), (3, 3, 2)),
    }


def their_forces(python: Path, images: list[Any]) -> np.ndarray:
    """Return forces [F, N, 3] in eV/A of phonopy's cells by SevenNet's calculator, in its own Python."""
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder) / "cells.npz", Path(folder) / "forces.npy"
        np.savez(
            given, numbers=[c.numbers for c in images], positions=[c.positions for c in images],
            cells=[c.cell for c in images],
        )  # fmt: skip
        subprocess.run([python, "-c", THEIRS, given, found], check=True)
        return np.asarray(np.load(found))


def compare(name: str, artifact: Path, dtype: str, python: Path, displacement: float) -> dict[str, Any]:
    """Return how the frequencies of one crystal differ [THz]."""
    from equistride.engines.ase import EquistrideCalculator
    from equistride.properties.phonons import Phonons, frequency_error, phonons
    from equistride.properties.relax import relax

    atoms, repeats = crystals()[name]
    calculator = EquistrideCalculator(artifact, dtype=dtype)
    found = phonons(relax(atoms, calculator).atoms, calculator, supercell=repeats, displacement=displacement)
    other = copy.deepcopy(found.phonopy)
    forces = their_forces(python, [other.supercell, *other.supercells_with_displacements])
    other.forces = forces[1:] - forces[0]
    other.produce_force_constants(show_drift=False)
    other.symmetrize_force_constants(show_drift=False)
    mesh = (5, 5, 5)
    error, ours = frequency_error(found, Phonons(other, 0.0), mesh), found.mesh(mesh)
    return {
        "atoms": len(found.phonopy.supercell), "displaced": len(forces) - 1, "difference_THz": error,
        "lowest_THz": float(ours.min()), "highest_THz": float(ours.max()), "mesh": mesh,
    }  # fmt: skip


def main() -> None:
    """Compare and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, required=True, help="Python of an environment with sevenn")
    parser.add_argument("--checkpoint", default="7net-0", help="a file, or a name that an installed sevenn has")
    parser.add_argument("--dtype", default="float64", choices=("float64", "float32"))
    parser.add_argument("--displacement", type=float, default=0.03, help="A")
    parser.add_argument("--only", choices=tuple(crystals()))
    options = parser.parse_args()
    from equistride import __version__
    from equistride.importers.sevennet import import_sevennet

    table = {}
    with tempfile.TemporaryDirectory() as folder:
        artifact = Path(folder) / "potential.pt"
        import_sevennet(options.checkpoint, artifact, elements=["Si", "Mg", "O"], dtype=options.dtype)
        for name in [options.only] if options.only else crystals():
            table[name] = row = compare(name, artifact, options.dtype, options.python, options.displacement)
            print(name, json.dumps(row), flush=True)
    if not options.only:
        facts = {"equistride": __version__, "checkpoint": options.checkpoint, "dtype": options.dtype}
        RESULTS.write_text(json.dumps({**facts, "displacement_A": options.displacement, "crystals": table}, indent=1))
    worst = max(row["difference_THz"]["largest"] for row in table.values())
    print(f"largest difference {worst:.4f} THz")
    sys.exit(worst > 0.01)


if __name__ == "__main__":
    main()
