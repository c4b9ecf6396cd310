"""Chains of frames in batches: where a propagator starts, and where it should be one or more strides later."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from ase.data import atomic_masses, atomic_numbers, chemical_symbols
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from equistride.data.frames import Frames
from equistride.data.pairs import chains, frames_apart
from equistride.elements import species_index
from equistride.errors import EquistrideError, tell
from equistride.graph import edge_vectors, neighbor_list

Key = tuple[int, int]
"""Stage of the curriculum (of several strides, each of its strides), and number of a chain in it."""


@dataclass(frozen=True)
class PairBatch:
    """B chains of K strides with n atoms and e edges in all.

    ``positions``, ``velocities`` [n, 3] A, A/fs at the start, ``species`` [n], ``cell`` [B, 3, 3] A, ``pbc`` [B, 3], ``vectors``
    [e, 3] A and ``edge_index`` [2, e] of the start, ``frame`` [n] (chain of each atom), ``next_positions`` and
    ``next_velocities`` [K, n, 3] after each stride, ``stride_fs`` of all chains.
    """

    positions: Tensor
    velocities: Tensor
    species: Tensor
    cell: Tensor
    pbc: Tensor
    vectors: Tensor
    edge_index: Tensor
    frame: Tensor
    next_positions: Tensor
    next_velocities: Tensor
    stride_fs: float

    def to(self, device: torch.device) -> PairBatch:
        """Return the batch on another device."""
        tensors = [f.name for f in fields(self) if f.name != "stride_fs"]
        return replace(self, **{name: getattr(self, name).to(device) for name in tensors})

    @property
    def open_frames(self) -> Tensor:
        """Which chains [B] have no cell."""
        return (self.cell == 0).flatten(1).all(1)


def graph(positions: Tensor, cell: Tensor, pbc: Tensor, frame: Tensor, cutoff: float) -> tuple[Tensor, Tensor]:
    """Return vectors [e, 3] (A, differentiable) and edge_index [2, e] of many frames; arguments as in :class:`PairBatch`."""
    counts = torch.bincount(frame, minlength=len(cell)).tolist()
    vectors, edges, first = [], [], 0
    for k, count in enumerate(counts):
        mine = positions[first : first + count]
        ends, shifts = neighbor_list(mine, cell[k], pbc[k], cutoff)
        vectors.append(edge_vectors(mine, cell[k], ends, shifts))
        edges.append(ends + first)
        first += count
    return torch.cat(vectors), torch.cat(edges, 1)


class ChainDataset(Dataset[PairBatch]):
    """All chains of some frames, forwards and (if wanted) backwards in time.

    The key of an item is (stage, number). Neighbour lists are made on demand: for 72 atoms that takes 0.1 ms, beside 50 ms of
    training, and storing them would take 1 GB for 15,000 frames.

    Parameters
    ----------
    groups
        Frames, one entry a composition.
    species
        Element symbols of the model.
    cutoff
        A.
    stages
        Stride [fs] and number of strides of each stage.
    thin
        Keep every n-th chain.
    reversal
        Add each chain backwards.

    Raises
    ------
    EquistrideError
        Where an element is unknown, the frames cannot be paired, or a stage has no chain at all.
    """

    def __init__(
        self, groups: Sequence[Frames], species: Sequence[str], cutoff: float, stages: Sequence[tuple[float, int]], *,
        thin: int = 1, reversal: bool = True,
    ) -> None:  # fmt: skip
        self.groups, self.cutoff, self.stages, self.reversal = list(groups), cutoff, list(stages), reversal
        self.kinds = [torch.tensor(species_index((chemical_symbols[z] for z in g.numbers), species)) for g in groups]
        self.starts: list[list[tuple[int, int]]] = []
        for stride_fs, rollout in stages:
            found = [(g, int(k)) for g, frames in enumerate(groups) for k in chains(frames, stride_fs, rollout)]
            if not found:
                raise EquistrideError(
                    "no pair of frames lies within one segment",
                    expected=f"segments of {stride_fs * rollout:g} fs or more ({rollout} times {stride_fs:g} fs)",
                    hint="make longer segments, or lower the stride or the roll-out",
                )
            self.starts.append(found[::thin])

    def count(self, stage: int) -> int:
        """Return the number of chains of a stage."""
        return len(self.starts[stage]) * (2 if self.reversal else 1)

    def keys(self, stage: int) -> list[Key]:
        """Return the keys of the forward chains of a stage."""
        return [(stage, k) for k in range(len(self.starts[stage]))]

    def __getitem__(self, key: Key) -> PairBatch:
        stage, number = key
        backwards, place = divmod(number, len(self.starts[stage]))
        which, first = self.starts[stage][place]
        frames, (stride_fs, rollout) = self.groups[which], self.stages[stage]
        rows = first + frames_apart(frames, stride_fs) * np.arange(rollout + 1)
        sign = 1.0
        if backwards:
            rows, sign = rows[::-1], -1.0
        assert frames.velocities is not None
        positions = torch.from_numpy(frames.positions[rows])
        velocities = torch.from_numpy(sign * frames.velocities[rows])
        cell, pbc = torch.from_numpy(frames.cell[rows[:1]]), torch.from_numpy(frames.pbc)[None]
        frame = torch.zeros(positions.size(1), dtype=torch.int64)
        vectors, edges = graph(positions[0], cell, pbc, frame, self.cutoff)
        return PairBatch(
            positions[0], velocities[0], self.kinds[which], cell, pbc, vectors, edges, frame, positions[1:], velocities[1:],
            stride_fs,
        )  # fmt: skip


def collate(items: Sequence[PairBatch]) -> PairBatch:
    """Join chains of one length into a batch."""
    atoms = np.cumsum([0, *(len(b.species) for b in items)])
    join = lambda name, dim=0: torch.cat([getattr(b, name) for b in items], dim)  # noqa: E731
    return PairBatch(
        positions=join("positions"),
        velocities=join("velocities"),
        species=join("species"),
        cell=join("cell"),
        pbc=join("pbc"),
        vectors=join("vectors"),
        edge_index=torch.cat([b.edge_index + int(n) for b, n in zip(items, atoms, strict=False)], 1),
        frame=torch.cat([b.frame + k for k, b in enumerate(items)]),
        next_positions=join("next_positions", 1),
        next_velocities=join("next_velocities", 1),
        stride_fs=items[0].stride_fs,
    )


class RunOrder(Sampler[list[Key]]):
    """All batches of a run, each decided by the seed and its step alone: a run goes on at any step as if never stopped.

    Parameters
    ----------
    counts
        First step and number of chains of each stage; with several strides, of each of them in each stage.
    steps, batch_size, seed
        Of the run.
    start
        Steps done already.
    strides
        How many there are, which take turns.
    """

    def __init__(
        self, counts: Sequence[Key], steps: int, batch_size: int, seed: int, start: int = 0, strides: int = 1
    ) -> None:  # fmt: skip
        self.counts, self.steps, self.batch_size, self.seed, self.start = list(counts), steps, batch_size, seed, start
        self.strides = strides

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[Key]]:
        orders: dict[int, NDArray[np.int64]] = {}
        for step in range(self.start, self.steps):
            stage = self.strides * max(k for k, (first, _) in enumerate(self.counts[:: self.strides]) if first <= step)
            round_, turn = divmod(step - self.counts[stage][0], self.strides)
            count = self.counts[stage := stage + turn][1]
            epoch, place = divmod(round_, count // self.batch_size)
            if place == 0 or stage not in orders:
                orders[stage] = np.random.default_rng((self.seed, stage, epoch)).permutation(count)
            mine = orders[stage][place * self.batch_size : (place + 1) * self.batch_size]
            yield [(stage, int(k)) for k in mine]


def in_stretches(frames: Frames, stride_fs: float, validation_fraction: float) -> Frames:
    """Return a trajectory without segments in stretches of time, so that some can be held back whole.

    There are as many as a held-back one needs to be that share of the frames, and no shorter than four strides.
    """
    if frames.segment is not None:
        return frames
    shortest = 4 * frames_apart(frames, stride_fs) + 1
    count = max(1, min(round(1 / validation_fraction), len(frames) // shortest))
    return replace(frames, segment=np.arange(len(frames)) * count // len(frames))


def masses_of(groups: Sequence[Frames], species: Sequence[str], given: dict[str, float]) -> list[float]:
    """Return the mass of each element [amu]: as given, as the files say, or the standard one.

    Raises
    ------
    EquistrideError
        Where atoms of one element have different masses, or a given mass is of no element of the data.
    """
    stray = sorted(set(given) - set(species))
    if stray:
        raise EquistrideError(
            f"data.masses names elements that are not in the data: {', '.join(stray)}",
            expected=", ".join(species),
        )
    found = []
    for symbol in species:
        number = atomic_numbers[symbol]
        seen = {float(m) for g in groups if g.masses is not None for m in g.masses[g.numbers == number]}
        if symbol in given:
            seen = {given[symbol]}
        if len(seen) > 1 and max(seen) > min(seen) * (1 + 1e-6):
            raise EquistrideError(
                f"atoms of {symbol} have different masses in the data", expected="one mass an element",
                found=", ".join(f"{m:g}" for m in sorted(seen)), hint="a propagator is valid for one set of masses",
            )  # fmt: skip
        found.append(min(seen) if seen else float(atomic_masses[number]))
    return found


def scales(groups: Sequence[Frames], stride_fs: float) -> dict[str, object]:
    """Return ``rms_displacement`` [A] and ``rms_velocity`` [A/fs] of a component, and the same by element symbol."""
    squares: dict[str, list[NDArray[np.float64]]] = {}
    for frames in groups:
        first = chains(frames, stride_fs, 1)
        assert frames.velocities is not None
        moved = (frames.positions[first + frames_apart(frames, stride_fs)] - frames.positions[first]) ** 2
        for z in np.unique(frames.numbers):
            mask = frames.numbers == z
            parts = squares.setdefault(chemical_symbols[z], [])
            parts.append(np.stack([moved[:, mask].ravel(), (frames.velocities[first][:, mask] ** 2).ravel()]))
    joined = {symbol: np.concatenate(parts, 1) for symbol, parts in squares.items()}
    rms = np.sqrt(np.concatenate(list(joined.values()), 1).mean(1))
    by_element = {symbol: np.sqrt(values.mean(1)).tolist() for symbol, values in joined.items()}
    return {"rms_displacement": float(rms[0]), "rms_velocity": float(rms[1]), "rms_by_element": by_element}


def average_neighbors(dataset: ChainDataset, limit: int = 200) -> float:
    """Return the average number of neighbours, over ``limit`` frames spread evenly over the data."""
    keys = dataset.keys(len(dataset.stages) - 1)
    picked = [dataset[key] for key in keys[:: max(1, len(keys) // limit)]]
    return sum(b.edge_index.size(1) for b in picked) / sum(len(b.species) for b in picked)


def sensible_speed(groups: Sequence[Frames]) -> float:
    """Return a speed [A/fs] that the network should cover: 4 times the fastest element's rms, 1.3 times the fastest atom."""
    fastest, rms = 0.0, 0.0
    for frames in groups:
        assert frames.velocities is not None
        square = (frames.velocities**2).sum(2)
        fastest = max(fastest, float(square.max()) ** 0.5)
        rms = max(rms, *(float(square[:, frames.numbers == z].mean()) ** 0.5 for z in np.unique(frames.numbers)))
    return max(4.0 * rms, 1.3 * fastest)


def fastest_atoms(groups: Sequence[Frames], species: Sequence[str], otherwise: float) -> list[float]:
    """Return the speed [A/fs] of the fastest atom of each element; ``otherwise`` of one that is not there."""
    found = dict.fromkeys(species, 0.0)
    for frames in groups:
        assert frames.velocities is not None
        speeds = np.linalg.norm(frames.velocities, axis=2)
        for z in np.unique(frames.numbers):
            symbol = chemical_symbols[z]
            found[symbol] = max(found[symbol], float(speeds[:, frames.numbers == z].max()))
    return [speed or otherwise for speed in found.values()]


def cooler(frames: Frames, limit: float | None) -> Frames:
    """Return the frames of runs at ``limit`` [K] at most; all where there is no limit or the frames do not say.

    Raises
    ------
    EquistrideError
        Where none is left.
    """
    if limit is None:
        return frames
    if frames.temperature_K is None:
        tell("data.max_temperature_K has no effect on files that do not say how hot their runs are (temperature_K)")
        return frames
    kept = frames[frames.temperature_K <= limit]
    if not len(kept):
        raise EquistrideError(
            f"no frame is of a run at {limit:g} K or below", found=f"{frames.temperature_K.min():g} K or more",
            hint="raise data.max_temperature_K",
        )  # fmt: skip
    return kept


def check_speeds(groups: Sequence[Frames], max_speed: float) -> None:
    """Refuse atoms that are faster than the network covers; an error names the first."""
    for frames in groups:
        assert frames.velocities is not None
        speed = np.sqrt((frames.velocities**2).sum(2))
        if speed.max() >= max_speed:
            frame, atom = np.unravel_index(int(speed.argmax()), speed.shape)
            raise EquistrideError(
                f"atom {atom} of frame {frame} is faster than the model covers", expected=f"below {max_speed:g} A/fs",
                found=f"{speed.max():g} A/fs", hint="raise model.max_speed, or leave out the hottest data",
            )  # fmt: skip
