"""Anybody's network becomes an artifact: every form gives the energies of one reference, and what cheats is found out."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from own_modules import (
    CUTOFF,
    SPECIES,
    Geometric,
    MACEs,
    OfData,
    OfEdges,
    OfKeys,
    Packs,
    Positions,
    Traced,
    cheat,
    seeded,
)
from torch import nn

from equistride.artifact import export_module, load
from equistride.artifact.metadata import Metadata
from equistride.artifact.validate import validate
from equistride.errors import EquistrideError, Notice
from equistride.graph import neighbor_list
from equistride.units import BOHR, EV_PER_KCAL_MOL

FORMS = {
    "edges": (OfEdges,), "positions": (Positions,), "Geometric": (Geometric,), "Geometric, traced": (Traced,),
    "Data": (OfData,), "NequIP": (OfKeys,), "NequIP, total alone": (OfKeys, False), "MACE": (MACEs,), "SchNetPack": (Packs,),
}  # fmt: skip


def write(module: nn.Module, path: Path, **options: object) -> Metadata:
    given: dict[str, object] = {"species": SPECIES, "cutoff": CUTOFF, "dtype": "float64"}
    return export_module(module, path, **given | options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Metadata]]:
    """Export a form, once for all tests."""

    @functools.cache
    def of(form: str) -> tuple[Path, Metadata]:
        path = tmp_path_factory.mktemp("own") / "m.pt"
        return path, write(seeded(*FORMS[form]), path)

    return of


def frame() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return positions [12, 3], species [12] and a cell smaller than two cutoffs."""
    generator = torch.Generator().manual_seed(5)
    cell = torch.tensor([[7.0, 0.0, 0.0], [0.9, 6.5, 0.0], [-0.4, 0.7, 7.4]], dtype=torch.float64)
    places = torch.cartesian_prod(torch.arange(2.0), torch.arange(2.0), torch.arange(3.0)).double()
    places = places / torch.tensor([2.0, 2.0, 3.0]) + 0.1 * torch.rand(12, 3, generator=generator, dtype=torch.float64)
    return places @ cell, torch.arange(12) % 3, cell


def expected() -> tuple[torch.Tensor, torch.Tensor]:
    """Return atomic energies and forces of the reference, from its own vectors and by autograd to positions."""
    positions, species, cell = frame()
    edges, shifts = neighbor_list(positions, cell, True, CUTOFF)
    leaf = positions.clone().requires_grad_(True)
    vectors = leaf[edges[1]] - leaf[edges[0]] + shifts.double() @ cell
    energies = seeded(OfEdges)(vectors, species, edges).squeeze(1)
    (gradient,) = torch.autograd.grad(energies.sum(), leaf)
    return energies.detach(), -gradient


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_model(form: str, written: Callable[[str], tuple[Path, Metadata]]) -> None:
    path, metadata = written(form)
    assert metadata.capabilities.decomposable
    assert metadata.message_passing_steps == 2
    positions, species, cell = frame()
    energies, forces = expected()
    found = load(path).compute(positions, species, cell, True)
    assert torch.allclose(found.atomic_energies, energies, rtol=0, atol=1e-12)  # rounding: energies of 1 eV
    assert torch.allclose(found.forces, forces, rtol=0, atol=1e-12)


@pytest.mark.parametrize("form", ["edges", "Geometric, traced", "Data", "MACE"])
def test_one_atom_no_atom_and_validate(form: str, written: Callable[[str], tuple[Path, Metadata]]) -> None:
    """Sizes that no example of a trace has, parts that own nothing, and every check of validate."""
    path, _ = written(form)
    model = load(path)
    alone = model.compute([[0.0, 0.0, 0.0]], ["C"])
    pair = model.compute([[0.0, 0.0, 0.0], [0.0, 0.0, 9.0]], ["C", "C"])
    assert torch.allclose(pair.atomic_energies, alone.atomic_energies.expand(2), rtol=0, atol=1e-14)
    assert float(alone.forces.abs().max()) == 0.0
    positions, species, cell = frame()
    assert model.compute_part(positions, species, cell, True, owned=0).atomic_energies.shape == (0,)
    assert all(check.passed for check in validate(path))


@pytest.mark.parametrize("trick", ["mean of features", "number of atoms", "batch statistics", "both ends"])
def test_what_looks_at_all_atoms_is_not_divided(trick: str, tmp_path: Path) -> None:
    """It says so, is served whole, and its forces and virial are still the gradient."""
    with pytest.warns(Notice, match="cannot be divided among processes: an (atom's energy changes by|edge counts for)"):
        metadata = write(cheat(trick), tmp_path / "m.pt")
    assert metadata.interaction_range == "all"
    capabilities = metadata.capabilities
    assert not any((capabilities.decomposable, capabilities.padded, capabilities.batched))
    positions, species, cell = frame()
    with pytest.raises(EquistrideError, match="no part of a frame is enough"):
        load(tmp_path / "m.pt").compute_part(positions, species, cell, True, owned=3)
    checks = {check.name: check for check in validate(tmp_path / "m.pt")}
    assert checks["forces against finite differences"].passed
    assert checks["virial against strain derivative"].passed


@pytest.mark.parametrize(
    ("module", "sentence"),
    [
        (cheat("order"), "depends on the order of the atoms"),
        (cheat("random numbers"), "gives other energies each time"),
        (cheat("kept dropout"), "gives other energies each time"),
        (cheat("counts its calls"), "changes trick.calls as it is evaluated"),
        (cheat("axes"), "changes when the atoms are turned"),
        (cheat("detached"), "is not that of its finite differences"),
        (cheat("no gradient"), "has no gradient to the positions"),
        (cheat("hard edge"), "jumps by .* where a neighbour crosses the cutoff"),
        (seeded(Positions, True), "changes when atoms move by whole lattice vectors"),
    ],
)
def test_what_is_no_energy_of_the_atoms_is_refused(module: nn.Module, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(EquistrideError, match=sentence):
        write(module, tmp_path / "m.pt")
    assert not list(tmp_path.iterdir())


def test_a_jump_at_the_cutoff_may_be_allowed(tmp_path: Path) -> None:
    metadata = write(cheat("hard edge"), tmp_path / "m.pt", allow_nonconservative=True)
    assert not metadata.conservative
    assert "crosses the cutoff" in metadata.caveats[0]


def test_dropout_and_training_mode_are_ended(tmp_path: Path) -> None:
    """A module as training left it: export calls eval()."""
    module = seeded(OfEdges).train()
    write(module, tmp_path / "m.pt")
    assert module.training  # the user's own stays as it was


def test_units_types_and_references(tmp_path: Path) -> None:
    """Energies in kcal/mol of lengths in bohr, elements in another order, and energies of free atoms."""
    positions, species, cell = frame()
    energies, forces = expected()

    class Foreign(OfEdges):
        def forward(self, vectors: torch.Tensor, species: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
            x = self.sums(vectors * BOHR, 2 - species, edge_index[0], edge_index[1])
            return self.read(x) / EV_PER_KCAL_MOL

    module = seeded(Foreign)
    module.cutoff = CUTOFF / BOHR
    metadata = write(module, tmp_path / "m.pt", cutoff=None, energy="kcal/mol", length="bohr", types=[2, 1, 0],
                     references=[-1.0, -2.0, -3.0])  # fmt: skip
    assert metadata.cutoff == pytest.approx(CUTOFF, rel=1e-12)
    found = load(tmp_path / "m.pt").compute(positions, species, cell, True)
    assert torch.allclose(found.atomic_energies, energies - 1.0 - species.double(), rtol=0, atol=1e-12)
    assert torch.allclose(found.forces, forces, rtol=0, atol=1e-12)


class Unknown(nn.Module):
    def forward(
        self, vectors: torch.Tensor, species: torch.Tensor, edge_index: torch.Tensor, mood: torch.Tensor
    ) -> None:
        pass


class NoEdges(nn.Module):
    def forward(self, z: torch.Tensor, pos: torch.Tensor) -> None:
        pass


class Broken(OfEdges):
    def forward(self, vectors: torch.Tensor, species: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        return self.read(vectors)


class Pythonic(OfEdges):
    """No compiler takes it: a number of Python follows from values."""

    def forward(self, vectors: torch.Tensor, species: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        kinds = {int(k) for k in species}
        x = self.sums(vectors, species, edge_index[0], edge_index[1])
        return sum(self.read(x) * (species == kind)[:, None] for kind in kinds)


@pytest.mark.parametrize(
    ("module", "options", "sentence"),
    [
        (Unknown(), {}, "the argument mood of Unknown.forward is not known"),
        (NoEdges(), {}, "takes no edges with their periodic images"),
        (seeded(Broken), {}, r"Broken cannot be evaluated \(RuntimeError: mat1 and mat2 .*test_own_module.py, line"),
        (seeded(Pythonic), {}, "Pythonic cannot be compiled: TorchScript says .*test_own_module.py, line"),
        (seeded(OfEdges), {"species": None}, "elements of the module are not known"),
        (seeded(OfEdges), {"cutoff": None}, "cutoff of the module is not known"),
        (seeded(OfEdges), {"energy": "cal"}, "unit of energy is not known; expected eV"),
        (seeded(OfEdges), {"length": "mile"}, "unit of length is not known"),
        (seeded(OfEdges), {"types": [1]}, "one type of the module; expected 3; found 1"),
        (seeded(OfEdges), {"references": [1.0]}, "one reference energy; expected 3; found 1"),
        (seeded(OfData), {"result": "heat"}, "no energy that is known; expected heat"),
    ],
)
def test_mistakes_are_one_sentence(
    module: nn.Module, options: dict[str, object], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(EquistrideError, match=sentence):
        write(module.double(), tmp_path / "m.pt", **options)
