"""What the machine is, what it can do at best, and how much memory a process holds."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import torch

from equistride.bench.timing import copy_rate, cpu_time, gemm_rate, processor

PACKAGES = ("equistride", "torch", "openmm", "e3nn", "numpy", "ase")
"""Packages whose versions go into every result."""


class Limits(NamedTuple):
    """The best rates measured: ``gemm`` [FLOP/s] of a matrix product, ``copy`` [bytes/s, read and written] of memory.

    On a CPU by CPU time (work of all threads / CPU seconds of all threads), on a GPU by the clock.
    """

    gemm: float
    copy: float


def packages(names: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def load_average() -> float | None:
    """Return the load average of the last minute, where the system tells it."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def facts() -> dict[str, Any]:
    """Return what must stand beside every figure: processor, cores, GPU, packages, system."""
    gpus = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "gpus": gpus,
        "cuda": torch.version.cuda,
        "simd": os.environ.get("EQUISTRIDE_SIMD", "best"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": packages(),
        "load_average": load_average(),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def block_rate(dtype: torch.dtype) -> float:
    """Return the FLOP/s of our own matrix products on a CPU, by CPU time.

    That of an eSEN edge block that is nothing but its largest product, with so many channels that the rest is lost.
    """
    from equistride.nn.edge_block import Bonds, EdgeBlock, pack
    from equistride.nn.so2 import SO2Convolution

    c, edges = 768, 480
    first = SO2Convolution(0, 0, 2 * c, c, mirror=True).to(dtype)
    second = SO2Convolution(0, 0, c, c, mirror=True).to(dtype)
    block = EdgeBlock(first, second, 0)
    block.weights = pack(first, second, torch.nn.Linear(8, first.num_weights).to(dtype))
    vectors = torch.randn(edges, 3, dtype=dtype)
    bonds = Bonds(vectors, vectors[:, :0], vectors[:, 0], torch.arange(edges).repeat(2, 1))
    x, hidden = torch.randn(edges, 1, c, dtype=dtype), torch.randn(edges, 8, dtype=dtype)
    work = 2 * edges * (2 * c * c + c * c + 8 * 2 * c)
    with torch.no_grad():
        return work / cpu_time(lambda: block(x, bonds, hidden), 5)


def limits(dtype: torch.dtype, device: str = "cpu", repeats: int = 3) -> Limits:
    """Measure what this machine can do: the faster of torch's matrix product and ours, and a copy."""
    gemm = gemm_rate(dtype, repeats, device)
    if device == "cpu":
        gemm = max(gemm, block_rate(dtype))
    return Limits(gemm, copy_rate(repeats, device))


def _status(key: str) -> int | None:
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(lines[key].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def resident() -> int:
    """Return the memory that the process holds now [bytes]; its peak where the system tells no more."""
    return _status("VmRSS") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def reset_peak(device: str = "cpu") -> None:
    """Begin a new peak of memory, where the system allows it (Linux, CUDA)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)


def peak() -> int:
    """Return the most memory that the process held since :func:`reset_peak` [bytes]."""
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
