"""Frames as graphs in batches: the neighbour list is made once, before training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from ase.data import chemical_symbols
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from equistride.data.frames import Frames, load
from equistride.data.stress_units import check_virials
from equistride.elements import species_index
from equistride.errors import EquistrideError
from equistride.graph import neighbor_list
from equistride.models.potential import edge_vectors

COINCIDENT = 1e-3
"""A; as csrc/model/checks.h has it."""


@dataclass(frozen=True)
class Batch:
    """B frames with n atoms and e edges in all.

    ``vectors`` [e, 3] A, ``species`` [n], ``edge_index`` [2, e], ``frame`` [n] (frame of each atom), ``energy`` [B] eV,
    ``forces`` [n, 3] eV/A, ``virial`` [B, 3, 3] eV (NaN where unlabelled), ``charge`` [B] and ``spin`` [B] (0 where not given).
    """

    vectors: Tensor
    species: Tensor
    edge_index: Tensor
    frame: Tensor
    energy: Tensor
    forces: Tensor
    virial: Tensor
    charge: Tensor
    spin: Tensor

    def to(self, device: torch.device) -> Batch:
        """Return the batch on another device."""
        return Batch(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    @property
    def num_frames(self) -> int:
        """Number of frames B."""
        return self.energy.size(0)

    @property
    def atoms_per_frame(self) -> Tensor:
        """Number of atoms of each frame [B]."""
        return torch.bincount(self.frame, minlength=self.num_frames)


class GraphDataset(Dataset[Batch]):
    """Frames with their edges; item k is a batch of one frame.

    Parameters
    ----------
    groups
        Frames, one entry a composition.
    species
        Element symbols of the model; an element outside is an error.
    cutoff
        A.
    dtype
        Precision of vectors and labels (energies stay float64).
    """

    def __init__(self, groups: Sequence[Frames], species: Sequence[str], cutoff: float, dtype: torch.dtype) -> None:
        self.items: list[Batch] = []
        for frames in groups:
            kinds = torch.tensor(species_index((chemical_symbols[z] for z in frames.numbers), species))
            pbc = torch.from_numpy(frames.pbc)
            for k in range(len(frames)):
                positions, cell = torch.from_numpy(frames.positions[k]), torch.from_numpy(frames.cell[k])
                edges, shifts = neighbor_list(positions, cell, pbc, cutoff)
                vectors = edge_vectors(positions, cell, edges, shifts)
                _check_apart(vectors, edges, frames, k)
                virial = (
                    torch.full((1, 3, 3), torch.nan)
                    if frames.virial is None
                    else torch.from_numpy(frames.virial[k])[None]
                )
                charge, spin = (
                    torch.zeros(1) if values is None else torch.from_numpy(values[k : k + 1]).nan_to_num(0.0)
                    for values in (frames.charge, frames.spin)
                )
                self.items.append(
                    Batch(
                        vectors=vectors.to(dtype),
                        species=kinds,
                        edge_index=edges.to(torch.int32),
                        frame=torch.zeros_like(kinds),
                        energy=torch.tensor([frames.energy[k]], dtype=torch.float64),
                        forces=torch.from_numpy(frames.forces[k]).to(dtype),
                        virial=virial.to(dtype),
                        charge=charge.to(dtype),
                        spin=spin.to(dtype),
                    )
                )

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, k: int) -> Batch:
        return self.items[k]


def _check_apart(vectors: Tensor, edges: Tensor, frames: Frames, k: int) -> None:
    """Refuse atoms in one place, whose bond has no direction: every number of the network would be NaN."""
    if not vectors.size(0):
        return
    shortest, edge = torch.linalg.vector_norm(vectors, dim=1).min(0)
    if shortest < COINCIDENT:
        i, j = sorted(edges[:, int(edge)].tolist())
        raise EquistrideError(
            f"atoms {i} and {j} of frame {k if frames.row is None else frames.row[k]} of a data file are on top of each other",
            found=f"{float(shortest):g} A apart",
            hint="drop that frame",
        )


class EpochShuffle(Sampler[int]):
    """An order of the frames that depends on the seed and the epoch alone, so that a resumed run meets the same.

    Processes that train together share it out: each takes every n-th frame, all the same number.

    Parameters
    ----------
    count
        Number of frames.
    seed
        Of the order.
    batch_size
        Frames of a step and process.
    steps_done
        Steps of an earlier run that this one goes on from: of the epoch in which it ended, the frames that are left.
    """

    def __init__(self, count: int, seed: int, batch_size: int = 1, steps_done: int = 0) -> None:
        self.count, self.seed, self.epoch = count, seed, 0
        self.batch_size, self.steps_done = batch_size, steps_done

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls this before each."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count // self._processes()[1]

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.count)
        rank, processes = self._processes()
        mine = order[: len(self) * processes][rank::processes].tolist()
        begun, steps = divmod(self.steps_done, max(1, len(self) // self.batch_size))
        return iter(mine[steps * self.batch_size :] if self.epoch == begun else mine)

    @staticmethod
    def _processes() -> tuple[int, int]:
        together = torch.distributed.is_available() and torch.distributed.is_initialized()
        return (torch.distributed.get_rank(), torch.distributed.get_world_size()) if together else (0, 1)


def collate(items: Sequence[Batch]) -> Batch:
    """Join batches into one; edges and frames are renumbered."""
    atoms = np.cumsum([0, *(len(b.species) for b in items)])
    frames = np.cumsum([0, *(b.num_frames for b in items)])
    join = lambda name: torch.cat([getattr(b, name) for b in items])  # noqa: E731
    return Batch(
        vectors=join("vectors"),
        species=join("species"),
        energy=join("energy"),
        forces=join("forces"),
        virial=join("virial"),
        charge=join("charge"),
        spin=join("spin"),
        edge_index=torch.cat([b.edge_index.long() + int(n) for b, n in zip(items, atoms, strict=False)], 1),
        frame=torch.cat([b.frame + int(n) for b, n in zip(items, frames, strict=False)]),
    )


def read(files: Sequence[str], root: Path, *, labelled: bool = True, virials: bool = False) -> list[Frames]:
    """Load data files, with energies and forces where ``labelled``, with virials in our unit where those are learnt; relative
    paths start at ``root``.
    """
    groups = []
    for file in files:
        for frames in load(root / file, labelled=labelled):
            if virials:
                check_virials(frames, root / file)
            groups.append(frames)
    return groups


def split(groups: Sequence[Frames], validation_fraction: float, seed: int) -> tuple[list[Frames], list[Frames]]:
    """Split into training and validation frames; a segment stays on one side.

    Each composition gives its share. Those of a single segment (or frame) cannot: they all are for training where others give
    some for validation, and are shared out among themselves where none does.

    Parameters
    ----------
    groups
        Frames, one entry a composition.
    validation_fraction
        Share of the segments (frames, where there are no segments) that is held back.
    seed
        Of the choice.

    Raises
    ------
    EquistrideError
        Where there are fewer than two segments in all.
    """
    training, validation, single = [], [], []
    for frames in groups:
        segment = np.arange(len(frames)) if frames.segment is None else frames.segment
        names = np.unique(segment)
        if len(names) < 2:
            single.append(frames)
            continue
        held = np.random.default_rng(seed).permutation(names)[: max(1, round(validation_fraction * len(names)))]
        mask = np.isin(segment, held)
        training.append(frames[~mask])
        validation.append(frames[mask])
    if not validation:
        if len(single) < 2:
            raise EquistrideError(
                "too few frames to keep some for validation",
                expected="2 segments (or single frames) or more",
                found=len(single),
            )
        count = max(1, round(validation_fraction * len(single)))
        order = np.random.default_rng(seed).permutation(len(single)).tolist()
        validation = [single[k] for k in sorted(order[:count])]
        single = [single[k] for k in sorted(order[count:])]
    return training + single, validation


def elements(groups: Sequence[Frames]) -> list[str]:
    """Return the element symbols of the frames, by atomic number."""
    numbers = np.unique(np.concatenate([g.numbers for g in groups]))
    return [chemical_symbols[z] for z in numbers]


def fit_references(groups: Sequence[Frames], species: Sequence[str]) -> list[float]:
    """Return an energy per element [eV] by least squares on total energies (minimum norm where undetermined)."""
    counts = [
        [[chemical_symbols[z] for z in g.numbers].count(s) for s in species] for g in groups for _ in range(len(g))
    ]
    energies = np.concatenate([g.energy for g in groups])
    return np.linalg.lstsq(np.array(counts, float), energies, rcond=None)[0].tolist()
