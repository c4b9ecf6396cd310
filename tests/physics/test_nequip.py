"""NequIP: what its forces are, which symmetries its choices keep, where it is smooth, and its form for engines."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from e3nn.o3 import rand_matrix
from finite_differences import force_on, strain_derivative
from pydantic import ValidationError
from random_models import Graph, graph_of
from torch import Tensor
from toy_metadata import toy_metadata

from equistride.artifact.aoti import trace
from equistride.errors import EquistrideError
from equistride.models.nequip import NequIP, NequIPConfig
from equistride.models.potential import ConservativePotential
from equistride.models.serving import plain, serving
from equistride.nn.radial import switched_envelope
from equistride.nn.radial_table import RadialTable
from equistride.nn.repulsion import NuclearRepulsion

CUTOFF = 4.0
CHOICES: dict[str, dict[str, Any]] = {
    "natural": {"channels": [8, 6, 4]},
    "both": {"parity": "both", "channels": 4, "bias": True, "self_connection": ["none", "linear", "species"]},
    "none": {"parity": "none", "channels": 4, "self_connection": "linear", "normalized_harmonics": False},
    "xplor": {"envelope": "xplor", "switch": 3.4, "channels": 4, "readout_widths": [6], "repulsion": {}},
    "by pair": {"channels": 4, "pair_cutoffs": [[3.0, 3.6], [4.0, 3.9]], "avg_num_neighbors": [9.0, 12.0]},
}


def potential(choices: str = "natural", seed: int = 0) -> ConservativePotential:
    """Return a network of random weights for O and Si, float64, with biases and scales as trained ones have them."""
    torch.manual_seed(seed)
    sizes = {"cutoff": CUTOFF, "num_layers": 3, "radial_widths": [12], "avg_num_neighbors": 11.0}
    network = NequIP(NequIPConfig.model_validate(sizes | CHOICES[choices]), 2, numbers=[8, 14], unit=1.3).double()
    with torch.no_grad():
        network.scales.copy_(torch.tensor([0.8, 1.7]))
        for name, weight in network.named_parameters():
            if name.endswith("bias"):
                weight += 0.3 * torch.randn_like(weight)
    return ConservativePotential(network, ["O", "Si"], CUTOFF, 1.3, [-3.1, -5.7]).requires_grad_(False)


@pytest.mark.parametrize("choices", CHOICES)
def test_forces_and_virial_are_derivatives(choices: str, quartz_graph: Graph) -> None:
    model = potential(choices)
    positions, species, cell, _, _ = quartz_graph

    def energy(there: Tensor, box: Tensor = cell) -> float:
        return float(model(*graph_of(there, species, box, CUTOFF))[0].sum())

    _, forces, virial = model(*quartz_graph)
    assert float(forces.abs().max()) > 1e-3
    assert float(forces.sum(0).abs().max()) < 1e-10
    for atom, axis in ((0, 0), (7, 2), (40, 1)):
        assert float(forces[atom, axis]) == pytest.approx(force_on(energy, positions, atom, axis), rel=1e-6, abs=1e-8)
    for a, b in ((0, 0), (1, 2)):
        assert -float(virial[a, b]) == pytest.approx(
            strain_derivative(energy, positions, cell, a, b), rel=1e-6, abs=1e-7
        )


@pytest.mark.parametrize("choices", CHOICES)
def test_symmetries(choices: str, quartz_graph: Graph) -> None:
    """Energies follow no rotation, nor a reflection unless ``parity: none`` says so; an order of atoms is none."""
    model = potential(choices)
    positions, species, cell, edges, shifts = quartz_graph
    energies, forces, _ = model(*quartz_graph)
    torch.manual_seed(1)
    turn = rand_matrix(dtype=torch.float64)
    turned, pulled, _ = model(positions @ turn.T, species, cell @ turn.T, edges, shifts)
    torch.testing.assert_close(turned, energies, rtol=0, atol=1e-9)
    torch.testing.assert_close(pulled, forces @ turn.T, rtol=0, atol=1e-9)
    mirrored, _, _ = model(-positions, species, -cell, edges, shifts)
    difference = float((mirrored - energies).abs().max())
    assert difference < 1e-9 if choices != "none" else difference > 1e-6
    order = torch.randperm(len(species), generator=torch.Generator().manual_seed(2))
    shuffled, _, _ = model(*graph_of(positions[order], species[order], cell, CUTOFF))
    torch.testing.assert_close(shuffled, energies[order], rtol=0, atol=1e-10)


@pytest.mark.parametrize("choices", CHOICES)
def test_served_forms_give_the_same(choices: str, quartz_graph: Graph) -> None:
    """Plain and fused to rounding; tables to their own error."""
    model = potential(choices)
    _, forces, virial = model(*quartz_graph)
    for form in (plain(model), serving(model, "float64"), torch.jit.script(serving(model, "float64"))):
        torch.testing.assert_close(form(*quartz_graph)[1], forces, rtol=0, atol=1e-11 * float(forces.abs().max()))
    tabled = serving(model, "float32").double()
    assert tabled.network.tabled
    assert 0 < tabled.network.error <= 3e-7
    found = tabled(*quartz_graph)
    # slopes of cubics fall with the third power of the step: a hundred times the error of values
    torch.testing.assert_close(found[1], forces, rtol=0, atol=5e-5 * float(forces.abs().max()))
    torch.testing.assert_close(found[2], virial, rtol=0, atol=5e-5 * float(virial.abs().max()))


def test_bonds_shorter_than_tables_are_refused() -> None:
    model = serving(potential(), "float32").double()
    positions = torch.tensor([[0.0, 0.0, 0.0], [0.1, 0.0, 0.0], [2.0, 0.0, 0.0]], dtype=torch.float64)
    with pytest.raises(EquistrideError, match=r"atoms 0 and 1 are 10 pm apart, closer .* expected 20 pm or more"):
        model(*graph_of(positions, torch.tensor([0, 1, 1]), None, CUTOFF))


def test_an_atom_alone_has_the_energy_of_its_element() -> None:
    """Nothing but scalars of its own: forces are none, in every choice."""
    for choices in CHOICES:
        energies, forces, _ = potential(choices)(*graph_of(torch.zeros(1, 3).double(), torch.tensor([1]), None, CUTOFF))
        assert bool(energies.isfinite().all())
        assert float(forces.abs().max()) == 0


@pytest.mark.parametrize("choices", ["both", "by pair"])
def test_energies_are_smooth_at_the_cutoff(choices: str) -> None:
    """A bond of nearly its length changes nothing: energies to its third power, forces to its second."""
    model = potential(choices)
    positions = torch.tensor([[0.0, 0, 0], [1.6, 0, 0], [CUTOFF - 1e-5, 0, 0]], dtype=torch.float64)
    outputs = [model(*graph_of(positions, torch.tensor([0, 1, 0]), None, reach)) for reach in (CUTOFF, CUTOFF - 2e-5)]
    torch.testing.assert_close(outputs[0][0], outputs[1][0], rtol=0, atol=1e-11)
    torch.testing.assert_close(outputs[0][1], outputs[1][1], rtol=0, atol=1e-7)


def test_a_trace_has_no_branch_on_values() -> None:
    """What AOTInductor compiles: any number of atoms and edges, two exchanges for three layers."""
    for choices in ("both", "by pair"):
        model = serving(potential(choices), "float64")
        graph, _ = trace(model, toy_metadata(["O", "Si"], CUTOFF, layers=3, dtype="float64"))
        calls = [node.target for node in graph.graph.nodes if "equistride.exchange.default" in str(node.target)]
        assert len(calls) == 2


def test_a_table_with_a_kink_reaches_what_one_without_cannot() -> None:
    def curve(r: Tensor) -> Tensor:
        return (torch.sin(3 * r) * switched_envelope(r, 3.4, CUTOFF))[:, None]

    broken = RadialTable.tabulate(curve, 0.2, CUTOFF, tolerance=1e-8, kink=3.4)
    smooth = RadialTable.interpolating(curve, 0.2, CUTOFF, broken.coefficients.size(0) - 6)
    r = torch.linspace(0.2, CUTOFF, 5001, dtype=torch.float64)
    errors = [float((table(r) - curve(r)).abs().max()) for table in (broken, smooth)]
    assert errors[0] < 1e-8
    assert errors[1] > 30 * errors[0]
    assert broken.stop == pytest.approx(CUTOFF, abs=1e-12)
    assert broken.start <= 0.2
    place = r.clone().requires_grad_()
    (slope,) = torch.autograd.grad(broken(place).sum(), place)
    (true,) = torch.autograd.grad(curve(place).sum(), place)
    assert float((slope - true).abs().max()) < 1e-5


def test_the_repulsion_is_that_of_lammps() -> None:
    """Two silicon atoms 1 A apart by ``pair_style zbl 3.0 4.0`` of LAMMPS, far below its switching: 198.83 eV."""
    repulsion = NuclearRepulsion([14], 40.0, 6)
    r, none = torch.tensor([1.0], dtype=torch.float64), torch.tensor([0])
    x = 2 * 14**0.23 / 0.46850
    psi = 0.02817 * math.exp(-0.20162 * x) + 0.28022 * math.exp(-0.4029 * x)
    psi += 0.50986 * math.exp(-0.94229 * x) + 0.18175 * math.exp(-3.1998 * x)
    energy = 2 * float(repulsion(r, r, none, none))
    assert energy == pytest.approx(14.399645 * 14 * 14 * psi, rel=1e-6)
    assert float(repulsion(r, torch.tensor([40.0]).double(), none, none)) == 0


@pytest.mark.parametrize(
    ("choices", "reason"),
    [
        ({"channels": [8, 4]}, "channels needs 3 numbers"),
        ({"self_connection": ["none"]}, "self_connection needs 4 entries"),
        ({"irreps": ["8x0e"]}, "irreps needs 5 entries"),
        ({"num_layers": 1, "irreps": ["8x0e", "8x1o"]}, "without even scalars"),
        ({"num_layers": 1, "irreps": ["8x0e", "8x0e+8x1o"]}, "the last features must be even scalars"),
        ({"num_layers": 1, "irreps": ["8x0e", "lots"]}, "irreps are not such as"),
        ({"envelope": "xplor"}, "switch belongs to envelope xplor"),
        ({"switch": 3.0}, "switch belongs to envelope xplor"),
        ({"envelope": "xplor", "switch": 6.0}, "below the cutoff"),
        ({"pair_cutoffs": [[9.0]]}, "no pair's cutoff may be above the cutoff"),
        ({"avg_num_neighbors": -1.0}, "must not be negative"),
        ({"l_max": 5}, "less than or equal to 4"),
    ],
)
def test_choices_that_do_not_fit_are_refused(choices: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        NequIPConfig.model_validate(choices)


def test_tables_by_element_must_fit_the_elements() -> None:
    for choices, reason in (
        ({"pair_cutoffs": [[3.0]]}, "cutoffs by pair do not fit the elements; expected 2 x 2"),
        ({"avg_num_neighbors": [3.0]}, "avg_num_neighbors does not fit the elements; expected 2 numbers; found 1"),
        ({"repulsion": {}}, "needs atomic numbers; expected 2"),
    ):
        with pytest.raises(EquistrideError, match=reason):
            NequIP(NequIPConfig.model_validate(choices), 2)
