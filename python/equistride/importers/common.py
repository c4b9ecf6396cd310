"""What importers share: from a configuration and weights to an artifact."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from ase.data import atomic_numbers
from pydantic import BaseModel, ValidationError
from torch import Tensor, nn

from equistride import __version__
from equistride.artifact.export import save_potential
from equistride.artifact.metadata import Container, Metadata, check_precision
from equistride.errors import EquistrideError, not_valid
from equistride.models.mace import MACE
from equistride.models.mace_config import MACEConfig
from equistride.models.nequip import NequIP, NequIPConfig, NequIPLayer
from equistride.models.potential import ConservativePotential

Config = TypeVar("Config", bound=BaseModel)


def refuse_unless(
    fine: bool, what: str, expected: object, found: object, hint: str = "", thing: str = "checkpoint"
) -> None:
    """Refuse a file in one sentence unless all is fine."""
    if not fine:
        raise EquistrideError(f"the {thing} has {what}", expected=str(expected), found=str(found), hint=hint)


@contextmanager
def reading_configuration(hint: str) -> Iterator[None]:
    """Make one sentence, with this hint, of what a configuration of another form raises; refusals stay as they are."""
    try:
        yield
    except EquistrideError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise EquistrideError(
            f"the checkpoint's configuration cannot be read ({type(error).__name__}: {error})", hint=hint
        ) from None


def refuse_unknown(wanted: Sequence[str], symbols: Sequence[str]) -> None:
    """Refuse wanted elements that are not among those of a checkpoint."""
    unknown = [symbol for symbol in wanted if symbol not in symbols]
    if unknown:
        raise EquistrideError(
            f"the checkpoint does not know the element {', '.join(unknown)}", expected=", ".join(symbols)
        )


def config_from(kind: type[Config], values: Mapping[str, Any]) -> Config:
    """Return a configuration of ours from another program's choices.

    Raises
    ------
    EquistrideError
        One sentence for the first that our network cannot have.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise not_valid("the checkpoint's network is not one that the import knows", error) from None


def network_from(config: NequIPConfig, species: list[str]) -> NequIP:
    """Return the network for these elements, float64, its weights not yet set."""
    return NequIP(config, len(species), numbers=[atomic_numbers[s] for s in species]).double()


def layers_of(network: NequIP) -> list[NequIPLayer]:
    """Return the network's layers."""
    return [layer for layer in network.layers if isinstance(layer, NequIPLayer)]


def check_finite(state: Mapping[str, Tensor]) -> None:
    """Refuse weights that are not finite."""
    for name, weight in state.items():
        if not bool(torch.isfinite(weight).all()):
            raise EquistrideError(f"the checkpoint has weights that are not finite ({name})")


def load_weights(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put all weights into a network.

    Raises
    ------
    EquistrideError
        Where one is missing, left over or of another size.
    """
    try:
        network.load_state_dict(dict(state))
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()
        raise EquistrideError(f"the checkpoint's weights do not fit its configuration ({reason})") from None


def loaded(
    network: NequIP | MACE, state: Mapping[str, Tensor], species: list[str], references: list[float], scale: float = 1.0
) -> ConservativePotential:
    """Return the potential of a network with these weights, whose energies are in units of ``scale`` [eV].

    Raises
    ------
    EquistrideError
        Where weights do not fit or are not finite.
    """
    check_finite(state)
    load_weights(network, state)
    return ConservativePotential(network, species, network.cutoff, scale, references).double()


def provenance_of(source: Path, config: BaseModel) -> dict[str, Any]:
    """Return for the metadata what imported a checkpoint, its name and SHA-256, and our configuration of its network."""
    with Path(source).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "imported_by": f"equistride {__version__}, torch {torch.__version__}",
        "checkpoint": Path(source).name,
        "checkpoint_sha256": digest,
        "config": config.model_dump(mode="json"),
    }


def save_imported(
    potential: ConservativePotential, config: NequIPConfig | MACEConfig, source: Path, output: Path, *,
    program: str, version: str, description: str, licence: str, references: list[str], dtype: str, fused: bool,
    container: Container, weights: Mapping[str, Any], system: dict[str, float] | None = None,
) -> Metadata:  # fmt: skip
    """Write an imported potential as an artifact whose metadata say where it came from.

    Parameters
    ----------
    potential, config
        Of :func:`network_from`, with weights.
    source, output
        The checkpoint and the artifact.
    program, version, weights
        What wrote it; facts of the weights beside file, hash and licence.
    description, licence, references, dtype, fused, container, system
        As for :func:`equistride.artifact.export.save_potential`.
    """
    check_precision(dtype)
    provenance = provenance_of(source, config)
    origin = {
        "program": f"{program} {version}".strip(),
        "file": provenance["checkpoint"],
        "sha256": provenance["checkpoint_sha256"],
        "licence": licence,
    }
    return save_potential(
        potential, config, output, dtype=dtype, fused=fused, description=description, licence=licence,
        references=references, container=container, weights={**origin, **weights}, system=system,
        provenance=provenance,
    )  # fmt: skip
