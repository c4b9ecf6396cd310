"""Phonons: the sum rule, a published frequency, phonopy's own numbers, sound from elastic constants, bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from silicon_reference import CONSTANT, relaxed_silicon

pytest.importorskip("phonopy", reason="phonopy is not installed: pip install 'equistride[properties]'")

from equistride.data.quartz import quartz
from equistride.data.reference import ReferenceCalculator
from equistride.data.silicon import silicon
from equistride.errors import EquistrideError
from equistride.properties.lattice import require, supercell_for
from equistride.properties.phonons import Phonons, frequency_error, phonons
from equistride.units import ATOMIC_MASS, AVOGADRO, BOLTZMANN_SI


@pytest.fixture(scope="module")
def silicon_phonons() -> Phonons:
    return phonons(*relaxed_silicon(), supercell=(2, 2, 2))


def test_gamma_of_silicon(silicon_phonons: Phonons) -> None:
    """Three modes at rest, and the optical one of the potential, at 17.83 THz (595 cm-1, as in the literature; measured 15.5)."""
    acoustic, optical = np.split(silicon_phonons.at([[0, 0, 0]])[0], 2)
    np.testing.assert_allclose(acoustic, 0, atol=1e-5)
    np.testing.assert_allclose(optical, 17.83, atol=0.01)
    assert silicon_phonons.sum_rule < 1e-3  # eV/A^2, of some 20
    assert silicon_phonons.imaginary((4, 4, 4)) == 0


def test_slope_at_gamma_is_the_speed_of_sound() -> None:
    """Along [100] rho v^2 is C11 for the longitudinal and C44 for the transverse modes."""
    found = phonons(*relaxed_silicon(), supercell=(3, 3, 3))
    q, a = 0.02, CONSTANT
    # the conventional [q 0 0] in the coordinates of the primitive cell
    reduced = found.phonopy.primitive.cell @ np.array([q / a, 0, 0])
    speed = found.at([reduced])[0][:3] * 1e12 / (q / a * 1e10)
    density = 8 * 28.085 * ATOMIC_MASS / (a * 1e-10) ** 3
    np.testing.assert_allclose(density * speed**2 * 1e-9, [56.4, 56.4, 151.4], rtol=0.02)


def test_mesh_density_and_heat_capacity(silicon_phonons: Phonons) -> None:
    assert silicon_phonons.mesh((3, 4, 5)).shape == (60, 6)
    density = silicon_phonons.density((8, 8, 8))
    assert np.trapezoid(density.total, density.frequency) == pytest.approx(6, abs=0.05)
    np.testing.assert_allclose(density.by_element["Si"], density.total)
    thermal = silicon_phonons.thermal((8, 8, 8), [5.0, 300.0, 5000.0])
    assert thermal.heat_capacity[0] < 0.1
    assert thermal.heat_capacity[2] == pytest.approx(6 * BOLTZMANN_SI * AVOGADRO, rel=5e-3)  # Dulong and Petit
    assert (np.diff(thermal.free_energy) < 0).all()


def test_bands_follow_the_path(silicon_phonons: Phonons) -> None:
    bands = silicon_phonons.bands(10)
    assert bands.ticks[0] == (0.0, "G")
    assert "|" in "".join(name for _, name in bands.ticks)
    x = next(d for d, n in bands.ticks if n == "X")
    assert x == pytest.approx(1 / CONSTANT, rel=1e-6)  # from Gamma to X, without 2 pi
    np.testing.assert_allclose(bands.frequencies[0][0], silicon_phonons.at([[0, 0, 0]])[0], atol=1e-5)
    assert all(len(d) == len(f) for d, f in zip(bands.distance, bands.frequencies, strict=True))


def test_phonopy_reads_what_is_saved(silicon_phonons: Phonons, tmp_path: Path) -> None:
    """Displacements, forces and force constants in the file give the same frequencies in phonopy by itself."""
    phonopy = require("phonopy")
    silicon_phonons.save(tmp_path / "phonopy.yaml")
    own = phonopy.load(str(tmp_path / "phonopy.yaml"), log_level=0)
    own.run_qpoints([[0.1, 0.2, 0.3]])
    np.testing.assert_allclose(own.qpoints.frequencies, silicon_phonons.at([[0.1, 0.2, 0.3]]), atol=1e-5)


def test_another_potential_differs_and_another_crystal_is_refused(silicon_phonons: Phonons) -> None:
    same = frequency_error(silicon_phonons, silicon_phonons)
    assert same["mean_absolute"] == 0
    stretched = phonons(silicon(a=5.45), ReferenceCalculator("Si.sw"), supercell=(2, 2, 2))
    error = frequency_error(stretched, silicon_phonons)
    assert error["mean"] < 0 < error["mean_absolute"] <= error["root_mean_square"] <= error["largest"] < 1
    other = phonons(quartz(), ReferenceCalculator("SiO.1990.vashishta"), supercell=(1, 1, 1))
    with pytest.raises(EquistrideError, match="only where both are of one crystal"):
        frequency_error(other, silicon_phonons)


def test_imaginary_modes_are_seen() -> None:
    """Silicon falls apart where its bonds are stretched past the inflection of the potential."""
    found = phonons(silicon(a=7.0), ReferenceCalculator("Si.sw"), supercell=(1, 1, 1))
    assert found.imaginary((2, 2, 2)) > 0.1


def test_what_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    atoms, calculator = relaxed_silicon()
    assert supercell_for(atoms) == (2, 2, 2)
    assert supercell_for(quartz()) == (3, 3, 2)
    with pytest.raises(EquistrideError, match="supercell is not valid"):
        phonons(atoms, calculator, supercell=(0, 1, 1))
    with pytest.raises(EquistrideError, match="displacement must be small"):
        phonons(atoms, calculator, displacement=2.0)
    open_ = atoms.copy()
    open_.pbc = False
    with pytest.raises(EquistrideError, match="phonons need a crystal"):
        phonons(open_, calculator, supercell=(1, 1, 1))
    with pytest.raises(EquistrideError, match=r"pip install 'equistride\[properties\]'"):
        require("phonopy_that_is_not_there")
