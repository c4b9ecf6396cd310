"""MACE's product basis alone, forward and backward: our operator against mace-torch's; or the memory of a whole step.

    python benchmarks/mace_contraction.py [MODEL] [--atoms 648]
    python benchmarks/mace_contraction.py [MODEL] --memory 4374

needs an environment with mace-torch. ``MODEL`` is a size of ``benchmarks/mace_golden.py``, with random weights. The first form
runs the products of each layer in float32 on one thread, in turns, on the same random features: CPU time of the process, medians,
and what share our arithmetic has of the best rate of a matrix product here. The second evaluates energy and forces of displaced
quartz once in a process of each side, and prints its largest resident memory.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from foreign_speed import SYMBOLS, mace
from mace_golden import RELEASED, build
from machine import processor
from torch import Tensor

from equistride.bench.machine import limits
from equistride.data.quartz import quartz
from equistride.engines.ase import EquistrideCalculator
from equistride.importers.mace import potential_of

CELLS = {216: (4, 3, 2), 648: (6, 4, 3), 1296: (6, 6, 4), 4374: (9, 9, 6)}


def work(terms: Tensor) -> int:
    """Return the operations of an atom and channel, forward and backward, as csrc/symmetric_contraction/loops.cpp does them."""
    total = 0
    for (_, prefix), run in groupby(terms.tolist(), key=lambda t: (t[0], [f for f in t[2:] if f >= 0][:-1])):
        depth = len(prefix)
        total += 6 * len(list(run)) + 2 * depth + 2 + depth * (depth + 1)
    return total


def operators(model: str, atoms: int, rounds: int) -> None:
    """Print the times of each layer's products."""
    theirs = build(RELEASED[model])
    with tempfile.TemporaryDirectory() as folder:
        torch.save(theirs, Path(folder) / "mace.model")
        network = potential_of(Path(folder) / "mace.model", SYMBOLS)[0].network.float()
    torch.set_default_dtype(torch.float32)
    elements = [int(z) for z in theirs.atomic_numbers]
    species = (torch.arange(atoms) % 3 == 0).long()
    one_hot = torch.eye(len(elements))[[elements.index(8), elements.index(14)]][species]
    best = limits(torch.float32).gemm
    print(f"{model}, {atoms} atoms, float32, one thread, {processor()}, matrix products {best / 1e9:.0f} GFLOP/s")
    for number, (layer, product) in enumerate(zip(network.layers, theirs.float().products, strict=True)):
        ours, basis = layer.product.frozen(), product.symmetric_contractions
        channels = int(ours.table.size(2))
        x = torch.randn(atoms, channels, basis.irreps_in.dim // channels, requires_grad=True)
        rowwise = x.detach().transpose(1, 2).flatten(1).requires_grad_()
        seed = torch.randn(atoms, ours.outputs * channels)
        times: list[tuple[float, float]] = []
        for k in range(rounds + 2):
            start = time.process_time()
            (on_rows,) = torch.autograd.grad(ours(rowwise, species), rowwise, seed)
            middle = time.process_time()
            # theirs has blocks of degrees, [channels, components] in each
            parts = basis(x, one_hot).split([ir.dim * mul for mul, ir in basis.irreps_out], 1)
            out = torch.cat([part.view(atoms, channels, -1).transpose(1, 2).flatten(1) for part in parts], 1)
            (on_x,) = torch.autograd.grad(out, x, seed)
            if k > 1:  # the first ones compile
                times.append((middle - start, time.process_time() - middle))
        error = float((on_x.transpose(1, 2).flatten(1) - on_rows).abs().max() / on_x.abs().max())
        fast, slow = np.median(times, 0)
        rate = work(ours.terms) * channels * atoms / fast
        print(
            f"layer {number}, {ours.terms.size(0)} terms: ours {1e3 * fast:.2f}, theirs {1e3 * slow:.1f} ms,"
            f" {slow / fast:.0f} times; ours {rate / 1e9:.0f} GFLOP/s, {rate / best:.0%} of the limit;"
            f" gradients differ by {error:.1e} of the largest"
        )


def memory(model: str, atoms: int, side: str) -> None:
    """Print the largest resident memory of one step by one side; both of them begin with the other's modules loaded."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mace.pt"
        theirs = mace(model, path)
        structure = quartz(CELLS[atoms])
        structure.rattle(0.05, seed=0)
        structure.calc = theirs if side == "mace-torch" else EquistrideCalculator(path)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        structure.get_forces()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{side}, {model}, {atoms} atoms: {peak / 1e6:.2f} GB at most, {before / 1e6:.2f} GB before the step")


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="mp0-small", choices=sorted(RELEASED))
    parser.add_argument("--atoms", type=int, default=648)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--memory", type=int, choices=sorted(CELLS), help="atoms of the step whose memory is told")
    parser.add_argument("--side", choices=("equistride", "mace-torch"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    if options.side:
        memory(options.model, options.memory, options.side)
    elif options.memory:
        for side in ("equistride", "mace-torch"):
            subprocess.run([sys.executable, *sys.argv, "--side", side], check=False)
    else:
        operators(options.model, options.atoms, options.rounds)


if __name__ == "__main__":
    main()
