"""The norm and the atom block on a real GPU give the numbers of the CPU, repeat them, and run inside a captured graph."""

from __future__ import annotations

import pytest
import torch
from atom_block_cases import SIZES, TOLERANCE, AtomCase
from edge_block_cases import assert_as_on_the_cpu

from equistride.bench.timing import captured

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that this torch can use"),
]

OPS = torch.ops.equistride


@pytest.mark.parametrize("cores", ["1", "0"], ids=["tensor cores", "fma"])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("size", [*SIZES, (2, 64, 64), (2, 128, 128), (4, 128, 128)], ids=str)
def test_equals_the_cpu_and_repeats(
    size: tuple[int, int, int], dtype: torch.dtype, cores: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tiles that fit into shared memory, and of the last size going back some that do not."""
    monkeypatch.setenv("EQUISTRIDE_TENSOR_CORES", cores)
    assert_as_on_the_cpu(AtomCase(size, dtype, 300), 10 * TOLERANCE[dtype])


def test_runs_inside_a_captured_graph() -> None:
    case = AtomCase((2, 64, 64), torch.float32, 300).to("cuda")
    expected = case.everything(OPS)
    replay, found = captured(lambda: case.everything(OPS))
    for result in found:
        result.zero_()
    replay()
    torch.cuda.synchronize()
    assert all(map(torch.equal, found, expected))
