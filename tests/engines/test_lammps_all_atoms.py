"""A model that looks at all atoms, as UMA does: sums over those of all processes, and one composition that it holds for."""

from __future__ import annotations

from pathlib import Path

import lammps_runs as lmp
import numpy as np
import pytest
import torch
from ase import Atoms
from finite_differences import force_on
from random_models import random_potential

from equistride import artifact
from equistride.artifact.export import save_potential
from equistride.artifact.metadata import Composition
from equistride.models.esen import ESENConfig
from equistride.units import EV_PER_ANGSTROM3_IN_BAR

SIZES = {"cutoff": 4.0, "num_layers": 2, "channels": 8, "hidden_channels": 8, "edge_channels": 8,
         "charge_channels": (1, 2), "spin_channels": (4, 5)}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _plugin() -> None:
    lmp.require_plugin()


@pytest.fixture(scope="module")
def balanced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Channels that sum to charge 1 and one unpaired electron over all atoms of SiO2, and nothing else."""
    potential = random_potential(**SIZES)
    potential.network.balance.set_totals(1.0, 2.0)
    path = tmp_path_factory.mktemp("all") / "balanced.pt"
    save_potential(potential, ESENConfig.model_validate(SIZES), path, dtype="float64", fused=True, provenance={},
                   composition=Composition(elements={"Si": 1, "O": 2}))  # fmt: skip
    return path


def slab() -> Atoms:
    """72 displaced atoms in a box that is empty beyond them, so that the last of some processes has none."""
    atoms = lmp.crystal()
    cell = atoms.cell.array
    cell[2, 2] += 30.0
    atoms.set_cell(cell)
    return atoms


def expected(path: Path, atoms: Atoms) -> artifact.Outputs:
    """Evaluate the artifact itself."""
    return artifact.load(path).compute(atoms.positions, list(atoms.symbols), atoms.cell.array, atoms.pbc)


@pytest.mark.parametrize(("ranks", "ghosts"), [(1, "exchange"), (2, "exchange"), (2, "wide"), (4, "auto")])
def test_sums_are_those_over_all_atoms(balanced: Path, tmp_path: Path, ranks: int, ghosts: str) -> None:
    """1e-10: sums go round another way; without the sum of gradients over processes forces are wrong by 0.01 and more."""
    atoms = slab()
    whole = expected(balanced, atoms)
    script = lmp.head(f"equistride ghost {ghosts}", f"* * {balanced} Si O") + lmp.OUTPUT + "run 0\n"
    found = lmp.run(atoms, f"processors 1 1 {ranks}\n" + script, tmp_path, ranks)
    assert found.thermo[-1]["PotEng"] == pytest.approx(float(whole.atomic_energies.sum()), rel=1e-12)
    assert np.abs(found.energies - whole.atomic_energies.numpy()).max() < 1e-10
    assert np.abs(found.forces - whole.forces.numpy()).max() < 1e-10
    trace = float(whole.virial.trace()) / 3 / atoms.get_volume() * EV_PER_ANGSTROM3_IN_BAR
    assert found.thermo[-1]["Press"] == pytest.approx(trace, rel=1e-6)  # LAMMPS's own conversion of units


def test_forces_are_the_gradient_with_the_sums_in_it(balanced: Path) -> None:
    atoms, model = slab(), artifact.load(balanced)

    def energy(positions: np.ndarray) -> float:
        return float(model.compute(positions, list(atoms.symbols), atoms.cell.array, True).atomic_energies.sum())

    forces = expected(balanced, atoms).forces.numpy()
    for atom, axis in ((0, 0), (40, 2)):
        assert force_on(energy, atoms.positions, atom, axis) == pytest.approx(forces[atom, axis], abs=1e-6)


def test_what_such_a_model_can_do(balanced: Path) -> None:
    """Spare atoms are left out of its sums; frames are not joined, and a part of a frame is not enough."""
    model, atoms = artifact.load(balanced), slab()
    facts = model.metadata
    assert (facts.interaction_range, facts.global_sums) == ("all", 2)
    can = facts.capabilities
    assert (can.decomposable, can.padded, can.batched) == (True, True, False)
    assert facts.operators["equistride::total"] == 1
    whole = expected(balanced, atoms)
    species = model.species_index(list(atoms.symbols))
    arguments = (torch.tensor(atoms.positions), None, species, torch.tensor(atoms.cell.array), torch.tensor([True] * 3))
    padded = model.native.step(*arguments)
    assert model.native.capacity() > 0
    assert (padded[0] - whole.atomic_energies).abs().max() < 1e-11
    assert (padded[1] - whole.forces).abs().max() < 1e-11
    system = (list(atoms.symbols), atoms.cell.array, True)
    alone = model.compute_part(atoms.positions, *system, owned=72)
    assert (alone.atomic_energies - whole.atomic_energies).abs().max() < 1e-11
    with pytest.raises(ValueError, match="sums over all atoms, so that no part of a frame is enough; expected all 72"):
        model.compute_part(atoms.positions, *system, owned=71)


WRONG = "the model holds for one composition alone; expected"


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("set atom 1 type 2\nrun 0", "O49Si23"),
        ("region r block 0 1 1 4 15 25\nfix d all deposit 1 2 1 12345 region r near 1.5\nrun 1", "O49Si24"),
        ("region r block INF INF INF INF -1 50\nfix e all evaporate 1 1 r 38277\nrun 1", "found O"),
        ("fix g all gcmc 1 5 0 2 29494 300 -0.5 0.1 full_energy\nrun 1", "found O"),
    ],
    ids=["set", "deposit", "evaporate", "gcmc"],
)
@pytest.mark.parametrize("ranks", [1, 2])
def test_another_composition_ends_the_run(balanced: Path, tmp_path: Path, change: str, found: str, ranks: int) -> None:
    """Also one that comes about in a run; in one sentence, for every process."""
    lmp.write_data(slab(), tmp_path / "data.lmp")
    script = lmp.head("equistride", f"* * {balanced} Si O") + "fix n all nve\n" + change + "\n"
    said = lmp.refused(script, tmp_path, ranks)
    assert said.count(WRONG) == 1, said[-1500:]
    assert found in said[said.index(WRONG) :]


def test_the_right_composition_runs_on(balanced: Path, tmp_path: Path) -> None:
    """Atoms that change places between processes, and a supercell that a run makes of the same composition."""
    lmp.write_data(slab(), tmp_path / "data.lmp")
    head = lmp.head("equistride", f"* * {balanced} Si O").replace("pair_style", "replicate 2 1 1\npair_style", 1)
    done = lmp.launch(head + "velocity all create 300 1\nfix n all nve\nrun 2\n", tmp_path, 2)
    assert done.returncode == 0, done.stdout[-2000:]
