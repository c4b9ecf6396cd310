"""Equation of state: its own parameters come back, and it agrees with the elastic constants."""

from __future__ import annotations

import numpy as np
import pytest
from silicon_reference import CONSTANT, relaxed_silicon

from equistride.data.silicon import silicon
from equistride.errors import EquistrideError
from equistride.properties.eos import EquationOfState, equation_of_state, fit_birch_murnaghan


def test_fit_returns_the_parameters_of_its_own_curve() -> None:
    volumes = np.linspace(18, 22, 7)
    exact = EquationOfState(volumes, volumes, 20.3, -5.4, 97.0, 4.6, 0.0, 1)
    found = fit_birch_murnaghan(volumes, exact.curve(volumes))
    for name in ("volume", "energy", "bulk_modulus", "derivative"):
        assert getattr(found, name) == pytest.approx(getattr(exact, name), rel=1e-8)
    np.testing.assert_allclose(found.curve(volumes), exact.curve(volumes), atol=1e-10)


def test_bulk_modulus_of_silicon_agrees_with_its_elastic_constants() -> None:
    """(C11 + 2 C12) / 3 = 101.4 GPa; the fit over 3 % of volume is good to some tenths."""
    atoms, calculator = relaxed_silicon()
    found = equation_of_state(atoms, calculator, span=0.03, points=7)
    assert found.volume == pytest.approx(CONSTANT**3, rel=1e-4)
    assert found.energy / 8 == pytest.approx(-4.33663, abs=1e-4)
    assert found.bulk_modulus == pytest.approx(101.4, rel=0.005)
    assert 2 < found.derivative < 5
    assert found.residual / 8 < 1e-5


def test_what_cannot_be_fitted() -> None:
    atoms, calculator = relaxed_silicon()
    with pytest.raises(EquistrideError, match="no minimum among the volumes"):
        equation_of_state(silicon(a=6.2), calculator, span=0.02, points=5)
    with pytest.raises(EquistrideError, match="5 volumes or more"):
        equation_of_state(atoms, calculator, points=4)
    with pytest.raises(EquistrideError, match="range of volumes"):
        equation_of_state(atoms, calculator, span=0.9)
    with pytest.raises(EquistrideError, match="5 volumes or more"):
        fit_birch_murnaghan(np.arange(3.0), np.arange(3.0))
    atoms.pbc = False
    with pytest.raises(EquistrideError, match="needs a crystal"):
        equation_of_state(atoms, calculator)
