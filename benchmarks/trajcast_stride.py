"""Time of one stride of the published TrajCast (random weights) on quartz: process CPU time, one thread.

    OMP_NUM_THREADS=1 python benchmarks/trajcast_stride.py [--atoms 4374] [--layers 4] [--channels 64]

The neighbour list is included. IBM/trajcast itself took 62.8 CPU-seconds for 4,374 atoms on such a core (float32).
"""

from __future__ import annotations

import argparse
import os
import warnings

import numpy as np
import torch
from machine import cpu_time, processor

from equistride.data.quartz import MASSES, quartz, repeats_for
from equistride.graph import neighbor_list
from equistride.models.propagator import Propagator
from equistride.models.trajcast import TrajCast, TrajCastConfig


def main() -> None:
    """Print one line a variant."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--atoms", type=int, default=4374)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--cutoff", type=float, default=4.5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--plain", action="store_true", help="time the plain torch version too (slow; wants much memory)"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(1)
    atoms = quartz(repeats_for(arguments.atoms))
    atoms.rattle(0.05, seed=1)
    symbols = sorted(MASSES)
    species = torch.tensor([symbols.index(s) for s in atoms.get_chemical_symbols()])
    positions = torch.tensor(atoms.positions, dtype=torch.float32)
    cell = torch.tensor(atoms.cell.array, dtype=torch.float32)
    velocities = torch.tensor(np.random.default_rng(1).normal(scale=0.004, size=(len(atoms), 3)), dtype=torch.float32)
    edges, _ = neighbor_list(positions, cell, True, arguments.cutoff)
    config = TrajCastConfig(
        cutoff=arguments.cutoff, max_speed=0.027, avg_num_neighbors=edges.size(1) / len(atoms),
        num_layers=arguments.layers, channels=arguments.channels,
    )  # fmt: skip
    network = TrajCast(config, len(symbols))
    variants = {"fused, networks": network, "fused, tables": network.double().with_tables(tolerance=1e-6)}
    if arguments.plain:
        plain = TrajCast(config, len(symbols), fused=False)
        plain.load_state_dict(network.state_dict())
        variants["plain"] = plain
    print(f"{processor()}, torch {torch.__version__}, {torch.get_num_threads()} thread, float32")
    print(f"quartz, {len(atoms)} atoms, {edges.size(1)} edges, load average {os.getloadavg()[0]:.1f}")
    masses = [MASSES[s] for s in symbols]
    for name, variant in variants.items():
        propagator = Propagator(variant.float(), symbols, masses, config.cutoff, 30.0, (0.1, 0.005)).float()
        propagator.eval().requires_grad_(False)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            scripted = torch.jit.script(propagator)

        def stride(scripted: torch.jit.ScriptModule = scripted) -> None:
            found = neighbor_list(positions, cell, True, config.cutoff)
            scripted(positions, velocities, species, cell, *found)

        seconds = cpu_time(stride, arguments.repeats, min)
        nanoseconds = propagator.stride_fs * 1e-6 * 86400 / seconds
        print(f"{name:16s} {seconds:7.2f} CPU-s a stride, {nanoseconds:6.2f} ns/day at {propagator.stride_fs:g} fs")


if __name__ == "__main__":
    main()
