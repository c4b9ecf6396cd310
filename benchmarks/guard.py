"""Drift of the total energy of a propagator without a thermostat, with and without a guard, and the guard's cost.

    OMP_NUM_THREADS=1 python benchmarks/guard.py [--strides 500 5000] [--every 14] [--json FILE]

162 atoms of quartz. The energy is that of the guard's potential, read every 5 strides, so that all phases between two checks are
seen; the drift has its interval of 95 %, from blocks as long as the energy remembers.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from time import process_time

import numpy as np
import openmm
from machine import processor, publish

from equistride import artifact
from equistride.conservation.drift import energy_drift
from equistride.data.quartz import quartz
from equistride.engines.openmm import Guard, TrajCastIntegrator, create_system
from equistride.engines.openmm_structure import topology_from_ase
from equistride.units import ANGSTROM_PER_NM, EV_PER_KJ_MOL, FS_PER_PS

MODELS = Path(__file__).resolve().parents[1] / "models"
INTERVAL = 5
WARM_UP = 100


def run(
    propagator: Path, potential: Path, strides: int, guard: Guard | None, start: openmm.State
) -> dict[str, float | list[float]]:
    """Return drift [meV/atom/ps], its interval, CPU time and the guard's share of the network's."""
    atoms = quartz((3, 3, 2))
    topology, _ = topology_from_ase(atoms)
    integrator = TrajCastIntegrator(propagator, topology, thermostat=None, guard=guard)
    context = openmm.Context(create_system(propagator, topology), integrator)
    context.setState(start)
    model = artifact.load(potential)
    species, energies, spent = model.species_index(atoms.get_chemical_symbols()), [], 0.0
    for _ in range(strides // INTERVAL):
        begin = process_time()
        try:
            integrator.step(INTERVAL)
        except openmm.OpenMMException as error:
            print(f"ended after {len(energies) * INTERVAL} strides: {error}")
            break
        spent += process_time() - begin
        state = context.getState(positions=True, energy=True)
        positions = state.getPositions(asNumpy=True)._value * ANGSTROM_PER_NM
        box = np.array(state.getPeriodicBoxVectors(asNumpy=True)._value) * ANGSTROM_PER_NM
        static = float(model.compute(positions, species, box, True).atomic_energies.sum())
        energies.append(static + state.getKineticEnergy()._value * EV_PER_KJ_MOL)
    times = np.arange(len(energies)) * INTERVAL * model_stride(integrator)
    drift = energy_drift(1000 * times, energies, len(atoms))
    return {
        "strides": len(energies) * INTERVAL,
        "every": 0 if guard is None else guard.every,
        "drift_meV_per_atom_ps": drift.slope,
        "interval": list(drift.interval),
        "cpu_ms_a_stride": 1000 * spent / (len(energies) * INTERVAL),
        "cost_of_guard": 0.0 if guard is None else integrator.getGuardStatistics().cost,
    }


def model_stride(integrator: TrajCastIntegrator) -> float:
    """The stride [ps]."""
    return integrator.getMetadata()["stride_fs"] / FS_PER_PS


def warm(propagator: Path) -> openmm.State:
    """Return a state at 300 K, after strides with a thermostat."""
    topology, positions = topology_from_ase(quartz((3, 3, 2)))
    context = openmm.Context(create_system(propagator, topology), TrajCastIntegrator(propagator, topology, seed=1))
    context.setPositions(positions)
    context.setVelocitiesToTemperature(300, 1)
    context.getIntegrator().step(WARM_UP)
    return context.getState(positions=True, velocities=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--propagator", type=Path, default=MODELS / "quartz-trajcast-30fs" / "quartz-trajcast-30fs.pt")
    parser.add_argument("--potential", type=Path, default=MODELS / "quartz-esen" / "quartz-esen.pt")
    parser.add_argument("--strides", type=int, nargs="+", default=[500, 5000])
    parser.add_argument("--every", type=int, nargs="*", default=[10, 14])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(f"{processor()}, quartz of 162 atoms")
    start, found = warm(options.propagator), []
    for strides in options.strides:
        guards = [Guard(options.potential, every=every, bound=math.inf, rescale=True) for every in options.every]
        for guard in [None, *guards]:
            one = run(options.propagator, options.potential, strides, guard, start)
            found.append(one)
            print(" ".join(f"{name} {value}" for name, value in one.items()), flush=True)
    if options.json:
        publish({"processor": processor(), "runs": found}, options.json)


if __name__ == "__main__":
    main()
