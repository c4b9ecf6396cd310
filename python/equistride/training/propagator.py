"""Train a propagator: the roll-out, its loss, and errors in per cent."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from equistride.errors import EquistrideError
from equistride.models.propagator import Propagator
from equistride.models.strides import StridesPropagator
from equistride.models.trajcast import TrajCast
from equistride.training.config import PropagatorConfig
from equistride.training.module import TrainingModule
from equistride.training.pairs import PairBatch, graph

QUANTITIES = ("displacement", "velocity")
GOLDEN_RATIO = (5**0.5 - 1) / 2
"""Its multiples, less their whole parts, fill 0 to 1 evenly."""
LENGTHS = 64
"""At which weights of bonds are asked for in a step."""


def roll(model: Propagator, batch: PairBatch, *, learning: bool = False) -> tuple[Tensor, Tensor]:
    """Return positions and velocities [K, n, 3] (A, A/fs, float64) after each stride, each from the result of the last.

    While ``learning``, a roll-out ends where the network's own result is none that it covers: what came before tells it so.
    """
    dtype = model.unit.dtype
    positions, velocities = batch.positions, batch.velocities
    vectors, edges = batch.vectors, batch.edge_index
    out = []
    for k in range(len(batch.next_positions)):
        try:
            if k:
                vectors, edges = graph(positions, batch.cell, batch.pbc, batch.frame, model.cutoff)
            displacements, velocities = model.stride(
                positions, velocities, batch.species, vectors.to(dtype), edges, batch.frame, batch.open_frames
            )
        except EquistrideError:
            if not (learning and k):
                raise
            break
        positions = positions + displacements
        out.append((positions, velocities))
    moved, after = zip(*out, strict=True)
    return torch.stack(moved), torch.stack(after)


class PropagatorModule(TrainingModule):
    """Train a propagator on displacements and new velocities; parameters as :class:`TrainingModule`.

    The loss is that of arXiv 2503.23794: mean squared errors, each in units of the rms in the training data; in a roll-out its
    mean over the strides, where the displacement is that from the start. Strides of several lengths take turns, a batch each.
    """

    model: Propagator
    config: PropagatorConfig
    scale: Tensor

    def __init__(self, model: Propagator, config: PropagatorConfig, facts: dict[str, Any]) -> None:
        super().__init__(model, config, facts)
        rms = [
            [
                each["rms_by_element"][s]
                if config.loss.by_element
                else [each["rms_displacement"], each["rms_velocity"]]
                for s in facts["species"]
            ]
            for each in facts.get("strides") or [facts]
        ]
        self.register_buffer("scale", torch.tensor(rms, dtype=torch.float64), persistent=False)
        self.sums: dict[str, float] = {}
        self._network.tabling = True

    @property
    def _network(self) -> TrajCast:
        network = self.model.network
        assert isinstance(network, TrajCast)
        return network

    def _roll(self, batch: PairBatch, *, learning: bool = False) -> tuple[Tensor, Tensor, int]:
        """Return what :func:`roll` does at the stride of the batch, and which that is."""
        which = 0
        if isinstance(self.model, StridesPropagator):
            which = self.model.strides_fs.index(batch.stride_fs)
            self.model.set_stride(which)
        else:
            self.model.stride_fs = batch.stride_fs  # a stage of the curriculum may have its own
        return *roll(self.model, batch, learning=learning), which

    def training_step(self, batch: PairBatch, _: int) -> Tensor:
        """Return the weighted loss of a batch."""
        positions, velocities, which = self._roll(batch, learning=True)
        scale, depth = self.scale[which, batch.species], len(positions)
        weights = self.config.loss
        moved = ((positions - batch.next_positions[:depth]) / scale[:, :1]).square().mean()
        after = ((velocities - batch.next_velocities[:depth]) / scale[:, 1:]).square().mean()
        loss = weights.displacement * moved + weights.velocity * after
        if weights.bond_weights > 0:
            loss = loss + weights.bond_weights * self._bond_weights()
        self.log("train_loss", loss.detach(), prog_bar=True, batch_size=len(batch.cell))
        return loss

    def _bond_weights(self) -> Tensor:
        """Return the mean square of what multiplies messages, at lengths that differ from step to step."""
        network = self._network
        places = torch.arange(LENGTHS, device=self.scale.device) + (GOLDEN_RATIO * self.global_step) % 1.0
        found = network.bond_weights((places * (network.cutoff / LENGTHS)).to(network.start.weight))
        return torch.stack([weights.square().mean() for weights in found]).mean()

    def _start(self) -> None:
        self.sums = {}

    def _evaluate(self, batch: PairBatch) -> None:
        """Add the absolute errors of the last stride's components and the squares of their targets, by length and element."""
        positions, velocities, _ = self._roll(batch)
        pairs = (
            (positions[-1] - batch.next_positions[-1], batch.next_positions[-1] - batch.positions),
            (velocities[-1] - batch.next_velocities[-1], batch.next_velocities[-1]),
        )
        for quantity, (error, target) in zip(QUANTITIES, pairs, strict=True):
            for k, symbol in enumerate(self.facts["species"]):
                mask = batch.species == k
                values = (float(error[mask].abs().sum()), float(target[mask].square().sum()), float(3 * mask.sum()))
                for what, value in zip(("error", "square", "count"), values, strict=True):
                    key = f"{batch.stride_fs:g}/{quantity}/{symbol}/{what}"
                    self.sums[key] = self.sums.get(key, 0.0) + value

    def _report(self, name: str) -> None:
        """Log mean absolute errors in per cent of the rms of what was evaluated, for all atoms and by element; for several
        strides also those of each, and of them all the mean."""
        strides = self.config.data.strides
        found = [self._percents(stride) for stride in strides]
        if len(strides) > 1:
            for stride, percents in zip(strides, found, strict=True):
                for quantity in QUANTITIES:
                    self.log(f"{name}_{quantity}_{stride:g}fs_percent", percents[quantity])
        for what in found[0]:
            mean = sum(percents[what] for percents in found) / len(strides)
            self.log(f"{name}_{what}_percent", mean, prog_bar=what in QUANTITIES)

    def _percents(self, stride_fs: float) -> dict[str, float]:
        """Return the errors at one stride, by quantity, and by quantity and element."""
        percents: dict[str, float] = {}
        for quantity in QUANTITIES:
            total = {"error": 0.0, "square": 0.0, "count": 0.0}
            for symbol in self.facts["species"]:
                mine = {what: self.sums.get(f"{stride_fs:g}/{quantity}/{symbol}/{what}", 0.0) for what in total}
                total = {what: total[what] + mine[what] for what in total}
                if mine["square"] > 0:
                    percents[f"{quantity}_{symbol}"] = _percent(mine)
            percents[quantity] = _percent(total)
        return percents

    def on_validation_epoch_start(self) -> None:
        """Begin the sums."""
        self._start()

    def validation_step(self, batch: PairBatch, _: int) -> None:
        """Add the errors of a batch."""
        self._evaluate(batch)

    def on_validation_epoch_end(self) -> None:
        """Log errors in per cent."""
        self._report("val")

    def on_test_epoch_start(self) -> None:
        """Begin the sums."""
        self._start()

    def test_step(self, batch: PairBatch, batch_idx: int) -> None:
        """Add the errors of a batch of held-out pairs."""
        self._evaluate(batch)

    def on_test_epoch_end(self) -> None:
        """Log errors in per cent."""
        self._report("test")


def _percent(sums: dict[str, float]) -> float:
    """Return the mean absolute error as a share of the root mean square, in per cent."""
    return 100.0 * (sums["error"] / sums["count"]) / (sums["square"] / sums["count"]) ** 0.5
