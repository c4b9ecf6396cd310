"""The student's training configuration: sizes by the system, lengths by the plan, and whatever the user sets over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from ase import Atoms

from equistride.distillation.settings import Settings
from equistride.errors import EquistrideError
from equistride.graph import neighbor_list
from equistride.training.config import AnyConfig, load_config
from equistride.writing import write

CUTOFFS = (3.5, 4.0, 4.5, 5.0, 5.5, 6.0)
NEIGHBOURS, NEIGHBOURS_OF_A_LIQUID = 12, 60
"""The first cutoff with so many neighbours on average is chosen, of a small system the one that holds all. In a liquid molecules
come in all arrangements, and what is not seen is not averaged out by symmetry: water's errors at 3.5 A are twice as large."""
ATOMS_A_BATCH = 144
"""Atoms of a step of the training: two frames of the crystals that were tried, or several of a molecule."""


@dataclass(frozen=True)
class Part:
    """A part of the training.

    Attributes
    ----------
    share
        Of all steps.
    rollouts
        From which share of the part on so many strides in a row are learnt.
    learning_rate
        Its peak.
    apart
        Strides between those states of the student so far from which the teacher goes on before this part; 0: it does not.
    """

    share: float
    rollouts: tuple[tuple[float, int], ...]
    learning_rate: float
    apart: int = 0

    @property
    def depth(self) -> float:
        """Strides of a step on average."""
        ends = [*(first for first, _ in self.rollouts[1:]), 1.0]
        return sum((end - first) * rollout for (first, rollout), end in zip(self.rollouts, ends, strict=True))


PARTS = (
    Part(0.5, ((0.0, 1), (0.85, 2)), 1e-1),
    Part(0.25, ((0.0, 1), (0.4, 2), (0.75, 4)), 4e-2, apart=4),
    Part(0.25, ((0.0, 1), (0.3, 2), (0.6, 4)), 2.5e-2, apart=12),
)
"""Of a propagator: the walks alone, and then with corrections of what it made of them, of longer runs the second time."""
DEPTH = sum(part.share * part.depth for part in PARTS)
"""Strides of a step of the whole training on average."""
BOND_WEIGHTS = 1e-5
"""Of a propagator's ``loss.bond_weights``: quartz's weights of bonds grew a hundredfold at lengths that its data lack."""
ITS_OWN = {
    "data.files": "leave it out: it makes its data itself", "data.test_files": "leave it out: it makes its data itself",
    "data.stride_fs": "give --stride", "trainer.steps": "give --steps, of all parts together",
}  # fmt: skip
"""What a distillation says in the configuration of each part, and what to do to have it otherwise."""
VALIDATIONS = 5
"""How often a training is validated."""


def folder_of(part: int) -> str:
    """Return the name of the folder of a part's run."""
    return f"training-{part + 1}" if part else "training"


def cutoff_for(atoms: Atoms, liquid: bool = False) -> float:
    """Return a cutoff [A] for the student."""
    wanted = NEIGHBOURS_OF_A_LIQUID if liquid else NEIGHBOURS
    positions, cell = (
        torch.as_tensor(atoms.positions),
        torch.as_tensor(np.where(atoms.pbc[:, None], atoms.cell.array, 0.0)),
    )
    for cutoff in CUTOFFS:
        edges, _ = neighbor_list(positions, cell, torch.as_tensor(np.array(atoms.pbc)), cutoff)
        if edges.size(1) >= min(wanted, len(atoms) - 1 if not atoms.pbc.any() else wanted) * len(atoms):
            return cutoff
    return CUTOFFS[-1]


def _sizes(student: str, cutoff: float) -> dict[str, Any]:
    if student == "trajcast":
        return {
            "architecture": "trajcast", "cutoff": cutoff, "num_layers": 3, "l_max": 2, "channels": 32,
            "radial_widths": [32, 32, 16], "speed_widths": [32, 32, 32],
        }  # fmt: skip
    if student == "esen":
        return {
            "architecture": "esen", "cutoff": cutoff, "num_layers": 2, "l_max": 2, "m_max": 2, "channels": 16,
            "hidden_channels": 32, "edge_channels": 32, "num_basis": 10,
        }  # fmt: skip
    return {"architecture": "nequip", "cutoff": cutoff, "num_layers": 2, "l_max": 2, "channels": 16}


def configuration(
    name: str, atoms: Atoms, settings: Settings, stride_fs: float, steps: int, checkpoint_every: int, virials: bool,
    part: int = 0, files: Sequence[str] = ("data/train.npz",), *, liquid: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Return the sections of a configuration of ``equistride train``.

    Parameters
    ----------
    name, atoms, settings, stride_fs
        Of the distillation.
    steps, checkpoint_every
        Of the training, of a propagator of this part of it.
    virials
        Whether the data have them.
    part, files
        Which part of the training, and its data, beside the configuration; each part begins where the one before ended.
    liquid
        Whether the atoms leave their places.
    """
    batch = int(np.clip(ATOMS_A_BATCH // len(atoms), 1, 16))
    tree: dict[str, Any] = {
        "name": name,
        "model": _sizes(settings.student, settings.cutoff or cutoff_for(atoms, liquid)),
        "data": {
            "files": list(files), "test_files": ["data/test.npz"], "validation_fraction": 0.05,
            "batch_size": batch,
        },
        "optimiser": {
            "weight_decay": 0.0, "warmup_steps": min(50, steps // 10), "beta2": 0.99,
            "ema_decay": round(max(0.5, min(0.995, 1 - 20 / steps)), 4), "clip_norm": 1.0, "final_fraction": 0.005,
        },
        "trainer": {
            "steps": steps, "validate_every": max(1, steps // VALIDATIONS), "checkpoint_every": checkpoint_every,
            "seed": settings.seed,
        },
    }  # fmt: skip
    if settings.strides_through:
        stages = {round(share * steps): rollout for share, rollout in PARTS[part].rollouts}
        tree["optimiser"] |= {"method": "soap", "learning_rate": PARTS[part].learning_rate}
        if part:
            tree["initialise_from"] = f"{folder_of(part - 1)}/checkpoints/last.ckpt"
        tree["data"]["stride_fs"] = stride_fs
        tree["loss"] = {"by_element": len(set(atoms.numbers)) > 1, "bond_weights": BOND_WEIGHTS}
        tree["curriculum"] = [{"from_step": first, "rollout": rollout} for first, rollout in stages.items()]
        return tree
    tree["loss"] = {"energy": 2.0, "force": 10.0, "virial": 1.0 if virials else 0.0}
    tree["optimiser"] |= {
        "learning_rate": 2e-3 if settings.student == "esen" else 5e-3,
        "weight_decay": 1e-3,
        "clip_norm": 10.0,
    }
    return tree


def written(tree: dict[str, Any], path: Path, overrides: list[str]) -> AnyConfig:
    """Write a configuration, read it as ``equistride train`` does, and write it again with what the user set over it.

    Raises
    ------
    EquistrideError
        Where what the user set does not fit, or is the distillation's own.
    """
    for key in (text.partition("=")[0] for text in overrides):
        if taken := [own for own in ITS_OWN if key in (own, own.partition(".")[0])]:
            raise EquistrideError(f"a distillation sets {taken[0]} itself", found=key, hint=ITS_OWN[taken[0]])
    write(path, yaml.safe_dump(tree, sort_keys=False))
    config = load_config(path, overrides)
    given = {name: _plain(config.model_dump(mode="json", exclude_unset=True)[name]) for name in config.model_fields_set}
    write(
        path, yaml.safe_dump({name: given[name] for name in [*tree, *sorted(set(given) - set(tree))]}, sort_keys=False)
    )
    return config


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
