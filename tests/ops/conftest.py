"""Settings that the tests of the operators share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    import torch

settings.register_profile("operators", derandomize=True, deadline=None, max_examples=500, database=None)

LARGE = 227 << 10
"""Bytes of an H200's shared memory for a block, as the emulation begins with."""
SIMD = ["portable", "wide", "avx2", "avx512"]


@pytest.fixture(params=SIMD)
def simd(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Force one version of the inner loops; skip where the processor lacks it."""
    import torch

    from equistride.graph import neighbor_list

    monkeypatch.setenv("EQUISTRIDE_SIMD", request.param)
    try:
        neighbor_list(torch.zeros(1, 3), torch.eye(3), False, 1.0)
    except ValueError as error:
        pytest.skip(f"this processor has no {request.param}: {error}")
    return request.param


@pytest.fixture(scope="module")
def emulated(request: pytest.FixtureRequest) -> Iterator[torch._ops._OpNamespace]:
    """The emulated operators of the CUDA sources that the module names in ``EMULATES``; memory that nobody wrote is NaN, or the
    largest integer, meanwhile."""
    import emulation
    import torch

    assert request.config.cache is not None
    operators = emulation.load(request.config.cache, request.module.EMULATES)
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield operators
    operators.set_order(0)
    torch.use_deterministic_algorithms(before)


@pytest.fixture
def kernels(emulated: torch._ops._OpNamespace) -> Iterator[torch._ops._OpNamespace]:
    """The emulated operators, with orders and shared memory reset afterwards."""
    emulated.set_order(0)
    yield emulated
    emulated.set_order(0)
    emulated.set_memory(LARGE)
