"""Import of eSEN checkpoints of fairchem-core: materials and OMol models of version 2, materials models of version 1.

What a checkpoint computes is kept to rounding: fairchem's tables are made in float32, and so are the imported network's
(``constants: float32``). Its bond frames roll at random, ours do not; a gated network does not see the difference, one with an
S2 grid does, by its grid's error.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ase.data import atomic_numbers, chemical_symbols
from pydantic import ValidationError
from torch import Tensor

from equistride import __version__
from equistride.artifact.export import require_conservative, save_potential
from equistride.artifact.metadata import Container, Metadata, check_precision
from equistride.errors import EquistrideError
from equistride.importers.fairchem_checkpoint import Checkpoint, Normalisation, read_checkpoint
from equistride.models.esen import ESEN, ESENConfig
from equistride.models.potential import ConservativePotential, DirectPotential

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
RADIAL = {"0": "first", "1": "norm1", "3": "second", "4": "norm2", "6": "last"}
LARGEST_CAP = 100
"""A neighbour limit from here on is taken for none: the published models say 300 and mean all."""


def _need(fine: bool, what: str, **facts: object) -> None:
    if not fine:
        raise EquistrideError(what, **facts)  # type: ignore[arg-type]


def _refuse_experts(backbone: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    routed = [key for key in state if re.search(r"routing_mlp|composition_embedding|\.weights$", key)]
    _need(
        not backbone.get("num_experts") and not routed,
        "the checkpoint is a UMA model, whose experts are mixed anew for each composition, charge and spin",
        expected="an eSEN model with one set of weights",
        found=f"{backbone.get('num_experts') or 'some'} experts",
        hint="merge its experts for one composition with fairchem and save the merged model",
    )


def config_of(backbone: Mapping[str, Any], generation: int = 2) -> ESENConfig:
    """Return our configuration of a fairchem backbone: its keyword arguments, of generation 1 or 2.

    Raises
    ------
    EquistrideError
        For what eSEN's published networks have not: other norms, bases or balanced channels.
    """
    known = {
        1: {"act_type": "s2", "ff": "grid", "envelope": False},
        2: {"act_type": "gate", "ff": "grid", "envelope": True},
    }
    default = known[generation]
    forward = backbone.get("mlp_type" if generation == 1 else "ff_type", default["ff"])
    norm, basis = backbone.get("norm_type", "rms_norm_sh"), backbone.get("distance_function", "gaussian")
    _need(norm == "rms_norm_sh", "the checkpoint has a norm that eSEN has not", expected="rms_norm_sh", found=norm)
    for key in ("charge_balanced_channels", "spin_balanced_channels"):
        _need(
            not backbone.get(key),
            "the checkpoint shares the total charge or spin among its atoms, which couples them at any distance",
            expected=f"no {key}", found=backbone.get(key), hint="choose an eSEN model without it",
        )  # fmt: skip
    cap = backbone.get("max_neighbors")
    direct = bool(backbone.get("direct_forces", True))
    settings = {ours: backbone.get(theirs, DEFAULTS[theirs]) for theirs, ours in SIZES.items()} | {
        "basis": basis,
        "mirror": False,
        "activation": backbone.get("act_type", default["act_type"]),
        "feed_forward": forward,
        "s2_resolution": backbone.get("grid_resolution"),
        "forces": "direct" if direct else "gradient",
        "max_neighbors": cap if isinstance(cap, int) and 0 < cap < LARGEST_CAP else None,
        "envelope": "polynomial" if backbone.get("use_envelope", default["envelope"]) else "off",
        "constants": "float32",
    }
    if settings["activation"] == "gate" and forward == "spectral":
        settings["s2_resolution"] = None
    if generation == 2:
        kind = backbone.get("chg_spin_emb_type", "pos_emb")
        _need(
            kind in CHARGE_SPIN,
            "the embedding of charge and spin is not known",
            expected=", ".join(CHARGE_SPIN),
            found=kind,
        )
        settings["charge_spin"] = CHARGE_SPIN[kind]
    try:
        return ESENConfig.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        raise EquistrideError(
            f"the checkpoint's backbone is not that of an eSEN: {'.'.join(map(str, first['loc'])) or 'its sizes'}",
            expected=first["msg"].lower(), found=repr(first["input"])[:80],
        ) from None  # fmt: skip


class _Reader:
    """Takes tensors out of fairchem's state dict by our names."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self.state, self.ours = state, dict[str, Tensor]()

    def tensor(self, key: str) -> Tensor:
        _need(key in self.state, "the checkpoint lacks weights that its configuration needs", expected=key,
              hint="give the file of an eSEN model")  # fmt: skip
        return self.state[key]

    def copy(self, source: str, target: str, kinds: Sequence[str] = ("weight", "bias")) -> None:
        for kind in kinds:
            self.ours[f"{target}.{kind}"] = self.tensor(f"{source}.{kind}")

    def norm(self, source: str, target: str) -> None:
        for kind in ("weight", "bias"):
            self.ours[f"{target}.{kind}"] = self.tensor(f"{source}.affine_{kind}")

    def radial(self, source: str, target: str) -> None:
        for number, name in RADIAL.items():
            self.copy(f"{source}.rad_func.net.{number}", f"{target}.{name}")


def _system(reader: _Reader, config: ESENConfig, dataset: str) -> None:
    """Read the embedding of charge and spin; that of the dataset is constant and goes into the bias of the mixture."""
    names = {"positional": ("W", "frequencies"), "linear": ("lin_emb", "linear"), "table": ("rand_emb", "table")}
    theirs, ours = names[config.charge_spin]
    for number in ("charge", "spin"):
        source, target = f"backbone.{number}_embedding.{theirs}", f"system.of_{number}.{ours}"
        if config.charge_spin == "positional":
            reader.ours[target] = reader.tensor(source)
        else:
            reader.copy(source, target, ("weight",) if config.charge_spin == "table" else ("weight", "bias"))
    weight, bias = reader.tensor("backbone.mix_csd.weight"), reader.tensor("backbone.mix_csd.bias")
    width = 2 * config.channels
    if weight.size(1) > width:
        known = [k.split(".")[-2] for k in reader.state if k.startswith("backbone.dataset_embedding.")]
        _need(
            dataset in known, "the checkpoint was trained on several datasets and does not know this one",
            expected=", ".join(known), found=dataset or "none", hint="name one with --dataset",
        )  # fmt: skip
        row = reader.tensor(f"backbone.dataset_embedding.dataset_emb_dict.{dataset}.weight")[0]
        bias = bias.double() + weight[:, width:].double() @ row.double()
    reader.ours["system.mix.weight"], reader.ours["system.mix.bias"] = weight[:, :width], bias


def translate(state: Mapping[str, Tensor], config: ESENConfig, dataset: str = "") -> dict[str, Tensor]:
    """Return fairchem's weights under our names, float64.

    Parameters
    ----------
    state
        Its state dict, ``backbone.*`` and ``output_heads.*`` (or ``head.*``).
    config
        Of :func:`config_of`.
    dataset
        Name of a dataset whose embedding, or head, is taken.
    """
    reader = _Reader(state)
    ours = reader.ours
    for theirs, name in (("sphere", "embedding.weight"), ("source", "sender"), ("target", "receiver")):
        ours[name] = reader.tensor(f"backbone.{theirs}_embedding.weight")
    if "backbone.force_embedding.bias" in state:  # of denoising: all that is left of it where no forces are given
        ours["embedding.weight"] = ours["embedding.weight"] + state["backbone.force_embedding.bias"]
    reader.norm("backbone.norm", "norm")
    reader.radial("backbone.edge_degree_embedding", "edge_degree")
    if config.charge_spin != "off":
        _system(reader, config, dataset)
    if config.basis == "bessel":
        ours["basis.frequencies"] = reader.tensor("backbone.distance_expansion.rbf.frequencies")
    for k in range(config.num_layers):
        source, target = f"backbone.blocks.{k}", f"blocks.{k}"
        for n in "12":
            reader.norm(f"{source}.norm_{n}", f"{target}.norm{n}")
        for n, name in (("1", "first"), ("2", "second")):
            convolution = f"{source}.edge_wise.so2_conv_{n}"
            reader.copy(f"{convolution}.fc_m0", f"{target}.edgewise.{name}.scalar")
            for m in range(config.m_max):
                reader.copy(f"{convolution}.so2_m_conv.{m}.fc", f"{target}.edgewise.{name}.orders.{m}", ("weight",))
        reader.radial(f"{source}.edge_wise.so2_conv_1", f"{target}.edgewise.radial")
        if config.feed_forward == "spectral":
            reader.copy(f"{source}.atom_wise.scalar_mlp.0", f"{target}.feed_forward.gates")
            reader.copy(f"{source}.atom_wise.so3_linear_1", f"{target}.feed_forward.up")
            reader.copy(f"{source}.atom_wise.so3_linear_2", f"{target}.feed_forward.down")
        else:
            for n, name in (("0", "first"), ("2", "second"), ("4", "last")):
                reader.copy(f"{source}.atom_wise.grid_mlp.{n}", f"{target}.feed_forward.{name}", ("weight",))
    head = _head(state, "energy_block.0.weight", dataset)
    for n in "024":
        reader.copy(f"{head}energy_block.{n}", f"head.{n}")
    if config.forces == "direct":
        reader.copy(f"{_head(state, 'linear.weight', dataset)}linear", "force_head")
    return {name: tensor.double() for name, tensor in ours.items()}


def _head(state: Mapping[str, Tensor], ending: str, dataset: str) -> str:
    """Return the prefix of the one output head with such weights; that of the dataset where there are several."""
    found = [k.removesuffix(ending) for k in state if k.endswith("." + ending) and not k.startswith("backbone.")]
    chosen = [k for k in found if dataset and dataset in k] if len(found) > 1 else found
    _need(
        len(chosen) == 1, f"the checkpoint has no single output head with {ending}", expected="one",
        found=", ".join(found) or "none", hint="name a dataset with --dataset" if found else "give the file of an eSEN model",
    )  # fmt: skip
    return chosen[0]


def _dataset(checkpoint: Checkpoint, wanted: str) -> tuple[str, Normalisation]:
    known = checkpoint.datasets
    name = wanted or (next(iter(known)) if len(known) == 1 else "")
    _need(
        name in known, "the checkpoint was trained on several datasets" if not wanted else "the dataset is not known",
        expected=", ".join(known), found=wanted or "no choice", hint="name one with --dataset",
    )  # fmt: skip
    return name, known[name]


def _elements(wanted: Sequence[str], rows: int) -> list[str]:
    """Return the element symbols of an import; all of the embedding table where none are named."""
    last = min(rows, len(chemical_symbols)) - 1
    unknown = [s for s in wanted if s not in atomic_numbers or not 1 <= atomic_numbers[s] <= last]
    _need(
        not unknown, f"the checkpoint does not know the element {', '.join(unknown)}",
        expected=f"elements from H to {chemical_symbols[last]}",
    )  # fmt: skip
    return sorted(set(wanted), key=lambda s: atomic_numbers[s]) or list(chemical_symbols[1 : last + 1])


def potential_of(
    checkpoint: Checkpoint, elements: Sequence[str] = (), dataset: str = ""
) -> tuple[ConservativePotential, ESENConfig]:
    """Build the potential of a checkpoint, float64, and its configuration.

    Parameters
    ----------
    checkpoint
        Of :func:`equistride.importers.fairchem_checkpoint.read_checkpoint`.
    elements
        Symbols to keep; all that it knows by default. A shorter list makes a smaller, faster model.
    dataset
        Which of several datasets' heads, embeddings and references; needed where there are several.

    Raises
    ------
    EquistrideError
        For UMA's experts, networks that are not eSEN, missing weights, unknown elements or datasets.
    """
    _refuse_experts(checkpoint.backbone, checkpoint.state)
    # the flag alone does not say: a head that takes gradients overrules it
    has_force_head = any(k.endswith(".linear.weight") and not k.startswith("backbone.") for k in checkpoint.state)
    backbone = checkpoint.backbone | ({} if has_force_head else {"direct_forces": False})
    config = config_of(backbone, checkpoint.generation)
    dataset, facts = _dataset(checkpoint, dataset)
    weights = translate(checkpoint.state, config, dataset)
    species = _elements(elements, len(weights["embedding.weight"]))
    numbers = [atomic_numbers[s] for s in species]
    for name in ("embedding.weight", "sender", "receiver"):
        weights[name] = weights[name][numbers]
    if config.forces == "direct":
        ratio = (facts.force_rmsd or facts.rmsd) / facts.rmsd
        weights |= {f"force_head.{kind}": weights[f"force_head.{kind}"] * ratio for kind in ("weight", "bias")}
    elif facts.force_rmsd is not None:
        _need(
            abs(facts.force_rmsd / facts.rmsd - 1) < 1e-6,
            "the checkpoint scales energies and forces differently, so that its forces are not the gradient of its energy",
            expected=facts.rmsd, found=facts.force_rmsd,
        )  # fmt: skip
    table = facts.references
    _need(
        not table or len(table) > max(numbers), "the checkpoint lacks a reference energy",
        expected=f"{max(numbers) + 1} of them", found=len(table), hint="name fewer elements with --elements",
    )  # fmt: skip
    references = [table[z] for z in numbers] if table else [0.0] * len(numbers)
    network = ESEN(config, len(species)).double()
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()
        raise EquistrideError(f"the checkpoint's weights do not fit its configuration ({reason})") from None
    kind = DirectPotential if config.forces == "direct" else ConservativePotential
    potential = kind(network, species, config.cutoff, facts.rmsd, references).double()
    return potential, config


def import_fairchem(
    checkpoint: Path, output: Path, *, elements: Sequence[str] = (), dataset: str = "", charge: int = 0,
    spin: int | None = None, dtype: str = "float32", description: str = "", licence: str = "",
    references: list[str] | None = None, allow_nonconservative: bool = False, fused: bool = True,
    container: Container = "torchscript",
) -> Metadata:  # fmt: skip
    """Turn an eSEN checkpoint of fairchem-core into an artifact; fairchem is not needed and no code of the file runs.

    Parameters
    ----------
    checkpoint, output
        Files.
    elements, dataset
        See :func:`potential_of`.
    charge, spin
        Total charge [e] and spin multiplicity that the file computes with, for models that know them; a spin of 0 means "not
        given" and is the default but for OMol models, where it is 1. :func:`equistride.artifact.system.with_system`
        writes the same model for others.
    dtype
        ``"float32"`` or ``"float64"``: the precision in which engines run it.
    description, licence, references
        For the metadata.
    allow_nonconservative
        Import a model with direct forces, a neighbour cap or no envelope too.
    fused, container
        As for :func:`equistride.artifact.export.export`.

    Returns
    -------
    Metadata
        What the file says of itself.
    """
    check_precision(dtype)
    content = read_checkpoint(checkpoint)
    potential, config = potential_of(content, elements, dataset)
    require_conservative(config, checkpoint, allow_nonconservative)
    for name, weight in potential.named_parameters():
        _need(bool(torch.isfinite(weight).all()), f"the checkpoint has weights that are not finite ({name})")
    system: dict[str, float] = {}
    name, _ = _dataset(content, dataset)
    if config.charge_spin != "off":
        multiplicity = spin if spin is not None else int("omol" in name.lower())
        network: Any = potential.network
        network.set_system(float(charge), float(multiplicity))
        system = {"charge": float(charge), "spin": float(multiplicity)}
    _need(
        bool(system) or (charge == 0 and not spin), "the model knows no charge and no spin",
        found=f"charge {charge}, spin {spin}", hint="leave --charge and --spin out",
    )  # fmt: skip
    return save_potential(
        potential, config, output, dtype=dtype, fused=fused, system=system,
        description=description or " ".join(filter(None, ["eSEN of fairchem-core", content.name, name])),
        provenance={
            "imported_by": f"equistride {__version__}, torch {torch.__version__}",
            "checkpoint": Path(checkpoint).name,
            "checkpoint_sha256": hashlib.sha256(Path(checkpoint).read_bytes()).hexdigest(),
            "config": config.model_dump(mode="json"),
        },
        licence=licence, references=references, container=container,
    )  # fmt: skip
