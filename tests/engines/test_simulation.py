"""``equistride.simulation``: what a structure says of charge, spin and masses reaches every engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from equistride.data.quartz import quartz
from equistride.errors import Notice
from equistride.simulation import Settings, simulate

ENGINES = ["openmm", "lammps", "ase"]
QUARTZ = Path(__file__).resolve().parents[2] / "models" / "quartz-esen" / "quartz-esen.pt"


def energies(model: Path, atoms: Atoms, folder: Path) -> list[float]:
    """Potential energies [eV] after a step of each engine."""
    found = []
    for engine in ENGINES:
        settings = Settings(engine=engine, ensemble="nve", time_fs=1, every=1, precision="float64")  # type: ignore[arg-type]
        found.append(simulate(model, atoms, settings, folder / engine).last.potential)
    return found


def test_charge_and_spin(omol: Path, tmp_path: Path) -> None:
    """An ion is one in each engine: their energies agree to 1e-6 eV, and are not the molecule's."""
    water = molecule("H2O")
    water.set_momenta(np.zeros((3, 3)))
    neutral = energies(omol, water, tmp_path / "neutral")
    water.info |= {"charge": -1, "spin": 2}
    ion = energies(omol, water, tmp_path / "ion")
    assert np.ptp(neutral) < 1e-6
    assert np.ptp(ion) < 1e-6
    assert abs(ion[0] - neutral[0]) > 1e-3


def test_charge_of_a_model_without(tmp_path: Path) -> None:
    atoms = quartz((2, 2, 2))
    atoms.set_momenta(np.zeros((len(atoms), 3)))
    atoms.info["charge"] = 1
    with pytest.warns(Notice, match="charge 1 are set aside"):
        simulate(QUARTZ, atoms, Settings(ensemble="nve", time_fs=1, every=1), tmp_path)


def test_masses_of_one_element(tmp_path: Path) -> None:
    """Atoms of one element may have masses of their own: 20 fs in LAMMPS and OpenMM end where ASE's do, to 5e-8 A."""
    atoms = quartz((2, 2, 2))
    masses = atoms.get_masses()
    masses[:4] += 5.0
    atoms.set_masses(masses)
    atoms.set_velocities(np.random.default_rng(5).normal(scale=0.03, size=(len(atoms), 3)))
    ends = []
    for engine in ENGINES:
        settings = Settings(engine=engine, ensemble="nve", time_fs=20, every=20, precision="float64")  # type: ignore[arg-type]
        ends.append(simulate(QUARTZ, atoms, settings, tmp_path / engine).last.positions)
    assert np.abs(ends[0] - ends[2]).max() < 5e-8
    assert np.abs(ends[1] - ends[2]).max() < 5e-8
