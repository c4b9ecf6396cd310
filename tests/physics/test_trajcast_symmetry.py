"""A stride turns, mirrors, shifts and permutes with the system, and keeps momenta."""

from __future__ import annotations

import math

import pytest
import torch
from e3nn.o3 import rand_matrix
from torch import Tensor
from trajcast_systems import MASSES, STRIDE, Frame, cluster, crystal, frame_of, propagator

from equistride.models.propagator import Propagator, angular_velocity, conserve

FRAMES = [cluster(), crystal()]
NAMES = ["cluster", "crystal"]
TOLERANCE = 1e-10  # of the largest output; rounding of some hundred operations is 1e-14


@pytest.fixture(
    scope="module",
    params=[{"l_max": 1}, {"l_max": 2}, {"l_max": 3}, {"parity": False}],
    ids=["l1", "l2", "l3", "one parity"],
)
def model(request: pytest.FixtureRequest) -> Propagator:
    """A propagator of random weights."""
    return propagator(**request.param)


def same(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> bool:
    """Displacements and velocities equal to `TOLERANCE`."""
    return all(
        float((a - b).abs().max()) <= TOLERANCE * float(b.abs().max()) for a, b in zip(found, expected, strict=True)
    )


@pytest.mark.parametrize("frame", FRAMES, ids=NAMES)
@pytest.mark.parametrize("mirror", [False, True], ids=["rotation", "reflection"])
def test_a_stride_turns_with_the_system(model: Propagator, frame: Frame, mirror: bool) -> None:
    """Displacement and velocity are polar vectors: they change sign with the axes of a reflection."""
    torch.manual_seed(3)
    turn = rand_matrix(dtype=torch.float64) * (-1.0 if mirror else 1.0)
    turned = frame._replace(
        positions=frame.positions @ turn.T, velocities=frame.velocities @ turn.T, cell=frame.cell @ turn.T
    )
    displacements, velocities = model(*frame)
    assert same(model(*turned), (displacements @ turn.T, velocities @ turn.T))


def test_a_plane_of_symmetry_is_kept(model: Propagator) -> None:
    """Atoms that lie and move in the plane z = 0 stay in it, as reflection demands: a wrong parity would lift them."""
    frame = cluster(8)
    flat = frame_of(
        frame.positions * torch.tensor([1.6, 1.6, 0.0]), frame.velocities * torch.tensor([1.0, 1.0, 0.0]), frame.species
    )
    displacements, velocities = model(*flat)
    assert float(displacements[:, 2].abs().max()) <= 1e-13
    assert float(velocities[:, 2].abs().max()) <= 1e-14


@pytest.mark.parametrize("frame", FRAMES, ids=NAMES)
def test_a_stride_permutes_with_the_atoms(model: Propagator, frame: Frame) -> None:
    order = torch.randperm(len(frame.species), generator=torch.Generator().manual_seed(5))
    cell = frame.cell if bool(frame.cell.any()) else None
    mixed = frame_of(frame.positions[order], frame.velocities[order], frame.species[order], cell)
    displacements, velocities = model(*frame)
    assert same(model(*mixed), (displacements[order], velocities[order]))


def test_a_stride_does_not_see_lattice_translations(model: Propagator) -> None:
    frame = crystal()
    steps = torch.randint(-3, 4, (27, 3), generator=torch.Generator().manual_seed(6)).double()
    moved = frame_of(frame.positions + steps @ frame.cell + 0.7, frame.velocities, frame.species, frame.cell)
    assert same(model(*moved), model(*frame))


@pytest.mark.parametrize("frame", FRAMES, ids=NAMES)
@pytest.mark.parametrize("single", [False, True], ids=["float64", "float32"])
def test_momentum_is_that_of_the_input(frame: Frame, single: bool) -> None:
    """Kept to 1e-12 of the thermal momentum in double precision even if the network computes in single."""
    model = propagator().float() if single else propagator()
    assert model.masses == MASSES  # not rounded to single precision
    drift = frame._replace(velocities=frame.velocities + torch.tensor([3e-3, -2e-3, 1e-3]).double())
    displacements, velocities = model(*drift)
    after = drift.after(displacements, velocities)
    thermal = float((drift.masses * drift.velocities).abs().sum())
    assert displacements.dtype == torch.float64
    assert float((after.momentum() - drift.momentum()).abs().max()) <= 1e-12 * thermal
    travelled = drift.momentum() * STRIDE / drift.masses.sum()
    assert float(travelled.abs().max()) > 0.01  # A
    assert torch.allclose(after.centre() - drift.centre(), travelled, rtol=0, atol=1e-13)


def test_angular_momentum_of_open_systems_is_that_of_the_input(model: Propagator) -> None:
    frame = cluster()
    after = frame.after(*model(*frame))
    assert float(frame.spin().abs().max()) > 0.1
    assert torch.allclose(after.spin(), frame.spin(), rtol=0, atol=1e-12 * float(frame.spin().abs().max()))
    moving = frame._replace(positions=frame.positions + 1e3)  # rounding of the positions grows with their size
    assert torch.allclose(moving.after(*model(*moving)).spin(), frame.spin(), rtol=0, atol=1e-9)


def test_angular_momentum_is_left_alone_where_there_is_a_cell_or_nobody_asks() -> None:
    frame = cluster()
    boxed = frame._replace(cell=50.0 * torch.eye(3, dtype=torch.float64))
    model, careless = propagator(), propagator(keep_spin=False)
    assert same(model(*boxed), careless(*frame))
    assert not same(model(*frame), careless(*frame))
    assert float((boxed.after(*model(*boxed)).spin() - frame.spin()).abs().max()) > 1e-4


def line(num_atoms: int, bend: float = 0.0) -> Frame:
    """Return a chain along (1, 2, 2) that turns and vibrates, its middle displaced by ``bend`` A."""
    axis = torch.tensor([1.0, 2.0, 2.0], dtype=torch.float64) / 3
    side = torch.tensor([2.0, -2.0, 1.0], dtype=torch.float64) / 3
    places = 1.3 * torch.arange(num_atoms, dtype=torch.float64) - 0.65 * (num_atoms - 1)
    positions = places[:, None] * axis
    positions[num_atoms // 2] += bend * side
    velocities = 3e-3 * places[:, None] * side + 1e-3 * torch.sin(places)[:, None] * axis
    return frame_of(positions, velocities, torch.arange(num_atoms) % 2)


def test_one_atom_flies_straight() -> None:
    velocity = torch.tensor([[4e-3, -3e-3, 2e-3]], dtype=torch.float64)
    alone = frame_of(torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64), velocity, torch.tensor([1]))
    displacements, velocities = propagator()(*alone)
    assert torch.allclose(displacements, velocity * STRIDE, rtol=1e-14, atol=0)
    assert torch.allclose(velocities, velocity, rtol=1e-14, atol=0)


@pytest.mark.parametrize("num_atoms", [2, 3, 5])
def test_linear_molecules_keep_their_angular_momentum(num_atoms: int) -> None:
    """About the molecule's axis there is nothing to keep, and nothing to divide by."""
    frame = line(num_atoms)
    displacements, velocities = propagator()(*frame)
    after = frame.after(displacements, velocities)
    assert float(velocities.abs().max()) < 0.1
    assert torch.allclose(after.spin(), frame.spin(), rtol=0, atol=1e-12 * float(frame.spin().norm()))
    assert torch.allclose(after.momentum(), frame.momentum(), rtol=0, atol=1e-15)


@pytest.mark.parametrize("bend", [1e-9, 1e-5, 1e-3, 5e-3, 0.05, 0.3])
def test_corrections_stay_finite_on_the_way_to_a_line(bend: float) -> None:
    """An error of angular momentum about the axis of a nearly linear molecule must not become a huge velocity."""
    frame = line(3, bend)
    masses = frame.masses
    missing = 1e-3 * frame.spin().norm() * torch.tensor([[1.0, 2.0, 2.0]], dtype=torch.float64) / 3
    arms = frame.positions - frame.centre()
    index = torch.zeros(3, dtype=torch.int64)
    omega = angular_velocity(arms, masses, missing, index, 1)
    extra = torch.linalg.cross(omega.expand(3, 3), arms)
    assert float(extra.norm(dim=1).max()) <= float(frame.velocities.norm(dim=1).max())
    if bend >= 0.05:  # a molecule that is bent keeps all three components
        assert torch.allclose(torch.linalg.cross(arms, masses * extra).sum(0), missing[0], rtol=1e-9, atol=0)


def test_frames_of_a_batch_keep_their_own_momenta() -> None:
    model = propagator()
    frames = [cluster(14), crystal(), cluster(5, seed=4)]
    starts = [0, 14, 41]
    positions, velocities, species = (torch.cat([f[k] for f in frames]) for k in range(3))
    vectors = torch.cat(
        [f.positions[f.edge_index[1]] - f.positions[f.edge_index[0]] + f.shifts.double() @ f.cell for f in frames]
    )
    edges = torch.cat([f.edge_index + start for f, start in zip(frames, starts, strict=True)], 1)
    index = torch.repeat_interleave(torch.arange(3), torch.tensor([14, 27, 5]))
    is_open = torch.tensor([True, False, True])
    with torch.no_grad():
        found = model.stride(positions, velocities, species, vectors, edges, index, is_open)
    expected = [model(*f) for f in frames]
    assert same(found, tuple(torch.cat([e[k] for e in expected]) for k in range(2)))  # type: ignore[arg-type]


@pytest.mark.parametrize("frame", [cluster(6), line(3), line(2)], ids=["cluster", "linear", "pair"])
def test_gradients_through_the_conservation_laws(frame: Frame) -> None:
    """Equal principal moments (a line has two) have no eigenvectors to differentiate; the gradient is finite all the same."""
    n = len(frame.species)
    zero = torch.zeros(1, 3, dtype=torch.float64)
    displacements = 0.01 * torch.sin(torch.arange(3.0 * n, dtype=torch.float64)).view(n, 3)
    if n < 6:  # stay on the line
        displacements = 0.01 * frame.positions

    def laws(displacements: Tensor, velocities: Tensor) -> Tensor:
        index = torch.zeros(n, dtype=torch.int64)
        one = torch.ones(1, dtype=torch.float64)
        spin = zero + frame.spin()
        return torch.cat(
            conserve(frame.positions, displacements, velocities, frame.masses, zero, spin, one, STRIDE, index)
        )

    inputs = (displacements.requires_grad_(), (100 * frame.velocities).requires_grad_())
    if n == 6:
        assert torch.autograd.gradcheck(laws, inputs)
    weights = torch.cos(torch.arange(6.0 * n, dtype=torch.float64)).view(2 * n, 3)
    (laws(*inputs) * weights).sum().backward()
    assert all(math.isfinite(float(t.grad.abs().max())) for t in inputs)
