"""The TrajCast network itself: its size, what it refuses, its tables, its artifact."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from e3nn.math import normalize2mom
from e3nn.nn import FullyConnectedNet, Gate
from e3nn.o3 import Irreps, spherical_harmonics
from pydantic import ValidationError
from trajcast_systems import CUTOFF, MASSES, STRIDE, cluster, config, crystal, frame_of, propagator

from equistride.artifact import load
from equistride.artifact.propagators import save_propagator
from equistride.errors import EquistrideError
from equistride.models.propagator import Propagator
from equistride.models.trajcast import TrajCast, TrajCastConfig
from equistride.nn import equivariant
from equistride.nn.harmonics import SphericalHarmonics
from equistride.nn.scalar_network import NORMALISED_SILU, NORMALISED_TANH, ScalarNetwork
from equistride.nn.speed import LengthBasis
from equistride.nn.tensor_product import channels_first, channels_last

PUBLISHED = TrajCastConfig(max_speed=0.03, avg_num_neighbors=30)


def scripted(module: torch.nn.Module) -> torch.jit.ScriptModule:
    """Script a module as the export does."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        return torch.jit.script(module.eval().requires_grad_(False))


@pytest.mark.parametrize(("num_species", "published"), [(2, 2_258_856), (4, 2_431_144)])
def test_parameters_of_the_published_size(num_species: int, published: int) -> None:
    complete = TrajCast(PUBLISHED, num_species, complete=True)
    assert sum(p.numel() for p in complete.parameters()) == published
    served = TrajCast(PUBLISHED, num_species)
    assert sum(p.numel() for p in served.parameters()) < 0.9 * published
    assert served.layers[-1].update.rows == [1, 3]  # gates and vectors alone


@pytest.mark.parametrize("parity", [True, False], ids=["both parities", "one parity"])
def test_every_parameter_matters(parity: bool) -> None:
    """No dead weights: each has a gradient, and the complete network's other ones are the dead ones."""
    model, frame = propagator(parity=parity), cluster()
    vectors = frame.positions[frame.edge_index[1]] - frame.positions[frame.edge_index[0]]
    whole = TrajCast(config(parity=parity), 2, complete=True).double()
    for network, dead in ((model.network, False), (whole, True)):
        network(vectors, frame.velocities, frame.species, frame.edge_index).square().sum().backward()
        assert all(p.grad is not None for p in network.parameters())
        silent = sum(int((p.grad == 0).sum()) for p in network.parameters() if p.grad is not None)
        assert (silent > 1000) == dead


def test_features_of_one_parity_are_those_of_the_harmonics() -> None:
    network = TrajCast(config(parity=False, num_layers=3), 2)
    assert [str(ir) for layer in network.layers for ir in layer.outputs] == ["0e", "1o", "2e"] * 2 + ["1o"]


@pytest.mark.parametrize("l_max", [0, 1, 2, 3, 4])
def test_harmonics_are_e3nns(l_max: int) -> None:
    vectors = torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = spherical_harmonics(list(range(l_max + 1)), vectors, normalize=True, normalization="component")
    harmonics = SphericalHarmonics(l_max)
    assert torch.allclose(harmonics(vectors), expected, rtol=0, atol=1e-13)
    assert torch.allclose(harmonics(vectors.float()).double(), expected, rtol=0, atol=1e-5)
    at_rest = harmonics(torch.zeros(1, 3, dtype=torch.float64))
    assert at_rest.tolist() == [[1.0] + [0.0] * ((l_max + 1) ** 2 - 1)]


def test_constants_and_networks_are_e3nns() -> None:
    for function, constant in ((torch.nn.functional.silu, NORMALISED_SILU), (torch.tanh, NORMALISED_TANH)):
        assert normalize2mom(function, dtype=torch.float64).cst == pytest.approx(constant, rel=1e-14)
    theirs = FullyConnectedNet([8, 16, 16, 20], torch.nn.functional.silu).double()
    ours = ScalarNetwork([8, 16, 16, 20]).double()
    ours.load_state_dict({f"layers.{i}.weight": layer.weight for i, layer in enumerate(theirs)})
    x = torch.randn(30, 8, dtype=torch.float64)
    assert torch.allclose(ours(x), theirs(x), rtol=0, atol=1e-6)  # e3nn casts its constant to single precision
    assert not bool(ours(torch.zeros(1, 8, dtype=torch.float64)).any())


def test_the_gate_is_e3nns() -> None:
    irreps = equivariant.both_parities(2)
    ours = equivariant.Gate(irreps, 4)
    theirs = Gate(
        "4x0o + 4x0e",
        [torch.tanh, torch.nn.functional.silu],
        "16x0e",
        [torch.nn.functional.silu],
        "4x1o+4x1e+4x2o+4x2e",
    )
    columns = Irreps([(width, ir) for ir, width in ours.input_channels().items()])
    x = torch.randn(10, columns.dim, dtype=torch.float64)
    widths = [(ir.dim, width) for ir, width in ours.input_channels().items()]
    parts = x.split([dim * width for dim, width in widths], 1)
    blocks = [part.view(10, *shape) for part, shape in zip(parts, widths, strict=True)]
    out = channels_first(equivariant.join(ours(blocks)), "4x0o+4x0e+4x1o+4x1e+4x2o+4x2e")
    expected = theirs.double()(channels_first(x, columns))
    assert torch.allclose(out, expected, rtol=0, atol=1e-6)
    assert torch.equal(channels_last(channels_first(x, columns), columns), x)


def test_lengths_fade_at_the_cutoff() -> None:
    basis = LengthBasis(CUTOFF, 8, 6).double().requires_grad_(False)
    r = torch.linspace(0.5, CUTOFF + 1, 200, dtype=torch.float64)
    assert bool((basis(r)[r >= CUTOFF] == 0).all())
    h = 1e-3
    near = basis(torch.tensor([CUTOFF - 2 * h, CUTOFF - h], dtype=torch.float64)).abs().amax(1)
    assert float(near[0] / near[1]) == pytest.approx(16.0, rel=0.05)  # the fourth power: three derivatives vanish


@pytest.mark.parametrize("frame", [cluster(), crystal()], ids=["cluster", "crystal"])
def test_torchscript_and_the_plain_convolution_give_the_same(frame: tuple[torch.Tensor, ...]) -> None:
    model = propagator()
    expected = model(*frame)
    assert not expected[0].requires_grad
    network = TrajCast(config(), 2, fused=False).double()
    network.load_state_dict(model.network.state_dict())
    plain = Propagator(network, ["O", "Si"], MASSES, CUTOFF, STRIDE, (0.1, 0.006)).double()
    for variant, tolerance in ((scripted(model), 0.0), (plain, 1e-13), (scripted(plain), 1e-13)):
        for found, wanted in zip(variant(*frame), expected, strict=True):
            assert float((found - wanted).abs().max()) <= tolerance


def test_bonds_longer_than_the_cutoff_do_nothing() -> None:
    """So a neighbour list with a skin serves."""
    frame, model = crystal(), propagator()
    from equistride.graph import neighbor_list

    longer = frame._replace(
        **dict(zip(("edge_index", "shifts"), neighbor_list(frame.positions, frame.cell, True, CUTOFF + 1), strict=True))
    )
    for variant in (model, _tabled(model)):
        for found, expected in zip(variant(*longer), variant(*frame), strict=True):
            assert torch.allclose(found, expected, rtol=0, atol=1e-13)


def _tabled(model: Propagator, **settings: float) -> Propagator:
    network = model.network.with_tables(**settings)
    return Propagator(network, model.species, model.masses, CUTOFF, STRIDE, (0.1, 0.006)).double()


@pytest.mark.parametrize("tables", [False, True], ids=["networks", "tables"])
@pytest.mark.parametrize("portion", [1, 5, 26, 27])
def test_portions_of_atoms_change_nothing(portion: int, tables: bool) -> None:
    """Also where a portion of atoms has no bonds."""
    frame, model = crystal(), propagator()
    far = frame.positions.clone()
    far[3:12] += 100.0 * torch.arange(1.0, 10.0)[:, None]
    for case in (frame, frame_of(far, frame.velocities, frame.species)):
        variant = _tabled(model) if tables else model
        expected = variant(*case)
        for layer in variant.network.layers:
            layer.portion = portion
        variant.requires_grad_(False)
        for run in (variant, scripted(variant)):
            for found, wanted in zip(run(*case), expected, strict=True):
                assert torch.allclose(found, wanted, rtol=0, atol=1e-14)


def test_tables_change_the_stride_by_their_error() -> None:
    frame, model = crystal(), propagator()
    exact = model(*frame)
    for tolerance in (1e-4, 1e-7):
        found = _tabled(model, tolerance=tolerance)(*frame)
        for a, b in zip(found, exact, strict=True):
            assert 0.0 < float((a - b).abs().max()) <= 10 * tolerance * float(b.abs().max())
    with pytest.raises(EquistrideError, match="tables already"):
        model.network.with_tables().with_tables()


def test_atoms_faster_than_the_basis_are_refused() -> None:
    frame, model = cluster(), propagator()
    fast = frame.velocities.clone()
    fast[5] = torch.tensor([0.03, 0.04, 0.0]) * 1.0001
    message = "atom 5 moves at 5000 m/s, faster than the model covers; expected below 5000 m/s"
    with pytest.raises(EquistrideError, match=message):
        model(*frame._replace(velocities=fast))
    with pytest.raises(torch.jit.Error, match=message):
        scripted(model)(*frame._replace(velocities=fast))
    fast[5] *= 0.999
    model(*frame._replace(velocities=fast))


def test_atoms_faster_than_those_of_the_training_are_taken_for_as_fast(tmp_path: Path) -> None:
    """Weights stay those of the fastest known atom of the element, along any direction; slower atoms are seen as before."""
    frame, model = cluster(), propagator()
    speeds, fastest = model.network.speeds, torch.tensor([0.01, 0.015], dtype=torch.float64)
    along = torch.nn.functional.normalize(torch.tensor([[1.0, 2.0, -1.0], [0.0, 1.0, 3.0]]), dim=1).double()
    elements = torch.eye(2, dtype=torch.float64)
    free = [speeds(scale * fastest[:, None] * along, elements) for scale in (0.9, 1.0, 1.4)]
    before = model(*frame)
    model.network.know(fastest.tolist())
    held = [speeds(scale * fastest[:, None] * along, elements) for scale in (0.9, 1.0, 1.4)]
    for one, other in zip(free[:2], held[:2], strict=True):
        torch.testing.assert_close(other, one, rtol=0, atol=1e-6)  # the known speeds are float32
    torch.testing.assert_close(held[2], free[1], rtol=0, atol=1e-6)
    assert float((free[2] - free[1]).abs().max()) > 0.1
    assert float(frame.velocities.norm(dim=1).max()) > 0.015
    after = model(*frame)
    assert float((after[0] - before[0]).abs().max()) > 1e-5
    save_propagator(model, tmp_path / "model.pt", dtype="float64", tables=1e-6, shortest=0.2)
    loaded = load(tmp_path / "model.pt").propagate(frame.positions, frame.velocities, frame.species)
    torch.testing.assert_close(loaded.displacements, after[0], rtol=1e-4, atol=1e-7)


def test_bonds_shorter_than_the_tables_are_refused() -> None:
    frame = cluster()
    close = frame.positions.clone()
    close[4] = close[2] + torch.tensor([0.3, 0.0, 0.0])
    close_frame = frame_of(close, frame.velocities, frame.species)
    model = propagator()
    model(*close_frame)
    with pytest.raises(
        EquistrideError,
        match=r"atoms 2 and 4 are (29|30) pm apart, closer than the model's tables reach; expected 50 pm",
    ):
        _tabled(model, shortest=0.5)(*close_frame)


@pytest.mark.parametrize(
    ("wrong", "where"),
    [({"l_max": 0}, "l_max"), ({"max_speed": 0.0}, "max_speed"), ({"cutoff": -1.0}, "cutoff"), ({"width": 3}, "width")],
)
def test_sizes_that_make_no_network_are_refused(wrong: dict[str, float], where: str) -> None:
    with pytest.raises(ValidationError, match=where):
        config(**wrong)


def test_wrong_facts_are_refused() -> None:
    network = TrajCast(config(), 2)
    with pytest.raises(EquistrideError, match="one mass; expected 2; found 1"):
        Propagator(network, ["O", "Si"], [16.0], CUTOFF, STRIDE, (0.1, 0.006))
    with pytest.raises(EquistrideError, match="stride above 0"):
        Propagator(network, ["O", "Si"], MASSES, CUTOFF, 0.0, (0.1, 0.006))
    with pytest.raises(EquistrideError, match="scale above 0"):
        Propagator(network, ["O", "Si"], MASSES, CUTOFF, STRIDE, (0.1, float("nan")))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("tables", [None, 1e-6])
def test_an_artifact_gives_the_same_stride(tmp_path: Path, dtype: str, tables: float | None) -> None:
    model, frame, path = propagator(), crystal(), tmp_path / "model.pt"
    metadata = save_propagator(model, path, dtype=dtype, tables=tables, description="toy")
    assert metadata.stride_fs == STRIDE
    assert metadata.masses == MASSES
    assert metadata.max_speed == 0.05
    loaded = load(path)
    stride = loaded.propagate(frame.positions, frame.velocities, frame.species, frame.cell, True)
    tolerance = 1e-4 if dtype == "float32" else 1e-4 if tables else 1e-13
    for found, expected in zip(stride, model(*frame), strict=True):
        assert float((found - expected).abs().max()) <= tolerance * float(expected.abs().max())
    assert float((model(*frame)[0]).abs().max()) > 1e-3  # the propagator given is left as it was
    with pytest.raises(EquistrideError, match="cannot compute forces"):
        loaded.compute(frame.positions, frame.species, frame.cell, True)
    with pytest.raises(EquistrideError, match=r"^atom \d+ moves at \d+ m/s, faster than the model covers"):
        loaded.propagate(frame.positions, 100 * frame.velocities, frame.species, frame.cell, True)


def test_a_cell_without_periodicity_is_none(tmp_path: Path) -> None:
    """A molecule in a box that ASE draws around it keeps its angular momentum."""
    model, frame, path = propagator(), cluster(), tmp_path / "model.pt"
    save_propagator(model, path, dtype="float64")
    stride = load(path).propagate(frame.positions, frame.velocities, frame.species, 30 * torch.eye(3).double(), False)
    for found, expected in zip(stride, model(*frame), strict=True):
        assert torch.allclose(found, expected, rtol=0, atol=1e-14)


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    model = propagator()
    with torch.no_grad():
        model.network.readout.weight[1] = float("inf")
    with pytest.raises(EquistrideError, match=r"readout\.weight are not finite"):
        save_propagator(model, tmp_path / "model.pt")
    with pytest.raises(EquistrideError, match="precision is not known"):
        save_propagator(propagator(), tmp_path / "model.pt", dtype="float16")
    assert not list(tmp_path.iterdir())
