"""A box that cannot be one of matter, or that is smaller than the model declares, is refused in every engine in one sentence;
primitive cells are not."""

from __future__ import annotations

from pathlib import Path

import lammps_runs as lammps
import numpy as np
import openmm
import pytest
import toy_artifact
from ase import Atoms
from ase.build import bulk, molecule
from openmm_systems import context, energy_forces

from equistride.artifact import Frame, load
from equistride.artifact.archive import save
from equistride.artifact.metadata import Limits, Metadata
from equistride.engines.ase import EquistrideCalculator
from equistride.engines.openmm import create_system
from equistride.engines.openmm_structure import topology_from_ase
from equistride.errors import EquistrideError

PLACEHOLDER = (
    r"box is too small: each atom meets its own image nearer than atoms can be; expected 1.1 A or more; found 1 A"
)


def water(edge: float) -> Atoms:
    """One molecule in a cube, 1 A in the files of electron microscopy and of many editors."""
    atoms = molecule("H2O", cell=[edge] * 3, pbc=True)
    atoms.positions += 0.1
    return atoms


@pytest.mark.parametrize("backend", ["plugin", "python"])
def test_in_openmm(artifact64: Path, backend: str) -> None:
    atoms = water(1.0)
    topology, _ = topology_from_ase(atoms)
    with pytest.raises((openmm.OpenMMException, EquistrideError), match=PLACEHOLDER):
        energy_forces(context(create_system(artifact64, topology, backend=backend), atoms.positions))  # type: ignore[arg-type]
    free = create_system(artifact64, topology, backend=backend, periodic=False)  # type: ignore[arg-type]
    assert np.isfinite(energy_forces(context(free, atoms.positions))[0])


def test_a_box_that_shrinks_in_a_run(artifact64: Path) -> None:
    atoms = water(8.0)
    simulated = context(create_system(artifact64, topology_from_ase(atoms)[0]), atoms.positions)
    first = energy_forces(simulated)
    simulated.setPeriodicBoxVectors(*(np.eye(3) * 0.1))
    with pytest.raises(openmm.OpenMMException, match=PLACEHOLDER):
        energy_forces(simulated)
    simulated.setPeriodicBoxVectors(*(np.eye(3) * 0.8))
    assert energy_forces(simulated)[0] == pytest.approx(first[0], rel=1e-12)


def test_in_python(artifact64: Path) -> None:
    """ASE, one frame, part of one, a batch, and torch-sim."""
    atoms, model = water(1.0), load(artifact64)
    atoms.calc = EquistrideCalculator(artifact64)
    with pytest.raises(EquistrideError, match=PLACEHOLDER):
        atoms.get_potential_energy()
    frame = Frame(atoms.positions, model.species_index(atoms.get_chemical_symbols()), atoms.cell.array, True)
    for call in (lambda: model.compute(*frame), lambda: model.compute_part(*frame, owned=1)):
        with pytest.raises(EquistrideError, match=PLACEHOLDER):
            call()
    with pytest.raises(EquistrideError, match=f"frame 0: the {PLACEHOLDER}"):
        model.compute_batch([frame])
    with pytest.raises(
        EquistrideError, match=r"denser than any matter; expected fewer than 2 atoms.*found 3 in 1.331 cubic A"
    ):
        model.compute(frame.positions, frame.species, np.eye(3) * 1.1, True)
    skewed = [[4.0, 0.0, 0.0], [0.0, 4.0, 0.0], [7.1, 0.3, 4.0]]
    assert np.isfinite(float(model.compute(frame.positions, frame.species, skewed, True).atomic_energies.sum()))
    skewed[2] = [4.3, 0.3, 0.9]  # the first vector from it is 1 A long
    with pytest.raises(
        EquistrideError, match=r"own image nearer than atoms can be; expected 1.1 A or more; found 0.99"
    ):
        model.compute(frame.positions, frame.species, skewed, True)


def test_in_torch_sim(artifact64: Path) -> None:
    torch_sim = pytest.importorskip("torch_sim")
    import torch

    from equistride.engines.torch_sim import EquistrideModel

    state = torch_sim.io.atoms_to_state([water(1.0)], torch.device("cpu"), torch.float64)
    with pytest.raises(EquistrideError, match=PLACEHOLDER):
        EquistrideModel(artifact64)(state)


def test_in_lammps(tmp_path: Path) -> None:
    lammps.require_plugin()
    model = toy_artifact.write(tmp_path / "toy.pt")
    lammps.write_data(Atoms("SiO", [[0.1, 0.1, 0.1], [0.5, 0.5, 0.5]], cell=[1.0] * 3, pbc=True), tmp_path / "data.lmp")
    for ghosts in ("local", "wide"):
        said = lammps.refused(lammps.head(f"equistride ghost {ghosts}", f"* * {model} Si O") + "run 0\n", tmp_path)
        assert "own image nearer than atoms can be; expected 1.1 A or more; found 1 A" in said


@pytest.mark.parametrize("cell", ["silicon", "aluminium", "layer"])
def test_primitive_cells_work(tmp_path: Path, cell: str) -> None:
    """Atoms that are their own neighbours: as in a supercell, to rounding."""
    path = toy_artifact.write(tmp_path / "toy.pt", change={"species": ["Al", "C", "Si"], "masses": []})
    primitive = {
        "silicon": bulk("Si", "diamond", a=5.43),
        "aluminium": bulk("Al", "fcc", a=4.05),
        "layer": Atoms(
            "C2", [[0, 0, 5], [1.23, 0.71, 5]], cell=[[2.46, 0, 0], [1.23, 2.13, 0], [0, 0, 10]], pbc=[1, 1, 0]
        ),
    }[cell]
    energies = []
    for repeat in (1, 2):
        atoms = primitive.repeat((repeat, repeat, repeat if primitive.pbc[2] else 1))
        atoms.calc = EquistrideCalculator(path)
        energies.append(atoms.get_potential_energy() / len(atoms))
    assert energies[0] == pytest.approx(energies[1], rel=1e-12)
    assert abs(energies[0]) > 0.01


def test_limits_that_a_model_declares(tmp_path: Path) -> None:
    """The smallest box in cutoffs; the shortest bond also holds for images."""
    import torch

    metadata = Metadata(
        kind="potential", architecture="pair", species=toy_artifact.SPECIES, cutoff=toy_artifact.CUTOFF, dtype="float64",
        limits=Limits(smallest_box=2.0, shortest_bond=1.3),
    )  # fmt: skip
    path = tmp_path / "limited.pt"
    save(toy_artifact.PairPotential(toy_artifact.CUTOFF, torch.float64), metadata, path)
    model = load(path)
    assert model.metadata.limits.smallest_box == 2.0
    at, species = [[0.0, 0.0, 0.0], [1.5, 0.0, 0.0]], ["Si", "O"]
    model.compute(at, species, np.eye(3) * 8.0, True)
    model.compute(at, species, np.diag([8.0, 8.0, 0.5]), [True, True, False])
    for edge, said in (
        (7.9, "does not hold for it; expected 8 A or more between opposite faces, 2 cutoffs; found 7.9 A"),
        (1.2, "nearer than atoms can be; expected 1.3 A or more; found 1.2 A"),
    ):
        with pytest.raises(EquistrideError, match=said):
            model.compute(at, species, np.diag([8.0, 8.0, edge]), True)
