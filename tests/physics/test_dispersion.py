"""D3(BJ): the numbers of simple-dftd3, smooth ends, forces that are its gradient, and what must be refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from finite_differences import force_on
from random_models import graph_of

from equistride.artifact import load
from equistride.errors import EquistrideError
from equistride.models.potential import GradientPotential
from equistride.nn.dispersion import Dispersion
from equistride.units import BOHR, HARTREE

pytest.importorskip("tad_dftd3", reason="tad-dftd3 is not installed: pip install 'equistride[dispersion]'")
from equistride.artifact.dispersion import damping_of, references_of, with_dispersion


class Alone(GradientPotential):
    """Dispersion and nothing else."""

    def __init__(self, dispersion: Dispersion) -> None:
        super().__init__()
        self.dispersion = dispersion

    def atomic_energies(self, vectors: torch.Tensor, species: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        return self.dispersion(vectors, species, edge_index).double()


def computed(atoms: Atoms, cutoff: float, width: float, functional: str = "pbe") -> tuple[torch.Tensor, ...]:
    symbols = sorted(set(atoms.get_chemical_symbols()))
    model = Alone(Dispersion(references_of(symbols), damping_of(functional), cutoff, width))
    species = torch.tensor([symbols.index(s) for s in atoms.get_chemical_symbols()])
    cell = torch.tensor(atoms.cell.array) if atoms.pbc.all() else None
    return model(*graph_of(torch.tensor(atoms.positions), species, cell, cutoff))


def displaced(atoms: Atoms) -> Atoms:
    atoms.rattle(0.05, seed=1)
    return atoms


CASES = {
    "molecule": (displaced(molecule("CH3CH2OH")), 40 * BOHR, "wb97m"),
    "crystal": (displaced(bulk("MgO", "rocksalt", 4.21, cubic=True)), 9.0, "pbe"),
    "metal": (displaced(bulk("Cu", "fcc", 3.61)), 40 * BOHR, "pbesol"),  # more neighbours than any reference system has
}


@pytest.mark.parametrize("name", CASES)
def test_numbers_are_those_of_simple_dftd3(name: str) -> None:
    """To rounding where both end at once, there; energies in eV an atom, forces in eV/A, virial in eV."""
    interface = pytest.importorskip("dftd3.interface", reason="dftd3 is not installed: pip install dftd3")
    atoms, cutoff, functional = CASES[name]
    box = (atoms.cell.array / BOHR, atoms.pbc) if atoms.pbc.all() else ()
    model = interface.DispersionModel(atoms.numbers, atoms.positions / BOHR, *box)
    model.set_realspace_cutoff(cutoff / BOHR, 40.0, cutoff / BOHR)
    two_bodies = interface.RationalDampingParam(method=functional, atm=False)
    true = model.get_dispersion(two_bodies, grad=True)
    energies, forces, virial = computed(atoms, cutoff, 0.0, functional)
    assert float(energies.sum()) == pytest.approx(true["energy"] * HARTREE, rel=0, abs=1e-10 * len(atoms))
    np.testing.assert_allclose(forces.numpy(), -true["gradient"] * HARTREE / BOHR, rtol=0, atol=1e-9)
    np.testing.assert_allclose(-virial.numpy(), true["virial"] * HARTREE, rtol=0, atol=1e-8)


def test_it_ends_smoothly() -> None:
    """A pair that leaves: energy and force go to zero together; far inside nothing changes."""
    pair = [Atoms("Ar2", [[0, 0, 0], [0, 0, r]]) for r in (4.0, 9.999, 10.0)]
    energies, forces, _ = zip(*(computed(atoms, 10.0, 1.0) for atoms in pair), strict=True)
    assert float(energies[0].sum()) == pytest.approx(float(computed(pair[0], 20.0, 0.0)[0].sum()), rel=1e-12)
    assert 0 < abs(float(energies[1].sum())) < 1e-11
    assert 0 < float(forces[1].abs().max()) < 1e-8
    assert float(energies[2].abs().sum()) == 0.0


def test_an_artifact_with_it_is_the_sum(random_artifact64: Path, tmp_path: Path) -> None:
    """Of both energies, forces and virials, with forces that are its gradient; float32 keeps its digits."""
    plain, both = random_artifact64, tmp_path / "both.pt"
    metadata = with_dispersion(plain, both, "pbe", cutoff=8.0)
    assert (metadata.cutoff, metadata.message_passing_steps, metadata.interaction_range) == (8.0, 4, 32.0)
    assert metadata.capabilities.decomposable
    assert not metadata.capabilities.padded  # how many edges are near is not known before a step
    assert metadata.weights["dispersion"]["functional"] == "pbe"
    atoms = displaced(Atoms("Si2O4", np.random.default_rng(2).uniform(0, 5, (6, 3)), cell=[5.2, 5.4, 5.8], pbc=True))
    first, second = load(plain), load(both)

    def outputs(model: object, positions: np.ndarray) -> object:
        kinds = model.species_index(atoms.get_chemical_symbols())  # type: ignore[attr-defined]
        return model.compute(positions, kinds, atoms.cell.array, atoms.pbc)  # type: ignore[attr-defined]

    found, network = outputs(second, atoms.positions), outputs(first, atoms.positions)
    energies, forces, virial = computed(atoms, 8.0, 1.0)
    torch.testing.assert_close(found.atomic_energies, network.atomic_energies + energies, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.forces, network.forces + forces, rtol=0, atol=1e-11)
    torch.testing.assert_close(found.virial, network.virial + virial, rtol=0, atol=1e-10)
    slope = force_on(lambda x: float(outputs(second, x).atomic_energies.sum()), atoms.positions, 1, 2)
    assert slope == pytest.approx(float(found.forces[1, 2]), rel=0, abs=1e-8)
    rough = outputs(load(both, dtype=torch.float32), atoms.positions)
    torch.testing.assert_close(rough.forces.double(), found.forces, rtol=1e-5, atol=1e-5)


def test_what_has_no_dispersion_is_refused(random_artifact64: Path, tmp_path: Path) -> None:
    plain, both = random_artifact64, tmp_path / "both.pt"
    with pytest.raises(EquistrideError, match=r"no parameters for this functional; .* found lda"):
        with_dispersion(plain, both, "lda")
    with pytest.raises(
        EquistrideError, match=r"reach farther than the network; expected a cutoff of 5 A or more; found 4.5 A"
    ):
        with_dispersion(plain, both, "pbe", cutoff=4.5)
    assert not both.exists()
    with_dispersion(plain, both, "pbe", cutoff=6.0)
    with pytest.raises(EquistrideError, match="has dispersion already"):
        with_dispersion(both, tmp_path / "twice.pt", "pbe")
    with pytest.raises(EquistrideError, match="D3 does not know all of the model's elements; found Rf"):
        references_of(["O", "Rf"])
