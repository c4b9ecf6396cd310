"""The Lightning module: loss, optimiser, schedule, metrics."""

from __future__ import annotations

import math
from typing import Any

import lightning
import torch
from torch import Tensor

from equistride.models.potential import ConservativePotential, DirectPotential, forces_from_edges
from equistride.nn.equivariant import IrrepLinear
from equistride.training.config import AnyConfig, TrainConfig
from equistride.training.data import Batch
from equistride.training.direct import Denoiser, direct_outputs, displaced, require_bfloat16
from equistride.training.frames_loss import FramesTask
from equistride.training.soap import Soap
from equistride.training.systems import systems_of


def predict(model: ConservativePotential, batch: Batch, create_graph: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return energies [B] (eV, float64), forces [n, 3] (eV/A) and virials [B, 3, 3] (eV) of a batch.

    A model with direct forces has no virials: they are NaN, as where a frame has no label.
    """
    if isinstance(model, DirectPotential):
        energies, forces, _ = direct_outputs(model, batch, batch.vectors)
        return energies, forces, torch.full_like(batch.virial, torch.nan)
    with torch.enable_grad(), systems_of(model.network, batch.charge, batch.spin, batch.frame):
        vectors = batch.vectors.detach().requires_grad_(True)
        atomic = model.atomic_energies(vectors, batch.species, batch.edge_index)
        (gradient,) = torch.autograd.grad(atomic.sum(), vectors, create_graph=create_graph)
    energies = atomic.new_zeros(batch.num_frames).index_add(0, batch.frame, atomic)
    forces = forces_from_edges(gradient, batch.edge_index, len(batch.species))
    edge_virial = -batch.vectors[:, :, None] * gradient[:, None, :]
    of_edge = batch.frame.index_select(0, batch.edge_index[0])
    virials = edge_virial.new_zeros(batch.num_frames, 3, 3).index_add(0, of_edge, edge_virial)
    return energies, forces, virials


def errors(model: ConservativePotential, batch: Batch, create_graph: bool) -> dict[str, Tensor]:
    """Return the errors of a batch: energy per atom [B], force vectors [n, 3], virial per atom [B, 3, 3] (0 unlabelled)."""
    return differences(predict(model, batch, create_graph), batch)


def differences(outputs: tuple[Tensor, Tensor, Tensor], batch: Batch) -> dict[str, Tensor]:
    """Return the errors of a batch's energies, forces and virials, as :func:`errors`."""
    energies, forces, virials = outputs
    count = batch.atoms_per_frame
    virial = (virials - batch.virial) / count[:, None, None]
    return {
        "energy": (energies - batch.energy) / count,
        "force": forces - batch.forces,
        "virial": torch.nan_to_num(virial),
    }


class TrainingModule(lightning.LightningModule):
    """What all networks share: the checkpoint's facts, the optimiser and its schedule.

    Parameters
    ----------
    model
        The network to train.
    config
        The training configuration.
    facts
        Plain values that a checkpoint must carry to build the model again (species, scales, provenance).
    """

    def __init__(self, model: torch.nn.Module, config: AnyConfig, facts: dict[str, Any]) -> None:
        super().__init__()
        self.model, self.config, self.facts = model, config, facts

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what ``equistride export`` needs, in plain types."""
        checkpoint["equistride"] = {"config": self.config.model_dump(mode="json"), **self.facts}

    def transfer_batch_to_device(self, batch: Any, device: torch.device, _: int) -> Any:
        """Move a batch."""
        return batch.to(device)

    def configure_optimizers(self) -> Any:
        """AdamW or SOAP; no weight decay on norms, biases and embeddings; linear warm-up, then cosine."""
        settings = self.config.optimiser
        undecayed = ("norm", "embedding", "sender", "receiver")
        named = self.named_parameters()
        decayed = [p for n, p in named if p.dim() > 1 and not any(k in n for k in undecayed)]
        kept = {id(p) for p in decayed}
        others = [p for p in self.parameters() if id(p) not in kept]
        groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
        betas = (0.9, settings.beta2)
        optimiser: torch.optim.Optimizer
        if settings.method == "soap":
            joined = {m.weight: m.shapes for m in self.modules() if isinstance(m, IrrepLinear)}
            optimiser = Soap(groups, settings.learning_rate, betas, matrices=joined)
        else:
            optimiser = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=betas, amsgrad=settings.amsgrad)
        steps, warmup, last = self.config.trainer.steps, settings.warmup_steps, settings.final_fraction

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / (warmup + 1)
            progress = min(1.0, (step - warmup) / max(1, steps - warmup))
            return last + (1.0 - last) * 0.5 * (1.0 + math.cos(math.pi * progress))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class PotentialModule(TrainingModule):
    """Train a conservative potential on energies, forces and virials; parameters as :class:`TrainingModule`."""

    model: ConservativePotential
    config: TrainConfig

    def __init__(
        self, model: ConservativePotential, config: TrainConfig, facts: dict[str, Any], auxiliary: FramesTask | None = None
    ) -> None:  # fmt: skip
        super().__init__(model, config, facts)
        self.auxiliary = auxiliary
        self.denoiser = Denoiser(config.model) if config.denoising is not None else None

    def on_fit_start(self) -> None:
        """Refuse bfloat16 where the device has none."""
        if self.config.trainer.bfloat16:
            require_bfloat16(self.device)

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Return the weighted loss of a batch."""
        weights, scale = self.config.loss, self.model.scale
        if isinstance(self.model, DirectPotential):
            outputs, denoising = self._direct(self.model, batch)
            error = differences(outputs, batch)
            if denoising is not None:
                energy = error["energy"].abs().mean() / scale
                return (weights.energy * energy + denoising).to(batch.vectors.dtype)
        else:
            error = errors(self.model, batch, create_graph=True)
        energy = error["energy"].abs().mean() / scale
        # the root is rounded off at 1e-6 so that its gradient exists where a force is exact
        force = (error["force"].square().sum(1) / scale**2 + 1e-12).sqrt().mean()
        virial = error["virial"].abs().mean() / scale
        loss = weights.energy * energy + weights.force * force + weights.virial * virial
        self.log("train_loss", loss, batch_size=batch.num_frames)
        self.log(
            "train_force_mae", 1000 * error["force"].detach().abs().mean(), prog_bar=True, batch_size=batch.num_frames
        )
        if self.denoiser is not None:
            loss = loss + 0.0 * sum(p.sum() for p in self.denoiser.parameters())  # processes expect a gradient of each
        if self.auxiliary is not None:
            # each process has a batch of its own
            number = self.global_step * self.trainer.world_size + self.global_rank
            extra = self.auxiliary(self.model.network, number)
            self.log("train_frames_loss", extra.detach(), batch_size=batch.num_frames)
            loss = loss + self.auxiliary.weight(self.global_step) * extra
        return loss.to(batch.vectors.dtype)

    def _direct(self, model: DirectPotential, batch: Batch) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor | None]:
        """Return energies, forces and virials (NaN) of direct forces, and the weighted denoising loss of a displaced batch."""
        settings, half = self.config.denoising, self.config.trainer.bfloat16
        virials = torch.full_like(batch.virial, torch.nan)
        if self.denoiser is None or settings is None:
            return (*direct_outputs(model, batch, batch.vectors, None, half)[:2], virials), None
        # of the step alone, so that a resumed run draws the same; processes differ in their batches
        draws = torch.Generator().manual_seed(self.config.trainer.seed * 1_000_003 + self.global_step)
        if float(torch.rand(1, generator=draws)) >= settings.probability:
            return (*direct_outputs(model, batch, batch.vectors, None, half)[:2], virials), None
        noise = torch.randn(batch.forces.shape, generator=draws, dtype=batch.vectors.dtype).to(batch.vectors.device)
        extra = self.denoiser.encode(batch.forces / model.scale)
        vectors = displaced(batch, settings.sigma * noise)
        energies, forces, features = direct_outputs(model, batch, vectors, extra, half)
        wrong = (self.denoiser.displacements(features) - noise).square().sum(1)
        loss = settings.weight * (wrong + 1e-12).sqrt().mean() + 0.0 * forces.sum()
        self.log("train_denoising_loss", loss.detach(), batch_size=batch.num_frames)
        return (energies, forces, virials), loss

    def _evaluate(self, batch: Batch, name: str) -> None:
        error = errors(self.model, batch, create_graph=False)
        n = batch.num_frames
        show: dict[str, Any] = {"on_epoch": True, "on_step": False, "batch_size": n}
        self.log(f"{name}_energy_mae", 1000 * error["energy"].abs().mean(), prog_bar=True, **show)
        self.log(f"{name}_force_mae", 1000 * error["force"].abs().mean(), prog_bar=True, **show)
        labelled = batch.virial.isfinite().flatten(1).all(1)
        if labelled.any() and not isinstance(self.model, DirectPotential):
            show["batch_size"] = int(labelled.sum())
            self.log(f"{name}_virial_mae", 1000 * error["virial"][labelled].abs().mean(), **show)

    def validation_step(self, batch: Batch, _: int) -> None:
        """Log mean absolute errors: meV/atom, meV/A, meV/atom."""
        self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the same errors on held-out frames."""
        self._evaluate(batch, "test")
