"""The force itself: the TorchForce contract for plain modules, groups, parameters, copies and XML."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import openmm
import pytest
import torch
from openmm_systems import Structure, context, energy_forces
from torch import Tensor, nn

from equistride.engines.openmm import Force, create_force, create_system
from equistride.errors import EquistrideError


class Springs(nn.Module):
    """k/2 sum x^2, kJ/mol."""

    def forward(self, positions: Tensor, k: Tensor) -> Tensor:
        return 0.5 * k * (positions**2).sum()


class Fixed(nn.Module):
    """Energy and forces of k = 3, which autograd would not give: the module detaches."""

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        positions = positions.detach()
        return 1.5 * (positions**2).sum(), -3.0 * positions


class Wells(nn.Module):
    """Periodic in the box: sum of 1 - cos(2 pi x / L)."""

    def forward(self, positions: Tensor, box: Tensor) -> Tensor:
        return (1.0 - torch.cos(2.0 * torch.pi * positions / torch.diagonal(box))).sum()


class Weights(nn.Module):
    """A float32 network, as a user would write it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, positions: Tensor) -> Tensor:
        return self.net(positions.to(torch.float32)).sum()


def system_of(force: openmm.Force, count: int) -> openmm.System:
    """A System of one force."""
    system = openmm.System()
    for _ in range(count):
        system.addParticle(12.0)
    system.addForce(force)
    return system


@pytest.mark.parametrize("platform", ["Reference", "CPU"])
def test_energy_alone_with_a_parameter(platform: str, molecule: Structure) -> None:
    force = Force(torch.jit.script(Springs()))
    assert force.addGlobalParameter("k", 2.0) == 0
    force.addEnergyParameterDerivative("k")
    assert (force.getGlobalParameterName(0), force.getGlobalParameterDefaultValue(0)) == ("k", 2.0)
    assert (force.getNumGlobalParameters(), force.getNumEnergyParameterDerivatives()) == (1, 1)
    made = context(system_of(force, 12), molecule.positions, platform)
    x = molecule.positions / 10
    for k in (2.0, 5.0):
        made.setParameter("k", k)
        state = made.getState(energy=True, forces=True, parameterDerivatives=True)
        assert state.getPotentialEnergy()._value == pytest.approx(0.5 * k * (x**2).sum(), rel=1e-12)
        np.testing.assert_allclose(state.getForces(asNumpy=True)._value, -k * x, rtol=1e-12)
        assert state.getEnergyParameterDerivatives()["k"] == pytest.approx(0.5 * (x**2).sum(), rel=1e-12)
    assert made.getState(energy=True).getPotentialEnergy()._value == pytest.approx(2.5 * (x**2).sum(), rel=1e-12)


@pytest.mark.parametrize("platform", ["Reference", "CPU"])
def test_energy_alone_is_that_beside_forces(platform: str, artifact64: Path, crystal: Structure) -> None:
    """A barostat asks for energies alone, a shorter way through the network; after one, forces must come again."""
    system = create_system(artifact64, crystal.topology)
    made = context(system, crystal.positions, platform)
    both = made.getState(energy=True, forces=True)
    alone = made.getState(energy=True).getPotentialEnergy()._value
    assert alone == pytest.approx(both.getPotentialEnergy()._value, rel=1e-13)
    again = made.getState(forces=True).getForces(asNumpy=True)._value
    np.testing.assert_array_equal(again, both.getForces(asNumpy=True)._value)


def test_module_that_gives_its_own_forces(molecule: Structure) -> None:
    force = Force(torch.jit.script(Fixed()))
    force.setOutputsForces(True)
    energy, forces = energy_forces(context(system_of(force, 12), molecule.positions))
    x = molecule.positions / 10
    assert energy == pytest.approx(1.5 * (x**2).sum(), rel=1e-12)
    np.testing.assert_allclose(forces, -3 * x, rtol=1e-12)


def test_module_with_a_box(crystal: Structure) -> None:
    force = Force(torch.jit.script(Wells()), periodic=True)
    system = system_of(force, 30)
    system.setDefaultPeriodicBoxVectors(*crystal.topology.getPeriodicBoxVectors())
    made = context(system, crystal.positions)
    _, forces = energy_forces(made)
    lengths = np.diag(crystal.box) / 10
    phase = 2 * np.pi * crystal.positions / 10 / lengths
    np.testing.assert_allclose(forces, -2 * np.pi / lengths * np.sin(phase), atol=1e-11)
    made.setPeriodicBoxVectors([2, 0, 0], [0, 2, 0], [0, 0, 2])
    _, forces = energy_forces(made)
    np.testing.assert_allclose(forces, -np.pi * np.sin(np.pi * crystal.positions / 10), atol=1e-11)


def test_float32_network_and_subset(molecule: Structure) -> None:
    torch.manual_seed(3)
    module = Weights()
    force = Force(torch.jit.script(module), particles=[7, 2])
    _, forces = energy_forces(context(system_of(force, 12), molecule.positions))
    x = torch.tensor(molecule.positions[[7, 2]] / 10, requires_grad=True)
    (gradient,) = torch.autograd.grad(module(x), x)
    assert np.count_nonzero(forces.any(axis=1)) == 2
    np.testing.assert_allclose(forces[[7, 2]], -gradient.numpy(), rtol=1e-6)
    assert module.net[0].weight.grad is None


def test_wrong_contracts(molecule: Structure, artifact64: Path) -> None:
    def run(force: Force) -> None:
        energy_forces(context(system_of(force, 12), molecule.positions))

    alone = Force(torch.jit.script(Fixed()))
    with pytest.raises(openmm.OpenMMException, match=r"expected the energy alone.*setOutputsForces\(True\)"):
        run(alone)
    both = Force(torch.jit.script(Springs()))
    both.addGlobalParameter("k", 1.0)
    both.setOutputsForces(True)
    with pytest.raises(openmm.OpenMMException, match=r"expected \(energy, forces\).*setOutputsForces\(False\)"):
        run(both)
    with pytest.raises(openmm.OpenMMException, match="k"):
        run(Force(torch.jit.script(Springs())))  # the parameter was forgotten
    with pytest.raises(openmm.OpenMMException, match=r"not in the System; expected less than 12; found 12"):
        run(Force(torch.jit.script(Weights()), particles=[12]))
    with pytest.raises(openmm.OpenMMException, match=r"number of elements.*expected 12.*found 2"):
        run(Force(artifact64, elements=["H", "O"]))
    with pytest.raises(openmm.OpenMMException, match=r"cuda.*is not there.*device='cpu'"):
        run(Force(torch.jit.script(Weights()), {"device": "cuda"}))


def test_arguments(artifact64: Path) -> None:
    plain, ours = Force(torch.jit.script(Springs())), Force(artifact64)
    plain.addGlobalParameter("k", 1.0)
    with pytest.raises(EquistrideError, match=r"'k' is there already"):
        plain.addGlobalParameter("k", 1.0)
    with pytest.raises(EquistrideError, match=r"no global parameter 'q'"):
        plain.addEnergyParameterDerivative("q")
    with pytest.raises(EquistrideError, match=r"out of range; expected less than 1; found 3"):
        plain.getGlobalParameterName(3)
    with pytest.raises(EquistrideError, match=r"out of range"):
        plain.getEnergyParameterDerivativeName(0)
    with pytest.raises(EquistrideError, match=r"property 'speed' is not known"):
        plain.setProperty("speed", "high")
    with pytest.raises(EquistrideError, match=r"'precision'.*'auto', 'single', 'double'; found 'half'"):
        Force(artifact64, {"precision": "half"})
    with pytest.raises(EquistrideError, match=r"'useCUDAGraphs'"):
        plain.setProperty("useCUDAGraphs", "true")
    with pytest.raises(EquistrideError, match="found 4 twice"):
        plain.setParticles([4, 4])
    with pytest.raises(EquistrideError, match="negative: -1"):
        plain.setParticles([-1])
    with pytest.raises(EquistrideError, match="no metadata"):
        plain.getMetadata()
    with pytest.raises(EquistrideError, match="element C; expected one of H, O, Si"):
        ours.setElements(["C"])
    with pytest.raises(EquistrideError, match="takes no global parameters"):
        ours.addGlobalParameter("k", 1.0)
    with pytest.raises(EquistrideError, match="always gives forces"):
        ours.setOutputsForces(False)
    with pytest.raises(EquistrideError, match=r"no equistride force.*HarmonicBondForce"):
        Force.cast(openmm.HarmonicBondForce())


def test_renaming_a_parameter_takes_its_derivative_along() -> None:
    force = Force(torch.jit.script(Springs()))
    force.addGlobalParameter("k", 1.0)
    force.addEnergyParameterDerivative("k")
    force.setGlobalParameterName(0, "stiffness")
    force.setGlobalParameterDefaultValue(0, 4.0)
    assert force.getEnergyParameterDerivativeName(0) == "stiffness"
    assert force.getGlobalParameterDefaultValue(0) == 4.0


def test_force_groups(artifact64: Path, molecule: Structure) -> None:
    system = create_system(artifact64, molecule.topology, backend="plugin", force_group=3)
    springs = Force(torch.jit.script(Springs()))
    springs.addGlobalParameter("k", 100.0)
    springs.setForceGroup(7)
    system.addForce(springs)
    made = context(system, molecule.positions)
    both, ours, rest = (energy_forces(made, groups=g)[0] for g in ({3, 7}, {3}, {7}))
    assert rest == pytest.approx(50 * ((molecule.positions / 10) ** 2).sum(), rel=1e-12)
    assert both == pytest.approx(ours + rest, rel=1e-12)
    energy, forces = energy_forces(made, groups={0})
    assert energy == 0.0
    assert not forces.any()


def assert_alike(one: Force, other: Force) -> None:
    """Compare all that a force holds."""
    for name in (
        "File",
        "Model",
        "Properties",
        "Elements",
        "Particles",
        "ForceGroup",
        "Name",
        "OutputsForces",
    ):
        assert getattr(one, f"get{name}")() == getattr(other, f"get{name}")()
    assert one.usesPeriodicBoundaryConditions() == other.usesPeriodicBoundaryConditions()


def test_copies(artifact64: Path, crystal: Structure) -> None:
    force = create_force(artifact64, crystal.topology, atoms=[5, 2, 9], backend="plugin", force_group=4)
    force.setName("network")
    force.setProperty("precision", "single")
    for other in (copy.deepcopy(force), copy.copy(force), pickle.loads(pickle.dumps(force))):
        assert isinstance(other, Force)
        assert_alike(force, other)
    other = copy.deepcopy(force)
    other.setForceGroup(5)
    assert force.getForceGroup() == 4
    system = create_system(artifact64, crystal.topology, backend="plugin")
    expected = energy_forces(context(system, crystal.positions))
    found = energy_forces(context(copy.deepcopy(system), crystal.positions))
    assert found[0] == expected[0]
    assert (found[1] == expected[1]).all()


def test_xml(artifact64: Path, crystal: Structure, tmp_path: Path) -> None:
    system = create_system(artifact64, crystal.topology, backend="plugin")
    expected = energy_forces(context(system, crystal.positions))
    file = tmp_path / "system.xml"
    file.write_text(openmm.XmlSerializer.serialize(system))
    back = openmm.XmlSerializer.deserialize(file.read_text())
    ours = [f for f in back.getForces() if Force.isinstance(f)]
    assert len(ours) == 1
    view = Force.cast(ours[0])
    assert view.getElements() == crystal.symbols
    assert view.getModel() == artifact64.read_bytes()
    found = energy_forces(context(back, crystal.positions))
    assert found[0] == expected[0]
    assert (found[1] == expected[1]).all()
    plain = Force(torch.jit.script(Springs()), {"precision": "double"}, particles=[0])
    plain.addGlobalParameter("k", 0.1)
    plain.addEnergyParameterDerivative("k")
    again = Force.cast(openmm.XmlSerializer.clone(plain))
    assert again.getGlobalParameterDefaultValue(0) == 0.1
    assert again.getEnergyParameterDerivativeName(0) == "k"


def test_xml_in_another_process(artifact64: Path, crystal: Structure, tmp_path: Path) -> None:
    """To import the module is enough for OpenMM to know our classes."""
    file = tmp_path / "system.xml"
    file.write_text(openmm.XmlSerializer.serialize(create_system(artifact64, crystal.topology, backend="plugin")))
    script = (
        "import openmm, sys, equistride.engines.openmm\n"
        "print(openmm.XmlSerializer.deserialize(open(sys.argv[1]).read()).getNumForces())"
    )
    done = subprocess.run([sys.executable, "-c", script, str(file)], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["2"], done.stderr


def test_damaged_xml(artifact64: Path) -> None:
    text = openmm.XmlSerializer.serialize(Force(artifact64, elements=["H"]))
    with pytest.raises(openmm.OpenMMException, match=r"unknown version; expected up to 1; found 9"):
        openmm.XmlSerializer.deserialize(text.replace('version="1"', 'version="9"'))
    with pytest.raises(openmm.OpenMMException, match="no base64"):
        openmm.XmlSerializer.deserialize(text.replace('model="UEsDB', 'model="UEsD*'))
    with pytest.raises(openmm.OpenMMException, match="element Xx"):
        openmm.XmlSerializer.deserialize(text.replace('symbol="H"', 'symbol="Xx"'))


def test_what_a_force_tells(artifact64: Path) -> None:
    force = Force(artifact64)
    assert force.getFile() == str(artifact64)
    assert force.isArtifact()
    assert force.getMetadata()["architecture"] == "pair"
    assert force.getName() == "EquistrideForce"
    assert not force.usesPeriodicBoundaryConditions()
    buffer = io.BytesIO()
    torch.jit.save(force.getModule(), buffer)
    assert Force(artifact64.read_bytes()).getFile() == ""
    assert not Force.isinstance(openmm.HarmonicBondForce())
