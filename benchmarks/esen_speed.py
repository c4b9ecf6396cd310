"""Energy and forces of eSEN: fairchem-core, our plain torch network, and the fused edge block.

    OMP_NUM_THREADS=1 python benchmarks/esen_speed.py [--fairchem PYTHON] [--atoms 216 648 4374] [--json FILE]
    python benchmarks/esen_speed.py --fairchem PYTHON --atoms 4374 --skip plain "fairchem, recomputing" --memory 21
    python benchmarks/esen_speed.py --device cuda [--atoms 648 4374 34992] [--json FILE]

Quartz, 2 layers, 64 channels, L = M = 2, cutoff 5 A, 10 Gaussians, float32; same random weights, same atoms, same edges; one
thread, process CPU time; in each round every network is evaluated once, and medians of the rounds and of the ratios within them
are printed; neighbour lists are made before. Sizes and networks that are not measured keep their figures in the file.
fairchem-core runs in an environment of its own, whose Python --fairchem names; without it, it is left out. It is measured twice:
storing all that its backward pass needs, which is fast and takes 4.2 MiB an atom, and recomputing it
(`activation_checkpointing`, its default for inference), which needs half of that. The limit is the time that the block's matrix
products take at the highest rate measured for a matrix product on this machine, torch's or ours. On a GPU plain and fused,
between CUDA events, and fused replayed from a captured graph too, which leaves out what the host does; matrix products without
TF32.
"""

from __future__ import annotations

import argparse
import copy
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import captured, event_time, gemm_rate, keep_freed_memory, processor

RESULTS = Path(__file__).with_name("results") / "esen_speed.json"
CELLS = {72: (2, 2, 2), 216: (4, 3, 2), 648: (4, 3, 6), 1296: (4, 6, 6), 4374: (9, 9, 6), 34992: (18, 18, 12)}
CUTOFF, CHANNELS, LAYERS = 5.0, 64, 2
ELEMENTS = [8, 14]
FAIRCHEM = ("fairchem", "fairchem, recomputing")
BACKBONE = {
    "max_num_elements": 20, "sphere_channels": CHANNELS, "hidden_channels": CHANNELS, "edge_channels": CHANNELS,
    "lmax": 2, "mmax": 2, "num_distance_basis": 10, "num_layers": LAYERS, "cutoff": CUTOFF, "act_type": "gate",
    "ff_type": "spectral", "use_dataset_embedding": False, "otf_graph": False, "regress_forces": True,
    "direct_forces": False, "regress_stress": False, "max_neighbors": 300,
}  # fmt: skip


def fairchem_worker(folder: Path) -> None:
    """In fairchem-core's environment: write the weights, then answer lines ``ATOMS KIND FILE`` with the time of an evaluation."""
    from fairchem.core.models.uma.escn_md import MLP_EFS_Head, eSCNMDBackbone

    models = {}
    for kind in FAIRCHEM:
        torch.manual_seed(3)
        backbone = eSCNMDBackbone(**BACKBONE, activation_checkpointing=kind != "fairchem")
        model = torch.nn.ModuleDict(
            {"backbone": backbone, "output_heads": torch.nn.ModuleDict({"efs": MLP_EFS_Head(backbone)})}
        )
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.02 * torch.randn_like(parameter)
        models[kind] = model.requires_grad_(False).eval()
        torch.save(model.state_dict(), folder / "weights.pt")
    structures: dict[int, dict[str, Any]] = {}
    for path in sorted(folder.glob("quartz*.npz")):
        graph = {key: torch.tensor(value) for key, value in np.load(path).items()}
        count = len(graph["numbers"])
        structures[count] = {
            "pos": graph["positions"].float(), "cell": graph["cell"].float()[None], "atomic_numbers": graph["numbers"],
            "batch": torch.zeros(count, dtype=torch.long), "natoms": torch.tensor([count]),
            "pbc": torch.ones(1, 3, dtype=torch.bool), "edge_index": graph["edge_index"].flip(0),
            "cell_offsets": graph["shifts"].float(),
            "nedges": torch.tensor([graph["edge_index"].shape[1]]), "charge": torch.zeros(1), "spin": torch.zeros(1),
            "dataset": ["omat"],
        }  # fmt: skip
    print("ready", flush=True)
    for line in sys.stdin:
        size, kind, target = line.rstrip("\n").split("\t")
        data = FairchemData(structures[int(size)])
        data["pos"] = data["pos"].clone().requires_grad_()
        try:
            before = time.process_time()
            out = models[kind]["output_heads"]["efs"](data, models[kind]["backbone"](data))
            seconds = time.process_time() - before
        except (MemoryError, RuntimeError) as error:
            print(json.dumps({"error": str(error).splitlines()[0]}), flush=True)
            continue
        out = {key: value[key] if isinstance(value, dict) else value for key, value in out.items()}
        np.save(target, out["forces"].detach().numpy())
        print(
            json.dumps({"seconds": seconds, "GiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}),
            flush=True,
        )


class FairchemData(dict):
    """A dictionary that fairchem-core's network may also read by attribute."""

    __getattr__ = dict.__getitem__
    __setattr__ = dict.__setitem__

    def get(self, key: str, default: object = None) -> object:
        """As of a dictionary, with a keyword."""
        return super().get(key, default)


def flops(mirror: bool) -> float:
    """Multiplications and additions of an edge in all layers: what the block's layers need, forward and backward."""
    from equistride.bench.work import edge_block_work

    return LAYERS * sum(edge_block_work(2, 2, CHANNELS, CHANNELS, CHANNELS, mirror))


def build(state: dict[str, torch.Tensor] | None, mirror: bool) -> Any:
    """Our potential for O and Si with fairchem-core's weights, or random ones."""
    from equistride.importers.fairchem import config_of, translate
    from equistride.models.esen import ESEN
    from equistride.models.potential import ConservativePotential

    config = config_of(BACKBONE)
    if state is None:
        config = config.model_copy(update={"mirror": mirror, "charge_spin": "off"})
    torch.manual_seed(3)
    network = ESEN(config, len(ELEMENTS))
    if state is not None:
        weights = translate(state, config)
        for name in ("embedding.weight", "sender", "receiver"):
            weights[name] = weights[name][ELEMENTS]
        network.load_state_dict(weights)
    potential = ConservativePotential(network, ["O", "Si"], CUTOFF, 1.0, [0.0, 0.0]).float()
    return potential.requires_grad_(False)


def measure(
    atoms: int, graph: tuple, potentials: dict[str, Any], fairchem: Fairchem | None, skip: list[str], repeats: int
) -> dict[str, Any]:
    """CPU seconds of every potential, one after the other in each round, and how far apart they are."""
    figures: dict[str, Any] = {"atoms": atoms, "edges": graph[3].size(1)}
    seconds: dict[str, list[float]] = {}
    forces: dict[str, np.ndarray] = {}
    theirs = [name for name in FAIRCHEM if fairchem and name not in skip]
    potentials = {name: potential for name, potential in potentials.items() if name not in skip}
    for turn in range(repeats + 1):
        for name, potential in list(potentials.items()):
            before = time.process_time()
            try:
                forces[name] = potential(*graph)[1].double().numpy()
            except (MemoryError, RuntimeError) as error:
                print(f"  {name} fails on {atoms} atoms: {str(error).splitlines()[0]}")
                potentials = {key: value for key, value in potentials.items() if key != name}
                continue
            seconds.setdefault(name, []).append(time.process_time() - before)
        for name in theirs:
            assert fairchem
            answer = fairchem.run(atoms, name)
            if "error" in answer:
                print(f"  {name} fails on {atoms} atoms: {answer['error']}")
                theirs = [other for other in theirs if other != name]
                continue
            seconds.setdefault(name, []).append(answer["seconds"])
            figures[f"{name}, GiB"], forces[name] = answer["GiB"], fairchem.forces()
        if turn == 0:  # the first finds cold caches and fresh memory
            seconds = {}
    rounds = {name: np.array(values) for name, values in seconds.items()}
    for name, values in rounds.items():
        figures[name] = float(np.median(values))
        if name != "fused":
            figures[f"{name} / fused"] = float(np.median(values / rounds["fused"]))
            scale = np.abs(forces[name]).max()
            figures[f"fused against {name}, forces"] = float(np.abs(forces["fused"] - forces[name]).max() / scale)
    return figures


def quartz_graph(atoms: int) -> tuple:
    """Positions, species, cell, edges and shifts of displaced quartz, float32."""
    from equistride.data.quartz import quartz
    from equistride.graph import neighbor_list

    crystal = quartz(CELLS[atoms])
    crystal.rattle(0.05, seed=1)
    positions, cell = torch.tensor(crystal.positions).float(), torch.tensor(crystal.cell.array).float()
    return (positions, torch.tensor(crystal.numbers == 14).long(), cell, *neighbor_list(positions, cell, True, CUTOFF))


class Fairchem:
    """fairchem-core's network in a process of its own, for one evaluation at a time."""

    def __init__(self, python: str, graphs: dict[int, tuple], folder: Path, memory: float | None) -> None:
        for atoms, graph in graphs.items():
            names = ("positions", "numbers", "cell", "edge_index", "shifts")
            arrays = {k: v.numpy() for k, v in zip(names, graph, strict=True)}
            arrays["numbers"] = np.array(ELEMENTS)[arrays["numbers"]]
            np.savez(folder / f"quartz{atoms}.npz", **arrays)
        limit = ["--memory", str(memory)] if memory else []
        self.process = subprocess.Popen(
            [python, __file__, "--worker", str(folder), *limit],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.target = folder / "forces.npy"
        self._read("ready")
        self.state = torch.load(folder / "weights.pt", weights_only=True)

    def _read(self, start: str) -> str:
        for line in self.process.stdout or ():
            if line.startswith(start):
                return line
        raise SystemExit(f"fairchem-core's process ended with {self.process.wait()}")

    def run(self, atoms: int, kind: str) -> dict[str, Any]:
        """Evaluate a structure once with one of ``FAIRCHEM``: ``seconds`` and the process's peak ``GiB``, or ``error``."""
        assert self.process.stdin
        print(atoms, kind, self.target, sep="\t", file=self.process.stdin, flush=True)
        return json.loads(self._read("{"))

    def forces(self) -> np.ndarray:
        """Forces [N, 3] of the last evaluation, eV/A."""
        return np.load(self.target).astype(float)


def compare(
    mirror: bool,
    fairchem: Fairchem | None,
    graphs: dict[int, tuple],
    skip: list[str],
    repeats: int,
    rates: dict[str, float],
    results: dict,
) -> None:
    """Measure the networks of one kind on all structures, and print a table."""
    from equistride.models.esen_fused import fuse

    state = fairchem.state if fairchem else None
    potentials = {"plain": build(state, mirror), "fused": build(state, mirror)}
    potentials["fused"].network = fuse(potentials["fused"].network)
    results["spline error"] = potentials["fused"].network.error
    work = flops(mirror)
    title = "published layers" if not mirror else "mirror: true"
    print(f"\n{title}: {work / 1e6:.2f} MFLOP an edge (matrix products, forward and backward)")
    print(
        f"{'atoms':>6} {'edges':>8} {'fairchem':>10} {'recomp.':>10} {'plain':>10} {'fused':>10}"
        f"   {'fairchem':>9} {'recomp.':>8} {'plain':>8}   of limit"
    )
    for atoms, graph in graphs.items():
        figures = measure(atoms, graph, potentials, fairchem, skip, repeats)
        figures["limit"] = work * figures["edges"] / max(rates.values()) / 1e9
        figures["share of the limit"] = figures["limit"] / figures["fused"]
        times = [f"{figures[k]:9.3f}s" if k in figures else f"{'-':>10}" for k in (*FAIRCHEM, "plain", "fused")]
        ratios = [f"{figures.get(f'{k} / fused', float('nan')):7.2f}x" for k in (*FAIRCHEM, "plain")]
        print(
            f"{atoms:6d} {figures['edges']:8d} {' '.join(times)}   {' '.join(ratios)}   {figures['share of the limit']:.2f}"
        )
        results[f"{title}, {atoms} atoms"] = results.get(f"{title}, {atoms} atoms", {}) | figures


def measure_on_gpu(graph: tuple, plain: Any, fused: Any, repeats: int) -> dict[str, Any]:
    """Seconds of both networks, atom-steps/s of the faster way to run the fused one, and how far apart their numbers are."""
    atoms = len(graph[0])
    figures: dict[str, Any] = {"atoms": atoms, "edges": graph[3].size(1)}
    ways = {"plain": lambda: plain(*graph), "fused": lambda: fused(*graph)}
    try:
        ways["fused, graph"] = captured(ways["fused"])[0]
    except RuntimeError as error:
        print(f"  no graph was captured: {str(error).splitlines()[0]}")
    for name, call in ways.items():
        torch.cuda.reset_peak_memory_stats()
        try:
            figures[name] = event_time(call, repeats)
        except RuntimeError as error:
            print(f"  {name} fails on {atoms} atoms: {str(error).splitlines()[0]}")
            continue
        figures[f"{name}, GiB"] = torch.cuda.max_memory_allocated() / 2**30
    forces = fused(*graph)[1]
    if "plain" in figures:
        figures["plain / fused"] = figures["plain"] / figures["fused"]
        theirs = plain(*graph)[1]
        figures["fused against plain, forces"] = float((forces - theirs).abs().max() / theirs.abs().max())
    exact = copy.deepcopy(fused).double()
    positions, species, cell, *edges = graph
    theirs = exact(positions.double(), species, cell.double(), *edges)[1]
    figures["float32 against float64, forces"] = float((forces.double() - theirs).abs().max() / theirs.abs().max())
    figures["atom-steps/s"] = atoms / min(figures["fused"], figures.get("fused, graph", figures["fused"]))
    return figures


def on_gpu(atoms: list[int], repeats: int, path: Path) -> None:
    """Print the table of a GPU and write it."""
    from equistride.models.esen_fused import fuse

    torch.backends.cuda.matmul.allow_tf32 = False
    rate = gemm_rate(torch.float32, 5, "cuda")
    results: dict[str, Any] = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "GFLOP/s": rate / 1e9,
    }
    print(f"{results['device']}, torch {torch.__version__}, float32; matrix products {rate / 1e12:.1f} TFLOP/s")
    for mirror in (False, True):
        plain, fused = build(None, mirror).cuda(), build(None, mirror)
        fused.network = fuse(fused.network)
        fused = fused.cuda()
        title = "published layers" if not mirror else "mirror: true"
        print(f"\n{title}: {flops(mirror) / 1e6:.2f} MFLOP an edge (matrix products, forward and backward)")
        print(f"{'atoms':>6} {'edges':>8} {'plain':>11} {'fused':>11} {'graph':>11} {'atom-steps/s':>13}   of limit")
        for count in atoms:
            graph = tuple(t.cuda() for t in quartz_graph(count))
            figures = measure_on_gpu(graph, plain, fused, repeats)
            figures["share of the limit"] = flops(mirror) * figures["edges"] / rate * figures["atom-steps/s"] / count
            times = [figures.get(name, float("nan")) for name in ("plain", "fused", "fused, graph")]
            cells = " ".join(f"{1e3 * seconds:9.3f}ms" for seconds in times)
            print(
                f"{count:6d} {figures['edges']:8d} {cells} {figures['atom-steps/s']:13.0f}   {figures['share of the limit']:.2f}"
            )
            results[f"{title}, {count} atoms"] = figures
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(results, indent=1) + "\n")


def main() -> None:
    """Print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fairchem", help="Python of an environment with fairchem-core")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--atoms", type=int, nargs="+", choices=CELLS, help="216 648; on a GPU 648 4374 34992")
    parser.add_argument("--skip", nargs="+", choices=["plain", *FAIRCHEM], default=[], help="networks to leave out")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory", type=float, help="refuse to use more than this in each process [GB]")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory:
        limit = int(arguments.memory * 2**30)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    if arguments.device == "cuda":
        if not torch.cuda.is_available() or arguments.fairchem:
            parser.error("--device cuda needs a GPU that torch can use, and takes no --fairchem")
        where = arguments.json or RESULTS.with_name("esen_speed_gpu.json")
        on_gpu(arguments.atoms or [648, 4374, 34992], arguments.repeats, where)
        return
    arguments.json, arguments.atoms = arguments.json or RESULTS, arguments.atoms or [216, 648]
    keep_freed_memory()
    if arguments.worker:
        torch.set_num_threads(1)
        fairchem_worker(arguments.worker)
        return
    from equistride.bench.machine import block_rate

    torch.set_num_threads(1)
    graphs = {atoms: quartz_graph(atoms) for atoms in arguments.atoms}
    results: dict[str, Any] = {"processor": processor(), "torch": torch.__version__}
    if arguments.json.is_file():
        kept = json.loads(arguments.json.read_text())
        if all(kept.get(name) == value for name, value in results.items()):
            results = kept | results
    rates = {"torch": gemm_rate(torch.float32, 5) / 1e9, "block": block_rate(torch.float32) / 1e9}
    results["GFLOP/s of matrix products"] = rates
    print(f"{results['processor']}, one thread, torch {torch.__version__}, float32")
    print("matrix products: torch {torch:.0f}, ours {block:.0f} GFLOP/s".format(**rates))
    with tempfile.TemporaryDirectory() as name:
        fairchem = Fairchem(arguments.fairchem, graphs, Path(name), arguments.memory) if arguments.fairchem else None
        if fairchem is None:
            print("fairchem-core is left out: name the Python of its environment with --fairchem")
        for mirror in (False, True):
            compare(mirror, None if mirror else fairchem, graphs, arguments.skip, arguments.repeats, rates, results)
            arguments.json.parent.mkdir(exist_ok=True)
            arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
