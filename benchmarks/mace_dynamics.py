"""Molecular dynamics with the two potentials that ``benchmarks/mace_training.py`` trained: does a real training come through?

    OMP_NUM_THREADS=1 python benchmarks/mace_dynamics.py FOLDER [PART ...]

``FOLDER`` has ``water.model`` and ``ethanol.model`` with their frames. Parts: ``ethanol`` and ``water`` (drift of the energy, as
``equistride validate --nve`` measures it), ``mixed`` (ethanol by the network among TIP3P water by OpenMM's force field, 2 ps at
300 K) and ``lammps`` (64 molecules of water on one and two processes). Adds to benchmarks/results/mace_dynamics.json.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from ase.io import read
from openmm import LangevinMiddleIntegrator, app, unit
from openmmml import MLPotential

from equistride.importers.mace import import_mace
from equistride.units import BOLTZMANN, EV_PER_KJ_MOL

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "engines"))
import lammps_runs as lmp  # noqa: E402
from mixed_systems import BONDS, CHARGES, ELEMENTS, ETHANOL, ethanols  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "mace_dynamics.json"


def imported(folder: Path, name: str) -> Path:
    """Return the artifact of a trained model, float32."""
    path = folder / f"{name}.pt"
    if not path.is_file():
        import_mace(folder / f"{name}.model", path, licence="made for this test")
    return path


def drift(folder: Path, name: str, picoseconds: float) -> dict[str, Any]:
    """Return what ``validate --nve`` finds for the first frame."""
    start = folder / f"{name}-start.xyz"
    read(folder / f"{name}.extxyz", 0).write(start, format="extxyz")
    command = [
        sys.executable,
        "-m",
        "equistride.cli.main",
        "validate",
        str(imported(folder, name)),
        "--nve",
        str(start),
    ]
    options = ["--time", str(picoseconds), "--timestep", "0.25", "--dtype", "float32", "--json"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    return (
        dict(json.loads(done.stdout)) if done.stdout.startswith("{") else {"failed": (done.stdout + done.stderr)[-500:]}
    )


def ethanol_template() -> str:
    """Return a force field for the pairs of ethanol with water; its inner terms are the network's."""
    kinds = {"C": (0.34, 0.4577), "O": (0.3066, 0.8803), "H": (0.2471, 0.0657)}  # GAFF's radii [nm], depths [kJ/mol]
    names = [f"{element}{k}" for k, element in enumerate(ELEMENTS)]
    types = "".join(
        f'<Type name="e-{n}" class="e-{n}" element="{e}" mass="{app.Element.getBySymbol(e).mass._value}"/>'
        for n, e in zip(names, ELEMENTS, strict=True)
    )
    atoms = "".join(f'<Atom name="{n}" type="e-{n}"/>' for n in names)
    bonds = "".join(f'<Bond atomName1="{names[a]}" atomName2="{names[b]}"/>' for a, b in BONDS)
    pairs = "".join(
        f'<Atom type="e-{n}" charge="{q}" sigma="{kinds[e][0]}" epsilon="{kinds[e][1]}"/>'
        for n, e, q in zip(names, ELEMENTS, CHARGES, strict=True)
    )
    return (
        f'<ForceField><AtomTypes>{types}</AtomTypes><Residues><Residue name="EOH">{atoms}{bonds}</Residue></Residues>'
        f'<NonbondedForce coulomb14scale="0.833333" lj14scale="0.5">{pairs}</NonbondedForce></ForceField>'
    )


def mixed(folder: Path) -> dict[str, float]:
    """Return means of ethanol in water: temperature [K] and bond lengths [A]."""
    field = app.ForceField(io.StringIO(ethanol_template()), "tip3p.xml")
    modeller = app.Modeller(ethanols()[0], ETHANOL / 10 * unit.nanometer)
    modeller.addSolvent(field, boxSize=openmm.Vec3(2.2, 2.2, 2.2) * unit.nanometer)
    system = field.createSystem(modeller.topology, nonbondedMethod=app.PME, nonbondedCutoff=0.9 * unit.nanometer)
    potential = MLPotential("equistride", modelPath=str(imported(folder, "ethanol")))
    both = potential.createMixedSystem(modeller.topology, system, list(range(9)))
    bath = LangevinMiddleIntegrator(300 * unit.kelvin, 2 / unit.picosecond, 0.5 * unit.femtosecond)
    bath.setRandomNumberSeed(1)
    simulation = app.Simulation(
        modeller.topology, both, bath, openmm.Platform.getPlatformByName("CPU"), {"Threads": "1"}
    )
    simulation.context.setPositions(modeller.positions)
    simulation.minimizeEnergy(maxIterations=50)
    simulation.context.setVelocitiesToTemperature(300 * unit.kelvin, 1)
    simulation.step(1000)
    found: dict[str, list[float]] = {"temperature": [], "C-C": [], "C-O": [], "O-H": []}
    freedom = 3 * both.getNumParticles() - both.getNumConstraints() - 3
    for _ in range(60):
        simulation.step(50)
        state = simulation.context.getState(positions=True, energy=True)
        kinetic = state.getKineticEnergy().value_in_unit(unit.kilojoule_per_mole)
        found["temperature"].append(2 * kinetic / (freedom * BOLTZMANN / EV_PER_KJ_MOL))
        at = state.getPositions(asNumpy=True).value_in_unit(unit.angstrom)
        for name, (a, b) in {"C-C": (0, 1), "C-O": (1, 2), "O-H": (2, 8)}.items():
            found[name].append(float(np.linalg.norm(at[a] - at[b])))
    return {name: float(np.mean(values)) for name, values in found.items()} | {
        "molecules of water": float(both.getNumParticles() - 9) / 3
    }


def in_lammps(folder: Path) -> dict[str, float]:
    """Return the change of the total energy in 0.1 ps on two processes, and how far forces of one and two differ."""
    atoms = read(folder / "water.extxyz", 0)
    lmp.TYPES[:] = ["H", "O"]
    head = lmp.head("equistride", f"* * {imported(folder, 'water')} H O")
    steps = {ranks: lmp.run(atoms, head + lmp.OUTPUT + "run 0\n", folder / f"lammps{ranks}", ranks) for ranks in (1, 2)}
    dynamics = "velocity all create 300 1 mom yes loop geom\ntimestep 0.00025\nfix nve all nve\nthermo 100\nrun 400\n"
    (folder / "run").mkdir(exist_ok=True)
    lmp.write_data(atoms, folder / "run" / "data.lmp")
    done = lmp.launch(head + dynamics, folder / "run", 2, timeout=1800)
    if done.returncode:
        raise RuntimeError(done.stdout[-1000:] + done.stderr[-1000:])
    log = [line.split() for line in (folder / "run" / "log.lammps").read_text().splitlines()]
    totals = [float(words[-1]) for words in log if len(words) == 12 and words[0].isdigit()]
    return {
        "forces of two processes and one [eV/A]": float(np.abs(steps[1].forces - steps[2].forces).max()),
        "total energy, largest change in 0.1 ps [eV]": max(abs(e - totals[0]) for e in totals),
        "atoms": float(len(atoms)),
    }


def main() -> None:
    """Run the parts and write what they found."""
    folder = Path(sys.argv[1])
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "ethanol": lambda: drift(folder, "ethanol", 1.0),
        "water": lambda: drift(folder, "water", 0.5),
        "mixed": lambda: mixed(folder),
        "lammps": lambda: in_lammps(folder),
    }
    for name in sys.argv[2:] or list(parts):
        found = parts[name]()
        table = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
        table[name] = found
        RESULTS.write_text(json.dumps(table, indent=1) + "\n")
        print(name, json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
