"""The operators as torch sees them: schemas, shape functions, scripting, export."""

from __future__ import annotations

from pathlib import Path

import pytest
import structures
import torch
from torch import Tensor, nn
from torch import library as operators

import equistride.graph  # noqa: F401  (loads the operators)

OPS = torch.ops.equistride
QUARTZ = structures.quartz(rattle=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_opcheck(dtype: torch.dtype) -> None:
    positions, cell, pbc = QUARTZ.tensors(dtype)
    edges, shifts = OPS.neighbors(positions, cell, pbc, 3.0)
    grad = torch.randn(edges.shape[1], 3, dtype=dtype)
    operators.opcheck(OPS.neighbors.default, (positions, cell, pbc, 3.0))
    operators.opcheck(OPS.neighbors_padded.default, (positions, cell, pbc, 3.0, 2000, 4))
    r, h = positions.clone().requires_grad_(), cell.clone().requires_grad_()
    operators.opcheck(OPS.edge_vectors.default, (r, h, edges, shifts))
    operators.opcheck(OPS.edge_vectors_backward.default, (grad.requires_grad_(), edges, shifts, 9))


class PairEnergy(nn.Module):
    """A sum of Gaussians of the bonds: every operator that a model uses."""

    def forward(self, positions: Tensor, cell: Tensor, pbc: Tensor) -> Tensor:
        edge_index, shifts = torch.ops.equistride.neighbors(positions, cell, pbc, 4.0)
        vectors = torch.ops.equistride.edge_vectors(positions, cell, edge_index, shifts)
        return torch.exp(-vectors.square().sum(dim=1)).sum()


def test_torchscript_runs_and_survives_a_file(tmp_path: Path) -> None:
    positions, cell, pbc = QUARTZ.tensors()
    eager = PairEnergy()(positions, cell, pbc)
    torch.jit.script(PairEnergy()).save(str(tmp_path / "pair.pt"))
    loaded = torch.jit.load(str(tmp_path / "pair.pt"))
    for _ in range(3):  # the profiling executor specialises on the second call
        r = positions.clone().requires_grad_()
        energy = loaded(r, cell, pbc)
        (gradient,) = torch.autograd.grad(energy, r)
        assert torch.equal(energy.detach(), eager)
    assert gradient.abs().max() > 1e-3


def test_export_keeps_the_operators_and_takes_other_sizes() -> None:
    positions, cell, pbc = QUARTZ.tensors()
    atoms = torch.export.Dim("atoms", min=2, max=10000)
    model = PairEnergy()
    program = torch.export.export(model, (positions, cell, pbc), dynamic_shapes=({0: atoms}, None, None))
    larger = structures.quartz((2, 2, 2), rattle=0.1).tensors()
    assert torch.equal(program.module()(*larger), model(*larger))
    assert any("equistride" in str(node.target) for node in program.graph.nodes)


def test_meta_tensors_have_the_shapes_of_real_ones() -> None:
    positions, cell, pbc = QUARTZ.tensors()
    edges, shifts = OPS.neighbors(positions, cell, pbc, 3.0)
    calls = [
        (OPS.neighbors_padded, (positions, cell, pbc, 3.0, 2000, 4)),
        (OPS.edge_vectors, (positions, cell, edges, shifts)),
        (OPS.edge_vectors_backward, (OPS.edge_vectors(positions, cell, edges, shifts), edges, shifts, 9)),
    ]
    for operator, arguments in calls:
        real = operator(*arguments)
        meta = operator(*[a.to("meta") if isinstance(a, Tensor) else a for a in arguments])
        pairs = zip(real, meta, strict=True) if isinstance(real, tuple) else [(real, meta)]
        for one, other in pairs:
            assert one.shape == other.shape
            assert one.dtype == other.dtype
            assert other.device.type == "meta"


def test_operators_check_their_arguments() -> None:
    """Hosts call the operators without `equistride.graph`."""
    positions, cell, pbc = QUARTZ.tensors()
    with pytest.raises(ValueError, match="capacity must lie between"):
        OPS.neighbors_padded(positions, cell, pbc, 3.0, -1, 4)
    with pytest.raises(ValueError, match="cutoff must be finite and above 0; found -1"):
        OPS.neighbors(positions, cell, pbc, -1.0)
    with pytest.raises(TypeError, match="pbc must be bool"):
        OPS.neighbors(positions, cell, pbc.int(), 3.0)
    edges, shifts = OPS.neighbors(positions, cell, pbc, 3.0)
    with pytest.raises(TypeError, match="edge_index must be int64"):
        OPS.edge_vectors(positions, cell, edges.int(), shifts)
