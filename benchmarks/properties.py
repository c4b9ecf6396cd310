"""Properties of the released models beside those of the potentials that they learned from.

    OMP_NUM_THREADS=1 python benchmarks/properties.py [--only quartz] [--mesh 11]

Quartz: relaxation, elastic constants, phonons (3 x 3 x 3 cells, compared on a mesh of 4 x 4 x 4) with each potential at its own
equilibrium, and phonons of both in the reference's cell. Silicon: the same, and the thermal conductivity (64 atoms).
The tables are written to benchmarks/results/properties.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from ase import Atoms
from machine import processor

from equistride import __version__
from equistride.data.quartz import quartz
from equistride.data.reference import ReferenceCalculator
from equistride.data.silicon import silicon
from equistride.engines.ase import EquistrideCalculator
from equistride.properties.conductivity import thermal_conductivity
from equistride.properties.elastic import Elastic, elastic_constants
from equistride.properties.phonons import frequency_error, phonons
from equistride.properties.relax import relax

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "properties.json"
TRIGONAL = ((1, 1), (3, 3), (1, 2), (1, 3), (4, 4), (1, 4), (6, 6))
CUBIC = ((1, 1), (1, 2), (4, 4))


class Table:
    """Rows of a quantity under the model and under its reference, printed as they come."""

    def __init__(self, title: str) -> None:
        self.rows: list[dict[str, Any]] = []
        print(f"\n{title}\n{'quantity':34s} {'model':>10s} {'reference':>10s} {'difference':>11s}")

    def add(self, quantity: str, model: float, reference: float) -> None:
        """Add a row; the difference is in percent."""
        percent = 100 * (model / reference - 1)
        self.rows.append({"quantity": quantity, "model": model, "reference": reference, "difference_percent": percent})
        print(f"{quantity:34s} {model:10.4f} {reference:10.4f} {percent:+10.2f} %", flush=True)

    def add_elastic(self, model: Elastic, reference: Elastic, which: tuple[tuple[int, int], ...]) -> None:
        """Add elastic constants and the bulk modulus."""
        for i, j in which:
            c, r = (float(e.constants[i - 1, j - 1]) for e in (model, reference))
            self.add(f"C{i}{j} (GPa)", c, r)
        self.add("bulk modulus, from C (GPa)", model.bulk_modulus, reference.bulk_modulus)

    def add_errors(self, title: str, errors: dict[str, float]) -> None:
        """Add how two sets of frequencies differ."""
        self.rows.append({"quantity": f"frequencies, {title} (THz)", **errors})
        print(
            f"frequencies, {title}: " + ", ".join(f"{k.replace('_', ' ')} {v:.4f}" for k, v in errors.items()) + " THz"
        )


def crystal(
    title: str, atoms: Atoms, artifact: Path, potential: str, repeats: tuple[int, int, int],
    which: tuple[tuple[int, int], ...], kappa_mesh: int,
) -> list[dict[str, Any]]:  # fmt: skip
    """Compare one model with its reference; ``kappa_mesh`` 0 leaves the conductivity out."""
    model, reference = EquistrideCalculator(artifact, dtype="float64"), ReferenceCalculator(potential)
    table = Table(f"{title}: {artifact.stem} against {potential}, each at its own equilibrium")
    own, other = relax(atoms, model), relax(atoms, reference)
    for axis, name in enumerate("abc"):
        table.add(f"{name} (A)", float(own.atoms.cell.lengths()[axis]), float(other.atoms.cell.lengths()[axis]))
    table.add_elastic(elastic_constants(own.atoms, model), elastic_constants(other.atoms, reference), which)
    truth, found = phonons(other.atoms, reference, supercell=repeats), phonons(own.atoms, model, supercell=repeats)
    mesh = (4, 4, 4)
    table.add("highest frequency (THz)", float(found.mesh(mesh).max()), float(truth.mesh(mesh).max()))
    table.add_errors("own equilibria", frequency_error(found, truth, mesh))
    table.add_errors(
        "the reference's cell", frequency_error(phonons(other.atoms, model, supercell=repeats), truth, mesh)
    )
    lowest = float(found.mesh(mesh).min())
    print(f"lowest frequency of the model: {lowest:.5f} THz, imaginary modes: {100 * found.imaginary(mesh):g} %")
    table.rows.append({"quantity": "imaginary share of the model's modes", "model": found.imaginary(mesh)})
    if kappa_mesh:
        points = (kappa_mesh,) * 3
        pair = [
            thermal_conductivity(r.atoms, c, supercell=repeats, mesh=points)
            for r, c in ((own, model), (other, reference))
        ]
        table.add(f"conductivity, 300 K, mesh {kappa_mesh} (W/m/K)", *(float(k.mean[0]) for k in pair))
    return table.rows


def main() -> None:
    """Print the tables and write the JSON file; a crystal that is not asked for keeps its earlier results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("quartz", "silicon"))
    parser.add_argument("--mesh", type=int, default=11, help="mesh of the conductivity")
    parser.add_argument("--quartz", type=Path, default=ROOT / "models" / "quartz-esen" / "quartz-esen.pt")
    parser.add_argument("--silicon", type=Path, default=ROOT / "models" / "silicon-esen" / "silicon-esen.pt")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    results |= {"equistride": __version__, "torch": torch.__version__, "machine": processor()}
    if arguments.only != "silicon":
        results["quartz"] = crystal(
            "alpha-quartz", quartz(), arguments.quartz, "SiO.1990.vashishta", (3, 3, 3), TRIGONAL, 0
        )
    if arguments.only != "quartz":
        results["silicon"] = crystal("silicon", silicon(), arguments.silicon, "Si.sw", (2, 2, 2), CUBIC, arguments.mesh)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print(f"\nwritten to {RESULTS.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
