"""What importers share: from a configuration and weights to an artifact."""

from __future__ import annotations

import hashlib
import re
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
from equistride.artifact.metadata import Composition, Container, Metadata, check_precision
from equistride.errors import EquistrideError, not_valid
from equistride.models.esen import ESENConfig
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


def refuse_unknown(
    wanted: Sequence[str], symbols: Sequence[str], thing: str = "checkpoint", expected: str = ""
) -> None:
    """Refuse wanted elements that are not among those of a file."""
    unknown = [symbol for symbol in wanted if symbol not in symbols]
    if unknown:
        raise EquistrideError(
            f"the {thing} does not know the element {', '.join(unknown)}", expected=expected or ", ".join(symbols)
        )


class StoredWeights:
    """Tensors of a file, which notes those that were asked for: the others would be lost without a word.

    Parameters
    ----------
    state
        The tensors by their names.
    mend, thing
        Which file to give where one is missing; what the file is called.
    """

    def __init__(self, state: dict[str, Tensor], mend: str, thing: str = "checkpoint") -> None:
        self.state, self.mend, self.thing = state, mend, thing
        self.read: set[str] = set()

    def find(self, name: str) -> Tensor | None:
        """Return a tensor in double precision; None where there is none, or one without numbers."""
        self.read.add(name)
        found = self.state.get(name)
        return found.double() if found is not None and found.numel() else None

    def tensor(self, name: str) -> Tensor:
        """Return a tensor in double precision.

        Raises
        ------
        EquistrideError
            Where there is none.
        """
        if name not in self.state:
            raise EquistrideError(
                f"the {self.thing} lacks weights that its configuration needs", expected=name, hint=self.mend
            )
        self.read.add(name)
        return self.state[name].double()

    def stack(self, name: str, layer: str = r"layer(\d+)\.weight") -> list[Tensor]:
        """Return the layers of a network of scalars, in their order; ``layer`` is what follows its name."""
        found = [re.fullmatch(rf"{re.escape(name)}\.{layer}", key) for key in self.state]
        keys = [key for _, key in sorted((int(m[1]), m[0]) for m in found if m)]
        return [self.tensor(key) for key in keys or [f"{name}.layer0.weight"]]

    def refuse_unread(self, tables: re.Pattern[str]) -> None:
        """Refuse weights that nothing asked for, but ``tables``, which follow from sizes."""
        left = sorted(
            name for name, tensor in self.state.items()
            if name not in self.read and tensor.numel() and not tables.search(name)
        )  # fmt: skip
        refuse_unless(
            not left, "weights that the import does not know", "none", ", ".join(left[:3]) + ", ..." * bool(left[3:]),
            self.mend, self.thing,
        )  # fmt: skip


def averaged(
    state: Mapping[str, Tensor], names: Sequence[str], averages: Sequence[Tensor], hint: str = ""
) -> dict[str, Tensor]:
    """Return the state with averaged weights for those of these names, which they are listed in the order of."""
    fits = len(names) == len(averages) and all(state[n].shape == a.shape for n, a in zip(names, averages, strict=True))
    refuse_unless(fits, "averaged weights that do not fit its network", f"{len(names)} tensors", len(averages), hint)
    return {**state, **dict(zip(names, averages, strict=True))}


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


def save_imported(
    potential: ConservativePotential, config: NequIPConfig | MACEConfig | ESENConfig, source: Path, output: Path, *,
    program: str, description: str, licence: str, references: list[str] | None, dtype: str, fused: bool,
    container: Container, weights: Mapping[str, Any], system: dict[str, float] | None = None,
    composition: Composition | None = None,
) -> Metadata:  # fmt: skip
    """Write an imported potential as an artifact whose metadata say where it came from.

    Parameters
    ----------
    potential, config
        Of :func:`network_from`, with weights.
    source, output
        The checkpoint and the artifact.
    program, weights
        What wrote it, with its version; facts of the weights beside file, hash and licence, as far as there are any.
    description, licence, references, dtype, fused, container, system, composition
        As for :func:`equistride.artifact.export.save_potential`.
    """
    check_precision(dtype)
    with Path(source).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    facts = {"program": program.strip(), "file": Path(source).name, "sha256": digest, "licence": licence, **weights}
    provenance = {
        "imported_by": f"equistride {__version__}, torch {torch.__version__}",
        "checkpoint": Path(source).name,
        "checkpoint_sha256": digest,
        "config": config.model_dump(mode="json"),
    }
    return save_potential(
        potential, config, output, dtype=dtype, fused=fused, description=description, licence=licence,
        references=references, container=container, system=system, composition=composition, provenance=provenance,
        weights={name: fact for name, fact in facts.items() if fact},
    )  # fmt: skip
