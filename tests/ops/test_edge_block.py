"""The fused eSEN edge block against the plain network, finite differences, and what it must refuse."""

from __future__ import annotations

import copy
import math
import os

import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from edge_block_cases import BlockCase
from random_models import Graph, graph_of, random_potential
from torch import Tensor
from torch import library as operators

from equistride.data.quartz import quartz
from equistride.errors import EquistrideError
from equistride.models import esen_fused
from equistride.models.esen_fused import FoldedRadial, FusedESEN, fusable, fuse
from equistride.models.potential import ConservativePotential
from equistride.nn.edge_block import Bonds, EdgeBlock, RadialSplines, pack
from equistride.nn.rotation import WignerRotation
from equistride.nn.so2 import SO2Convolution

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
SIZES = [  # l_max, m_max, channels, hidden channels, mirror
    (2, 2, 8, 8, True),
    (2, 2, 32, 32, False),
    (3, 2, 5, 7, False),
    (4, 2, 6, 3, True),
    (4, 4, 3, 4, False),
    (1, 0, 17, 33, True),
]


def deviation(found: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest expected number."""
    found, expected = found.detach().double(), expected.detach().double()
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-30))


def structure(name: str, dtype: torch.dtype = torch.float64) -> Graph:
    """A structure in random disorder, with its edges up to 4 A."""
    atoms = {
        "quartz": quartz((2, 2, 2)),
        "ethanol": molecule("CH3CH2OH"),
        "one atom": bulk("Al", a=3.2),
        "far apart": Atoms("OSi", positions=[[0, 0, 0], [9, 0, 0]]),
    }[name]
    if len(atoms) > 2:
        atoms.rattle(0.05, seed=3)
    cell = torch.tensor(atoms.cell.array, dtype=dtype) if atoms.pbc.all() else None
    return graph_of(torch.tensor(atoms.positions, dtype=dtype), torch.tensor(atoms.numbers % 2), cell)


def sizes(l_max: int, m_max: int, channels: int, hidden: int, mirror: bool) -> dict[str, object]:
    return {"l_max": l_max, "m_max": m_max, "channels": channels, "hidden_channels": hidden, "mirror": mirror}


def fused(potential: ConservativePotential, splines: float | None = None) -> ConservativePotential:
    """The same potential with the fused network."""
    other = copy.deepcopy(potential).requires_grad_(False)
    other.network = fuse(other.network, splines)
    return other


def compare(potential: ConservativePotential, other: ConservativePotential, graph: Graph, tolerance: float) -> None:
    """Energies relative to their spread, forces and virial to their largest component."""
    energies, forces, virial = potential(*graph)
    found = other(*graph)
    scale = potential.scale * 1.0 + float((energies - energies.mean()).abs().max())
    assert float((found[0] - energies).abs().max()) < tolerance * scale
    if graph.edge_index.size(1) == 0:
        assert not found[1].any()
        return
    largest = max(float(virial.abs().max()) / len(energies), float(forces.abs().max()))
    assert float((found[1] - forces).abs().max()) < tolerance * largest
    assert float((found[2] - virial).abs().max()) < tolerance * float(virial.abs().max())


# Against the plain network


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_equals_the_plain_network(size: tuple, dtype: torch.dtype) -> None:
    potential = random_potential(**sizes(*size)).to(dtype)
    compare(potential, fused(potential), structure("ethanol", dtype), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", ["quartz", "one atom", "far apart"])
def test_equals_the_plain_network_on(name: str, dtype: torch.dtype, simd: str) -> None:
    potential = random_potential(channels=20, hidden_channels=12, mirror=False).to(dtype)
    compare(potential, fused(potential), structure(name, dtype), TOLERANCE[dtype])


def test_equals_the_plain_network_at_the_published_width() -> None:
    potential = random_potential(channels=64, hidden_channels=64, edge_channels=64, mirror=False)
    compare(potential, fused(potential), structure("quartz"), 1e-12)
    potential.float()
    compare(potential, fused(potential), structure("quartz", torch.float32), 1e-5)


@pytest.mark.parametrize(
    "choice",
    [
        *({"basis": "bessel"}, {"max_neighbors": 12}, {"envelope": "off"}, {"feed_forward": "grid"}),
        {"charge_spin": "positional"},
    ],
    ids=str,
)
def test_equals_the_plain_network_with(choice: dict[str, object]) -> None:
    potential = random_potential(**choice)
    other = fused(potential)
    if "charge_spin" in choice:
        potential.network.set_system(1.0, 2.0)
        other.network.set_system(1.0, 2.0)
    compare(potential, other, structure("ethanol"), 1e-12)


def test_bonds_along_the_axes() -> None:
    """The frames have no pole; bonds along all axes and diagonals."""
    positions = torch.tensor(
        [[0, 0, 0], [0, 0, 2], [0, 2, 0], [2, 0, 0], [0, 0, -2], [0, -2, 0], [-2, 0, 0], [1, 1, 1]]
    )
    graph = graph_of(positions.double(), torch.arange(8) % 2)
    potential = random_potential(l_max=3, m_max=3)
    compare(potential, fused(potential), graph, 1e-12)


# The pieces


@pytest.mark.parametrize("l_max", [1, 2, 3, 4])
def test_frames_are_the_wigner_matrices(l_max: int) -> None:
    vectors = torch.randn(40, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    vectors[:6] = torch.cat([torch.eye(3), -torch.eye(3)]).double()
    found = torch.ops.equistride.bond_frames(vectors, l_max)
    rotation = WignerRotation(l_max, l_max)
    expected = torch.zeros(40, rotation.size, rotation.size, dtype=torch.float64)
    expected[:, rotation.order] = rotation.double()(vectors / vectors.norm(dim=1, keepdim=True))
    start = 0
    for degree in range(1, l_max + 1):
        n = 2 * degree + 1
        block = slice(degree * degree, (degree + 1) ** 2)
        assert deviation(found[:, start : start + n * n].view(-1, n, n), expected[:, block, block]) < 1e-13
        start += n * n
    assert start == found.size(1)


class Sample:
    """A random block with its arguments."""

    def __init__(self, l_max: int = 2, m_max: int = 1, mirror: bool = False, keep: int = 1 << 30) -> None:
        torch.manual_seed(5)
        first = SO2Convolution(l_max, m_max, 6, 4, num_gates=l_max * 4, mirror=mirror).double()
        second = SO2Convolution(l_max, m_max, 4, 3, mirror=mirror).double()
        self.block = EdgeBlock(first, second, m_max, keep)
        self.block.weights = pack(first, second, torch.nn.Linear(5, first.num_weights).double())
        self.edge_index = torch.tensor([[0, 0, 0, 1, 2, 2, 2], [1, 2, 0, 0, 0, 1, 1]])
        self.x = torch.randn(3, (l_max + 1) ** 2, 3, dtype=torch.float64)
        self.vectors = torch.randn(7, 3, dtype=torch.float64)
        self.envelope, self.hidden = torch.rand(7, dtype=torch.float64), torch.randn(7, 5, dtype=torch.float64)

    def __call__(self, x: Tensor, vectors: Tensor, envelope: Tensor, hidden: Tensor) -> Tensor:
        frames = torch.ops.equistride.bond_frames(vectors.detach(), self.block.l_max)
        return self.block(x, Bonds(vectors, frames, envelope, self.edge_index), hidden)

    def inputs(self) -> list[Tensor]:
        return [t.clone().requires_grad_() for t in (self.x, self.vectors, self.envelope, self.hidden)]

    def arguments(self) -> list[object]:
        frames = torch.ops.equistride.bond_frames(self.vectors, self.block.l_max)
        b = self.block
        tensors = [self.x, self.vectors, frames, self.envelope, self.hidden, self.edge_index, b.weights]
        return [*tensors, b.l_max, b.m_max, b.hidden_channels, b.mirror]


@pytest.mark.parametrize("mirror", [True, False])
@pytest.mark.parametrize(("l_max", "m_max"), [(1, 1), (2, 1), (3, 2), (4, 0)])
def test_gradients_against_finite_differences(l_max: int, m_max: int, mirror: bool) -> None:
    sample = Sample(l_max, m_max, mirror)
    assert torch.autograd.gradcheck(sample, sample.inputs())


def gradients(sample: Sample) -> list[Tensor]:
    inputs = sample.inputs()
    out = sample(*inputs)
    return [out.detach(), *torch.autograd.grad(out.square().sum(), inputs)]


@pytest.mark.parametrize("keep", [0, 2000])
def test_what_is_not_kept_is_computed_again(keep: int) -> None:
    for found, expected in zip(gradients(Sample(keep=keep)), gradients(Sample()), strict=True):
        assert torch.equal(found, expected)


def test_no_sum_depends_on_the_number_of_threads() -> None:
    """Bit for bit, with work for three and more edges than a slab of waiting gradients holds."""
    case = BlockCase("published", torch.float32, atoms=97, edges=5000)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(case.everything(torch.ops.equistride))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


# Splines


def test_splines_stand_for_the_radial_networks() -> None:
    potential = random_potential(channels=16, edge_channels=32)
    other = fused(potential, 1e-10)
    assert 0 < other.network.error <= 1e-10
    graph = structure("quartz")
    _, forces, _ = potential(*graph)
    rms = float(forces.square().mean().sqrt())
    assert float((other(*graph)[1] - forces).abs().max()) < 1e-7 * rms
    plain = {type(block.radial) for block in fused(potential).network.blocks}
    assert plain != {type(block.radial) for block in other.network.blocks} == {RadialSplines}


def test_with_many_elements_splines_stand_for_the_first_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(esen_fused, "TABLE_BYTES", 1 << 20)
    potential = random_potential(channels=16, edge_channels=32)
    other = fused(potential, 1e-10)
    network = other.network
    assert {type(radial) for radial in (network.degree, *(block.radial for block in network.blocks))} == {FoldedRadial}
    # what follows the first layer hardly adds to its error; a quintic's slope is a power of the step worse
    assert 0 < network.error <= 1e-9
    assert 0 < network.slope_error <= 1e-6
    graph = structure("quartz")
    _, forces, _ = potential(*graph)
    for form in (other, torch.jit.script(other)):
        assert float((form(*graph)[1] - forces).abs().max()) < 1e-7 * float(forces.square().mean().sqrt())


def splines() -> RadialSplines:
    def function(r: Tensor, pair: Tensor) -> Tensor:
        return torch.stack([torch.sin(r + pair), torch.exp(-r) * (1 + pair), r**3 - pair], 1)

    return RadialSplines.tabulate(function, 2, 0.5, 5.0, 1e-7)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_splines_have_values_and_slopes(dtype: torch.dtype, simd: str) -> None:
    table = splines().to(dtype)
    r = (0.4 + 4.7 * torch.rand(50, generator=torch.Generator().manual_seed(2), dtype=torch.float64)).to(dtype)
    pair = torch.arange(50) % 2
    at = r.double().requires_grad_()
    expected = torch.stack([torch.sin(at + pair), torch.exp(-at) * (1 + pair), at**3 - pair], 1)
    inside = (r > 0.5) & (r < 5)
    found = table(r.requires_grad_(), pair)
    assert deviation(found[inside], expected[inside]) < 2e-7
    (slope,) = torch.autograd.grad(found.sum(), r)
    (wanted,) = torch.autograd.grad(expected.sum(), at)
    assert deviation(slope[inside], wanted[inside]) < 1e-5
    assert deviation(found, expected) < 1e-3  # the cubics go on beyond the ends


def test_splines_are_smooth_at_their_knots() -> None:
    """Value, slope and curvature of neighbouring polynomials are the same there (C2)."""
    table = splines()
    at_end = torch.ones(table.tables.size(2), dtype=torch.float64)
    power = torch.arange(table.tables.size(2), dtype=torch.float64)
    for order in range(3):
        before = torch.einsum("pitc,t->pic", table.tables[:, :-1], at_end)
        after = table.tables[:, 1:, order] * math.factorial(order)
        # a curvature is a difference of slopes 1 / 32 interval apart: eleven digits of those
        assert float((before - after).abs().max()) < 1e-11 * float(table.tables[:, :, 0].abs().max())
        at_end = at_end * (power - order)


def test_tables_may_have_other_degrees(simd: str) -> None:
    """Files of earlier versions hold cubics."""
    tables = torch.randn(2, 5, 4, 19, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    lengths = torch.tensor([1.05, 1.33, 1.49], dtype=torch.float64, requires_grad=True)
    found = torch.ops.equistride.radial_splines(lengths, torch.tensor([0, 1, 1]), tables, 1.0, 0.1)
    t = (lengths.detach() - 1) / 0.1 - torch.tensor([0.0, 3, 4])
    rows = torch.stack([tables[0, 0], tables[1, 3], tables[1, 4]])
    powers = t[:, None] ** torch.arange(4)
    assert torch.allclose(found, torch.einsum("ek,ekc->ec", powers, rows), rtol=1e-12, atol=1e-12)
    (slope,) = torch.autograd.grad(found.sum(), lengths)
    rates = torch.arange(1, 4) * powers[:, :3] / 0.1
    assert torch.allclose(slope, torch.einsum("ek,ekc->e", rates, rows[:, 1:]), rtol=1e-11, atol=1e-10)


def test_splines_refuse() -> None:
    table = splines()
    r = torch.ones(3, dtype=torch.float64)
    with pytest.raises(IndexError, match="pair must name tables below 2; found 7 at edge 1"):
        table(r, torch.tensor([0, 7, 0]))
    with pytest.raises(ValueError, match="one number an edge"):
        table(r, torch.tensor([0, 1]))
    with pytest.raises(TypeError, match="must have the type of lengths"):
        table(r.float(), torch.tensor([0, 1, 0]))
    assert torch.isnan(table(r * float("nan"), torch.tensor([0, 1, 0]))).all()


# Refusals


@pytest.mark.parametrize(
    ("place", "change", "error", "message"),
    [
        (0, lambda x: x[:, :8], ValueError, r"x must have \(l_max \+ 1\)\^2 = 9 rows"),
        (0, lambda x: x[0], ValueError, "x must have shape"),
        (0, lambda x: x.half(), TypeError, "x must be float32 or float64"),
        (1, lambda v: v[:5], ValueError, "vectors must have one row an edge"),
        (2, lambda f: f[:, 1:], ValueError, "frames must have one row an edge"),
        (3, lambda e: e.float(), TypeError, "envelope must have the type of x"),
        (3, lambda e: e[:, None], ValueError, "envelope must hold one number an edge"),
        (4, lambda h: h[:, :4], ValueError, "weights must hold .* pack them"),
        (5, lambda i: i.int(), TypeError, "edge_index must be int64"),
        (5, lambda i: i.flip(1), ValueError, "sorted by receiver"),
        (5, lambda i: i + 2, IndexError, "receivers below 3"),
        (6, lambda w: w[1:], ValueError, "weights must hold"),
        (7, lambda _: 5, ValueError, "l_max must lie between 0 and 4"),
        (8, lambda _: 3, ValueError, "m_max between 0 and l_max"),
        (9, lambda _: 0, ValueError, "hidden_channels must be above 0"),
    ],
)
def test_refuses_wrong_arguments(place: int, change: object, error: type[Exception], message: str) -> None:
    arguments = Sample().arguments()
    arguments[place] = change(arguments[place])
    with pytest.raises(error, match=message):
        torch.ops.equistride.edge_block(*arguments, 0)


def test_has_first_gradients_only() -> None:
    sample = Sample()
    inputs = sample.inputs()
    with pytest.raises(NotImplementedError, match="first gradients only"):
        torch.autograd.grad(sample(*inputs).square().sum(), inputs[0], create_graph=True)
    sample.block.weights.requires_grad_()
    with pytest.raises(ValueError, match="have no gradient here"):
        sample(*inputs)


def test_refuses_networks_without_a_fused_form() -> None:
    network = random_potential(activation="s2").network
    assert not fusable(network)
    with pytest.raises(EquistrideError, match=r"cannot be fused.*gate activations"):
        fuse(network)


def test_refuses_unknown_instruction_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EQUISTRIDE_SIMD", "avx3")
    with pytest.raises(ValueError, match="EQUISTRIDE_SIMD names an instruction set"):
        Sample()(*Sample().inputs())


# Other ways to run


def test_operators_pass_opcheck() -> None:
    ops = torch.ops.equistride
    sample = Sample()
    arguments = sample.arguments()
    operators.opcheck(ops.bond_frames.default, (sample.vectors, 3))
    with_gradient = [t.clone().requires_grad_() if k in (0, 1, 3, 4) else t for k, t in enumerate(arguments)]
    operators.opcheck(ops.edge_block.default, (*with_gradient, 2000))
    _, kept = ops.edge_block(*arguments, 2000)
    operators.opcheck(
        ops.edge_block_backward.default, (torch.randn_like(sample.x), *arguments[:7], kept, *arguments[7:])
    )
    table = splines()
    lengths, pair = torch.rand(4, dtype=torch.float64) + 1, torch.tensor([0, 1, 1, 0])
    rest = (pair, table.tables, table.start, table.step)
    operators.opcheck(ops.radial_splines.default, (lengths.requires_grad_(), *rest))
    operators.opcheck(
        ops.radial_splines_backward.default, (torch.ones(4, 3, dtype=torch.float64), lengths.detach(), *rest)
    )


def test_torchscript_gives_the_same_numbers() -> None:
    potential = fused(random_potential(mirror=False), 1e-9)
    scripted = torch.jit.script(potential)
    for name in ("quartz", "ethanol", "far apart", "quartz"):
        graph = structure(name)
        for found, expected in zip(scripted(*graph), potential(*graph), strict=True):
            assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_the_plain_network_stays_inside() -> None:
    """For a GPU, where the library was built without CUDA."""
    built = torch._C._dispatch_has_kernel_for_dispatch_key("equistride::edge_block", "CUDA")
    assert torch.ops.equistride.edge_block_on_gpu() == built
    potential = random_potential()
    network = fuse(potential.network)
    assert isinstance(network, FusedESEN)
    graph = structure("ethanol")
    vectors = graph.positions[graph.edge_index[1]] - graph.positions[graph.edge_index[0]]
    expected = potential.network(vectors, graph.species, graph.edge_index)
    found = network.plain(vectors, graph.species, graph.edge_index)
    assert torch.allclose(found, expected, rtol=0, atol=1e-13)


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_several_calls_at_once() -> None:
    """Calls from several threads share no scratch memory."""
    from concurrent.futures import ThreadPoolExecutor

    potential = fused(random_potential())
    graph = structure("quartz")
    expected = potential(*graph)[1]
    with ThreadPoolExecutor(2) as pool:
        for forces in pool.map(lambda _: potential(*graph)[1], range(4)):
            assert torch.equal(forces, expected)
