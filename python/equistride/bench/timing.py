"""How a call is timed, and the rates that times are compared with.

Peers are timed by this file too, in environments without equistride: it knows torch alone.
"""

from __future__ import annotations

import ctypes
import platform
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch

TOGETHER, SHORT = 20, 1e-2
"""Calls between a pair of events, and the seconds below which a call is short."""

Average = Callable[[list[float]], float]
Result = TypeVar("Result")


class Times(NamedTuple):
    """Seconds of one call: ``cpu`` of all threads of the process, ``wall`` on the clock, and how many calls were timed."""

    cpu: float
    wall: float
    calls: int


def synchronize(device: str = "cpu") -> None:
    """Wait until a GPU has done its work; nothing on a CPU."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def timed(
    call: Callable[[], object], repeats: int, *, seconds: float | None = None, average: Average = statistics.median,
    device: str = "cpu",
) -> Times:  # fmt: skip
    """Return the median times of a call, after one to warm up.

    Parameters
    ----------
    call
        What to time.
    repeats
        Calls that count; at least one is made.
    seconds
        No further call is begun after so many seconds [s].
    average
        Another average than the median.
    device
        Where the call works; a GPU is waited for.
    """
    call()
    synchronize(device)
    begun = time.perf_counter()
    cpu: list[float] = []
    wall: list[float] = []
    while len(cpu) < max(1, repeats):
        start, clock = time.process_time(), time.perf_counter()
        call()
        synchronize(device)
        cpu.append(time.process_time() - start)
        wall.append(time.perf_counter() - clock)
        if seconds is not None and time.perf_counter() - begun > seconds:
            break
    return Times(average(cpu), average(wall), len(cpu))


def cpu_time(call: Callable[[], object], repeats: int, average: Average = statistics.median) -> float:
    """Return the CPU seconds of the process in a call: the median, or another average, of the repeats after one to warm up."""
    return timed(call, repeats, average=average).cpu


def event_time(call: Callable[[], object], repeats: int) -> float:
    """Return the median seconds of a call on the GPU after one to warm up, between events.

    Of short calls :data:`TOGETHER` lie between one pair of events: the host takes 5 to 10 us to launch one, which the GPU spends
    on the one before.
    """

    def elapsed(calls: int) -> float:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(calls):
            call()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3 / calls

    call()
    calls = TOGETHER if elapsed(1) < SHORT else 1
    return statistics.median(elapsed(calls) for _ in range(max(1, repeats)))


class KernelTime(NamedTuple):
    """A kernel's ``name``, how often a call launches it, and the ``seconds`` of all these launches."""

    name: str
    launches: float
    seconds: float


def kernel_times(call: Callable[[], object], repeats: int) -> list[KernelTime]:
    """Return the kernels of a call on the GPU, the longest first; their sum is what is left if nothing waited between them."""
    call()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(repeats):
            call()
        torch.cuda.synchronize()
    kernels = [
        KernelTime(kernel.key, kernel.count / repeats, kernel.self_device_time_total * 1e-6 / repeats)
        for kernel in profile.key_averages()
    ]
    return sorted(kernels, key=lambda kernel: -kernel.seconds)


def captured(call: Callable[[], Result]) -> tuple[Callable[[], None], Result]:
    """Return a call's CUDA graph, to be replayed, and its results, which each replay overwrites."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call()
    return graph.replay, result


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory, as our loader of models does: other programs gain from it too."""
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(-4, 0)  # M_MMAP_MAX
        library.mallopt(-1, -1)  # M_TRIM_THRESHOLD


def processor() -> str:
    """Return the name of the processor."""
    try:
        with open("/proc/cpuinfo") as f:
            return next(line.split(":")[1].strip() for line in f if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def gemm_rate(dtype: torch.dtype, repeats: int, device: str = "cpu") -> float:
    """Return the FLOP/s of torch's matrix product: 1,024 square by CPU time, 8,192 square by the clock on a GPU."""
    size = 1024 if device == "cpu" else 8192
    a = torch.randn(size, size, dtype=dtype, device=device)
    times = timed(lambda: a @ a, repeats, device=device)
    return 2 * size**3 / (times.cpu if device == "cpu" else times.wall)


def copy_rate(repeats: int, device: str = "cpu") -> float:
    """Return the bytes/s of a copy of 64 MiB (512 MiB on a GPU), read and written."""
    count = 8 << 20 if device == "cpu" else 64 << 20
    source, target = (torch.ones(count, dtype=torch.float64, device=device) for _ in range(2))
    times = timed(lambda: target.copy_(source), repeats, device=device)
    return 16 * count / (times.cpu if device == "cpu" else times.wall)
