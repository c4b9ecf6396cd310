"""A served TrajCast in operators, one a layer, against the plain layers, and what they must refuse."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, library, nn
from trajcast_systems import CUTOFF, Frame, cluster, config, crystal, frame_of, propagator, several

from equistride.artifact import load
from equistride.artifact.propagators import save_propagator
from equistride.bench.work import work_of
from equistride.models.trajcast import Motion, TrajCast, TrajCastLayer
from equistride.nn.bonds import Bonds

OPS = torch.ops.equistride
TOLERANCE = {torch.float64: 1e-13, torch.float32: 1e-5}
"""Of largest values: some dozen roundings a layer."""


def packed(network: nn.Module) -> list[TrajCastLayer]:
    """Lay the weights of a network's layers out."""
    layers = [part for part in network.modules() if isinstance(part, TrajCastLayer)]
    for layer in layers:
        layer.pack()
    return layers


def inputs(frame: Frame, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What the network reads of a frame."""
    receivers, senders = frame.edge_index
    vectors = frame.positions[senders] - frame.positions[receivers] + frame.shifts.double() @ frame.cell
    return vectors.to(dtype), frame.velocities.to(dtype), frame.species, frame.edge_index


def served(network: TrajCast, dtype: torch.dtype = torch.float64) -> TrajCast:
    """A network with tables, for serving."""
    return network.double().with_tables(0.2, 1e-4).to(dtype).eval().requires_grad_(False)


def far_apart() -> Frame:
    """Atoms of which nine have no neighbours, and two do not move."""
    frame = cluster()
    positions, velocities = frame.positions.clone(), frame.velocities.clone()
    positions[3:12] += 100.0 * torch.arange(1.0, 10.0)[:, None]
    velocities[2:4] = 0
    return frame_of(positions, velocities, frame.species)


FRAMES = {"cluster": cluster(), "crystal": crystal(), "far apart": far_apart()}
SIZES = [
    {"l_max": 1, "channels": 4}, {"channels": 5, "num_layers": 1}, {"channels": 32, "speed_widths": (16, 24)},
    {"l_max": 3, "channels": 17}, {"l_max": 4, "channels": 8},
    {"parity": False, "num_layers": 3},
]  # fmt: skip


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_equal_the_plain_layers(sizes: dict[str, object], dtype: torch.dtype, simd: str) -> None:
    network = served(propagator(**sizes).network)
    for frame in FRAMES.values():
        given = inputs(frame)
        expected = network.features(*given)
        found = copy.deepcopy(network).to(dtype)
        packed(found)
        for one, other in zip(found.features(*inputs(frame, dtype)), expected, strict=True):
            assert one.dtype == dtype
            assert float((one - other).abs().max()) <= TOLERANCE[dtype] * float(other.abs().max())


@pytest.mark.parametrize("species", [1, 4])
def test_any_number_of_elements(species: int) -> None:
    network = served(TrajCast(config(channels=8), species))
    frame = crystal()._replace(species=torch.arange(27).flip(0) % species)
    expected = network(*inputs(frame))
    packed(network)
    assert torch.allclose(network(*inputs(frame)), expected, rtol=0, atol=1e-13 * float(expected.abs().max()))


def test_several_strides() -> None:
    network = served(several().network)
    given = inputs(crystal())
    expected = []
    for stride in range(3):
        network.set_stride(stride)
        expected.append(network(*given))
    packed(network)
    for stride in range(3):
        network.set_stride(stride)
        found = network(*given)
        assert torch.allclose(found, expected[stride], rtol=0, atol=1e-13 * float(found.abs().max()))
    assert not torch.allclose(expected[0], expected[1])


def test_no_atom_depends_on_its_place_or_on_threads() -> None:
    """Bit for bit; the crystal is repeated until its atoms are worth three threads."""
    frame, count = crystal(), 81
    times = torch.arange(count)[:, None]
    vectors, velocities, species, edges = inputs(frame, torch.float32)
    given = (
        vectors.repeat(count, 1), velocities.repeat(count, 1), species.repeat(count),
        (edges[:, None, :] + 27 * times).flatten(1),
    )  # fmt: skip
    network = served(propagator(channels=32).network, torch.float32)
    packed(network)
    expected, before = network(*given), torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(network(*given), expected)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(expected.view(count, 27, 2, 3), expected[:27].expand(count, 27, 2, 3))


def test_an_artifact_is_served_by_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layouts are made as it is loaded, for its precision, and no file holds them."""
    model, frame, path = propagator(channels=16), crystal(), tmp_path / "model.pt"
    metadata = save_propagator(model, path, dtype="float64", tables=1e-6)
    assert {"equistride::trajcast_layer", "equistride::trajcast_pack"} <= set(metadata.operators)
    script = torch.jit.load(path)
    assert all(layer.weights.numel() == 0 for layer in script.network.layers.children())
    args = (frame.positions, frame.velocities, frame.species, frame.cell)
    for found, plain in zip(load(path).propagate(*args, True), script(*frame), strict=True):
        assert not torch.equal(found, plain)  # sums in another order
        assert torch.allclose(found, plain, rtol=0, atol=1e-13)


def test_its_work_is_that_of_the_plain_layers() -> None:
    """But for what is kept of the old features, by one matrix in place of one for each of two elements."""
    network = served(propagator().network)
    given = inputs(crystal())
    plain = work_of(lambda: network(*given))
    packed(network)
    kept = 2 * 27 * 8**2 * (9 + 3)  # rows of both layers
    assert work_of(lambda: network(*given)) == plain - kept


def test_gradients_take_the_plain_way() -> None:
    network = served(propagator().network)
    layers = packed(network)
    vectors, velocities, species, edges = inputs(cluster())
    vectors.requires_grad_()
    network(vectors, velocities, species, edges).square().sum().backward()
    assert float(vectors.grad.abs().max()) > 0
    with pytest.raises(ValueError, match="reads have no gradient here"):
        OPS.trajcast_layer(
            *arguments(layers[0], vectors.detach(), velocities.requires_grad_(), species, edges).values()
        )


def arguments(
    layer: TrajCastLayer, vectors: Tensor, velocities: Tensor, species: Tensor, edges: Tensor
) -> dict[str, object]:
    """The operator's, for random features."""
    generator = torch.Generator().manual_seed(3)
    width = sum(layer.input_widths)
    x = torch.randn(species.size(0), width, dtype=torch.float64, generator=generator)
    scalars = layer.speed_network.layers[0].weight.size(0)
    motion = torch.randn(species.size(0), scalars, dtype=torch.float64, generator=generator)
    harmonics = torch.randn(species.size(0), 9, dtype=torch.float64, generator=generator)
    messages = layer.messages.convolution
    return {
        "x": x, "edge_index": edges, "lengths": torch.linalg.vector_norm(vectors, dim=1).clamp(max=CUTOFF),
        "bond_harmonics": torch.randn(edges.size(1), 9, dtype=torch.float64, generator=generator), "table": layer.table,
        "start": messages.start, "step": messages.step, "motion": motion, "harmonics": harmonics + 0 * velocities[:, :1],
        "species": species, "weights": layer.weights, "message_paths": messages.paths,
        "message_couplings": messages.couplings, "motion_paths": layer.conditioning.paths,
        "motion_couplings": layer.conditioning.couplings, "sizes": layer.sizes, "factors": layer.factors,
    }  # fmt: skip


def test_the_first_atoms_alone_receive() -> None:
    """As where other atoms belong to another process: they send, and have no row in the result."""
    network = served(propagator().network)
    layer = packed(network)[1]
    given = arguments(layer, *inputs(crystal()))
    expected = OPS.trajcast_layer(*given.values())
    kept = given["edge_index"][0] < 10
    for name in ("lengths", "bond_harmonics"):
        given[name] = given[name][kept]
    given["edge_index"] = given["edge_index"][:, kept]
    for name in ("motion", "harmonics", "species"):
        given[name] = given[name][:10]
    assert torch.equal(OPS.trajcast_layer(*given.values()), expected[:10])
    bonds = Bonds(given["edge_index"], given["lengths"], given["bond_harmonics"], given["lengths"][:0], kept[:0])
    layer.unpack()
    atoms, one_hot = torch.arange(10), torch.eye(2, dtype=torch.float64)[given["species"]]
    motion = Motion(torch.stack([atoms, atoms]), given["harmonics"], given["motion"], given["species"], one_hot)
    for portion in (0, 3):
        layer.portion = portion
        found = layer(given["x"], bonds, motion)
        assert torch.allclose(found, expected[:10], rtol=0, atol=1e-13 * float(expected.abs().max()))


def test_no_atoms_and_shapes_without_data() -> None:
    layer = packed(served(propagator().network))[0]
    given = arguments(layer, *inputs(crystal()))
    library.opcheck(OPS.trajcast_layer.default, tuple(given.values()))
    for name in ("motion", "harmonics", "species", "lengths", "bond_harmonics"):
        given[name] = given[name][:0]
    given["edge_index"] = given["edge_index"][:, :0]
    assert OPS.trajcast_layer(*given.values()).shape == (0, 18 * 8)


def _with(sizes: list[int], place: int, value: int) -> list[int]:
    return [*sizes[:place], value, *sizes[place + 1 :]]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": lambda x: x[:, :-1]}, ValueError, "x has 71 columns"),
        ({"x": lambda x: x[:5]}, ValueError, "must have a row for each of the 27 atoms"),
        ({"x": lambda x: x.float()}, TypeError, "must have the type of x"),
        ({"motion": lambda m: m[:, :-1]}, ValueError, "weights must hold"),
        ({"motion": lambda m: m[0]}, ValueError, "two dimensions"),
        ({"harmonics": lambda h: h[:, :-1]}, ValueError, "y has 8 columns"),
        ({"harmonics": lambda h: h[1:]}, ValueError, r"harmonics must have shape \[27, 9\]"),
        ({"species": lambda s: s + 1}, IndexError, "species must lie between 0 and 1"),
        ({"species": lambda s: s.int()}, TypeError, "species must be int64"),
        ({"species": lambda s: s[1:]}, ValueError, "species must have one number an atom"),
        ({"weights": lambda w: w[1:]}, ValueError, "weights must hold"),
        ({"lengths": lambda r: r + 1}, ValueError, "longer or shorter than the radial table"),
        ({"edge_index": lambda e: e.flip(1)}, ValueError, "sorted by receiver"),
        ({"factors": lambda f: f[1:]}, ValueError, "has 2 factors"),
        ({"sizes": lambda s: s[:-1]}, ValueError, "end too early"),
        ({"sizes": lambda s: [*s, 1]}, ValueError, "more than its sizes"),
        ({"sizes": lambda s: _with(s, 0, 1 << 62)}, ValueError, "at most 1048576"),
        ({"sizes": lambda s: _with(s, 0, 4)}, ValueError, "fill its irreps"),
        ({"sizes": lambda s: _with(s, 1, 3)}, ValueError, "weights must hold"),
        ({"sizes": lambda s: _with(s, 4, 7)}, ValueError, "must make .* weights; found 7"),
        ({"sizes": lambda s: _with(s, len(s) - 1, 72)}, ValueError, "keeps column 72 of 72"),
        ({"sizes": lambda s: _with(s, len(s) - 2, 1 << 40)}, ValueError, "must lie within"),
        ({"sizes": lambda s: _with(s, len(s) - 4, 3)}, ValueError, "unknown gate"),
        ({"motion_paths": lambda p: p[10:]}, ValueError, "fill its irreps"),
        ({"message_paths": lambda p: p[:-10]}, ValueError, r"table must have|fill its irreps"),
    ],
)
def test_refuses(change: dict[str, Callable[[object], object]], error: type[Exception], message: str) -> None:
    layer = packed(served(propagator().network))[0]
    given = arguments(layer, *inputs(crystal()))
    for name, function in change.items():
        given[name] = function(given[name])
    with pytest.raises(error, match=message):
        OPS.trajcast_layer(*given.values())


def test_packing_refuses() -> None:
    matrix = torch.zeros(3, 4)
    with pytest.raises(ValueError, match="no matrices to pack"):
        OPS.trajcast_pack([])
    with pytest.raises(ValueError, match=r"must have shape \[in, out\]"):
        OPS.trajcast_pack([matrix[0]])
    with pytest.raises(TypeError, match="must have the type of the first"):
        OPS.trajcast_pack([matrix, matrix.double()])
    assert OPS.trajcast_pack([matrix, matrix + 1]).numel() == 2 * 3 * 32  # panels of 32 columns
