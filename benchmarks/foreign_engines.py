"""Golden outputs of SevenNet, NequIP and MACE beside those of artifacts in every engine, as one table.

    OMP_NUM_THREADS=1 python benchmarks/foreign_engines.py [--golden FOLDER] [--mace FOLDER] [--only NAME ...]

The small checkpoints are those of tests/data/nequip. ``--golden`` names a folder with outputs of released SevenNets,
``7net-0_11jul2024.npz`` and so on (arrays as in benchmarks/nequip_golden.py), whose checkpoints an installed sevenn has;
``--mace`` one with what benchmarks/mace_golden.py writes, of whose heads the first is taken. Each is exported plain and fused
in float64, and fused in float32. ASE and torch-sim compute the structures as they are. For OpenMM and LAMMPS (1, 2 and 4
processes) crystals are turned to the form that these want, and repeated: there atomic energies, and lengths of forces, are
compared with the golden ones, and the forces with each other. Written to benchmarks/results/foreign_engines.json: largest
deviations in eV and eV/A; of float64, and of all of MACE's, whose forces are large, relative to the largest value where that
is above 1.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from in_engines import ROOT, Array, in_lammps, in_openmm, in_torch_sim, lengths

from equistride import artifact
from equistride.engines.ase import EquistrideCalculator
from equistride.engines.nve import standard
from equistride.importers.mace import import_mace
from equistride.importers.nequip import import_nequip
from equistride.importers.sevennet import import_sevennet

RESULTS = ROOT / "benchmarks" / "results" / "foreign_engines.json"
SMALL = ROOT / "tests" / "data" / "nequip"
RELEASED = {
    "7net-0_11jul2024": ("7net-0", ""),
    "7net-0_22may2024": ("7net-0_22may2024", ""),
    "7net-l3i5": ("7net-l3i5", ""),
    "7net-mf-0-PBE": ("7net-mf-0", "PBE"),
    "7net-mf-0-R2SCAN": ("7net-mf-0", "R2SCAN"),
}


@dataclass(frozen=True)
class Case:
    """A checkpoint and its golden outputs; ``write(path, elements, dtype, fused)`` makes the artifact; whether float32's
    deviations are relative too."""

    golden: dict[str, Array]
    write: Callable[[Path, list[str], str, bool], Any]
    relative: bool = False

    def structures(self) -> dict[str, Atoms]:
        """Return the golden structures."""
        return {
            name: Atoms(*(self.golden[f"{name}/{key}"] for key in ("numbers", "positions")),
                        cell=self.golden[f"{name}/cell"], pbc=self.golden[f"{name}/pbc"])
            for name in sorted({key.partition("/")[0] for key in self.golden})
        }  # fmt: skip


def of_mace(model: Path) -> Case:
    """Return a file of MACE: the structures of its first head without charge, less the molecule."""
    golden: dict[str, Array] = {}
    with np.load(model.with_suffix(".npz")) as content:
        first = content.files[0].partition(":")[0]
        for key in content.files:
            place, what = key.split("/")
            head, name, charge, _ = place.split(":")
            if head == first and charge == "0" and name != "ethanol":
                golden[f"{name}/{what}"] = content[key]
    head = "" if first == "Default" else first
    return Case(
        golden,
        lambda path, elements, dtype, fused: import_mace(
            model, path, elements=elements, head=head, dtype=dtype, fused=fused, licence="none"
        ),
        relative=True,
    )


def cases(folder: Path | None, mace: Path | None) -> dict[str, Case]:
    """Return all that can be tried here."""

    def seven(checkpoint: Any, modal: str = "") -> Callable[..., Any]:
        return lambda path, elements, dtype, fused: import_sevennet(
            checkpoint, path, elements=elements, modal=modal, dtype=dtype, fused=fused
        )

    def own(name: str) -> Callable[..., Any]:
        return lambda path, elements, dtype, fused: import_nequip(
            SMALL / name, path, elements=elements, dtype=dtype, fused=fused
        )

    def golden(path: Path) -> dict[str, Array]:
        return dict(np.load(path))

    found = {
        name: Case(golden(SMALL / f"{name}.npz"), seven(SMALL / f"{name}.pth")) for name in ("sevennet-c", "sevennet-d")
    }
    for name in ("nequip-a.ckpt", "nequip-a.nequip.zip", "nequip-b.ckpt"):
        found[name] = Case(golden(SMALL / f"{name[:8]}.npz"), own(name))
    for name, (checkpoint, modal) in RELEASED.items():
        if folder is not None and (folder / f"{name}.npz").is_file():
            found[name] = Case(golden(folder / f"{name}.npz"), seven(checkpoint, modal))
    return found | {path.stem: of_mace(path) for path in sorted(mace.glob("*.model") if mace else [])}


class Worst:
    """Largest deviations by engine and quantity."""

    def __init__(self) -> None:
        self.rows: dict[str, float] = {}

    def add(self, name: str, found: Any, expected: Any, relative: bool = True) -> None:
        """Count in another array; without numbers where none is expected."""
        expected, found = np.asarray(expected), np.asarray(found)
        there = np.isfinite(expected)
        if not there.any():
            return
        by = max(1.0, float(np.abs(expected[there]).max())) if relative else 1.0
        error = float(np.abs(found - expected)[there].max()) / by
        self.rows[name] = max(self.rows.get(name, 0.0), error)


def turned(atoms: Atoms, cutoff: float) -> Atoms:
    """Return a crystal in the form that OpenMM and LAMMPS want, repeated to 1.5 cutoffs."""
    heights = 1 / np.linalg.norm(np.linalg.inv(atoms.cell.array), axis=0)
    return standard(atoms.repeat([math.ceil(1.5 * cutoff / height) for height in heights]))


def tried(case: Case, folder: Path, ranks: tuple[int, ...]) -> dict[str, float]:
    """Return the largest deviations of one checkpoint."""
    worst, structures = Worst(), case.structures()
    elements = sorted({symbol for atoms in structures.values() for symbol in atoms.get_chemical_symbols()})
    forms = {"plain": ("float64", False), "fused": ("float64", True), "float32": ("float32", True)}
    for form, (dtype, fused) in forms.items():
        case.write(folder / f"{form}.pt", elements, dtype, fused)
    for form in forms:
        path = folder / f"{form}.pt"
        model, calculator = artifact.load(path), EquistrideCalculator(path)
        for name, atoms in structures.items():
            true = {
                key: case.golden[f"{name}/{key}"]
                for key in ("energies", "forces", "virial")
                if f"{name}/{key}" in case.golden
            }
            atoms.calc = calculator
            relative = case.relative or form != "float32"
            worst.add(f"{form} ASE forces", atoms.get_forces(), true["forces"], relative)
            out = model.compute(
                atoms.positions, model.species_index(atoms.get_chemical_symbols()), atoms.cell.array, atoms.pbc
            )
            worst.add(f"{form} atomic energies", out.atomic_energies, true["energies"])
            worst.add(f"{form} virial", out.virial, true.get("virial", np.nan))
            energy = true["energies"].sum()
            if atoms.pbc.all() or not atoms.pbc.any():
                found = in_torch_sim(path, atoms)
                worst.add(f"{form} torch-sim energy", found["energy"], energy)
                worst.add(f"{form} torch-sim forces", found["forces"], true["forces"], relative)
            if not atoms.pbc.all():
                continue
            image = turned(atoms, model.metadata.cutoff)
            times = len(image) // len(atoms)
            norms = lengths(np.tile(true["forces"], (times, 1)))
            total, forces = in_openmm(path, image)
            worst.add(f"{form} OpenMM energy", total, times * energy)
            worst.add(f"{form} OpenMM lengths of forces", lengths(forces), norms, relative)
            for count in ranks:
                step = in_lammps(path, image, folder / "lammps", count, forms[form][0])
                worst.add(f"{form} LAMMPS of {count} atomic energies", step.energies, np.tile(true["energies"], times))
                worst.add(f"{form} LAMMPS of {count} lengths of forces", lengths(step.forces), norms, relative)
                worst.add(f"{form} LAMMPS of {count} and OpenMM forces", step.forces, forces, case.relative)
    return worst.rows


def main() -> None:
    """Try all and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--golden", type=Path, help="folder with outputs of released SevenNets")
    parser.add_argument("--mace", type=Path, help="folder with files of MACE and their outputs")
    parser.add_argument("--only", nargs="+", help="names of checkpoints")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4], help="processes of LAMMPS")
    options = parser.parse_args()
    table = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for name, case in cases(options.golden, options.mace).items():
        if options.only and name not in options.only:
            continue
        with tempfile.TemporaryDirectory() as folder:
            table[name] = tried(case, Path(folder), tuple(options.ranks))
        print(name, json.dumps({key: float(f"{value:.2g}") for key, value in table[name].items()}), flush=True)
        RESULTS.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
