"""The first half minute on a GPU: each operator against the CPU's, a captured step of both networks, an energy in OpenMM.

    python benchmarks/gpu_smoke.py [--json FILE]

One line each, with the largest error as a share of the largest number; ends with an error where one is beyond its bound.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from machine import publish
from steps import arguments_of
from torch import Tensor

from equistride.artifact.native import open_native
from equistride.bench.catalogue import parse
from equistride.bench.kernels import graph_of, padded_list_arguments
from equistride.bench.models import choose
from equistride.nn.atom_block import AtomBlock
from equistride.nn.spherical import SpectralFeedForward, SphericalRMSNorm
from equistride.nn.tensor_product import TensorProductConvolution

ATOMS = 576
OPS = torch.ops.equistride
Outputs = tuple[Tensor, ...]


def error(found: Outputs, expected: Outputs) -> float:
    """Return the largest error of the outputs, each as a share of its largest number; infinity where one is not a number."""
    shares = []
    for ours, theirs in zip(found, expected, strict=True):
        ours, theirs = ours.detach().cpu().double(), theirs.detach().cpu().double()
        share = (ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-300)
        shares.append(float(share.nan_to_num(nan=torch.inf)))
    return max(shares)


def moved(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the arguments with all tensors on the GPU."""
    return tuple(a.cuda() if isinstance(a, Tensor) else a for a in arguments)


def operators() -> dict[str, tuple[Callable[..., Any], tuple[Any, ...]]]:
    """Return calls of operators with their arguments, in double precision on the CPU."""
    graph = graph_of(f"quartz-{ATOMS}", torch.float64, 5.0)
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    edges = (graph.edge_index, graph.shifts)
    convolution = TensorProductConvolution("64x0e + 64x1o + 64x2e", "0e + 1o + 2e")
    x, y = random(ATOMS, 64 * 9), random(graph.edges, 9)
    table = (
        1.0 + 3.6 * torch.rand(graph.edges, generator=generator, dtype=torch.float64),
        random(64, convolution.weight_numel),
    )
    spec = (convolution.paths, convolution.couplings)
    r, v, moves, after = (random(ATOMS, 3) for _ in range(4))
    masses = 1 + random(ATOMS, 1).abs()
    norm, network = SphericalRMSNorm(2, 64).double(), SpectralFeedForward(2, 64, 64).double()
    block = AtomBlock(norm.requires_grad_(False), network.requires_grad_(False))
    block.pack()
    features = x.view(ATOMS, 9, 64)
    on_atoms = (features, features.flip(0), block.weights, 64, norm.eps)
    normed = (features, norm.factors()[0], norm.bias, norm.balance.view(-1), norm.eps)
    numbers = torch.tensor([0.9, 0.8, 2.5e-6], dtype=torch.float64)
    return {
        "neighbors": (OPS.neighbors, padded_list_arguments(graph, 5.0)[:4]),
        "neighbors_padded": (OPS.neighbors_padded, padded_list_arguments(graph, 5.0)),
        "edge_vectors": (OPS.edge_vectors, (graph.positions, graph.cell, *edges)),
        "edge_vectors_backward": (OPS.edge_vectors_backward, (random(graph.edges, 3), *edges, ATOMS)),
        "edge_virial": (OPS.edge_virial, (graph.vectors, random(graph.edges, 3))),
        "tensor_product_table": (OPS.tensor_product_table, (x, y, *table, 1.0, 0.06, graph.edge_index, *spec, ATOMS)),
        "spherical_norm": (OPS.spherical_norm, normed),
        "spherical_norm_backward": (OPS.spherical_norm_backward, (features.roll(1, 0), *normed)),
        "atom_block": (OPS.atom_block, on_atoms),
        "atom_block_backward": (OPS.atom_block_backward, (features.roll(1, 0), *on_atoms)),
        "keep_momenta": (OPS.keep_momenta, (r, v, moves, after, masses, 5.0, True)),
        "thermostat": (OPS.thermostat, (r, v, masses, torch.arange(ATOMS) + 1, torch.tensor([3, 4]), numbers, True)),
    }


def networks(scratch: Path) -> dict[str, tuple[float, float]]:
    """Return errors, and their bounds, of captured steps in float32 against the CPU's float64."""
    found = {}
    for kind in ("propagator", "potential"):
        chosen = choose(parse(f"{kind}-quartz-{ATOMS}"), None, random=True, precision="float32", scratch=scratch)
        model, exact = open_native(chosen.path, verify=False), open_native(chosen.path, verify=False)
        model.to("cuda", False)
        exact.to("cpu", True)
        inputs = arguments_of(kind, chosen.path, ATOMS)
        expected = exact.compute(*inputs, True)
        for name in ("first", "replayed"):
            found[f"{chosen.title}, {name}"] = (error(tuple(model.step(*inputs)), tuple(expected)), 2e-4)
        if model.capacity() == 0:
            found[f"{chosen.title}, captured"] = (torch.inf, 0.0)
    return found


def energy_in_openmm(scratch: Path) -> tuple[float, float]:
    """Return the error of an energy on OpenMM's CUDA platform against the Reference's, and its bound."""
    import openmm
    from openmm.app import Topology, element

    from equistride.bench.systems import structure
    from equistride.engines.openmm import create_system

    chosen = choose(parse(f"potential-quartz-{ATOMS}"), None, random=True, precision="float32", scratch=scratch)
    atoms, topology = structure(f"quartz-{ATOMS}"), Topology()
    chain = topology.addChain()
    for symbol in atoms.get_chemical_symbols():
        topology.addAtom(symbol, element.Element.getBySymbol(symbol), topology.addResidue(symbol, chain))
    topology.setPeriodicBoxVectors(atoms.cell.array / 10)
    energies = []
    for name in ("Reference", "CUDA"):
        context = openmm.Context(
            create_system(chosen.path, topology, backend="plugin"),
            openmm.VerletIntegrator(0.001),
            openmm.Platform.getPlatformByName(name),
        )
        context.setPositions(atoms.positions / 10)
        energies.append(context.getState(energy=True).getPotentialEnergy()._value)
    return abs(energies[1] - energies[0]) / abs(energies[0]), 1e-6


def main() -> None:
    """Print a line for each, and write all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    where = parser.parse_args().json
    figures: dict[str, Any] = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    wrong = []

    def note(name: str, share: float, bound: float) -> None:
        figures[name] = share
        if not share <= bound:
            wrong.append(name)
        print(f"{name:28s} {share:9.2e} {'' if share <= bound else 'WRONG'}", flush=True)

    def attempt(name: str, call: Callable[[], dict[str, tuple[float, float]]]) -> None:
        begun = time.perf_counter()
        try:
            for each, (share, bound) in call().items():
                note(each, share, bound)
        except Exception as problem:  # the others are still worth knowing
            figures[name] = str(problem).splitlines()[0]
            wrong.append(name)
            print(f"{name:28s} {problem}")
        figures[f"{name}, s"] = time.perf_counter() - begun

    def compare(call: Callable[..., Any], arguments: tuple[Any, ...], name: str) -> dict[str, tuple[float, float]]:
        found, expected = call(*moved(arguments)), call(*arguments)
        both = [each if isinstance(each, tuple) else (each,) for each in (found, expected)]
        return {name: (error(*both), 1e-11)}

    for name, (call, arguments) in operators().items():
        attempt(name, lambda call=call, arguments=arguments, name=name: compare(call, arguments, name))
    with tempfile.TemporaryDirectory() as scratch:
        attempt("networks", lambda: networks(Path(scratch)))
        attempt("OpenMM", lambda: {"energy in OpenMM": energy_in_openmm(Path(scratch))})
    publish(figures, where)
    if wrong:
        raise SystemExit(f"wrong: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
