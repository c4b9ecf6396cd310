"""Run files of ``equistride export --for openmm`` in the genuine openmm-torch and compare with our plugin.

openmm-torch is built for another torch than equistride's, so this runs twice, in two environments::

    python verify_openmm_torch.py write FOLDER [--artifact model.pt]   # where equistride is
    python verify_openmm_torch.py check FOLDER                         # where openmmtorch is; needs no
    equistride

The second prints a table and fails where energies or forces differ by more than 1e-9 (float64) or 1e-5
(float32), relative to the energy and to the largest force. Without an artifact, a small untrained eSEN for
quartz is written and run on a cluster and in bulk; an artifact is run on its own reference frame, or on the
structure that ``--structure`` names. ``write --fused`` writes files that run by equistride's library, which the second
environment then needs, built for its torch. ``check --stand-in`` takes our plugin's own reader of the TorchForce contract in
place of openmm-torch, for the time that a file costs beside the plugin's.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform as machine
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import torch  # isort: skip  (first: it brings the CUDA libraries that openmm-torch's plugins link)
import openmm

if TYPE_CHECKING:
    from ase import Atoms

TOLERANCE = {"float64": 1e-9, "float32": 1e-5}
CALLS = 5


def evaluate(force: Any, case: dict[str, Any], name: str) -> tuple[float, np.ndarray, float]:
    """Return energy [kJ/mol], forces [n, 3] kJ/mol/nm and the median CPU time of a call [ms]."""
    system = openmm.System()
    for _ in case["positions"]:
        system.addParticle(1.0)
    if case["box"] is not None:
        system.setDefaultPeriodicBoxVectors(*case["box"])
    system.addForce(force)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName(name))
    context.setPositions(np.array(case["positions"]))
    times = []
    for _ in range(CALLS):
        begin = time.process_time()
        state = context.getState(energy=True, forces=True)
        times.append(1e3 * (time.process_time() - begin))
    return state.getPotentialEnergy()._value, state.getForces(asNumpy=True)._value, float(np.median(times))


def untrained(path: Path) -> Path:
    """Write a small eSEN with random weights for Si and O."""
    from equistride.artifact.export import build_potential, save
    from equistride.artifact.metadata import Metadata
    from equistride.models.esen import ESENConfig

    torch.manual_seed(1)
    config = ESENConfig(cutoff=4.5, channels=32, hidden_channels=32, edge_channels=32)
    facts = {"species": ["O", "Si"], "scale": 1.0, "references": [0.0, 0.0]}
    metadata = Metadata(
        kind="potential",
        architecture="esen",
        species=["O", "Si"],
        cutoff=4.5,
        num_layers=2,
        interaction_range=9.0,
        dtype="float64",
    )
    save(build_potential(config, facts).double(), metadata, path)
    return path


def structures(artifact: Path | None, structure: Path | None) -> dict[str, Atoms]:
    """Return what the model is run on, by name: the structure given, the artifact's frame, or quartz without and with a box."""
    from ase import Atoms

    from equistride.artifact import load
    from equistride.artifact.structure import read_structure
    from equistride.data.quartz import quartz
    from equistride.data.structures import read_atoms

    if structure is not None:
        return {structure.stem[:10]: read_atoms(structure)}
    if artifact is not None:
        model = load(artifact)
        frame = read_structure(None, model)
        symbols = [model.metadata.species[k] for k in frame.species]
        return {"reference": Atoms(symbols, frame.positions, cell=frame.cell, pbc=frame.pbc)}
    found = {"cluster": quartz((2, 2, 1)), "bulk": quartz((2, 2, 2))}
    for name, atoms in found.items():
        atoms.rattle(0.05, seed=3)
        atoms.pbc = name == "bulk"
    return found


def write(folder: Path, artifact: Path | None, structure: Path | None = None, fused: bool = False) -> None:
    """Write the files and what our plugin makes of them."""
    from equistride.engines.openmm import create_force
    from equistride.engines.openmm_export import write_torchforce
    from equistride.engines.openmm_structure import topology_from_ase

    folder.mkdir(parents=True, exist_ok=True)
    runs = structures(artifact, structure)
    artifact = artifact or untrained(folder / "artifact.pt")
    cases = []
    for name, atoms in runs.items():
        topology, positions = topology_from_ase(atoms)
        box = topology.getPeriodicBoxVectors()
        for dtype in TOLERANCE:
            file = f"{name}-{dtype}.pt"
            periodic = write_torchforce(artifact, folder / file, topology, dtype=dtype, fused=fused)
            case = {
                "name": name,
                "file": file,
                "dtype": dtype,
                "periodic": periodic,
                "positions": [list(p) for p in positions._value],
                "box": None if box is None else [list(row) for row in box._value],
            }
            force = create_force(artifact, topology, backend="plugin", precision=dtype)
            energy, forces, ms = evaluate(force, case, "Reference")
            cases.append(case | {"energy": energy, "forces": forces.tolist(), "ms": ms})
    facts = {"torch": torch.__version__, "openmm": openmm.version.version, "fused": fused, "cases": cases}
    (folder / "expected.json").write_text(json.dumps(facts))
    print(f"wrote {len(cases)} files to {folder}; now run: python {Path(__file__).name} check {folder}")


def check(folder: Path, stand_in: bool = False) -> bool:
    """Run the files in openmm-torch; return whether all agree."""
    facts = json.loads((folder / "expected.json").read_text())
    if facts["fused"]:
        import equistride

        equistride.load_operators()
    if stand_in:
        from equistride.engines.openmm import Force as TorchForce
    else:
        from openmmtorch import TorchForce
    processor = machine.processor() or machine.machine()
    name = "our stand-in for openmm-torch" if stand_in else "openmm-torch"
    print(f"{name} with torch {torch.__version__}, OpenMM {openmm.version.version}, on {processor}")
    print(f"plugin with torch {facts['torch']}, OpenMM {facts['openmm']}; CPU ms a call")
    print(f"{torch.get_num_threads()} thread(s)")
    print(f"equistride is {'installed' if importlib.util.find_spec('equistride') else 'not installed'} here")
    head = f"{'case':10} {'atoms':>5} {'dtype':8} {'platform':10}"
    print(f"{head} {'energy':>9} {'forces':>9} {'TorchForce':>11} {'plugin':>8}")
    good = True
    for case in facts["cases"]:
        for name in ("Reference", "CPU"):
            force = TorchForce(str(folder / case["file"]))
            force.setOutputsForces(True)
            force.setUsesPeriodicBoundaryConditions(case["periodic"])
            energy, forces, ms = evaluate(force, case, name)
            expected = np.array(case["forces"])
            errors = (
                abs(energy / case["energy"] - 1),
                np.abs(forces - expected).max() / np.abs(expected).max(),
            )
            good &= max(errors) <= TOLERANCE[case["dtype"]]
            head = f"{case['name']:10} {len(forces):5d} {case['dtype']:8} {name:10}"
            print(f"{head} {errors[0]:9.1e} {errors[1]:9.1e} {ms:11.1f} {case['ms']:8.1f}")
    print("all agree" if good else "they do not agree")
    return good


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["write", "check"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--artifact", type=Path, help="a potential; a small untrained one by default")
    parser.add_argument("--structure", type=Path, help="what to run the artifact on; its reference frame by default")
    parser.add_argument("--fused", action="store_true", help="write files that run by equistride's library")
    parser.add_argument("--stand-in", action="store_true", help="check with our plugin in place of openmm-torch")
    options = parser.parse_args()
    if options.verb == "write":
        write(options.folder, options.artifact, options.structure, options.fused)
    elif not check(options.folder, options.stand_in):
        sys.exit(1)


if __name__ == "__main__":
    main()
