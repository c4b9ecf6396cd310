"""mace-torch's numbers beside those of artifacts in every engine, as one table.

    OMP_NUM_THREADS=1 python benchmarks/mace_engines.py FOLDER [NAME ...]

``FOLDER`` has what ``benchmarks/mace_golden.py`` writes; of a model with several heads the first is taken. Each model is exported
in float64 and in float32. ASE and torch-sim compute the structures as they are. For OpenMM and LAMMPS (1, 2, 4 processes) the
crystal is turned to the form that these want and repeated: its atomic energies, and lengths of forces, are compared with
mace-torch's. Adds to benchmarks/results/mace_engines.json: largest deviations of energies [eV] and forces [eV/A], as shares of
the largest force where that is above 1 eV/A.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from in_engines import ROOT, Array, in_lammps, in_openmm, in_torch_sim, lengths

from equistride.artifact import load
from equistride.engines.ase import EquistrideCalculator
from equistride.engines.nve import standard
from equistride.importers.mace import import_mace

RESULTS = ROOT / "benchmarks" / "results" / "mace_engines.json"


def frames(path: Path) -> dict[str, dict[str, Array]]:
    """Return the structures of the first head, neutral, by name."""
    with np.load(path) as content:
        head = content.files[0].partition(":")[0]
        found: dict[str, dict[str, Array]] = {}
        for key in content.files:
            place, what = key.split("/")
            label, name, charge, _ = place.split(":")
            if label == head and charge == "0":
                found.setdefault(name, {"head": np.array(head)})[what] = content[key]
    return found


def atoms_of(frame: dict[str, Array]) -> Atoms:
    """Return the structure."""
    return Atoms(frame["numbers"], frame["positions"], cell=frame["cell"], pbc=frame["pbc"])


def tried(model: Path, true: dict[str, dict[str, Array]], folder: Path) -> dict[str, float]:
    """Return the largest deviations of one network, by precision, engine and quantity."""
    rows: dict[str, float] = {}

    def add(name: str, found: Any, expected: Any, largest: float) -> None:
        error = float(np.abs(np.asarray(found) - expected).max()) / max(1.0, largest)
        rows[name] = max(rows.get(name, 0.0), error)

    head = str(true["crystal"]["head"])
    elements = sorted({s for name in ("crystal", "close") for s in atoms_of(true[name]).get_chemical_symbols()})
    for dtype in ("float64", "float32"):
        path = folder / f"{dtype}.pt"
        import_mace(model, path, dtype=dtype, elements=elements, head="" if head == "Default" else head, licence="none")
        loaded, calculator = load(path), EquistrideCalculator(path)
        for name in ("crystal", "close"):
            frame, atoms = true[name], atoms_of(true[name])
            species, largest = loaded.species_index(atoms.get_chemical_symbols()), float(np.abs(frame["forces"]).max())
            out = loaded.compute(atoms.positions, species, atoms.cell.array, atoms.pbc)
            add(f"{dtype} atomic energies", out.atomic_energies, frame["energies"], largest)
            add(f"{dtype} virial", out.virial, frame["virial"], float(np.abs(frame["virial"]).max()))
            add(f"{dtype} torch-sim forces", in_torch_sim(path, atoms)["forces"], frame["forces"], largest)
            atoms.calc = calculator
            add(f"{dtype} ASE forces", atoms.get_forces(), frame["forces"], largest)
        frame, atoms = true["crystal"], standard(atoms_of(true["crystal"]).repeat((4, 3, 3)))
        times, largest = len(atoms) // len(frame["numbers"]), float(np.abs(frame["forces"]).max())
        expected = lengths(np.tile(frame["forces"], (times, 1)))
        add(f"{dtype} OpenMM lengths of forces", lengths(in_openmm(path, atoms)[1]), expected, largest)
        for ranks in (1, 2, 4):
            step = in_lammps(path, atoms, folder / f"{dtype}{ranks}", ranks, dtype)
            add(f"{dtype} LAMMPS of {ranks} lengths of forces", lengths(step.forces), expected, largest)
            add(f"{dtype} LAMMPS of {ranks} energies", step.energies, np.tile(frame["energies"], times), largest)
    return rows


def main() -> None:
    """Try all and write the table."""
    folder = Path(sys.argv[1])
    for name in sys.argv[2:] or sorted(path.stem for path in folder.glob("*.model")):
        with tempfile.TemporaryDirectory() as made:
            rows = tried(folder / f"{name}.model", frames(folder / f"{name}.npz"), Path(made))
        table = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
        table[name] = {key: float(f"{value:.2g}") for key, value in rows.items()}
        RESULTS.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n")
        print(name, json.dumps(table[name]), flush=True)


if __name__ == "__main__":
    main()
