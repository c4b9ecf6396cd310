"""The released silicon potential beside its teacher: lattice constant, phonons, thermal conductivity."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("phono3py", reason="phono3py is not installed: pip install 'equistride[properties]'")

from equistride.data.reference import ReferenceCalculator
from equistride.data.silicon import silicon
from equistride.engines.ase import EquistrideCalculator
from equistride.properties.conductivity import thermal_conductivity
from equistride.properties.phonons import frequency_error, phonons
from equistride.properties.relax import relax

MODEL = Path(__file__).parents[2] / "models" / "silicon-esen" / "silicon-esen.pt"


def test_phonons_are_those_of_the_teacher() -> None:
    model, teacher = EquistrideCalculator(MODEL, dtype="float64"), ReferenceCalculator("Si.sw")
    own, other = (relax(silicon(), c, max_force=1e-3).atoms for c in (model, teacher))
    assert own.cell.lengths()[0] == pytest.approx(other.cell.lengths()[0], rel=1e-3)
    found = phonons(own, model, supercell=(2, 2, 2))
    assert found.imaginary((4, 4, 4)) == 0
    error = frequency_error(found, phonons(other, teacher, supercell=(2, 2, 2)))
    assert error["mean_absolute"] <= 0.05


@pytest.mark.slow
def test_conductivity_is_that_of_the_teacher() -> None:
    """64 atoms, relaxation times, a mesh of 9: within 15 %."""
    kappa = []
    for calculator in (EquistrideCalculator(MODEL, dtype="float64"), ReferenceCalculator("Si.sw")):
        atoms = relax(silicon(), calculator).atoms
        kappa.append(thermal_conductivity(atoms, calculator, supercell=(2, 2, 2), mesh=(9, 9, 9)).mean[0])
    assert kappa[0] == pytest.approx(kappa[1], rel=0.15)
