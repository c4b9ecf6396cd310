"""Equiformer's depthwise product, edge by edge, against e3nn's TensorProduct: the same paths, the published L = 2 channels.

    OMP_NUM_THREADS=1 python benchmarks/equiformer_product.py [--edges 576]

Printed is CPU time of one thread, float32: a forward pass, and what training on forces costs (forward, gradient, gradient of the
gradient). 576 edges are a batch of eight ethanol molecules.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import mean

import torch
from e3nn import o3
from machine import cpu_time
from torch import Tensor

from equistride.nn.degrees import Couplings, DepthwiseProduct
from equistride.nn.harmonics import SphericalHarmonics
from equistride.nn.tensor_product import TensorProductConvolution

CHANNELS = [128, 64, 32]
IRREPS = "128x0e+64x1e+32x2e"


def training(forward: Callable[[], list[Tensor]], inputs: list[Tensor]) -> None:
    """Take a gradient, and the gradient of its square."""
    total = torch.stack([out.square().sum() for out in forward()]).sum()
    gradients = torch.autograd.grad(total, inputs, create_graph=True)
    torch.autograd.grad(torch.stack([g.square().sum() for g in gradients]).sum(), inputs)


def main() -> None:
    """Time the three forms and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edges", type=int, default=576)
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    count = options.edges
    vectors = torch.randn(count, 3, requires_grad=True)
    features = [torch.randn(count, 2 * n + 1, c, requires_grad=True) for n, c in enumerate(CHANNELS)]
    flat = torch.randn(count, o3.Irreps(IRREPS).dim, requires_grad=True)
    harmonics, couplings, ours = SphericalHarmonics(2), Couplings(2), DepthwiseProduct(CHANNELS)
    weights = torch.randn(count, ours.num_weights, requires_grad=True)
    convolution = TensorProductConvolution(IRREPS, "0e+1e+2e", "0e+1e+2e")
    paths = [(p.i_in, p.i_sh, p.i_out, "uvu", True) for p in convolution.instructions]
    e3nn = o3.TensorProduct(
        IRREPS, "0e+1e+2e", convolution.irreps_paths, paths, shared_weights=False, internal_weights=False
    )
    one_each = torch.arange(count).repeat(2, 1)
    forms: dict[str, tuple[Callable[[], list[Tensor]], list[Tensor]]] = {
        "e3nn": (lambda: [e3nn(flat, harmonics(vectors), weights)], [vectors, weights, flat]),
        "ours, plain torch": (
            lambda: ours(features, couplings(harmonics(vectors)), weights), [vectors, weights, *features],
        ),
        "fused convolution, one edge a receiver": (
            lambda: [convolution(flat, harmonics(vectors), weights, one_each)], [vectors, weights, flat],
        ),
    }  # fmt: skip
    print(f"{count} edges, {IRREPS}, one thread, CPU time in ms: forward, training on forces")
    for name, (forward, inputs) in forms.items():
        first = 1e3 * cpu_time(forward, options.repeats, mean)
        second = 1e3 * cpu_time(lambda f=forward, i=inputs: training(f, i), options.repeats, mean)  # type: ignore[misc]
        print(f"{name:40s} {first:8.2f} {second:8.1f}")


if __name__ == "__main__":
    main()
