"""What bounds on forces, temperature and distances cost a step, in OpenMM, ASE and LAMMPS: CPU time with all over that without.

Pairs of short runs in one process (LAMMPS: two processes, its own loop time), and the median of their ratios.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import process_time

import numpy as np
import openmm
from ase import Atoms, units
from ase.io import write
from ase.md.verlet import VelocityVerlet
from machine import processor

from equistride.data.quartz import quartz
from equistride.engines.ase import EquistrideCalculator
from equistride.engines.ase_watch import watch
from equistride.engines.openmm import create_system
from equistride.engines.openmm_force import Force
from equistride.engines.openmm_structure import topology_from_ase

MODEL = Path(__file__).resolve().parents[1] / "models" / "quartz-esen" / "quartz-esen.pt"
BOUNDS = {"maxForce": "1000", "maxTemperature": "100000", "minDistance": "0.8"}
STEP_FS = 1.0


def in_openmm(atoms: Atoms, bounded: bool) -> Callable[[int], float]:
    """Return what makes so many steps and says how long they took [CPU s]."""
    topology, positions = topology_from_ase(atoms)
    system = create_system(MODEL, topology)
    for name, value in BOUNDS.items() if bounded else ():
        Force.cast(system.getForce(0)).setProperty(name, value)
    platform = openmm.Platform.getPlatformByName("CPU")
    made = openmm.Context(system, openmm.VerletIntegrator(STEP_FS / 1000), platform)
    made.setPositions(positions)

    def run(steps: int) -> float:
        begin = process_time()
        made.getIntegrator().step(steps)
        return process_time() - begin

    return run


def in_ase(atoms: Atoms, bounded: bool) -> Callable[[int], float]:
    """The same for ASE."""
    atoms = atoms.copy()
    atoms.calc = EquistrideCalculator(MODEL)
    dynamics = VelocityVerlet(atoms, STEP_FS * units.fs)
    if bounded:
        watch(dynamics, max_force=1000, max_temperature=100000, min_distance=0.8)

    def run(steps: int) -> float:
        begin = process_time()
        dynamics.run(steps)
        return process_time() - begin

    return run


def in_lammps(atoms: Atoms, bounded: bool) -> Callable[[int], float]:
    """The same for LAMMPS, a process each time."""
    atoms = atoms.copy()
    atoms.set_cell(atoms.cell.standard_form()[0], scale_atoms=True)
    words = f"min_distance {BOUNDS['minDistance']}" if bounded else ""
    halts = (
        "variable f equal fmax\nvariable t equal temp\n"
        "fix calm all halt 10 v_f > 1000.0 error hard\nfix cold all halt 10 v_t > 100000.0 error hard\n"
    )

    def run(steps: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            data, script = Path(folder) / "data", Path(folder) / "in"
            write(data, atoms, format="lammps-data", specorder=["Si", "O"], masses=True, units="metal")
            script.write_text(
                f"units metal\natom_modify map yes\nread_data {data}\npair_style equistride {words}\n"
                f"pair_coeff * * {MODEL} Si O\nfix n all nve\ntimestep {STEP_FS / 1000}\n"
                f"{halts if bounded else ''}run 2\nrun {steps}\n"
            )
            done = subprocess.run(
                ["lmp", "-in", script, "-log", "none"], capture_output=True, text=True, check=True, cwd=folder
            )
        return float(re.findall(r"Loop time of (\S+)", done.stdout)[-1])

    return run


ENGINES = {"OpenMM": in_openmm, "ASE": in_ase, "LAMMPS": in_lammps}


def main() -> None:
    """Measure each engine."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--engine", choices=ENGINES, action="append")
    parser.add_argument("--cells", type=int, nargs=3, default=[2, 2, 2])
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    atoms = quartz(tuple(options.cells))
    atoms.rattle(0.03, seed=1)
    print(f"{processor()}, quartz-esen, {len(atoms)} atoms")
    for name in options.engine or ENGINES:
        plain, bounded = (ENGINES[name](atoms, choice) for choice in (False, True))
        plain(options.steps), bounded(options.steps)
        pairs = [(plain(options.steps), bounded(options.steps)) for _ in range(options.pairs)]
        ratios = [with_bounds / without for without, with_bounds in pairs]
        each = 1000 * statistics.median(without for without, _ in pairs) / options.steps
        low, high = np.percentile(ratios, [25, 75])
        print(f"{name}: {100 * (statistics.median(ratios) - 1):+.2f} % ({100 * (low - 1):+.2f} to {100 * (high - 1):+.2f}) "
              f"of a step of {each:.1f} ms")  # fmt: skip


if __name__ == "__main__":
    main()
