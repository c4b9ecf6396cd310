"""The fused convolution against e3nn's: CPU time, memory, and the distance from what the machine can do.

    OMP_NUM_THREADS=1 python benchmarks/tensor_product.py [--repeats 7] [--no-e3nn] [--json out.json]
    python benchmarks/tensor_product.py --device cuda [--json out.json]

Channel-wise tensor product, 64 channels, l <= 2: gather, product, sum over edges. On a CPU 216 atoms with 8,000 edges, one
thread, process CPU time; on a GPU 4,374 atoms with 40 edges each, between CUDA events, and replayed from a captured graph
too, which leaves out what the host does. Median of the repeats. The limit of the machine is the larger of the
floating-point work at the measured rate of a matrix product and of the bytes that must move at the measured rate of a copy.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from e3nn import o3
from machine import captured, copy_rate, cpu_time, event_time, gemm_rate, processor
from torch import Tensor

from equistride.bench.kernels import radial_table
from equistride.bench.work import tensor_product_work
from equistride.nn.tensor_product import TabulatedConvolution, TensorProductConvolution

SIZES = {"cpu": (216, 8000), "cuda": (4374, 40 * 4374)}
"""Atoms and edges."""
CUTOFF = 5.0
CASES = {
    "TrajCast, 30 paths": "64x0o + 64x0e + 64x1o + 64x1e + 64x2o + 64x2e",
    "first layer, 15 paths": "64x0e + 64x1o + 64x2e",
}


def e3nn_convolution(convolution: TensorProductConvolution, edge_index: Tensor) -> Callable[..., Tensor]:
    """Gather, e3nn's tensor product, index_add."""
    instructions = [(p.i_in, p.i_sh, p.i_out, "uvu", True) for p in convolution.instructions]
    product = o3.TensorProduct(
        convolution.irreps_in,
        convolution.irreps_sh,
        convolution.irreps_paths,
        instructions,
        shared_weights=False,
        internal_weights=False,
    )

    product.to(edge_index.device)

    def call(x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
        out = x.new_zeros(x.size(0), product.irreps_out.dim)
        return out.index_add(0, edge_index[0], product(x[edge_index[1]], y, weights))

    return call


def measure(irreps: str, dtype: torch.dtype, repeats: int, with_e3nn: bool, device: str) -> dict[str, float]:
    """All figures of one case: seconds, ratios, FLOP, bytes, share of the machine's limit."""
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    atoms, edges = SIZES[device]
    clock = cpu_time if device == "cpu" else event_time
    convolution = TensorProductConvolution(irreps, "0e + 1o + 2e")
    edge_index = torch.randint(0, atoms, (2, edges))
    edge_index = edge_index[:, edge_index[0].argsort(stable=True)].contiguous().to(device)
    x, y, weights = (
        torch.randn(atoms, convolution.irreps_in.dim, device=device),
        torch.randn(edges, 9, device=device),
        torch.randn(edges, convolution.weight_numel, device=device),
    )
    inputs = [t.clone().requires_grad_() for t in (x, y, weights)]
    seed = torch.randn(atoms, convolution.width, device=device)

    def both(call: Callable[..., Tensor], inputs: list[Tensor]) -> object:
        return torch.autograd.grad(call(*inputs), inputs, seed)

    def fused(x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
        return convolution(x, y, weights, edge_index)

    radial = radial_table(convolution.weight_numel, dtype).to(device)
    tabulated = TabulatedConvolution(convolution, radial)
    lengths = 1 + (CUTOFF - 1) * torch.rand(edges, device=device)
    with torch.no_grad():
        figures = {
            "forward": clock(lambda: fused(x, y, weights), repeats),
            "forward, table": clock(lambda: tabulated(x, y, lengths, edge_index), repeats),
        }
        if device == "cuda":
            figures["forward, graph"] = clock(captured(lambda: fused(x, y, weights))[0], repeats)
            figures["forward, table, graph"] = clock(captured(lambda: tabulated(x, y, lengths, edge_index))[0], repeats)
    figures["forward + backward"] = clock(lambda: both(fused, inputs), repeats)
    figures["forward + backward of x, weights"] = clock(lambda: both(fused_without_y(fused, y), inputs[::2]), repeats)
    figures["FLOP forward"] = tensor_product_work(convolution.paths, convolution.couplings) * edges
    figures["bytes forward"] = sum(t.nbytes for t in (x, y, weights, seed, edge_index))
    figures["table intervals"], figures["table error"] = radial.coefficients.size(0) - 3, radial.error
    gemm, copy = gemm_rate(dtype, repeats, device), copy_rate(repeats, device)
    figures["GFLOP/s of a matrix product"], figures["GB/s of a copy"] = gemm / 1e9, copy / 1e9
    limit = max(figures["FLOP forward"] / gemm, figures["bytes forward"] / copy)
    figures["forward, share of the limit"] = limit / figures["forward"]
    figures["forward, share of a copy's bandwidth"] = figures["bytes forward"] / copy / figures["forward"]
    if with_e3nn:
        theirs = e3nn_convolution(convolution, edge_index)
        with torch.no_grad():
            figures["e3nn forward"] = clock(lambda: theirs(x, y, weights), max(3, repeats // 2))
        figures["e3nn forward + backward"] = clock(lambda: both(theirs, inputs), max(3, repeats // 2))
        for name in ("forward", "forward + backward"):
            figures[f"ratio {name}"] = figures[f"e3nn {name}"] / figures[name]
    return figures


def fused_without_y(call: Callable[..., Tensor], y: Tensor) -> Callable[..., Tensor]:
    """The call with y fixed: what training a propagator differentiates."""
    return lambda x, weights: call(x, y, weights)


def peak_memory(irreps: str) -> float:
    """Growth of the peak resident size over a forward and backward pass, as a multiple of inputs and outputs."""
    import psutil

    torch.set_default_dtype(torch.float32)
    convolution = TensorProductConvolution(irreps, "0e + 1o + 2e")
    atoms, edges = 4374, 40 * 4374
    edge_index = torch.stack([torch.arange(atoms).repeat_interleave(40), torch.randint(0, atoms, (edges,))])
    x, y = torch.randn(atoms, convolution.irreps_in.dim), torch.randn(edges, 9)
    weights, seed = torch.randn(edges, convolution.weight_numel), torch.randn(atoms, convolution.width)
    arguments = (edge_index, convolution.paths, convolution.couplings)
    reset = Path("/proc/self/clear_refs")
    reset.write_text("5")
    before = psutil.Process().memory_info().rss
    out = torch.ops.equistride.tensor_product(x, y, weights, *arguments, atoms)
    grads = torch.ops.equistride.tensor_product_backward(seed, x, y, weights, *arguments, [True] * 3)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    grown = int(status["VmHWM"].split()[0]) * 1024 - before
    outputs = sum(t.nbytes for t in (out, *grads))
    inputs = sum(t.nbytes for t in (x, y, weights, seed, edge_index))
    return (grown - outputs) / (inputs + outputs)


def main() -> None:
    """Print every case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--no-e3nn", action="store_true", help="leave the comparison out")
    parser.add_argument(
        "--memory", action="store_true", help="measure memory on 4,374 atoms instead (needs 4 GB, Linux)"
    )
    parser.add_argument("--device", choices=list(SIZES), default="cpu")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    device = arguments.device
    if device == "cuda" and (arguments.memory or not torch.cuda.is_available()):
        parser.error("--device cuda needs a GPU that torch can use, and measures times, not --memory")
    machine = processor() if device == "cpu" else torch.cuda.get_device_name()
    atoms, edges = SIZES[device]
    results: dict[str, object] = {"processor": machine, "torch": torch.__version__, "atoms": atoms, "edges": edges}
    print(f"{machine}, {'one thread, ' * (device == 'cpu')}torch {torch.__version__}, {atoms} atoms, {edges} edges")
    for name, irreps in CASES.items():
        if arguments.memory:
            extra = peak_memory(irreps)
            results[name] = extra
            print(f"{name}: memory beyond inputs and outputs {100 * extra:.1f} % of them")
            continue
        for dtype in (torch.float32, torch.float64):
            figures = measure(irreps, dtype, arguments.repeats, not arguments.no_e3nn, device)
            results[f"{name}, {dtype}"] = figures
            print(f"\n{name}, {str(dtype).removeprefix('torch.')}")
            for key, value in figures.items():
                seconds = key.startswith(("forward", "e3nn")) and "share" not in key
                print(f"  {key:34s} {value * 1e3:10.2f} ms" if seconds else f"  {key:34s} {value:10.4g}")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
