"""A region under a model inside a force field: its energy is the sum of its parts, on the way between the two as well."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openmm
import pytest
from finite_differences import force_on
from mixed_systems import ELEMENTS, ETHANOL, GROUP, METHANOL, SPREAD, ethanols, force_field, place, with_caps
from openmm import app, unit
from openmm_systems import energy_forces
from openmmml import MLPotential

from equistride.artifact import load
from equistride.units import KJ_MOL_PER_EV

TWO = np.concatenate([ETHANOL, ETHANOL + SPREAD])
"""A: a region, and what stands for its water."""
WHOLE = list(range(9))


def inside(system: openmm.System, region: list[int]) -> openmm.System:
    """Return the force field's terms whose atoms all belong to the region, in a System of all atoms."""
    kept, made = set(region), openmm.System()
    for k in range(system.getNumParticles()):
        made.addParticle(system.getParticleMass(k))
    bonds, angles, torsions, pairs = system.getForces()
    for force, kind, atoms in ((bonds, "Bond", 2), (angles, "Angle", 3), (torsions, "Torsion", 4)):
        term, get = type(force)(), getattr(force, f"get{kind}Parameters")
        for k in range(getattr(force, f"getNum{kind}s")()):
            values = get(k)
            if set(values[:atoms]) <= kept:
                getattr(term, f"add{kind}")(*values)
        made.addForce(term)
    charges = openmm.NonbondedForce()
    for k in range(pairs.getNumParticles()):
        charge, sigma, epsilon = pairs.getParticleParameters(k)
        charges.addParticle(charge if k in kept else 0.0, sigma, epsilon if k in kept else 0.0)
    for k in range(pairs.getNumExceptions()):
        values = pairs.getExceptionParameters(k)
        if set(values[:2]) <= kept:
            charges.addException(*values)
    made.addForce(charges)
    return made


def energy(system: openmm.System, positions: np.ndarray, scale: float | None = None) -> float:
    """Return the potential energy [kJ/mol] at positions [A]."""
    context = with_caps(system, positions)
    if scale is not None:
        context.setParameter("lambda_interpolate", scale)
    return energy_forces(context)[0]


def mixed(artifact: Path, region: list[int], interpolate: bool) -> openmm.System:
    topology, _ = ethanols(2)
    return MLPotential("equistride", modelPath=artifact).createMixedSystem(
        topology, force_field(topology), region, forceGroup=GROUP, interpolate=interpolate
    )


def of_model(artifact: Path) -> float:
    """Return what the model says of the region alone [kJ/mol]."""
    found = load(artifact).compute(ETHANOL, list(ELEMENTS))
    return float(found.atomic_energies.sum()) * KJ_MOL_PER_EV


def test_a_molecule_is_the_sum_of_its_parts(hco: Path) -> None:
    """The force field without its terms inside the molecule, and the model's energy of the molecule alone."""
    topology, _ = ethanols(2)
    field = force_field(topology)
    expected = energy(field, TWO) - energy(inside(field, WHOLE), TWO) + of_model(hco)
    assert energy(mixed(hco, WHOLE, False), TWO) == pytest.approx(expected, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("region", [WHOLE, METHANOL], ids=["molecule", "link atom"])
@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0])
def test_the_way_from_the_force_field_to_the_model(hco: Path, region: list[int], scale: float) -> None:
    """``lambda_interpolate``: 0 is the force field alone, 1 the mixed System, between them it is linear; forces follow."""
    topology, _ = ethanols(2)
    ends = energy(force_field(topology), TWO), energy(mixed(hco, region, False), TWO)
    system = mixed(hco, region, True)
    context = with_caps(system, TWO)
    context.setParameter("lambda_interpolate", scale)
    found, forces = energy_forces(context)
    assert found == pytest.approx((1 - scale) * ends[0] + scale * ends[1], rel=1e-6, abs=1e-6)

    def at(positions: np.ndarray) -> float:
        place(context, positions * 10)
        return context.getState(energy=True).getPotentialEnergy()._value

    # of fourth order at 2e-5 nm, as in test_link_atoms.py
    slopes = [force_on(at, TWO / 10, atom, axis, 2e-5) for atom in (0, 1, 2, 8) for axis in range(3)]
    assert np.abs(forces[[0, 1, 2, 8]].ravel() - slopes).max() < 1e-8 * np.abs(forces).max()


def test_a_barostat_scales_molecules(hco: Path) -> None:
    """NPT: the box changes, the energy stays a number, and no molecule is torn."""
    box = 25.0
    topology, _ = ethanols(2, box)
    system = MLPotential("equistride", modelPath=hco).createMixedSystem(topology, force_field(topology), WHOLE)
    system.addForce(openmm.MonteCarloBarostat(50 * unit.bar, 300 * unit.kelvin, 2))
    bath = openmm.LangevinMiddleIntegrator(300 * unit.kelvin, 5 / unit.picosecond, 0.5 * unit.femtosecond)
    bath.setRandomNumberSeed(1)
    run = app.Simulation(topology, system, bath, openmm.Platform.getPlatformByName("Reference"))
    place(run.context, TWO)
    run.minimizeEnergy(maxIterations=20)
    run.step(100)
    state = run.context.getState(energy=True, positions=True)
    assert state.getPeriodicBoxVolume() != (box / 10) ** 3 * unit.nanometer**3
    assert np.isfinite(state.getPotentialEnergy()._value)
    positions = np.array(state.getPositions()._value)[:18]
    joined = np.array([(b.atom1.index, b.atom2.index) for b in topology.bonds()])
    assert np.linalg.norm(positions[joined[:, 0]] - positions[joined[:, 1]], axis=1).max() < 0.4  # nm; random weights
