"""Which output heads of a fairchem checkpoint an import takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from equistride.importers.fairchem_checkpoint import Checkpoint
from equistride.importers.fairchem_config import check_keys, need

ENERGY = {"MLP_EFS_Head", "MLP_Energy_Head", "esen_efs_head", "esen_mlp_efs_head", "esen_mlp_energy_head",
          "esen_mlp_efs_head_dens"}  # fmt: skip
FORCES = {"Linear_Force_Head", "esen_linear_force_head", "esen_linear_force_head_dens"}
STRESS = {"MLP_Stress_Head", "esen_mlp_stress_head"}
WRAPPERS = {"DatasetSpecificMoEWrapper", "DatasetSpecificSingleHeadWrapper"}
OPTIONS = {"reduce", "prefix", "wrap_property", "regress_hessian", "hessian_vmap"}
"""Arguments of heads: all but the first two say how outputs are named, or which there are."""
WRAPPER_OPTIONS = {"module", "head_cls", "head_kwargs", "wrap_property", "dataset_names", "dataset_mapping"}


@dataclass
class Heads:
    """Prefixes of the heads in the state dict."""

    energy: str = ""
    forces: str = ""
    """Of direct forces; empty where the forces are the energy's gradient."""
    slice: int | None = None
    """Which of a head's sets of weights, where it has one a dataset."""
    stress: bool = False
    """Whether there is a head for stresses, which no potential of ours has."""


@dataclass
class _Head:
    kind: str = ""
    prefix: str = ""
    datasets: dict[str, str] = field(default_factory=dict)
    """The head that each dataset takes, by their names; of wrapped heads alone."""


def mapping_of(section: Mapping[str, Any], names: str) -> dict[str, str]:
    """Return ``dataset_mapping``, or the older list of datasets as one of each onto itself."""
    return dict(section.get("dataset_mapping") or {name: name for name in section.get(names) or []})


def _checked(name: str, section: Mapping[str, Any]) -> _Head:
    """Return what the configuration of a head says; refuse heads that compute something else."""
    options, where = dict(section), f"heads.{name}"
    module = str(options.pop("module", "")).rsplit(".", 1)[-1]
    head = _Head(module)
    if module in WRAPPERS:
        check_keys(section, WRAPPER_OPTIONS, where)
        head.kind = str(section.get("head_cls")).rsplit(".", 1)[-1]
        head.datasets = mapping_of(section, "dataset_names")
        options = dict(section.get("head_kwargs") or {})
    check_keys(options, OPTIONS, where)
    need(
        not head.kind or head.kind in ENERGY | FORCES | STRESS, f"the checkpoint's head {name} is of a kind that eSEN has not",
        expected="MLP_EFS_Head, or MLP_Energy_Head and Linear_Force_Head", found=head.kind,
    )  # fmt: skip
    need(
        head.kind not in ENERGY or options.get("reduce", "sum") == "sum",
        "the checkpoint's head divides the energy by the number of atoms and leaves the forces as they are, so that they are "
        "not its gradient", expected="reduce: sum", found=f"reduce: {options.get('reduce')}",
        hint="train the head with a sum",
    )  # fmt: skip
    head.prefix = str(options.get("prefix") or "")
    return head


def heads_of(checkpoint: Checkpoint, dataset: str) -> Heads:
    """Return the heads whose outputs are the dataset's energies and forces.

    Raises
    ------
    EquistrideError
        For heads of other kinds, none or several, and datasets that a head does not know.
    """
    described = {name: _checked(name, section or {}) for name, section in checkpoint.heads.items()}
    found = Heads(stress=any(head.kind in STRESS for head in described.values()))

    def one(ending: str) -> tuple[str, _Head]:
        prefixes = [
            key.removesuffix(end) for key in checkpoint.state if not key.startswith("backbone.")
            for end in (ending, f"{ending}s") if key.endswith("." + end)
        ]  # fmt: skip
        head_of = {p: next((h for n, h in described.items() if f".{n}." in f".{p}"), _Head()) for p in prefixes}
        chosen = [
            p for p in prefixes if len(prefixes) == 1 or (dataset and dataset in (head_of[p].prefix, *p.split(".")))
        ]
        need(
            len(chosen) == 1, f"the checkpoint has no single output head with {ending}", expected="one",
            found=", ".join(prefixes) or "none",
            hint="name a dataset with --dataset" if prefixes else "give the file of an eSEN model",
        )  # fmt: skip
        return chosen[0], head_of[chosen[0]]

    found.energy, head = one("energy_block.0.weight")
    need(
        not head.datasets or dataset in head.datasets, "the checkpoint's head does not know the dataset",
        expected=", ".join(head.datasets), found=dataset or "none", hint="name one with --dataset",
    )  # fmt: skip
    if f"{found.energy}energy_block.0.weights" in checkpoint.state:
        need(bool(head.datasets), "the checkpoint's head has weights for several datasets and does not say for which")
        found.slice = sorted(set(head.datasets.values())).index(head.datasets[dataset])
    # the flag alone does not say: a head that takes gradients overrules it
    forces = any(key.endswith(".linear.weight") and not key.startswith("backbone.") for key in checkpoint.state)
    if forces and checkpoint.backbone.get("direct_forces", True):
        found.forces, _ = one("linear.weight")
    return found
