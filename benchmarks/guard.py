"""Drift of the total energy of a propagator without a thermostat, with and without a guard, and the guard's cost.

The energy is that of the guard's potential, read every 7 strides, so that all phases between two checks are seen.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from time import process_time

import numpy as np
import openmm
from machine import processor

from equistride import artifact
from equistride.data.quartz import quartz
from equistride.engines.openmm import Guard, TrajCastIntegrator, create_system
from equistride.engines.openmm_structure import topology_from_ase
from equistride.units import ANGSTROM_PER_NM, EV_PER_KJ_MOL, FS_PER_PS

MODELS = Path(__file__).resolve().parents[1] / "models"
INTERVAL = 7
WARM_UP = 100


def run(propagator: Path, potential: Path, strides: int, guard: Guard | None, start: openmm.State) -> None:
    """Print drift [meV/atom/ps] and CPU time of one run of 162 atoms."""
    atoms = quartz((3, 3, 2))
    topology, _ = topology_from_ase(atoms)
    integrator = TrajCastIntegrator(propagator, topology, thermostat=None, guard=guard)
    context = openmm.Context(create_system(propagator, topology), integrator)
    context.setState(start)
    model = artifact.load(potential)
    species, energies, spent = model.species_index(atoms.get_chemical_symbols()), [], 0.0
    for _ in range(strides // INTERVAL):
        begin = process_time()
        integrator.step(INTERVAL)
        spent += process_time() - begin
        state = context.getState(positions=True, energy=True)
        positions = state.getPositions(asNumpy=True)._value * ANGSTROM_PER_NM
        box = np.array(state.getPeriodicBoxVectors(asNumpy=True)._value) * ANGSTROM_PER_NM
        static = float(model.compute(positions, species, box, True).atomic_energies.sum())
        energies.append(static + state.getKineticEnergy()._value * EV_PER_KJ_MOL)
    times = np.arange(len(energies)) * INTERVAL * model_stride(integrator)
    drift = np.polyfit(times, 1000 * np.array(energies) / len(atoms), 1)[0]
    name = "no guard" if guard is None else f"guard every {guard.every} strides"
    cost = "" if guard is None else f", cost {100 * integrator.getGuardStatistics().cost:.0f} % of the network's time"
    print(f"{name}: {drift:+.2f} meV/atom/ps, {1000 * spent / (len(energies) * INTERVAL):.1f} CPU-ms a stride{cost}")


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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--propagator", type=Path, default=MODELS / "quartz-trajcast-30fs" / "quartz-trajcast-30fs.pt")
    parser.add_argument("--potential", type=Path, default=MODELS / "quartz-esen" / "quartz-esen.pt")
    parser.add_argument("--strides", type=int, default=500)
    parser.add_argument("--every", type=int, nargs="*", default=[10, 20])
    options = parser.parse_args()
    print(f"{processor()}, quartz of 162 atoms, {options.strides} strides")
    start = warm(options.propagator)
    run(options.propagator, options.potential, options.strides, None, start)
    for every in options.every:
        guard = Guard(options.potential, every=every, bound=math.inf, rescale=True)
        run(options.propagator, options.potential, options.strides, guard, start)


if __name__ == "__main__":
    main()
