"""What the scripts share with ``equistride bench``: how a call is timed, the processor's name, its rate of matrix products.

They are those of ``equistride.bench.timing``, read by its path: peers' environments have torch and no equistride.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

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
