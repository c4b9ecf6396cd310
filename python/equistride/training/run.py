"""``equistride train``: from a config to a checkpoint, with progress, logs and resume."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from equistride.artifact.checkpoint import LAST, PREVIOUS, read_checkpoint
from equistride.errors import EquistrideError, quiet
from equistride.training.checkpoints import CheckpointFiles, newest
from equistride.training.config import AnyConfig, PropagatorConfig
from equistride.training.task import Task, potential_task, propagator_task
from equistride.writing import locked, write


def _before(output: Path, resume: bool) -> tuple[Path | None, dict[str, Any]]:
    """Return the checkpoint to go on from, or nothing; refuse to begin where a run is, and to go on where none is."""
    folder = output / "checkpoints"
    there = any((folder / name).is_file() for name in (LAST, PREVIOUS))
    if resume and not there:
        raise EquistrideError(
            f"there is nothing to resume in {output}", expected=str(folder / LAST), hint="train without --resume"
        )
    if not resume and there:
        raise EquistrideError(f"{output} already holds a run", hint="add --resume to go on, or choose another folder")
    return newest(folder) if resume else (None, {})


def _check_same_model(output: Path, facts: dict[str, Any], config: AnyConfig) -> None:
    before, now = facts["config"]["model"], config.model.model_dump(mode="json")
    changed = [k for k in now if before.get(k, now[k]) != now[k]]
    if changed:
        raise EquistrideError(
            f"the run in {output} is of another model",
            expected=", ".join(f"{k} = {before[k]}" for k in changed),
            found=", ".join(f"{k} = {now[k]}" for k in changed),
            hint="start a new run in another folder",
        )


class _Terminated(lightning.Callback):
    """Ends a run after the step in which SIGTERM came, as queues send it before a job's time is up.

    Of one process: with more, Lightning's own handler ends them all at once, without a checkpoint.
    """

    asked = False

    def _ask(self, *_: object) -> None:
        self.asked = True

    def on_train_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Listen in the place of Lightning, which puts back what was there before when it is done."""
        if trainer.world_size == 1 and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._ask)

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Stop where it was asked for."""
        trainer.should_stop = trainer.should_stop or self.asked


class _Ticking(lightning.Callback):
    """Tells how far a run is."""

    def __init__(self, tick: Callable[[int, int], None]) -> None:
        self._tick = tick

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Tell the step."""
        self._tick(trainer.global_step, int(trainer.max_steps))


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let Ctrl-C be a KeyboardInterrupt again, where lightning makes an exit with status 1 of it."""
    try:
        yield
    except SystemExit as end:
        if isinstance(end.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise


def _first_process() -> bool:
    return int(getattr(rank_zero_only, "rank", 0)) == 0


def train(
    config: AnyConfig, root: Path, output: Path, *, resume: bool = False, progress: bool = True,
    tick: Callable[[int, int], None] | None = None,
) -> dict[str, float]:  # fmt: skip
    """Train a potential or a propagator; return its errors on validation and test frames.

    Parameters
    ----------
    config
        The configuration.
    root
        Folder from which relative data paths start.
    output
        Run folder: ``checkpoints/last.ckpt`` (averaged weights and all state), ``previous.ckpt``, the one before it,
        and ``log/metrics.csv``.
    resume
        Go on from ``checkpoints/last.ckpt``, or where that is damaged from ``previous.ckpt``, which is told; without it a
        folder that has a run is refused.
    progress
        Show a progress bar.
    tick
        Told steps done and steps in all, after each.

    Returns
    -------
    dict
        Of a potential ``val_energy_mae``, ``test_energy_mae`` (meV/atom), ``..._force_mae`` (meV/A), ``..._virial_mae``
        (meV/atom); of a propagator ``val_displacement_percent``, ``test_velocity_percent`` ... (mean absolute error of a
        component, in per cent of the rms of the frames evaluated), also by element, ``test_velocity_Si_percent``.

    Raises
    ------
    KeyboardInterrupt
        On Ctrl-C; ``checkpoints/last.ckpt`` stays as it was written last. On SIGTERM after the step under way, which it has.
    EquistrideError
        Also where another process trains in this folder.
    """
    begin, checkpoint = _before(output, resume)
    before, done = checkpoint.get("equistride", {}), int(checkpoint.get("global_step", 0))
    torch.set_num_threads(config.trainer.threads)
    torch.ops.equistride.keep_freed_memory()  # a step makes anew what the last one freed: a fifth faster with water
    lightning.seed_everything(config.trainer.seed, verbose=False)
    if isinstance(config, PropagatorConfig):
        task = propagator_task(config, root, steps_done=done, before=before)
    else:
        task = potential_task(config, root, steps_done=done, before=before)
    if resume:
        _check_same_model(output, before, task.module.config)
    output.mkdir(parents=True, exist_ok=True)
    if progress and _first_process():
        print(f"{sum(p.numel() for p in task.module.model.parameters()):,} parameters, {config.trainer.steps:,} steps")
    # Lightning's remarks on short and resumed runs, and on its own services
    with locked(output) if _first_process() else nullcontext(), quiet("lightning.pytorch", "lightning"):
        return _fit(config, task, output, begin, progress, tick)


def _fit(
    config: AnyConfig, task: Task, output: Path, begin: Path | None, progress: bool,
    tick: Callable[[int, int], None] | None,
) -> dict[str, float]:  # fmt: skip
    """Train from a checkpoint or the start, and evaluate; as :func:`train`."""
    last = output / "checkpoints" / LAST
    if begin is not None and begin != last and _first_process():
        write(last, begin.read_bytes())  # a damaged one must not become the one before
    settings = config.trainer
    saver = ModelCheckpoint(
        output / "checkpoints",
        save_last=True,
        save_top_k=0,
        every_n_train_steps=settings.checkpoint_every,
        enable_version_counter=False,  # a run that goes on with another interval still writes last.ckpt
    )
    # weights alone: the mean of an integer table is rounded down, and the network would read other coefficients
    average = EMAWeightAveraging(decay=config.optimiser.ema_decay, use_buffers=False)
    terminated = _Terminated()
    callbacks = [saver, LearningRateMonitor("step"), average, terminated, *([_Ticking(tick)] if tick else [])]
    trainer = lightning.Trainer(
        max_steps=settings.steps,
        accelerator="auto",
        devices=task.devices,
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
        enable_model_summary=False,
        use_distributed_sampler=False,  # the order of frames is shared out by EpochShuffle
        default_root_dir=output,
        plugins=[CheckpointFiles()],
    )
    with _stoppable():
        trainer.fit(
            task.module,
            task.training,
            task.validation,
            ckpt_path=None if begin is None else str(begin),
            weights_only=None if begin is None else True,
        )
    results = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val_")}
    trainer.save_checkpoint(last)
    if terminated.asked and trainer.global_step < settings.steps:
        raise KeyboardInterrupt
    if trainer.global_step % settings.validate_every or not results:  # what was printed is of an earlier step
        results = _evaluate(task, last, progress, on_test_files=False)
    if config.data.test_files:
        results |= _evaluate(task, last, progress, on_test_files=True)
    if not all(map(math.isfinite, results.values())):
        raise EquistrideError(
            f"the run has diverged: errors of {last} are not finite",
            hint="lower optimiser.learning_rate, and look for frames with impossible labels",
        )
    return results


def _evaluate(task: Task, checkpoint: Path, progress: bool, *, on_test_files: bool) -> dict[str, float]:
    """Evaluate the averaged weights of a checkpoint on the validation frames or the held-out files."""
    task.module.load_state_dict(read_checkpoint(checkpoint)["state_dict"])
    tester: Any = lightning.Trainer(
        accelerator="auto",
        devices=1,
        logger=False,
        inference_mode=False,
        enable_progress_bar=progress,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    with _stoppable():
        if on_test_files:
            (found,) = tester.test(task.module, task.test(), verbose=False)
        else:
            (found,) = tester.validate(task.module, task.validation, verbose=False)
        return {k: float(v) for k, v in found.items()}
