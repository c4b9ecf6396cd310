"""Golden outputs of SevenNet and NequIP beside those of artifacts in every engine, as one table.

    OMP_NUM_THREADS=1 python benchmarks/foreign_engines.py [--golden FOLDER] [--only NAME ...]

The small checkpoints are those of tests/data/nequip; ``FOLDER`` has outputs of released SevenNets, ``7net-0_11jul2024.npz``
and so on (arrays as in benchmarks/nequip_golden.py), whose checkpoints an installed sevenn has. Each is exported plain and fused
in float64, and fused in float32. ASE and torch-sim compute the structures as they are. For OpenMM and LAMMPS (1, 2 and 4
processes) crystals are turned to the form that these want, and repeated: there atomic energies, and lengths of forces, are
compared with the golden ones, and the forces with each other. Written to benchmarks/results/foreign_engines.json: largest
deviations in eV and eV/A, of float64 relative to the largest value where that is above 1.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray
from openmm import Context, Platform, VerletIntegrator, unit

from equistride import artifact
from equistride.engines.ase import EquistrideCalculator
from equistride.engines.nve import standard
from equistride.engines.openmm import create_system
from equistride.engines.openmm_structure import topology_from_ase
from equistride.importers.nequip import import_nequip
from equistride.importers.sevennet import import_sevennet
from equistride.units import EV_PER_KJ_MOL

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "engines"))
import lammps_runs as lmp  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "foreign_engines.json"
SMALL = ROOT / "tests" / "data" / "nequip"
RELEASED = {
    "7net-0_11jul2024": ("7net-0", ""),
    "7net-0_22may2024": ("7net-0_22may2024", ""),
    "7net-l3i5": ("7net-l3i5", ""),
    "7net-mf-0-PBE": ("7net-mf-0", "PBE"),
    "7net-mf-0-R2SCAN": ("7net-mf-0", "R2SCAN"),
}
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """A checkpoint and its golden outputs; ``write(path, elements, dtype, fused)`` makes the artifact."""

    golden: dict[str, Array]
    write: Callable[[Path, list[str], str, bool], Any]

    def structures(self) -> dict[str, Atoms]:
        """Return the golden structures."""
        return {
            name: Atoms(*(self.golden[f"{name}/{key}"] for key in ("numbers", "positions")),
                        cell=self.golden[f"{name}/cell"], pbc=self.golden[f"{name}/pbc"])
            for name in sorted({key.partition("/")[0] for key in self.golden})
        }  # fmt: skip


def cases(folder: Path | None) -> dict[str, Case]:
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
    return found


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


def in_torch_sim(path: Path, atoms: Atoms) -> dict[str, Array]:
    """Return energy and forces by torch-sim."""
    import torch_sim as ts

    from equistride.engines.torch_sim import EquistrideModel

    model = EquistrideModel(path, device=torch.device("cpu"), dtype=torch.float64, compute_stress=False)
    state = ts.io.atoms_to_state([atoms], torch.device("cpu"), torch.float64)
    return {key: value.numpy() for key, value in model(state).items()}


def in_openmm(path: Path, atoms: Atoms) -> tuple[float, Array]:
    """Return energy [eV] and forces [eV/A] by the plugin, on the Reference platform."""
    topology, positions = topology_from_ase(atoms)
    system = create_system(path, topology, precision="float64", backend="plugin")
    context = Context(system, VerletIntegrator(0.001), Platform.getPlatformByName("Reference"))
    context.setPositions(positions)
    state = context.getState(energy=True, forces=True)
    energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole) * EV_PER_KJ_MOL
    forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.angstrom) * EV_PER_KJ_MOL
    return float(energy), np.asarray(forces)


def lengths(forces: Any) -> Array:
    """Return those of forces [N, 3]."""
    return np.asarray(np.linalg.norm(np.asarray(forces), axis=1))


def turned(atoms: Atoms) -> Atoms:
    """Return a crystal in the form that OpenMM and LAMMPS want, 2 x 2 x 2 times where it is small."""
    return standard(atoms.repeat(2) if len(atoms) < 30 else atoms)


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
            worst.add(f"{form} ASE forces", atoms.get_forces(), true["forces"], form != "float32")
            out = model.compute(
                atoms.positions, model.species_index(atoms.get_chemical_symbols()), atoms.cell.array, atoms.pbc
            )
            worst.add(f"{form} atomic energies", out.atomic_energies, true["energies"])
            if form == "float32":
                continue
            worst.add(f"{form} virial", out.virial, true.get("virial", np.nan))
            energy = true["energies"].sum()
            if atoms.pbc.all() or not atoms.pbc.any():
                found = in_torch_sim(path, atoms)
                worst.add(f"{form} torch-sim energy", found["energy"], energy)
                worst.add(f"{form} torch-sim forces", found["forces"], true["forces"])
            if not atoms.pbc.all():
                continue
            image = turned(atoms)
            times = len(image) // len(atoms)
            total, forces = in_openmm(path, image)
            worst.add(f"{form} OpenMM energy", total, times * energy)
            worst.add(f"{form} OpenMM lengths of forces", lengths(forces), lengths(np.tile(true["forces"], (times, 1))))
            lmp.TYPES[:] = sorted(set(image.get_chemical_symbols()))
            style = lmp.head("equistride precision float64", f"* * {path} {' '.join(lmp.TYPES)}")
            for count in ranks:
                step = lmp.run(image, style + lmp.OUTPUT + "run 0\n", folder / "lammps", count)
                worst.add(f"{form} LAMMPS atomic energies", step.energies, np.tile(true["energies"], times))
                worst.add(f"{form} LAMMPS of {count} and OpenMM forces", step.forces, forces, relative=False)
    return worst.rows


def main() -> None:
    """Try all and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--golden", type=Path, help="folder with outputs of released SevenNets")
    parser.add_argument("--only", nargs="+", help="names of checkpoints")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4], help="processes of LAMMPS")
    options = parser.parse_args()
    table = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for name, case in cases(options.golden).items():
        if options.only and name not in options.only:
            continue
        with tempfile.TemporaryDirectory() as folder:
            table[name] = tried(case, Path(folder), tuple(options.ranks))
        print(name, json.dumps({key: float(f"{value:.2g}") for key, value in table[name].items()}), flush=True)
        RESULTS.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
