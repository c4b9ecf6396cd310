"""Make tests/data/nequip: small networks of random weights as sevenn and nequip write them, and what these give in float64.

Run in an environment with sevenn 0.13 and nequip 0.19 (``pip install sevenn==0.13.0 nequip==0.19.1``):

    python benchmarks/nequip_golden.py tests/data/nequip

``sevennet-c`` has both parities, self-connections by species and biases; ``sevennet-d`` XPLOR, features of lower degree than the
harmonics, mixed self-connections and a network for the read-out; ``nequip-b`` channels by degree, cutoffs by pair, neighbours,
scales and shifts by type. ``nequip-a`` is trained for two epochs by nequip-train, with averaged weights, trainable roots, both
parities, ZBL and a network for the read-out, on alloys with the effective-medium theory of ASE; its checkpoint and its package
are cut down to what an import reads: without optimiser, loops, paths and source. 3j symbols are exact, weights are float32's.
"""

from __future__ import annotations

import copy
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT
from ase.io import write
from e3nn.o3 import wigner_3j

COMMON: dict[str, Any] = {"use_modality": False, "_model_type": "E3_equivariant_model"}
SEVENNET: dict[str, dict[str, Any]] = {
    "c": {
        "cutoff": 4.0, "channel": 6, "lmax": 2, "num_convolution_layer": 3, "is_parity": True,
        "radial_basis": {"radial_basis_name": "bessel", "bessel_basis_num": 6},
        "cutoff_function": {"cutoff_function_name": "poly_cut", "poly_cut_p_value": 5}, "weight_nn_hidden_neurons": [12],
        "self_connection_type": "nequip", "use_bias_in_linear": True, "conv_denominator": [3.0, 4.0, 5.0], "scale": 4.0,
        "shift": np.random.default_rng(0).normal(-3, 1, 8).round(3).tolist(),
    },
    "d": {
        "cutoff": 4.5, "channel": 8, "lmax": 2, "lmax_edge": 2, "lmax_node": 1, "num_convolution_layer": 3, "is_parity": False,
        "radial_basis": {"radial_basis_name": "bessel", "bessel_basis_num": 8}, "weight_nn_hidden_neurons": [16, 16],
        "cutoff_function": {"cutoff_function_name": "XPLOR", "cutoff_on": 4.0}, "conv_denominator": [2.0, 2.5, 3.0],
        "self_connection_type": ["linear", "nequip", "linear"], "shift": -3.5, "scale": 3.0, "readout_as_fcn": True,
        "readout_fcn_hidden_neurons": [10, 6], "readout_fcn_activation": "silu",
    },
}  # fmt: skip
NEQUIP: dict[str, Any] = {
    "seed": 3, "model_dtype": "float32", "type_names": ["Al", "Au", "Cu"], "r_max": 4.5, "num_bessels": 6,
    "per_edge_type_cutoff": {"Al": 4.0, "Cu": {"Al": 3.5, "Au": 4.2}}, "bessel_trainable": False, "polynomial_cutoff_p": 5,
    "num_layers": 3, "l_max": 2, "parity": False, "num_features": [10, 6, 4], "type_embed_num_features": 5,
    "radial_mlp_depth": 1, "radial_mlp_width": 12, "avg_num_neighbors": {"Al": 11.5, "Au": 17.0, "Cu": 14.0},
    "per_type_energy_scales": {"Al": 31.0, "Au": 22.0, "Cu": 26.0},
    "per_type_energy_shifts": {"Al": -3.0, "Au": -2.5, "Cu": -3.3},
}  # fmt: skip


TYPES = ["Al", "Au", "Cu"]
TRAINED: dict[str, Any] = {
    "seed": 7, "model_dtype": "float32", "type_names": TYPES, "r_max": 4.0, "num_bessels": 8, "bessel_trainable": True,
    "polynomial_cutoff_p": 6, "num_layers": 3, "l_max": 2, "parity": True, "num_features": 6, "radial_mlp_depth": 2,
    "radial_mlp_width": 10, "readout_mlp_hidden_layers_depth": 1, "readout_mlp_hidden_layers_width": 8,
    "avg_num_neighbors": "${training_data_stats:num_neighbors_mean}",
    "per_type_energy_scales": "${training_data_stats:forces_rms}",
    "per_type_energy_shifts": "${training_data_stats:per_atom_energy_mean}",
    "pair_potential": {"_target_": "nequip.nn.pair_potential.ZBL", "units": "metal", "chemical_species": TYPES},
}  # fmt: skip
RUN: dict[str, Any] = {
    "run": ["train"],
    "data": {
        "_target_": "nequip.data.datamodule.ASEDataModule", "seed": 1,
        "split_dataset": {"file_path": "train.xyz", "train": 8, "val": 2, "test": 2},
        "transforms": [
            {"_target_": "nequip.data.transforms.ChemicalSpeciesToAtomTypeMapper", "model_type_names": TYPES},
            {"_target_": "nequip.data.transforms.NeighborListTransform", "r_max": TRAINED["r_max"]},
        ],
        "train_dataloader": {"_target_": "torch.utils.data.DataLoader", "batch_size": 4},
        "val_dataloader": {"_target_": "torch.utils.data.DataLoader", "batch_size": 2},
        "stats_manager": {"_target_": "nequip.data.CommonDataStatisticsManager", "type_names": TYPES},
    },
    "trainer": {
        "_target_": "lightning.Trainer", "accelerator": "cpu", "max_epochs": 2, "enable_progress_bar": False, "logger": False,
        "callbacks": [
            {"_target_": "lightning.pytorch.callbacks.ModelCheckpoint", "dirpath": "${hydra:runtime.output_dir}",
             "save_last": True},
        ],
    },
    "training_module": {
        "_target_": "nequip.train.EMALightningModule", "ema_decay": 0.9,
        "loss": {"_target_": "nequip.train.EnergyForceLoss", "coeffs": {"total_energy": 1.0, "forces": 1.0}},
        "val_metrics": {"_target_": "nequip.train.EnergyForceMetrics", "coeffs": {"total_energy_mae": 1.0}},
        "optimizer": {"_target_": "torch.optim.Adam", "lr": 0.01},
        "model": {"_target_": "nequip.model.NequIPGNNModel", **TRAINED},
    },
    "global_options": {"allow_tf32": False},
}  # fmt: skip


def shaken(atoms: Atoms, sigma: float, seed: int) -> Atoms:
    """Displace atoms at random [A]."""
    atoms.positions += np.random.default_rng(seed).normal(0, sigma, atoms.positions.shape)
    return atoms


def exact_symbols(model: torch.nn.Module) -> None:
    """Replace rounded 3j symbols."""
    for name, buffer in model.named_buffers():
        if "_w3j_" in name:
            buffer.copy_(wigner_3j(*map(int, name.split("_w3j_")[1].split("_")), dtype=torch.float64))


def stored(out: dict[str, Any], name: str, atoms: Atoms, energies: Any, forces: Any, virial: Any) -> None:
    """Add a structure and its outputs."""
    values = {"numbers": atoms.numbers, "positions": atoms.positions, "cell": atoms.cell.array, "pbc": atoms.pbc}
    values |= {"energies": energies, "forces": forces, "virial": virial}
    out |= {f"{name}/{key}": np.asarray(value) for key, value in values.items()}


def sevennet(folder: Path, name: str) -> None:
    """Write a SevenNet and its outputs."""
    import sevenn._const
    import sevenn._keys as keys
    import sevenn.util as util
    from sevenn.atom_graph_data import AtomGraphData
    from sevenn.model_build import build_E3_equivariant_model
    from sevenn.nn.node_embedding import OnehotEmbedding
    from sevenn.train.dataload import unlabeled_atoms_to_graph

    torch.set_default_dtype(torch.float32)
    config = copy.deepcopy(sevenn._const.DEFAULT_E3_EQUIVARIANT_MODEL_CONFIG) | COMMON | SEVENNET[name]
    config |= util.chemical_species_preprocess(["H", "C", "O", "Na", "Cl", "Cu", "Si", "Mg"]) | {
        "version": sevenn.__version__
    }
    torch.manual_seed(1)
    model = build_E3_equivariant_model(config)
    for key, parameter in model.named_parameters():
        if key.endswith(".bias") and parameter.numel():
            torch.nn.init.normal_(parameter.data, std=0.3)
    content = {"model_state_dict": model.state_dict(), "config": config, "epoch": 1}
    torch.save(content, folder / f"sevennet-{name}.pth")
    plain = OnehotEmbedding.forward

    def double(self: Any, data: Any) -> Any:  # upstream's is float32 whatever the model
        data = plain(self, data)
        for key in filter(None, (self.key_output, self.key_additional_output)):
            data[key] = data[key].double()
        return data

    OnehotEmbedding.forward = double
    model = model.double()
    torch.set_default_dtype(torch.float64)
    exact_symbols(model)
    model.set_is_batch_data(False)
    structures = {
        "copper": shaken(bulk("Cu", "fcc", 3.61, cubic=True), 0.08, 2), "water": shaken(molecule("H2O"), 0.05, 4),
        "nacl": shaken(bulk("NaCl", "rocksalt", 5.64, cubic=True), 0.1, 3),
        "ethanol": shaken(molecule("CH3CH2OH"), 0.05, 5),
    }  # fmt: skip
    out: dict[str, Any] = {}
    for label, atoms in structures.items():
        graph = unlabeled_atoms_to_graph(atoms, config[keys.CUTOFF], with_shift=True)
        data = {
            k: torch.tensor(np.asarray(v, float)) if k == keys.CELL_SHIFT else util.dtype_correct(v, torch.float64)
            for k, v in graph.items() if k != keys.INFO
        }  # fmt: skip
        found = model(AtomGraphData(**data))
        stress = found[keys.PRED_STRESS].detach().numpy().ravel() * max(float(atoms.cell.volume), 1e-3)
        xx, yy, zz, xy, yz, zx = stress
        virial = [[xx, xy, zx], [xy, yy, yz], [zx, yz, zz]]
        energies = found[keys.ATOMIC_ENERGY].detach().numpy().ravel()
        stored(out, label, atoms, energies, found[keys.PRED_FORCE].detach().numpy(), virial)
    np.savez_compressed(folder / f"sevennet-{name}.npz", **out)
    OnehotEmbedding.forward = plain


def evaluated(model: torch.nn.Module, path: Path, r_max: float, structures: dict[str, Atoms]) -> None:
    """Write the outputs of a NequIP model in float64, its 3j symbols exact."""
    from nequip.data import compute_neighborlist_, from_dict

    exact_symbols(model)
    out: dict[str, Any] = {}
    for label, atoms in structures.items():
        types = torch.tensor([TYPES.index(s) for s in atoms.get_chemical_symbols()])
        data = {"pos": torch.tensor(atoms.positions), "atom_types": types, "pbc": torch.tensor(atoms.pbc)}
        if atoms.pbc.any():
            data["cell"] = torch.tensor(atoms.cell.array)
        found = model(compute_neighborlist_(from_dict(data), r_max))
        virial = found["virial"].detach().numpy().reshape(3, 3) if atoms.pbc.any() else np.full((3, 3), np.nan)
        energies = found["atomic_energy"].detach().numpy().ravel()
        stored(out, label, atoms, energies, found["forces"].detach().numpy(), virial)
    np.savez_compressed(path, **out)


def metals() -> dict[str, Atoms]:
    """Return an alloy and a cluster without a box."""
    alloy = bulk("Cu", "fcc", 3.8, cubic=True)
    alloy.symbols[0], alloy.symbols[2] = "Au", "Al"
    cluster = Atoms("AuCuAlCu", [[0, 0, 0], [2.4, 0.1, 0], [1.1, 2.2, 0.3], [0.9, 0.7, 2.3]])
    return {"alloy": shaken(alloy, 0.1, 1), "cluster": shaken(cluster, 0.05, 4)}


def nequip(folder: Path) -> None:
    """Write a NequIP network, as a checkpoint of nequip-train, and its outputs."""
    from nequip.model import NequIPGNNModel
    from nequip.utils.global_state import set_global_state

    set_global_state()
    state = NequIPGNNModel(**NEQUIP).state_dict()
    hyper = {
        "model": {"_target_": "nequip.model.NequIPGNNModel", **NEQUIP},
        "info_dict": {"versions": {"nequip": "0.19.1"}},
    }
    weights = {f"model.sole_model.{key}": value for key, value in state.items()}
    torch.save({"state_dict": weights, "hyper_parameters": hyper}, folder / "nequip-b.ckpt")
    model = NequIPGNNModel(**(NEQUIP | {"model_dtype": "float64"}))
    model.load_state_dict(state)
    evaluated(model, folder / "nequip-b.npz", NEQUIP["r_max"], metals())


def trained(folder: Path) -> None:
    """Train a NequIP by its own program, package it, and write both files and the outputs of its averaged weights."""
    from nequip.model import ModelFromCheckpoint, NequIPGNNModel
    from nequip.utils.global_state import set_global_state

    frames = []
    for k in range(12):
        atoms = bulk("Cu", "fcc", 3.8, cubic=True)
        atoms.symbols[k % 4], atoms.symbols[(k + 1 + k // 4) % 4] = "Au", "Al"
        frames.append(shaken(atoms, 0.12, 100 + k))
        atoms.calc = EMT()
        atoms.get_forces()
    programs = Path(sys.executable).parent
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        write(work / "train.xyz", frames)
        (work / "run.yaml").write_text(yaml.safe_dump(RUN, sort_keys=False))
        train = [programs / "nequip-train", "-cp", work, "-cn", "run", f"hydra.run.dir={work / 'out'}"]
        subprocess.run(train, cwd=work, check=True)
        checkpoint, package = work / "out" / "last.ckpt", work / "model.nequip.zip"
        subprocess.run([programs / "nequip-package", "build", checkpoint, package], cwd=work, check=True)
        cut_down(checkpoint, package, folder)
        set_global_state()
        hyper = torch.load(checkpoint, weights_only=True)["hyper_parameters"]["model"]
        state = ModelFromCheckpoint(str(checkpoint))["sole_model"].state_dict()
    arguments = {key: value for key, value in hyper.items() if key != "_target_"} | {"model_dtype": "float64"}
    model = NequIPGNNModel(**arguments)
    model.load_state_dict(state)
    rows = shaken(bulk("Al", "fcc", 4.05, cubic=True).repeat((2, 1, 1)), 0.1, 2)
    rows.symbols[3] = "Cu"
    slab = shaken(fcc111("Au", (2, 2, 2), vacuum=6.0), 0.08, 3)
    slab.symbols[5], slab.pbc = "Al", (True, True, False)
    structures = {**metals(), "al8": rows, "slab": slab}
    evaluated(model, folder / "nequip-a.npz", TRAINED["r_max"], structures)


def cut_down(checkpoint: Path, package: Path, folder: Path) -> None:
    """Write what an import reads of a Lightning checkpoint and of its package."""
    content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    hyper = content["hyper_parameters"]
    info = {key: hyper["info_dict"][key] for key in ("data", "versions")}
    state = {key: value for key, value in content["state_dict"].items() if isinstance(value, torch.Tensor)}
    torch.save(
        {"state_dict": state, "hyper_parameters": {"model": hyper["model"], "info_dict": info}},
        folder / "nequip-a.ckpt",
    )
    kept = ("/model/eager_model.pkl", "/model/package_metadata.txt", ".storage", "/byteorder", "/version")
    with (
        zipfile.ZipFile(package) as old,
        zipfile.ZipFile(folder / "nequip-a.nequip.zip", "w", zipfile.ZIP_STORED) as new,
    ):
        for name in old.namelist():
            if name.endswith(kept):
                new.writestr(name, old.read(name))
            elif name.endswith("/model/config.yaml"):
                lines = old.read(name).decode().splitlines()
                new.writestr(name, "\n".join(line for line in lines if "dirpath" not in line))


if __name__ == "__main__":
    target = Path(sys.argv[1])
    for each in SEVENNET:
        sevennet(target, each)
    nequip(target)
    trained(target)
