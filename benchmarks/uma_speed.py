"""CPU time of energy and forces of a UMA checkpoint: our artifact against fairchem-core with merged experts, in turns.

    python benchmarks/uma_speed.py CHECKPOINT [--apart] [--atoms 72] [--elements 2] [--rounds 3] [--artifact FILE] [--json FILE]

needs an environment with fairchem-core 2.24 (and what it needs). Both run in float32 on one thread, through ASE, on displaced
quartz, in which with more than two elements atoms are replaced, as many by each; the time is that of the process, and each
round gives one ratio. Loading an artifact tells glibc to keep freed memory, which serves both sides in one process; with
``--apart`` each has a process of its own, and runs as people run it. Random weights will do: no step depends on them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import multiprocessing
import resource
import time
import warnings
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from ase import Atoms
from machine import processor
from numpy.typing import NDArray

from equistride.data.quartz import quartz
from equistride.engines.ase import EquistrideCalculator
from equistride.importers.fairchem import import_fairchem

Array = NDArray[np.float64]
CELLS = {72: (2, 2, 2), 216: (4, 3, 2), 648: (6, 4, 3)}
OTHERS = ["Al", "Mg", "Ca", "Na", "K", "Fe", "Ti", "H"]


def structure(atoms: int, elements: int) -> Atoms:
    """Return quartz with 1/24 of the atoms replaced by each element beyond two: all sizes have one composition."""
    crystal = quartz(CELLS[atoms])
    chosen = np.random.default_rng(0).permutation(atoms)
    symbols = np.array(crystal.get_chemical_symbols(), dtype=object)
    for k, element in enumerate(OTHERS[: elements - 2]):
        symbols[chosen[k * atoms // 24 : (k + 1) * atoms // 24]] = element
    # of silicon and oxygen as many as in the cell of 72 atoms
    rest = chosen[(elements - 2) * atoms // 24 :]
    symbols[rest] = "O"
    symbols[rest[: len(rest) // 3]] = "Si"
    crystal.set_chemical_symbols(list(symbols))
    return crystal


def peak() -> float:
    """Largest resident memory so far, GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def fairchem(checkpoint: Path, task: str) -> Any:
    """Return fairchem's calculator with merged experts."""
    from fairchem.core import FAIRChemCalculator
    from fairchem.core.units.mlip_unit import MLIPPredictUnit
    from fairchem.core.units.mlip_unit.api.inference import InferenceSettings

    settings = InferenceSettings(tf32=False, activation_checkpointing=False, merge_mole=True, compile=False)
    return FAIRChemCalculator(
        MLIPPredictUnit(str(checkpoint), device="cpu", inference_settings=settings), task_name=task
    )


class Side(Protocol):
    """One of the two, loaded."""

    def forces(self, atoms: Atoms) -> tuple[float, Array, float]:
        """Return CPU time [ms], forces [N, 3] and the largest memory so far [GB]."""


class Here:
    """A side in this process."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        warnings.filterwarnings("ignore")
        logging.disable(logging.WARNING)
        torch.set_num_threads(1)
        ours = name == "equistride"
        self.calculator = EquistrideCalculator(options.artifact) if ours else fairchem(options.checkpoint, options.task)

    def forces(self, atoms: Atoms) -> tuple[float, Array, float]:
        """As :meth:`Side.forces`."""
        atoms.calc = self.calculator
        start = time.process_time()
        forces = atoms.get_forces()
        return 1000 * (time.process_time() - start), forces, peak()


def serve(pipe: Connection, name: str, options: argparse.Namespace) -> None:
    """Answer what :class:`Apart` asks, until it is gone."""
    side = Here(name, options)
    pipe.send(peak())
    with contextlib.suppress(EOFError):
        while True:
            pipe.send(side.forces(pipe.recv()))


class Apart:
    """A side in a process of its own."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        made = multiprocessing.get_context("spawn")
        self.pipe, theirs = made.Pipe()
        made.Process(target=serve, args=(theirs, name, options)).start()
        theirs.close()
        print(f"{name:>11}: {self.pipe.recv():.2f} GB loaded")

    def forces(self, atoms: Atoms) -> tuple[float, Array, float]:
        """As :meth:`Side.forces`."""
        self.pipe.send(atoms)
        answer: tuple[float, Array, float] = self.pipe.recv()
        return answer


def main() -> None:
    """Print milliseconds of each, the median of the ratios, how far forces differ, and memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--task", default="omat")
    parser.add_argument("--atoms", type=int, choices=sorted(CELLS), default=72)
    parser.add_argument("--elements", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--artifact", type=Path, default=Path("uma-speed.pt"), help="written where it is missing")
    parser.add_argument("--apart", action="store_true", help="each side in a process of its own")
    parser.add_argument("--only", choices=("equistride", "fairchem"), help="one side alone, for its memory")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    atoms = structure(options.atoms, options.elements)
    if not options.artifact.is_file():
        import_fairchem(options.checkpoint, options.artifact, dataset=options.task, composition=Counter(atoms.symbols))
    kind = Apart if options.apart else Here
    sides: dict[str, Side] = {
        name: kind(name, options) for name in ("equistride", "fairchem") if options.only in (None, name)
    }
    loaded = peak()
    times: dict[str, list[float]] = {name: [] for name in sides}
    memory = dict.fromkeys(sides, 0.0)
    difference = largest = 0.0
    for k in range(options.rounds + 1):
        found = []
        for name, side in sides.items():
            moved = atoms.copy()
            moved.rattle(0.05, seed=k)
            ms, forces, memory[name] = side.forces(moved)
            found.append(forces)
            if k > 0:  # the first one merges and compiles
                times[name].append(ms)
        difference = max(difference, float(np.abs(found[0] - found[-1]).max()))
        largest = max(largest, float(np.abs(found[0]).max()))
    print(f"{options.checkpoint.name}, {options.atoms} atoms, {options.elements} elements, float32, one thread")
    for name, values in times.items():
        print(f"{name:>11}: best {min(values):.0f}, median {float(np.median(values)):.0f} ms")
    facts: dict[str, Any] = {
        "checkpoint": options.checkpoint.name, "atoms": options.atoms, "elements": options.elements, "ms": times,
        "apart": options.apart, "loaded_gb": loaded, "peak_gb": memory, "machine": processor(),
    }  # fmt: skip
    if len(sides) == 2:
        ratios = np.divide(times["fairchem"], times["equistride"])
        facts |= {"ratio": float(np.median(ratios)), "force_difference": difference, "largest_force": largest}
        print(f"      ratio: median {facts['ratio']:.2f} of {', '.join(f'{r:.2f}' for r in ratios)}")
        print(f"     forces: differ by {difference:.1e} of {largest:.2f} eV/A")
    print(f"     memory: {', '.join(f'{name} {most:.2f} GB at most' for name, most in memory.items())}")
    if options.json:
        table = json.loads(options.json.read_text()) if options.json.is_file() else []
        options.json.write_text(json.dumps([*table, facts], indent=1) + "\n")


if __name__ == "__main__":
    main()
