"""Begin a run with the weights of another: conservative fine-tuning after direct-force pretraining (arXiv 2502.12147, section 4).

The backbone and the energy head are taken over. A head for direct forces is dropped, or begins anew, with the choice of
``model.forces``; neighbour cap and envelope may change too, because they have no weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from equistride.artifact.export import PotentialConfig, model_config, read_checkpoint
from equistride.errors import EquistrideError

MAY_CHANGE = {"forces", "max_neighbors", "envelope"}
"""Keys of the model that have no weights in the backbone."""


def take_over(path: Path, config: PotentialConfig, facts: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the facts of a new run and the weights to begin it with.

    Elements, scale and reference energies are those of the earlier run, so that the model starts as it was left.

    Parameters
    ----------
    path
        Checkpoint of ``equistride train``.
    config, facts
        The new run's model, and its facts as its own data give them.

    Raises
    ------
    EquistrideError
        Where the file is no checkpoint, is of a model of other sizes, or does not know an element of the data.
    """
    content = read_checkpoint(path)
    earlier = content["equistride"]
    try:
        before = model_config(earlier["config"]["model"]).model_dump()
    except (ValidationError, KeyError, TypeError):
        raise EquistrideError(f"{path} is no checkpoint of a potential", mend="check initialise_from") from None
    now = config.model_dump()
    other = [k for k in now if k not in MAY_CHANGE and before.get(k) != now[k]]
    if other:
        raise EquistrideError(
            f"the weights of {path} do not fit the model", expected=", ".join(f"{k} = {before.get(k)}" for k in other),
            found=", ".join(f"{k} = {now[k]}" for k in other), mend="give both runs the same sizes",
        )  # fmt: skip
    unknown = [s for s in facts["species"] if s not in earlier["species"]]
    if unknown:
        raise EquistrideError(
            f"the weights of {path} know no {', '.join(unknown)}", expected=", ".join(earlier["species"]),
            mend="pretrain on data with all elements",
        )  # fmt: skip
    taken = {key: earlier[key] for key in ("species", "scale", "references")}
    provenance = facts["provenance"] | {"initialised_from": earlier.get("provenance", {})}
    weights = {k.removeprefix("model."): v for k, v in content["state_dict"].items() if k.startswith("model.")}
    if config.forces == "gradient":
        weights = {k: v for k, v in weights.items() if not k.startswith("network.force_head.")}
    return facts | taken | {"provenance": provenance}, weights
