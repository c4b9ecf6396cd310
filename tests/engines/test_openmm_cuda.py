"""OpenMM's CUDA platform gives the numbers of Reference; needs a GPU, a CUDA torch, openmm's CUDA wheel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openmm
import pytest
import torch
from mixed_systems import METHANOL, ethanols, force_field, place
from openmm_systems import Structure, energy_forces
from openmmml import MLPotential
from random_models import random_potential, write_artifact
from torch import Tensor, nn

from equistride.engines.openmm import Force, create_system

pytestmark = pytest.mark.cuda

# The fixed-point force buffer resolves 2^-32; single precision keeps positions to 6e-8 of the box.
TOLERANCE = {"double": 1e-8, "mixed": 1e-5, "single": 1e-4}


def on(system: openmm.System, positions: np.ndarray, platform: str, precision: str = "double") -> openmm.Context:
    """A Context at positions [n, 3] in A."""
    names = [openmm.Platform.getPlatform(i).getName() for i in range(openmm.Platform.getNumPlatforms())]
    if platform not in names or not torch.cuda.is_available():
        pytest.skip("needs a GPU, a torch with CUDA and pip install openmm-cuda-13 (or -12)")
    options = {"Precision": precision} if platform == "CUDA" else {}
    made = openmm.Context(system, openmm.VerletIntegrator(0.0005), openmm.Platform.getPlatformByName(platform), options)
    made.setPositions(positions / 10)
    return made


def assert_same(system: openmm.System, positions: np.ndarray, precision: str) -> None:
    """Compare CUDA with Reference."""
    energy, forces = energy_forces(on(system, positions, "Reference"))
    found = energy_forces(on(system, positions, "CUDA", precision))
    assert found[0] == pytest.approx(energy, rel=TOLERANCE[precision])
    assert np.abs(found[1] - forces).max() <= TOLERANCE[precision] * np.abs(forces).max()


@pytest.mark.parametrize("precision", ["double", "mixed", "single"])
@pytest.mark.parametrize("shape", ["molecule", "crystal", "skewed"])
def test_artifact(shape: str, precision: str, artifact64: Path, request: pytest.FixtureRequest) -> None:
    structure: Structure = request.getfixturevalue(shape)
    system = create_system(artifact64, structure.topology, backend="plugin")
    assert_same(system, structure.positions, precision)


def test_some_of_the_atoms(artifact64: Path, crystal: Structure) -> None:
    system = create_system(artifact64, crystal.topology, atoms=[21, 3, 4, 17, 9], backend="plugin")
    assert_same(system, crystal.positions, "double")


def beside_a_cutoff(artifact: Path, crystal: Structure) -> openmm.System:
    """A model without a box beside a force for which OpenMM wraps atoms into the box."""
    system = create_system(artifact, crystal.topology, backend="plugin", periodic=False)
    other = openmm.NonbondedForce()
    other.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    other.setCutoffDistance(0.4)
    for _ in range(system.getNumParticles()):
        other.addParticle(0.0, 0.1, 0.0)
    system.addForce(other)
    return system


def test_a_model_without_a_box_in_a_system_with_one(artifact64: Path, crystal: Structure) -> None:
    """The model must see atoms as they are given."""
    system = beside_a_cutoff(artifact64, crystal)
    positions = crystal.positions + 2 * crystal.box[0]
    positions[5] += crystal.box[1]
    assert_same(system, positions, "double")
    made = on(system, positions, "CUDA")
    made.getIntegrator().step(300)  # past a reordering
    state = made.getState(positions=True)
    again = state.getPositions(asNumpy=True)._value * 10
    assert energy_forces(made)[0] == pytest.approx(energy_forces(on(system, again, "Reference"))[0], rel=1e-6)


def test_positions_set_twice(artifact64: Path, crystal: Structure) -> None:
    """OpenMM then forgets into which cells it moved atoms, and tells nobody who listens for a reordering."""
    system = beside_a_cutoff(artifact64, crystal)
    made = on(system, crystal.positions + 2 * crystal.box[0], "CUDA")
    energy_forces(made)
    for cells in (-1, 3):
        moved = crystal.positions + cells * crystal.box[1]
        moved[7] += crystal.box[2]
        made.setPositions(moved / 10)
        energy, forces = energy_forces(on(system, moved, "Reference"))
        found = energy_forces(made)
        assert found[0] == pytest.approx(energy, rel=TOLERANCE["double"])
        assert np.abs(found[1] - forces).max() <= TOLERANCE["double"] * np.abs(forces).max()


def test_a_barostat_that_goes_back(artifact64: Path, crystal: Structure) -> None:
    """Trials that are refused put cells back without a word; energies afterwards are those of Reference."""
    system = beside_a_cutoff(artifact64, crystal)
    barostat = openmm.MonteCarloBarostat(1e5, 300.0, 1)  # so high a pressure that half of the trials fail
    barostat.setRandomNumberSeed(3)
    system.addForce(barostat)
    made = on(system, crystal.positions + 2 * crystal.box[0], "CUDA")
    for _ in range(5):
        made.getIntegrator().step(4)
        state = made.getState(positions=True)
        again = state.getPositions(asNumpy=True)._value * 10
        reference = on(system, again, "Reference")
        reference.setPeriodicBoxVectors(*state.getPeriodicBoxVectors())
        assert energy_forces(made)[0] == pytest.approx(energy_forces(reference)[0], rel=1e-6)


@pytest.mark.parametrize("periodic", [True, False])
def test_link_atoms(tmp_path: Path, periodic: bool) -> None:
    """A virtual site's force goes to the ends of its bond, whichever slots and cells OpenMM gives the three."""
    network = random_potential(0, ["H", "C", "O"], num_layers=1)
    artifact = write_artifact(network, tmp_path / "hco.pt", "float64")
    topology, positions = ethanols(2, box=20.0)
    system = MLPotential("equistride", modelPath=artifact).createMixedSystem(
        topology, force_field(topology), METHANOL, periodic=periodic, backend="plugin"
    )
    capped = np.vstack([positions, np.zeros(3)])
    reference, cuda = (on(system, capped, platform) for platform in ("Reference", "CUDA"))
    place(cuda, positions)
    for _ in range(2):
        cuda.getIntegrator().step(300)  # past a reordering
        place(reference, cuda.getState(positions=True).getPositions(asNumpy=True)._value[:18] * 10)
        energy, forces = energy_forces(reference)
        found = energy_forces(cuda)
        assert found[0] == pytest.approx(energy, rel=1e-6)
        assert np.abs(found[1] - forces)[:18].max() <= 1e-6 * np.abs(forces).max()


class Springs(nn.Module):
    """k/2 sum x^2, kJ/mol."""

    def forward(self, positions: Tensor, k: Tensor) -> Tensor:
        return 0.5 * k * (positions**2).sum()


def test_plain_module_with_a_parameter(molecule: Structure) -> None:
    force = Force(torch.jit.script(Springs()))
    force.addGlobalParameter("k", 2.0)
    force.addEnergyParameterDerivative("k")
    system = openmm.System()
    for _ in range(12):
        system.addParticle(12.0)
    system.addForce(force)
    assert_same(system, molecule.positions, "double")
    made = on(system, molecule.positions, "CUDA")
    derivative = made.getState(parameterDerivatives=True).getEnergyParameterDerivatives()["k"]
    assert derivative == pytest.approx(0.5 * ((molecule.positions / 10) ** 2).sum(), rel=1e-6)


def test_errors_arrive(artifact64: Path, molecule: Structure) -> None:
    system = create_system(artifact64, molecule.topology, backend="plugin")
    together = molecule.positions.copy()
    together[5] = together[2]
    made = on(system, together, "CUDA")
    with pytest.raises(openmm.OpenMMException, match="atoms 2 and 5 are on top of each other"):
        made.getState(energy=True)
    made.setPositions(molecule.positions / 10)
    assert np.isfinite(energy_forces(made)[0])
