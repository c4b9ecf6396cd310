"""The teacher of examples/water: its forces, what it refuses, and the boxes that it begins with."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import read

from equistride.units import AVOGADRO
from equistride.user_code import imported

FOLDER = Path(__file__).parents[2] / "examples" / "water"


@pytest.fixture(scope="module")
def teacher() -> ModuleType:
    return imported(str(FOLDER / "spc_fw.py"))


@pytest.fixture
def box() -> Atoms:
    atoms = read(FOLDER / "water64.extxyz")
    assert isinstance(atoms, Atoms)
    return atoms


def test_the_teachers_forces_are_slopes_of_its_energy(teacher: ModuleType, box: Atoms) -> None:
    """OpenMM's CPU platform has float32 forces: 2e-4 of the largest, differences over 0.004 A included."""
    box.calc = teacher.water()
    forces = box.get_forces()
    for atom, axis in ((0, 0), (1, 1), (50, 2), (100, 0)):
        energies = []
        for step in (0.002, -0.002):
            moved = box.copy()
            moved.positions[atom, axis] += step
            moved.calc = box.calc
            energies.append(moved.get_potential_energy())
        slope = (energies[0] - energies[1]) / 0.004
        assert abs(slope + forces[atom, axis]) < 2e-4 * np.abs(forces).max()


def test_the_teacher_knows_water_alone(teacher: ModuleType) -> None:
    with pytest.raises(ValueError, match="each molecule in the order O, H, H"):
        teacher.system_of(bulk("Si"))


def test_a_grid_has_the_density_and_whole_molecules(teacher: ModuleType) -> None:
    atoms = teacher.grid(27)
    assert atoms.get_masses().sum() / atoms.get_volume() / (1e-24 * AVOGADRO) == pytest.approx(0.997, rel=1e-3)
    bonds = atoms.get_distances(0, [1, 2], mic=True)
    assert bonds == pytest.approx([1.012, 1.012], abs=1e-6)
    assert atoms.get_angle(1, 0, 2, mic=True) == pytest.approx(113.24, abs=1e-4)
