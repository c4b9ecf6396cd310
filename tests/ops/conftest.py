"""Settings that the tests of the operators share."""

from __future__ import annotations

import pytest
from hypothesis import settings

settings.register_profile("operators", derandomize=True, deadline=None, max_examples=500, database=None)

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
