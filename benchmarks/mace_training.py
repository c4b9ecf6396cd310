"""Small MACE potentials of water and of ethanol, trained by mace-torch itself on real frames in minutes.

    PYTHON benchmarks/mace_training.py water water64_qtip4pf_300K.npz FOLDER
    PYTHON benchmarks/mace_training.py ethanol ethanol_train1000.npz FOLDER

where PYTHON has mace-torch 0.3.16 (``TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1`` where its e3nn is old). The data are frames of 64
molecules of q-TIP4P/F water at 300 K, and revised MD17 (DFT at 500 K; Christensen and von Lilienfeld, arXiv 2007.09593).
Writes ``NAME.model`` as ``mace_run_train`` leaves it; ``benchmarks/mace_dynamics.py`` goes on with it.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import write

FRAMES = {"water": 66, "ethanol": 250}
SETTINGS = {
    "water": {"r_max": 4.5, "hidden_irreps": "16x0e", "batch_size": 1, "max_num_epochs": 8},
    "ethanol": {"r_max": 4.0, "hidden_irreps": "16x0e+16x1o", "batch_size": 5, "max_num_epochs": 30},
}
COMMON = {
    "model": "ScaleShiftMACE", "E0s": "average", "num_radial_basis": 6, "max_ell": 2, "correlation": 2,
    "radial_MLP": "[16, 16]", "MLP_irreps": "8x0e", "valid_fraction": 0.1, "lr": 0.01, "forces_weight": 100,
    "energy_weight": 1, "energy_key": "REF_energy", "forces_key": "REF_forces", "default_dtype": "float32", "device": "cpu",
    "eval_interval": 2, "seed": 1, "num_workers": 0,
}  # fmt: skip


def main() -> None:
    """Write the frames, train, and keep the model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=list(FRAMES))
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    with np.load(options.data) as data:
        numbers = data["numbers"] if "numbers" in data else data["z"]
        every = len(data["energy"]) // FRAMES[options.name]
        frames = []
        for k in range(0, every * FRAMES[options.name], every):
            atoms = Atoms(numbers, data["positions"][k])
            if "cell" in data:
                atoms.set_cell(data["cell"])
                atoms.pbc = True
            atoms.info["REF_energy"] = float(data["energy"][k])
            atoms.arrays["REF_forces"] = data["forces"][k]
            frames.append(atoms)
    train = options.folder / f"{options.name}.extxyz"
    write(train, frames)
    from mace.cli.run_train import main as train_mace

    chosen = COMMON | SETTINGS[options.name] | {
        "name": options.name, "train_file": train, "work_dir": options.folder / options.name,
    }  # fmt: skip
    sys.argv = ["mace_run_train", *(f"--{key}={value}" for key, value in chosen.items()), "--ema"]
    train_mace()
    shutil.copy(options.folder / options.name / f"{options.name}.model", options.folder / f"{options.name}.model")


if __name__ == "__main__":
    main()
