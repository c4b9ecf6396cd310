"""eSEN's physics with random weights: exact gradients, symmetries, smoothness, extensivity."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from ase import Atoms
from e3nn import o3
from finite_differences import derivative, force_on, strain_derivative
from random_models import CUTOFF, Graph, graph_of, random_potential
from torch import Tensor

from equistride.data.quartz import quartz
from equistride.errors import EquistrideError
from equistride.models.esen import ESENConfig
from equistride.models.potential import ConservativePotential

SIZES = [
    {"l_max": 1, "m_max": 1},
    {"l_max": 2, "m_max": 1},
    {"l_max": 2, "m_max": 2},
    {"l_max": 3, "m_max": 2, "mirror": False},
    {"l_max": 4, "m_max": 2},
    {"l_max": 2, "m_max": 0},
    {"l_max": 2, "m_max": 2, "basis": "bessel", "num_basis": 6},
    {"l_max": 2, "m_max": 2, "mirror": False},
]
AXES = [tuple(sign * row for row in rows) for rows in np.eye(3).tolist() for sign in (1.0, -1.0)]


def names(sizes: dict[str, object]) -> str:
    return ",".join(str(v) for v in sizes.values())


def total(potential: ConservativePotential, graph: Graph) -> float:
    return float(potential(*graph)[0].sum())


def cell_graph(positions: Tensor, cell: Tensor) -> Graph:
    """Return the graph of the 9-atom quartz cell, whose atoms see several images of each other at 4 A."""
    return graph_of(positions, torch.tensor([1, 1, 1, 0, 0, 0, 0, 0, 0]), cell)


@pytest.fixture(scope="module")
def small() -> tuple[Tensor, Tensor]:
    """Positions and cell of nine atoms of quartz, displaced and sheared."""
    atoms = quartz()
    assert atoms.numbers.tolist() == [14] * 3 + [8] * 6
    atoms.rattle(0.1, seed=1)
    strain = np.eye(3) + 0.03 * np.random.default_rng(2).normal(size=(3, 3))
    return torch.tensor(atoms.positions @ strain), torch.tensor(atoms.cell.array @ strain)


@pytest.mark.parametrize("sizes", SIZES, ids=names)
def test_forces_are_the_energy_gradient(sizes: dict[str, object], small: tuple[Tensor, Tensor]) -> None:
    potential, (positions, cell) = random_potential(**sizes), small
    forces = potential(*cell_graph(positions, cell))[1]

    def energy(moved: Tensor) -> float:
        return total(potential, cell_graph(moved, cell))

    rms = float(forces.square().mean().sqrt())
    for atom, axis in ((0, 0), (2, 1), (4, 2), (7, 0), (8, 1)):
        assert force_on(energy, positions, atom, axis) == pytest.approx(float(forces[atom, axis]), abs=1e-6 * rms)
    assert forces.sum(0).abs().max() < 1e-12


@pytest.mark.parametrize("sizes", SIZES, ids=names)
def test_virial_is_the_strain_derivative(sizes: dict[str, object], small: tuple[Tensor, Tensor]) -> None:
    potential, (positions, cell) = random_potential(**sizes), small
    virial = potential(*cell_graph(positions, cell))[2]
    assert torch.allclose(virial, virial.t(), rtol=0, atol=1e-11)  # an isotropic energy has no torque

    def energy(moved: Tensor, box: Tensor) -> float:
        return total(potential, cell_graph(moved, box))

    scale = float(virial.abs().max())
    for a, b in ((0, 0), (1, 1), (2, 2), (0, 1), (2, 0), (1, 2)):
        assert -strain_derivative(energy, positions, cell, a, b, 5e-5) == pytest.approx(
            float(virial[a, b]), abs=1e-6 * scale
        )


@pytest.mark.parametrize("axis", AXES, ids=str)
def test_bonds_along_the_axes_have_exact_forces(axis: tuple[float, float, float]) -> None:
    """Three atoms, one bond at an angle of 0 to 1e-3 rad to an axis: where Euler angles break down.

    In float32 the sum of a few hundred rounded terms leaves 1e-5 of the rms force; a pole would leave 1e-2 and more.
    """
    potential, single = random_potential(), random_potential().float()
    axis_ = torch.tensor(axis).double()
    side = torch.roll(axis_.abs(), 1)
    species = torch.tensor([1, 0, 0])
    for angle in (0.0, 1e-6, 1e-5, 1e-4, 1e-3):
        bond = 1.7 * (np.cos(angle) * axis_ + np.sin(angle) * side)
        positions = torch.stack([torch.zeros(3).double(), bond, torch.tensor([0.9, -1.1, 1.3]).double()])
        forces = potential(*graph_of(positions, species))[1]
        rms = float(forces.square().mean().sqrt())
        for atom in range(2):
            for k in range(3):

                def energy(h: float, atom: int = atom, k: int = k, positions: Tensor = positions) -> float:
                    moved = positions.clone()
                    moved[atom, k] += h
                    return total(potential, graph_of(moved, species))

                assert -derivative(energy, 2e-4) == pytest.approx(float(forces[atom, k]), abs=1e-6 * rms)
        rounded = single(*graph_of(positions.float(), species))[1]
        assert (rounded.double() - forces).abs().max() < 5e-5 * rms


def test_forces_do_not_jump_where_the_frame_rolls(potential: ConservativePotential) -> None:
    """The edge frame jumps by a roll where a bond's z component changes sign; energy and forces must not see it."""
    results = []
    for z in (-1e-13, 1e-13):
        positions = torch.tensor([[0.0, 0.0, 0.0], [1.1, 1.2, z], [0.9, -1.1, 1.3]]).double()
        results.append(potential(*graph_of(positions, torch.tensor([1, 0, 0]))))
    for below, above in zip(*results, strict=True):
        assert (below - above).abs().max() < 1e-11


@pytest.mark.parametrize("improper", [False, True], ids=["rotation", "reflection"])
@pytest.mark.parametrize("sizes", SIZES[:5], ids=names)
def test_energy_is_invariant_and_forces_turn(
    sizes: dict[str, object], improper: bool, small: tuple[Tensor, Tensor]
) -> None:
    potential, (positions, cell) = random_potential(**(sizes | {"mirror": True})), small
    energy, forces, virial = potential(*cell_graph(positions, cell))
    torch.manual_seed(3)
    for _ in range(2):
        q = o3.rand_matrix(dtype=torch.float64) * (-1 if improper else 1)
        turned = potential(*cell_graph(positions @ q.t(), cell @ q.t()))
        assert torch.allclose(turned[0], energy, rtol=0, atol=1e-10)
        assert torch.allclose(turned[1], forces @ q.t(), rtol=0, atol=1e-10)
        assert torch.allclose(turned[2], q @ virial @ q.t(), rtol=0, atol=1e-10)


def test_published_network_tells_a_crystal_from_its_mirror_image(small: tuple[Tensor, Tensor]) -> None:
    """Without ``mirror`` the energy changes under reflection and not under rotation; that is what the option is for."""
    potential, (positions, cell) = random_potential(mirror=False), small
    energy = total(potential, cell_graph(positions, cell))
    q = o3.rand_matrix(dtype=torch.float64)
    assert total(potential, cell_graph(positions @ q, cell @ q)) == pytest.approx(energy, abs=1e-10)
    assert abs(total(potential, cell_graph(-positions, -cell)) - energy) > 1e-6


def test_order_of_atoms_and_edges_does_not_matter(potential: ConservativePotential, quartz_graph: Graph) -> None:
    energies, forces, virial = potential(*quartz_graph)
    generator = torch.Generator().manual_seed(4)
    order = torch.randperm(72, generator=generator)
    shuffled = graph_of(quartz_graph.positions[order], quartz_graph.species[order], quartz_graph.cell)
    other = potential(*shuffled)
    assert torch.allclose(other[0], energies[order], rtol=0, atol=1e-10)
    assert torch.allclose(other[1], forces[order], rtol=0, atol=1e-10)
    assert torch.allclose(other[2], virial, rtol=0, atol=1e-10)
    mixed = torch.randperm(quartz_graph.shifts.size(0), generator=generator)
    same_atoms = quartz_graph._replace(edge_index=quartz_graph.edge_index[:, mixed], shifts=quartz_graph.shifts[mixed])
    for a, b in zip(potential(*same_atoms), (energies, forces, virial), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-10)


def test_lattice_translations_do_not_matter(potential: ConservativePotential, quartz_graph: Graph) -> None:
    expected = potential(*quartz_graph)
    whole = torch.randint(-3, 4, (72, 3), generator=torch.Generator().manual_seed(5)).double()
    moved = quartz_graph.positions + whole @ quartz_graph.cell + torch.tensor([0.3, -0.2, 0.1])
    for a, b in zip(potential(*graph_of(moved, quartz_graph.species, quartz_graph.cell)), expected, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-10)


@pytest.mark.parametrize("basis", ["gaussian", "bessel"])
def test_energy_and_force_are_continuous_at_the_cutoff(basis: str) -> None:
    """Near the cutoff the envelope is 56 (1 - x)^3: the pair's energy falls as its cube, the force as its square."""
    potential = random_potential(basis=basis)
    species = torch.tensor([0, 1, 0])

    def at(distance: float) -> tuple[float, Tensor]:
        positions = torch.tensor([[0.0, 0, 0], [1.5, 0.4, 0.2], [distance, 0, 0]]).double()
        positions[2] = positions[1] + distance * torch.tensor([0.6, 0.64, 0.48]).double()  # a unit vector
        energies, forces, _ = potential(*graph_of(positions, species))
        return float(energies.sum()), forces

    beyond, forces_beyond = at(CUTOFF + 1e-9)
    gaps = {gap: at(CUTOFF - gap) for gap in (1e-2, 1e-3)}
    ratio_energy = (gaps[1e-2][0] - beyond) / (gaps[1e-3][0] - beyond)
    assert ratio_energy == pytest.approx(1000, rel=0.1)
    change = [float((gaps[gap][1] - forces_beyond).abs().max()) for gap in (1e-2, 1e-3)]
    assert change[0] / change[1] == pytest.approx(100, rel=0.1)
    just_inside, forces_inside = at(CUTOFF - 1e-6)
    assert abs(just_inside - beyond) < 1e-12
    assert (forces_inside - forces_beyond).abs().max() < 1e-11


def test_a_line_across_the_cutoff_has_no_kink(potential: ConservativePotential, quartz_graph: Graph) -> None:
    """Second differences of the energy along a path on which many pairs cross the cutoff are those of a smooth function."""
    path, graphs = torch.linspace(0, 0.3, 31, dtype=torch.float64), []
    for h in path:
        positions = quartz_graph.positions.clone()
        positions[10] += h * torch.tensor([0.6, 0.0, 0.8]).double()
        graphs.append(graph_of(positions, quartz_graph.species, quartz_graph.cell))
    assert len({g.shifts.size(0) for g in graphs}) >= 3  # pairs did come and go
    results = [potential(*g) for g in graphs]
    energies, forces = torch.stack([r[0].sum() for r in results]), torch.stack([r[1][10] for r in results])
    step = float(path[1])
    work = -0.5 * step * ((forces[1:] + forces[:-1]) @ torch.tensor([0.6, 0.0, 0.8]).double())
    curvature = float((forces[1:] - forces[:-1]).abs().max()) / step
    # the trapezium rule errs by step^3/12 of the force's second derivative, which is of the order curvature / 0.1 A
    assert (energies.diff() - work).abs().max() < step**3 / 12 * curvature / 0.1
    bends = energies.diff().diff()
    assert bends.diff().abs().max() < 0.5 * bends.abs().max()


def test_energy_is_extensive(potential: ConservativePotential, small: tuple[Tensor, Tensor]) -> None:
    positions, cell = small
    one = potential(*cell_graph(positions, cell))
    shifts = torch.cartesian_prod(*[torch.arange(float(n)) for n in (2, 1, 2)]).double()
    many = (positions[None] + (shifts @ cell)[:, None]).flatten(0, 1)
    species = torch.tensor([1, 1, 1, 0, 0, 0, 0, 0, 0]).repeat(4)
    supercell = potential(*graph_of(many, species, cell * torch.tensor([[2.0], [1.0], [2.0]])))
    assert torch.allclose(supercell[0].view(4, 9), one[0].expand(4, 9), rtol=0, atol=1e-10)
    assert torch.allclose(supercell[1].view(4, 9, 3), one[1].expand(4, 9, 3), rtol=0, atol=1e-10)
    assert torch.allclose(supercell[2], 4 * one[2], rtol=0, atol=1e-9)
    cluster = potential(*graph_of(positions, species[:9]))
    apart = potential(*graph_of(torch.cat([positions, positions + 50.0]), species[:18]))
    assert float(apart[0].sum()) == pytest.approx(2 * float(cluster[0].sum()), abs=1e-10)


def test_a_single_atom_has_an_energy_and_no_force(potential: ConservativePotential) -> None:
    for model in (potential, scripted(potential)):
        energy, forces, virial = model(*graph_of(torch.zeros(1, 3).double(), torch.tensor([1])))
        assert torch.isfinite(energy).all()
        assert forces.abs().max() == 0
        assert virial.abs().max() == 0
        pair = model(*graph_of(torch.tensor([[0.0, 0, 0], [0, 0, 9]]).double(), torch.tensor([1, 1])))
        assert torch.allclose(pair[0], energy.expand(2), rtol=0, atol=1e-13)


def scripted(potential: ConservativePotential) -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(potential)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=names)
def test_torchscript_equals_eager(sizes: dict[str, object], dtype: torch.dtype, small: tuple[Tensor, Tensor]) -> None:
    potential = random_potential(**sizes).to(dtype)
    positions, cell = (x.to(dtype) for x in small)
    program = scripted(potential)
    bound = 1e-9 if dtype == torch.float64 else 1e-5
    for moved in (positions, positions + 0.01 * torch.sin(7 * positions)):  # a second call, with other edges
        graph = cell_graph(moved, cell)
        for a, b in zip(program(*graph), potential(*graph), strict=True):
            assert (a - b).abs().max() <= bound * b.abs().max()


def test_one_seed_one_energy(quartz_graph: Graph) -> None:
    first, second = (random_potential(seed=9)(*quartz_graph) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_isolated_quartz_and_gas_are_in_range(quartz_atoms: Atoms, potential: ConservativePotential) -> None:
    """The same atoms without a box: fewer neighbours, another energy, still exact in momentum and torque."""
    positions = torch.tensor(quartz_atoms.positions)
    energy, forces, _ = potential(*graph_of(positions, torch.tensor(quartz_atoms.numbers == 14).long()))
    assert torch.isfinite(energy).all()
    assert forces.sum(0).abs().max() < 1e-11
    assert torch.linalg.cross(positions, forces).sum(0).abs().max() < 1e-9


def test_sizes_that_make_no_network_are_refused() -> None:
    for wrong in ({"l_max": 1, "m_max": 2}, {"cutoff": -1.0}, {"channels": 0}, {"num_basis": 1}, {"basis": "fourier"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ESENConfig.model_validate(wrong)
    network = random_potential().network
    with pytest.raises(EquistrideError, match="one reference energy; expected 2; found 1"):
        ConservativePotential(network, ["O", "Si"], CUTOFF, 1.0, [0.0])
