"""What the scripts share: how figures are given, and with ``equistride bench``, how a call is timed and the processor's rates.

The latter are those of ``equistride.bench.timing``, read by its path: peers' environments have torch and no equistride.
"""

from __future__ import annotations

import importlib.util
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

SOURCE = Path(__file__).resolve().parents[1] / "python" / "equistride" / "bench" / "timing.py"


def _timing() -> ModuleType:
    place = importlib.util.spec_from_file_location("bench_timing", SOURCE)
    if place is None or place.loader is None:
        raise ImportError(f"{SOURCE} cannot be read")
    module = importlib.util.module_from_spec(place)
    sys.modules[place.name] = module
    place.loader.exec_module(module)
    return module


_TIMING = _timing()
processor, cpu_time, gemm_rate = _TIMING.processor, _TIMING.cpu_time, _TIMING.gemm_rate
copy_rate, keep_freed_memory = _TIMING.copy_rate, _TIMING.keep_freed_memory


def publish(figures: dict[str, Any], path: Path | None) -> None:
    """Print figures, and write them to a file where one is named."""
    text = json.dumps(figures, indent=1)
    print(text)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


def event_time(call: Callable[[], object], repeats: int) -> float:
    """Median seconds of a call on the GPU, between events, after two calls to warm up."""
    times = []
    for _ in range(repeats + 2):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return statistics.median(times[2:])


def captured(call: Callable[[], object]) -> Callable[[], None]:
    """The call as a CUDA graph, to be replayed."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay
