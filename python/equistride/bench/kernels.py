"""Kernels alone, on a system's own edges: neighbour list, fused convolution, eSEN edge block."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from ase import Atoms
from torch import Tensor

from equistride.bench.catalogue import Benchmark
from equistride.bench.dynamics import MIB
from equistride.bench.machine import Limits, limits, load_average, peak, reset_peak, resident
from equistride.bench.models import POTENTIAL, random_potential
from equistride.bench.settings import Settings, dtype_of
from equistride.bench.systems import RATTLE, split, structure
from equistride.bench.timing import Times, timed
from equistride.bench.work import edge_block_work, tensor_product_work
from equistride.graph import edge_vectors, neighbor_list
from equistride.models.esen_fused import FusedBlock, fuse
from equistride.nn.edge_block import Bonds
from equistride.nn.harmonics import SphericalHarmonics
from equistride.nn.radial import polynomial_envelope
from equistride.nn.radial_table import RadialTable
from equistride.nn.tensor_product import TabulatedConvolution, TensorProductConvolution

CUTOFF = 5.0
"""Cutoff of the kernels' edges [A]."""
CHANNELS = 64
IRREPS = " + ".join(f"{CHANNELS}x{irrep}" for irrep in ("0o", "0e", "1o", "1e", "2o", "2e"))
"""Features of TrajCast's inner layers: 30 paths with l <= 2."""
HARMONICS = "0e + 1o + 2e"
MOST_WEIGHTS = 1 << 30
"""Bytes of radial weights, one set an edge, up to which the convolution that training uses is timed."""
REPEATS = 15


@dataclass(frozen=True)
class Graph:
    """A structure with its edges: ``atoms``; positions, cell, ``edge_index`` [2, E], ``shifts``, ``vectors`` [E, 3], species."""

    atoms: Atoms
    positions: Tensor
    cell: Tensor
    species: Tensor
    edge_index: Tensor
    shifts: Tensor
    vectors: Tensor

    @property
    def edges(self) -> int:
        """E."""
        return self.edge_index.size(1)


def graph_of(system: str, dtype: torch.dtype, cutoff: float = CUTOFF, device: str = "cpu") -> Graph:
    """Return a system, crystals with their atoms displaced at random, and its edges."""
    atoms = structure(system)
    if split(system)[0] == "quartz":
        atoms.rattle(RATTLE, seed=1)
    symbols = sorted(set(atoms.get_chemical_symbols()))
    positions = torch.tensor(atoms.positions, dtype=dtype, device=device)
    cell = torch.tensor(atoms.cell.array, dtype=dtype, device=device)
    edge_index, shifts = neighbor_list(positions, cell, bool(atoms.pbc.all()), cutoff)
    vectors = edge_vectors(positions, cell, edge_index, shifts)
    species = torch.tensor([symbols.index(s) for s in atoms.get_chemical_symbols()], device=device)
    return Graph(atoms, positions, cell, species, edge_index, shifts, vectors)


def padded_list_arguments(graph: Graph, cutoff: float = CUTOFF) -> tuple[Tensor, Tensor, Tensor, float, int, int]:
    """Return what ``neighbors_padded`` takes for the list of a periodic system as a captured step makes it: 4 % of room."""
    pbc = torch.ones(3, dtype=torch.bool, device=graph.positions.device)
    return graph.positions, graph.cell, pbc, cutoff, graph.edges + graph.edges // 25, 2


def radial_table(columns: int, dtype: torch.dtype, cutoff: float = CUTOFF) -> RadialTable:
    """Return a radial network of 8 Bessel functions, 64-64-64 hidden, as TrajCast's, of random weights, tabulated to 1e-5."""
    torch.manual_seed(1)
    sizes = [8, 64, 64, 64, columns]
    layers = [torch.randn(a, b, dtype=torch.float64) / a**0.5 for a, b in itertools.pairwise(sizes)]
    k = torch.arange(1, 9, dtype=torch.float64) * torch.pi / cutoff

    def network(r: Tensor) -> Tensor:
        u = r[:, None] / cutoff
        h = 2 / cutoff * torch.sin(k * r[:, None]) / (r[:, None] + 1e-5) * (1 - 28 * u**6 + 48 * u**7 - 21 * u**8)
        for layer in layers[:-1]:
            h = 1.679 * torch.nn.functional.silu(h @ layer)
        return h @ layers[-1]

    return RadialTable.tabulate(network, 0.5, cutoff, tolerance=1e-5).to(dtype)


@dataclass(frozen=True)
class Kernel:
    """What is timed: its title, the call, and the least work [FLOP] and traffic [bytes] that it needs."""

    title: str
    call: Callable[[], object]
    flops: float
    traffic: float


def neighbor_kernel(graph: Graph, cutoff: float = CUTOFF) -> Kernel:
    """Return the neighbour list; it must read the positions and write the edges."""
    pbc = bool(graph.atoms.pbc.all())
    traffic = graph.positions.nbytes + graph.edge_index.nbytes + graph.shifts.nbytes
    return Kernel("neighbor list", lambda: neighbor_list(graph.positions, graph.cell, pbc, cutoff), 0.0, float(traffic))


def convolution_kernels(graph: Graph) -> list[Kernel]:
    """Return the fused convolution as a propagator is served (weights from a table, forward), and, where its radial weights
    fit, as one is trained (forward and backward to features and weights)."""
    dtype, device = graph.vectors.dtype, graph.vectors.device
    convolution = TensorProductConvolution(IRREPS, HARMONICS)
    torch.manual_seed(0)
    x = torch.randn(len(graph.atoms), convolution.irreps_in.dim, dtype=dtype, device=device)
    y = SphericalHarmonics(2).to(device)(graph.vectors).to(dtype)
    lengths = torch.linalg.vector_norm(graph.vectors, dim=1)
    work = float(tensor_product_work(convolution.paths, convolution.couplings) * graph.edges)
    out = len(graph.atoms) * convolution.width * x.element_size()
    tabulated = TabulatedConvolution(convolution, radial_table(convolution.weight_numel, dtype)).to(device)
    traffic = float(x.nbytes + y.nbytes + lengths.nbytes + graph.edge_index.nbytes + out)
    kernels = [
        Kernel("convolution", lambda: tabulated(x, y, lengths, graph.edge_index), work, traffic),
    ]
    size = graph.edges * convolution.weight_numel * x.element_size()
    if size <= MOST_WEIGHTS:
        weights = torch.randn(graph.edges, convolution.weight_numel, dtype=dtype, device=device)
        inputs = [x.clone().requires_grad_(), weights.requires_grad_()]
        seed = torch.randn(len(graph.atoms), convolution.width, dtype=dtype, device=device)

        def both() -> object:
            with torch.enable_grad():
                return torch.autograd.grad(convolution(inputs[0], y, inputs[1], graph.edge_index), inputs, seed)

        moved = 3.0 * traffic + 2.0 * size
        kernels.append(Kernel("convolution, forward and backward", both, 3 * work, moved))
    return kernels


def edge_block_kernel(graph: Graph) -> Kernel:
    """Return the edge block of an eSEN layer, forward and backward to features and bonds, as forces need it."""
    dtype, device = graph.vectors.dtype, graph.vectors.device
    elements = sorted(set(graph.atoms.get_chemical_symbols()))
    potential = random_potential(elements, CUTOFF)
    network = fuse(potential.network, splines=None).to(device, dtype)  # type: ignore[arg-type]
    block = network.blocks[0]
    if not isinstance(block, FusedBlock):
        raise TypeError("the first block of a fused eSEN is a FusedBlock")
    torch.manual_seed(0)
    size = (POTENTIAL.l_max + 1) ** 2
    x = torch.randn(len(graph.atoms), size, POTENTIAL.channels, dtype=dtype, device=device).requires_grad_()
    lengths = torch.linalg.vector_norm(graph.vectors, dim=1)
    pair = graph.species[graph.edge_index[0]] * len(elements) + graph.species[graph.edge_index[1]]
    frames = torch.ops.equistride.bond_frames(graph.vectors, POTENTIAL.l_max)
    envelope = polynomial_envelope(lengths / CUTOFF, 5)
    vectors = graph.vectors.clone().requires_grad_()
    with torch.no_grad():
        hidden = block.radial(lengths, pair)

    def both() -> object:
        with torch.enable_grad():
            out = block.edgewise(x, Bonds(vectors, frames, envelope, graph.edge_index), hidden)
            return torch.autograd.grad(out.sum(), [x, vectors])

    c = POTENTIAL
    work = edge_block_work(c.l_max, c.m_max, c.channels, c.hidden_channels, hidden.size(1), c.mirror)
    traffic = 3 * x.nbytes + 2 * vectors.nbytes + hidden.nbytes + graph.edge_index.nbytes
    return Kernel("edge block, forward and backward", both, sum(work) * graph.edges, float(traffic))


def _row(kernel: Kernel, times: Times, atoms: int, edges: int, top: Limits, on_cpu: bool) -> dict[str, Any]:
    limit = max(kernel.flops / top.gemm, kernel.traffic / top.copy)
    return {
        "title": kernel.title, "wall_seconds": times.wall, "cpu_seconds": times.cpu, "calls": times.calls,
        "us_per_atom": 1e6 * times.wall / atoms, "cpu_us_per_atom": 1e6 * times.cpu / atoms,
        "ns_per_edge": 1e9 * (times.cpu if on_cpu else times.wall) / edges, "flops": kernel.flops,
        "bytes": kernel.traffic, "limit_seconds": limit, "share_of_limit": limit / (times.cpu if on_cpu else times.wall),
        "bound_by": "arithmetic" if kernel.flops / top.gemm > kernel.traffic / top.copy else "memory",
    }  # fmt: skip


def measure(test: Benchmark, settings: Settings) -> dict[str, Any]:
    """Time the kernels on a system's edges at 5 A.

    The time wanted is shared among the kernels; each is called at least once after a call to warm up.

    Returns
    -------
    dict
        ``kernels``: a row each, with seconds, nanoseconds an edge and the share of the machine's limit, which is the larger
        of the arithmetic at the rate of a matrix product and of the traffic at the rate of a copy.
    """
    torch.set_num_threads(settings.threads)
    device, dtype = settings.torch_device(), dtype_of(settings.precision, "float32")
    begun = load_average()
    graph = graph_of(test.system, dtype, device=device)
    top = limits(dtype, device)
    on_cpu = device == "cpu"
    makers: list[Callable[[], list[Kernel]]] = [
        lambda: [neighbor_kernel(graph)],
        lambda: convolution_kernels(graph),
        lambda: [edge_block_kernel(graph)],
    ]
    rows = []
    atoms = len(graph.atoms)
    for make in makers:
        for kernel in make():
            reset_peak(device)
            before = resident()
            with torch.no_grad():
                times = timed(kernel.call, REPEATS, seconds=settings.seconds / 4, device=device)
            row = _row(kernel, times, atoms, graph.edges, top, on_cpu)
            rows.append({**row, "grown_MiB": max(0, peak() - before) / MIB})
    return {
        "name": test.name, "kind": test.kind, "system": test.title, "atoms": atoms, "edges": graph.edges,
        "cutoff_A": CUTOFF, "model": f"{CHANNELS} channels, l <= 2, {CUTOFF:g} A, random weights", "trained": False,
        "platform": "torch", "precision": str(dtype).removeprefix("torch."), "device": device,
        "threads": settings.threads, "load_average": begun, "gemm_gflops": top.gemm / 1e9, "copy_gb_per_s": top.copy / 1e9,
        "kernels": rows,
    }  # fmt: skip
