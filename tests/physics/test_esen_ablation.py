"""What each of eSEN's choices is worth: the switches of the ablation do what they say, and break what they should."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from e3nn import o3
from finite_differences import force_on
from random_models import CUTOFF, Graph, graph_of, random_potential
from torch import Tensor

from equistride.data.quartz import quartz
from equistride.models.esen import ESENConfig
from equistride.models.potential import ConservativePotential, DirectPotential
from equistride.nn.nearest import nearest
from equistride.nn.sphere_grid import bond_grid, sphere_grid

SPECIES = torch.tensor([1, 1, 1, 0, 0, 0, 0, 0, 0])
PAIR = torch.tensor([0, 1])


@pytest.fixture(scope="module")
def small() -> Graph:
    """Nine atoms of quartz, displaced."""
    atoms = quartz()
    atoms.rattle(0.1, seed=1)
    return graph_of(torch.tensor(atoms.positions), SPECIES, torch.tensor(atoms.cell.array))


def again(graph: Graph, positions: Tensor, cell: Tensor | None = None) -> Graph:
    return graph_of(positions, graph.species, graph.cell if cell is None else cell)


def total(potential: ConservativePotential, graph: Graph) -> float:
    return float(potential(*graph)[0].sum())


def force_error(potential: ConservativePotential, graph: Graph) -> float:
    """Return the largest deviation of five forces from finite differences, in units of the rms force."""
    forces = potential(*graph)[1]

    def energy(positions: Tensor) -> float:
        return total(potential, again(graph, positions))

    places = ((0, 0), (2, 1), (4, 2), (7, 0), (8, 1))
    worst = max(abs(force_on(energy, graph.positions, *place) - float(forces[place])) for place in places)
    return worst / float(forces.square().mean().sqrt())


@pytest.mark.parametrize(
    "choice",
    [{"activation": "s2"}, {"activation": "s2", "l_max": 3, "s2_resolution": 10}, {"feed_forward": "grid"}],
    ids=str,
)
def test_grids_give_smooth_energies(choice: dict[str, Any], small: Graph) -> None:
    """A grid breaks rotational invariance, not conservation: forces are still the gradient."""
    potential = random_potential(mirror=False, **choice)
    assert force_error(potential, small) < 1e-6
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.jit.script(potential)
    for a, b in zip(program(*small), potential(*small), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("choice", [{"activation": "s2"}, {"feed_forward": "grid"}], ids=str)
def test_finer_grids_are_more_invariant(choice: dict[str, Any], small: Graph) -> None:
    """The error of a grid falls exponentially with its points; a gate has none."""
    q = rotation()
    errors = []
    for resolution in (6, 10, 18):
        potential = random_potential(mirror=False, s2_resolution=resolution, **choice)
        turned = again(small, small.positions @ q.t(), small.cell @ q.t())
        errors.append(abs(total(potential, turned) - total(potential, small)))
    assert errors[0] > 3 * errors[1] > 9 * errors[2]
    gated = random_potential(mirror=False)
    assert abs(total(gated, again(small, small.positions @ q.t(), small.cell @ q.t())) - total(gated, small)) < 1e-10


def rotation() -> Tensor:
    torch.manual_seed(3)
    return o3.rand_matrix(dtype=torch.float64)


@pytest.mark.parametrize("l_max", [1, 2, 4])
def test_a_grid_gives_coefficients_back(l_max: int) -> None:
    for resolution in (None, 2 * (l_max + 1), 14):
        to_grid, from_grid = sphere_grid(l_max, l_max, resolution)
        assert torch.allclose(from_grid @ to_grid, torch.eye((l_max + 1) ** 2).double(), rtol=0, atol=1e-12)
        rounded = sphere_grid(l_max, l_max, resolution, torch.float32)[0]
        assert 0 < (rounded - to_grid).abs().max() < 1e-5
    to_grid, from_grid = bond_grid(3, 2)
    assert to_grid.shape == (8 * 5, 14)
    assert from_grid.shape == (14, 8 * 5)


def test_direct_forces_are_no_gradient_and_turn_with_the_atoms(small: Graph) -> None:
    potential = random_potential(forces="direct")
    assert isinstance(potential, DirectPotential)
    assert force_error(potential, small) > 0.1
    energy, forces, virial = potential(*small)
    q = rotation()
    turned = potential(*again(small, small.positions @ q.t(), small.cell @ q.t()))
    assert torch.allclose(turned[0], energy, rtol=0, atol=1e-10)
    assert torch.allclose(turned[1], forces @ q.t(), rtol=0, atol=1e-10)
    # energy and virial are those of the same network with gradient forces
    weights = {k: v for k, v in potential.state_dict().items() if "force_head" not in k}
    conservative = random_potential()
    conservative.load_state_dict(weights)
    expected = conservative(*small)
    assert torch.equal(energy, expected[0])
    assert torch.allclose(virial, expected[2], rtol=0, atol=1e-13)


def test_the_nearest_senders_stay() -> None:
    generator = torch.Generator().manual_seed(0)
    receiver = torch.randint(0, 5, (60,), generator=generator)
    distances = torch.rand(60, generator=generator)
    keep = nearest(distances, receiver, 6, 4)
    assert torch.equal(keep, keep.sort()[0])
    for atom in range(6):
        mine = torch.nonzero(receiver == atom).flatten()
        wanted = mine[distances[mine].argsort()[:4]]
        assert set(keep[receiver[keep] == atom].tolist()) == set(wanted.tolist())
    equal = nearest(torch.ones(5), torch.zeros(5, dtype=torch.int64), 1, 2)
    assert equal.tolist() == [0, 1]
    assert nearest(torch.zeros(0), torch.zeros(0, dtype=torch.int64), 3, 2).tolist() == []


def test_a_cap_makes_the_energy_jump_and_a_large_one_changes_nothing(small: Graph) -> None:
    """Along a path of 0.2 A the second difference of a smooth energy is even; a change of neighbours makes a spike.

    An oxygen has 2 silicon and 6 oxygen neighbours before a gap: six in all cut through its second shell.
    """
    full, same, capped = (random_potential(max_neighbors=n) for n in (None, 500, 6))
    assert torch.equal(full(*small)[0], same(*small)[0])
    path = np.linspace(0, 0.2, 81)
    spikes = []
    for potential in (full, capped):
        energies = []
        for h in path:
            positions = small.positions.clone()
            positions[4] += float(h) * torch.tensor([0.6, 0.0, 0.8]).double()
            energies.append(total(potential, again(small, positions)))
        bends = np.abs(np.diff(energies, 2))
        spikes.append(bends.max() / np.median(bends))
    assert spikes[0] < 10
    assert spikes[1] > 100


def test_without_an_envelope_the_energy_steps_at_the_cutoff() -> None:
    def step(potential: ConservativePotential) -> float:
        inside, outside = (
            total(potential, graph_of(torch.tensor([[0.0, 0, 0], [CUTOFF + gap, 0, 0]], dtype=torch.float64), PAIR))
            for gap in (-1e-7, 1e-7)
        )
        return abs(inside - outside)

    assert step(random_potential()) < 1e-12
    assert step(random_potential(envelope="off")) > 1e-4


def test_a_model_says_why_it_cannot_conserve_energy() -> None:
    assert ESENConfig().caveats == []
    assert ESENConfig.model_validate({"envelope": False}).envelope == "off"  # YAML's reading of a bare off
    reasons = ESENConfig(forces="direct", max_neighbors=20, envelope="off").caveats
    assert [reason.split(":")[0] for reason in reasons] == ["direct forces", "neighbour cap of 20", "no envelope"]


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"s2_resolution": 8}, "needs activation s2"),
        ({"activation": "s2", "s2_resolution": 7}, "even number"),
        ({"activation": "s2", "s2_resolution": 4}, "6 or more"),
        ({"forces": "direct", "l_max": 0, "m_max": 0}, "greater than or equal to 1"),
        ({"max_neighbors": 0}, "max_neighbors"),
        ({"neighbor_slack": 0.01}, "neighbor_slack needs max_neighbors"),
        ({"charge_channels": (3, 2)}, "charge_channels must be a first and a last one of 64"),
        ({"spin_channels": (0, 64)}, "spin_channels must be a first and a last one of 64"),
        ({"envelope": "sharp"}, "envelope"),
        ({"envelope": True}, "envelope"),
    ],
)
def test_choices_that_do_not_fit_are_refused(wrong: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        ESENConfig.model_validate(wrong)


def test_charge_and_spin_reach_the_energy(small: Graph) -> None:
    for kind in ("positional", "linear", "table"):
        potential = random_potential(charge_spin=kind)
        neutral = total(potential, small)
        energies = []
        for charge, spin in ((0.0, 1.0), (1.0, 0.0), (1.0, 2.0), (-1.0, 2.0)):
            potential.network.set_system(charge, spin)
            energies.append(total(potential, small))
        assert len({round(e, 9) for e in [neutral, *energies]}) == 5, kind
        assert force_error(potential, small) < 1e-6
        potential.network.set_system(0.0, 0.0)
        assert total(potential, small) == neutral
    with pytest.raises(RuntimeError, match="knows no charge"):
        random_potential().network.set_system(1.0, 0.0)
