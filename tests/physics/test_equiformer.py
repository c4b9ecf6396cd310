"""Equiformer's physics with random weights, its published numbers, and its published form's jump at the cutoff."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from e3nn import o3
from finite_differences import force_on, strain_derivative
from random_models import Graph, graph_of
from torch import Tensor

from equistride.data.frames import load
from equistride.models.equiformer import Equiformer, EquiformerConfig
from equistride.models.potential import ConservativePotential
from equistride.nn.degrees import Couplings, DepthwiseProduct
from equistride.nn.tensor_product import TensorProductConvolution

CUTOFF = 4.0
SPECIES = ["H", "C", "O"]
SMALL = {
    "cutoff": CUTOFF, "num_layers": 2, "channels": [8, 4, 2], "hidden_channels": [12, 6, 3], "head_channels": [4, 2, 1],
    "num_heads": 2, "scalar_channels": 16, "num_basis": 6, "radial_channels": 8,
}  # fmt: skip
POSITIONS = torch.tensor(
    [[0.0, 0.1, -0.2], [1.1, 0.3, 0.4], [-0.7, 1.2, 0.5], [0.4, -1.3, 0.9], [2.4, -0.6, 1.5]], dtype=torch.float64
)
KINDS = torch.tensor([0, 1, 2, 1, 0])


def equiformer(seed: int = 0, **sizes: object) -> ConservativePotential:
    """Return a small Equiformer of random weights in float64, norms off their start values."""
    torch.manual_seed(seed)
    network = Equiformer(EquiformerConfig.model_validate(SMALL | sizes), len(SPECIES))
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if "norm" in name or "bias" in name:
                weight += 0.3 * torch.randn_like(weight)
    return ConservativePotential(network, SPECIES, CUTOFF, 1.3, [-3.1, -5.7, -7.9]).double()


def molecule(positions: Tensor = POSITIONS) -> Graph:
    return graph_of(positions, KINDS, cutoff=CUTOFF)


def crystal() -> Graph:
    """Seven atoms in a skewed cell smaller than the cutoff: atoms see several images, themselves included."""
    generator = torch.Generator().manual_seed(3)
    positions = 4.0 * torch.rand(7, 3, generator=generator, dtype=torch.float64)
    cell = torch.tensor([[3.8, 0.0, 0.0], [0.9, 4.1, 0.0], [-0.4, 0.7, 3.7]], dtype=torch.float64)
    return graph_of(positions, torch.tensor([0, 1, 2, 1, 0, 2, 2]), cell, CUTOFF)


@pytest.mark.parametrize("smooth", [True, False], ids=["smooth", "published"])
@pytest.mark.parametrize("degrees", [1, 2, 3, 4])
def test_forces_and_virial_are_gradients(smooth: bool, degrees: int) -> None:
    sizes = {k: [6, 4, 3, 2][:degrees] for k in ("channels", "hidden_channels", "head_channels")}
    potential, graph = equiformer(smooth=smooth, **sizes), crystal()
    _, forces, virial = potential(*graph)
    rms = float(forces.square().mean().sqrt())

    def energy(positions: Tensor, cell: Tensor) -> float:
        return float(potential(*graph._replace(positions=positions, cell=cell))[0].sum())

    for atom, axis in ((0, 0), (2, 1), (4, 2), (6, 0)):
        found = force_on(lambda moved: energy(moved, graph.cell), graph.positions, atom, axis, 1e-4)
        assert found == pytest.approx(float(forces[atom, axis]), abs=1e-6 * rms)
    for a, b in ((0, 0), (1, 2), (2, 0)):
        slope = strain_derivative(energy, graph.positions, graph.cell, a, b)
        assert -slope == pytest.approx(float(virial[a, b]), abs=1e-6 * float(virial.abs().max()))


@pytest.mark.parametrize("smooth", [True, False], ids=["smooth", "published"])
def test_rotation_order_and_translation_do_not_matter(smooth: bool) -> None:
    potential, graph = equiformer(smooth=smooth), crystal()
    energy, forces, virial = potential(*graph)
    torch.manual_seed(5)
    for _ in range(3):
        q = o3.rand_matrix(dtype=torch.float64)
        turned = potential(*graph._replace(positions=graph.positions @ q.t(), cell=graph.cell @ q.t()))
        assert torch.allclose(turned[0], energy, rtol=0, atol=1e-10)
        assert torch.allclose(turned[1], forces @ q.t(), rtol=0, atol=1e-10)
        assert torch.allclose(turned[2], q @ virial @ q.t(), rtol=0, atol=1e-10)
    order = torch.tensor([3, 6, 0, 2, 5, 1, 4])
    shuffled = potential(*graph_of(graph.positions[order] + 1.7, graph.species[order], graph.cell, CUTOFF))
    assert torch.allclose(shuffled[0], energy[order], rtol=0, atol=1e-10)
    assert torch.allclose(shuffled[1], forces[order], rtol=0, atol=1e-10)


def test_a_mirror_image_has_another_energy() -> None:
    """All irreps are even, as published: the network is invariant under rotations alone, unless it is asked for more."""
    graph = molecule()
    image = graph._replace(positions=-graph.positions)
    published, mirror = equiformer(), equiformer(mirror=True)
    assert float((published(*image)[0] - published(*graph)[0]).abs().max()) > 1e-6
    energy, forces, _ = mirror(*graph)
    assert torch.allclose(mirror(*image)[0], energy, rtol=0, atol=1e-10)
    assert torch.allclose(mirror(*image)[1], -forces, rtol=0, atol=1e-10)


def test_features_turn_with_the_molecule() -> None:
    """What an auxiliary head reads: degree l turns as the harmonics of degree l do."""
    network, graph = equiformer().network.requires_grad_(False), molecule()
    q = o3.rand_matrix(dtype=torch.float64)
    points = torch.randn(20, 3).double()

    def features(positions: Tensor) -> list[Tensor]:
        vectors = positions[graph.edge_index[1]] - positions[graph.edge_index[0]]
        return network.features(graph.species, network.edges(vectors, graph.species, graph.edge_index))

    before, after = features(graph.positions), features(graph.positions @ q.t())
    assert [x.shape for x in before] == [(5, 1, 8), (5, 3, 4), (5, 5, 2)]
    for degree, (x, y) in enumerate(zip(before, after, strict=True)):
        here, there = (o3.spherical_harmonics(degree, p, True) for p in (points, points @ q.t()))
        turn = torch.linalg.lstsq(here, there).solution.t()
        assert float((torch.einsum("ab,nbc->nac", turn, x) - y).abs().max()) < 1e-10
        assert float(x.abs().max()) > 1e-2


def pair_at(distance: float, alone: bool) -> Graph:
    """An atom that crosses the cutoff of one other, or of one with nearer neighbours too."""
    direction = torch.tensor([0.6, 0.64, 0.48]).double()
    positions = torch.stack([torch.zeros(3).double(), distance * direction])
    if not alone:
        positions = torch.cat([positions, torch.tensor([[-0.8, 0.3, 0.6], [-1.0, -0.9, 0.2]]).double()])
    return graph_of(positions, torch.tensor([1, 0, 2, 0])[: len(positions)], cutoff=CUTOFF)


@pytest.mark.parametrize("alone", [True, False], ids=["only neighbour", "one of many"])
def test_smooth_form_fades_out_and_published_form_jumps(alone: bool) -> None:
    """The envelope is 56 (1 - x)^3 at its end: so fast the energy comes to what it is beyond, and the force as its square."""
    potential = equiformer(smooth=True)
    beyond = potential(*pair_at(CUTOFF + 1e-9, alone))
    gaps = {gap: potential(*pair_at(CUTOFF - gap, alone)) for gap in (1e-2, 1e-3)}
    energy = [float((gaps[gap][0].sum() - beyond[0].sum()).abs()) for gap in (1e-2, 1e-3)]
    force = [float((gaps[gap][1] - beyond[1]).abs().max()) for gap in (1e-2, 1e-3)]
    assert energy[0] / energy[1] == pytest.approx(1000, rel=0.2)
    assert force[0] / force[1] == pytest.approx(100, rel=0.2)
    published = equiformer(smooth=False)
    just_inside, outside = (published(*pair_at(CUTOFF + h, alone)) for h in (-1e-9, 1e-9))
    assert float((just_inside[0].sum() - outside[0].sum()).abs()) > 1e-3  # eV


def test_edges_beyond_the_cutoff_do_nothing() -> None:
    """A list with a skin gives the same as a tight one, also where an atom has no neighbour left within the cutoff."""
    for potential in (equiformer(), equiformer().float()):
        dtype = next(potential.parameters()).dtype
        for positions in (POSITIONS, torch.tensor([[0.0, 0, 0], [0, 0, 4.5], [0, 4.0, 0], [9, 9, 9], [9, 9, 8]])):
            positions = positions.to(dtype)
            tight, wide = (graph_of(positions, KINDS, cutoff=c) for c in (CUTOFF, 5.0))
            for a, b in zip(potential(*tight), potential(*wide), strict=True):
                assert torch.isfinite(b).all()
                assert float((a - b).abs().max()) < (1e-12 if dtype == torch.float64 else 2e-5)


def test_published_size_has_the_published_number_of_parameters() -> None:
    """The authors' code has 3,496,001 with its 64 elements; two of its biases only add to another parameter."""
    network = Equiformer(EquiformerConfig(), 64)
    assert sum(p.numel() for p in network.parameters()) == 3_496_001 - 2 * 128
    four = Equiformer(EquiformerConfig(), 4)
    assert sum(p.numel() for p in four.parameters()) == pytest.approx(3_496_001, rel=0.01)


def test_published_form_equals_the_authors_code() -> None:
    """Energy and forces of the authors' code with the same weights, sin(0.7 k + n) / 2, in float64."""
    network = Equiformer(EquiformerConfig.model_validate(SMALL | {"smooth": False}), 3).double()
    with torch.no_grad():
        for n, (name, weight) in enumerate(sorted(network.named_parameters())):
            start = 1.0 if "norm" in name and "weight" in name else 0.0
            weight.copy_((0.5 * torch.sin(torch.arange(weight.numel()).double() * 0.7 + n) + start).view_as(weight))
    energy, forces, _ = ConservativePotential(network, SPECIES, CUTOFF, 1.0, [0.0, 0.0, 0.0])(*molecule())
    assert float(energy.sum()) == pytest.approx(-4.39808617727161, abs=1e-12)
    expected = [
        [-0.031507540180948666, 0.1372174937191873, 0.07044949763321118],
        [-0.15065552982621042, 0.006955122012653841, -0.020597654751817095],
        [0.3170654339814363, -0.34238048305902324, -0.013130591495474013],
        [-0.016769238595164944, 0.14910243036376275, -0.006938509899241078],
        [-0.11813312537911226, 0.04910543696341943, -0.029782741486678994],
    ]
    assert np.abs(forces.numpy() - np.array(expected)).max() < 1e-12


def test_depthwise_product_is_that_of_the_convolution() -> None:
    """Edge by edge the same as the fused operator with one edge for each receiver."""
    channels, edges = [5, 3, 2], 11
    generator = torch.Generator().manual_seed(2)
    x = [torch.randn(edges, 2 * n + 1, c, generator=generator).double() for n, c in enumerate(channels)]
    y = o3.spherical_harmonics([0, 1, 2], torch.randn(edges, 3, generator=generator).double(), True)
    product = DepthwiseProduct(channels)
    weights = torch.randn(edges, product.num_weights, generator=generator).double()
    convolution = TensorProductConvolution("5x0e+3x1e+2x2e", "0e+1e+2e")
    one_each = torch.arange(edges).repeat(2, 1)
    paths = sorted(range(len(convolution.instructions)), key=lambda k: convolution.instructions[k][:2])
    sizes = [channels[p.i_in] for p in convolution.instructions]
    pieces = dict(zip(paths, weights.split([sizes[k] for k in paths], 1), strict=True))
    theirs = torch.cat([pieces[k] for k in range(len(paths))], 1)
    expected = convolution(torch.cat([p.flatten(1) for p in x], 1), y, theirs, one_each)
    found = torch.cat([p.flatten(1) for p in product(x, Couplings(2)(y), weights)], 1)
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("smooth", [True, False], ids=["smooth", "published"])
def test_torchscript_equals_eager(smooth: bool, dtype: torch.dtype) -> None:
    potential = equiformer(smooth=smooth).to(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.jit.script(potential)
    bound = 1e-9 if dtype == torch.float64 else 1e-5
    for graph in (molecule(POSITIONS.to(dtype)), molecule(1.1 * POSITIONS.to(dtype))):
        for a, b in zip(program(*graph), potential(*graph), strict=True):
            assert float((a - b).abs().max()) <= bound * float(b.abs().max())


def test_a_single_atom_has_an_energy_and_no_force() -> None:
    energy, forces, virial = equiformer()(*graph_of(torch.zeros(1, 3).double(), torch.tensor([1])))
    assert torch.isfinite(energy).all()
    assert forces.abs().max() == 0
    assert virial.abs().max() == 0


def test_sizes_that_make_no_network_are_refused() -> None:
    for wrong in ({"channels": []}, {"cutoff": 0.0}, {"num_heads": 0}, {"head_channels": [4, 2]}, {"channels": [8, 4]}):
        with pytest.raises(ValueError, match=r"channels|cutoff|num_heads"):
            EquiformerConfig.model_validate(SMALL | wrong)
    assert EquiformerConfig(smooth=False).caveats
    assert not EquiformerConfig().caveats


def _slopes(frame_out: Tensor, parameters: list[Tensor]) -> Tensor:
    """The slope of every output of a frame to all parameters, [outputs, parameters]."""
    one_hot = torch.eye(frame_out.numel(), dtype=frame_out.dtype)
    slopes = torch.autograd.grad(frame_out, parameters, one_hot, is_grads_batched=True)
    return torch.cat([slope.flatten(1) for slope in slopes], 1)


@pytest.mark.slow
def test_overfits_twenty_frames_of_ethanol(shared_data: Path) -> None:
    """The network of the published size learns 20 real frames by heart, forces to below 1 meV/A.

    By Levenberg and Marquardt's method among the 560 labels, in which a step needs the slopes of all labels (8 GB) but only tens
    of steps are needed; about a quarter of an hour on one core.
    """
    frames = load(shared_data / "md17" / "ethanol_random1000.npz")[0][:20]
    torch.manual_seed(1)
    network = Equiformer(EquiformerConfig(), 3).float()
    parameters = list(network.parameters())
    kinds = torch.tensor([{1: 0, 6: 1, 8: 2}[int(z)] for z in frames.numbers])
    graphs = [graph_of(positions, kinds, cutoff=5.0) for positions in torch.tensor(frames.positions).float()]

    def predict(graph: Graph) -> Tensor:
        receiver, sender = graph.edge_index
        r = (graph.positions[sender] - graph.positions[receiver]).requires_grad_()
        energy = network(r, kinds, graph.edge_index).sum()
        (gradient,) = torch.autograd.grad(energy, r, create_graph=True)
        forces = torch.zeros(9, 3).index_add(0, receiver, gradient).index_add(0, sender, -gradient)
        return torch.cat([forces.flatten(), 0.1 * energy[None]])

    energies = torch.tensor(frames.energy - frames.energy.mean())
    labels = torch.cat([torch.tensor(frames.forces).flatten(1), 0.1 * energies[:, None]], 1).float()

    def missing() -> Tensor:
        return (labels - torch.stack([predict(graph).detach() for graph in graphs])).double()

    slopes = torch.empty(labels.numel(), sum(parameter.numel() for parameter in parameters))
    damping, error = 1.0, missing()
    for _ in range(30):
        for place, graph in zip(slopes.split(28), graphs, strict=True):
            place.copy_(_slopes(predict(graph), parameters))
        kernel = torch.zeros(len(slopes), len(slopes), dtype=torch.float64)
        for part in slopes.split(1 << 17, 1):  # its small eigenvalues are lost in single precision
            kernel += part.double() @ part.double().t()
        for _ in range(6):
            before = [parameter.detach().clone() for parameter in parameters]
            shifted = kernel + damping * kernel.diagonal().mean() * torch.eye(len(kernel))
            step = torch.linalg.solve(shifted, error.flatten()).float() @ slopes
            with torch.no_grad():
                for parameter, part in zip(parameters, step.split([p.numel() for p in parameters]), strict=True):
                    parameter += part.view_as(parameter)
            after = missing()
            if after.square().sum() < error.square().sum():
                error, damping = after, damping / 10
                break
            for parameter, old in zip(parameters, before, strict=True):
                parameter.data.copy_(old)
            damping *= 4
        if float(error[:, :27].abs().mean()) < 8e-4:
            break
    assert float(error[:, :27].abs().mean()) < 1e-3  # eV/A
