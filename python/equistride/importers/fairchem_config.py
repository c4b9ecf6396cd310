"""What the configuration of a fairchem checkpoint means: every key is used, known to be without effect, or refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from equistride.errors import EquistrideError, not_valid
from equistride.models.esen import ESENConfig

SIZES = {
    "cutoff": "cutoff",
    "num_layers": "num_layers",
    "lmax": "l_max",
    "mmax": "m_max",
    "sphere_channels": "channels",
    "hidden_channels": "hidden_channels",
    "edge_channels": "edge_channels",
    "num_distance_basis": "num_basis",
}
"""Keys of fairchem's backbone and ours."""
DEFAULTS = {"sphere_channels": 128, "hidden_channels": 128, "edge_channels": 128, "num_distance_basis": 512, "lmax": 2,
            "mmax": 2, "num_layers": 2, "cutoff": 5.0}  # fmt: skip
"""What fairchem takes where a configuration is silent; so in both generations."""
CHARGE_SPIN = {"pos_emb": "positional", "lin_emb": "linear", "rand_emb": "table"}
BACKBONES = {
    1: {"esen_backbone": "esen", "eSEN_Backbone": "esen", "esen_backbone_dens": "esen"},
    2: {"escnmd_backbone": "esen", "eSCNMDBackbone": "esen",
        "escnmd_moe_backbone": "experts", "eSCNMDMoeBackbone": "experts"},
}  # fmt: skip
"""Backbones that are eSEN networks, by their registered names and by their classes."""

USED = {
    *SIZES, "model", "max_num_elements", "grid_resolution", "distance_function", "norm_type", "act_type", "ff_type",
    "mlp_type", "use_envelope", "max_neighbors", "direct_forces", "direct_stress", "chg_spin_emb_type",
    "use_dataset_embedding", "dataset_list", "dataset_mapping", "charge_balanced_channels", "spin_balanced_channels",
    "num_experts", "use_composition_embedding", "moe_expert_coefficient_norm", "model_version",
}  # fmt: skip
"""Keys of the backbone that the import reads, or checks against the weights."""
TRAINING, RUNNING = "of training alone", "how it runs: the same numbers, faster or in less memory"
EDGES, OUTPUTS = (
    "how edges are made: the same edges",
    "which outputs fairchem gives: forces and virial are always there",
)
MERGED = "which layers have experts: the weights say it themselves"
WITHOUT_EFFECT = {
    "num_sphere_samples": "fairchem does not read it",
    "use_global_embedding": "fairchem does not read it",
    **dict.fromkeys(("use_pbc", "use_pbc_single"), "fairchem does not read it: a system says where it is periodic"),
    "always_use_pbc": "fairchem turns it off to predict: a system says where it is periodic",
    **dict.fromkeys(("otf_graph", "radius_pbc_version"), EDGES),
    **dict.fromkeys(("regress_forces", "regress_stress", "regress_hessian", "hessian_vmap"), OUTPUTS),
    **dict.fromkeys(("cs_emb_grad", "dataset_emb_grad", "moe_dropout", "composition_dropout"), TRAINING),
    **dict.fromkeys(("layers_moe", "moe_single", "moe_type", "moe_layer_type"), MERGED),
    **dict.fromkeys(
        ("activation_checkpointing", "edge_chunk_size", "execution_mode", "use_cuda_graph_wigner", "use_cueq_rot",
         "triton_backward_impl", "moe_use_grouped_gemm", "use_all_to_all_gp", "gp_partition_strategy",
         "gp_index_exchange_method", "use_overlap_gp", "use_p2p_gp", "cache_gp_context"),
        RUNNING,
    ),
    "use_quaternion_wigner": "how bond frames roll about their bonds: a gated network does not see it",
}  # fmt: skip
"""Keys of the backbone that change no number, and why."""
MODEL_USED = {"backbone", "heads", "model_id"}
MODEL_WITHOUT_EFFECT = {
    **dict.fromkeys(("_target_", "name"), "the class around backbone and heads"),
    "pass_through_head_outputs": "names of outputs",
    "supports_single_atoms": "whether fairchem replaces the energy of a lone atom by a table's",
    "otf_graph": EDGES,
    "freeze_backbone": TRAINING,
    "finetune_config": "where training began: backbone, heads and weights are in the file",
}
"""Keys beside the backbone that change no number, and why."""

SLACK = 0.01
"""A^2: fairchem's tolerance of a neighbour cap, on squared distances."""
DENSEST = 0.2
"""Atoms in a cubic angstrom: no solid at ambient pressure has as many (diamond 0.176)."""


def need(fine: bool, what: str, **facts: object) -> None:
    """Refuse with a sentence unless all is fine."""
    if not fine:
        raise EquistrideError(what, **facts)  # type: ignore[arg-type]


def check_keys(section: Mapping[str, Any], known: set[str], where: str) -> None:
    """Refuse a configuration with a key of unknown meaning: it might change every number."""
    unknown = sorted(set(section) - known)
    need(
        not unknown, f"the checkpoint's configuration has a key whose meaning is not known, {where}.{', '.join(unknown)}",
        hint="give a checkpoint of a fairchem-core between 1.4 and 2.24, or report the key",
    )  # fmt: skip


def check_interpolations(value: Any, where: str) -> None:
    """Refuse values that stand elsewhere, as ``${a.b}``, or nowhere, as ``???``."""
    if isinstance(value, Mapping | list):
        for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
            check_interpolations(item, f"{where}.{key}")
    need(
        not isinstance(value, str) or ("${" not in value and value != "???"),
        f"the checkpoint's configuration does not hold the value of {where} but refers to it", expected="a value",
        found=value, hint="resolve the configuration with OmegaConf.resolve, and save the checkpoint again",
    )  # fmt: skip


def kind_of(backbone: Mapping[str, Any], generation: int) -> str:
    """Return ``"esen"``, or ``"experts"`` for the class of UMA's backbones; refuse other architectures by their name."""
    name = str(backbone.get("model", "esen_backbone" if generation == 1 else "escnmd_backbone"))
    found = BACKBONES[generation].get(name.rsplit(".", 1)[-1])
    need(
        found is not None, "the checkpoint is of another architecture", expected="eSEN or UMA", found=name,
        hint="run it with fairchem itself",
    )  # fmt: skip
    return str(found)


def _balanced(backbone: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Return first and last of the channels whose sum over all atoms is the total charge, or the spin."""
    ranges = {}
    for name in ("charge", "spin"):
        channels = sorted(backbone.get(f"{name}_balanced_channels") or [])
        if channels:
            first, last = channels[0], channels[-1]
            need(
                channels == list(range(first, last + 1)), f"the {name}-balanced channels have gaps",
                expected="one range", found=channels,
            )  # fmt: skip
            ranges[f"{name}_channels"] = (int(first), int(last))
    need(
        "spin_channels" not in ranges or backbone.get("chg_spin_emb_type", "pos_emb") != "lin_emb",
        "fairchem overwrites a spin that is not given before it balances channels", expected="no lin_emb",
        found="lin_emb with spin_balanced_channels",
    )  # fmt: skip
    return ranges


def cap_of(backbone: Mapping[str, Any]) -> tuple[int | None, str]:
    """Return the neighbour cap where it bites in a solid, and what to say where it does not."""
    cap, cutoff = backbone.get("max_neighbors", 300), float(backbone.get("cutoff", DEFAULTS["cutoff"]))
    if not isinstance(cap, int | float) or cap <= 0:
        return None, ""
    volume = 4 / 3 * math.pi * cutoff**3
    if cap < DENSEST * volume:
        return int(cap), ""
    return None, (
        f"fairchem sums over the nearest {int(cap)} neighbours, this file over all: the same up to {cap / volume:.2f} "
        "atoms/A^3, denser than any solid at ambient pressure"
    )


def config_of(backbone: Mapping[str, Any], generation: int = 2) -> ESENConfig:
    """Return our configuration of a fairchem backbone: its keyword arguments, of generation 1 or 2.

    Raises
    ------
    EquistrideError
        For keys of unknown meaning, other architectures, and what eSEN's published networks have not.
    """
    kind_of(backbone, generation)
    check_keys(backbone, USED | set(WITHOUT_EFFECT), "backbone")
    known = {
        1: {"act_type": "s2", "ff": "grid", "envelope": False},
        2: {"act_type": "gate", "ff": "grid", "envelope": True},
    }
    default = known[generation]
    forward = backbone.get("mlp_type" if generation == 1 else "ff_type", default["ff"])
    norm, basis = backbone.get("norm_type", "rms_norm_sh"), backbone.get("distance_function", "gaussian")
    need(norm == "rms_norm_sh", "the checkpoint has a norm that eSEN has not", expected="rms_norm_sh", found=norm)
    cap, _ = cap_of(backbone)
    settings = {ours: backbone.get(theirs, DEFAULTS[theirs]) for theirs, ours in SIZES.items()} | {
        "basis": basis,
        "mirror": False,
        "activation": backbone.get("act_type", default["act_type"]),
        "feed_forward": forward,
        "s2_resolution": backbone.get("grid_resolution"),
        "forces": "direct" if backbone.get("direct_forces", True) else "gradient",
        "max_neighbors": cap,
        "neighbor_slack": SLACK if cap else None,
        "envelope": "polynomial" if backbone.get("use_envelope", default["envelope"]) else "off",
        "constants": "float32",
        **_balanced(backbone),
    }
    if settings["activation"] == "gate" and forward == "spectral":
        settings["s2_resolution"] = None
    if generation == 2:
        kind = backbone.get("chg_spin_emb_type", "pos_emb")
        need(
            kind in CHARGE_SPIN,
            "the embedding of charge and spin is not known",
            expected=", ".join(CHARGE_SPIN),
            found=kind,
        )
        settings["charge_spin"] = CHARGE_SPIN[kind]
    try:
        return ESENConfig.model_validate(settings)
    except ValidationError as error:
        raise not_valid("the checkpoint's backbone is not that of an eSEN", error) from None
