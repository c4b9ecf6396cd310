"""Small inputs that stand for a reader's own, page by page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from ase.build import bulk
from ase.io import write
from openmm.app import PDBFile

from equistride.data.frames import Frames
from equistride.data.molecules import build
from equistride.data.oscillators import trajectories
from equistride.data.quartz import quartz
from equistride.data.tight_binding import TightBinding, relax
from equistride.engines.ase import EquistrideCalculator
from equistride.engines.openmm_structure import topology_from_ase


def quartz_pdb(folder: Path) -> None:
    """The demo's structure, and a smaller one for runs."""
    (folder / "demo").mkdir()
    for name, repeats in (("demo/quartz.pdb", (3, 3, 2)), ("quartz.pdb", (2, 2, 2))):
        with (folder / name).open("w") as file:
            PDBFile.writeFile(*topology_from_ase(quartz(repeats)), file)


def magnesia(folder: Path) -> None:
    """A CIF file of the primitive cell."""
    write(folder / "crystal.cif", bulk("MgO", "rocksalt", 4.25))


def labelled_quartz(folder: Path) -> None:
    """Twenty frames of nine atoms, labelled by the released potential."""
    frames, calculator = [], EquistrideCalculator("models/quartz-esen/quartz-esen.pt")
    for seed in range(20):
        atoms = quartz((1, 1, 1))
        atoms.rattle(0.03, seed=seed)
        atoms.calc = calculator
        atoms.info.update(REF_energy=atoms.get_potential_energy(), REF_stress=atoms.get_stress(voigt=False))
        atoms.arrays["REF_forces"] = atoms.get_forces()
        atoms.calc = None
        frames.append(atoms)
    write(folder / "frames.extxyz", frames)
    write(folder / "start.extxyz", quartz((2, 2, 2)))


def springs(folder: Path) -> None:
    """Coupled springs: labelled frames, and trajectories of other runs."""
    trajectories(4, 8).save(folder / "labelled.npz")
    trajectories(4, 8, seed=4).save(folder / "trajectory.npz")


def aspirin(folder: Path) -> None:
    """Six frames of aspirin under GFN2-xTB, in place of a download."""
    molecule = build("CC(=O)OC1=CC=CC=C1C(=O)O", np.random.default_rng(1))
    evaluate, noise = TightBinding(molecule.numbers, molecule.positions), np.random.default_rng(2)
    positions = relax(evaluate, molecule.positions, steps=60, force=0.5) + noise.normal(scale=0.02, size=(6, 21, 3))
    labels = [evaluate(x) for x in positions]
    frames = Frames(
        numbers=molecule.numbers, positions=positions, cell=np.zeros((6, 3, 3)), pbc=np.zeros(3, dtype=bool),
        energy=np.array([e for e, _ in labels]), forces=np.array([f for _, f in labels]),
    )  # fmt: skip
    (folder / "data").mkdir()
    frames.save(folder / "data" / "rmd17_aspirin.npz")


def crystal_data(folder: Path) -> None:
    """A data file of LAMMPS."""
    atoms = quartz((2, 2, 2))
    write(folder / "crystal.data", atoms, format="lammps-data", specorder=["O", "Si"], masses=True)


def dump(folder: Path) -> None:
    """A dump of LAMMPS beside the demo's structure: quartz that moves on straight lines."""
    quartz_pdb(folder)
    atoms = quartz((2, 2, 2))
    velocities = np.random.default_rng(1).normal(scale=1.0, size=(len(atoms), 3))  # A/ps
    a, h, c = atoms.cell[0, 0], atoms.cell[1, 1], atoms.cell[2, 2]
    tilt = atoms.cell[1, 0]
    lines = []
    for step in range(0, 91, 30):
        lines += [
            "ITEM: TIMESTEP",
            str(step),
            "ITEM: NUMBER OF ATOMS",
            str(len(atoms)),
            "ITEM: BOX BOUNDS xy xz yz pp pp pp",
        ]
        lines += [f"{min(0.0, tilt)} {a + max(0.0, tilt)} {tilt}", f"0 {h} 0", f"0 {c} 0"]
        lines.append("ITEM: ATOMS id type xu yu zu vx vy vz")
        for k, (symbol, x, v) in enumerate(zip(atoms.symbols, atoms.positions, velocities, strict=True)):
            place = " ".join(f"{u:.8f}" for u in (*(x + v * step * 1e-3), *v))
            lines.append(f"{k + 1} {1 if symbol == 'Si' else 2} {place}")
    (folder / "run.dump").write_text("\n".join(lines) + "\n")


INPUTS: dict[str, Callable[[Path], None]] = {
    "README.md": quartz_pdb,
    "index.md": quartz_pdb,
    "universal.md": magnesia,
    "own-data.md": labelled_quartz,
    "frames.md": springs,
    "mlmm.md": aspirin,
    "strides.md": dump,
    "lammps.md": crystal_data,
    "choosing.md": quartz_pdb,
    "benchmarks.md": quartz_pdb,
}
