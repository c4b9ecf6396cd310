"""Thermal conductivity: phono3py's own numbers, symmetry, temperature, bad input."""

from __future__ import annotations

import numpy as np
import pytest
from silicon_reference import relaxed_silicon

pytest.importorskip("phono3py", reason="phono3py is not installed: pip install 'equistride[properties]'")

from equistride.data.silicon import silicon
from equistride.errors import EquistrideError
from equistride.properties.conductivity import Conductivity, thermal_conductivity


@pytest.fixture(scope="module")
def silicon_conductivity() -> Conductivity:
    return thermal_conductivity(*relaxed_silicon(), supercell=(2, 2, 2), mesh=(5, 5, 5), temperatures=(300.0, 600.0))


def test_conductivity_of_silicon_is_isotropic_and_falls(silicon_conductivity: Conductivity) -> None:
    found = silicon_conductivity
    np.testing.assert_allclose(found.tensor[:, :3], found.mean[:, None].repeat(3, 1), rtol=1e-6)
    assert np.abs(found.tensor[:, 3:]).max() < 1e-6 * found.mean.max()
    assert found.mean[0] / found.mean[1] == pytest.approx(2.1, abs=0.25)  # about 1/T, where three phonons scatter
    assert found.cumulative[-1] == pytest.approx(found.mean[0])
    assert np.diff(found.cumulative).min() > -1e-9
    assert found.supercells == 111


def test_isotopes_resist_and_the_whole_equation_conducts_more() -> None:
    setting = {"supercell": (1, 1, 1), "mesh": (4, 4, 4)}
    atoms, calculator = relaxed_silicon()
    plain = thermal_conductivity(atoms, calculator, **setting)  # type: ignore[arg-type]
    mixed = thermal_conductivity(atoms, calculator, isotopes=True, **setting)  # type: ignore[arg-type]
    assert mixed.mean[0] < plain.mean[0]


def test_a_cutoff_of_pairs_leaves_out_supercells() -> None:
    setting = {"supercell": (1, 1, 1), "mesh": (2, 2, 2)}
    near, all_ = (
        thermal_conductivity(*relaxed_silicon(), pair_cutoff=cutoff, **setting)  # type: ignore[arg-type]
        for cutoff in (3.0, None)
    )
    assert near.supercells < all_.supercells
    assert near.mean[0] > 0


@pytest.mark.slow
def test_silicon_converges_to_what_phono3py_gives() -> None:
    """64 atoms, all pairs, a mesh of 11: 501 W/m/K in the relaxation-time approximation (phono3py 4.8.2)."""
    found = thermal_conductivity(*relaxed_silicon(), supercell=(2, 2, 2), mesh=(11, 11, 11))
    assert found.supercells == 111
    assert found.mean[0] == pytest.approx(501, rel=0.01)


def test_what_is_refused() -> None:
    atoms, calculator = relaxed_silicon()
    with pytest.raises(EquistrideError, match="temperatures must be positive"):
        thermal_conductivity(atoms, calculator, temperatures=(0.0,))
    with pytest.raises(EquistrideError, match="the mesh is not valid"):
        thermal_conductivity(atoms, calculator, mesh=(0, 1, 1))
    with pytest.raises(EquistrideError, match="method is not known"):
        thermal_conductivity(atoms, calculator, method="guess")  # type: ignore[arg-type]
    with pytest.raises(EquistrideError, match="imaginary modes"):
        thermal_conductivity(silicon(a=7.0), calculator, supercell=(1, 1, 1), mesh=(2, 2, 2), pair_cutoff=3.0)
