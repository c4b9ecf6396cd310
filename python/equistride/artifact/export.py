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
from equistride.artifact.metadata import Metadata
from equistride.artifact.reference import reference_json
from equistride.errors import EquistrideError
from equistride.models.esen import ESEN, ESENConfig
from equistride.models.potential import ConservativePotential


def save(module: nn.Module, metadata: Metadata, path: Path) -> None:
    """Script a model and write it with its metadata and reference frame; the file appears whole or not at all.

    Parameters
    ----------
    module
        Scriptable module that obeys the contract of ``metadata.kind``. It is stored in double precision, so that constant
        tables stay exact; engines convert it to ``metadata.dtype`` as they load it.
    metadata, path
        What the file says of itself; where it goes.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise EquistrideError(f"the folder {path.parent} does not exist", mend="make it first")
    module = module.cpu().double().eval().requires_grad_(False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # torch.jit is the format that the engines load
        scripted = torch.jit.script(module)
    extra = {
        "metadata.json": metadata.model_dump_json(indent=1),
        "reference.json": reference_json(
            module, len(metadata.species), metadata.cutoff, metadata.dtype, max_speed=metadata.max_speed
        ),
    }
    partial = path.with_name(path.name + ".partial")
    try:
        torch.jit.save(scripted, str(partial), _extra_files=extra)
        os.replace(partial, path)
    finally:
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


def build_potential(config: ESENConfig, facts: dict[str, Any]) -> ConservativePotential:
    """Build an untrained potential; ``facts`` has species, scale [eV] and references [eV] (one an element)."""
    network = ESEN(config, len(facts["species"]))
    return ConservativePotential(network, facts["species"], config.cutoff, facts["scale"], facts["references"])


def export(
    checkpoint: Path, output: Path, *, dtype: str = "float32", description: str = "", licence: str = "",
    references: list[str] | None = None, accuracy: dict[str, float] | None = None,
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

    Returns
    -------
    Metadata
        What the file says of itself.
    """
    content = read_checkpoint(checkpoint)
    facts = content["equistride"]
    if dtype not in ("float32", "float64"):
        raise EquistrideError("the precision is not known", expected="float32 or float64", found=dtype)
    try:
        config = ESENConfig.model_validate(facts["config"]["model"])
        potential = build_potential(config, facts).double()
    except (ValidationError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise EquistrideError(
            f"{checkpoint} is no checkpoint of equistride: its configuration cannot be read ({reason})",
            mend="give checkpoints/last.ckpt of a run of `equistride train`",
        ) from None
    weights = {k.removeprefix("model."): v for k, v in content["state_dict"].items() if k.startswith("model.")}
    try:
        potential.load_state_dict(weights)
    except RuntimeError as error:
        raise EquistrideError(
            f"the weights of {checkpoint} do not fit its config ({str(error).splitlines()[1].strip()})"
        ) from None
    if any(not bool(torch.isfinite(w).all()) for w in weights.values()):
        raise EquistrideError(
            f"{checkpoint} has weights that are not finite", mend="the training diverged: lower the learning rate"
        )
    provenance = dict(facts.get("provenance", {}))
    provenance["exported_by"] = f"equistride {__version__}, torch {torch.__version__}"
    provenance["config_sha256"] = hashlib.sha256(repr(sorted(facts["config"].items())).encode()).hexdigest()
    metadata = Metadata(
        kind="potential",
        architecture=config.architecture,
        description=description or facts["config"]["name"],
        species=facts["species"],
        cutoff=config.cutoff,
        num_layers=config.num_layers,
        interaction_range=config.num_layers * config.cutoff,
        dtype=dtype,  # type: ignore[arg-type]
        periodic="required" if facts.get("periodic") else "any",
        num_parameters=sum(p.numel() for p in potential.parameters()),
        provenance=provenance,
        licence=licence,
        references=references or ["arXiv:2502.12147"],
        accuracy=accuracy or {},
    )
    save(potential, metadata, output)
    return metadata
