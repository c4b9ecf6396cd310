"""From a training checkpoint to an artifact."""

from __future__ import annotations

import hashlib
import os
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn

from equistride import __version__
from equistride.artifact.archive import without_debug
from equistride.artifact.metadata import Metadata
from equistride.artifact.reference import reference_json
from equistride.errors import EquistrideError
from equistride.models.equiformer import Equiformer, EquiformerConfig
from equistride.models.esen import ESEN, ESENConfig
from equistride.models.esen_fused import FusedESEN, serving
from equistride.models.potential import ConservativePotential, DirectPotential


def save(module: nn.Module, metadata: Metadata, path: Path) -> None:
    """Script a model and write it with its metadata and reference frame; the file appears whole or not at all.

    Parameters
    ----------
    module
        Scriptable (or scripted) module that obeys the contract of ``metadata.kind``. It is stored in double precision, so that
        constant tables stay exact; engines convert it to ``metadata.dtype`` as they load it.
    metadata, path
        What the file says of itself; where it goes.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise EquistrideError(f"the folder {path.parent} does not exist", mend="make it first")
    module = module.cpu().double().eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # torch.jit is the format that the engines load
        scripted = torch.jit.script(module)
    extra = {
        "metadata.json": metadata.model_dump_json(indent=1),
        "reference.json": reference_json(
            module, len(metadata.species), metadata.cutoff, metadata.dtype, max_speed=metadata.max_speed
        ),
    }
    whole, partial = path.with_name(path.name + ".whole"), path.with_name(path.name + ".partial")
    try:
        torch.jit.save(scripted, str(whole), _extra_files=extra)
        without_debug(whole, partial)
        os.replace(partial, path)
    finally:
        whole.unlink(missing_ok=True)
        partial.unlink(missing_ok=True)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of ``equistride train``: plain types and tensors alone, no code runs.

    Raises
    ------
    EquistrideError
        Where the file is missing, truncated, or not such a checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise EquistrideError(
            f"the checkpoint {path} does not exist", mend="give the file that `equistride train` wrote"
        )
    mend = "give checkpoints/last.ckpt of a run of `equistride train`"
    if not zipfile.is_zipfile(path):
        raise EquistrideError(
            f"{path} is truncated or no checkpoint", expected="a zip archive of torch.save", mend=mend
        )
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise EquistrideError(f"{path} cannot be read as a checkpoint ({reason})", mend=mend) from None
    if not isinstance(checkpoint, dict) or "equistride" not in checkpoint or "state_dict" not in checkpoint:
        raise EquistrideError(
            f"{path} is no checkpoint of equistride", expected="keys 'equistride' and 'state_dict'", mend=mend
        )
    return checkpoint


PotentialConfig = ESENConfig | EquiformerConfig
PUBLICATION = {"esen": "arXiv:2502.12147", "equiformer": "arXiv:2206.11990"}
"""Paper of each architecture."""


def model_config(model: Any) -> PotentialConfig:
    """Check the ``model`` section of a potential's configuration."""
    if isinstance(model, dict) and model.get("architecture") == "equiformer":
        return EquiformerConfig.model_validate(model)
    return ESENConfig.model_validate(model)


def build_potential(config: PotentialConfig, facts: dict[str, Any]) -> ConservativePotential:
    """Build an untrained potential; ``facts`` has species, scale [eV] and references [eV] (one an element)."""
    if isinstance(config, EquiformerConfig):
        equiformer = Equiformer(config, len(facts["species"]))
        return ConservativePotential(equiformer, facts["species"], config.cutoff, facts["scale"], facts["references"])
    network = ESEN(config, len(facts["species"]))
    kind = DirectPotential if config.forces == "direct" else ConservativePotential
    return kind(network, facts["species"], config.cutoff, facts["scale"], facts["references"])


def is_propagator(facts: Any) -> bool:
    """Whether a checkpoint is of a propagator, by its architecture; ``facts`` may be damaged."""
    config = facts.get("config") if isinstance(facts, dict) else None
    model = config.get("model") if isinstance(config, dict) else None
    return isinstance(model, dict) and model.get("architecture") == "trajcast"


def unreadable(checkpoint: Path, error: Exception) -> EquistrideError:
    """Return the sentence for a checkpoint whose configuration cannot be read."""
    reason = str(error).splitlines()[0]
    return EquistrideError(
        f"{checkpoint} is no checkpoint of equistride: its configuration cannot be read ({reason})",
        mend="give checkpoints/last.ckpt of a run of `equistride train`",
    )


def load_weights(model: nn.Module, content: dict[str, Any], checkpoint: Path) -> None:
    """Put a checkpoint's weights into a model; they must fit and be finite."""
    weights = {k.removeprefix("model."): v for k, v in content["state_dict"].items() if k.startswith("model.")}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise EquistrideError(
            f"the weights of {checkpoint} do not fit its config ({str(error).splitlines()[1].strip()})"
        ) from None
    if any(not bool(torch.isfinite(w).all()) for w in weights.values()):
        raise EquistrideError(
            f"{checkpoint} has weights that are not finite", mend="the training diverged: lower the learning rate"
        )


def provenance(facts: dict[str, Any]) -> dict[str, Any]:
    """Return where a checkpoint comes from: its own facts, this package, a hash of its configuration."""
    return {
        **facts.get("provenance", {}),
        "exported_by": f"equistride {__version__}, torch {torch.__version__}",
        "config_sha256": hashlib.sha256(repr(sorted(facts["config"].items())).encode()).hexdigest(),
    }


_CONSERVING = {
    "esen": "fine-tune it with model.forces=gradient, model.max_neighbors=null and model.envelope=polynomial",
    "equiformer": "train it with model.smooth=true",
}
"""How to train a network that conserves energy."""


def require_conservative(config: PotentialConfig, name: object, allow: bool) -> None:
    """Refuse a network that cannot conserve energy, unless that is wanted."""
    if config.caveats and not allow:
        raise EquistrideError(
            f"{name} cannot conserve energy in molecular dynamics ({'; '.join(config.caveats)})",
            mend=f"{_CONSERVING[config.architecture]}, or add --allow-nonconservative",
        )


def fused_facts(potential: ConservativePotential) -> dict[str, Any]:
    """Return what the metadata say of a fused network; nothing for a plain one."""
    network = potential.network
    if not isinstance(network, FusedESEN):
        return {}
    return {"fused": True, "spline_error": network.error}


def export(
    checkpoint: Path, output: Path, *, dtype: str = "float32", description: str = "", licence: str = "",
    references: list[str] | None = None, accuracy: dict[str, float] | None = None, allow_nonconservative: bool = False,
    tables: float | None = 1e-6, shortest: float = 0.5, fused: bool = True,
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

    Returns
    -------
    Metadata
        What the file says of itself.
    """
    content = read_checkpoint(checkpoint)
    facts = content["equistride"]
    if is_propagator(facts):
        from equistride.artifact.propagators import export_propagator

        return export_propagator(
            checkpoint, content, output, dtype=dtype, tables=tables, shortest=shortest, description=description,
            licence=licence, references=references, accuracy=accuracy,
        )  # fmt: skip
    if dtype not in ("float32", "float64"):
        raise EquistrideError("the precision is not known", expected="float32 or float64", found=dtype)
    try:
        config = model_config(facts["config"]["model"])
        potential = build_potential(config, facts).double()
    except (ValidationError, KeyError, TypeError) as error:
        raise unreadable(checkpoint, error) from None
    require_conservative(config, checkpoint, allow_nonconservative)
    load_weights(potential, content, checkpoint)
    count = sum(p.numel() for p in potential.parameters())
    if fused:
        potential = serving(potential, dtype)
    metadata = Metadata(
        kind="potential",
        architecture=config.architecture,
        description=description or facts["config"]["name"],
        species=facts["species"],
        cutoff=config.cutoff,
        num_layers=config.num_layers,
        interaction_range=(config.num_layers + 1) * config.cutoff,  # the first features are sums over neighbours too
        dtype=dtype,  # type: ignore[arg-type]
        periodic="required" if facts.get("periodic") else "any",
        conservative=not config.caveats,
        caveats=config.caveats,
        **fused_facts(potential),
        num_parameters=count,
        provenance=provenance(facts),
        licence=licence,
        references=references or [PUBLICATION[config.architecture]],
        accuracy=accuracy or {},
    )
    save(potential, metadata, output)
    return metadata
