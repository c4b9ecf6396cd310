"""Networks of one's own in the forms that they have elsewhere, sound ones and ones that cheat."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

CUTOFF = 4.0  # A
SPECIES = ["H", "C", "O"]


class Sums(nn.Module):
    """Two sums over neighbours that follow one another: features [N, 6] from edge vectors [E, 3]."""

    def __init__(self, cutoff: float = CUTOFF, kinds: int = len(SPECIES)) -> None:
        super().__init__()
        self.reach = cutoff
        self.start, self.mix = nn.Embedding(kinds, 6), nn.Linear(6, 6)

    def forward(self, vectors: Tensor, kinds: Tensor, i: Tensor, j: Tensor) -> Tensor:
        """Sum over j at i."""
        r = torch.linalg.vector_norm(vectors, dim=1, keepdim=True) / self.reach
        n = torch.arange(1, 7, dtype=r.dtype, device=r.device)
        weights = torch.sin(n * math.pi * r) * (1 - r.square()).clamp(min=0.0).square()
        x = self.start(kinds)
        for _ in range(2):
            x = torch.tanh(self.mix(torch.zeros_like(x).index_add(0, i, x.index_select(0, j) * weights)) + x)
        return x


class OfEdges(nn.Module):
    """Edge vectors to atomic energies [N, 1], with a trick of features [N, 6] before the energy is read."""

    def __init__(self, trick: nn.Module | None = None) -> None:
        super().__init__()
        self.sums, self.read = Sums(), nn.Linear(6, 1)
        self.trick = nn.Identity() if trick is None else trick

    def forward(self, vectors: Tensor, species: Tensor, edge_index: Tensor) -> Tensor:
        return self.read(self.trick(self.sums(vectors, species, edge_index[0], edge_index[1])))


class OfVectors(OfEdges):
    """The same with a trick of the vectors."""

    def forward(self, vectors: Tensor, species: Tensor, edge_index: Tensor) -> Tensor:
        return self.read(self.sums(self.trick(vectors), species, edge_index[0], edge_index[1]))


class BothEnds(OfEdges):
    def forward(self, vectors: Tensor, species: Tensor, edge_index: Tensor) -> Tensor:
        edges = torch.cat([edge_index, edge_index.flip(0)], 1)
        return self.read(self.sums(torch.cat([vectors, vectors]), species, edges[0], edges[1]))


class HardEdge(OfEdges):
    def forward(self, vectors: Tensor, species: Tensor, edge_index: Tensor) -> Tensor:
        x = self.sums(vectors, species, edge_index[0], edge_index[1])
        r = torch.linalg.vector_norm(vectors, dim=1)
        return self.read(x + torch.zeros_like(x).index_add(0, edge_index[0], r[:, None].expand(-1, 6) * 0.1))


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x.mean(0, keepdim=True)


class Number(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * math.log(x.size(0) + 1.0)


class Order(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 0.01 * torch.arange(x.size(0), dtype=x.dtype)[:, None] * x


class Statistics(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(6, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.norm(x)) * x


class Noise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 0.1 * torch.rand_like(x)


class KeptDropout(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.3, True)


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1.0
        return x


class Stretched(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.tensor([1.0, 1.1, 1.2], dtype=x.dtype)


class Detached(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x[:, :2], x[:, 2:].detach()], 1)


class Constant(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.detach()


class Positions(nn.Module):
    """The contract's positions, cell and whole shifts; ``absolute`` makes energies depend on where atoms are."""

    def __init__(self, absolute: bool = False) -> None:
        super().__init__()
        self.sums, self.read, self.absolute = Sums(), nn.Linear(6, 1), absolute

    def forward(
        self, positions: Tensor, species: Tensor, cell: Tensor, edge_index: Tensor, shifts: Tensor
    ) -> tuple[Tensor, Tensor]:
        vectors = positions[edge_index[1]] - positions[edge_index[0]] + torch.matmul(shifts.to(cell.dtype), cell)
        energies = self.read(self.sums(vectors, species, edge_index[0], edge_index[1])).squeeze(1)
        if self.absolute:
            energies = energies + 0.01 * positions[:, 0]
        return energies, vectors


class Geometric(nn.Module):
    """As in PyTorch Geometric: numbers, from the first row to the second, r_source - r_target, lengths of shifts, one energy a
    frame."""

    def __init__(self) -> None:
        super().__init__()
        self.sums, self.read = Sums(kinds=20), nn.Linear(6, 1)

    def forward(self, z: Tensor, pos: Tensor, edge_index: Tensor, shifts: Tensor, batch: Tensor) -> Tensor:
        source, target = edge_index[0], edge_index[1]
        vectors = pos[source] - pos[target] + shifts
        energies = self.read(self.sums(vectors, z, target, source)).squeeze(1)
        return torch.zeros(int(batch.max()) + 1, dtype=energies.dtype).index_add(0, batch, energies)


class Traced(Geometric):
    """The same with what TorchScript does not compile, so that it is exported, with the number of frames from a tensor."""

    def forward(self, z: Tensor, pos: Tensor, edge_index: Tensor, shifts: Tensor, batch: Tensor) -> Tensor:
        source, target = edge_index
        vectors = pos[source] - pos[target] + shifts
        energies = self.read(self.sums(vectors, z, target, source))
        return torch.zeros(int(batch.max()) + 1, 1, dtype=energies.dtype).index_add(0, batch, energies)


class OfData(nn.Module):
    """A ``Data`` with attributes and keys, which TorchScript does not compile; the energy of each atom as an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.sums, self.read = Sums(), nn.Linear(6, 1)

    def forward(self, data: Any) -> Any:
        vectors = data.pos[data.edge_index[1]] - data["pos"][data.edge_index[0]] + data.cell_offsets @ data.cell
        i, j = data.edge_index
        return {"energy_i": None, "node_energy": self.read(self.sums(vectors, data.species, i, j)).to(data.pos.dtype)}


class OfKeys(nn.Module):
    """NequIP's keys in, a cell for each frame, both energies out."""

    def __init__(self, atomic: bool = True) -> None:
        super().__init__()
        self.sums, self.read, self.atomic = Sums(), nn.Linear(6, 1), atomic

    def forward(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
        edges, batch, pos = data["edge_index"], data["batch"], data["pos"]
        cell = data["cell"].view(-1, 3, 3)[batch[edges[0]]]
        vectors = pos[edges[1]] - pos[edges[0]] + torch.einsum("ea,eab->eb", data["edge_cell_shift"], cell)
        each = self.read(self.sums(vectors, data["atom_types"], edges[0], edges[1]))
        total = torch.zeros(int(batch.max()) + 1, 1, dtype=each.dtype).index_add(0, batch, each)
        data["total_energy"] = total
        if self.atomic:
            data["atomic_energy"] = each
        return data


class MACEs(nn.Module):
    """MACE's keys: one-hot elements, sender first, lengths of shifts, frames by ``ptr``; it is told not to differentiate."""

    def __init__(self) -> None:
        super().__init__()
        self.sums, self.read = Sums(), nn.Linear(6, 1)

    def forward(
        self, data: dict[str, Tensor], training: bool = False, compute_force: bool = True
    ) -> dict[str, Tensor | None]:
        if compute_force:
            raise RuntimeError("would differentiate")
        sender, receiver = data["edge_index"][0], data["edge_index"][1]
        vectors = data["positions"][receiver] - data["positions"][sender] + data["shifts"]
        kinds = data["node_attrs"].argmax(1)
        each = self.read(self.sums(vectors, kinds, receiver, sender)).squeeze(1)
        frames = data["ptr"].numel() - 1
        energy = torch.zeros(frames, dtype=each.dtype).index_add(0, data["batch"], each)
        return {"energy": energy, "forces": None}


class Packs(nn.Module):
    """SchNetPack's keys."""

    def __init__(self) -> None:
        super().__init__()
        self.sums, self.read = Sums(kinds=20), nn.Linear(6, 1)

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        i, j = inputs["_idx_i"], inputs["_idx_j"]
        inputs["_Rij"] = inputs["_positions"][j] - inputs["_positions"][i] + inputs["_offsets"]
        each = self.read(self.sums(inputs["_Rij"], inputs["_atomic_numbers"], i, j)).squeeze(-1)
        frames = int(inputs["_idx_m"][-1]) + 1
        return {"energy": torch.zeros(frames, dtype=each.dtype).index_add(0, inputs["_idx_m"], each)}


TRICKS = {
    "mean of features": (OfEdges, Mean), "number of atoms": (OfEdges, Number), "order": (OfEdges, Order),
    "batch statistics": (OfEdges, Statistics), "random numbers": (OfEdges, Noise), "kept dropout": (OfEdges, KeptDropout),
    "counts its calls": (OfEdges, Counter), "axes": (OfVectors, Stretched), "detached": (OfVectors, Detached),
    "no gradient": (OfVectors, Constant), "both ends": (BothEnds,), "hard edge": (HardEdge,),
}  # fmt: skip
"""What cheats, by its name."""


def cheat(name: str) -> nn.Module:
    """Return a module that cheats."""
    kind, *trick = TRICKS[name]
    return seeded(kind, *[one() for one in trick])


def seeded(kind: type[nn.Module], *arguments: Any) -> nn.Module:
    """Return the module with the weights that all of these forms share."""
    torch.manual_seed(0)
    module = kind(*arguments).double()
    numbers = [1, 6, 8]
    with torch.no_grad():
        weights = torch.randn(3, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        mix = 0.4 * torch.randn(6, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        read = torch.randn(1, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        table = module.sums.start.weight  # type: ignore[union-attr]
        table[numbers if len(table) > 3 else [0, 1, 2]] = weights
        module.sums.mix.weight.copy_(mix), module.sums.mix.bias.fill_(0.1)  # type: ignore[union-attr]
        module.read.weight.copy_(read), module.read.bias.fill_(-0.2)  # type: ignore[union-attr]
    return module
