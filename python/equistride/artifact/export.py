"""From a training checkpoint to an artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ase.data import covalent_radii
from pydantic import ValidationError
from torch import nn

from equistride.artifact.archive import save
from equistride.artifact.checkpoint import load_weights, provenance, read_checkpoint, unreadable
from equistride.artifact.metadata import Composition, Container, Metadata, check_precision
from equistride.artifact.propagators import export_propagator
from equistride.elements import atomic_numbers_of
from equistride.errors import EquistrideError
from equistride.models.equiformer import Equiformer, EquiformerConfig
from equistride.models.esen import ESEN, ESENConfig
from equistride.models.mace import MACE
from equistride.models.mace_config import MACEConfig
from equistride.models.nequip import NequIP, NequIPConfig
from equistride.models.potential import ConservativePotential, DirectPotential
from equistride.models.serving import fused as runs_fused
from equistride.models.serving import plain, serving

PotentialConfig = ESENConfig | EquiformerConfig | NequIPConfig | MACEConfig
CONFIGS: dict[str, type[PotentialConfig]] = {
    "esen": ESENConfig,
    "equiformer": EquiformerConfig,
    "nequip": NequIPConfig,
    "mace": MACEConfig,
}
PUBLICATION = {
    "esen": "arXiv:2502.12147",
    "equiformer": "arXiv:2206.11990",
    "nequip": "arXiv:2101.03164",
    "mace": "arXiv:2206.07697",
}
"""Paper of each architecture."""


def model_config(model: Any) -> PotentialConfig:
    """Check the ``model`` section of a potential's configuration."""
    architecture = model.get("architecture", "esen") if isinstance(model, dict) else "esen"
    return CONFIGS.get(architecture, ESENConfig).model_validate(model)


def build_potential(config: PotentialConfig, facts: dict[str, Any]) -> ConservativePotential:
    """Build an untrained potential; ``facts`` has species, scale [eV] and references [eV] (one an element)."""
    kind: type[ConservativePotential] = ConservativePotential
    network: nn.Module
    if isinstance(config, EquiformerConfig):
        network = Equiformer(config, len(facts["species"]))
    elif isinstance(config, NequIPConfig):
        numbers = atomic_numbers_of(facts["species"], "the training data").tolist()
        network = NequIP(config, len(facts["species"]), numbers=numbers, unit=facts["scale"])
    elif isinstance(config, MACEConfig):
        numbers = atomic_numbers_of(facts["species"], "the training data").tolist()
        radii = [float(covalent_radii[z]) for z in numbers]
        network = MACE(config, len(facts["species"]), numbers=numbers, radii=radii, unit=facts["scale"])
    else:
        network = ESEN(config, len(facts["species"]))
        kind = DirectPotential if config.forces == "direct" else ConservativePotential
    return kind(network, facts["species"], config.cutoff, facts["scale"], facts["references"])


def is_propagator(facts: Any) -> bool:
    """Whether a checkpoint is of a propagator, by its architecture; ``facts`` may be damaged."""
    config = facts.get("config") if isinstance(facts, dict) else None
    model = config.get("model") if isinstance(config, dict) else None
    return isinstance(model, dict) and model.get("architecture") == "trajcast"


_CONSERVING = {
    "esen": "fine-tune it with model.forces=gradient, model.max_neighbors=null and model.envelope=polynomial",
    "equiformer": "train it with model.smooth=true",
    "mace": "train it with --apply_cutoff=False",
}
"""How to train a network that conserves energy."""


def require_conservative(config: PotentialConfig, name: object, allow: bool) -> None:
    """Refuse a network that cannot conserve energy, unless that is wanted."""
    if config.caveats and not allow:
        raise EquistrideError(
            f"{name} cannot conserve energy in molecular dynamics ({'; '.join(config.caveats)})",
            hint=f"{_CONSERVING[config.architecture]}, or add --allow-nonconservative",
        )


def save_potential(
    potential: ConservativePotential, config: PotentialConfig, output: Path, *, dtype: str, fused: bool,
    provenance: dict[str, Any], periodic: bool = False, system: dict[str, float] | None = None, description: str = "",
    licence: str = "", references: list[str] | None = None, accuracy: dict[str, float] | None = None,
    container: Container = "torchscript", composition: Composition | None = None, weights: dict[str, Any] | None = None,
) -> Metadata:  # fmt: skip
    """Write a potential as an artifact.

    Parameters
    ----------
    potential, config, output
        In double precision; the configuration of its network; where the file goes.
    dtype, fused, container
        As for :func:`export`.
    periodic
        Trained on periodic systems alone.
    system
        Charge [e] and spin multiplicity that it computes with, where its network knows them.
    composition
        The only one that it holds for.
    description, licence, references, accuracy, provenance, weights
        For the metadata.
    """
    count = sum(p.numel() for p in potential.parameters())
    potential = serving(potential, dtype) if fused else plain(potential)
    network: Any = potential.network
    fused = runs_fused(potential)
    metadata = Metadata(
        kind="potential",
        architecture=config.architecture,
        description=description,
        species=potential.species,
        cutoff=config.cutoff,
        message_passing_steps=config.message_passing_steps,
        dtype=dtype,  # type: ignore[arg-type]
        periodic="required" if periodic else "any",
        conservative=not config.caveats,
        caveats=config.caveats,
        system=system or {},
        fused=fused,
        spline_error=network.error if fused else None,
        num_parameters=count,
        composition=composition,
        global_sums=config.global_sums if isinstance(config, ESENConfig) else 0,
        provenance=provenance,
        weights=weights or {},
        licence=licence,
        references=references or [PUBLICATION[config.architecture]],
        accuracy=accuracy or {},
    )
    return save(potential, metadata, output, container)


def export(
    checkpoint: Path, output: Path, *, dtype: str = "float32", description: str = "", licence: str = "",
    references: list[str] | None = None, accuracy: dict[str, float] | None = None, allow_nonconservative: bool = False,
    tables: float | None = 1e-6, shortest: float = 0.5, fused: bool = True, container: Container = "torchscript",
) -> Metadata:  # fmt: skip
    """Turn a checkpoint of ``equistride train`` into an artifact.

    Parameters
    ----------
    checkpoint, output
        Files.
    dtype
        ``"float32"`` or ``"float64"``: the precision in which engines run it.
    description, licence, references, accuracy
        For the metadata.
    allow_nonconservative
        Export a model with direct forces, a neighbour cap or no envelope too; its metadata say so.
    tables, shortest
        Of a propagator: relative error of the splines that replace its networks of bond lengths (None: keep the networks),
        and the shortest bond [A] that they cover.
    fused
        Of a potential: run it through the fused operators where it has a fused form, several times faster on a CPU. The plain
        network is in the file too, for a GPU and for :func:`equistride.engines.openmm_export.write_torchforce`. In
        ``"float32"`` splines stand for its radial networks (``spline_error`` in the metadata), in ``"float64"`` none do.
    container
        ``"torchscript"`` runs everywhere; ``"aoti"`` is compiled by AOTInductor for the CPU of this machine, which takes a
        minute and a C++ compiler.

    Returns
    -------
    Metadata
        What the file says of itself.
    """
    content = read_checkpoint(checkpoint)
    facts = content["equistride"]
    if is_propagator(facts):
        return export_propagator(
            checkpoint, content, output, dtype=dtype, tables=tables, shortest=shortest, description=description,
            licence=licence, references=references, accuracy=accuracy, container=container,
        )  # fmt: skip
    check_precision(dtype)
    try:
        config = model_config(facts["config"]["model"])
        potential = build_potential(config, facts).double()
    except (ValidationError, KeyError, TypeError) as error:
        raise unreadable(checkpoint, error) from None
    require_conservative(config, checkpoint, allow_nonconservative)
    load_weights(potential, content, checkpoint)
    system = facts.get("system")
    if system:
        potential.network.set_system(system["charge"], system["spin"])  # type: ignore[operator]
    return save_potential(
        potential, config, output, dtype=dtype, fused=fused, periodic=bool(facts.get("periodic")), system=system,
        description=description or facts["config"]["name"], provenance=provenance(facts), licence=licence,
        references=references, accuracy=accuracy, container=container,
    )  # fmt: skip
