"""A region that ends in a bond: its link atom, a virtual site of hydrogen, in every backend and platform; forces, trajectories,
what is harvested.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ase.io
import mdtraj
import numpy as np
import openmm
import pytest
from finite_differences import force_on
from mixed_systems import (
    BONDS,
    ELEMENTS,
    ETHANOL,
    GROUP,
    METHANOL,
    ethanols,
    force_field,
    harvest,
    mixed,
    place,
    with_caps,
)
from openmm import app, unit
from openmm_systems import energy_forces
from openmmml import MLPotential
from openmmml.embeddings.utilities import COVALENT_RADII

from equistride.artifact import load
from equistride.engines.openmm import Harvester
from equistride.errors import EquistrideError
from equistride.units import KJ_MOL_PER_EV

BACKENDS = ["plugin", "python"]
WAYS: list[dict[str, Any]] = [{"backend": b, "interpolate": i} for b in BACKENDS for i in (False, True)]
LENGTH = float((COVALENT_RADII[6] + COVALENT_RADII[1]).value_in_unit(unit.angstrom))
"""A, of the bond to a link atom."""
FLOAT32 = 2e-6
"""Of the largest force: sums of some twenty terms in single precision, and its rounded positions."""


def cap(first: np.ndarray, second: np.ndarray, length: float = LENGTH) -> np.ndarray:
    """Where a hydrogen stands for the second atom of a bond [A]."""
    return first + length * (second - first) / np.linalg.norm(second - first)


@pytest.mark.parametrize("interpolate", [False, True])
def test_forces_are_the_slope_of_the_energy(hco: Path, interpolate: bool) -> None:
    """Of every atom, in double precision; the link atom hands its force to both ends of its bond."""
    made = {b: with_caps(mixed(hco, METHANOL, interpolate=interpolate, backend=b), ETHANOL) for b in BACKENDS}
    energy, forces = energy_forces(made["plugin"])
    other = energy_forces(made["python"])
    assert energy == pytest.approx(other[0], rel=1e-9)
    assert np.abs(forces - other[1]).max() < 1e-9 * np.abs(forces).max()
    assert made["plugin"].getState(forces=True).getForces(asNumpy=True)._value == pytest.approx(forces, rel=1e-12)

    def at(positions: np.ndarray) -> float:
        place(made["plugin"], positions * 10)
        return made["plugin"].getState(energy=True).getPotentialEnergy()._value

    # of fourth order at 2e-5 nm: cut off at 1e-8 of the stiffest bond, rounding of 1e4 kJ/mol at 1e-7 kJ/mol/nm
    slopes = [[force_on(at, ETHANOL / 10, atom, axis, 2e-5) for axis in range(3)] for atom in range(9)]
    assert np.abs(forces[:9] - slopes).max() < 1e-8 * np.abs(forces).max()


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_single_precision_of_the_cpu_platform(hco: Path, way: dict[str, Any]) -> None:
    """The CPU platform's force field is in float32, the model is not: its share has the digits of the Reference platform."""
    of_model = {"groups": {GROUP}}
    system = mixed(hco, METHANOL, **way)
    reference, cpu = (with_caps(system, ETHANOL, platform) for platform in ("Reference", "CPU"))
    (e, f), (energy, forces) = energy_forces(reference), energy_forces(cpu)
    assert energy == pytest.approx(e, rel=FLOAT32)
    assert np.abs(forces - f).max() < FLOAT32 * np.abs(f).max()
    if way["interpolate"]:  # its group holds the force field's terms inside the region too
        return
    (e, f), (energy, forces) = energy_forces(reference, **of_model), energy_forces(cpu, **of_model)
    assert energy == pytest.approx(e, rel=1e-12)
    assert np.abs(forces - f).max() < 1e-12 * np.abs(f).max()

    def at(positions: np.ndarray) -> float:
        place(cpu, positions * 10)
        return cpu.getState(energy=True, **of_model).getPotentialEnergy()._value

    for atom, axis in ((0, 0), (0, 2), (1, 1), (1, 2), (6, 2), (8, 0)):
        slope = force_on(at, ETHANOL / 10, atom, axis, 2e-5)
        assert forces[atom, axis] == pytest.approx(slope, abs=1e-7 * np.abs(forces).max())


def test_it_is_hydrogen_on_the_bond(hco: Path) -> None:
    """The energy is the model's own of the region and its cap, at openmm-ml's distance or a given one."""
    model = load(hco)
    for given, length in (({}, LENGTH), ({"linkAtomDistances": [(1, 0, 1.2 * unit.angstrom)]}, 1.2)):
        found = with_caps(mixed(hco, METHANOL, **given), ETHANOL).getState(energy=True, groups={GROUP})
        atoms = np.vstack([ETHANOL[METHANOL], cap(ETHANOL[1], ETHANOL[0], length)])
        expected = model.compute(atoms, [*(ELEMENTS[k] for k in METHANOL), "H"]).atomic_energies.sum()
        assert found.getPotentialEnergy()._value == pytest.approx(float(expected) * KJ_MOL_PER_EV, rel=1e-12)
    with pytest.raises(
        EquistrideError, match=r"linkAtomDistances names atoms.*expected one of \[0, 1\]; found \[1, 2\]"
    ):
        mixed(hco, METHANOL, linkAtomDistances=[(1, 2, 0.1)])


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("platform", ["Reference", "CPU"])
def test_trajectories_are_whole(hco: Path, tmp_path: Path, platform: str, way: dict[str, Any]) -> None:
    """Molecules that cross the boundary are written in one piece, with the link atom on its bond; energies are those of the
    molecule in the middle of the box."""
    topology, positions = ethanols(2, box=22.0)
    info = MLPotential("equistride", modelPath=hco).createMixedSystem(
        topology, force_field(topology), METHANOL, returnInfo=True, **way
    )
    system, larger, places = info["system"], info["topology"], list(info["oldToNew"])
    assert system.getNumParticles() == 19
    energies = []
    for shift in (0.0, -positions[1]):  # the bond that is cut lies across the boundary
        full = np.zeros((19, 3))
        full[places] = positions + 6.0 if np.isscalar(shift) else positions + shift - np.array([0.3, 0.3, 0.0])
        run = app.Simulation(
            larger, system, openmm.VerletIntegrator(0.0002), openmm.Platform.getPlatformByName(platform)
        )
        run.context.setPositions(full / 10)
        run.context.computeVirtualSites()
        energies.append(run.context.getState(energy=True).getPotentialEnergy()._value)
    assert energies[0] == pytest.approx(energies[1], rel=1e-10 if platform == "Reference" else FLOAT32)
    molecules = sorted(len(m) for m in run.context.getMolecules())
    assert molecules == [9, 10]
    run.reporters += [app.DCDReporter(str(tmp_path / "a.dcd"), 1), app.XTCReporter(str(tmp_path / "a.xtc"), 1)]
    run.step(4)
    del run.reporters[:]
    link = next(k for k in range(19) if system.isVirtualSite(k))
    for name in ("a.dcd", "a.xtc"):
        written = mdtraj.load(tmp_path / name, top=mdtraj.Topology.from_openmm(larger)).xyz * 10
        assert len(written) == 4
        for molecule in (places[:9], places[9:]):
            bonds = [np.linalg.norm(written[:, molecule[i]] - written[:, molecule[j]], axis=1) for i, j in BONDS]
            assert np.max(bonds) < 1.8
        carbon, methyl = written[:, places[1]], written[:, places[0]]
        expected = [cap(a, b) for a, b in zip(carbon, methyl, strict=True)]
        assert np.abs(written[:, link] - expected).max() < 0.02  # XTC keeps 0.01 A


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_the_harvester_watches_the_region(hco_ensemble: Path, tmp_path: Path, way: dict[str, Any]) -> None:
    """In each way of mixing, with the ensemble given or not; link atoms belong to the region."""
    topology, region = ethanols(2)[0], [10, 11, 15, 16, 17]
    system = MLPotential("equistride", modelPath=hco_ensemble).createMixedSystem(
        topology, force_field(topology), region, **way
    )
    for k, given in enumerate((None, hco_ensemble)):
        harvest(system, topology, watch := Harvester(tmp_path / f"{k}.xyz", 1e-9, 1, artifact=given))
        frame = ase.io.read(tmp_path / f"{k}.xyz")
        assert "".join(frame.get_chemical_symbols()) == "".join(ELEMENTS[a % 9] for a in region) + "H"
        assert frame.positions[-1] == pytest.approx(
            cap(frame.positions[0], frame.positions[0] + ETHANOL[0] - ETHANOL[1]), abs=1e-2
        )
        expected = load(hco_ensemble).uncertainty(frame.positions, frame.get_chemical_symbols()).numpy()
        assert watch.uncertainties == [pytest.approx(expected.max(), rel=1e-4)]  # extxyz keeps eight decimals


@pytest.mark.parametrize("way", [WAYS[0], WAYS[3]], ids=str)
def test_two_regions_with_link_atoms_are_both_harvested(
    hco_ensemble: Path, tmp_path: Path, way: dict[str, Any]
) -> None:
    topology, _ = ethanols(2)
    potential = MLPotential("equistride", modelPath=hco_ensemble)
    info = potential.createMixedSystem(topology, force_field(topology), METHANOL, returnInfo=True, **way)
    second = [int(info["oldToNew"][9 + k]) for k in METHANOL]
    info = potential.createMixedSystem(info["topology"], info["system"], second, returnInfo=True, **way)
    harvest(info["system"], topology, Harvester(tmp_path / "h.xyz", 1e-9, 1))
    frames = ase.io.read(tmp_path / "h.xyz", ":")
    assert [frame.info["region"] for frame in frames] == [0, 1]
    symbols = "".join(ELEMENTS[k] for k in METHANOL) + "H"
    assert ["".join(frame.get_chemical_symbols()) for frame in frames] == [symbols] * 2
