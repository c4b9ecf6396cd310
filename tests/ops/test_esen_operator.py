"""A served eSEN in one operator against the operators of its layers, finite differences, and what it must refuse."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from edge_block_cases import deviation
from random_models import graph_of, random_potential, write_artifact
from torch import Tensor
from torch import library as operators

from equistride.artifact.model import load
from equistride.models.esen_fused import FusedESEN, fuse
from equistride.models.serving import serving

TOLERANCE = {torch.float64: 1e-13, torch.float32: 1e-5}
"""The same kernels; sums of the gradients and the energy head in another order, relative to the largest."""
SIZES = [
    {"l_max": 2, "m_max": 2, "channels": 16, "hidden_channels": 32},
    {"l_max": 3, "m_max": 1, "channels": 9, "hidden_channels": 5, "mirror": False, "envelope": "off", "num_layers": 1},
    {"l_max": 1, "m_max": 1, "channels": 17, "hidden_channels": 33, "num_layers": 3, "basis": "bessel"},
]


def network(**sizes: object) -> FusedESEN:
    """Of rough splines, which take no time to make."""
    return fuse(random_potential(cutoff=3.0, **sizes).network, 1e-3)


def bonds(atoms: int = 15, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Vectors, species and edges of atoms in a box of 5 A."""
    generator = torch.Generator().manual_seed(3)
    positions = 5 * torch.rand(atoms, 3, generator=generator, dtype=torch.float64)
    graph = graph_of(positions, torch.arange(atoms) % 2, cutoff=3.0)
    receiver, sender = graph.edge_index
    return (positions[sender] - positions[receiver]).to(dtype), graph.species, graph.edge_index


def energies_and_gradient(function: object, vectors: Tensor, *rest: Tensor) -> list[Tensor]:
    """Of a sum of the energies, whose weights are all different."""
    vectors = vectors.clone().requires_grad_()
    energies = function(vectors, *rest)
    factors = torch.arange(1, energies.numel() + 1, dtype=energies.dtype)
    return [energies.detach(), *torch.autograd.grad((factors * energies).sum(), vectors)]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_equal_to_the_layers(sizes: dict[str, object], dtype: torch.dtype, simd: str) -> None:
    made = network(**sizes).to(dtype)
    assert made.one_operator
    for part in made.modules():
        if hasattr(part, "pack"):
            part.pack()
    inputs = bonds(dtype=dtype)
    found, expected = (energies_and_gradient(f, *inputs) for f in (made.in_one, made.by_layers))
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == dtype
        assert deviation(one, other.double()) < 10 * TOLERANCE[dtype]
    with torch.no_grad():
        assert torch.equal(made.in_one(*inputs), found[0])


def test_gradient_against_finite_differences() -> None:
    made = network(channels=3, hidden_channels=4, num_layers=1)
    vectors, species, edges = bonds(4)
    assert torch.autograd.gradcheck(lambda v: made.in_one(v, species, edges), vectors.requires_grad_())
    with pytest.raises(NotImplementedError, match="first gradients only"):
        torch.autograd.grad(made.in_one(vectors, species, edges).sum(), vectors, create_graph=True)


def test_artifacts_are_one_operator(tmp_path: Path) -> None:
    """float32 is; float64 computes the radial functions and stays layer by layer. Both give what plain torch does."""
    potential = random_potential()
    graph = graph_of(*(t[:9] for t in (2.5 * torch.rand(9, 3).double(), torch.arange(9) % 2)))
    expected = potential(*graph)
    for dtype, tolerance, one in (("float32", 1e-5, True), ("float64", 1e-12, False)):
        served = serving(potential, dtype)
        assert served.network.one_operator is one
        path = write_artifact(served, tmp_path / f"{dtype}.pt", dtype)
        code = torch.jit.load(path).network.forward.code
        assert ("in_one" in code) is one
        found = load(path).compute(graph.positions.numpy(), graph.species.numpy(), graph.cell.numpy(), False)
        assert deviation(torch.as_tensor(found.forces), expected[1]) < tolerance
        assert deviation(torch.as_tensor(found.atomic_energies), expected[0]) < tolerance


@pytest.mark.parametrize(
    "options",
    [{"charge_spin": "linear"}, {"feed_forward": "grid"}, {"charge_spin": "table", "charge_channels": (0, 2)}],
    ids=str,
)
def test_other_networks_stay_layer_by_layer(options: dict[str, object]) -> None:
    assert not network(**options).one_operator


def test_nothing_there() -> None:
    made = network()
    vectors, species, edges = bonds()
    alone = energies_and_gradient(made.in_one, vectors[:0], species, edges[:, :0])
    assert deviation(alone[0], made.by_layers(vectors[:0], species, edges[:, :0])) < TOLERANCE[torch.float64]
    nobody = energies_and_gradient(made.in_one, vectors[:0], species[:0], edges[:, :0])
    assert [t.shape for t in nobody] == [(0,), (0, 3)]


def arguments() -> dict[str, object]:
    """What the operator is given, by name, for a small network and its bonds."""
    given: list[object] = []
    made, inputs = network(channels=5, hidden_channels=3), bonds()
    original, names = torch.ops.equistride.esen, ["vectors", "species", "edge_index", "weights", "knots"]
    try:
        torch.ops.equistride.esen = lambda *args: given.extend(args)
        made.in_one(*inputs)
    finally:
        torch.ops.equistride.esen = original
    return dict(zip(names, given, strict=False)) | {"sizes": given[len(names) :]}


def call(given: dict[str, object]) -> Tensor:
    *tensors, sizes = given.values()
    return torch.ops.equistride.esen(*tensors, *sizes)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"vectors": lambda v: v[1:]}, ValueError, "pair must have one number an edge"),
        ({"vectors": lambda v: v.float()}, TypeError, "must have the type of"),
        ({"species": lambda s: s + 1}, IndexError, "index out of range"),
        ({"species": lambda s: s[:-1]}, IndexError, "index out of range"),
        ({"edge_index": lambda e: e.flip(1)}, ValueError, "sorted by receiver"),
        ({"edge_index": lambda e: e - 1}, IndexError, "index out of range"),
        ({"edge_index": lambda e: e[:1]}, ValueError, r"edge_index must have shape \[2, E\]"),
        ({"weights": lambda w: w[:-1]}, ValueError, "3 tensors and 6 a layer; found 14"),
        ({"weights": lambda w: [*w[:2], w[2][1:], *w[3:]]}, ValueError, "weights of the energy head must have shape"),
        ({"weights": lambda w: [*w[:1], w[1][:1], *w[2:]]}, IndexError, "pair must name tables below 1"),
        ({"weights": lambda w: [*w[:7], w[7][1:], *w[8:]]}, ValueError, "weights must hold"),
        ({"weights": lambda w: [w[0].requires_grad_(), *w[1:]]}, ValueError, "have no gradient here"),
        ({"weights": lambda w: [*w[:3], *65 * w[3:9]]}, ValueError, "at most 64 layers; found 65"),
        ({"knots": lambda k: k[:-1]}, ValueError, "a start and a step each; found 5 numbers"),
        ({"sizes": lambda s: [*s[:4], 3, *s[5:]]}, ValueError, r"frames \[E, 34\]"),
    ],
)
def test_it_refuses(change: dict[str, object], error: type[Exception], message: str) -> None:
    given = arguments()
    for name, function in change.items():
        given[name] = function(given[name])
    with pytest.raises(error, match=message):
        call(given)


def test_a_graph_is_used_once_and_watched() -> None:
    made, (vectors, species, edges) = network(), bonds()
    energies = made.in_one(vectors.requires_grad_(), species, edges).sum()
    energies.backward()
    with pytest.raises(RuntimeError, match="second time"):
        energies.backward()
    moved = vectors * 1
    energies = made.in_one(moved, species, edges).sum()
    moved.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        energies.backward()


def test_the_head_refuses() -> None:
    norm = random_potential(channels=5).network.norm
    with pytest.raises(ValueError, match="weight and bias of three layers; found 1 tensors"):
        torch.ops.equistride.energy_head_pack(norm.factors()[0], norm.bias, norm.balance, [norm.bias])


def test_it_is_registered_as_torch_wants() -> None:
    given = arguments()
    *tensors, sizes = given.values()
    tests = ("test_schema", "test_autograd_registration")
    operators.opcheck(torch.ops.equistride.esen.default, (*tensors, *sizes), test_utils=tests)
