"""A whole step as a GPU takes it, in tensors of fixed size and with all our kernels emulated, equals the CPU's; its launches.

Forces are summed over edges by torch on the CPU and by a kernel on a GPU, which test_neighbors_emulation.py compares.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import trajcast_systems as systems
from emulation import OPERATORS, EmulatedGPU
from torch import Tensor
from trajcast_systems import Frame, run_of, strides

from equistride.artifact.export import PotentialConfig, build_potential, save_potential
from equistride.artifact.native import open_native
from equistride.artifact.propagators import save_propagator
from equistride.models.esen import ESENConfig
from equistride.models.esen_fused import FusedESEN
from equistride.models.mace_config import MACEConfig
from equistride.models.nequip import NequIPConfig
from equistride.models.trajcast import TrajCastLayer

EMULATES = ("neighbors", "convolution", "strides", "edge_block", "atom_block", "contraction")
REPLACED = [name for unit in EMULATES for name in OPERATORS[unit]]
EXACT = 1e-11
"""Of the largest number: float64, of which sums go another way round."""
CLUSTER = systems.cluster(14)
FRAMES = {"crystal": systems.crystal(), "cluster": CLUSTER._replace(positions=1.5 * CLUSTER.positions)}
MOST_LAUNCHES = 250
"""Of a stride of the published TrajCast with any thermostat."""


def saved(path: Path, dtype: str, **sizes: Any) -> Path:
    """A propagator whose layers go operator by operator, as on a GPU."""
    made = systems.propagator(**sizes)
    for layer in made.network.layers:
        assert isinstance(layer, TrajCastLayer)
        layer.one_operator = False
    save_propagator(made, path, dtype=dtype, tables=1e-6)
    return path


@pytest.fixture(scope="module")
def propagator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("strides") / "propagator.pt", "float64")


def assert_near(found: Tensor, expected: Tensor) -> None:
    assert float((found - expected).abs().max()) <= EXACT * float(expected.abs().max())


def on_device(path: Path, frame: Frame, thermostat: str) -> Any:
    run = run_of(path, frame, thermostat)
    run.stay_on_device()
    return run


@pytest.mark.parametrize("thermostat", ["none", "csvr", "langevin", "langevin+csvr"])
@pytest.mark.parametrize("name", FRAMES)
def test_a_stride_equals_the_cpu(
    name: str, thermostat: str, propagator: Path, emulated: torch._ops._OpNamespace
) -> None:
    """List, vectors, convolutions, momenta and thermostat; in any order of the threads."""
    frame = FRAMES[name]
    expected = strides(run_of(propagator, frame, thermostat), frame, 1)
    for order in (0, 7):
        emulated.set_order(order)
        with EmulatedGPU(emulated, REPLACED) as gpu:
            found = strides(on_device(propagator, frame, thermostat), frame, 1)
        for ours, theirs in zip(found, expected, strict=True):
            assert_near(ours, theirs)
        assert ("thermostat" in gpu.launches) == (thermostat != "none")
        assert {"neighbors_padded", "edge_vectors", "tensor_product_table", "keep_momenta"} < set(gpu.launches)


def test_launches_of_a_stride(tmp_path: Path, emulated: torch._ops._OpNamespace) -> None:
    """Of the published sizes, with what brings the state to the step and away from it; each launch of ours is counted."""
    sizes = {"channels": 64, "num_layers": 4, "radial_widths": (64, 64, 64), "speed_widths": (64, 64, 64)}
    path = saved(tmp_path / "published.pt", "float32", **sizes)
    frame = systems.crystal()
    launches = {}
    for thermostat in ("none", "langevin+csvr"):
        run = on_device(path, frame, thermostat)
        strides(run, frame, 1)  # finds how much room it needs
        with EmulatedGPU(emulated, REPLACED) as gpu:
            strides(run, frame, 1)
        launches[thermostat] = gpu.launches
    assert launches["langevin+csvr"].total() <= MOST_LAUNCHES
    more = launches["langevin+csvr"] - launches["none"]
    assert dict(more) == {"thermostat": 2, "copy_": 1, "add": 1}  # with their numbers, and positions for the second
    assert launches["none"]["neighbors_padded"] <= 9


SMALL: dict[str, Any] = {"cutoff": systems.CUTOFF, "num_layers": 2, "channels": 8}
ESEN = SMALL | {"hidden_channels": 8, "edge_channels": 8}
MACES = {"cutoff": systems.CUTOFF, "channels": 4, "l_max": 2, "l_features": 1, "radial_widths": [8]}
POTENTIALS: dict[str, tuple[PotentialConfig, str]] = {
    "esen": (ESENConfig(**ESEN), "edge_block_backward"),
    "esen, splines": (ESENConfig(**ESEN), "radial_splines_backward"),
    "esen, sums over all atoms": (ESENConfig(**ESEN, charge_channels=(2, 5)), "edge_block_backward"),
    "nequip": (NequIPConfig(**SMALL, parity="both"), "tensor_product_backward"),
    "nequip, tables with a break": (
        NequIPConfig(**SMALL, envelope="xplor", switch=3.4),
        "tensor_product_table_backward",
    ),
    "mace": (MACEConfig(**MACES), "symmetric_contraction_backward"),
    "mace, tables": (MACEConfig(**MACES), "tensor_product_table_backward"),
}
"""Configuration, and what is called with it alone. Where there are tables, they were made for float32."""


@pytest.mark.parametrize("name", POTENTIALS)
def test_a_step_of_a_potential_equals_the_cpu(
    name: str, tmp_path: Path, emulated: torch._ops._OpNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Energies, forces and virial, of networks of random weights."""
    config, called = POTENTIALS[name]
    made = FusedESEN.__init__

    def layer_by_layer(self: FusedESEN, *args: Any, **options: Any) -> None:  # as on a GPU
        made(self, *args, **options)
        self.one_operator = False

    monkeypatch.setattr(FusedESEN, "__init__", layer_by_layer)
    torch.manual_seed(2)
    facts = {"species": ["O", "Si"], "scale": 1.3, "references": [-3.1, -5.7]}
    dtype = "float32" if "tables" in name or "splines" in name else "float64"
    path = tmp_path / "potential.pt"
    save_potential(build_potential(config, facts).double(), config, path, dtype=dtype, fused=True, provenance={})
    model = open_native(path)
    model.to("cpu", True)
    frame = FRAMES["cluster" if name == "esen" else "crystal"]
    state = (frame.positions, None, frame.species, frame.cell.double(), torch.tensor([name != "esen"] * 3))
    expected = [output.clone() for output in model.compute(*state, True)]
    with EmulatedGPU(emulated, REPLACED) as gpu:
        found = model.step(*state)
    for ours, theirs in zip(found, expected, strict=True):
        assert float(theirs.abs().max()) > 1e-3
        assert_near(ours, theirs)
    assert {"neighbors_padded", "edge_vectors", "edge_virial", called} < set(gpu.launches)
    if "esen" in name:
        assert [gpu.launches[operator] for operator in OPERATORS["atom_block"]] == [2, 2, 3, 3]
