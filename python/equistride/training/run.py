"""``equistride train``: from a config to a checkpoint, with progress, logs and resume."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from equistride import __version__
from equistride.artifact.export import build_potential, read_checkpoint
from equistride.data.frames import Frames
from equistride.errors import EquistrideError
from equistride.training.config import TrainConfig
from equistride.training.data import EpochShuffle, GraphDataset, collate, elements, fit_references, read, split
from equistride.training.module import PotentialModule


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _facts(groups: Sequence[Frames], config: TrainConfig, root: Path) -> dict[str, Any]:
    species = elements(groups)
    forces = np.concatenate([g.forces.ravel() for g in groups])
    return {
        "species": species,
        "scale": float(np.sqrt(np.mean(forces**2))),
        "references": fit_references(groups, species),
        "periodic": all(bool(g.pbc.all()) for g in groups),
        "provenance": {
            "equistride": __version__, "torch": str(torch.__version__), "python": platform.python_version(),
            "data": {Path(f).name: file_hash(root / f) for f in config.data.files},
            "frames": sum(len(g) for g in groups),
        },
    }  # fmt: skip


def _loader(groups: Sequence[Frames], species: list[str], config: TrainConfig, shuffle: bool) -> DataLoader[Any]:
    dtype = getattr(torch, config.trainer.precision)
    dataset = GraphDataset(groups, species, config.model.cutoff, dtype)
    order = EpochShuffle(len(dataset), config.trainer.seed) if shuffle else None
    return DataLoader(dataset, config.data.batch_size, sampler=order, collate_fn=collate, drop_last=shuffle)


def train(
    config: TrainConfig, root: Path, output: Path, *, resume: bool = False, progress: bool = True
) -> dict[str, float]:
    """Train a potential; return its errors on validation and test frames.

    Parameters
    ----------
    config
        The configuration.
    root
        Folder from which relative data paths start.
    output
        Run folder: ``checkpoints/last.ckpt`` (averaged weights and all state), ``log/metrics.csv``.
    resume
        Go on from ``checkpoints/last.ckpt``; without it a folder that has a run is refused.
    progress
        Show a progress bar.

    Returns
    -------
    dict
        ``val_energy_mae``, ``test_energy_mae`` (meV/atom), ``..._force_mae`` (meV/A), ``..._virial_mae`` (meV/atom).
    """
    last = output / "checkpoints" / "last.ckpt"
    if resume and not last.is_file():
        raise EquistrideError(
            f"there is nothing to resume in {output}", expected=str(last), mend="train without --resume"
        )
    if not resume and last.is_file():
        raise EquistrideError(f"{output} already holds a run", mend="add --resume to go on, or choose another folder")
    if resume:
        before, now = read_checkpoint(last)["equistride"]["config"]["model"], config.model.model_dump(mode="json")
        changed = [k for k in now if before.get(k, now[k]) != now[k]]
        if changed:
            raise EquistrideError(
                f"the run in {output} is of another model",
                expected=", ".join(f"{k} = {before[k]}" for k in changed),
                found=", ".join(f"{k} = {now[k]}" for k in changed),
                mend="start a new run in another folder",
            )
    torch.set_num_threads(config.trainer.threads)
    lightning.seed_everything(config.trainer.seed, verbose=False)
    groups = read(config.data.files, root)
    parts = [split(g, config.data.validation_fraction, config.trainer.seed) for g in groups]
    training, validation = [p[0][:: config.data.thin] for p in parts], [p[1] for p in parts]
    count = sum(len(g) for g in training)
    if count < config.data.batch_size:
        raise EquistrideError(
            "there are fewer training frames than a batch holds", expected=f"{config.data.batch_size} or more",
            found=count, mend="lower data.batch_size or data.thin, or add data",
        )  # fmt: skip
    facts = _facts(training, config, root)
    model = build_potential(config.model, facts).to(getattr(torch, config.trainer.precision))
    module = PotentialModule(model, config, facts)
    settings = config.trainer
    saver = ModelCheckpoint(
        output / "checkpoints", save_last=True, save_top_k=0, every_n_train_steps=settings.checkpoint_every
    )
    # weights alone: the mean of an integer table is rounded down, and the network would read other coefficients
    average = EMAWeightAveraging(decay=config.optimiser.ema_decay, use_buffers=False)
    callbacks = [saver, LearningRateMonitor("step"), average]
    trainer = lightning.Trainer(
        max_steps=settings.steps,
        accelerator="auto",
        devices="auto",
        callbacks=callbacks,
        logger=CSVLogger(output, name="log", flush_logs_every_n_steps=50),
        precision="32-true",  # that is: as they are; model and batches have their precision already
        val_check_interval=settings.validate_every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        gradient_clip_val=config.optimiser.clip_norm,
        log_every_n_steps=50,
        inference_mode=False,
        enable_progress_bar=progress,
        enable_model_summary=progress,
        default_root_dir=output,
    )
    species = facts["species"]
    train_loader, val_loader = (_loader(g, species, config, s) for g, s in ((training, True), (validation, False)))
    trainer.fit(
        module,
        train_loader,
        val_loader,
        ckpt_path=str(last) if resume else None,
        weights_only=True if resume else None,
    )
    results = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val_")}
    trainer.save_checkpoint(last)
    if config.data.test_files:
        averaged = torch.load(last, weights_only=True, map_location="cpu")["state_dict"]
        module.load_state_dict(averaged)
        test_loader = _loader(read(config.data.test_files, root), species, config, False)
        tester = lightning.Trainer(
            accelerator="auto",
            devices=1,
            logger=False,
            inference_mode=False,
            enable_progress_bar=progress,
            enable_model_summary=False,
            enable_checkpointing=False,
        )
        results |= {k: float(v) for k, v in tester.test(module, test_loader, verbose=False)[0].items()}
    return results
