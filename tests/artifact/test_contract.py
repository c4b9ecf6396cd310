"""What metadata of format 2 declare is held against the module: a lie of each kind is refused at load, in one sentence."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from random_models import SPECIES, random_potential, write_artifact
from rewritten import rewritten
from toy_metadata import toy_metadata
from trajcast_systems import propagator

from equistride.artifact import Frame, load
from equistride.artifact.archive import save
from equistride.artifact.ensemble import combine
from equistride.artifact.export import save_potential
from equistride.artifact.metadata import FORMAT_VERSION, Composition, Metadata
from equistride.artifact.propagators import save_propagator
from equistride.errors import EquistrideError
from equistride.models.esen import ESENConfig
from equistride.models.potential import ConservativePotential


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A potential, a capped one, an ensemble, and a propagator with tables."""
    folder = tmp_path_factory.mktemp("artifacts")
    small = {"channels": 4, "hidden_channels": 4, "edge_channels": 4, "l_max": 1, "m_max": 1}
    made = {"potential": write_artifact(random_potential(**small), folder / "potential.pt", "float64")}
    made["capped"] = write_artifact(random_potential(max_neighbors=5, **small), folder / "capped.pt", "float64")
    members = [write_artifact(random_potential(k, **small), folder / f"{k}.pt", "float64") for k in (1, 2)]
    made["ensemble"] = folder / "ensemble.pt"
    combine(members, made["ensemble"])
    made["propagator"] = folder / "propagator.pt"
    save_propagator(propagator(num_layers=2), made["propagator"], dtype="float64", tables=1e-3)
    return made


def edited(path: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Write the artifact with other metadata."""

    def edit(name: str, data: bytes) -> bytes:
        if name != "extra/metadata.json":
            return data
        facts = json.loads(data)
        change(facts)
        return json.dumps(facts).encode()

    return rewritten(path, target, edit)


def steps(number: int) -> Callable[[dict[str, Any]], None]:
    return lambda facts: facts.update(message_passing_steps=number, interaction_range=number * facts["cutoff"])


LIES = {
    "a longer cutoff": (
        "potential",
        lambda f: f.update(cutoff=4.4, interaction_range=13.2),
        "the cutoff; expected 4 A",
    ),
    "a shorter cutoff": ("propagator", lambda f: f.update(cutoff=3.0, interaction_range=6.0), "the cutoff; expected"),
    "fewer steps": ("potential", steps(2), "message_passing_steps; expected 3, as the module has it; found 2"),
    "more steps": ("propagator", steps(4), "message_passing_steps; expected 2, as the module has it; found 4"),
    "another range": (
        "potential",
        lambda f: f.update(interaction_range=4.0),
        "'interaction_range'.*not that of 3 steps",
    ),
    "all atoms": ("potential", lambda f: f.update(interaction_range="all"), "'interaction_range'.*does not fit 0 sums"),
    "sums over all": ("potential", lambda f: f.update(global_sums=2), "'interaction_range'.*does not fit 2 sums"),
    "padded": ("capped", lambda f: f["capabilities"].update(padded=True), "capabilities.padded; expected no"),
    "uncertainty": ("potential", lambda f: f["capabilities"].update(uncertainty=True), "capabilities.uncertainty"),
    "batched": ("propagator", lambda f: f["capabilities"].update(batched=True), "capabilities.batched; expected no"),
    "shorter bonds": (
        "propagator",
        lambda f: f["limits"].update(shortest_bond=0.1),
        "limits.shortest_bond; expected 0.5",
    ),
    "faster atoms": (
        "propagator",
        lambda f: f["limits"].update(fastest_atom=9.0),
        "limits.fastest_atom; expected 0.05",
    ),
    "charge and spin": (
        "potential",
        lambda f: f.update(charge_spin="input", system={"charge": 0.0, "spin": 1.0}),
        "charge_spin; expected none",
    ),
    "an operator left out": ("potential", lambda f: f["operators"].pop("equistride::exchange"), "operators; expected"),
    "an operator too many": (
        "potential",
        lambda f: f["operators"].update({"equistride::edge_block": 1}),
        "operators; expected none of this name",
    ),
    "a version from the future": (
        "potential",
        lambda f: f["operators"].update({"equistride::exchange": 2}),
        "needs the operator equistride::exchange in version 2; expected at most 1; update equistride",
    ),
    "an operator from the future": (
        "potential",
        lambda f: f["operators"].update({"equistride::telepathy": 1}),
        "needs the operator equistride::telepathy, which this equistride does not have",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_refused(artifacts: dict[str, Path], tmp_path: Path, lie: str) -> None:
    kind, change, said = LIES[lie]
    with pytest.raises(EquistrideError, match=said) as info:
        load(edited(artifacts[kind], tmp_path / "lie.pt", change))
    assert "\n" not in str(info.value)


class NotDecomposable(torch.nn.Module):
    """Springs to the neighbours, by a method that is not the contract's."""

    def forward(
        self,
        positions: torch.Tensor,
        species: torch.Tensor,
        cell: torch.Tensor,
        edge_index: torch.Tensor,
        shifts: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return torch.zeros_like(positions)[:, 0].double(), torch.zeros_like(positions), torch.zeros_like(cell)


def test_decomposable_must_be_so(tmp_path: Path) -> None:
    save(NotDecomposable(), toy_metadata(SPECIES, 3.0), tmp_path / "toy.pt")
    assert not load(tmp_path / "toy.pt").metadata.capabilities.decomposable
    lie = edited(tmp_path / "toy.pt", tmp_path / "lie.pt", lambda f: f["capabilities"].update(decomposable=True))
    with pytest.raises(EquistrideError, match=r"capabilities\.decomposable; expected no"):
        load(lie)


class Mean(torch.nn.Module):
    """A network that cheats: each atom sees the mean of all."""

    def __init__(self, cutoff: float) -> None:
        super().__init__()
        self.cutoff = cutoff

    def forward(self, vectors: torch.Tensor, species: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        near = (1.0 - vectors.square().sum(1) / self.cutoff**2).clamp(min=0.0).square()
        own = near.new_zeros(species.size(0)).index_add(0, edge_index[0], near)
        return own * own.mean()


def test_a_look_at_all_atoms_is_found_by_trying(tmp_path: Path) -> None:
    """No method and no name tells: spare atoms change its energies, so it is not divided, and no lie is believed."""
    potential = ConservativePotential(Mean(3.0), SPECIES, 3.0, 1.0, [0.0, 0.0])
    save(potential, toy_metadata(SPECIES, 3.0), tmp_path / "mean.pt")
    capabilities = load(tmp_path / "mean.pt").metadata.capabilities
    assert not any((capabilities.decomposable, capabilities.padded, capabilities.batched))
    for claim in ("padded", "batched"):
        lie = edited(
            tmp_path / "mean.pt",
            tmp_path / "lie.pt",
            lambda f, claim=claim: f["capabilities"].update({"decomposable": True, claim: True}),
        )
        with pytest.raises(EquistrideError, match=rf"capabilities.{claim}; expected no: other atoms change outputs"):
            load(lie)
    hidden = edited(tmp_path / "mean.pt", tmp_path / "lie.pt", lambda f: f["capabilities"].update(decomposable=True))
    with pytest.raises(EquistrideError, match="message_passing_steps; expected 96 or more"):
        load(hidden)


class Deep(torch.nn.Module):
    """Nine sums over neighbours that follow one another, and a length of its own that is no cutoff of ours."""

    def __init__(self, cutoff: float) -> None:
        super().__init__()
        self.cutoff = cutoff

    def forward(self, vectors: torch.Tensor, species: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        weights = (1.0 - vectors.square().sum(1) / 9.0).clamp(min=0.0).square()
        x = torch.ones_like(species).to(vectors.dtype)
        for _ in range(9):
            x = torch.zeros_like(x).index_add(0, edge_index[0], x.index_select(0, edge_index[1]) * weights)
        return x


class Around(torch.nn.Module):
    def __init__(self, foreign: torch.nn.Module) -> None:
        super().__init__()
        self.foreign = foreign

    def forward(self, vectors: torch.Tensor, species: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        return self.foreign(vectors, species, edge_index)


def test_all_steps_are_counted_and_foreign_lengths_left_alone(tmp_path: Path) -> None:
    """Where a module says nothing of its steps, the trial walks as far as it looks; ``foreign`` parts have their own units."""
    network = Around(Deep(0.3))  # nm
    save(
        ConservativePotential(network, SPECIES, 3.0, 1.0, [0.0, 0.0]), toy_metadata(SPECIES, 3.0), tmp_path / "deep.pt"
    )
    assert load(tmp_path / "deep.pt").metadata.message_passing_steps == 9
    short = edited(tmp_path / "deep.pt", tmp_path / "short.pt", steps(1))
    with pytest.raises(EquistrideError, match="message_passing_steps; expected 9 or more"):
        load(short)
    own = ConservativePotential(Deep(0.3), SPECIES, 3.0, 1.0, [0.0, 0.0])
    with pytest.raises(EquistrideError, match=r"the cutoff; expected 0\.3"):
        save(own, toy_metadata(SPECIES, 3.0), tmp_path / "own.pt")


def test_what_is_not_declared_is_not_used(artifacts: dict[str, Path], tmp_path: Path) -> None:
    """An ensemble that declares no uncertainty has none, and a model that declares no parts is run whole."""
    modest = edited(artifacts["ensemble"], tmp_path / "m.pt", lambda f: f["capabilities"].update(uncertainty=False))
    positions, species = torch.eye(3).double() * 2, [0, 1, 0]
    with pytest.raises(EquistrideError, match="has no uncertainty"):
        load(modest).uncertainty(positions, species)
    assert load(artifacts["ensemble"]).uncertainty(positions, species).shape == (3,)
    whole = edited(
        artifacts["potential"], tmp_path / "w.pt", lambda f: f["capabilities"].update(decomposable=False, padded=False)
    )
    expected = load(artifacts["potential"]).compute(positions, species)
    assert torch.allclose(load(whole).compute(positions, species).forces, expected.forces, rtol=0, atol=1e-12)
    with pytest.raises(EquistrideError, match="cannot be evaluated in parts"):
        load(whole).compute_part(positions, species, owned=1)


def test_a_composition_is_kept_to(artifacts: dict[str, Path], tmp_path: Path) -> None:
    """Any multiple of it, unless the number of atoms counts."""
    frame = torch.rand(12, 3, generator=torch.Generator().manual_seed(1)).double() * 9
    bound = edited(
        artifacts["potential"],
        tmp_path / "bound.pt",
        lambda f: f.update(composition={"elements": {"O": 4, "Si": 4}, "atoms": None}),  # that of the reference frame
    )
    model = load(bound)
    assert model.metadata.composition == Composition(elements={"O": 4, "Si": 4})
    model.compute(frame[:4], [0, 1, 0, 1])
    with pytest.raises(EquistrideError, match="one composition alone; expected O4Si4; found O3Si1"):
        model.compute(frame[:4], [0, 0, 0, 1])
    with pytest.raises(EquistrideError, match="frame 1: the model holds for one composition"):
        model.compute_batch([Frame(frame[:2], [0, 1]), Frame(frame[:2], [0, 0])])
    sized = edited(bound, tmp_path / "sized.pt", lambda f: f["composition"].update(atoms=8))
    with pytest.raises(EquistrideError, match="with 8 atoms in all; found O2Si2"):
        load(sized).compute(frame[:4], [0, 1, 0, 1])


def test_export_fills_the_contract_in(artifacts: dict[str, Path]) -> None:
    found = {name: load(path).metadata for name, path in artifacts.items()}
    assert all(facts.format_version == FORMAT_VERSION for facts in found.values())
    potential, walker = found["potential"], found["propagator"]
    assert (potential.message_passing_steps, potential.interaction_range) == (3, 12.0)
    assert potential.capabilities.model_dump() == {
        "decomposable": True, "padded": True, "batched": True, "uncertainty": False, "angular_momentum": False
    }  # fmt: skip
    assert not found["capped"].capabilities.padded
    assert found["ensemble"].capabilities.uncertainty
    assert (walker.limits.shortest_bond, walker.max_speed) == (0.5, 0.05)
    assert walker.capabilities.angular_momentum
    assert potential.operators == {"equistride::exchange": 1, "equistride::own": 1}


def test_files_hold_one_set_of_weights_and_no_layout(tmp_path: Path) -> None:
    """A fused network's matrices are laid out for the kernels when it is loaded."""
    config = ESENConfig(cutoff=4.0, num_layers=2, channels=32, hidden_channels=32, edge_channels=16)
    potential = random_potential(**config.model_dump(exclude={"cutoff"}))
    sizes = {}
    for fused in (True, False):
        path = tmp_path / f"{fused}.pt"
        save_potential(potential, config, path, dtype="float64", fused=fused, provenance={})
        with zipfile.ZipFile(path) as archive:
            sizes[fused] = sum(item.file_size for item in archive.infolist() if "/data/" in item.filename)
    assert sizes[True] < 1.1 * sizes[False]
    plain, fused_model = load(tmp_path / "False.pt"), load(tmp_path / "True.pt")
    assert fused_model.metadata.operators["equistride::edge_block_pack"] == 1
    positions, species = torch.rand(9, 3, generator=torch.Generator().manual_seed(2)).double() * 5, [0, 1, 0] * 3
    found, expected = fused_model.compute(positions, species), plain.compute(positions, species)
    assert torch.allclose(found.forces, expected.forces, rtol=0, atol=1e-11 * float(expected.forces.abs().max() + 1))


def test_metadata_of_an_earlier_format_are_read() -> None:
    facts = {"kind": "propagator", "architecture": "x", "species": ["H"], "cutoff": 3.0, "num_layers": 2,
             "interaction_range": 6.0, "dtype": "float32", "max_speed": 0.1}  # fmt: skip
    metadata = Metadata.model_validate(facts)
    assert (metadata.message_passing_steps, metadata.max_speed, metadata.limits.fastest_atom) == (2, 0.1, 0.1)


def test_the_contract_does_not_depend_on_torchs_optimiser(artifacts: dict[str, Path]) -> None:
    """Where it is off, as while a TorchScript file that holds a model is read, calls are looked into all the same."""
    with torch.jit.optimized_execution(False):
        assert load(artifacts["potential"]).metadata.message_passing_steps == 3
