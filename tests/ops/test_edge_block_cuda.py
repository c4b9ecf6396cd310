"""The fused edge block on a real GPU gives the numbers of the CPU, repeats them, and runs inside a captured graph."""

from __future__ import annotations

import pytest
import torch
from edge_block_cases import (
    SIZES,
    TF32_TOLERANCE,
    TOLERANCE,
    BlockCase,
    DegreeCase,
    SplineCase,
    assert_as_on_the_cpu,
    deviation,
    tf32,
)
from random_models import Graph, graph_of, random_potential
from torch import Tensor

from equistride.bench.timing import captured
from equistride.data.quartz import quartz
from equistride.models.esen_fused import fuse
from equistride.models.potential import ConservativePotential

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that this torch can use"),
]

OPS = torch.ops.equistride


@pytest.fixture(autouse=True)
def full_precision() -> None:
    """Plain torch beside us must not round to TF32."""
    torch.backends.cuda.matmul.allow_tf32 = False


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("size", SIZES)
def test_equals_the_cpu_and_repeats(size: str, dtype: torch.dtype) -> None:
    """Everything kept, nothing, and the first 61 edges: the same, bit for bit; from the CPU no further than rounding."""
    case = BlockCase(size, dtype)
    some = 61 * case.state_bytes(dtype)
    expected = case.everything(OPS)
    found = case.to("cuda").everything(OPS)
    assert all(t.is_cuda for t in found)
    for ours, theirs in zip(found, expected, strict=True):
        assert deviation(ours, theirs) < TOLERANCE[dtype]
    for keep in (0, some, 1 << 30):
        assert all(map(torch.equal, found, case.everything(OPS, keep)))


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("size", ["published", "mirror"])
def test_many_edges(size: str, dtype: torch.dtype) -> None:
    """Several slabs of edges, receivers with a thousand edges and with none; sums of thousands of terms."""
    case = BlockCase(size, dtype, atoms=300, edges=130_000 if size == "published" else 6_000)
    expected = case.everything(OPS)
    found = case.to("cuda").everything(OPS)
    for ours, theirs in zip(found, expected, strict=True):
        assert deviation(ours, theirs) < 10 * TOLERANCE[dtype]
    assert all(map(torch.equal, found, case.everything(OPS, 0)))


@pytest.mark.parametrize("size", SIZES)
def test_other_arithmetic(size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """TF32 where torch may round to it, and float32 without tensor cores; each repeats its numbers bit for bit."""
    case = BlockCase(size, torch.float32)
    expected = case.everything(OPS)
    case.to("cuda")
    with tf32():
        found = case.everything(OPS)
        assert all(map(torch.equal, found, case.everything(OPS, 0)))
    for ours, theirs in zip(found, expected, strict=True):
        assert deviation(ours, theirs) < TF32_TOLERANCE
    monkeypatch.setenv("EQUISTRIDE_TENSOR_CORES", "0")
    found = case.everything(OPS)
    assert all(map(torch.equal, found, case.everything(OPS, 0)))
    for ours, theirs in zip(found, expected, strict=True):
        assert deviation(ours, theirs) < TOLERANCE[torch.float32]


@pytest.mark.parametrize("sizes", [(4, 4, 128, 128, 64), (2, 2, 256, 256, 64)], ids=str)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_tiles_beyond_shared_memory(
    sizes: tuple[int, ...], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows so long that tiles lie in global memory."""
    monkeypatch.setitem(SIZES, "wide", (*sizes, False))
    case = BlockCase("wide", dtype, edges=70)
    expected = case.everything(OPS)
    for ours, theirs in zip(case.to("cuda").everything(OPS), expected, strict=True):
        assert deviation(ours, theirs) < 10 * TOLERANCE[dtype]


def test_graphs_without_edges() -> None:
    case = BlockCase("odd channels", torch.float64, edges=0)
    expected = case.everything(OPS)
    for ours, theirs in zip(case.to("cuda").everything(OPS), expected, strict=True):
        assert torch.equal(ours.cpu(), theirs)


def test_wrong_edges_give_nan() -> None:
    for spoil in (lambda index: index.flip(1), lambda index: index + 9, lambda index: index - 1):
        case = BlockCase("odd channels", torch.float64).to("cuda")
        case.edge_index = spoil(case.edge_index)
        for result in case.everything(OPS)[1:]:
            assert result.isnan().all()


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("terms", "columns"), [(2, 40), (4, 3), (6, 64)])
def test_splines_equal_the_cpu(terms: int, columns: int, dtype: torch.dtype) -> None:
    case = SplineCase(dtype, terms, columns, 5000)
    for ours, theirs in zip(case.everything(OPS, "cuda"), case.everything(OPS), strict=True):
        assert deviation(ours, theirs) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("l_max", "channels"), [(1, 3), (2, 64), (4, 40)])
def test_bonds_equal_the_cpu_and_repeat(l_max: int, channels: int, dtype: torch.dtype) -> None:
    assert_as_on_the_cpu(DegreeCase(l_max, channels, dtype), 10 * TOLERANCE[dtype])


def test_runs_inside_a_captured_graph() -> None:
    """Forward and backward, partly kept; replays see new numbers and new edges."""
    case = BlockCase("published", torch.float32, 50, 900).to("cuda")
    splines = SplineCase(torch.float32, 6, 64, 900)
    keep = 400 * case.state_bytes(torch.float32)

    moved = [t.cuda() for t in (splines.lengths, splines.pair, splines.tables)]

    def call() -> list[Tensor]:
        return [*case.everything(OPS, keep), OPS.radial_splines(*moved, 1.0, 0.2)]

    replay, results = captured(call)
    with torch.no_grad():
        case.x.copy_(case.x.flip(0))
        case.vectors.copy_(case.vectors.flip(0))
        case.frames.copy_(OPS.bond_frames(case.vectors, 2))
        case.edge_index[1] = case.edge_index[1].flip(0)
        moved[0].mul_(1.1)
    replay()
    for a, b in zip(results, call(), strict=True):
        assert torch.equal(a, b)


def served(dtype: torch.dtype) -> tuple[ConservativePotential, Graph]:
    """A served eSEN of published layers, and quartz."""
    atoms = quartz((3, 3, 3))
    atoms.rattle(0.05, seed=3)
    positions, cell = torch.tensor(atoms.positions, dtype=dtype), torch.tensor(atoms.cell.array, dtype=dtype)
    graph = graph_of(positions, torch.tensor(atoms.numbers == 14).long(), cell)
    potential = random_potential(channels=64, hidden_channels=64, edge_channels=64, mirror=False)
    potential.network = fuse(potential.network, 1e-8 if dtype is torch.float32 else None)
    return potential.to(dtype).requires_grad_(False), graph


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 2e-5)])
def test_a_served_potential_gives_the_numbers_of_the_cpu(dtype: torch.dtype, tolerance: float) -> None:
    """Eager and scripted, against the CPU and against plain torch on the GPU."""
    potential, graph = served(dtype)
    expected = potential(*graph)
    potential, on_gpu = potential.cuda(), Graph(*[t.cuda() for t in graph])
    assert OPS.edge_block_on_gpu()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        found = potential(*on_gpu)
    assert "equistride::edge_block" in {event.key for event in seen.key_averages()}
    scripted = torch.jit.script(potential)(*on_gpu)
    potential.network = potential.network.plain
    plain = potential(*on_gpu)
    for ours, script, host, other in zip(found, scripted, expected, plain, strict=True):
        assert deviation(script, ours) < tolerance
        assert deviation(ours, host) < tolerance
        assert deviation(ours, other) < tolerance
