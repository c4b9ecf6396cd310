"""FRAMES: an auxiliary loss on frames that follow each other (arXiv 2604.19806), and the controls that tell what it is worth.

Frames of a trajectory pass through the network that learns energies and forces; an equivariant head reads their joined features
and predicts how the atoms moved. The head is dropped on export: what is served is the network alone. The published text gives no
details of the head; everything below its idea is a choice of ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from ase.data import atomic_masses, atomic_numbers, chemical_symbols
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from equistride.data.frames import Frames
from equistride.elements import species_index
from equistride.errors import EquistrideError
from equistride.models.potential import forces_from_edges
from equistride.nn.degrees import DegreeGate, DegreeLinear, DegreeNorm
from equistride.nn.harmonics import SphericalHarmonics
from equistride.training.pairs import graph
from equistride.training.systems import systems_of


class FramesConfig(BaseModel):
    """The auxiliary loss. The defaults leak no label: positions alone, of frames whose labels the loss does not see."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weight: float = Field(0.1, ge=0)
    """Weight of the loss, which is of order 1: the mean length of the error in units of the target's rms. 0 switches it off. The
    displacement is a per cent of a distance, so that its gradient is steep; what weight helps, and whether any does, depends on
    the labels and the length of the training (``benchmarks/frames.py``; the force loss there has 80)."""
    schedule: Literal["linear", "constant"] = "linear"
    """``linear``: the weight falls to 0 at the end of the training, so that the last steps are for the labels alone."""
    mode: Literal["pair", "history", "single"] = "pair"
    """Which frames the head sees. ``pair``: t and the ``frames`` after it; the displacement is then a reconstruction.
    ``history``: t and the ``frames`` before it; what comes next is a prediction, which needs the force. ``single``: t alone,
    from which at 0.5 fs over 99 % of a displacement cannot be known."""
    frames: int = Field(1, ge=1, le=8)
    """T: how many frames beside t; for T > 1 the displacement is that from t to the last, and the second difference reaches T
    frames to either side."""
    spacing_fs: float | None = Field(None, gt=0)
    """Time between the frames; that of the data where left out."""
    target: Literal["displacement", "second-difference", "velocity"] = "displacement"
    """What the head predicts. ``displacement``: p(t+1) - p(t), free of labels. ``second-difference``: p(t+1) - 2 p(t) + p(t-1) =
    F dt^2 / m: **the force label itself**, also for frames whose labels are not to be used. ``velocity``: v(t); with the frames
    beside it that is their difference again."""
    readout: Literal["vector", "gradient"] = "vector"
    """How the head reads it. ``vector``: from features of degree 1, of all frames joined. ``gradient``: the slope of a scalar of
    the features of t, over the masses: p(t+1) = 2 p(t) - p(t-1) + F dt^2 / m with an F of the head's own. For ``mode: single``
    and ``target: second-difference``; it needs a weight like that of the force loss."""
    labels: Literal["all", "anchor"] = "all"
    """Whose energies and forces are learnt. ``all``: those of all training frames. ``anchor``: of every (T + 1)th alone, so
    that no frame is both a partner and labelled."""
    control: Literal["none", "noise", "self", "shuffled", "dens"] = "none"
    """What tells signal from regularisation. ``noise``: the partner is t with Gaussian noise of the displacement's size, the
    target the noise. ``self``: the partner is t itself, the target its positions about their centre. ``shuffled``: partners of
    another t (where t alone is seen, the target of another t), so that the target cannot be known. ``dens``: denoising of
    ``noise`` A with the forces of t as input (arXiv 2403.09549): **it reads force labels**, those of its training frames."""
    noise: float = Field(0.05, gt=0)
    """A, for ``dens``."""
    files: list[str] = []
    """Trajectories for this loss instead of the training frames; they need no labels. Relative paths start at the config."""
    channels: int = Field(32, ge=1)
    """Width of the head."""

    @model_validator(mode="after")
    def _fit(self) -> FramesConfig:
        pair = self.mode == "pair" and self.target == "displacement" and self.frames == 1
        alone = self.mode == "single" and self.target == "second-difference"
        if self.control != "none" and not pair and not (alone and self.control == "shuffled"):
            raise ValueError("a control only with mode: pair, target: displacement and frames: 1")
        if self.mode == "single" and self.frames != 1 and not alone:
            raise ValueError("frames: 1 with mode: single, which sees no other frames")
        if self.readout == "gradient" and not alone:
            raise ValueError("readout: gradient only with mode: single and target: second-difference")
        return self


def encode(
    network: Any, vectors: Tensor, species: Tensor, edge_index: Tensor, extra: list[Tensor] | None = None
) -> list[Tensor]:
    """Return the atoms' features, one tensor [N, 2 l + 1, C_l] for each degree, of any of our backbones.

    A backbone has ``edges(vectors, species, edge_index)`` and ``features(species, edges, extra)``, which gives such a list or
    (eSEN) one tensor [N, (l_max + 1)^2, C].
    """
    edges = network.edges(vectors, species, edge_index)
    if isinstance(network.channels, int):
        whole = network.features(species, edges, None if extra is None else torch.cat(extra, 1))
        return list(whole.split([2 * n + 1 for n in range(network.l_max + 1)], 1))
    return network.features(species, edges, extra)


def degree_channels(network: Any) -> list[int]:
    """Return the channels of each degree of a backbone's features."""
    channels = network.channels
    found = [channels] * (network.l_max + 1) if isinstance(channels, int) else list(channels)
    if len(found) < 2:
        raise EquistrideError(
            "the network has no vectors, from which a displacement could be read", expected="features of degree 1",
            found="degree 0 alone", hint="raise model.l_max, or give model.channels a second number",
        )  # fmt: skip
    return found


class DisplacementHead(nn.Module):
    """From the joined features of several frames to one vector an atom: norm, gated linear layers, equivariant.

    Features of frames 0.5 fs apart differ by a per cent: joined are those of the first and, times ``gain``, the others'
    differences from it, which is the same information in a form that learns a hundred times faster.
    """

    gain: Tensor

    def __init__(self, channels: list[int], num_frames: int, width: int) -> None:
        super().__init__()
        self.register_buffer("gain", torch.ones(num_frames))
        self.norm = DegreeNorm(channels[:2])
        joined = [num_frames * c for c in channels[:2]]
        self.gates = nn.ModuleList(DegreeGate([width, width]) for _ in range(2))
        self.first = DegreeLinear(joined, DegreeGate([width, width]).input_channels())
        self.second = DegreeLinear([width, width], DegreeGate([width, width]).input_channels())
        self.last = DegreeLinear([width, width], [1, 1], bias=False)
        with torch.no_grad():
            self.last.weight.mul_(0.1)  # so that it begins by saying nothing

    def join(self, frames: list[list[Tensor]]) -> list[list[Tensor]]:
        """Return the normed features of the first frame, and of each other its difference from them."""
        normed = [self.norm(x[:2]) for x in frames]
        return [normed[0], *([a - b for a, b in zip(other, normed[0], strict=True)] for other in normed[1:])]

    @torch.no_grad()
    def set_gain(self, frames: list[list[Tensor]]) -> None:
        """Make the differences as large as the features themselves, by the example of ``frames``."""
        for k, x in enumerate(self.join(frames)):
            size = float(torch.cat([part.flatten() for part in x]).square().mean().sqrt())
            self.gain[k] = 1.0 / size if size > 1e-6 else 1.0

    def forward(self, frames: list[list[Tensor]]) -> Tensor:
        """Return vectors [N, 3] of the features of each frame."""
        joined = self.join(frames)
        x = [torch.cat([y[n] * self.gain[k] for k, y in enumerate(joined)], 2) for n in range(2)]
        for layer, gate in zip((self.first, self.second), self.gates, strict=True):
            x = gate(layer(x))
        return self.last(x)[1].squeeze(2)


class PotentialHead(nn.Module):
    """From one frame's features to one vector an atom: the downhill slope of a learned energy of its own, over the atoms' masses.

    It is Verlet's rule with an unknown potential. What the vector of :class:`DisplacementHead` teaches ends in features of degree
    1, which the energy of the last layer does not read; this one teaches the scalars and their slope, which are the forces.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.norm = DegreeNorm([channels])
        self.first, self.last = DegreeLinear([channels], [width]), DegreeLinear([width], [1], bias=False)
        self.size = nn.Parameter(torch.tensor(0.1))

    def forward(self, features: list[Tensor], vectors: Tensor, edge_index: Tensor, masses: Tensor) -> Tensor:
        """Return vectors [N, 3] of a frame's features, its edge ``vectors`` [E, 3] (with a gradient) and ``masses`` [N]."""
        x = nn.functional.silu(self.first(self.norm(features[:1]))[0])
        (slope,) = torch.autograd.grad(self.last([x])[0].sum(), vectors, create_graph=True)
        return self.size * forces_from_edges(slope, edge_index, len(masses)) / masses[:, None]


class ForceEncoding(nn.Module):
    """Forces as features of all degrees, for denoising: harmonics of their direction times their length."""

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        self.rows = [2 * n + 1 for n in range(len(channels))]
        self.harmonics, self.linear = SphericalHarmonics(len(channels) - 1), DegreeLinear([1] * len(channels), channels)

    def forward(self, forces: Tensor) -> list[Tensor]:
        """Return features for forces [N, 3] in units of their rms."""
        y = self.harmonics(forces) * torch.linalg.vector_norm(forces, dim=1, keepdim=True) / math.sqrt(3.0)
        return self.linear([part[:, :, None] for part in y.split(self.rows, 1)])


@dataclass(frozen=True)
class _Chains:
    """A trajectory and the frames of it that have all their partners; ``step`` rows lie one spacing apart."""

    frames: Frames
    kinds: Tensor
    anchors: NDArray[np.int64]
    step: int


class _Picked(NamedTuple):
    """Of each anchor of a step: ``inputs`` [inputs, N, 3] A, ``target`` [N, 3] A, trajectory, row, and the rows of its inputs,
    whose cell, charge and spin they have."""

    inputs: list[NDArray[np.float64]]
    targets: list[NDArray[np.float64]]
    chains: list[_Chains]
    rows: list[int]
    seen_rows: list[NDArray[np.int64]]


class _Encoded(NamedTuple):
    """``features`` of each input frame of a batch; ``vectors`` [E, 3], ``edges`` [2, E] and ``species`` [N] of all of them."""

    features: list[list[Tensor]]
    vectors: Tensor
    edges: Tensor
    species: Tensor


def rows_apart(frames: Frames, spacing_fs: float | None) -> int:
    """Return how many rows lie ``spacing_fs`` apart; without it 1. Time stamps must be there and even within a segment.

    Raises
    ------
    EquistrideError
        Where there are no time stamps, they are uneven, or the spacing is no multiple of theirs.
    """
    if frames.time_fs is None:
        raise EquistrideError(
            "the data has no time stamps, so that no frames can be paired", expected="time_fs [frames]",
            hint="make it with `equistride data md17` or `equistride data pairs`, or add time_fs and segment to the npz file",
        )  # fmt: skip
    same = np.ones(len(frames) - 1, bool) if frames.segment is None else np.diff(frames.segment) == 0
    steps = np.diff(frames.time_fs)[same]
    usual = float(np.median(steps)) if len(steps) else 0.0
    if usual <= 0 or np.abs(steps - usual).max() > 1e-3 * usual:
        raise EquistrideError(
            "the frames of a segment are not evenly spaced in time", found=f"a median of {usual:g} fs",
            hint="give every stretch without a gap a segment of its own",
        )  # fmt: skip
    ratio = 1.0 if spacing_fs is None else spacing_fs / usual
    if round(ratio) < 1 or abs(ratio - round(ratio)) > 1e-3:
        raise EquistrideError(
            "frames.spacing_fs is not a multiple of the time between frames", expected=f"a multiple of {usual:g} fs",
            found=f"{spacing_fs:g} fs",
        )  # fmt: skip
    return round(ratio)


def anchors(frames: Frames, offsets: Sequence[int]) -> NDArray[np.int64]:
    """Return the rows whose neighbours at all ``offsets`` (in rows) are in the same segment."""
    first, last = max(0, -min(offsets)), len(frames) - max(0, *offsets)
    rows = np.arange(first, max(first, last))
    segment = np.zeros(len(frames), np.int64) if frames.segment is None else frames.segment
    fine = np.ones(len(rows), bool)
    for offset in offsets:
        fine &= segment[rows + offset] == segment[rows]
    return rows[fine]


def labelled_rows(frames: Frames, config: FramesConfig) -> NDArray[np.int64]:
    """Return the rows whose labels are learnt: all, or every (T + 1)th of a segment that has its partners."""
    if config.labels == "all":
        return np.arange(len(frames))
    step = rows_apart(frames, config.spacing_fs)
    found = anchors(frames, [step * k for k in range(config.frames + 1)])
    kept: list[int] = []
    segment = np.zeros(len(frames), np.int64) if frames.segment is None else frames.segment
    for row in found.tolist():
        if not kept or segment[row] != segment[kept[-1]] or row > kept[-1] + step * config.frames:
            kept.append(row)
    return np.array(kept, np.int64)


class FramesTask(nn.Module):
    """The auxiliary loss with its head and its data.

    Batches depend on the seed and the step alone: a resumed run meets the same ones, and the batches of labelled frames are those
    of a run without this loss.

    Parameters
    ----------
    network
        The backbone.
    config
        The configuration.
    groups
        Trajectories with time stamps.
    species, cutoff
        Of the model (cutoff in A).
    batch_size, seed, steps
        Of the run.

    Raises
    ------
    EquistrideError
        Where frames cannot be paired, a target is not in the data, or the network has no vectors.
    """

    masses: Tensor

    def __init__(
        self, network: Any, config: FramesConfig, groups: Sequence[Frames], species: Sequence[str], cutoff: float, *,
        batch_size: int, seed: int, steps: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.config, self.cutoff, self.batch_size, self.seed, self.steps = config, cutoff, batch_size, seed, steps
        t = config.frames
        self.inputs = {"pair": list(range(t + 1)), "history": list(range(-t, 1)), "single": [0]}[config.mode]
        if config.target == "second-difference":
            self.reads = [-t, 0, t]
        else:
            self.reads = [0, t if config.mode == "pair" else 1] if config.target == "displacement" else [0]
        if config.control == "dens":
            self.inputs, self.reads = [0], [0]
        self.chains = [c for c in (self._chain(frames, species) for frames in groups) if len(c.anchors)]
        self.total = sum(len(c.anchors) for c in self.chains)
        if not self.total:
            raise EquistrideError(
                "no frame of the data has its partners in the same segment",
                expected=f"segments of {max(self.inputs + self.reads) - min(self.inputs + self.reads) + 1} frames or more",
                hint="make longer segments, or lower frames.frames or frames.spacing_fs",
            )  # fmt: skip
        channels = degree_channels(network)
        seen = len(self.inputs)
        self.head: DisplacementHead | PotentialHead
        if config.readout == "gradient":
            self.head = PotentialHead(channels[0], config.channels)
        else:
            self.head = DisplacementHead(channels, seen, config.channels)
        self.encoding = ForceEncoding(channels) if config.control == "dens" else None
        self.moved = config.noise * math.sqrt(3.0) if config.control == "dens" else self._rms(config.target)
        self.scale = self.moved
        if config.control == "self":
            spread = [c.frames.positions - c.frames.positions.mean(1, keepdims=True) for c in self.chains]
            self.scale = float(np.sqrt(np.mean([(s**2).sum(2).mean() for s in spread])))
        self.force_scale = 1.0
        if config.control == "dens":
            self.force_scale = float(np.sqrt(np.mean([(c.frames.forces**2).mean() for c in self.chains])))
        masses = torch.tensor([float(atomic_masses[atomic_numbers[s]]) for s in species])
        self.register_buffer("masses", masses / masses.mean(), persistent=False)
        self.to(next(network.parameters()))
        if isinstance(self.head, DisplacementHead):
            with torch.no_grad():
                self.head.set_gain(self._encode(network, self.batch(0)).features)

    def _chain(self, frames: Frames, species: Sequence[str]) -> _Chains:
        if self.config.target == "velocity" and frames.velocities is None:
            raise EquistrideError("the data has no velocities", hint="choose frames.target=displacement")
        if self.config.control == "dens" and not np.isfinite(frames.forces).all():
            raise EquistrideError("the control dens needs forces", hint="choose another control")
        step = 1 if self.config.control == "dens" else rows_apart(frames, self.config.spacing_fs)
        rows = anchors(frames, [step * k for k in {*self.inputs, *self.reads}])
        kinds = torch.tensor(species_index((chemical_symbols[z] for z in frames.numbers), species))
        return _Chains(frames, kinds, rows, step)

    def _target(self, chain: _Chains, rows: NDArray[np.int64], target: str) -> NDArray[np.float64]:
        """Return the target [rows, N, 3] of some anchors; a shift of all atoms cannot be seen and is taken out."""
        p, step = chain.frames.positions, chain.step
        if target == "velocity":
            assert chain.frames.velocities is not None
            value = chain.frames.velocities[rows]
        elif target == "second-difference":
            far = step * self.config.frames
            value = p[rows + far] - 2 * p[rows] + p[rows - far]
        else:
            value = p[rows + self.reads[-1] * step] - p[rows]
        return value - value.mean(1, keepdims=True)

    def _rms(self, target: str) -> float:
        """Return the rms length of the target, over 1,000 anchors at most of each trajectory."""
        squares = []
        for chain in self.chains:
            rows = chain.anchors[:: max(1, len(chain.anchors) // 1000)]
            squares.append(float((self._target(chain, rows, target) ** 2).sum(2).mean()))
        found = math.sqrt(sum(squares) / len(squares))
        if found <= 0:
            raise EquistrideError(f"the atoms do not move: the {target} is zero everywhere", hint="check the data")
        return found

    def weight(self, step: int) -> float:
        """Return the weight of the loss at a step."""
        left = 1.0 if self.config.schedule == "constant" else max(0.0, 1.0 - step / self.steps)
        return self.config.weight * left

    def batch(self, step: int) -> _Picked:
        """Return the anchors of a step: input frames and target of each, and where they are from."""
        rng = np.random.default_rng((self.seed, step))
        bounds = np.cumsum([0, *(len(c.anchors) for c in self.chains)])
        picked = rng.choice(self.total, self.batch_size, replace=self.total < self.batch_size)
        found = _Picked([], [], [], [], [])
        for number in picked.tolist():
            which = int(np.searchsorted(bounds, number, side="right")) - 1
            chain = self.chains[which]
            row = int(chain.anchors[number - bounds[which]])
            p = chain.frames.positions
            seen_rows = np.array([row + k * chain.step for k in self.inputs])
            seen = p[seen_rows]
            aim = self._target(chain, np.array([row]), self.config.target)[0]
            if self.config.control in ("noise", "dens"):
                aim = rng.normal(size=aim.shape) * self.moved / math.sqrt(3.0)
                aim -= aim.mean(0)
                seen = np.stack([p[row], p[row] + aim]) if self.config.control == "noise" else (p[row] + aim)[None]
                seen_rows = np.full(len(seen), row)
            elif self.config.control == "self":
                seen, aim = np.stack([p[row], p[row]]), p[row] - p[row].mean(0)
                seen_rows = np.array([row, row])
            elif self.config.control == "shuffled":
                other = int(rng.choice(chain.anchors))
                if self.config.mode == "single":
                    aim = self._target(chain, np.array([other]), self.config.target)[0]
                else:
                    seen_rows = np.array([row, other + chain.step])
                    seen = p[seen_rows]
            found.inputs.append(seen)
            found.targets.append(aim)
            found.chains.append(chain)
            found.rows.append(row)
            found.seen_rows.append(seen_rows)
        return found

    def _encode(self, network: Any, picked: _Picked) -> _Encoded:
        """Return what the network makes of the input frames of a batch."""
        some = next(network.parameters())
        place: dict[str, Any] = {"dtype": some.dtype, "device": some.device}
        inputs, chains = picked.inputs, picked.chains
        count, repeats = len(inputs), len(inputs[0])
        # all input frames in one pass: those at t of the whole batch, then the next of the whole batch ...
        frame = torch.repeat_interleave(
            torch.arange(count * repeats), torch.tensor([len(c.kinds) for c in chains] * repeats)
        )
        species = torch.cat([c.kinds for c in chains] * repeats).to(some.device)
        places = [(c.frames, rows[k]) for k in range(repeats) for c, rows in zip(chains, picked.seen_rows, strict=True)]
        cells = torch.from_numpy(np.stack([frames.cell[row] for frames, row in places]))
        charge, spin = (
            torch.tensor([0.0 if given is None else np.nan_to_num(given[row]) for given, row in values]).to(**place)
            for values in ([(f.charge, row) for f, row in places], [(f.spin, row) for f, row in places])
        )
        pbc = torch.from_numpy(np.stack([c.frames.pbc for c in chains] * repeats))
        positions = torch.from_numpy(np.concatenate([seen[k] for k in range(repeats) for seen in inputs]))
        extra: list[Tensor] | None = None
        if self.encoding is not None:
            forces = np.concatenate([frames.forces[row] for frames, row in places])
            extra = self.encoding(torch.from_numpy(forces / self.force_scale).to(**place))
        vectors, edges = graph(positions, cells, pbc, frame, self.cutoff)
        vectors, edges = vectors.to(**place).requires_grad_(isinstance(self.head, PotentialHead)), edges.to(some.device)
        with systems_of(network, charge, spin, frame.to(some.device)):
            features = [x.chunk(repeats) for x in encode(network, vectors, species, edges, extra)]
        return _Encoded([list(x) for x in zip(*features, strict=True)], vectors, edges, species)

    def forward(self, network: Any, step: int) -> Tensor:
        """Return the loss of a step, before its weight: mean length of the error in units of the target's rms."""
        picked = self.batch(step)
        seen = self._encode(network, picked)
        if isinstance(self.head, PotentialHead):
            found = self.head(seen.features[0], seen.vectors, seen.edges, self.masses[seen.species])
        else:
            found = self.head(seen.features)
        aim = torch.from_numpy(np.concatenate(picked.targets) / self.scale).to(found)
        return ((found - aim).square().sum(1) + 1e-12).sqrt().mean()
