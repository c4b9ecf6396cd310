"""Elastic constants and relaxation: published values, the stress of a strained cell, symmetry, bad input."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.lj import LennardJones
from finite_differences import force_on
from silicon_reference import CONSTANT, relaxed_silicon

from equistride.cell import lower_triangular
from equistride.data.quartz import quartz
from equistride.data.reference import ReferenceCalculator
from equistride.data.silicon import repeats_for, silicon
from equistride.errors import EquistrideError
from equistride.properties.elastic import Elastic, elastic_constants
from equistride.properties.relax import relax, stress_of


@pytest.fixture(scope="module")
def constants() -> Elastic:
    return elastic_constants(*relaxed_silicon())


def test_silicon_has_its_published_constants(constants: Elastic) -> None:
    """Balamane, Halicioglu & Tiller, Phys. Rev. B 46, 2250 (1992): C11 151.4, C12 76.4, C44 56.4, unrelaxed C44 109.8 GPa."""
    c = constants.constants
    assert c[0, 0] == pytest.approx(151.4, abs=0.1)
    assert c[0, 1] == pytest.approx(76.4, abs=0.1)
    assert c[3, 3] == pytest.approx(56.4, abs=0.1)
    assert constants.clamped[3, 3] == pytest.approx(109.8, abs=0.1)
    assert constants.bulk_modulus == pytest.approx((151.4 + 2 * 76.4) / 3, abs=0.1)
    assert constants.stable


def test_constants_have_the_symmetry_of_the_crystal(constants: Elastic) -> None:
    c = constants.constants
    for block, value in ((c[:3, :3].diagonal(), c[0, 0]), (c[3:, 3:].diagonal(), c[3, 3]), (c[0, 1:3], c[0, 1])):
        np.testing.assert_allclose(block, value, atol=1e-3)
    assert np.abs(c[:3, 3:]).max() < 1e-3
    assert constants.asymmetry < 1e-3


def test_averages_of_an_isotropic_solid() -> None:
    """With C44 = (C11 - C12)/2 Voigt and Reuss agree, and Young's modulus is that of a bar."""
    lame, shear = 50.0, 30.0
    c = np.diag([2 * shear] * 3 + [shear] * 3)
    c[:3, :3] += lame
    found = Elastic(c, c, 0.0, np.zeros(6)).averages()
    assert found["shear_voigt"] == pytest.approx(shear)
    assert found["shear_reuss"] == pytest.approx(shear)
    assert found["bulk_hill"] == pytest.approx(lame + 2 * shear / 3)
    assert found["young_hill"] == pytest.approx(shear * (3 * lame + 2 * shear) / (lame + shear))
    assert found["poisson_hill"] == pytest.approx(lame / (2 * (lame + shear)))


def test_trigonal_quartz_has_six_constants() -> None:
    calculator = ReferenceCalculator("SiO.1990.vashishta")
    c = elastic_constants(relax(quartz(), calculator).atoms, calculator).constants
    assert c[5, 5] == pytest.approx((c[0, 0] - c[0, 1]) / 2, rel=0.03)
    assert c[0, 3] == pytest.approx(-c[1, 3], rel=0.03)
    assert c[0, 3] == pytest.approx(c[4, 5], rel=0.03)
    assert c[2, 2] > c[0, 0] > c[5, 5] > 0


def test_relaxation_finds_the_lattice_constant_and_the_pressure() -> None:
    atoms, calculator = silicon(a=5.3), ReferenceCalculator("Si.sw")
    atoms.rattle(0.05, seed=1)
    before = atoms.positions.copy()
    found = relax(atoms, calculator)
    np.testing.assert_allclose(found.atoms.cell.lengths(), CONSTANT, atol=1e-4)
    assert found.energy / 8 == pytest.approx(-4.33663, abs=1e-4)  # 2 eV epsilon of the potential: 2 bonds an atom
    assert np.abs(found.stress).max() < 0.01
    assert found.energies[0] > found.energies[-1]
    np.testing.assert_array_equal(atoms.positions, before)
    pressed = relax(silicon(), calculator, pressure=3.0)
    np.testing.assert_allclose(pressed.stress[:3], -3.0, atol=0.01)
    kept = relax(silicon(a=5.3), calculator, cell="shape")
    assert kept.atoms.get_volume() == pytest.approx(5.3**3, rel=1e-9)


def test_symmetry_is_kept_and_constraints_come_back() -> None:
    pytest.importorskip("spglib")
    found = relax(silicon(a=5.5), ReferenceCalculator("Si.sw"), symmetry=True)
    np.testing.assert_allclose(found.atoms.get_scaled_positions(), silicon().get_scaled_positions(), atol=1e-9)
    assert found.atoms.constraints == []


def test_reference_calculator_is_a_potential_in_any_orientation() -> None:
    atoms, calculator = relaxed_silicon()
    atoms.rattle(0.1, seed=2)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.02 * np.array([[1, 0.3, 0], [0.1, 0, 0.2], [0, 0.5, -1]])), True)
    atoms.calc = calculator
    energy, forces, stress = atoms.get_potential_energy(), atoms.get_forces(), stress_of(atoms)
    turned = atoms.copy()
    turned.rotate(37, (1, 2, 3), rotate_cell=True)
    turned.calc = ReferenceCalculator("Si.sw")
    assert turned.get_potential_energy() == pytest.approx(energy, abs=1e-10)
    np.testing.assert_allclose(np.linalg.norm(turned.get_forces(), axis=1), np.linalg.norm(forces, axis=1), atol=1e-10)
    assert stress_of(turned)[:3].sum() == pytest.approx(stress[:3].sum(), abs=1e-8)

    def at(positions: np.ndarray) -> float:
        atoms.positions = positions
        return atoms.get_potential_energy()

    assert force_on(at, atoms.positions.copy(), 3, 1) == pytest.approx(forces[3, 1], abs=1e-6)
    lower, rotation = lower_triangular(turned.cell.array)
    np.testing.assert_allclose(turned.cell.array @ rotation, lower, atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1)


def test_what_cannot_be_done() -> None:
    atoms, calculator = relaxed_silicon()
    with pytest.raises(EquistrideError, match=r"need a relaxed structure.*relax it"):
        elastic_constants(silicon(a=5.6), calculator)
    with pytest.raises(EquistrideError, match="the strain must be small"):
        elastic_constants(atoms, calculator, strain=0.5)
    with pytest.raises(EquistrideError, match="did not converge in 2 steps"):
        relax(silicon(a=5.0), calculator, steps=2)
    molecule = Atoms("Ar2", [[0, 0, 0], [0, 0, 3.5]])
    with pytest.raises(EquistrideError, match="periodic along three axes"):
        relax(molecule, LennardJones())
    with pytest.raises(EquistrideError, match="need a crystal"):
        elastic_constants(molecule, LennardJones())
    with pytest.raises(EquistrideError, match="needs a step"):
        relax(molecule, LennardJones(), cell="fixed", steps=0)
    assert relax(molecule, LennardJones(epsilon=0.01, sigma=3.4), cell="fixed").max_force < 1e-4
    molecule.calc = calculator
    with pytest.raises(EquistrideError, match="periodic system"):
        molecule.get_potential_energy()
    with pytest.raises(EquistrideError, match="no potential file"):
        ReferenceCalculator("../Si.sw")
    with pytest.raises(EquistrideError, match="a cubic cell of silicon cannot have 100 atoms"):
        repeats_for(100)
