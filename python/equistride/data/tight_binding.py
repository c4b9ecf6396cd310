"""Molecules in motion under GFN2-xTB (tblite)."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from ase.data import atomic_masses
from ase.units import Bohr, Hartree
from numpy.typing import NDArray

from equistride.data.frames import Frames
from equistride.data.molecules import Molecule, build, same_bonds
from equistride.errors import EquistrideError
from equistride.units import ACCELERATION, BOLTZMANN

Array = NDArray[np.float64]


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep OpenMP to one thread: more are slower for molecules, and their sums would not repeat."""
    try:
        openmp = ctypes.CDLL("libgomp.so.1")
    except OSError:  # not that compiler's; OMP_NUM_THREADS decides
        yield
        return
    before = openmp.omp_get_max_threads()
    openmp.omp_set_num_threads(1)
    try:
        yield
    finally:
        openmp.omp_set_num_threads(before)


class TightBinding:
    """Energy and forces of a molecule under GFN2-xTB, each step from the density of the last.

    Raises
    ------
    EquistrideError
        Where tblite is not installed, or the electrons do not converge.
    """

    def __init__(self, numbers: NDArray[np.int64], positions: Array) -> None:
        try:
            from tblite.interface import Calculator
        except ImportError:
            raise EquistrideError(
                "tblite is needed for GFN2-xTB and is not installed", hint="pip install 'equistride[isomers]'"
            ) from None
        self._calculator: Any = Calculator("GFN2-xTB", numbers, positions / Bohr)
        self._calculator.set("verbosity", 0)
        self._last: Any = None

    def __call__(self, positions: Array) -> tuple[float, Array]:
        """Return the energy [eV] and the forces [N, 3] (eV/A)."""
        self._calculator.update(positions / Bohr)
        try:
            with _one_thread():
                self._last = self._calculator.singlepoint(self._last)
        except RuntimeError as error:
            raise EquistrideError(f"GFN2-xTB does not converge ({error})", hint="lower the temperature") from error
        return float(self._last.get("energy")) * Hartree, -np.asarray(self._last.get("gradient")) * (Hartree / Bohr)


def relax(evaluate: TightBinding, positions: Array, steps: int = 500, force: float = 0.05) -> Array:
    """Return positions [N, 3] (A) at which no force component exceeds ``force`` [eV/A], by L-BFGS."""
    from scipy.optimize import minimize

    def cost(flat: Array) -> tuple[float, Array]:
        energy, forces = evaluate(flat.reshape(-1, 3))
        return energy, -forces.ravel()

    options = {"maxiter": steps, "gtol": force, "ftol": 0.0}
    return minimize(cost, positions.ravel(), jac=True, method="L-BFGS-B", options=options).x.reshape(-1, 3)


class MoleculeRun:
    """Molecular dynamics of one free molecule under GFN2-xTB, from a relaxed structure and thermal velocities.

    Parameters
    ----------
    smiles
        Bonds, in SMILES without hydrogen; see :func:`equistride.data.molecules.parse`.
    rng
        Where the start, the velocities and the noise come from.
    temperature_K
        Of the velocities and the bath.
    timestep_fs, friction_fs
        Time step, and the time over which the bath forgets [fs].
    name
        What messages call the molecule; ``smiles`` by default.

    Raises
    ------
    EquistrideError
        Where the SMILES is not understood, tblite is missing, or a bond breaks on the way.
    """

    def __init__(
        self,
        smiles: str,
        rng: np.random.Generator,
        *,
        temperature_K: float,
        timestep_fs: float,
        friction_fs: float = 50.0,
        name: str = "",
    ) -> None:
        for what, value in (("temperature", temperature_K), ("time step", timestep_fs), ("friction time", friction_fs)):
            if not 0 < value < np.inf:
                raise EquistrideError(f"the {what} must be above 0", found=value)
        self._name, self._rng, self._dt, self._friction = name or smiles, rng, timestep_fs, friction_fs
        self._molecule: Molecule = build(smiles, rng)
        numbers = self._molecule.numbers
        self._mass = atomic_masses[numbers][:, None]
        self._evaluate = TightBinding(numbers, self._molecule.positions)
        self._r = relax(self._evaluate, self._molecule.positions)
        self._check_bonds("relaxing")
        self._thermal = BOLTZMANN * temperature_K * ACCELERATION
        self._v = rng.normal(size=self._r.shape) * np.sqrt(self._thermal / self._mass)
        self._energy, self._f = self._evaluate(self._r)

    def thermalise(self, time_fs: float) -> None:
        """Langevin dynamics (BAOAB) at the temperature; the molecule is brought to rest at the origin then, and turns."""
        dt, mass = self._dt, self._mass
        decay = np.exp(-dt / self._friction)
        for _ in range(round(time_fs / dt)):
            v = self._v + 0.5 * dt * ACCELERATION * self._f / mass
            r = self._r + 0.5 * dt * v
            v = decay * v + np.sqrt((1 - decay**2) * self._thermal / mass) * self._rng.normal(size=r.shape)
            self._r = r + 0.5 * dt * v
            self._energy, self._f = self._evaluate(self._r)
            self._v = v + 0.5 * dt * ACCELERATION * self._f / mass
        self._v = self._v - (mass * self._v).sum(0) / mass.sum()
        self._r = self._r - (mass * self._r).sum(0) / mass.sum()
        self._energy, self._f = self._evaluate(self._r)

    def follow(self, frames: int, every: int = 1) -> Frames:
        """NVE by velocity Verlet; the frames begin with the present one and are ``every`` steps apart."""
        dt, mass = self._dt, self._mass
        rows: list[tuple[Array, Array, float, Array]] = [(self._r, self._v, self._energy, self._f)]
        for step in range(every * (frames - 1)):
            v = self._v + 0.5 * dt * ACCELERATION * self._f / mass
            self._r = self._r + dt * v
            self._energy, self._f = self._evaluate(self._r)
            self._v = v + 0.5 * dt * ACCELERATION * self._f / mass
            if (step + 1) % every == 0:
                rows.append((self._r, self._v, self._energy, self._f))
        self._check_bonds("molecular dynamics")
        positions, velocities, energies, forces = (np.array(x) for x in zip(*rows, strict=True))
        kinetic, numbers = 0.5 * (mass * velocities**2).sum((1, 2)) / ACCELERATION, self._molecule.numbers
        return Frames(
            numbers=numbers, pbc=np.zeros(3, bool), positions=positions, cell=np.zeros((frames, 3, 3)), energy=energies,
            forces=forces, velocities=velocities, segment=np.zeros(frames, np.int64),
            time_fs=np.arange(frames, dtype=float) * dt * every, total_energy=energies + kinetic,
            temperature_K=2 * kinetic / (3 * (len(numbers) - 1) * BOLTZMANN),
            masses=mass[:, 0].copy(),
        )  # fmt: skip

    def _check_bonds(self, where: str) -> None:
        if not same_bonds(self._molecule, self._r):
            raise EquistrideError(
                f"{self._name} has broken a bond in {where}", hint="lower the temperature or take another seed"
            )
