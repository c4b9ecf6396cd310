"""Import of checkpoints of fairchem-core: eSEN and UMA models of version 2, eSEN models for materials of version 1.

What a checkpoint computes is kept to rounding: fairchem's tables are made in float32, and so are the imported network's
(``constants: float32``). Its bond frames roll at random, ours do not; a gated network does not see the difference, one with an
S2 grid does, by its grid's error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from typing import Any

from ase.data import atomic_numbers, chemical_symbols
from torch import Tensor

from equistride.artifact.export import require_conservative
from equistride.artifact.metadata import Composition, Container, Metadata, check_precision
from equistride.importers import uma
from equistride.importers.common import check_finite, load_weights, refuse_unknown, save_imported
from equistride.importers.fairchem_checkpoint import Checkpoint, Normalisation, read_checkpoint
from equistride.importers.fairchem_config import cap_of, config_of, need
from equistride.importers.fairchem_heads import Heads, heads_of, mapping_of
from equistride.importers.fairchem_weights import system_weights, translate
from equistride.models.esen import ESEN, ESENConfig
from equistride.models.potential import ConservativePotential, DirectPotential
from equistride.nn.system import CHARGE_LIMIT, SPIN_LIMIT, SystemEmbedding


@dataclass
class Imported:
    """A potential in double precision and what its file shall say of it."""

    potential: ConservativePotential
    config: ESENConfig
    dataset: str
    system: dict[str, float]
    """Total charge [e] and spin multiplicity, where the network knows them."""
    composition: Composition | None
    """The only one that it holds for."""
    coefficients: list[float]
    """Shares of a UMA model's experts."""
    notes: list[str]
    """What fairchem does otherwise, and what was set aside."""


def _dataset(checkpoint: Checkpoint, wanted: str) -> tuple[str, Normalisation]:
    known = checkpoint.datasets
    name = wanted or (next(iter(known)) if len(known) == 1 else "")
    need(
        name in known, "the checkpoint was trained on several datasets" if not wanted else "the dataset is not known",
        expected=", ".join(known), found=wanted or "no choice", hint="name one with --dataset",
    )  # fmt: skip
    return name, known[name]


def _row(checkpoint: Checkpoint, dataset: str) -> str:
    """Return the dataset whose embedding the backbone takes for this one."""
    mapping = mapping_of(checkpoint.backbone, "dataset_list")
    need(
        not mapping or dataset in mapping or not checkpoint.backbone.get("use_dataset_embedding", True),
        "the checkpoint's backbone does not know the dataset", expected=", ".join(mapping), found=dataset or "none",
        hint="name one with --dataset",
    )  # fmt: skip
    return mapping.get(dataset, dataset)


def _elements(wanted: Sequence[str], rows: int) -> list[str]:
    """Return the element symbols of an import; all of the embedding table where none are named."""
    known = chemical_symbols[1 : min(rows, len(chemical_symbols))]
    refuse_unknown(wanted, known, expected=f"elements from H to {known[-1]}")
    return sorted(set(wanted), key=lambda s: atomic_numbers[s]) or list(known)


def _check_forces(checkpoint: Checkpoint, facts: Normalisation, heads: Heads, config: ESENConfig) -> list[str]:
    """Refuse forces that no gradient is; return what to say of stresses and neighbours."""
    if config.forces == "gradient" and facts.force_rmsd is not None:
        need(
            abs(facts.force_rmsd / facts.rmsd - 1) < 1e-6,
            "the checkpoint scales energies and forces differently, so that its forces are not the gradient of its energy",
            expected=facts.rmsd, found=facts.force_rmsd,
        )  # fmt: skip
    notes = []
    _, all_neighbours = cap_of(checkpoint.backbone)
    if all_neighbours:
        notes.append(all_neighbours)
    if heads.stress or checkpoint.backbone.get("direct_stress"):
        notes.append(
            "the checkpoint's head for stresses is left out: the virial is the strain derivative of the energy"
        )
    elif facts.stress_rmsd is not None and not abs(facts.stress_rmsd / facts.rmsd - 1) < 1e-6:
        notes.append(
            f"fairchem scales stresses by {facts.stress_rmsd:g} and energies by {facts.rmsd:g}: the virial here is the strain "
            "derivative of the energy, its stress is another"
        )
    return notes


def _embedding(weights: Mapping[str, Tensor], config: ESENConfig, system: Mapping[str, float]) -> Tensor:
    """Return the embedding of charge, spin and dataset [C]."""
    module = SystemEmbedding(config.charge_spin, config.channels).double()
    module.load_state_dict(dict(weights))
    module.charge.fill_(system["charge"])
    module.spin.fill_(system["spin"])
    return module().detach()


def _folded(weights: dict[str, Tensor], embedding: Tensor, config: ESENConfig) -> dict[str, Tensor]:
    """Add the embedding where the network would: to the scalars at the start and after the first norm of each block."""
    weights["embedding.weight"] = weights["embedding.weight"] + embedding
    for k in range(config.num_layers):
        weights[f"blocks.{k}.norm1.bias"] = weights[f"blocks.{k}.norm1.bias"] + embedding
    return weights


def _composition(elements: Mapping[str, int], of_size: bool) -> Composition:
    """Return the reduced composition; where size counts, as it is."""
    divisor = 1 if of_size else gcd(*elements.values())
    counts = {symbol: number // divisor for symbol, number in elements.items()}
    return Composition(elements=counts, atoms=sum(elements.values()) if of_size else None)


def build(
    checkpoint: Checkpoint, elements: Sequence[str] = (), dataset: str = "", charge: float = 0.0, spin: float | None = None,
    composition: Mapping[str, int] | None = None, unmerged: bool = False,
) -> Imported:  # fmt: skip
    """Build the potential of a checkpoint, with what its file shall say; arguments as for :func:`import_fairchem`.

    Raises
    ------
    EquistrideError
        For networks that are not eSEN, configurations of unknown meaning, missing weights, unknown elements or datasets, and
        UMA models without a composition.
    """
    experts = uma.has_experts(checkpoint)
    dataset, facts = _dataset(checkpoint, dataset)
    heads = heads_of(checkpoint, dataset)
    config = config_of(checkpoint.backbone | ({} if heads.forces else {"direct_forces": False}), checkpoint.generation)
    _check_composition(checkpoint, experts, composition, elements, unmerged)
    system = _system(config, dataset, charge, spin)
    notes = _check_forces(checkpoint, facts, heads, config)
    of_system = system_weights(checkpoint.state, config, _row(checkpoint, dataset)) if system else {}
    state, shares = checkpoint.state, []
    if composition:
        if "omol" not in dataset.lower() and any(system.values()):
            notes.append(f"the dataset {dataset} has neither charges nor spins: the model saw none but 0 and 0 there")
        embedding = _embedding(of_system, config, system)
        if experts:
            mixture = uma.coefficients(checkpoint, embedding, composition)
            state, shares = uma.merged(state, mixture), mixture.tolist()
        config = config.model_copy(update={"charge_spin": "off"})
        weights = _folded(translate(state, config, heads), embedding, config)
    else:
        weights = translate(state, config, heads) | {f"system.{name}": tensor for name, tensor in of_system.items()}
    potential = _assembled(weights, config, facts, list(composition or elements))
    network: Any = potential.network
    if system and composition and network.balance is not None:
        network.balance.set_totals(system["charge"], system["spin"])
    elif system and not composition:
        network.set_system(system["charge"], system["spin"])
    bound = _composition(composition, checkpoint.name == uma.COUNTS_ITSELF) if composition else None
    return Imported(potential, config, dataset, system, bound, shares, notes)


def _check_composition(
    checkpoint: Checkpoint, experts: bool, composition: Mapping[str, int] | None, elements: Sequence[str], unmerged: bool
) -> None:  # fmt: skip
    """Refuse UMA models without a composition, and a composition for others."""
    bound = experts or (uma.looks_merged(checkpoint) and not unmerged)
    need(
        not bound or bool(composition),
        "the checkpoint is a UMA model, whose experts are merged for one composition, charge, spin and dataset" if experts
        else "the checkpoint may be a UMA model whose experts were merged for one composition, which the file does not say",
        expected="that composition", found="none",
        hint=uma.STRUCTURE + ("" if experts else "; or say with --unmerged that it was trained with one set of weights"),
    )  # fmt: skip
    need(
        bound or not composition, "the model holds for any composition", found="a structure to merge it for",
        hint="leave --structure out, and name elements with --elements",
    )  # fmt: skip
    need(
        not composition or not elements or set(elements) == set(composition),
        "a merged model keeps the elements of its composition", expected=", ".join(composition or []),
        found=", ".join(elements), hint="leave --elements out",
    )  # fmt: skip


def _system(config: ESENConfig, dataset: str, charge: float, spin: float | None) -> dict[str, float]:
    """Return total charge and spin multiplicity, where the network knows them."""
    if config.charge_spin == "off":
        need(
            charge == 0 and not spin, "the model knows no charge and no spin", found=f"charge {charge}, spin {spin}",
            hint="leave --charge and --spin out",
        )  # fmt: skip
        return {}
    multiplicity = float("omol" in dataset.lower()) if spin is None else float(spin)
    need(
        abs(charge) <= CHARGE_LIMIT and 0 <= multiplicity <= SPIN_LIMIT, "charge or spin multiplicity is out of range",
        expected=f"a charge from {-CHARGE_LIMIT} to {CHARGE_LIMIT} and a multiplicity from 0 to {SPIN_LIMIT}",
        found=f"{charge:g} and {multiplicity:g}",
    )  # fmt: skip
    return {"charge": float(charge), "spin": multiplicity}


def _assembled(
    weights: dict[str, Tensor], config: ESENConfig, facts: Normalisation, elements: Sequence[str]
) -> ConservativePotential:
    """Return the potential of some elements, float64."""
    species = _elements(elements, len(weights["embedding.weight"]))
    numbers = [atomic_numbers[s] for s in species]
    for name in ("embedding.weight", "sender", "receiver"):
        weights[name] = weights[name][numbers]
    if config.forces == "direct":
        ratio = (facts.force_rmsd or facts.rmsd) / facts.rmsd
        weights |= {f"force_head.{kind}": weights[f"force_head.{kind}"] * ratio for kind in ("weight", "bias")}
    table = facts.references
    need(
        not table or len(table) > max(numbers), "the checkpoint lacks a reference energy",
        expected=f"{max(numbers) + 1} of them", found=len(table), hint="name fewer elements with --elements",
    )  # fmt: skip
    references = [table[z] for z in numbers] if table else [0.0] * len(numbers)
    network = ESEN(config, len(species)).double()
    load_weights(network, weights)
    kind = DirectPotential if config.forces == "direct" else ConservativePotential
    return kind(network, species, config.cutoff, facts.rmsd, references).double()


def potential_of(
    checkpoint: Checkpoint, elements: Sequence[str] = (), dataset: str = ""
) -> tuple[ConservativePotential, ESENConfig]:
    """Build the potential of an eSEN checkpoint, float64, and its configuration; see :func:`build`."""
    made = build(checkpoint, elements, dataset)
    return made.potential, made.config


def import_fairchem(
    checkpoint: Path, output: Path, *, elements: Sequence[str] = (), dataset: str = "", charge: int = 0,
    spin: int | None = None, composition: Mapping[str, int] | None = None, unmerged: bool = False,
    dtype: str = "float32", description: str = "", licence: str = "",
    references: list[str] | None = None, allow_nonconservative: bool = False, fused: bool = True,
    container: Container = "torchscript",
) -> Metadata:  # fmt: skip
    """Turn an eSEN or UMA checkpoint of fairchem-core into an artifact; fairchem is not needed and no code of the file runs.

    Parameters
    ----------
    checkpoint, output
        Files.
    elements
        Symbols to keep; all that it knows by default. A shorter list makes a smaller, faster model.
    dataset
        Which of several datasets' heads, embeddings and references; needed where there are several.
    charge, spin
        Total charge [e] and spin multiplicity that the file computes with, for models that know them; a spin of 0 means "not
        given" and is the default but for the dataset omol, where it is 1. :func:`equistride.artifact.system.with_system`
        writes the same model for others; in a UMA model they are fixed.
    composition
        Atoms of each element, by its symbol: the one system that a UMA model is merged for. The artifact holds for this
        composition, in any size where the mixture of experts does not depend on size (``composition`` in the metadata).
    unmerged
        Take a network of several of UMA's datasets for one that was trained with one set of weights, and not for a UMA model
        whose experts were merged by hand for a composition that nobody knows.
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
        What the file says of itself; ``weights["notes"]`` says what fairchem does otherwise.
    """
    check_precision(dtype)
    content = read_checkpoint(checkpoint)
    made = build(content, elements, dataset, charge, spin, composition, unmerged)
    generation, model = content.generation, content.name
    del content  # and with it the file's pages: what follows copies the network
    require_conservative(made.config, checkpoint, allow_nonconservative)
    check_finite(dict(made.potential.named_parameters()))
    kind = "UMA" if made.coefficients else "eSEN"
    return save_imported(
        made.potential, made.config, checkpoint, output, program=f"fairchem-core {generation}", dtype=dtype, fused=fused,
        description=description or " ".join(filter(None, [f"{kind} of fairchem-core", model, made.dataset])),
        licence=licence, references=references, container=container, system=made.system, composition=made.composition,
        weights={"model": model, "task": made.dataset, "coefficients": made.coefficients, "notes": made.notes},
    )  # fmt: skip
