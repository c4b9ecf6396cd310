"""TrajCast against the features and outputs of IBM/trajcast, whose checkpoints are imported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import yaml
from ase.data import chemical_symbols
from torch import Tensor

from equistride.artifact import load
from equistride.importers.trajcast import import_trajcast, read_trajcast
from equistride.models.propagator import Propagator, conserve
from equistride.models.trajcast import TrajCast
from equistride.nn.tensor_product import channels_first

SYSTEMS = ["benzene", "quartz"]
STRIDE = 7.0  # fs; upstream's files have none, and zero momentum makes none show


class Upstream(NamedTuple):
    """A fixture of upstream: its files, the frame, and what came out."""

    config: Path
    state: Path
    species: list[str]
    arrays: dict[str, np.ndarray]

    def tensor(self, name: str) -> Tensor:
        return torch.from_numpy(self.arrays[name])

    @property
    def index(self) -> Tensor:
        return torch.tensor([self.species.index(chemical_symbols[int(z)]) for z in self.arrays["numbers"]])

    @property
    def graph(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Edge vectors, velocities, species and edge_index: a network's arguments."""
        edges = self.tensor("edge_index")
        positions = self.tensor("positions")
        vectors = positions[edges[1]] - positions[edges[0]] + self.tensor("shifts")
        return vectors, self.tensor("velocities"), self.index, edges


@pytest.fixture(scope="module", params=SYSTEMS)
def upstream(request: pytest.FixtureRequest, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Upstream:
    """Upstream's run, its configuration and weights written as upstream writes them."""
    path = shared_data / "trajcast" / f"eff_{request.param}_small.npz"
    if not path.is_file():
        pytest.skip(f"{path} is missing")
    arrays = dict(np.load(path))
    folder = tmp_path_factory.mktemp(request.param)
    config, state = folder / "config.yaml", folder / "state.pt"
    species = [chemical_symbols[z] for z in sorted({int(z) for z in arrays["numbers"]})]
    mapper = {int(z): i for i, z in enumerate(sorted({int(z) for z in arrays["numbers"]}))}
    config.write_text(
        yaml.safe_dump({"model": json.loads(str(arrays["config"])), "data": {"atom_type_mapper": mapper}})
    )
    torch.save({k[3:]: torch.from_numpy(v) for k, v in arrays.items() if k.startswith("sd/")}, state)
    return Upstream(config, state, species, arrays)


@pytest.fixture(scope="module")
def imported(upstream: Upstream) -> Propagator:
    """The complete network."""
    return read_trajcast(upstream.config, upstream.state, stride_fs=STRIDE).eval().requires_grad_(False)


def close(found: Tensor, expected: Tensor) -> bool:
    """Equal to rounding: 1e-12 of the largest number, after some hundred operations in double precision."""
    return float((found - expected).abs().max()) <= 1e-12 * float(expected.abs().max())


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
def test_every_intermediate_feature_is_upstreams(upstream: Upstream, imported: Propagator, fused: bool) -> None:
    network = imported.network
    assert isinstance(network, TrajCast)
    if not fused:
        plain = TrajCast(network.config, network.num_species, fused=False, complete=True).double()
        plain.load_state_dict(network.state_dict())
        network = plain.requires_grad_(False)
    vectors, velocities, species, edges = upstream.graph
    lengths = torch.linalg.vector_norm(vectors, dim=1)
    one_hot = torch.nn.functional.one_hot(species, 2).double()
    assert close(network.lengths(lengths), upstream.tensor("edge_lengths_embedding"))
    assert close(network.speeds(velocities, one_hot), upstream.tensor("velocities_norm_embedding"))
    assert close(network.harmonics(vectors), upstream.tensor("sh_embedding_edge_vectors"))
    assert close(network.harmonics(velocities), upstream.tensor("sh_embedding_velocities"))
    channels = network.config.channels
    irreps = "+".join(f"{channels}x{degree}{parity}" for degree in range(3) for parity in "oe")
    for k, features in enumerate(network.features(vectors, velocities, species, edges)[1:]):
        assert close(channels_first(features, irreps), upstream.tensor(f"node_features_after_layer{k}"))


def targets(upstream: Upstream, raw: Tensor) -> Tensor:
    """Return upstream's normalised targets: momentum zero, and angular momentum zero for the molecule."""
    settings = json.loads(str(upstream.arrays["config"]))
    scale = torch.tensor(settings["rms_targets"], dtype=torch.float64)[:, None]
    displacements, velocities = (raw * scale).unbind(1)
    zero = torch.zeros(1, 3, dtype=torch.float64)
    kept = conserve(
        upstream.tensor("positions"), displacements, velocities, upstream.tensor("masses"), zero, zero,
        torch.tensor([float(settings["conserve_ang_mom"])]).double(), STRIDE, torch.zeros(len(raw), dtype=torch.int64),
    )  # fmt: skip
    return (torch.stack(kept, 1) / scale).flatten(1)


@pytest.mark.parametrize("scripted", [False, True], ids=["eager", "TorchScript"])
def test_outputs_are_upstreams(upstream: Upstream, imported: Propagator, scripted: bool) -> None:
    network = imported.network
    for variant in (network, network.pruned()):
        run = torch.jit.script(variant.eval().requires_grad_(False)) if scripted else variant
        for _ in range(3):  # TorchScript rewrites the graph after its first runs
            raw = run(*upstream.graph)
            assert close(raw.flatten(1), upstream.tensor("raw_target"))
        assert close(targets(upstream, raw), upstream.tensor("target"))


def test_pruning_leaves_dead_weights_out_and_the_output_as_it_is(upstream: Upstream, imported: Propagator) -> None:
    network, pruned = imported.network, imported.network.pruned()
    assert torch.allclose(pruned(*upstream.graph), network(*upstream.graph), rtol=1e-13, atol=1e-13)
    assert sum(p.numel() for p in pruned.parameters()) < 0.8 * sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("tables", [None, 1e-7])
def test_an_imported_artifact_strides_as_upstream(
    upstream: Upstream, imported: Propagator, tmp_path: Path, tables: float | None
) -> None:
    """Momenta of the input are kept where upstream removes them: upstream's numbers come back with these added."""
    path = tmp_path / "imported.pt"
    metadata = import_trajcast(upstream.config, upstream.state, path, stride_fs=STRIDE, dtype="float64", tables=tables)
    assert (metadata.kind, metadata.ensemble, metadata.stride_fs) == ("propagator", "NVE", STRIDE)
    assert metadata.species == upstream.species
    assert len(metadata.masses) == 2
    model = load(path)
    assert model.metadata == metadata
    positions, velocities = upstream.arrays["positions"], upstream.arrays["velocities"]
    cell = upstream.arrays["cell"] if metadata.periodic == "required" else None
    stride = model.propagate(positions, velocities, upstream.index, cell, cell is not None)
    shift = torch.from_numpy(positions) + stride.displacements, stride.velocities
    assert all(bool(torch.isfinite(t).all()) for t in shift)

    raw = imported.network(*upstream.graph)
    masses = torch.tensor(metadata.masses, dtype=torch.float64)[upstream.index][:, None]
    momentum = (masses * upstream.tensor("velocities")).sum(0)
    mean = momentum / masses.sum()
    expected = raw[:, 0] * imported.rms_displacement
    expected = expected - (masses * expected).sum(0) / masses.sum() + mean * STRIDE
    tolerance = 1e-12 if tables is None else 1e-5
    scale = float(expected.abs().max())
    assert float((stride.displacements - expected).abs().max()) <= tolerance * scale
    assert float(((masses * stride.velocities).sum(0) - momentum).abs().max()) <= 1e-12 * float(
        (masses * stride.velocities).abs().sum()
    )
