"""Checkpoints of random weights and their energies and forces, made with fairchem-core itself.

Run it in an environment of fairchem-core (PyPI); equistride is not needed there, nor the other way round:

    python benchmarks/esen_golden.py --output tests/data/fairchem        # fairchem-core 2: pip install fairchem-core
    python benchmarks/esen_golden.py --output tests/data/fairchem        # fairchem-core 1: pip install fairchem-core==1.10.0

With ``--published`` the networks have the published sizes, up to 30 million weights (up to 400 MB a file), for the slow test of
the import; give it a folder outside of the repository.

For each network it writes ``NAME.pt``, the checkpoint as fairchem saves it, and ``NAME.npz`` with energies [eV] and forces
[eV/A] of five structures in float64 and float32. The tests import the one and compare with the other.
"""

from __future__ import annotations

import argparse
import sys
import types
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.neighborlist import neighbor_list
from ase.spacegroup import crystal

SIZES = {"sphere_channels": 8, "hidden_channels": 6, "edge_channels": 8, "max_num_elements": 20, "num_layers": 2}
RMSD = 1.4230001
SECOND: dict[str, dict[str, Any]] = {
    "L2M2_spectral": {"lmax": 2, "mmax": 2, "num_distance_basis": 10, "cutoff": 5.0, "ff_type": "spectral"},
    "L3M2_spectral": {"lmax": 3, "mmax": 2, "num_distance_basis": 64, "cutoff": 6.0, "ff_type": "spectral"},
    "L4M2_grid": {"lmax": 4, "mmax": 2, "num_distance_basis": 16, "cutoff": 5.0, "ff_type": "grid"},
    "L2M2_grid_table": {"lmax": 2, "mmax": 2, "num_distance_basis": 10, "cutoff": 5.0, "ff_type": "grid",
                        "grid_resolution": 8, "chg_spin_emb_type": "rand_emb"},
    "L2M2_omol": {"lmax": 2, "mmax": 2, "num_distance_basis": 10, "cutoff": 5.0, "ff_type": "spectral",
                  "use_dataset_embedding": True, "dataset_list": ["omat", "omol"], "charge": 1, "spin": 2},
    "L2M2_direct": {"lmax": 2, "mmax": 2, "num_distance_basis": 10, "cutoff": 5.0, "ff_type": "spectral",
                    "direct_forces": True, "charge": -1, "spin": 3, "chg_spin_emb_type": "rand_emb"},
    "L2M2_s2_fine": {"lmax": 2, "mmax": 2, "num_distance_basis": 10, "cutoff": 5.0, "ff_type": "spectral", "act_type": "s2",
                     "grid_resolution": 28},
}  # fmt: skip
"""Backbones of version 2; ``charge`` and ``spin`` are of the system."""
FIRST: dict[str, dict[str, Any]] = {
    "v1_L3M2_bessel": {"lmax": 3, "mmax": 2, "num_distance_basis": 10, "cutoff": 5.0, "distance_function": "bessel",
                       "act_type": "gate", "mlp_type": "spectral", "use_envelope": True},
    "v1_L2M2_gauss_grid": {"lmax": 2, "mmax": 2, "num_distance_basis": 10, "cutoff": 5.0, "act_type": "gate",
                           "mlp_type": "grid", "use_envelope": True},
    "v1_L2M2_no_envelope": {"lmax": 2, "mmax": 2, "num_distance_basis": 10, "cutoff": 5.0, "act_type": "gate",
                            "mlp_type": "spectral", "use_envelope": False},
}  # fmt: skip
"""Backbones of version 1."""
WIDE = {"sphere_channels": 128, "hidden_channels": 128, "edge_channels": 128, "max_num_elements": 100, "cutoff": 6.0}
PUBLISHED_FIRST: dict[str, dict[str, Any]] = {
    name: WIDE | {"num_layers": layers, "lmax": degree, "mmax": 2, "num_distance_basis": basis, "act_type": "gate",
                  "mlp_type": "spectral", "use_envelope": True}
    for name, layers, degree, basis in (
        ("eSEN-3.2M", 2, 2, 10), ("eSEN-6M", 4, 2, 10), ("eSEN-30M-MP", 10, 3, 10), ("eSEN-30M-OAM", 10, 3, 64),
    )
}  # fmt: skip
PUBLISHED_SECOND: dict[str, dict[str, Any]] = {
    "eSEN-sm-omol": WIDE | {"num_layers": 4, "lmax": 2, "mmax": 2, "num_distance_basis": 64, "ff_type": "spectral",
                            "use_dataset_embedding": True, "dataset_list": ["omol"], "charge": 1, "spin": 2},
}  # fmt: skip
"""Sizes of arXiv 2502.12147 and of the networks that were published for OMol25."""
NETWORKS = FIRST | SECOND | PUBLISHED_FIRST | PUBLISHED_SECOND


def systems() -> dict[str, Atoms]:
    """Return SiO2, silicon, ethanol, one aluminium atom with many images, and skewed rock salt, all displaced.

    The SiO2 has quartz's cell and another origin, so it holds 12 atoms and is no quartz; the stored files name it so.
    """
    quartz = crystal(
        ["Si", "O"],
        [(0.4697, 0, 0), (0.4133, 0.2672, 0.1188)],
        spacegroup=152,
        cellpar=[4.913, 4.913, 5.405, 90, 90, 120],
    )
    silicon, salt, aluminium = bulk("Si"), bulk("NaCl", "rocksalt", a=5.64), bulk("Al", cubic=False)
    salt.set_cell(
        salt.cell.array @ (np.eye(3) + np.array([[0, 0.1, 0], [0.05, 0, 0], [0, -0.08, 0.02]])), scale_atoms=True
    )
    found = {
        "quartz": quartz,
        "silicon": silicon,
        "ethanol": molecule("CH3CH2OH"),
        "aluminium": aluminium,
        "salt": salt,
    }
    for atoms in found.values():
        atoms.rattle(0.08, seed=4)
    return found


def scatter_weights(model: torch.nn.Module) -> None:
    """Move norms, biases and small embeddings off their ones, zeros and thousandths, which would hide errors.

    Deep and wide networks are moved less, so that their energies stay of the order of one.
    """
    torch.manual_seed(5)
    width = 0.1 if sum(p.numel() for p in model.parameters()) < 1_000_000 else 0.01
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += width * torch.randn_like(parameter)


def references(settings: dict[str, Any]) -> torch.Tensor:
    """Return reference energies by atomic number [eV]."""
    return torch.linspace(-1.7, -40.3, (SIZES | settings)["max_num_elements"], dtype=torch.float64)


def second_generation(name: str, folder: Path) -> None:
    """Write one checkpoint of version 2 and what fairchem's own loader and tasks make of it."""
    from fairchem.core.datasets.atomic_data import AtomicData, atomicdata_list_to_batch
    from fairchem.core.units.mlip_unit.api.inference import MLIPInferenceCheckpoint
    from fairchem.core.units.mlip_unit.utils import load_inference_model, load_tasks
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    settings = dict(NETWORKS[name])
    charge, spin = settings.pop("charge", 0), settings.pop("spin", 0)
    direct = settings.get("direct_forces", False)
    dataset = "omol" if "omol" in name else "omat"
    core = "fairchem.core.models"
    backbone = {
        "model": f"{core}.uma.escn_md.eSCNMDBackbone", **SIZES, "act_type": "gate", "regress_forces": True,
        "regress_stress": False, "direct_forces": False, "otf_graph": True, "always_use_pbc": False, "max_neighbors": 300,
        "use_dataset_embedding": False, **settings,
    }  # fmt: skip
    energy = f"{core}.uma.escn_md.MLP_EFS_Head"
    heads: dict[str, Any] = {"efs": {"module": energy}}
    if direct:
        heads = {
            "energy": {"module": f"{core}.uma.escn_md.MLP_Energy_Head"},
            "forces": {"module": f"{core}.uma.escn_md.Linear_Force_Head"},
        }
    config = {
        "_target_": f"{core}.base.HydraModel",
        "backbone": backbone,
        "heads": heads,
        "pass_through_head_outputs": True,
    }
    normaliser = {"_target_": "fairchem.core.modules.normalization.normalizer.Normalizer", "mean": 0.0, "rmsd": RMSD}
    task = {"_target_": "fairchem.core.units.mlip_unit.mlip_unit.Task", "datasets": [dataset]}
    out = {"_target_": "fairchem.core.units.mlip_unit.mlip_unit.OutputSpec", "dtype": "float32"}
    table = {
        "_target_": "fairchem.core.modules.normalization.element_references.ElementReferences",
        "element_references": {"_target_": "torch.DoubleTensor", "_args_": [references(settings).tolist()]},
    }
    tasks = [
        task | {"name": "energy", "level": "system", "property": "energy", "out_spec": out | {"dim": [1]},
                "normalizer": normaliser, "element_references": table},
        task | {"name": "forces", "level": "atom", "property": "forces", "out_spec": out | {"dim": [3]},
                "normalizer": normaliser | {"rmsd": 1.1 if direct else RMSD}},
    ]  # fmt: skip
    torch.manual_seed(3)
    model = instantiate(OmegaConf.create(config))
    scatter_weights(model)
    averaged = torch.optim.swa_utils.AveragedModel(model)
    path = folder / f"{name}.pt"
    torch.save(
        MLIPInferenceCheckpoint(OmegaConf.create(config), {}, averaged.state_dict(), OmegaConf.create(tasks)), path
    )
    found: dict[str, Any] = {"charge": charge, "spin": spin, "dataset": dataset}
    loaded = {task.property: task for task in load_tasks(str(path))}
    for precision in (torch.float64, torch.float32):
        model, _ = load_inference_model(str(path), use_ema=True)
        model = model.to(precision).eval()
        for key, atoms in systems().items():
            atoms.info |= {"charge": charge, "spin": spin}
            data = AtomicData.from_ase(atoms, task_name=dataset, r_data_keys=["spin", "charge"])
            batch = atomicdata_list_to_batch([data])
            # from_ase rounds to float32
            batch["pos"] = torch.tensor(atoms.positions, dtype=precision)
            batch["cell"] = torch.tensor(atoms.cell.array, dtype=precision)[None]
            raw = model(batch)
            values = {k: v[k] if isinstance(v, dict) else v for k, v in raw.items() if k in ("energy", "forces")}
            energy_of = loaded["energy"].normalizer.denorm(values["energy"].detach().double())
            energy_of = loaded["energy"].element_references.undo_refs(batch, energy_of)
            forces = loaded["forces"].normalizer.denorm(values["forces"].detach().double())
            store(found, key, atoms, energy_of, forces, precision)
    np.savez_compressed(folder / f"{name}.npz", version=version("fairchem-core"), **found)


def first_generation(name: str, folder: Path) -> None:
    """Write one checkpoint of version 1, as its trainer saves it, and its outputs."""
    sys.modules.setdefault("torch_scatter", types.ModuleType("torch_scatter"))  # imported beside eSEN, not used by it
    for function in ("scatter", "segment_coo", "segment_csr"):
        if not hasattr(sys.modules["torch_scatter"], function):
            setattr(sys.modules["torch_scatter"], function, None)
    from fairchem.core.models.esen.esen import MLP_EFS_Head, eSEN_Backbone

    settings = SIZES | NETWORKS[name] | {"regress_forces": True, "direct_forces": False, "otf_graph": False}
    torch.manual_seed(3)
    backbone = eSEN_Backbone(**settings)
    model = torch.nn.ModuleDict(
        {"backbone": backbone, "output_heads": torch.nn.ModuleDict({"efs": MLP_EFS_Head(backbone)})}
    )
    scatter_weights(model)
    state = {f"module.{key}": value for key, value in model.state_dict().items()}
    config = {
        "model": {"name": "hydra", "backbone": {"model": "esen_backbone", **settings}, "heads": {"efs": {}}},
        "trainer": "mlip_trainer", "cmd": {"path": Path("runs")},
    }  # fmt: skip
    averages = [p.detach().clone() for p in model.parameters()]
    with torch.no_grad():  # the weights of the last step, which a checkpoint has beside the averages
        state = {k: v + 1 if v.is_floating_point() and "Jd" not in k else v for k, v in state.items()}
    normaliser = {"mean": torch.tensor(0.0), "rmsd": torch.tensor(RMSD)}
    checkpoint = {
        "epoch": 1, "step": 10, "state_dict": state, "config": config, "amp": None,
        "normalizers": {"energy": normaliser, "forces": normaliser},
        "elementrefs": {"energy": {"element_references": references(settings)}},
        "ema": {"decay": 0.999, "num_updates": 10, "shadow_params": averages, "collected_params": []},
    }  # fmt: skip
    torch.save(checkpoint, folder / f"{name}.pt")
    rmsd = float(normaliser["rmsd"])
    found: dict[str, Any] = {"charge": 0, "spin": 0, "dataset": ""}
    for precision in (torch.float64, torch.float32):
        model = model.to(precision)
        for key, atoms in systems().items():
            receiver, sender, shifts = neighbor_list("ijS", atoms, settings["cutoff"])
            numbers, batch = torch.tensor(atoms.numbers), torch.zeros(len(atoms), dtype=torch.long)
            data = {
                "pos": torch.tensor(atoms.positions, dtype=precision),
                "cell": torch.tensor(atoms.cell.array, dtype=precision)[None],
                "atomic_numbers": numbers, "atomic_numbers_full": numbers, "batch": batch, "batch_full": batch,
                "natoms": torch.tensor([len(atoms)]), "nedges": torch.tensor([len(sender)]),
                "edge_index": torch.tensor(np.stack([sender, receiver])), "cell_offsets": torch.tensor(shifts, dtype=precision),
            }  # fmt: skip
            raw = model["output_heads"]["efs"](data, model["backbone"](data))
            energy = raw["energy"].detach().double() * rmsd + references(settings)[numbers].sum()
            store(found, key, atoms, energy, raw["forces"].detach().double() * rmsd, precision)
    np.savez_compressed(folder / f"{name}.npz", version=version("fairchem-core"), **found)


def store(
    found: dict[str, Any], key: str, atoms: Atoms, energy: torch.Tensor, forces: torch.Tensor, precision: torch.dtype
) -> None:
    """Add a structure and its outputs."""
    found |= {f"{key}_numbers": atoms.numbers, f"{key}_positions": atoms.positions, f"{key}_cell": atoms.cell.array}
    found[f"{key}_pbc"] = atoms.pbc
    ending = "" if precision == torch.float64 else "_float32"
    found |= {f"{key}_energy{ending}": float(energy), f"{key}_forces{ending}": forces.numpy()}


def main() -> None:
    """Write the checkpoints that the installed version of fairchem-core can make."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("tests") / "data" / "fairchem")
    parser.add_argument("--published", action="store_true", help="networks of the published sizes")
    parser.add_argument("--only", nargs="*", help="names of networks; all by default")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    first = version("fairchem-core").startswith("1.")
    choice = {
        (True, False): FIRST,
        (False, False): SECOND,
        (True, True): PUBLISHED_FIRST,
        (False, True): PUBLISHED_SECOND,
    }
    for name in choice[first, arguments.published]:
        if not arguments.only or name in arguments.only:
            (first_generation if first else second_generation)(name, arguments.output)
            print(name, flush=True)


if __name__ == "__main__":
    main()
