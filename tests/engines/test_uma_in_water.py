"""A model of one composition, charge and spin, as UMA's are, for a molecule in water through openmm-ml."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path

import numpy as np
import openmm
import pytest
from mixed_systems import ELEMENTS, ETHANOL, GROUP, ethanols, force_field
from openmm import app, unit
from openmmml import MLPotential
from random_models import random_potential

from equistride.artifact import load
from equistride.artifact.export import save_potential
from equistride.artifact.metadata import Composition
from equistride.errors import EquistrideError
from equistride.importers.fairchem import import_fairchem
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


Solution = tuple[app.Topology, openmm.System, np.ndarray]


@pytest.fixture(scope="module")
def solution() -> Solution:
    """Ethanol under its own force field in waters of TIP3P: topology, System, positions [n, 3] nm."""
    topology, positions = ethanols(1, 30.0)
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


def without_the_molecule(system: openmm.System) -> openmm.System:
    """Return the force field with ethanol's charges, which water feels, and nothing between its own atoms."""
    made = copy.deepcopy(system)
    for k in reversed(range(made.getNumForces())):
        force = made.getForce(k)
        if not isinstance(force, openmm.NonbondedForce):
            made.removeForce(k)
            continue
        for first, second in itertools.combinations(range(len(ELEMENTS)), 2):
            force.addException(first, second, 0.0, 1.0, 0.0, replace=True)
    return made


@pytest.fixture(scope="module", params=["random weights", "fairchem's file"])
def bound(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that holds for ethanol of charge 0 alone."""
    path = tmp_path_factory.mktemp("uma") / "uma.pt"
    composition = Composition(elements={"H": 6, "C": 2, "O": 1})
    if request.param == "random weights":
        save_potential(random_potential(0, ["H", "C", "O"], **SIZES), ESENConfig.model_validate(SIZES), path, dtype="float64",
                       fused=True, provenance={}, system={"charge": 0.0, "spin": 1.0}, composition=composition)  # fmt: skip
        return path
    file = request.getfixturevalue("shared_data") / "golden-uma" / "uma121_L2M2.pt"
    if not file.is_file():
        pytest.skip(f"no UMA checkpoints of fairchem in {file.parent}")
    import_fairchem(file, path, dataset="omol", charge=0, composition=composition.elements, dtype="float64")
    return path


def test_the_molecule_alone_is_held_to_the_composition(bound: Path, solution: Solution) -> None:
    """Energies are the sum of the parts. The water's atoms are the force field's business; a region with one of them, or of
    them, is refused."""
    topology, system, everywhere = solution
    assert topology.getNumAtoms() == 9 + 3 * WATERS
    platform = openmm.Platform.getPlatformByName("CPU")

    def energies(system: openmm.System) -> tuple[float, float]:
        """Of all and of the model, eV."""
        context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
        context.setPositions(everywhere)
        states = (context.getState(energy=True), context.getState(energy=True, groups={GROUP}))
        whole, model = (state.getPotentialEnergy()._value * EV_PER_KJ_MOL for state in states)
        return whole, model

    def mixed(region: range) -> openmm.System:
        return MLPotential("equistride", modelPath=bound).createMixedSystem(
            topology, system, list(region), forceGroup=GROUP
        )

    expected = float(load(bound, charge=0, spin=1).compute(ETHANOL, list(ELEMENTS)).atomic_energies.sum())
    whole, model = energies(mixed(range(9)))
    assert model == pytest.approx(expected, rel=1e-6)  # positions on this platform are float32
    rest, _ = energies(without_the_molecule(system))
    # and so are the energies that it sums
    assert whole - model == pytest.approx(rest, rel=1e-5, abs=1e-4)
    for region, found in ((range(12), "H8C2O2"), (range(9, 12), "H2O1")):
        with pytest.raises((EquistrideError, openmm.OpenMMException), match=f"expected H6C2O1; found {found}"):
            energies(mixed(region))
