"""What rounding of matrix products does to forces and to the conservation of energy, without the GPU that would round.

    equistride export CHECKPOINT -o plain.pt --plain
    python benchmarks/matmul_precision.py plain.pt [--ps 2] [--json FILE]

A plain artifact computes with torch's own operators, each of which is taken apart here: factors of every matrix product,
forwards and backwards, lose the bits that TF32 has not, as they do on tensor cores where ``torch.set_float32_matmul_precision``
allows it, and sums are float32's. 72 atoms of quartz, NVE by velocity Verlet with 1 fs from one start; force errors are against
float64 on displaced atoms.
"""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms, units
from ase.md.verlet import VelocityVerlet
from machine import processor, publish
from torch.utils._python_dispatch import TorchDispatchMode

from equistride.conservation.drift import energy_drift
from equistride.conservation.nve import DISCARD, Setting, start_of
from equistride.data.quartz import quartz
from equistride.engines.ase import EquistrideCalculator

PRODUCTS = {
    "aten.mm.default": (0, 1),
    "aten.bmm.default": (0, 1),
    "aten.addmm.default": (1, 2),
    "aten.baddbmm.default": (1, 2),
}
"""Operators and their factors."""


def rounded(values: torch.Tensor) -> torch.Tensor:
    """Nearest numbers of 11 significant bits, in float32."""
    large = values * 8193
    return large - (large - values)


class Tf32(TorchDispatchMode):
    """Rounds the factors of all matrix products of float32."""

    def __torch_dispatch__(
        self, function: Any, types: object, arguments: tuple[Any, ...] = (), settings: dict[str, Any] | None = None
    ) -> Any:
        """Call the operator with rounded factors."""
        factors = PRODUCTS.get(str(function), ())
        given = [rounded(a) if k in factors and a.dtype == torch.float32 else a for k, a in enumerate(arguments)]
        return function(*given, **(settings or {}))


ARITHMETIC: dict[str, tuple[str, type[AbstractContextManager[Any]]]] = {
    "float64": ("float64", nullcontext),
    "float32": ("float32", nullcontext),
    "TF32": ("float32", Tf32),
}


def force_errors(model: Path) -> dict[str, float]:
    """Root mean square of each arithmetic's force errors [eV/A]."""
    atoms = quartz((2, 2, 2))
    atoms.rattle(0.08, seed=1)
    forces = {}
    for name, (dtype, mode) in ARITHMETIC.items():
        atoms.calc = EquistrideCalculator(model, dtype=dtype)
        with mode():
            forces[name] = atoms.get_forces()
    exact = forces.pop("float64")
    return {name: float(np.sqrt(np.square(found - exact).mean())) for name, found in forces.items()}


def drift(atoms: Atoms, model: Path, name: str, steps: int) -> dict[str, float]:
    """Slope of the total energy with its interval, and its rms deviation from the line [meV/atom/ps, meV/atom]."""
    dtype, mode = ARITHMETIC[name]
    moving = atoms.copy()
    moving.calc = EquistrideCalculator(model, dtype=dtype)
    rows = []
    with mode():
        dynamics = VelocityVerlet(moving, 1 * units.fs)
        dynamics.attach(lambda: rows.append((len(rows), moving.get_total_energy())))
        dynamics.run(steps)
    times, energies = np.array(rows).T
    kept = slice(int(DISCARD * len(times)), None)
    found = energy_drift(times[kept], energies[kept], len(atoms))
    return {
        "drift": found.slope,
        "low": found.interval[0],
        "high": found.interval[1],
        "fluctuation": found.fluctuation,
    }


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--ps", type=float, default=2.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    figures: dict[str, Any] = {"processor": processor(), "model": options.model.stem, "ps": options.ps}
    figures["rms force error eV/A"] = force_errors(options.model)
    print(figures["rms force error eV/A"], flush=True)
    setting = Setting(temperature=600.0, time=options.ps)
    start, _ = start_of(quartz((2, 2, 2)), EquistrideCalculator(options.model, dtype="float64"), setting)
    figures["NVE at about 300 K, meV/atom/ps"] = {}
    for name in ("float32", "TF32"):
        found = drift(start, options.model, name, setting.drift_steps)
        figures["NVE at about 300 K, meV/atom/ps"][name] = found
        print(name, found, flush=True)
    publish(figures, options.json)


if __name__ == "__main__":
    main()
