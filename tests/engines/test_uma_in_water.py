"""A model of one composition, charge and spin, as UMA's are, for a molecule in water through openmm-ml."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openmm
import pytest
from mixed_systems import ELEMENTS, ethanols, force_field
from openmm import app, unit
from openmmml import MLPotential
from random_models import random_potential

from equistride.artifact import load
from equistride.artifact.export import save_potential
from equistride.artifact.metadata import Composition
from equistride.errors import EquistrideError
from equistride.models.esen import ESENConfig
from equistride.units import EV_PER_KJ_MOL

SIZES = {
    "cutoff": 4.0,
    "num_layers": 1,
    "channels": 8,
    "hidden_channels": 8,
    "edge_channels": 8,
    "charge_channels": (1, 2),
}
WATERS = 500


def solvated(topology: app.Topology, positions: np.ndarray) -> tuple[app.Topology, openmm.System, np.ndarray]:
    """Return ethanol under its own force field in waters of TIP3P: topology, System, positions [n, 3] nm."""
    water = app.ForceField("tip3p.xml")
    bath = app.Modeller(app.Topology(), [] * unit.nanometer)
    bath.addSolvent(water, model="tip3p", numAdded=WATERS)
    topology.setPeriodicBoxVectors(bath.topology.getPeriodicBoxVectors())
    system, of_water = force_field(topology), water.createSystem(bath.topology)
    pairs = next(f for f in system.getForces() if isinstance(f, openmm.NonbondedForce))
    theirs = next(f for f in of_water.getForces() if isinstance(f, openmm.NonbondedForce))
    first = system.getNumParticles()
    for k in range(of_water.getNumParticles()):
        system.addParticle(of_water.getParticleMass(k))
        pairs.addParticle(*theirs.getParticleParameters(k))
    for k in range(theirs.getNumExceptions()):
        i, j, *terms = theirs.getExceptionParameters(k)
        pairs.addException(i + first, j + first, *terms)
    for k in range(of_water.getNumConstraints()):
        i, j, length = of_water.getConstraintParameters(k)
        system.addConstraint(i + first, j + first, length)
    both = app.Modeller(topology, positions / 10 * unit.nanometer)
    both.add(bath.topology, bath.positions)
    of_bath = np.array(bath.getPositions().value_in_unit(unit.nanometer))
    inside = positions / 10 + (of_bath.mean(0) - positions.mean(0) / 10)
    return both.topology, system, np.concatenate([inside, of_bath])


def test_the_molecule_alone_is_held_to_the_composition(tmp_path: Path) -> None:
    """The water's atoms are the force field's business; a region with one of them is refused."""
    path = tmp_path / "uma.pt"
    composition = Composition(elements={"H": 6, "C": 2, "O": 1})
    save_potential(random_potential(0, ["H", "C", "O"], **SIZES), ESENConfig.model_validate(SIZES), path, dtype="float64",
                   fused=True, provenance={}, system={"charge": 0.0, "spin": 1.0}, composition=composition)  # fmt: skip
    bare, positions = ethanols(1, 30.0)
    topology, system, everywhere = solvated(bare, positions)
    assert topology.getNumAtoms() == 9 + 3 * WATERS

    def energy(region: range) -> float:
        """Of the model alone, eV."""
        mixed = MLPotential("equistride", modelPath=path).createMixedSystem(
            topology, system, list(region), forceGroup=5
        )
        context = openmm.Context(mixed, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("CPU"))
        context.setPositions(everywhere)
        return context.getState(energy=True, groups={5}).getPotentialEnergy()._value * EV_PER_KJ_MOL

    expected = load(path, charge=0, spin=1).compute(positions, list(ELEMENTS)).atomic_energies.sum()
    assert energy(range(9)) == pytest.approx(float(expected), rel=1e-6)  # positions on this platform are float32
    with pytest.raises((EquistrideError, openmm.OpenMMException), match="expected H6C2O1; found H8C2O2"):
        energy(range(12))
