"""A small pair potential in the artifact format: independent of the exporter and of any trained model."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

SPECIES = ["H", "O", "Si"]
CUTOFF = 4.0  # A


class PairPotential(nn.Module):
    """E_i = sum_j D_ij [exp(-2 a (r - r0)) - 2 exp(-a (r - r0))] u(r/rc) / 2: smooth, with real cohesion."""

    def __init__(self, cutoff: float, dtype: torch.dtype, explode_beyond: float = 1e9) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.explode_beyond = explode_beyond
        self.register_buffer("depth", torch.tensor([0.30, 0.60, 0.90], dtype=dtype))
        self.register_buffer("radius", torch.tensor([0.55, 0.80, 1.10], dtype=dtype))

    def atomic_energies(self, vectors: Tensor, species: Tensor, edge_index: Tensor) -> Tensor:
        """Return energies [N] from r_ij [E, 3]."""
        i, j = species[edge_index[0]], species[edge_index[1]]
        r = torch.linalg.vector_norm(vectors, dim=1)
        x = r / self.cutoff
        envelope = torch.where(x < 1.0, 1.0 - 10.0 * x**3 + 15.0 * x**4 - 6.0 * x**5, torch.zeros_like(x))
        stretch = torch.exp(-1.8 * (r - self.radius[i] - self.radius[j]))
        pair = 0.5 * torch.sqrt(self.depth[i] * self.depth[j]) * (stretch * stretch - 2.0 * stretch) * envelope
        pair = torch.where(r > self.explode_beyond, torch.full_like(pair, float("nan")), pair)
        return torch.zeros(species.size(0), dtype=vectors.dtype, device=vectors.device).index_add(
            0, edge_index[0], pair
        )

    def forward(
        self, positions: Tensor, species: Tensor, cell: Tensor, edge_index: Tensor, shifts: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Obey the contract of a potential."""
        i, j = edge_index[0], edge_index[1]
        vectors = positions[j] - positions[i] + torch.matmul(shifts.to(cell.dtype), cell)
        vectors = vectors.detach().requires_grad_(True)
        energies = self.atomic_energies(vectors, species, edge_index)
        gradient = torch.autograd.grad([energies.sum()], [vectors])[0]
        if gradient is None:
            gradient = torch.zeros_like(vectors)
        forces = torch.zeros_like(positions).index_add(0, i, gradient).index_add(0, j, -gradient)
        return energies.detach(), forces, -torch.matmul(vectors.detach().t(), gradient)


def arguments(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return positions, species, cell, edge_index and shifts of three atoms without a box."""
    positions = torch.tensor([[0.0, 0.0, 0.0], [1.4, 0.2, 0.0], [0.3, 1.9, 0.5]], dtype=dtype)
    edges = torch.tensor([[0, 0, 1, 1, 2, 2], [1, 2, 0, 2, 0, 1]])
    return (
        positions,
        torch.tensor([0, 1, 2]),
        torch.zeros(3, 3, dtype=dtype),
        edges,
        torch.zeros(6, 3, dtype=torch.int32),
    )


def reference(model: nn.Module, dtype: torch.dtype) -> dict:
    """Return that frame with its outputs."""
    frame = arguments(dtype)
    energies, forces, virial = model(*frame)
    return {
        "positions": frame[0].tolist(),
        "species": frame[1].tolist(),
        "cell": frame[2].tolist(),
        "pbc": [False] * 3,
        "outputs": {
            "atomic_energies": energies.tolist(),
            "forces": forces.tolist(),
            "virial": virial.tolist(),
        },
        "tolerance": 1e-9 if dtype == torch.float64 else 1e-4,
    }


def write(
    path: Path,
    *,
    dtype: str = "float64",
    change: dict | None = None,
    change_reference: dict | None = None,
    change_output: dict | None = None,
    explode_beyond: float = 1e9,
    scripted: torch.jit.ScriptModule | None = None,
) -> Path:
    """Write an artifact.

    ``change`` replaces metadata, ``change_reference`` parts of the reference frame, ``change_output`` its
    outputs.
    """
    precision = getattr(torch, dtype)
    model = PairPotential(CUTOFF, precision, explode_beyond)
    metadata = {
        "format": "equistride",
        "format_version": 1,
        "kind": "potential",
        "architecture": "pair",
        "description": "toy",
        "species": SPECIES,
        "masses": [1.008, 15.999, 28.085],
        "cutoff": CUTOFF,
        "num_layers": 1,
        "interaction_range": CUTOFF,
        "dtype": dtype,
        "units": {"length": "angstrom", "energy": "eV", "time": "fs", "mass": "amu"},
        "periodic": "any",
    } | (change or {})
    frame = reference(model, precision) | (change_reference or {})
    frame["outputs"] = frame["outputs"] | (change_output or {})
    extra = {"metadata.json": json.dumps(metadata), "reference.json": json.dumps(frame)}
    torch.jit.save(scripted or torch.jit.script(model), str(path), _extra_files=extra)
    return path
