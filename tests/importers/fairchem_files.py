"""Checkpoints of fairchem's kinds, made from the small ones in tests/data/fairchem."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from equistride.importers.fairchem_checkpoint import Checkpoint, Normalisation, read_checkpoint

FOLDER = Path(__file__).resolve().parents[1] / "data" / "fairchem"
ROUTED = {"module": "fairchem.core.models.uma.escn_moe.DatasetSpecificMoEWrapper", "head_cls": "MLP_EFS_Head",
          "head_kwargs": {"wrap_property": False}}  # fmt: skip
EXPERTS = 3


def changed(name: str, **backbone: Any) -> Checkpoint:
    """Return a checkpoint with other arguments of its backbone."""
    checkpoint = read_checkpoint(FOLDER / f"{name}.pt")
    checkpoint.backbone |= backbone
    return checkpoint


def energy_task(**facts: Any) -> dict[str, Any]:
    """Return the configuration of a task for energies."""
    return {"property": "energy", "datasets": ["omat"], "normalizer": {"mean": 0.0, "rmsd": 1.5}} | facts


def written(path: Path, name: str = "L2M2_spectral", *, tasks: list[dict[str, Any]] | None = None,
            state: dict[str, Tensor] | None = None, model: dict[str, Any] | None = None) -> Path:  # fmt: skip
    """Write a checkpoint of plain dictionaries with the weights of another; what is given replaces what was there."""
    original = read_checkpoint(FOLDER / f"{name}.pt")
    content = {
        "model_config": {"backbone": original.backbone, "heads": original.heads} | (model or {}),
        "model_state_dict": original.state if state is None else state,
        "ema_state_dict": None,
        "tasks_config": [energy_task()] if tasks is None else tasks,
    }
    torch.save(content, path)
    return path


def with_experts(**backbone: Any) -> tuple[Checkpoint, Tensor]:
    """Return a UMA-like checkpoint for omat and omol, and what each expert's weights are multiples [E] of."""
    checkpoint = changed("L2M2_omol", model="escnmd_moe_backbone", num_experts=EXPERTS, model_version=1.1, **backbone)
    generator = torch.Generator().manual_seed(7)
    factors = torch.tensor([0.5, 1.5, -0.7], dtype=torch.float64)
    state = checkpoint.state
    for key in [k for k in state if ".so2_conv_" in k and ".rad_func." not in k and k.endswith(".weight")]:
        state[f"{key}s"] = factors[:, None, None].float() * state.pop(key)
    width = checkpoint.backbone["sphere_channels"]
    for layer, (rows, columns) in {
        "0": (2 * EXPERTS, 2 * width),
        "2": (2 * EXPERTS,) * 2,
        "4": (EXPERTS, 2 * EXPERTS),
    }.items():
        state[f"backbone.routing_mlp.{layer}.weight"] = torch.randn(rows, columns, generator=generator)
        state[f"backbone.routing_mlp.{layer}.bias"] = torch.randn(rows, generator=generator)
    rows = checkpoint.backbone["max_num_elements"]
    state["backbone.composition_embedding.weight"] = torch.randn(rows, width, generator=generator)
    checkpoint.datasets["omat"] = Normalisation(rmsd=1.25)
    return checkpoint, factors
