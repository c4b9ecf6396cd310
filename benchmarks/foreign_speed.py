"""CPU time of energy and forces of a universal potential: our artifact against the program that it comes from, in turns.

    python benchmarks/foreign_speed.py [MODEL] [--cells 4 3 2] [--rounds 5]

needs an environment with the program and what it needs: sevenn for ``7net-0``, ``7net-l3i5`` and other released SevenNets or
files of it; nequip for ``nequip-parity``, ``nequip`` (four layers of 64 channels to degree 2) and ``nequip-m`` (the preset);
mace-torch for ``mp0-small``, ``mp0-medium`` and the other sizes of ``benchmarks/mace_golden.py``; these have random weights.
Both run in float32 on one thread, through ASE, on displaced quartz, and the time is that of the process. Loading an artifact
tells glibc to keep freed memory, which serves both sides here; with ``EQUISTRIDE_MALLOC=system`` neither has it, as people run
the other side.
"""

from __future__ import annotations

import argparse
import platform
import resource
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from equistride.data.quartz import quartz
from equistride.engines.ase import EquistrideCalculator

SYMBOLS = ["O", "Si"]
NEQUIP: dict[str, dict[str, Any]] = {
    "nequip-parity": {"l_max": 2, "parity": True, "num_features": 64, "radial_mlp_depth": 2, "radial_mlp_width": 64},
    "nequip": {"l_max": 2, "parity": False, "num_features": 64, "radial_mlp_depth": 2, "radial_mlp_width": 64},
    "nequip-m": {
        "l_max": 2, "parity": False, "num_features": [128, 64, 32], "type_embed_num_features": 32, "radial_mlp_depth": 1,
        "radial_mlp_width": 128,
    },
}  # fmt: skip


def sevennet(name: str, path: Path) -> Any:
    """Write the artifact and return the program's own calculator."""
    from sevenn.calculator import SevenNetCalculator

    from equistride.importers.sevennet import find_checkpoint, import_sevennet

    name, _, modal = name.partition(":")
    import_sevennet(name, path, elements=SYMBOLS, modal=modal)
    return SevenNetCalculator(str(find_checkpoint(name)), device="cpu", modal=modal or None)


def nequip(name: str, path: Path) -> Any:
    """Write the artifact and return the program's own calculator."""
    from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper, NeighborListTransform
    from nequip.integrations.ase import NequIPCalculator
    from nequip.model import NequIPGNNModel
    from nequip.utils.global_state import set_global_state

    from equistride.importers.nequip import import_nequip

    set_global_state()
    sizes = NEQUIP[name] | {
        "seed": 1, "model_dtype": "float32", "type_names": SYMBOLS, "r_max": 5.0, "num_bessels": 8, "num_layers": 4,
        "polynomial_cutoff_p": 6, "avg_num_neighbors": 44.0, "per_type_energy_scales": 2.0, "per_type_energy_shifts": -5.0,
    }  # fmt: skip
    model = NequIPGNNModel(**sizes).eval()
    hyper = {"model": {"_target_": "nequip.model.NequIPGNNModel", **sizes}, "info_dict": {"versions": {}}}
    weights = {f"model.sole_model.{key}": value for key, value in model.state_dict().items()}
    torch.save({"state_dict": weights, "hyper_parameters": hyper}, path.with_suffix(".ckpt"))
    import_nequip(path.with_suffix(".ckpt"), path)
    transforms = [
        ChemicalSpeciesToAtomTypeMapper(model_type_names=SYMBOLS),
        NeighborListTransform(r_max=sizes["r_max"]),
    ]
    return NequIPCalculator(model, "cpu", transforms=transforms)


def mace(name: str, path: Path) -> Any:
    """Write the artifact and return the program's own calculator."""
    from mace.calculators import MACECalculator
    from mace_golden import RELEASED, build

    from equistride.importers.mace import import_mace

    model = build(RELEASED[name])
    torch.save(model, path.with_suffix(".model"))
    torch.set_default_dtype(torch.float32)
    import_mace(path.with_suffix(".model"), path, elements=SYMBOLS)
    return MACECalculator(models=[model.float()], device="cpu", default_dtype="float32")


def main() -> None:
    """Print milliseconds of each, the ratio of the best, and how far forces differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "model", nargs="?", default="7net-0", help="a model of the list above; SevenNet's as NAME:MODAL"
    )
    parser.add_argument("--cells", type=int, nargs=3, default=(4, 3, 2), help="of quartz, nine atoms each")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    make = nequip if options.model in NEQUIP else mace if options.model.startswith(("mp0", "off")) else sevennet
    atoms = quartz(tuple(options.cells))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ours.pt"
        theirs = make(options.model, path)
        ours = EquistrideCalculator(path)
    times: dict[str, list[float]] = {"equistride": [], "theirs": []}
    difference = 0.0
    for k in range(options.rounds + 2):
        forces = []
        for name, calculator in zip(times, (ours, theirs), strict=True):
            moved = atoms.copy()
            moved.rattle(0.05, seed=k)
            moved.calc = calculator
            start = time.process_time()
            forces.append(moved.get_forces())
            if k > 1:  # the first ones compile
                times[name].append(1000 * (time.process_time() - start))
        difference = max(difference, float(np.abs(forces[0] - forces[1]).max()))
    print(f"{options.model}, {len(atoms)} atoms, float32, one thread, {platform.processor() or platform.machine()}")
    for name, values in times.items():
        print(f"{name:>11}: best {min(values):.0f}, median {float(np.median(values)):.0f} ms")
    largest = float(np.abs(forces[1]).max())
    ratio = min(times["theirs"]) / min(times["equistride"])
    print(f"      ratio: {ratio:.1f}; forces, up to {largest:.0f} eV/A, differ by {difference:.1e}")
    print(f"     memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB, of both together")


if __name__ == "__main__":
    main()
