"""Other programs on the same atoms in the same run: who is there, what it took, and the ratio to ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from equistride.bench import foreign
from equistride.bench.catalogue import Benchmark
from equistride.bench.kernels import CUTOFF, HARMONICS, IRREPS, Graph, convolution_kernels, graph_of
from equistride.bench.models import POTENTIAL, random_potential, random_propagator
from equistride.bench.settings import Settings, dtype_of
from equistride.bench.timing import Times, timed
from equistride.models.propagator import Propagator
from equistride.models.serving import serving
from equistride.models.trajcast import TrajCast
from equistride.nn.tensor_product import TensorProductConvolution

REPEATS = 5
LISTS = ("vesin", "matscipy-neighbours", "ase", "nvalchemi")
POTENTIALS = ("fairchem-core", "nequip", "mace-torch")
PATIENCE = 30.0
"""A peer is stopped after so many times the seconds of a test, and after three minutes at least."""


class Pair(NamedTuple):
    """A peer beside what of ours it is compared with: its title and seconds."""

    peer: str
    against: str
    cpu: float
    wall: float
    extra: dict[str, Any] = {}


def python_with(distribution: str, pythons: Iterable[str]) -> str | None:
    """Return the first Python that has a distribution; this one comes first."""
    code = f"import importlib.metadata as m; m.version({distribution!r})"
    for python in (sys.executable, *pythons):
        try:
            done = subprocess.run([python, "-c", code], capture_output=True, timeout=60, check=False)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0:
            return python
    return None


def _convolution(backward: bool) -> dict[str, Any]:
    ours = TensorProductConvolution(IRREPS, HARMONICS)
    return {
        "irreps_in": str(ours.irreps_in), "irreps_sh": str(ours.irreps_sh), "irreps_paths": str(ours.irreps_paths),
        "instructions": [(p.i_in, p.i_sh, p.i_out) for p in ours.instructions], "backward": backward,
        "most_bytes": _available() // 2,
    }  # fmt: skip


def _available() -> int:
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 8 << 30


def _network() -> dict[str, int]:
    c = POTENTIAL
    return {
        "layers": c.num_layers, "channels": c.channels, "l_max": c.l_max, "m_max": c.m_max, "basis": c.num_basis,
    }  # fmt: skip


def _write(folder: Path, graph: Graph, cutoff: float, settings: Settings, extra: dict[str, Any]) -> None:
    arrays = {
        "positions": graph.positions.double().cpu().numpy(), "cell": graph.cell.double().cpu().numpy(),
        "pbc": np.array([bool(graph.atoms.pbc.all())] * 3), "numbers": graph.atoms.numbers,
        "edge_index": graph.edge_index.cpu().numpy(), "shifts": graph.shifts.cpu().numpy(),
    }  # fmt: skip
    np.savez(folder / "frame.npz", **arrays)
    wanted = {
        "cutoff": cutoff, "dtype": str(graph.vectors.dtype).removeprefix("torch."), "device": settings.torch_device(),
        "threads": settings.threads, "repeats": REPEATS, "seconds": settings.seconds, "network": _network(), **extra,
    }  # fmt: skip
    (folder / "wanted.json").write_text(json.dumps(wanted))


def _run(pair: Pair, graph: Graph, cutoff: float, settings: Settings) -> dict[str, Any]:
    """Time one peer in a process of its own; a row with its ratio, or with the reason why it is missing."""
    row: dict[str, Any] = {"peer": pair.peer, "against": pair.against}
    python = python_with(foreign.PEERS[pair.peer][0], settings.peer_pythons)
    if python is None:
        return {**row, "missing": "not installed"}
    limit = max(180.0, PATIENCE * settings.seconds)
    environment = {**os.environ, "OMP_NUM_THREADS": str(settings.threads), "PYTHONSAFEPATH": "1"}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(folder, graph, cutoff, settings, pair.extra)
        command = [python, foreign.__file__, name, pair.peer]
        try:
            done = subprocess.run(
                command, env=environment, cwd=name, capture_output=True, text=True, timeout=limit, check=False
            )
        except subprocess.TimeoutExpired:
            return {**row, "missing": f"it was stopped after {limit:.0f} s"}
        found = folder / f"{pair.peer}.json"
        if not found.exists():
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            return {**row, "missing": f"its process ended with status {done.returncode} ({last})"}
        row |= json.loads(found.read_text())
    if "missing" not in row:
        on_cpu = settings.torch_device() == "cpu"
        row["ours_seconds"] = pair.cpu if on_cpu else pair.wall
        row["ratio"] = row["cpu_seconds" if on_cpu else "wall_seconds"] / row["ours_seconds"]
    return row


def _ours(graph: Graph, cutoff: float, settings: Settings) -> tuple[str, Times]:
    """Return energy and forces of our eSEN of the peers' size on these edges."""
    elements = sorted(set(graph.atoms.get_chemical_symbols()))
    dtype = graph.vectors.dtype
    name = str(dtype).removeprefix("torch.")
    potential = serving(random_potential(elements, cutoff), name).to(graph.vectors.device, dtype)
    potential.requires_grad_(False)
    inputs = (graph.positions, graph.species, graph.cell, graph.edge_index, graph.shifts)
    device = settings.torch_device()
    times = timed(lambda: potential(*inputs), REPEATS, seconds=settings.seconds, device=device)
    return f"eSEN {POTENTIAL.num_layers}x{POTENTIAL.channels} on given edges", times


def of_potential(test: Benchmark, cutoff: float, settings: Settings) -> list[dict[str, Any]]:
    """Compare our eSEN (2 layers, 64 channels) with the peers' networks of the same size, on the same edges."""
    graph = graph_of(test.system, dtype_of(settings.precision, "float32"), cutoff, settings.torch_device())
    title, times = _ours(graph, cutoff, settings)
    pairs = [Pair(peer, title, times.cpu, times.wall) for peer in POTENTIALS]
    return [_run(pair, graph, cutoff, settings) for pair in pairs]


def _our_stride(graph: Graph, cutoff: float, settings: Settings) -> tuple[str, Times, dict[str, Any]]:
    """Return a stride of the published TrajCast, as it is served, on these edges, and its sizes for the peer."""
    elements = sorted(set(graph.atoms.get_chemical_symbols()))
    propagator, config = random_propagator(elements, graph.edges / len(graph.atoms), cutoff)
    network = propagator.network
    if not isinstance(network, TrajCast):
        raise TypeError("a random propagator has a TrajCast network")
    network = network.pruned().double().with_tables(tolerance=1e-6)
    rms = (propagator.rms_displacement, propagator.rms_velocity)
    served = Propagator(network, elements, propagator.masses, cutoff, propagator.stride_fs, rms)
    served = served.to(graph.vectors.device, graph.vectors.dtype).eval().requires_grad_(False)
    for layer in network.layers:
        layer.pack()  # type: ignore[operator]
    velocities = torch.full_like(graph.positions, 1e-3)
    inputs = (graph.positions, velocities, graph.species, graph.cell, graph.edge_index, graph.shifts)
    with torch.no_grad():
        times = timed(lambda: served(*inputs), REPEATS, seconds=settings.seconds, device=settings.torch_device())
    sizes = {
        "layers": config.num_layers, "channels": config.channels, "l_max": config.l_max, "radial": config.num_radial,
        "speed": config.num_speed, "widths": list(config.radial_widths),
    }  # fmt: skip
    return f"TrajCast {config.num_layers}x{config.channels} on given edges", times, {"propagator": sizes}


def of_propagator(test: Benchmark, cutoff: float, settings: Settings) -> list[dict[str, Any]]:
    """Compare a stride of the published architecture with IBM/trajcast's, and the convolution, where a stride spends its
    time, with e3nn's, which IBM/trajcast is made of; forward, on the propagator's edges."""
    graph = graph_of(test.system, dtype_of(settings.precision, "float32"), cutoff, settings.torch_device())
    title, stride, sizes = _our_stride(graph, cutoff, settings)
    kernel = convolution_kernels(graph)[0]
    with torch.no_grad():
        times = timed(kernel.call, REPEATS, seconds=settings.seconds)
    extra = {"convolution": _convolution(backward=False)}
    pairs = [
        Pair("trajcast", title, stride.cpu, stride.wall, sizes),
        Pair("e3nn", kernel.title, times.cpu, times.wall, extra),
    ]
    return [_run(pair, graph, cutoff, settings) for pair in pairs]


def of_kernels(test: Benchmark, rows: list[dict[str, Any]], settings: Settings) -> list[dict[str, Any]]:
    """Compare the neighbour list and the convolution with other programs'; ``rows`` are our times."""
    graph = graph_of(test.system, dtype_of(settings.precision, "float32"), CUTOFF, settings.torch_device())
    pairs = []
    for row in rows:
        title, cpu, wall = row["title"], row["cpu_seconds"], row["wall_seconds"]
        if title == "neighbor list":
            pairs += [Pair(peer, title, cpu, wall) for peer in LISTS]
        elif title.startswith("convolution"):
            extra = {"convolution": _convolution("backward" in title)}
            pairs.append(Pair("e3nn", title, cpu, wall, extra))
    return [_run(pair, graph, CUTOFF, settings) for pair in pairs]
