"""What create_force and create_system refuse, each with a sentence; and what arrives at run time."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import openmm
import pytest
import torch
import toy_artifact
from ase import Atoms
from openmm import app
from openmm_systems import Structure, context, energy_forces

from equistride.artifact.metadata import precision_name
from equistride.engines.openmm import Force, create_force, create_system
from equistride.errors import EquistrideError

BACKENDS = ["plugin", "python"]


def topology_of(*symbols: str | None) -> app.Topology:
    """A topology without a box; None is an atom without an element."""
    topology = app.Topology()
    residue = topology.addResidue("X", topology.addChain())
    for symbol in symbols:
        topology.addAtom("A", None if symbol is None else app.Element.getBySymbol(symbol), residue)
    return topology


@pytest.mark.parametrize("backend", BACKENDS)
def test_topologies(artifact64: Path, backend: str) -> None:
    with pytest.raises(EquistrideError, match=r"no atoms"):
        create_system(artifact64, app.Topology(), backend=backend)
    with pytest.raises(EquistrideError, match=r"does not know: C, N.*H, O, Si"):
        create_force(artifact64, topology_of("H", "N", "C"), backend=backend)
    with pytest.raises(
        EquistrideError, match=r"atom 1 .* has no element in the topology; .*whose element the file lacks"
    ):
        create_force(artifact64, topology_of("O", None), backend=backend)
    with pytest.raises(EquistrideError, match=r"not in the topology.*0 to 1.*found 2"):
        create_force(artifact64, topology_of("O", "H"), atoms=[0, 2], backend=backend)
    with pytest.raises(EquistrideError, match="twice"):
        create_force(artifact64, topology_of("O", "H"), atoms=[0, 0], backend=backend)
    with pytest.raises(EquistrideError, match="no atoms were chosen"):
        create_force(artifact64, topology_of("O", "H"), atoms=[], backend=backend)
    for atoms, found in (
        ("all", "'all'"),
        (5, "5"),
        ([0.5, 1.2], "0.5"),
        ([True, False], "True"),
        (torch.tensor([True, False]), "tensor"),
        ([None], "None"),
    ):
        with pytest.raises(EquistrideError, match=f"given by their indices.*whole numbers.*found .*{found}"):
            create_force(artifact64, topology_of("O", "H"), atoms=atoms, backend=backend)  # type: ignore[arg-type]
    with pytest.raises(EquistrideError, match=r"openmm.app.Topology; found Atoms.*topology_from_ase"):
        create_force(artifact64, Atoms("OH"), backend=backend)  # type: ignore[arg-type]
    create_force(artifact64, topology_of("O", None, "C"), atoms=[0], backend=backend)
    create_force(artifact64, topology_of("O", None, "C"), atoms=np.array([0]), backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_box(tmp_path: Path, artifact64: Path, backend: str, crystal: Structure) -> None:
    bulk = toy_artifact.write(tmp_path / "bulk.pt", change={"periodic": "required"})
    with pytest.raises(EquistrideError, match=r"periodic systems alone.*box"):
        create_force(bulk, topology_of("O", "H"), backend=backend)
    with pytest.raises(EquistrideError, match=r"periodic systems alone.*periodic=False"):
        create_force(bulk, crystal.topology, backend=backend, periodic=False)
    with pytest.raises(EquistrideError, match=r"periodic=True needs a box"):
        create_force(artifact64, topology_of("O", "H"), backend=backend, periodic=True)
    assert create_force(bulk, crystal.topology, backend=backend).usesPeriodicBoundaryConditions()


@pytest.mark.parametrize("backend", BACKENDS)
def test_propagator(tmp_path: Path, backend: str) -> None:
    change = {"kind": "propagator", "stride_fs": 7.0, "ensemble": "nve"}
    file = toy_artifact.write(tmp_path / "stride.pt", change=change)
    with pytest.raises(EquistrideError, match="propagator"):
        create_force(file, topology_of("O", "H"), backend=backend)


def test_options(artifact64: Path) -> None:
    water = topology_of("O", "H", "H")
    with pytest.raises(EquistrideError, match=r"backend is not known.*plugin.*found gpu"):
        create_force(artifact64, water, backend="gpu")  # type: ignore[arg-type]
    with pytest.raises(EquistrideError, match=r"precision is not known; expected float32 or float64; found half"):
        create_force(artifact64, water, precision="half")  # type: ignore[arg-type]
    with pytest.raises(EquistrideError, match=r"force group.*0 to 31.*32"):
        create_force(artifact64, water, force_group=32)
    with pytest.raises(EquistrideError, match=r"force group.*0 to 31.*found 1"):
        create_force(artifact64, water, force_group="1")  # type: ignore[arg-type]
    for device in (0, "gpu", "cuda:x", None):
        with pytest.raises(EquistrideError, match=r"device of a model is not known.*auto, cpu, cuda") as told:
            create_force(artifact64, water, device=device)  # type: ignore[arg-type]
        assert len(str(told.value)) < 200
    with pytest.raises(EquistrideError, match=r"properties of a force are texts.*\{'device': 0\}"):
        Force(artifact64, {"device": 0})  # type: ignore[dict-item]
    with pytest.raises(EquistrideError, match=r"given by its file.*found NoneType"):
        create_system(None, water)  # type: ignore[arg-type]
    assert create_force(artifact64, water, device=torch.device("cpu")).getForceGroup() == 0  # type: ignore[arg-type]


def test_given_systems(artifact64: Path) -> None:
    water = topology_of("O", "H", "H")

    def system(particles: int = 3) -> openmm.System:
        made = openmm.System()
        for _ in range(particles):
            made.addParticle(1.0)
        return made

    with pytest.raises(EquistrideError, match=r"does not fit.*3 particles.*found 2"):
        create_system(artifact64, water, system=system(2))
    constrained = system()
    constrained.addConstraint(0, 1, 0.1)
    with pytest.raises(EquistrideError, match=r"particles 0 and 1 is constrained.*sees both"):
        create_system(artifact64, water, system=constrained)
    with pytest.raises(EquistrideError, match=r"constrained.*sees particle 1.*rigidWater=False"):
        create_system(artifact64, water, system=constrained, atoms=[1, 2])
    assert create_system(artifact64, water, system=constrained, atoms=[2]).getNumForces() == 1
    sites = [system(), system()]
    for virtual in sites:
        virtual.setVirtualSite(2, openmm.TwoParticleAverageSite(0, 1, 0.5, 0.5))
    assert create_system(artifact64, water, system=sites[0]).getNumForces() == 1, "a link atom has an element"
    with pytest.raises(EquistrideError, match=r"atom 2 .*no element.*virtual site.* left out with atoms"):
        create_system(artifact64, topology_of("O", "H", None), system=sites[1])


def test_a_system_with_another_box(artifact64: Path, crystal: Structure) -> None:
    """OpenMM gives a System whose box nobody set one of 2 nm."""
    system = openmm.System()
    for _ in crystal.symbols:
        system.addParticle(1.0)
    with pytest.raises(
        EquistrideError, match=r"box that OpenMM gives where none is set.*found 2, 2, 2 nm.*setDefaultPeriodic"
    ):
        create_system(artifact64, crystal.topology, system=system)
    assert create_system(artifact64, crystal.topology, system=copy.deepcopy(system), periodic=False).getNumForces() == 1
    grown = [1.01 * vector for vector in crystal.topology.getPeriodicBoxVectors()]  # by a barostat, say
    system.setDefaultPeriodicBoxVectors(*grown)
    assert create_system(artifact64, crystal.topology, system=system).getNumForces() == 1


def test_constraints_that_a_context_finds(artifact64: Path, molecule: Structure) -> None:
    """create_force does not see the System that its force is for, and constraints may come later."""
    system = create_system(artifact64, molecule.topology, backend="plugin", atoms=[2, 3, 4])
    system.addConstraint(0, 1, 0.1)
    assert np.isfinite(energy_forces(context(system, molecule.positions))[0])
    system.addConstraint(1, 2, 0.1)
    with pytest.raises(openmm.OpenMMException, match=r"particles 1 and 2 is constrained.*free atoms"):
        context(system, molecule.positions)


@pytest.mark.parametrize("platform", ["Reference", "CPU"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_errors_of_a_run_arrive_and_the_process_lives(
    artifact64: Path, backend: str, platform: str, molecule: Structure
) -> None:
    made = context(create_system(artifact64, molecule.topology, backend=backend), molecule.positions, platform)
    expected = energy_forces(made)
    together = molecule.positions.copy()
    together[5] = together[2]
    made.setPositions(together / 10)
    with pytest.raises(openmm.OpenMMException, match=r"atoms 2 and 5 are on top of each other"):
        energy_forces(made)
    lost = molecule.positions.copy()
    lost[3, 1] = np.inf
    made.setPositions(lost / 10)
    with pytest.raises(openmm.OpenMMException, match=r"the position of atom 3 is not finite|coordinate is NaN"):
        made.getState(forces=True)
    lost[3, 1] = np.nan
    made.setPositions(lost / 10)
    with pytest.raises(openmm.OpenMMException, match=r"the position of atom 3 is not finite|coordinate is NaN"):
        made.getIntegrator().step(1)
    made.setPositions(molecule.positions / 10)
    again = energy_forces(made)
    assert again[0] == expected[0]
    assert (again[1] == expected[1]).all()


def test_numbers_in_messages_are_those_of_the_system(artifact64: Path, molecule: Structure) -> None:
    together = molecule.positions.copy()
    together[9] = together[4]
    system = create_system(artifact64, molecule.topology, atoms=[11, 9, 4, 2], backend="plugin")
    with pytest.raises(openmm.OpenMMException, match="atoms 9 and 4 are on top"):
        energy_forces(context(system, together))


def test_a_network_that_gives_no_number(tmp_path: Path, molecule: Structure) -> None:
    file = toy_artifact.write(tmp_path / "broken.pt", explode_beyond=3.9)
    system = create_system(file, molecule.topology, backend="plugin")
    with pytest.raises(openmm.OpenMMException, match=r"the energy of atom \d+ is not finite.*training data"):
        energy_forces(context(system, molecule.positions))


@pytest.mark.parametrize(("old", "name"), [("single", "float32"), ("double", "float64")])
def test_earlier_names_of_precisions_warn(old: str, name: str) -> None:
    with pytest.warns(FutureWarning, match=f"{old} is now {name}; the old name goes"):
        assert precision_name(old) == name
    assert precision_name(name) == name
    assert precision_name(None) is None
