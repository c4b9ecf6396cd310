"""From a config to what a trainer needs: the module and its loaders."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from equistride import __version__
from equistride.artifact.export import build_potential
from equistride.artifact.propagators import build_propagator
from equistride.data.frames import Frames
from equistride.data.pairs import frames_apart
from equistride.elements import species_index
from equistride.errors import EquistrideError, tell
from equistride.models.mace_config import MACEConfig
from equistride.models.nequip import NequIPConfig
from equistride.training import pairs
from equistride.training.config import PropagatorConfig, TrainConfig
from equistride.training.data import EpochShuffle, GraphDataset, collate, elements, fit_references, read, split
from equistride.training.frames_loss import FramesTask, labelled_rows
from equistride.training.initialise import check_masses, check_strides, take_over, take_over_propagator
from equistride.training.module import PotentialModule, TrainingModule
from equistride.training.propagator import PropagatorModule
from equistride.training.systems import check_systems, usual_system

RUN = "the run that goes on"
"""Whose weights other masses or strides do not fit, in messages."""


@dataclass(frozen=True)
class Task:
    """``test`` makes the loader of the held-out files, which were read and checked with the others, when it is wanted;
    ``devices`` as Lightning takes it. The training loader begins at the step where the checkpoint ended."""

    module: TrainingModule
    training: DataLoader[Any]
    validation: DataLoader[Any]
    test: Callable[[], DataLoader[Any]]
    devices: int | str = "auto"


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _provenance(groups: Sequence[Frames], files: Sequence[str], root: Path) -> dict[str, Any]:
    return {
        "equistride": __version__, "torch": str(torch.__version__), "python": platform.python_version(),
        "data": {Path(f).name: file_hash(root / f) for f in files},
        "frames": sum(len(g) for g in groups),
    }  # fmt: skip


def _takes_systems(config: TrainConfig) -> bool:
    return getattr(config.model, "charge_spin", "off") != "off"


def _facts(groups: Sequence[Frames], config: TrainConfig, root: Path) -> dict[str, Any]:
    species = elements(groups)
    scale = float(np.sqrt(np.mean(np.concatenate([g.forces.ravel() for g in groups]) ** 2)))
    takes_systems = _takes_systems(config)
    check_systems(groups, takes_systems)
    if scale == 0:
        raise EquistrideError(
            "all forces of the training data are zero, and they are what a potential learns",
            expected="frames in motion",
        )
    return {
        "species": species,
        "scale": scale,
        "references": fit_references(groups, species),
        "periodic": all(bool(g.pbc.all()) for g in groups),
        "provenance": _provenance(groups, config.data.files, root),
        **({"system": usual_system(groups)} if takes_systems else {}),
    }


def _count_virials(groups: Sequence[Frames], asked: bool) -> None:
    """Refuse a virial loss that was asked for where no frame has a label; tell where some have none."""
    labelled = [0 if g.virial is None else int(np.isfinite(g.virial).all((1, 2)).sum()) for g in groups]
    if asked and not any(labelled):
        raise EquistrideError(
            "loss.virial is above 0 and no frame has a stress or a virial",
            expected="stress [eV/A^3] or virial [eV] on the frames, or REF_stress, REF_virial",
            hint="add them to the data, or set loss.virial: 0",
        )
    if any(labelled) and sum(labelled) < sum(map(len, groups)):
        tell(f"{sum(labelled)} of {sum(map(len, groups))} frames have a virial; loss.virial is of these alone")


def _loader(
    groups: Sequence[Frames], species: list[str], config: TrainConfig, shuffle: bool, steps_done: int = 0
) -> DataLoader[Any]:
    dtype = getattr(torch, config.trainer.precision)
    dataset = GraphDataset(groups, species, config.model.cutoff, dtype)
    size = config.data.batch_size
    order = EpochShuffle(len(dataset), config.trainer.seed, size, steps_done) if shuffle else None
    return DataLoader(dataset, size, sampler=order, collate_fn=collate, drop_last=shuffle)


def _with_neighbors(
    config: TrainConfig, groups: Sequence[Frames], species: list[str], known: dict[str, Any]
) -> TrainConfig:
    """Return the configuration with the mean number of neighbours, where the network needs it and is not told: that of an
    earlier run, or of 200 frames spread evenly over the data."""
    model = config.model
    each = isinstance(model, MACEConfig)  # one number a layer
    if not isinstance(model, NequIPConfig | MACEConfig) or model.avg_num_neighbors not in (0, (0,) * model.num_layers):
        return config
    found = known.get("avg_num_neighbors")
    if not found:
        every = max(1, sum(len(g) for g in groups) // 200)
        some = GraphDataset([g[::every] for g in groups], species, config.model.cutoff, torch.float64)
        graphs = [some[k] for k in range(len(some))]
        found = sum(g.edge_index.size(1) for g in graphs) / sum(len(g.species) for g in graphs)
        found = (found,) * model.num_layers if each else found
    return config.model_copy(update={"model": model.model_copy(update={"avg_num_neighbors": found})})


def _check_count(count: int, config: TrainConfig | PropagatorConfig, what: str) -> None:
    if count < config.data.batch_size:
        raise EquistrideError(
            f"there are fewer training {what} than a batch holds", expected=f"{config.data.batch_size} or more",
            found=count, hint="lower data.batch_size or data.thin, or add data",
        )  # fmt: skip


def potential_task(
    config: TrainConfig, root: Path, *, steps_done: int = 0, before: dict[str, Any] | None = None
) -> Task:
    """Prepare the training of a potential from step ``steps_done`` on; relative data paths start at ``root``.

    Where a run goes on, ``before`` is what its checkpoint says: elements, scale and energies of the elements stay what they
    were, also with other data.

    Raises
    ------
    EquistrideError
        Where the data is too little, has atoms on top of each other or no forces but zero, or an element that the run which
        goes on does not know.
    """
    virials = config.loss.virial > 0 and config.model.forces == "gradient"
    groups = read(config.data.files, root, virials=virials)
    paths, validation = split(groups, config.data.validation_fraction, config.trainer.seed)
    training = [g[:: config.data.thin] for g in paths]
    if config.frames is not None:
        training = [g[labelled_rows(g, config.frames)][:: config.data.thin] for g in paths]
    _check_count(sum(len(g) for g in training), config, "frames")
    if virials:
        _count_virials(training, "virial" in config.loss.model_fields_set)
    facts = _facts(training, config, root)
    weights: dict[str, torch.Tensor] = {}
    if before:
        facts |= {key: before[key] for key in ("species", "scale", "references")}
    elif config.initialise_from is not None:
        facts, weights = take_over(root / config.initialise_from, config.model, facts)
    config = _with_neighbors(config, training, facts["species"], before["config"]["model"] if before else facts)
    facts.pop("avg_num_neighbors", None)
    model = build_potential(config.model, facts).to(getattr(torch, config.trainer.precision))
    if weights:
        model.load_state_dict(model.state_dict() | weights)
    species = facts["species"]
    auxiliary: FramesTask | None = None
    if config.frames is not None and config.frames.weight > 0:
        if config.frames.files:
            paths = read(config.frames.files, root, labelled=False)
            check_systems(paths, _takes_systems(config))
        auxiliary = FramesTask(
            model.network, config.frames, paths, species, config.model.cutoff, batch_size=config.data.batch_size,
            seed=config.trainer.seed, steps=config.trainer.steps,
        )  # fmt: skip
    held = read(config.data.test_files, root) if config.data.test_files else []
    if held:
        species_index(elements(held), species, who="the training data", hint="leave them out of data.test_files")
    return Task(
        module=PotentialModule(model, config, facts, auxiliary),
        training=_loader(training, species, config, True, steps_done),
        validation=_loader(validation, species, config, False),
        test=lambda: _loader(held, species, config, False),
        devices=config.trainer.devices,
    )


def propagator_task(
    config: PropagatorConfig, root: Path, *, steps_done: int = 0, before: dict[str, Any] | None = None
) -> Task:
    """Prepare the training of a propagator from step ``steps_done`` on; relative data paths start at ``root``.

    Where a run goes on, ``before`` is what its checkpoint says: scales stay what they were, also with other data.

    Raises
    ------
    EquistrideError
        Where the data cannot be paired (no velocities, no time stamps, a stride that does not fit), has atoms of one element
        with several masses or atoms faster than the model covers, or is too little.
    """
    data, strides = config.data, config.data.strides
    longest = strides[-1]
    groups = [pairs.cooler(g, data.max_temperature_K) for g in read(data.files, root, labelled=False)]
    held = read(data.test_files, root, labelled=False) if data.test_files else []
    for frames in [*groups, *held]:
        for stride in strides:
            frames_apart(frames, stride)
    stretches = [pairs.in_stretches(g, longest, data.validation_fraction) for g in groups]
    training, validation = split(stretches, data.validation_fraction, config.trainer.seed)
    check_systems(training, False, "a propagator takes none")
    species = elements(training)
    weights: dict[str, torch.Tensor] = {}
    taken: dict[str, Any] = {}
    if before:
        species = before["species"]
    elif config.initialise_from is not None:
        taken, weights = take_over_propagator(root / config.initialise_from, config.model, species, data.strides_fs)
        species = taken["species"]
    curriculum = [(stage, stride) for stage in config.curriculum for stride in strides]
    stages = [(stage.stride_fs or stride, stage.rollout) for stage, stride in curriculum]
    cutoff = config.model.cutoff
    dataset = pairs.ChainDataset(training, species, cutoff, stages, thin=data.thin, reversal=data.reversal)
    for k in range(len(stages)):
        _check_count(dataset.count(k), config, "pairs")
    sizes = before["config"]["model"] if before else taken.pop("model", {})
    found = {
        "max_speed": config.model.max_speed or sizes.get("max_speed") or pairs.sensible_speed(training),
        "avg_num_neighbors": config.model.avg_num_neighbors
        or sizes.get("avg_num_neighbors")
        or pairs.average_neighbors(dataset),
    }
    settings = config.model.model_copy(update=found)
    pairs.check_speeds([*groups, *held], settings.max_speed)
    config = config.model_copy(update={"model": settings})
    each = [{"stride_fs": stride, **pairs.scales(training, stride)} for stride in strides]
    pairs_of_last = sum(dataset.count(k) for k in range(len(stages) - len(strides), len(stages)))
    facts: dict[str, Any] = {
        "species": species,
        "masses": pairs.masses_of(groups, species, data.masses),
        "fastest": pairs.fastest_atoms(training, species, settings.max_speed),
        **each[-1],
        **({"strides": each} if data.strides_fs else {}),
        "periodic": all(bool(g.pbc.all()) for g in groups),
        "provenance": _provenance(training, data.files, root) | {"pairs": pairs_of_last},
    }
    if before:
        check_strides(RUN, before, data.strides_fs)
        if not data.strides_fs and before["stride_fs"] != longest:
            raise EquistrideError(f"{RUN} has learned another stride", expected=f"data.stride_fs of {before['stride_fs']:g}",
                                  found=f"{longest:g}", hint="begin a run of its own with initialise_from")  # fmt: skip
        check_masses(RUN, before["masses"], facts["masses"])
        facts |= {key: before[key] for key in facts if key.startswith(("rms_", "strides", "fastest")) and key in before}
        if "fastest" not in before:
            del facts["fastest"]
    elif taken:
        check_masses(root / str(config.initialise_from), taken["masses"], facts["masses"])
        known = [max(pair) for pair in zip(facts["fastest"], taken.get("fastest", facts["fastest"]), strict=True)]
        facts |= taken | {"fastest": known, "provenance": facts["provenance"] | taken["provenance"]}
    model = build_propagator(settings, facts).to(getattr(torch, config.trainer.precision))
    if weights:
        model.load_state_dict(model.state_dict() | weights)
    order = pairs.RunOrder(
        [(stage.from_step, dataset.count(k)) for k, (stage, _) in enumerate(curriculum)], config.trainer.steps,
        data.batch_size, config.trainer.seed, steps_done, len(strides),
    )  # fmt: skip

    def forward_pairs(frames: Sequence[Frames]) -> DataLoader[Any]:
        held = pairs.ChainDataset(frames, species, cutoff, [(stride, 1) for stride in strides], reversal=False)
        of_stride = [held.keys(k) for k in range(len(strides))]
        size = data.batch_size
        batches = [keys[first : first + size] for keys in of_stride for first in range(0, len(keys), size)]
        return DataLoader(held, batch_sampler=batches, collate_fn=pairs.collate)

    if held:
        forward_pairs(held)  # which says what is wrong with them
    return Task(
        module=PropagatorModule(model, config, facts),
        training=DataLoader(dataset, batch_sampler=order, collate_fn=pairs.collate),
        validation=forward_pairs(validation),
        test=lambda: forward_pairs(held),
        devices=1,
    )
