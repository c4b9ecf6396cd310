"""Steps of ASE dynamics that are watched: an error leaves the atoms as they were, and bounds say when a run is not believed."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, Literal

import ase.io
import numpy as np
import torch
from ase import Atoms
from ase.md.md import MolecularDynamics
from numpy.typing import NDArray

from equistride.engines.ase_dynamics import TrajCastDynamics
from equistride.errors import EquistrideError, tell
from equistride.graph import neighbor_list
from equistride.writing import whole_file


def watch(
    dynamics: MolecularDynamics, *, max_force: float = 0.0, max_temperature: float = 0.0, min_distance: float = 0.0,
    on_bound: Literal["stop", "warn"] = "stop", broken_frame: str | os.PathLike[str] | None = None,
) -> None:  # fmt: skip
    """Watch over each step of ASE dynamics from now on, as the properties of an OpenMM force of these names do.

    After an error in a step, the calculator's or a bound's, the atoms' positions, momenta and cell and the random state are as
    before it, and the number of steps as well. What a thermostat or barostat keeps in objects of its own (a chain of
    Nose and Hoover) is not brought back.

    Parameters
    ----------
    dynamics
        Any of ``ase.md``, also :class:`~equistride.engines.ase_dynamics.TrajCastDynamics`, whose thermostat is brought back.
    max_force
        Largest force on an atom after a step [eV/A]; 0 for no bound.
    max_temperature
        Largest temperature after a step [K]; 0 for no bound.
    min_distance
        Smallest distance of two atoms after a step [A]; 0 for no bound.
    on_bound
        ``stop`` raises where a bound is broken; ``warn`` tells once of each.
    broken_frame
        Extended XYZ file for the frame of an error, with its sentence.

    Raises
    ------
    EquistrideError
        For bounds that are no numbers from 0 on, a bound of forces where nothing has forces, another answer, and dynamics that
        are watched already.
    """
    bounds = {"max_force": max_force, "max_temperature": max_temperature, "min_distance": min_distance}
    for name, value in bounds.items():
        if not (isinstance(value, int | float) and math.isfinite(value) and value >= 0):
            raise EquistrideError(f"{name} is no bound", expected="a number, 0 (none) or more", found=value)
    if on_bound not in ("stop", "warn"):
        raise EquistrideError("on_bound is not known", expected="stop or warn", found=on_bound)
    if max_force and dynamics.atoms.calc is None:
        raise EquistrideError("the atoms have no calculator, and so no forces", hint="leave max_force out")
    if isinstance(vars(dynamics).get("step"), _WatchedStep):
        raise EquistrideError("the dynamics are watched already", hint="give all bounds in one call")
    moving: Any = dynamics  # each kind has a step of its own
    moving.step = _WatchedStep(moving, bounds, on_bound, None if broken_frame is None else Path(broken_frame))


class _WatchedStep:
    """What stands in the place of the step of one dynamics."""

    def __init__(self, dynamics: Any, bounds: dict[str, float], on_bound: str, frame: Path | None) -> None:
        self._dynamics, self._bounds, self._on_bound, self._frame = dynamics, bounds, on_bound, frame
        self._step, self._told = dynamics.step, set[str]()

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        atoms = self._dynamics.atoms
        before = atoms.positions.copy(), atoms.get_momenta(), atoms.cell.array.copy()
        random = self._random()
        try:
            result = self._step(*arguments, **named)
            self._look()
        except Exception as error:
            broken = atoms.copy()
            atoms.positions[:] = before[0]
            atoms.set_momenta(before[1], apply_constraint=False)
            atoms.cell[:] = before[2]
            self._bring_back(random)
            if self._frame is not None:
                self._save(broken, self._frame, error)
                raise EquistrideError(f"{error}; its frame is in {self._frame}") from error
            raise
        return result

    def _random(self) -> Any:
        if isinstance(self._dynamics, TrajCastDynamics):
            return self._dynamics.state(), self._dynamics._left
        source: Any = getattr(self._dynamics, "rng", None)
        if isinstance(source, np.random.Generator):
            return source.bit_generator.state
        return source.get_state() if hasattr(source, "get_state") else None  # a RandomState, or numpy's own

    def _bring_back(self, random: Any) -> None:
        if isinstance(self._dynamics, TrajCastDynamics):
            state, left = random
            self._dynamics.set_state(state)
            self._dynamics._left = left
        elif isinstance(self._dynamics.__dict__.get("rng"), np.random.Generator):
            self._dynamics.rng.bit_generator.state = random
        elif random is not None:
            self._dynamics.rng.set_state(random)

    def _forces(self) -> NDArray[np.float64]:
        """Return the forces of the step that was made; asking ASE again whether they are these takes longer than all bounds."""
        atoms = self._dynamics.atoms
        results: dict[str, Any] = getattr(atoms.calc, "results", {})
        evaluated: Atoms | None = getattr(atoms.calc, "atoms", None)
        known = "forces" in results and not atoms.constraints
        if known and evaluated is not None and np.array_equal(evaluated.positions, atoms.positions):
            return np.asarray(results["forces"])
        return atoms.get_forces()

    def _look(self) -> None:
        atoms, bounds = self._dynamics.atoms, self._bounds
        if most := bounds["max_force"]:
            squares = np.einsum("ij,ij->i", forces := self._forces(), forces)
            if not (squares.max() <= most**2):
                atom = int(squares.argmax())
                self._broken("max_force", f"the force on atom {atom} is {math.sqrt(squares[atom]):g} eV/A",
                             f"at most {most:g} eV/A", "low")  # fmt: skip
        if (most := bounds["max_temperature"]) and not (found := atoms.get_temperature()) <= most:
            self._broken("max_temperature", f"the temperature is {found:g} K", f"at most {most:g} K", "low")
        if least := bounds["min_distance"]:
            cell = np.where(atoms.pbc[:, None], atoms.cell.array, 0.0)
            edges, _ = neighbor_list(
                torch.tensor(atoms.positions), torch.tensor(cell), atoms.pbc.tolist(), float(least)
            )
            if edges.shape[1]:
                i, j = edges[:, 0].tolist()
                self._broken(
                    "min_distance", f"atoms {i} and {j} are nearer than {least:g} A", f"{least:g} A or more", "high"
                )

    def _broken(self, bound: str, what: str, expected: str, too: str) -> None:
        hint = f"the run has blown up, or the bound ({bound}) is too {too}"
        if self._on_bound == "stop":
            raise EquistrideError(what, expected=expected, hint=hint)
        if bound not in self._told:
            self._told.add(bound)
            tell(f"{what}; expected {expected}; {hint}; told once")

    def _save(self, frame: Atoms, path: Path, error: Exception) -> None:
        """Save the frame of an error; where that fails, that is told beside the error."""
        frame.info["error"], frame.info["step"] = str(error), int(self._dynamics.nsteps)
        try:
            with whole_file(path) as partial:
                ase.io.write(partial, frame, format="extxyz")
        except (EquistrideError, OSError) as second:
            raise EquistrideError(f"{error}; its frame could not be saved ({second})") from error
