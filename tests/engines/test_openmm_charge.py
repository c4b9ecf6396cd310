"""Total charge and spin multiplicity as parameters of an OpenMM Context."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openmm
import pytest
from ase import Atoms
from finite_differences import force_on
from mixed_systems import ELEMENTS, ETHANOL, ethanols, force_field
from openmm import app
from openmm_systems import context
from openmmml import MLPotential

from equistride.artifact import load
from equistride.engines.openmm import Force, create_system
from equistride.engines.openmm_structure import topology_from_ase
from equistride.errors import EquistrideError, Notice
from equistride.units import KJ_MOL_PER_EV

FAIRCHEM = Path(__file__).resolve().parents[1] / "data" / "fairchem"


@pytest.fixture(scope="module")
def ethanol() -> Atoms:
    stored = np.load(FAIRCHEM / "L2M2_omol.npz")
    return Atoms(stored["ethanol_numbers"], stored["ethanol_positions"])


def energy(simulated: openmm.Context) -> float:
    """kJ/mol."""
    return simulated.getState(energy=True).getPotentialEnergy()._value


def expected(path: Path, atoms: Atoms, **system: float) -> float:
    model = load(path, **system)
    out = model.compute(atoms.positions, model.species_index(atoms.get_chemical_symbols()))
    return float(out.atomic_energies.sum()) * KJ_MOL_PER_EV


@pytest.mark.parametrize("backend", ["plugin", "python"])
def test_charge_and_spin_of_a_system(omol: Path, ethanol: Atoms, backend: str) -> None:
    topology, _ = topology_from_ase(ethanol)
    system = create_system(omol, topology, backend=backend, charge=1, spin=2)  # type: ignore[arg-type]
    found = energy(context(system, ethanol.positions))
    assert found == pytest.approx(expected(omol, ethanol, charge=1, spin=2), rel=1e-12)
    assert abs(found - expected(omol, ethanol)) > 0.1


def test_they_change_in_a_run_and_survive_xml(omol: Path, ethanol: Atoms) -> None:
    """The file's values first, then those of setParameter; the forces follow (they differ from finite differences by less
    than their own rounding at this step: 1e-6 relative)."""
    topology, _ = topology_from_ase(ethanol)
    system = openmm.XmlSerializer.deserialize(
        openmm.XmlSerializer.serialize(create_system(omol, topology, backend="plugin", spin=3))
    )
    running = context(system, ethanol.positions)
    assert dict(running.getParameters()) == {"charge": 0.0, "spin": 3.0}
    assert energy(running) == pytest.approx(expected(omol, ethanol, spin=3), rel=1e-12)
    running.setParameter("charge", -1)
    running.setParameter("spin", 2)
    assert energy(running) == pytest.approx(expected(omol, ethanol, charge=-1, spin=2), rel=1e-12)
    force = running.getState(forces=True).getForces(asNumpy=True)._value[0, 0]

    def at(positions: np.ndarray) -> float:
        running.setPositions(positions)
        return energy(running)

    assert force == pytest.approx(force_on(at, ethanol.positions / 10, 0, 0), rel=1e-5, abs=1e-4)


@pytest.mark.parametrize("backend", ["plugin", "python"])
def test_formal_charges_of_a_topology(
    omol: Path, hco: Path, backend: str, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    """Those of a PDB file: their sum over the model's atoms, unless another charge is given; told to models that know none."""
    topology, positions = ethanols(2)
    oxygen = [atom for atom in topology.atoms() if atom.element.symbol == "O"]
    for atom, charge in zip(oxygen, (-1, 2), strict=True):
        atom.formalCharge = charge
    with (tmp_path / "ions.pdb").open("w") as handle:
        app.PDBFile.writeFile(topology, positions, handle)
    topology = app.PDBFile(str(tmp_path / "ions.pdb")).topology
    one, options = Atoms(ELEMENTS, ETHANOL), {"backend": backend, "atoms": range(9)}
    for given, charge, spin in (({}, -1, 2), ({"charge": 0}, 0, 1)):
        recwarn.clear()
        made = context(create_system(omol, topology, spin=spin, **options, **given), positions)
        assert energy(made) == pytest.approx(expected(omol, one, charge=charge, spin=spin), rel=1e-9)
        told = [str(w.message) for w in recwarn if issubclass(w.category, Notice)]
        assert told == [] if given else ["sum to -1, which is taken for the total charge" in t for t in told] == [True]
    with pytest.warns(Notice, match="sum to 2, which is taken for the total charge"):
        mixed_system = MLPotential("equistride", modelPath=omol, backend=backend).createMixedSystem(
            topology, force_field(topology), [*range(9, 18)], forceGroup=3
        )
    found = context(mixed_system, positions).getState(energy=True, groups={3}).getPotentialEnergy()._value
    assert found == pytest.approx(expected(omol, one, charge=2), rel=1e-9)
    with pytest.warns(Notice, match="sum to 1, which are set aside: the model knows no charge"):
        create_system(hco, topology, backend=backend)


def test_values_that_make_no_sense(omol: Path, ethanol: Atoms, random_artifact64: Path) -> None:
    topology, _ = topology_from_ase(ethanol)
    running = context(create_system(omol, topology, backend="plugin"), ethanol.positions)
    for name, value, said in (
        ("charge", 0.5, "the charge is out of range; expected a whole number from -100 to 100; found 0.5"),
        ("spin", -1, "the spin multiplicity is out of range; expected a whole number from 0 to 100; found -1"),
    ):
        running.setParameter(name, value)
        with pytest.raises(openmm.OpenMMException, match=said):
            energy(running)
        running.setParameter(name, 1)
    force = Force(omol)
    with pytest.raises(EquistrideError, match="no global parameters but the charge and spin"):
        force.addGlobalParameter("lambda", 1.0)
    with pytest.raises(EquistrideError, match="no global parameter 'lambda'"):
        force.addEnergyParameterDerivative("lambda")
    with pytest.raises(EquistrideError, match="whole numbers, by which an energy has no derivative"):
        force.addEnergyParameterDerivative("charge")
    assert Force(random_artifact64).getNumGlobalParameters() == 0
    silica, _ = topology_from_ase(Atoms("SiO2", [[0, 0, 0], [1.6, 0, 0], [-1.6, 0, 0]]))
    with pytest.raises(EquistrideError, match="knows no charge and no spin"):
        create_system(random_artifact64, silica, backend="plugin", charge=1)
    with pytest.raises(EquistrideError, match="knows no charge and no spin"):
        create_system(random_artifact64, silica, backend="python", charge=1)
