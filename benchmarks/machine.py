"""What the benchmarks say of the machine that they ran on."""

from __future__ import annotations

import platform


def processor() -> str:
    """Return the name of the processor."""
    try:
        with open("/proc/cpuinfo") as f:
            return next(line.split(":")[1].strip() for line in f if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
