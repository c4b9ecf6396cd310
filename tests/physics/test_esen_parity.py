"""eSEN against outputs of fairchem-core 2.24.0, whose weights are read into our network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from random_models import graph_of
from torch import Tensor, nn

from equistride.models.esen import ESEN, ESENConfig
from equistride.models.potential import ConservativePotential
from equistride.nn.radial import GaussianBasis
from equistride.nn.spherical import SphericalRMSNorm

NETWORKS = ["esen_L2M2_gauss_spectral", "esen_L3M2_gauss64_spectral"]
SYSTEMS = ["quartz72", "si2_primitive", "ethanol", "al1", "nacl_skew"]
RADIAL = {"0": "first", "1": "norm1", "3": "second", "4": "norm2", "6": "last"}


def translated(theirs: dict[str, Tensor], config: ESENConfig) -> dict[str, Tensor]:
    """Return their state dict under our names.

    They add an embedding of the system's charge and spin to the scalars, at the start and after the first norm of each
    block; at charge 0 and spin 0 it is a constant and goes into biases.
    """
    charge = theirs["backbone.charge_embedding.W"]
    of_charge = torch.cat([torch.zeros_like(charge), torch.ones_like(charge)])  # sin and cos of 0
    state = torch.cat([of_charge, torch.zeros(config.channels).to(charge)])
    system = nn.functional.silu(theirs["backbone.mix_csd.weight"] @ state + theirs["backbone.mix_csd.bias"])
    ours = {
        "embedding.weight": theirs["backbone.sphere_embedding.weight"] + system,
        "sender": theirs["backbone.source_embedding.weight"],
        "receiver": theirs["backbone.target_embedding.weight"],
        "norm.weight": theirs["backbone.norm.affine_weight"],
        "norm.bias": theirs["backbone.norm.affine_bias"],
    }

    def copy(source: str, target: str) -> None:
        for kind in ("weight", "bias"):
            ours[f"{target}.{kind}"] = theirs[f"{source}.{kind}"]

    def copy_radial(source: str, target: str) -> None:
        for number, name in RADIAL.items():
            copy(f"{source}.rad_func.net.{number}", f"{target}.{name}")

    copy_radial("backbone.edge_degree_embedding", "edge_degree")
    for k in range(config.num_layers):
        source, target = f"backbone.blocks.{k}", f"blocks.{k}"
        for n, shift in (("1", system), ("2", 0.0)):
            ours[f"{target}.norm{n}.weight"] = theirs[f"{source}.norm_{n}.affine_weight"]
            ours[f"{target}.norm{n}.bias"] = theirs[f"{source}.norm_{n}.affine_bias"] + shift
        for n, name in (("1", "first"), ("2", "second")):
            convolution = f"{source}.edge_wise.so2_conv_{n}"
            copy(f"{convolution}.fc_m0", f"{target}.edgewise.{name}.scalar")
            for m in range(config.m_max):
                weight = theirs[f"{convolution}.so2_m_conv.{m}.fc.weight"]
                ours[f"{target}.edgewise.{name}.orders.{m}.weight"] = weight
        copy_radial(f"{source}.edge_wise.so2_conv_1", f"{target}.edgewise.radial")
        copy(f"{source}.atom_wise.scalar_mlp.0", f"{target}.feed_forward.gates")
        copy(f"{source}.atom_wise.so3_linear_1", f"{target}.feed_forward.up")
        copy(f"{source}.atom_wise.so3_linear_2", f"{target}.feed_forward.down")
    for n in "024":
        copy(f"head.energy_block.{n}", f"head.{n}")
    return ours


def round_constants(network: ESEN) -> None:
    """Give the network the constants that fairchem made in float32 before it went to double precision."""
    for module in network.modules():
        if isinstance(module, GaussianBasis):
            count, cutoff = len(module.centres), float(module.centres[-1])
            centres = torch.linspace(0.0, cutoff, count, dtype=torch.float32)
            width = 2.0 * float(centres[1] - centres[0])
            module.centres, module.factor = centres.double(), -0.5 / width**2
        if isinstance(module, SphericalRMSNorm):
            channels = module.weight.size(1)
            module.balance = (module.balance * channels).float().double() / channels


def load_network(folder: Path, name: str) -> tuple[ConservativePotential, np.lib.npyio.NpzFile]:
    golden = np.load(folder / f"{name}.npz")
    theirs = torch.load(folder / f"{name}.pt", weights_only=True)
    sizes = json.loads(str(golden["config"]))
    config = ESENConfig(
        cutoff=sizes["cutoff"],
        num_layers=sizes["num_layers"],
        l_max=sizes["lmax"],
        m_max=sizes["mmax"],
        channels=sizes["sphere_channels"],
        hidden_channels=sizes["hidden_channels"],
        edge_channels=sizes["edge_channels"],
        num_basis=sizes["num_distance_basis"],
        mirror=False,
    )
    count = sizes["max_num_elements"]
    network = ESEN(config, count).double()
    network.load_state_dict(translated(theirs, config))
    species = [str(z) for z in range(count)]
    return ConservativePotential(network, species, config.cutoff, 1.0, [0.0] * count), golden


@pytest.fixture
def golden_folder(shared_data: Path) -> Path:
    folder = shared_data / "golden-esen"
    if not folder.is_dir():
        pytest.skip(f"no reference outputs of fairchem in {folder}")
    return folder


def deviations(potential: ConservativePotential, golden: np.lib.npyio.NpzFile, system: str) -> tuple[float, float]:
    """Return the deviation of the energy [eV] and the largest one of a force component [eV/A]."""
    positions, cell = (torch.tensor(golden[f"{system}_{k}"]).double() for k in ("positions", "cell"))
    species = torch.tensor(golden[f"{system}_numbers"])
    periodic = bool(golden[f"{system}_pbc"].all())
    energies, forces, _ = potential(*graph_of(positions, species, cell if periodic else None, potential.cutoff))
    of_energy = abs(float(energies.sum()) - float(golden[f"{system}_energy"]))
    return of_energy, float(np.abs(forces.numpy() - golden[f"{system}_forces"]).max())


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("name", NETWORKS)
def test_energy_and_forces_equal_fairchem(golden_folder: Path, name: str, system: str) -> None:
    """With fairchem's rounded constants nothing is left but the order of sums, a few units of 1e-16 each."""
    potential, golden = load_network(golden_folder, name)
    round_constants(potential.network)
    of_energy, of_forces = deviations(potential, golden, system)
    assert of_energy < 1e-12
    assert of_forces < 1e-12


@pytest.mark.parametrize("name", NETWORKS)
def test_exact_constants_differ_from_fairchem_by_their_rounding(golden_folder: Path, name: str) -> None:
    """Our constants are exact in float64; fairchem's have float32's relative error, 6e-8, and so do its forces."""
    potential, golden = load_network(golden_folder, name)
    of_energy, of_forces = deviations(potential, golden, "quartz72")
    assert 1e-12 < of_energy < 72 * 2e-7
    assert 1e-12 < of_forces < 1e-6
