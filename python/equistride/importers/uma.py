"""UMA: networks whose edge weights are a mixture of experts, merged for one composition, charge, spin and dataset.

With its experts merged a UMA network is an eSEN network. The mixture follows from the composition and the embedding of charge,
spin and dataset (arXiv 2506.23971); it is computed and applied in double precision.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from ase.data import atomic_numbers
from torch import Tensor
from torch.nn.functional import linear, silu

from equistride.importers.fairchem_checkpoint import Checkpoint
from equistride.importers.fairchem_config import need
from equistride.importers.fairchem_heads import mapping_of

FLOOR = 0.005
"""Added to each expert's share, so that shares sum to 1 + 0.005 E."""
COUNTS_ITSELF = "UMA-S-1.2"
"""The version that divides the composition's sum by N + 1, so that its energies depend on the size of a system."""
DATASETS = {"omol", "omat", "oc20", "odac", "omc", "oc22", "oc25"}
"""What UMA was trained on; no eSEN network of one set of weights was trained on several of them."""
STRUCTURE = "name the system with --structure FILE (and --dataset, --charge, --spin)"


def has_experts(checkpoint: Checkpoint) -> bool:
    """Whether the network's experts must be merged; refuses versions whose mixture is not known.

    Raises
    ------
    EquistrideError
        For UMA 1.0, other normalisations of the mixture, and configurations that do not fit the weights.
    """
    backbone, state = checkpoint.backbone, checkpoint.state
    routed = any(_is_mixed(key, value) for key, value in state.items())
    experts = int(backbone.get("num_experts", 8 if "Moe" in str(backbone.get("model")) else 0) or 0)
    need(
        not experts or routed, "the experts of the UMA model have been merged, for a composition that the file does not say",
        expected=f"{experts} experts", found="one set of weights", hint="give the checkpoint as it was released",
    )  # fmt: skip
    need(
        not routed or experts > 0, "the checkpoint has experts that its configuration does not know",
        expected="num_experts", found=backbone.get("num_experts", "none"), hint="give the checkpoint as it was released",
    )  # fmt: skip
    if not routed:
        return False
    norm = backbone.get("moe_expert_coefficient_norm", "softmax")
    need(
        norm == "softmax", "the mixture of the checkpoint's experts depends on the size of a batch", expected="softmax",
        found=norm,
    )  # fmt: skip
    need(
        bool(checkpoint.name.strip()) or str(backbone.get("model_version")) == "1.1",
        "the checkpoint is of UMA 1.0, or does not say its version, on which the mixture of its experts depends",
        expected="UMA 1.1 or newer", found=f"model_id none, model_version {backbone.get('model_version', 'none')}",
        hint="give uma-s-1p1 or a newer one; fairchem-core 2.21 was the last to read UMA 1.0",
    )  # fmt: skip
    return True


def looks_merged(checkpoint: Checkpoint) -> bool:
    """Whether one set of weights may be that of experts merged by hand: the file names UMA, or several of its datasets."""
    known = DATASETS & set(mapping_of(checkpoint.backbone, "dataset_list")) & set(checkpoint.datasets)
    embedded = checkpoint.backbone.get("use_dataset_embedding", True)
    return checkpoint.name.upper().startswith("UMA") or (embedded and len(known) > 1)


def _is_mixed(key: str, value: Tensor) -> bool:
    return key.startswith("backbone.") and key.endswith(".weights") and value.dim() == 3


def coefficients(checkpoint: Checkpoint, embedding: Tensor, elements: Mapping[str, int]) -> Tensor:
    """Return the share of each expert [E], float64.

    Parameters
    ----------
    checkpoint
        With experts.
    embedding
        Of charge, spin and dataset, [C] float64.
    elements
        Atoms of each element.
    """
    state = checkpoint.state
    mixture = embedding
    if state["backbone.routing_mlp.0.weight"].size(1) == 2 * len(embedding):
        table = state["backbone.composition_embedding.weight"].double()
        for symbol in elements:
            need(
                atomic_numbers[symbol] < len(table), f"the checkpoint does not know the element {symbol}",
                expected=f"atomic numbers below {len(table)}",
            )  # fmt: skip
        numbers = torch.tensor([atomic_numbers[s] for s, n in elements.items() for _ in range(n)])
        total = table[numbers].sum(0)
        mixture = torch.cat([total / (len(numbers) + int(checkpoint.name == COUNTS_ITSELF)), mixture])
    for layer in "024":
        weight, bias = (state[f"backbone.routing_mlp.{layer}.{kind}"].double() for kind in ("weight", "bias"))
        mixture = silu(linear(mixture, weight, bias))
    return torch.softmax(mixture, 0) + FLOOR


def merged(state: Mapping[str, Tensor], shares: Tensor) -> dict[str, Tensor]:
    """Return the weights with each layer's experts summed by their shares, float64; others are not read."""
    found = dict(state)
    for key, experts in state.items():
        if _is_mixed(key, experts):
            total = torch.zeros(experts.shape[1:], dtype=torch.float64)
            for share, expert in zip(shares, experts, strict=True):
                total.add_(expert, alpha=float(share))  # one copy in double at a time
            found[key.removesuffix("s")] = total
    return found
