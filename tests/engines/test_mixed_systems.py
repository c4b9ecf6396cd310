"""A model for a region of a System under a force field, by way of openmm-ml: link atoms, molecules, boxes, two regions."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import openmm
import pytest
import torch
from mixed_systems import ELEMENTS, ETHANOL, GROUP, METHANOL, ethanols, force_field, harvest, mixed, with_caps
from openmm import app, unit
from openmm_systems import context, energy_forces
from openmmml import MLPotential
from random_models import random_potential
from toy_metadata import toy_metadata

from equistride.artifact import load
from equistride.artifact.ensemble import combine
from equistride.artifact.export import save
from equistride.engines.openmm import Force, Harvester, create_force, create_system
from equistride.engines.openmm_terms import terms_inside
from equistride.engines.openmm_topology import bare_system, choose_atoms
from equistride.errors import EquistrideError
from equistride.units import KJ_MOL_PER_EV

BACKENDS = ["plugin", "python"]


def test_molecules_stay_whole(hco: Path) -> None:
    """Bonds of the topology are molecules for OpenMM, also of a System from XML, and beside a PythonForce."""
    topology, positions = ethanols(2, box=20.0)
    system = create_system(hco, topology, backend="plugin")
    force = next(Force.cast(f) for f in system.getForces() if Force.isinstance(f))
    assert force.getBonds() == [(b.atom1.index, b.atom2.index) for b in topology.bonds()]
    region = create_force(hco, topology, atoms=range(5), backend="plugin")
    assert Force.cast(region).getBonds() == [(0, 1), (1, 2), (0, 3), (0, 4)]
    again = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(system))
    for made in (system, again):
        running = context(made, positions - positions[0])
        assert sorted(map(sorted, running.getMolecules())) == [list(range(9)), list(range(9, 18))]
        out = running.getState(positions=True, enforcePeriodicBox=True).getPositions(asNumpy=True)._value * 10
        assert np.abs(out[:9] - out[0] - (ETHANOL - ETHANOL[0])).max() < 1e-6
    for bonds in ([(0, 0)], [(-1, 2)]):
        with pytest.raises(EquistrideError, match="a bond joins two particles of the System"):
            force.setBonds(bonds)
    single = range(9)
    by_openmm_ml = MLPotential("equistride", modelPath=hco, backend="python")
    for made in (
        create_system(hco, topology, backend="python"),
        by_openmm_ml.createSystem(topology),
        by_openmm_ml.createMixedSystem(topology, force_field(topology), single),
        by_openmm_ml.createMixedSystem(topology, force_field(topology), single, interpolate=True),
    ):
        running = context(made, positions - positions[0])
        assert sorted(map(sorted, running.getMolecules())) == [list(range(9)), list(range(9, 18))]
    force.setBonds([(0, 18)])
    with pytest.raises(openmm.OpenMMException, match=r"bond of the force is not in the System.*less than 18; found 18"):
        context(system, positions)


def test_a_network_is_no_molecule(hco: Path) -> None:
    """A chain of atoms that is bonded to its own image: a barostat must scale its atoms one by one."""
    topology = app.Topology()
    residue = topology.addResidue("X", topology.addChain())
    atoms = [topology.addAtom(f"C{k}", app.element.carbon, residue) for k in range(12)]
    ring, lone = atoms[:10], atoms[10:]
    for first, second in zip(ring, ring[1:] + ring[:1], strict=True):
        topology.addBond(first, second)
    topology.addBond(*lone)
    topology.setPeriodicBoxVectors(np.diag([1.5, 1.2, 1.2]) * unit.nanometer)
    positions = np.array([[1.5 * k + 7, 0.2 * (k % 2), 0] for k in range(10)] + [[11.5, 6, 6], [13.0, 6, 6]])
    running = context(create_system(hco, topology, backend="plugin"), positions)
    assert sorted(map(sorted, running.getMolecules())) == [[k] for k in range(10)] + [[10, 11]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_atom_belongs_to_two_models(hco: Path, backend: str) -> None:
    """Its energy would count twice, also where the first model is inside an interpolation; neighbours may have their own."""
    topology, positions = ethanols(2)
    said = r"sees atoms of this region already.*found atom 3 in both"
    system = create_system(hco, topology, atoms=range(4), backend=backend)
    with pytest.raises(EquistrideError, match=said):
        create_system(hco, topology, system=system, atoms=range(3, 9), backend=backend)
    potential = MLPotential("equistride", modelPath=hco, backend=backend)
    for interpolate in (False, True):
        system = potential.createMixedSystem(topology, force_field(topology), range(9), interpolate=interpolate)
        with pytest.raises(EquistrideError, match=said.replace("3", "0")):
            potential.createMixedSystem(topology, system, range(9))
    system = create_system(hco, topology, atoms=range(9), backend=backend)
    first = energy_forces(context(system, positions))[0]
    both = energy_forces(
        context(create_system(hco, topology, system=system, atoms=range(9, 18), backend=backend), positions)
    )
    assert both[0] == pytest.approx(2 * first, rel=1e-9)


def test_a_force_field_inside_the_region_is_refused(hco: Path) -> None:
    topology, positions = ethanols(2)
    parametrised = force_field(topology)
    # nine of 36 pairs are bonded, thirteen one bond further apart
    said = (
        r"would count twice.*found 8 of HarmonicBondForce, 13 of HarmonicAngleForce, 12 of PeriodicTorsionForce, "
        r"15 of NonbondedForce; .*createMixedSystem"
    )
    for atoms in (range(9), None):
        with pytest.raises(EquistrideError, match=said if atoms else "would count twice"):
            create_system(hco, topology, system=copy.deepcopy(parametrised), atoms=atoms)
    mixed_system = MLPotential("equistride", modelPath=hco).createMixedSystem(topology, parametrised, range(9))
    assert not list(terms_inside(mixed_system, range(9)))
    bare = bare_system(topology)
    mark = openmm.HarmonicBondForce()
    mark.addBond(0, 1, 0.1, 0.0)
    bias = openmm.CustomBondForce("10*(r-0.2)^2")
    bias.addBond(0, 2)
    outside = openmm.HarmonicBondForce()
    outside.addBond(8, 9, 0.1, 5.0)
    for force in (mark, bias, outside):
        bare.addForce(force)
    system = create_system(hco, topology, system=bare, atoms=range(9))
    assert np.isfinite(energy_forces(context(system, positions))[0])


@pytest.mark.parametrize("options", [{"backend": "plugin"}, {"backend": "python"}, {"interpolate": True}])
def test_the_box_of_the_system_counts(hco: Path, options: dict[str, Any]) -> None:
    """Where the topology has none: the molecule lies across the boundary."""
    topology, positions = ethanols(2, box=20.0)
    parametrised = force_field(topology)
    torn = positions - positions[0]
    torn -= np.floor(torn / 20) * 20
    bare = copy.copy(topology)
    bare.setPeriodicBoxVectors(None)
    potential = MLPotential("equistride", modelPath=hco)
    energies = [
        energy_forces(context(potential.createMixedSystem(t, parametrised, range(9), **options), torn))[0]
        for t in (topology, bare)
    ]
    assert energies[0] == pytest.approx(energies[1], rel=1e-12)


def test_it_counts_in_create_system(hco: Path) -> None:
    topology, positions = ethanols(1, box=20.0)
    expected = energy_forces(context(create_system(hco, topology), positions))[0]
    system = bare_system(topology)
    walls = openmm.CustomNonbondedForce("0*r")
    walls.setNonbondedMethod(openmm.CustomNonbondedForce.CutoffPeriodic)
    for _ in range(9):
        walls.addParticle()
    system.addForce(walls)
    topology.setPeriodicBoxVectors(None)
    torn = (positions - positions[0]) % 20.0
    found = energy_forces(context(create_system(hco, topology, system=system), torn))[0]
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("interpolate", [False, True])
def test_two_regions_with_charges_of_their_own(omol: Path, interpolate: bool) -> None:
    topology, positions = ethanols(2)
    potential = MLPotential("equistride", modelPath=omol)
    system = force_field(topology)
    for k, options in enumerate(({"charge": 1, "multiplicity": 2}, {"charge": -1 * unit.elementary_charge, "spin": 2})):
        system = potential.createMixedSystem(
            topology,
            system,
            range(9 * k, 9 * k + 9),
            forceGroup=GROUP + k,
            interpolate=interpolate and k == 1,
            **options,
        )
    running = context(system, positions)
    parameters = {name: value for name, value in dict(running.getParameters()).items() if "lambda" not in name}
    assert parameters == {"charge": 1.0, "spin": 2.0, "charge_2": -1.0, "spin_2": 2.0}
    model = load(omol)

    def expected(charge: float, spin: float) -> float:
        model.set_system(charge, spin)
        return float(model.compute(ETHANOL, list(ELEMENTS)).atomic_energies.sum()) * KJ_MOL_PER_EV

    def found(group: int) -> float:
        return running.getState(energy=True, groups={group}).getPotentialEnergy()._value

    assert found(GROUP) == pytest.approx(expected(1, 2), rel=1e-9)
    if not interpolate:
        assert found(GROUP + 1) == pytest.approx(expected(-1, 2), rel=1e-9)
        running.setParameter("charge_2", 1)
        assert found(GROUP + 1) == pytest.approx(expected(1, 2), rel=1e-9)


def test_what_does_not_fit_is_refused(hco: Path) -> None:
    topology, _ = ethanols()
    larger, _ = ethanols(2)
    potential = MLPotential("equistride", modelPath=hco)
    with pytest.raises(EquistrideError, match=r"System does not fit the topology; expected 9 particles; found 18"):
        potential.createMixedSystem(topology, force_field(larger), range(9))
    capped = potential.createMixedSystem(larger, force_field(larger), METHANOL)
    with pytest.raises(EquistrideError, match=r"expected 18 particles; found 19.*returnInfo=True"):
        potential.createMixedSystem(larger, capped, range(9, 18))
    for atoms, said in (
        ([], "no atoms were chosen"),
        ([0, 0], "twice"),
        ([9], "not in the topology"),
        ([0.5], "indices"),
    ):
        with pytest.raises(EquistrideError, match=said):
            potential.createMixedSystem(topology, force_field(topology), atoms)
    with pytest.raises(ValueError, match="does not support the mlLongRange option"):
        potential.createMixedSystem(topology, force_field(topology), range(9), mlLongRange=True)


def test_particles_without_an_element_outside(hco: Path) -> None:
    """Those of TIP4P water, say: openmm-ml asks each for its element, and the topology that it gives has none for them."""
    topology, positions = ethanols(2)
    expected = with_caps(mixed(hco, METHANOL), ETHANOL).getState(energy=True, groups={GROUP}).getPotentialEnergy()
    parametrised = force_field(topology)
    lone = list(topology.atoms())[17]
    lone.element = None
    potential = MLPotential("equistride", modelPath=hco)
    info = potential.createMixedSystem(topology, parametrised, METHANOL, forceGroup=GROUP, returnInfo=True)
    found = with_caps(info["system"], positions).getState(energy=True, groups={GROUP}).getPotentialEnergy()
    assert found._value == pytest.approx(expected._value, rel=1e-12)
    assert [atom.index for atom in info["topology"].atoms() if atom.element is None] == [17]
    assert lone.element is None
    with pytest.raises(EquistrideError, match=r"atom 17 .* has no element in the topology"):
        potential.createMixedSystem(topology, parametrised, [9, 17])


@pytest.mark.parametrize("backend", BACKENDS)
def test_constraints_of_a_region(hco: Path, backend: str) -> None:
    """openmm-ml takes away those inside; one across the boundary would hold an atom that the model moves."""
    assert mixed(hco, range(9), constrain=True, backend=backend).getNumConstraints() == 0
    with pytest.raises(EquistrideError, match=r"0 and 3 is constrained.*sees particle 0.*choose a region that cuts no"):
        mixed(hco, [0, 1, 2, 6, 7, 8], constrain=True, backend=backend)
    kept = mixed(hco, range(9), constrain=True, removeConstraints=False, backend="plugin")
    with pytest.raises(openmm.OpenMMException, match=r"is constrained.*in a mixed System openmm-ml frees the atoms"):
        context(kept, ETHANOL)
    kept = mixed(hco, range(9), constrain=True, removeConstraints=False, backend="python")
    running = context(kept, ETHANOL)  # OpenMM shows a PythonForce no System before it is evaluated
    with pytest.raises(openmm.OpenMMException, match=r"particles 0 and 3 is constrained, and the model sees both"):
        running.getState(energy=True)


@pytest.mark.parametrize("backend", BACKENDS)
def test_numbers_of_every_kind(hco: Path, omol: Path, backend: str) -> None:
    topology, positions = ethanols(2)
    chosen = [0, 1, 2, 3, 4, 5, 6, 7, 8]
    for atoms in (np.array(chosen), set(chosen), map(np.int32, chosen), list(topology.atoms())[:9]):
        assert choose_atoms(topology, atoms) == chosen
    energies = set()
    for atoms in (chosen, np.array(chosen)):
        system = create_system(hco, topology, atoms=atoms, force_group=np.int64(3), backend=backend)  # type: ignore[arg-type]
        energies.add(context(system, positions).getState(energy=True, groups={3}).getPotentialEnergy()._value)
    assert len(energies) == 1
    system = MLPotential("equistride", modelPath=hco).createMixedSystem(
        topology, force_field(topology), np.array(chosen), forceGroup=GROUP, backend=backend
    )
    found = context(system, positions).getState(energy=True, groups={GROUP}).getPotentialEnergy()._value
    assert found == pytest.approx(energies.pop(), rel=1e-12)
    single, _ = ethanols()
    charged = {
        energy_forces(context(create_system(omol, single, charge=q, spin=np.int8(2), backend=backend), ETHANOL))[0]
        for q in (np.float32(-1), -1 * unit.elementary_charge)
    }
    assert len(charged) == 1
    for name, value in (("charge", 0.5), ("charge", 1 * unit.nanometer), ("spin", float("nan"))):
        with pytest.raises(EquistrideError, match=f"the {name} of a system must be a whole number; found"):
            create_force(omol, single, backend=backend, **{name: value})  # type: ignore[arg-type]


def test_deuterium_is_hydrogen(hco: Path) -> None:
    heavy, _ = ethanols()
    for atom in heavy.atoms():
        if atom.element.symbol == "H":
            atom.element = app.element.deuterium
    light, _ = ethanols()
    assert energy_forces(context(create_system(hco, heavy), ETHANOL))[0] == pytest.approx(
        energy_forces(context(create_system(hco, light), ETHANOL))[0], rel=1e-12
    )
    assert create_system(hco, heavy).getParticleMass(8)._value == pytest.approx(2.014, abs=1e-3)


def test_the_harvester_watches_every_region(hco_ensemble: Path, omol: Path, tmp_path: Path) -> None:
    topology, _ = ethanols(3)
    potential = MLPotential("equistride", modelPath=hco_ensemble)
    system = potential.createMixedSystem(topology, force_field(topology), range(9))
    system = potential.createMixedSystem(topology, system, range(9, 18), backend="python")
    harvest(system, topology, watch := Harvester(tmp_path / "h.xyz", 1e-9, 1))
    frames = ase.io.read(tmp_path / "h.xyz", ":")
    assert [len(frame) for frame in frames] == [9, 9]
    assert [frame.info["region"] for frame in frames] == [0, 1]
    assert watch.uncertainties == [pytest.approx(max(f.info["max_force_uncertainty"] for f in frames))]
    harvest(system, topology, Harvester(tmp_path / "a.xyz", 1e-9, 1, artifact=hco_ensemble, atoms=range(18, 27)))
    assert len(ase.io.read(tmp_path / "a.xyz", ":")) == 1
    inner = create_force(hco_ensemble, topology, atoms=range(9, 18))
    alchemical = openmm.ATMForce(0.5, 0.5, 0, 0, 0, 0, 0, 0, 1)
    for _ in range(27):
        alchemical.addParticle(openmm.Vec3(0, 0, 0))
    alchemical.addForce(copy.deepcopy(inner))
    system = bare_system(topology)
    system.addForce(alchemical)
    harvest(system, topology, inside := Harvester(tmp_path / "i.xyz", 1e-9, 1))
    assert inside.uncertainties == [pytest.approx(frames[1].info["max_force_uncertainty"], rel=1e-2)]
    with pytest.raises(EquistrideError, match="model has no uncertainty"):
        harvest(create_system(omol, topology), topology, Harvester(tmp_path / "n.xyz", 1.0, 1))


def test_the_harvester_has_the_charge_of_the_context(tmp_path: Path) -> None:
    """It asks an ensemble that knows charge and spin about the ion that runs."""
    facts = {"system": {"charge": 0.0, "spin": 1.0}, "charge_spin": "input", "dtype": "float64"}
    paths = [tmp_path / f"{k}.pt" for k in (0, 1)]
    for k, path in enumerate(paths):
        network = random_potential(k, ["H", "C", "O"], num_layers=1, charge_spin="linear")
        with torch.no_grad():
            for name, weight in network.network.named_parameters():
                weight += ("system" in name) * torch.randn_like(weight)  # 0 at the start
        network.network.set_system(0.0, 1.0)
        save(network, toy_metadata(network.species, float(network.cutoff), layers=2, **facts), path)
    combine(paths, tmp_path / "ions.pt")
    topology, _ = ethanols()
    system = create_system(tmp_path / "ions.pt", topology, charge=-1, spin=2)
    for name, chosen in (("all.xyz", None), ("chosen.xyz", range(9))):
        harvest(system, topology, Harvester(tmp_path / name, 1e-9, 1, atoms=chosen))
        frame = ase.io.read(tmp_path / name)
        for charge, same in ((-1, True), (0, False)):
            model = load(tmp_path / "ions.pt", charge=charge, spin=2 if same else 1)
            energy = float(model.compute(frame.positions, frame.get_chemical_symbols()).atomic_energies.sum())
            assert bool(abs(frame.get_potential_energy() - energy) < 1e-5) is same
