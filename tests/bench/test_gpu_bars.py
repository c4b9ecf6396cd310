"""What a step and a list must reach on a Hopper GPU; benchmarks/gpu.sh measures the same on any."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest
import torch

from equistride.bench.catalogue import parse
from equistride.bench.kernels import graph_of, padded_list_arguments
from equistride.bench.models import choose
from equistride.bench.timing import captured, event_time

NAME = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU that this torch can use"
pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif("H100" not in NAME and "H200" not in NAME, reason=f"the bars are an H200's; here: {NAME}"),
]
ATOMS = 4374
REPEATS = 20
CUTOFF = 5.0


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
    return importlib.import_module("steps")


def figures_of(kind: str, arithmetic: str, steps: ModuleType, folder: Path) -> dict[str, float]:
    """A step of the published TrajCast, or of an eSEN of 2 x 64 with random weights, on 4,374 atoms of quartz."""
    chosen = choose(parse(f"{kind}-quartz-{ATOMS}"), None, random=True, precision="float32", scratch=folder)
    with steps.multiplying(arithmetic):
        figures = steps.measure(kind, chosen.path, ATOMS, "cuda", REPEATS)
    print(kind, arithmetic, figures)
    return dict(figures)


def test_a_stride(steps: ModuleType, tmp_path: Path) -> None:
    """150 ns/day at 30 fs (17.8 published, on an A100); little waits between the kernels of the captured step."""
    figures = figures_of("propagator", "float32", steps, tmp_path)
    assert figures["ns/day at 30 fs"] > 150
    assert figures["step / kernels"] < 1.3
    assert figures["float32 against float64, displacements"] < 1e-4


@pytest.mark.parametrize(("arithmetic", "loss"), [("float32", 2e-5), ("TF32", 5e-3)])
def test_a_step_of_a_potential(arithmetic: str, loss: float, steps: ModuleType, tmp_path: Path) -> None:
    """What rounding costs, and that float32 on tensor cores costs no more than on the CPU (9e-6 of the largest force)."""
    figures = figures_of("potential", arithmetic, steps, tmp_path)
    assert figures["float32 against float64, forces"] < loss
    assert figures["step / kernels"] < 1.3


def test_a_million_atom_steps(steps: ModuleType, tmp_path: Path) -> None:
    """In the faster arithmetic, which keeps energy as well as can be seen (benchmarks/matmul_precision.py)."""
    rates = [figures_of("potential", name, steps, tmp_path)["atom-steps/s"] for name in ("float32", "TF32")]
    assert max(rates) > 1e6


def test_a_new_list() -> None:
    """40 us, and an eighth of what nvalchemi's cell list takes on the same atoms in the same run."""
    graph = graph_of(f"quartz-{ATOMS}", torch.float32, CUTOFF, "cuda")
    arguments = padded_list_arguments(graph, CUTOFF)
    replay, _ = captured(lambda: torch.ops.equistride.neighbors_padded(*arguments))
    ours = event_time(replay, REPEATS)
    print(f"{1e6 * ours:.1f} us")
    assert ours < 40e-6
    lists = pytest.importorskip("nvalchemiops.torch.neighbors", reason="nvalchemi-toolkit-ops is not installed")
    most = (int(torch.bincount(graph.edge_index[0]).max()) + 15) // 8 * 8

    def theirs() -> object:
        return lists.neighbor_list(
            graph.positions, CUTOFF, cell=graph.cell, pbc=arguments[2], method="cell_list", max_neighbors=most
        )

    assert event_time(theirs, REPEATS) > 8 * ours
