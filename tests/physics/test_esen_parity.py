"""eSEN against outputs of fairchem-core 2.24.0, whose weights the importer reads into our network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.data import chemical_symbols
from random_models import graph_of

from equistride.importers.fairchem import potential_of
from equistride.importers.fairchem_checkpoint import Checkpoint, Normalisation
from equistride.models.esen import ESEN, ESENConfig
from equistride.models.potential import ConservativePotential

NETWORKS = ["esen_L2M2_gauss_spectral", "esen_L3M2_gauss64_spectral"]
SYSTEMS = ["quartz72", "si2_primitive", "ethanol", "al1", "nacl_skew"]


def load_network(folder: Path, name: str) -> tuple[ConservativePotential, ESENConfig, np.lib.npyio.NpzFile]:
    golden = np.load(folder / f"{name}.npz")
    state = torch.load(folder / f"{name}.pt", weights_only=True)
    checkpoint = Checkpoint(2, json.loads(str(golden["config"])), state, {"": Normalisation()})
    potential, config = potential_of(checkpoint)
    return potential, config, golden


@pytest.fixture
def golden_folder(shared_data: Path) -> Path:
    folder = shared_data / "golden-esen"
    if not folder.is_dir():
        pytest.skip(f"no reference outputs of fairchem in {folder}")
    return folder


def deviations(potential: ConservativePotential, golden: np.lib.npyio.NpzFile, system: str) -> tuple[float, float]:
    """Return the deviation of the energy [eV] and the largest one of a force component [eV/A]."""
    dtype = next(potential.parameters()).dtype
    positions, cell = (torch.tensor(golden[f"{system}_{k}"]).to(dtype) for k in ("positions", "cell"))
    species = torch.tensor([potential.species.index(chemical_symbols[z]) for z in golden[f"{system}_numbers"]])
    periodic = bool(golden[f"{system}_pbc"].all())
    energies, forces, _ = potential(*graph_of(positions, species, cell if periodic else None, potential.cutoff))
    of_energy = abs(float(energies.sum()) - float(golden[f"{system}_energy"]))
    return of_energy, float(np.abs(forces.double().numpy() - golden[f"{system}_forces"]).max())


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("name", NETWORKS)
def test_energy_and_forces_equal_fairchem(golden_folder: Path, name: str, system: str) -> None:
    """With fairchem's rounded constants nothing is left but the order of sums, a few units of 1e-16 each."""
    potential, _, golden = load_network(golden_folder, name)
    of_energy, of_forces = deviations(potential, golden, system)
    assert of_energy < 1e-12
    assert of_forces < 1e-12
    of_energy, of_forces = deviations(potential.float(), golden, system)
    size = float(np.abs(golden[f"{system}_forces"]).max())
    assert of_energy < 1e-5 * max(1.0, abs(float(golden[f"{system}_energy"])))
    # by symmetry the forces on one atom, and on undisplaced silicon, are zero: rounding of edge forces of some 0.1 eV/A
    assert of_forces < 1e-5 * max(size, 0.1)


@pytest.mark.parametrize("name", NETWORKS)
def test_exact_constants_differ_from_fairchem_by_their_rounding(golden_folder: Path, name: str) -> None:
    """Our constants are exact in float64; fairchem's have float32's relative error, 6e-8, and so do its forces."""
    potential, config, golden = load_network(golden_folder, name)
    exact = ESEN(config.model_copy(update={"constants": "exact"}), len(potential.species)).double()
    exact.load_state_dict(potential.network.state_dict())
    potential.network = exact
    of_energy, of_forces = deviations(potential, golden, "quartz72")
    assert 1e-12 < of_energy < 72 * 2e-7
    assert 1e-12 < of_forces < 1e-6
