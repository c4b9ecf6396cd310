"""What the scripts share: how figures are given, and with ``equistride bench``, how a call is timed and the processor's rates.

The latter are those of ``equistride.bench.timing``, read by its path: peers' environments have torch and no equistride.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

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
captured, event_time, kernel_times = _TIMING.captured, _TIMING.event_time, _TIMING.kernel_times


def without_openmp() -> dict[str, str]:
    """Return the environment less what it says of OpenMP's threads, as users have it."""
    of_openmp = ("OMP_", "MKL_", "GOMP_", "KMP_")
    return {key: value for key, value in os.environ.items() if not key.startswith(of_openmp)}


def publish(figures: dict[str, Any], path: Path | None) -> None:
    """Print figures, and write them to a file where one is named."""
    text = json.dumps(figures, indent=1)
    print(text)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
