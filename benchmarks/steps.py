"""A step as engines take it in tensors of fixed size: neighbours, network, forces or stride; on a GPU one captured graph.

    python benchmarks/steps.py --device cuda [--atoms 4374] [--json FILE]
    OMP_NUM_THREADS=1 python benchmarks/steps.py --atoms 576

The published TrajCast (4 layers, 64 channels, l <= 2, 4.5 A, 30 fs) and an eSEN of 2 x 64 (5 A), random weights, quartz. Beside
each step's time stand the time of its kernels alone (on a GPU; what waits between them is the difference), ns/day at 30 fs or
1 fs, atom-steps/s, and the errors against float64; on a GPU with each way of making products. On the CPU the step stands beside
that of exact lists, which engines take.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from machine import cpu_time, event_time, kernel_times, processor, publish

from equistride.artifact import load
from equistride.artifact.native import open_native
from equistride.bench.catalogue import parse
from equistride.bench.models import choose, thermal_speed
from equistride.bench.systems import structure

FS_PER_STEP = {"potential": 1.0, "propagator": 30.0}
DAY = 86400
OUTPUTS = {"potential": ("energies", "forces", "virial"), "propagator": ("displacements", "velocities")}


ARITHMETIC = {"float32": ("highest", "1"), "TF32": ("high", "1"), "float32 without tensor cores": ("highest", "0")}
"""Of matrix products on a GPU: what torch allows, and whether the edge block may use tensor cores."""


@contextmanager
def multiplying(name: str) -> Iterator[None]:
    """Let products be made so; models that are opened meanwhile keep to it."""
    precision, cores = ARITHMETIC[name]
    torch.set_float32_matmul_precision(precision)
    os.environ["EQUISTRIDE_TENSOR_CORES"] = cores
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")
        del os.environ["EQUISTRIDE_TENSOR_CORES"]


def arguments_of(kind: str, path: Path, atoms: int) -> tuple[Any, ...]:
    """Positions, velocities, species, cell and flags of displaced quartz, for the native model."""
    crystal = structure(f"quartz-{atoms}")
    species = load(path, verify=False).species_index(crystal.get_chemical_symbols())
    generator = torch.Generator().manual_seed(1)
    speeds = torch.tensor([[thermal_speed(m)] for m in crystal.get_masses()], dtype=torch.float64)
    velocities = speeds * torch.randn(len(crystal), 3, dtype=torch.float64, generator=generator)
    return (
        torch.tensor(crystal.positions),
        velocities if kind == "propagator" else None,
        species,
        torch.tensor(crystal.cell.array),
        torch.tensor([True] * 3),
    )


def opened(path: Path, device: str, double: bool) -> Any:
    """The native model."""
    model = open_native(path, verify=False)
    model.to(device, double)
    return model


KERNELS = 30
"""The longest of a step, which are listed."""


def measure(kind: str, path: Path, atoms: int, device: str, repeats: int) -> dict[str, Any]:
    """Times of a step, and how far its numbers are from float64's; of exact lists where no graph was captured."""
    model, exact = opened(path, device, False), opened(path, device, True)
    inputs = arguments_of(kind, path, atoms)
    placed = tuple(t.to(device) if k in (0, 1) and t is not None else t for k, t in enumerate(inputs))
    count = len(inputs[0])

    def step() -> object:
        return model.step(*placed)

    clock: Callable[[Callable[[], object], int], float] = event_time if device == "cuda" else cpu_time
    seconds = clock(step, repeats)
    figures: dict[str, Any] = {
        "atoms": count,
        "room for edges": model.capacity(),
        "seconds a step": seconds,
        "atom-steps/s": count / seconds,
        f"ns/day at {FS_PER_STEP[kind]:g} fs": FS_PER_STEP[kind] * 1e-6 * DAY / seconds,
    }
    if device == "cuda":
        kernels = kernel_times(step, repeats)
        figures["seconds of its kernels"] = sum(kernel.seconds for kernel in kernels)
        figures["step / kernels"] = seconds / figures["seconds of its kernels"]
        figures["launches"] = sum(kernel.launches for kernel in kernels)
        figures["kernels: launches, us"] = {
            k.name[:120]: [round(k.launches, 2), round(1e6 * k.seconds, 2)] for k in kernels[:KERNELS]
        }
        figures["GiB"] = torch.cuda.max_memory_allocated() / 2**30
    else:
        figures["seconds with exact lists"] = cpu_time(lambda: model.compute(*placed, True), repeats)
    for name, found, wanted in zip(OUTPUTS[kind], model.step(*placed), exact.step(*placed), strict=True):
        error = (found.double() - wanted).abs().max() / wanted.abs().max()
        figures[f"float32 against float64, {name}"] = float(error)
    return figures


def main() -> None:
    """Print the figures and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--atoms", type=int, default=4374)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--plain", action="store_true", help="float32 alone, without a look at kernels: for ncu")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    where = torch.cuda.get_device_name() if arguments.device == "cuda" else processor()
    results: dict[str, Any] = {"device": where, "torch": torch.__version__}
    with tempfile.TemporaryDirectory() as scratch:
        for kind in FS_PER_STEP:
            test = parse(f"{kind}-quartz-{arguments.atoms}")
            chosen = choose(test, None, random=True, precision="float32", scratch=Path(scratch))
            for name in ARITHMETIC if arguments.device == "cuda" and not arguments.plain else ["float32"]:
                with multiplying(name):
                    if arguments.plain:
                        opened(chosen.path, arguments.device, False).step(
                            *arguments_of(kind, chosen.path, arguments.atoms)
                        )
                        continue
                    figures = measure(kind, chosen.path, arguments.atoms, arguments.device, arguments.repeats)
                results[f"{chosen.title}, {name}"] = figures
                publish(results, arguments.json)  # what is known so far


if __name__ == "__main__":
    main()
