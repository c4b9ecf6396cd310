"""What the scripts share: how figures are given, and with ``equistride bench``, how a call is timed and the processor's rates.

The latter are those of ``equistride.bench.timing``, read by its path: peers' environments have torch and no equistride.
"""

from __future__ import annotations

import importlib.util
import json
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


def publish(figures: dict[str, Any], path: Path | None) -> None:
    """Print figures, and write them to a file where one is named."""
    text = json.dumps(figures, indent=1)
    print(text)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
