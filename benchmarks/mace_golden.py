"""Random networks of MACE in every form that the import reads, with mace-torch's own numbers in float64.

    PYTHON benchmarks/mace_golden.py FOLDER [NAME ...]

where PYTHON has mace-torch 0.3.16 (``TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1`` where its e3nn is old). Writes ``NAME.model`` and
``NAME.npz`` for each name: the small ones by default, which are those of the tests; the sizes of released models, whose names
begin with ``mp0``, ``mp0b`` and ``off``, when they are named. All weights are drawn anew, so that none is near zero.

Each npz: ``HEAD:STRUCTURE:CHARGE:SPIN/numbers, positions [A], cell (rows), pbc, energies (per atom, eV), forces [eV/A],
virial [eV]`` (-sum r (x) dE/dr).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import molecule
from e3nn import o3
from mace import data, modules, tools
from mace.tools import torch_geometric

RESIDUAL, FIRST = "RealAgnosticResidualInteractionBlock", "RealAgnosticInteractionBlock"
DENSITY, DENSITY_FIRST = "RealAgnosticDensityResidualInteractionBlock", "RealAgnosticDensityInteractionBlock"
GATE = "RealAgnosticResidualNonLinearInteractionBlock"
LIGHT = [1, 6, 8, 14]
CHARGE = {"type": "categorical", "per": "graph", "num_classes": 21, "offset": 10, "emb_dim": 5}
SPIN = {"type": "categorical", "per": "graph", "num_classes": 8, "offset": 0, "emb_dim": 3}
NUMBER = {"type": "continuous", "per": "graph", "in_dim": 1, "emb_dim": 4}

SMALL: dict[str, dict[str, Any]] = {
    "residual": {"hidden": "3x0e+3x1o+3x2e", "first": FIRST, "cls": modules.MACE, "edge": "2x0e+2x1o+4x2e+2x3o"},
    "density": {"inter": DENSITY, "first": DENSITY_FIRST, "transform": "Agnesi", "zbl": True, "heads": ["pbe", "r2scan"]},
    "omol": {
        "inter": GATE, "first": GATE, "hidden": "4x0e+4x1o", "edge": "3x0e+2x1o+2x2e", "cutoff_last": True,
        "readout": modules.NonLinearBiasReadoutBlock, "specs": {"total_spin": SPIN, "total_charge": CHARGE},
        "embedding_readout": True, "radial": [8, 8],
    },
    "heads": {
        "inter": GATE, "first": GATE, "hidden": "4x0e+4x1o", "edge": "3x0e+2x1o", "edge_first": True, "cutoff_last": True,
        "max_ell": 1, "readout": modules.NonLinearBiasReadoutBlock, "heads": ["omat", "omol"], "agnostic": True,
        "last_only": True, "transform": "Agnesi", "zbl": True, "radial": [8], "specs": {"total_charge": NUMBER},
        "keep_last": True,
    },
    "mixed": {"inter": GATE, "first": DENSITY_FIRST, "transform": "Soft", "cutoff_last": True, "radial": [8, 8]},
}  # fmt: skip
"""Each differs from the others in what it has: see :func:`build` for the defaults."""

MP = {"channels": 128, "zs": list(range(1, 90)), "r_max": 6.0, "bessel": 10, "max_ell": 3, "radial": [64, 64, 64],
      "mlp": "16x0e", "scale": 20.0}  # fmt: skip
OFF = {"channels": 128, "zs": [1, 6, 7, 8, 9, 15, 16, 17, 35, 53], "r_max": 5.0, "max_ell": 3, "radial": [64, 64, 64],
       "mlp": "16x0e", "first": FIRST, "scale": 20.0}  # fmt: skip
RELEASED: dict[str, dict[str, Any]] = {
    "mp0-small": {**MP, "hidden": "128x0e"},
    "mp0-medium": {**MP, "hidden": "128x0e+128x1o"},
    "mp0b": {
        **MP,
        "hidden": "128x0e+128x1o",
        "inter": DENSITY,
        "first": DENSITY_FIRST,
        "transform": "Agnesi",
        "zbl": True,
    },
    "off-small": {**OFF, "hidden": "96x0e", "r_max": 4.5},
    "off-medium": {**OFF, "hidden": "128x0e+128x1o"},
    "off-large": {**OFF, "hidden": "192x0e+192x1o+192x2e"},
}


def build(c: dict[str, Any]) -> torch.nn.Module:
    """Return a network of random weights."""
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(1)
    generator = torch.Generator().manual_seed(1)
    elements, heads = c.get("zs", LIGHT), c.get("heads", ["Default"])
    energies = torch.rand(len(heads), len(elements), generator=generator).numpy().round(3) - 5.0
    kind = c.get("cls", modules.ScaleShiftMACE)
    several = len(heads) > 1
    scaled: dict[str, Any] = {
        "atomic_inter_scale": [0.8, 0.6] if several else c.get("scale", 0.8),
        "atomic_inter_shift": [0.1, -0.2] if several else 0.1,
    }
    if kind is modules.MACE:
        scaled = {}
    network = kind(
        r_max=c.get("r_max", 4.0), num_bessel=c.get("bessel", 8), num_polynomial_cutoff=5, max_ell=c.get("max_ell", 2),
        interaction_cls=modules.interaction_classes[c.get("inter", RESIDUAL)],
        interaction_cls_first=modules.interaction_classes[c.get("first", RESIDUAL)],
        num_interactions=c.get("layers", 2), num_elements=len(elements), hidden_irreps=o3.Irreps(c.get("hidden", "4x0e")),
        MLP_irreps=o3.Irreps(c.get("mlp", "3x0e")), gate=torch.nn.functional.silu, atomic_energies=energies,
        avg_num_neighbors=c.get("ann", 7.0), atomic_numbers=elements, correlation=3, radial_MLP=c.get("radial", [8, 8, 8]),
        pair_repulsion=c.get("zbl", False), distance_transform=c.get("transform", "None"), heads=heads,
        use_reduced_cg=False, apply_cutoff=not c.get("cutoff_last", False),
        edge_irreps=o3.Irreps(c["edge"]) if "edge" in c else None, use_edge_irreps_first=c.get("edge_first", False),
        use_agnostic_product=c.get("agnostic", False), use_last_readout_only=c.get("last_only", False),
        embedding_specs=c.get("specs"), use_embedding_readout=c.get("embedding_readout", False),
        readout_cls=c.get("readout", modules.NonLinearReadoutBlock), keep_last_layer_irreps=c.get("keep_last", False),
        **scaled,
    )  # fmt: skip
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name.endswith(("bias", "norm.weight", "alpha", "beta")) or ".net." in name or "embedding" in name:
                weight += 0.3 * torch.randn(weight.shape, generator=generator)
            if name.endswith("alpha"):
                weight.fill_(4.0)
    return network.eval()


def structures(elements: list[int]) -> dict[str, Atoms]:
    """Return a molecule, a skewed crystal of few atoms, and two atoms that are almost too close."""
    rng = np.random.default_rng(0)
    ethanol = molecule("CH3CH2OH")
    ethanol.positions += rng.normal(0, 0.05, ethanol.positions.shape)
    found = {"ethanol": ethanol}
    second = 14 if 14 in elements else 6
    place = np.array([[0.0, 0.0, 0.0], [1.6, 0.2, 0.1], [0.3, 1.7, 1.5], [2.1, 2.2, 0.4], [2.3, 0.6, 2.0]])
    cell = [[3.4, 0.1, 0.0], [-0.6, 3.9, 0.2], [0.3, 0.0, 4.2]]
    found["crystal"] = Atoms([second, 8, 8, second, 8], place, cell=cell, pbc=True)
    found["close"] = Atoms([8, second], [[0, 0, 0], [0.5, 0.4, 0.3]])
    return found


def numbers(network: torch.nn.Module, atoms: Atoms, head: str, charge: float, spin: float) -> dict[str, np.ndarray]:
    """Return mace-torch's energies, forces and virial."""
    config = data.config_from_atoms(atoms, head_name=head)
    config.properties |= {"total_charge": charge, "total_spin": spin}
    table = tools.AtomicNumberTable([int(z) for z in network.atomic_numbers])
    made = data.AtomicData.from_config(config, z_table=table, cutoff=float(network.r_max), heads=network.heads)
    batch = next(iter(torch_geometric.dataloader.DataLoader([made], batch_size=1, shuffle=False))).to_dict()
    extra: list[torch.Tensor] = []  # what the features at the start add is not in mace-torch's atomic energies
    if hasattr(network, "embedding_readout"):
        hook = network.embedding_readout.register_forward_hook(lambda *args: extra.append(args[2]))
    out = network(batch, compute_virials=True)
    energies = out["node_energy"].detach()
    if extra:
        energies = energies + extra[0].detach()[:, network.heads.index(head)]
        hook.remove()
    if abs(float(energies.sum() - out["energy"])) > 1e-9:
        raise RuntimeError(f"atomic energies do not sum to the energy: {energies.sum()} and {out['energy']}")
    return {
        "energies": energies.numpy(),
        "forces": out["forces"].detach().numpy(),
        "virial": out["virials"].detach().numpy().reshape(3, 3),
    }


def main() -> None:
    """Write the files."""
    folder, names = Path(sys.argv[1]), sys.argv[2:] or list(SMALL)
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for name in names:
        choices = (SMALL | RELEASED)[name]
        network, out = build(choices), {}
        states = [(0.0, 1.0), (-2.0, 3.0)] if "specs" in choices else [(0.0, 1.0)]
        for head in network.heads:
            for structure, atoms in structures([int(z) for z in network.atomic_numbers]).items():
                for charge, spin in states:
                    key = f"{head}:{structure}:{charge:g}:{spin:g}"
                    frame = {"numbers": atoms.numbers, "positions": atoms.positions, "cell": np.array(atoms.cell),
                             "pbc": atoms.pbc} | numbers(network, atoms, head, charge, spin)  # fmt: skip
                    out |= {f"{key}/{what}": value for what, value in frame.items()}
        np.savez_compressed(folder / f"{name}.npz", **out)
        torch.save(network, folder / f"{name}.model")
        largest = max(np.abs(value).max() for key, value in out.items() if key.endswith("forces"))
        print(f"{name}: {sum(p.numel() for p in network.parameters())} weights, largest force {largest:.3g} eV/A")


if __name__ == "__main__":
    main()
