"""Time steps by the fastest vibration: found as the Hessian has it, short enough that a good molecule passes."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.morse import MorsePotential

from equistride.conservation.nve import Setting, conservation
from equistride.conservation.steps import highest_frequency, scaling_steps, too_long
from equistride.engines.nve import ASEVerlet
from equistride.units import ACCELERATION

STIFF = {"epsilon": 4.75, "r0": 0.741, "rho0": 1.44, "rcut1": 3.0, "rcut2": 4.0}
"""Hydrogen's bond: 4,400 cm-1."""


def hydrogen(mass: float = 1.008) -> Atoms:
    return Atoms("H2", [[0, 0, 0], [0, 0, 0.741]], masses=[mass] * 2)


@pytest.mark.parametrize("mass", [1.008, 2.014])
def test_the_frequency_of_a_bond(mass: float) -> None:
    """sqrt(k / mu) with Morse's k = 2 eps (rho0 / r0)^2; deuterium is slower by the root of two."""
    stiffness = 2 * STIFF["epsilon"] * (STIFF["rho0"] / STIFF["r0"]) ** 2
    expected = np.sqrt(ACCELERATION * stiffness / (mass / 2))
    # differences over 0.01 A miss the quartic term by 1e-3
    assert highest_frequency(hydrogen(mass), MorsePotential(**STIFF)) == pytest.approx(expected, rel=5e-3)


def test_the_frequency_of_a_crystal() -> None:
    """As all eigenvalues of the Hessian have it, to a per cent, with a quarter of its evaluations."""
    atoms = bulk("Cu", cubic=True).repeat((2, 1, 1))
    atoms.rattle(0.02, seed=1)
    size = 3 * len(atoms)
    hessian = np.zeros((size, size))
    for k in range(size):
        ends = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions.ravel()[k] += sign * 0.01
            moved.calc = EMT()
            ends.append(moved.get_forces().ravel())
        hessian[k] = (ends[1] - ends[0]) / 0.02
    masses = np.repeat(atoms.get_masses(), 3)
    square = np.linalg.eigvalsh((hessian + hessian.T) / 2 * ACCELERATION / np.sqrt(masses[:, None] * masses))[-1]
    assert highest_frequency(atoms, EMT()) == pytest.approx(square**0.5, rel=0.01)


def test_steps_by_frequency() -> None:
    """40 THz of quartz, 3,700 cm-1 of O-H, argon, and an atom that nothing holds."""
    assert scaling_steps(2 * np.pi * 0.040) == (0.5, 1.0, 2.0)
    assert scaling_steps(2 * np.pi * 3700 * 2.9979e-5) == (0.125, 0.25, 0.5)
    assert scaling_steps(0.01) == scaling_steps(0.0) == (0.5, 1.0, 2.0)
    (note,) = too_long(2 * np.pi * 3700 * 2.9979e-5, {0.5, 1.0, 2.0})
    assert "a period of 9.0 fs (3700 cm-1), which 2 fs does not follow; steps of 0.79 fs or less do" in note
    assert too_long(2 * np.pi * 0.040, {0.5, 1.0, 2.0}) == []


def test_a_good_molecule_passes() -> None:
    """At the steps chosen; at those for crystals the same molecule fails, though its forces are an exact gradient."""
    calculator, verlet = MorsePotential(**STIFF), ASEVerlet(MorsePotential(**STIFF))
    steps = scaling_steps(highest_frequency(hydrogen(), calculator))
    chosen = conservation(hydrogen(), calculator, verlet, Setting(time=1.0, timesteps=steps, timestep=steps[1]))
    assert chosen.exponent_passed, chosen.summary()
    assert chosen.drift_verdict != "fail"
    blind = conservation(hydrogen(), calculator, verlet, Setting(time=1.0))
    assert not blind.exponent_passed


def test_held_atoms_make_no_test() -> None:
    from ase.constraints import FixAtoms

    from equistride.errors import EquistrideError

    held = hydrogen()
    held.set_constraint(FixAtoms([0]))
    with pytest.raises(
        EquistrideError, match=r"energy conservation of atoms that are held would be wrong; .* found FixAtoms"
    ):
        conservation(held, MorsePotential(**STIFF), ASEVerlet(MorsePotential(**STIFF)), Setting())
