"""What the tables of deviations share: one artifact's numbers for one structure in torch-sim, OpenMM and LAMMPS."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray
from openmm import Context, Platform, VerletIntegrator, unit

from equistride.engines.openmm import create_system
from equistride.engines.openmm_structure import topology_from_ase
from equistride.units import EV_PER_KJ_MOL

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "engines"))
import lammps_runs as lmp  # noqa: E402

Array = NDArray[np.float64]


def lengths(forces: Any) -> Array:
    """Return those of forces [N, 3]."""
    return np.asarray(np.linalg.norm(np.asarray(forces), axis=1))


def in_torch_sim(path: Path, atoms: Atoms) -> dict[str, Array]:
    """Return energy and forces by torch-sim."""
    import torch_sim as ts

    from equistride.engines.torch_sim import EquistrideModel

    model = EquistrideModel(path, device=torch.device("cpu"), dtype=torch.float64, compute_stress=False)
    state = ts.io.atoms_to_state([atoms], torch.device("cpu"), torch.float64)
    return {key: value.numpy() for key, value in model(state).items()}


def in_openmm(path: Path, atoms: Atoms) -> tuple[float, Array]:
    """Return energy [eV] and forces [eV/A] by the plugin in the file's precision, on the Reference platform."""
    topology, positions = topology_from_ase(atoms)
    system = create_system(path, topology, backend="plugin")
    context = Context(system, VerletIntegrator(0.001), Platform.getPlatformByName("Reference"))
    context.setPositions(positions)
    state = context.getState(energy=True, forces=True)
    energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole) * EV_PER_KJ_MOL
    forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.angstrom) * EV_PER_KJ_MOL
    return float(energy), np.asarray(forces)


def in_lammps(path: Path, atoms: Atoms, folder: Path, ranks: int, precision: str = "float64") -> lmp.Frame:
    """Return what LAMMPS computes on so many processes; files are left in the folder."""
    lmp.TYPES[:] = sorted(set(atoms.get_chemical_symbols()))
    return lmp.once(path, atoms, folder, ranks=ranks, precision=precision)
