"""Write propagators as artifacts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from equistride import __version__
from equistride.artifact.archive import save
from equistride.artifact.checkpoint import load_weights, unreadable
from equistride.artifact.checkpoint import provenance as origin
from equistride.artifact.metadata import Container, Limits, Metadata, check_precision
from equistride.errors import EquistrideError
from equistride.models.propagator import Propagator
from equistride.models.strides import StridesPropagator
from equistride.models.trajcast import TrajCast, TrajCastConfig


def build_propagator(config: TrajCastConfig, facts: dict[str, Any]) -> Propagator:
    """Build an untrained propagator.

    ``facts`` has species, masses [amu] (one an element), stride_fs, rms_displacement [A], rms_velocity [A/fs], and keep_spin
    where the data came from open systems; for several strides ``strides`` has the three of each, the shortest first. ``fastest``
    [A/fs] of the training's atoms, one an element, may be there.
    """
    strides = facts.get("strides") or [facts]
    network = TrajCast(config, len(facts["species"]), num_strides=len(strides))
    if "fastest" in facts:
        network.know(facts["fastest"])
    rms = [(stride["rms_displacement"], stride["rms_velocity"]) for stride in strides]
    times, of_atoms = [stride["stride_fs"] for stride in strides], (facts["species"], facts["masses"], config.cutoff)
    spin = facts.get("keep_spin", True)
    if len(strides) > 1:
        return StridesPropagator(network, *of_atoms, times, rms, keep_spin=spin)
    return Propagator(network, *of_atoms, times[0], rms[0], keep_spin=spin)


def save_propagator(
    propagator: Propagator, output: Path, *, dtype: str = "float32", tables: float | None = None, shortest: float = 0.5,
    periodic: bool = False, description: str = "", licence: str = "", references: list[str] | None = None,
    accuracy: dict[str, float] | None = None, provenance: dict[str, Any] | None = None,
    container: Container = "torchscript",
) -> Metadata:  # fmt: skip
    """Write a TrajCast propagator as an artifact; dead parameters of the last layer are left out.

    Parameters
    ----------
    propagator, output
        With a :class:`~equistride.models.trajcast.TrajCast` network; where the file goes.
    dtype
        ``"float32"`` or ``"float64"``: the precision in which engines run the network. Momenta are kept in double either way.
    tables
        Where given, weights of bonds come from splines with this relative error instead of a network: about twice as fast.
    shortest
        Shortest bond that the tables cover [A].
    periodic
        Trained on periodic systems alone.
    description, licence, references, accuracy, provenance
        For the metadata.
    container
        As for :func:`equistride.artifact.export.export`.

    Raises
    ------
    EquistrideError
        For an unknown precision, weights that are not finite, tables that cannot reach their error, and for several strides in
        a compiled program.
    """
    check_precision(dtype)
    strides_fs = propagator.strides_fs if isinstance(propagator, StridesPropagator) else []
    if strides_fs and container == "aoti":
        raise EquistrideError(
            "a compiled program makes one stride", expected="--container torchscript",
            found=f"strides of {', '.join(f'{stride:g}' for stride in strides_fs)} fs",
        )  # fmt: skip
    network = propagator.network
    if not isinstance(network, TrajCast):
        raise EquistrideError(
            "this network cannot be saved as a propagator", expected="a TrajCast", found=type(network).__name__
        )
    for name, weight in network.named_parameters():
        if not bool(torch.isfinite(weight).all()):
            raise EquistrideError(f"the weights {name} are not finite", hint="the training diverged: lower its rate")
    config = network.config
    network = network.pruned().double()
    count = sum(p.numel() for p in network.parameters())
    if tables is not None:
        network = network.with_tables(shortest, tables)
    served = propagator.with_network(network)
    metadata = Metadata(
        kind="propagator",
        architecture=config.architecture,
        description=description,
        species=propagator.species,
        masses=propagator.masses,
        cutoff=config.cutoff,
        message_passing_steps=config.num_layers,
        dtype=dtype,  # type: ignore[arg-type]
        periodic="required" if periodic else "any",
        stride_fs=served.stride_fs,
        strides_fs=strides_fs,
        limits=Limits(fastest_atom=config.max_speed),
        ensemble="NVE",
        num_parameters=count,
        provenance={"exported_by": f"equistride {__version__}, torch {torch.__version__}", **(provenance or {})},
        licence=licence,
        references=references or ["arXiv:2503.23794"],
        accuracy=accuracy or {},
    )
    return save(served, metadata, output, container)


def export_propagator(
    checkpoint: Path, content: dict[str, Any], output: Path, *, dtype: str = "float32", tables: float | None = 1e-6,
    shortest: float = 0.5, description: str = "", licence: str = "", references: list[str] | None = None,
    accuracy: dict[str, float] | None = None, container: Container = "torchscript",
) -> Metadata:  # fmt: skip
    """Turn a checkpoint of a propagator into an artifact; use :func:`equistride.artifact.export.export`.

    Parameters
    ----------
    checkpoint, content
        The file, and what :func:`equistride.artifact.checkpoint.read_checkpoint` found in it.
    output, dtype, tables, shortest, description, licence, references, accuracy, container
        As for :func:`save_propagator`.

    Raises
    ------
    EquistrideError
        Where configuration and weights do not make a propagator, and as :func:`save_propagator`.
    """
    facts = content["equistride"]
    try:
        config = TrajCastConfig.model_validate(facts["config"]["model"])
        propagator = build_propagator(config, facts).double()
    except (ValidationError, KeyError, TypeError) as error:
        raise unreadable(checkpoint, error) from None
    load_weights(propagator, content, checkpoint)
    return save_propagator(
        propagator, output, dtype=dtype, tables=tables, shortest=shortest, periodic=bool(facts.get("periodic")),
        description=description or facts["config"]["name"], licence=licence, references=references, accuracy=accuracy,
        provenance=origin(facts), container=container,
    )  # fmt: skip
