"""UMA: experts merged for one composition, charge, spin and dataset, which the artifact holds to."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import openmm.app
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.data import atomic_numbers, chemical_symbols
from ase.io import write
from fairchem_files import EXPERTS, changed, with_experts
from typer.testing import CliRunner

from equistride.artifact import Frame, load
from equistride.artifact.ensemble import combine
from equistride.artifact.export import save_potential
from equistride.artifact.system import with_system
from equistride.cli.main import app
from equistride.engines.ase import EquistrideCalculator
from equistride.engines.openmm import create_force
from equistride.engines.openmm_export import write_torchforce
from equistride.engines.openmm_structure import topology_from_ase
from equistride.errors import EquistrideError
from equistride.importers.fairchem import build, import_fairchem
from equistride.importers.fairchem_checkpoint import Checkpoint, read_checkpoint
from equistride.models.esen_fused import fuse
from equistride.units import EV_PER_KJ_MOL

ETHANOL = {"C": 2, "H": 6, "O": 1}
SYSTEMS = ["quartz9", "quartz72", "slab72", "ethanol", "cation", "anion"]


def shares_of(checkpoint: Checkpoint, elements: dict[str, int], system: np.ndarray, per: int) -> np.ndarray:
    """The mixture written out: the composition's mean, three layers with a SiLU after each, softmax + 0.005."""
    state = {
        key: value.double().numpy() for key, value in checkpoint.state.items() if "routing" in key or "compos" in key
    }
    table = state["backbone.composition_embedding.weight"]
    mean = sum(n * table[atomic_numbers[s]] for s, n in elements.items()) / per
    x = np.concatenate([mean, system])
    for layer in "024":
        x = state[f"backbone.routing_mlp.{layer}.weight"] @ x + state[f"backbone.routing_mlp.{layer}.bias"]
        x = x / (1 + np.exp(-x))
    return np.exp(x) / np.exp(x).sum() + 0.005


def embedding_of(dataset: str, charge: float, spin: float) -> np.ndarray:
    """Charge, spin and dataset as the same network without experts has them."""
    network: Any = build(plain(), dataset=dataset, unmerged=True).potential.network
    network.set_system(charge, spin)
    return network.system().detach().numpy()


def plain() -> Checkpoint:
    checkpoint = changed("L2M2_omol")
    checkpoint.datasets["omat"] = checkpoint.datasets["omol"]
    return checkpoint


@pytest.mark.parametrize(("dataset", "charge", "spin"), [("omol", 1, 2), ("omat", 0, 0)])
def test_experts_are_summed_by_their_shares_and_the_embedding_is_folded_in(
    dataset: str, charge: int, spin: int
) -> None:
    """Experts that are multiples of one set of weights: the merged network is that set, times one number."""
    checkpoint, factors = with_experts()
    made = build(checkpoint, (), dataset, charge, spin, ETHANOL)
    shares = shares_of(checkpoint, ETHANOL, embedding_of(dataset, charge, spin), 9)
    np.testing.assert_allclose(made.coefficients, shares, rtol=0, atol=1e-14)
    assert sum(made.coefficients) == pytest.approx(1 + 0.005 * EXPERTS, rel=1e-14)
    live = build(plain(), list(ETHANOL), dataset, charge, spin, unmerged=True).potential
    factor = float(shares @ factors.numpy())
    for block in live.network.blocks:
        for convolution in (block.edgewise.first, block.edgewise.second):
            for linear in (convolution.scalar, *convolution.orders):
                linear.weight.data *= factor
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.1, seed=1)
    species = torch.tensor([live.species.index(s) for s in atoms.symbols])
    edges = torch.tensor([[i, j] for i in range(9) for j in range(9) if i != j]).T
    graph = (
        torch.tensor(atoms.positions),
        species,
        torch.zeros(3, 3).double(),
        edges,
        torch.zeros(72, 3, dtype=torch.int32),
    )
    scale = made.potential.scale / live.scale
    for found, expected in zip(made.potential(*graph)[1:], live(*graph)[1:], strict=True):
        torch.testing.assert_close(found, expected * scale, rtol=0, atol=1e-6)  # experts were rounded to float32


def test_what_a_mixture_depends_on() -> None:
    checkpoint, _ = with_experts()
    right = np.array(build(checkpoint, (), "omol", 0, 1, ETHANOL).coefficients)
    for dataset, charge, spin, elements in (
        ("omol", 1, 1, ETHANOL), ("omol", 0, 3, ETHANOL), ("omat", 0, 1, ETHANOL), ("omol", 0, 1, {"C": 2, "H": 4, "O": 1})
    ):  # fmt: skip
        assert (
            np.abs(np.array(build(checkpoint, (), dataset, charge, spin, elements).coefficients) - right).max() > 1e-3
        )
    twice = {symbol: 2 * number for symbol, number in ETHANOL.items()}
    np.testing.assert_allclose(build(checkpoint, (), "omol", 0, 1, twice).coefficients, right, rtol=0, atol=1e-15)


def test_the_version_that_counts_one_atom_too_many_holds_for_one_size() -> None:
    checkpoint, _ = with_experts()
    checkpoint.name = "UMA-S-1.2"
    made = build(checkpoint, (), "omol", 0, 1, {"C": 4, "H": 12, "O": 2})
    shares = shares_of(checkpoint, {"C": 4, "H": 12, "O": 2}, embedding_of("omol", 0, 1), 19)
    np.testing.assert_allclose(made.coefficients, shares, rtol=0, atol=1e-14)
    assert made.composition is not None
    assert (made.composition.atoms, made.composition.elements["H"]) == (18, 12)


@pytest.mark.parametrize(
    ("backbone", "composition", "sentence"),
    [
        ({}, None, r"UMA model, whose experts are merged for one composition.*--structure FILE"),
        ({"model_version": None}, ETHANOL, "UMA 1.0, or does not say its version.*uma-s-1p1"),
        (
            {"moe_expert_coefficient_norm": "pnorm"},
            ETHANOL,
            "depends on the size of a batch; expected softmax; found pnorm",
        ),
        ({"num_experts": 0}, ETHANOL, "experts that its configuration does not know"),
        ({}, {"Xe": 1}, "does not know the element Xe"),
    ],
)
def test_what_cannot_be_merged_is_refused(backbone: dict[str, Any], composition: Any, sentence: str) -> None:
    checkpoint, _ = with_experts()
    checkpoint.backbone |= backbone
    with pytest.raises(EquistrideError, match=sentence):
        build(checkpoint, (), "omol", 0, 1, composition)


@pytest.mark.parametrize(("charge", "spin"), [(-101, 1), (0, 101), (0, -1)])
def test_charges_and_spins_beyond_the_tables_are_refused(charge: int, spin: int) -> None:
    with pytest.raises(
        EquistrideError, match="out of range; expected a charge from -100 to 100 and a multiplicity from 0"
    ):
        build(with_experts()[0], (), "omol", charge, spin, ETHANOL)


def test_a_merged_network_under_its_old_configuration_is_refused() -> None:
    with pytest.raises(EquistrideError, match="have been merged, for a composition that the file does not say"):
        build(changed("L2M2_omol", model="escnmd_moe_backbone", num_experts=3), composition=ETHANOL)


def artifact_of(path: Path, **settings: Any) -> Path:
    checkpoint, _ = with_experts(**settings)
    made = build(checkpoint, (), "omol", 1, 2, ETHANOL)
    save_potential(made.potential, made.config, path, dtype="float64", fused=True, provenance={}, system=made.system,
                   composition=made.composition)  # fmt: skip
    return path


def test_the_artifact_holds_for_its_system_alone(tmp_path: Path) -> None:
    path = artifact_of(tmp_path / "uma.pt")
    model = load(path, charge=1, spin=2)
    assert (model.metadata.charge_spin, model.metadata.species) == ("fixed", ["H", "C", "O"])
    atoms = molecule("CH3CH2OH")
    atoms.calc = EquistrideCalculator(path)
    assert np.isfinite(atoms.get_potential_energy())
    ether = molecule("CH3OCH3")
    energies = model.compute(ether.positions, list(ether.symbols)).atomic_energies  # of the same composition
    assert bool(energies.isfinite().all())
    for other in (molecule("CH3OH"), Atoms("OH2", [[0, 0, 0], [1, 0, 0], [0, 1, 0]])):
        other.calc = EquistrideCalculator(path)
        with pytest.raises(EquistrideError, match="one composition alone; expected H6C2O1; found"):
            other.get_potential_energy()
    for system in ({"charge": 0}, {"spin": 1}):
        with pytest.raises(EquistrideError, match="fixed"):
            load(path, **system)
        with pytest.raises(EquistrideError, match="charge and spin are fixed in the model"):
            with_system(path, tmp_path / "other.pt", **system)


def test_openmm_takes_the_charge_and_spin_that_are_fixed_in_it(tmp_path: Path) -> None:
    path, ethanol = artifact_of(tmp_path / "uma.pt"), molecule("CH3CH2OH")
    topology = topology_from_ase(ethanol)[0]
    for backend in ("plugin", "python"):
        create_force(path, topology, backend=backend, charge=1, spin=2)  # type: ignore[arg-type]
        for other in ({"charge": 0}, {"spin": 1}, {"charge": 1, "spin": 3}):
            with pytest.raises(EquistrideError, match=r"fixed in the model.*expected .*; found"):
                create_force(path, topology, backend=backend, **other)  # type: ignore[arg-type]


def test_openmm_holds_the_atoms_that_the_model_sees_to_it(tmp_path: Path) -> None:
    """Water around the molecule is none of the model's business."""
    path, ethanol = artifact_of(tmp_path / "uma.pt"), molecule("CH3CH2OH")
    topology = openmm.app.Topology()
    for symbols in (ethanol.symbols, "OHH"):
        residue = topology.addResidue("X", topology.addChain())
        for symbol in symbols:
            topology.addAtom(symbol, openmm.app.Element.getBySymbol(symbol), residue)
    water = [[30, 0, 0], [31, 0, 0], [30, 1, 0]]

    def energy(atoms: range) -> float:
        """Of the model alone, eV."""
        system = openmm.System()
        for _ in range(12):
            system.addParticle(1.0)
        system.addForce(create_force(path, topology, atoms=atoms, precision="float64"))
        context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
        context.setPositions(np.concatenate([ethanol.positions, water]) / 10)
        return context.getState(getEnergy=True).getPotentialEnergy()._value * EV_PER_KJ_MOL

    expected = load(path).compute(ethanol.positions, list(ethanol.symbols)).atomic_energies.sum()
    assert energy(range(9)) == pytest.approx(float(expected), rel=1e-12)
    with pytest.raises(
        (EquistrideError, openmm.OpenMMException), match="one composition alone; expected H6C2O1; found H5C2O1"
    ):
        energy(range(8))
    with pytest.raises(EquistrideError, match="the model holds for one composition alone"):
        write_torchforce(path, tmp_path / "force.pt", topology)


def test_balanced_channels_are_held_to_their_total_in_both_forms(tmp_path: Path) -> None:
    """After the last block the channels sum to the charge; forces are the gradient with the sum over all atoms in it."""
    channels = {"charge_balanced_channels": [2, 1], "spin_balanced_channels": [4]}
    checkpoint, _ = with_experts(**channels)
    made = build(checkpoint, (), "omol", -1, 3, ETHANOL)
    sums: list[torch.Tensor] = []
    made.potential.network.balance.register_forward_hook(lambda _, __, out: sums.append(out[:, 0].sum(0)))
    atoms = molecule("CH3CH2OH")
    species = torch.tensor([made.potential.species.index(s) for s in atoms.symbols])
    edges = torch.tensor([[i, j] for i in range(9) for j in range(9) if i != j]).T
    graph = [
        torch.tensor(atoms.positions),
        species,
        torch.zeros(3, 3).double(),
        edges,
        torch.zeros(72, 3, dtype=torch.int32),
    ]
    energies, forces, _ = made.potential(*graph)  # type: ignore[arg-type]
    torch.testing.assert_close(sums[-1][[1, 2, 4]], torch.tensor([-1.0, -1.0, 2.0]).double(), rtol=0, atol=1e-12)
    for atom, axis in ((0, 0), (4, 2)):
        slope = 0.0
        for h in (1e-4, -1e-4):
            graph[0] = torch.tensor(atoms.positions)
            graph[0][atom, axis] += h
            slope += float(made.potential(*graph)[0].sum()) / (2 * h)  # type: ignore[arg-type]
        assert -slope == pytest.approx(float(forces[atom, axis]), abs=1e-6)
    made.potential.network = fuse(made.potential.network, None)
    graph[0] = torch.tensor(atoms.positions)
    torch.testing.assert_close(made.potential(*graph)[0], energies, rtol=0, atol=1e-12)  # type: ignore[arg-type]


def test_balanced_channels_are_declared_as_sums_over_all_atoms(tmp_path: Path) -> None:
    path = artifact_of(tmp_path / "balanced.pt", charge_balanced_channels=[0, 1])
    facts = load(path).metadata
    assert (facts.interaction_range, facts.global_sums) == ("all", 2)
    assert facts.capabilities.decomposable
    assert not facts.capabilities.batched
    frames = [molecule("CH3CH2OH"), molecule("CH3OCH3")]
    model = load(path)
    alone = [float(model.compute(f.positions, list(f.symbols)).atomic_energies.sum()) for f in frames]
    together = model.compute_batch([Frame(f.positions, list(f.symbols)) for f in frames])
    np.testing.assert_allclose(together.energies, alone, rtol=1e-12)
    checkpoint, _ = with_experts(charge_balanced_channels=[0, 1])
    made = build(checkpoint, (), "omol", 1, 2, ETHANOL)
    with pytest.raises(EquistrideError, match="sums over all atoms cannot be compiled"):
        save_potential(
            made.potential, made.config, tmp_path / "x.pt", dtype="float64", fused=False, provenance={}, container="aoti"
        )  # fmt: skip


def test_an_ensemble_keeps_its_composition(tmp_path: Path) -> None:
    first = artifact_of(tmp_path / "first.pt")
    checkpoint, _ = with_experts()
    checkpoint.state["backbone.norm.affine_bias"] = checkpoint.state["backbone.norm.affine_bias"] + 0.1
    for composition, fits in ((ETHANOL, True), ({"C": 2, "H": 4, "O": 1}, False)):
        made = build(checkpoint, (), "omol", 1, 2, composition)
        save_potential(made.potential, made.config, tmp_path / "second.pt", dtype="float64", fused=False, provenance={},
                       system=made.system, composition=made.composition)  # fmt: skip
        if fits:
            assert combine([first, tmp_path / "second.pt"], tmp_path / "both.pt").composition is not None
        else:
            with pytest.raises(EquistrideError, match="has not the composition"):
                combine([first, tmp_path / "second.pt"], tmp_path / "both.pt")


def golden(shared_data: Path, name: str) -> tuple[Path, Any]:
    folder = shared_data / "golden-uma"
    if not (folder / f"{name}.npz").is_file():
        pytest.skip(f"no UMA checkpoints of fairchem in {folder}")
    return folder / f"{name}.pt", np.load(folder / f"{name}.npz")


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("name", ["uma11_L2M2", "uma121_L2M2"])
def test_artifacts_equal_fairchem(shared_data: Path, tmp_path: Path, name: str, system: str) -> None:
    """1e-10 in float64, 1e-5 in float32; coefficients to the last digits. Training weights would differ by 1."""
    file, expected = golden(shared_data, name)
    facts = {
        key: expected[f"{system}_{key}"] for key in ("numbers", "positions", "cell", "pbc", "dataset", "charge", "spin")
    }
    symbols = [chemical_symbols[z] for z in facts["numbers"]]
    metadata = import_fairchem(
        file, tmp_path / "uma.pt", dataset=str(facts["dataset"]), charge=int(facts["charge"]), spin=int(facts["spin"]),
        composition=Counter(symbols), dtype="float64",
    )  # fmt: skip
    np.testing.assert_allclose(metadata.weights["coefficients"], expected[f"{system}_coefficients"], rtol=0, atol=1e-14)
    energy, forces = float(expected[f"{system}_energy"]), expected[f"{system}_forces"]
    rms = float(np.sqrt(np.mean(forces**2)))
    references = read_checkpoint(file).datasets[str(facts["dataset"])].references
    interaction = abs(energy - sum(references[z] for z in facts["numbers"]))
    for dtype, bound in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        model = load(tmp_path / "uma.pt", dtype=dtype)
        out = model.compute(facts["positions"], symbols, facts["cell"], facts["pbc"])
        # energies of 10^3 eV with the elements' references leave 1e-15 of themselves an addition
        assert abs(float(out.atomic_energies.double().sum()) - energy) < bound * interaction + 1e-14 * abs(energy)
        largest = rms if dtype == torch.float64 else float(np.abs(forces).max())
        assert np.abs(out.forces.double().numpy() - forces).max() < bound * largest
        if facts["pbc"].all():
            stress = -out.virial.double().numpy() / abs(np.linalg.det(facts["cell"]))
            wanted = expected[f"{system}_stress"].reshape(3, 3)
            assert np.abs(stress - wanted).max() < bound * np.abs(wanted).max()


def test_what_must_not_be_taken_for_another(shared_data: Path) -> None:
    """Wrong charge, composition, dataset, slice of the head, and a balance left out: each moves forces by per cents."""
    file, expected = golden(shared_data, "uma121_L2M2")
    positions = torch.tensor(expected["ethanol_positions"])
    symbols = [chemical_symbols[z] for z in expected["ethanol_numbers"]]
    edges = torch.tensor([[i, j] for i in range(9) for j in range(9) if i != j]).T

    def forces(checkpoint: Checkpoint, dataset: str, charge: int, elements: dict[str, int]) -> np.ndarray:
        made = build(checkpoint, (), dataset, charge, 1, elements)
        species = torch.tensor([made.potential.species.index(s) for s in symbols])
        shifts = torch.zeros(72, 3, dtype=torch.int32)
        return made.potential(positions, species, torch.zeros(3, 3).double(), edges, shifts)[1].numpy()

    right = forces(read_checkpoint(file), "omol", 0, ETHANOL)
    np.testing.assert_allclose(right, expected["ethanol_forces"], rtol=0, atol=1e-10)
    unbalanced, slices = read_checkpoint(file), read_checkpoint(file)
    unbalanced.backbone.pop("charge_balanced_channels")
    slices.heads["energyandforcehead"]["dataset_mapping"] = {"omol": "a", "a": "a", "oc20": "oc20", "omat": "omat"}
    rms = np.sqrt(np.mean(right**2))
    for other in (
        forces(read_checkpoint(file), "omol", 1, ETHANOL),
        forces(read_checkpoint(file), "omol", 0, {"C": 1, "H": 4, "O": 1}),
        forces(read_checkpoint(file), "omat", 0, ETHANOL),
        forces(unbalanced, "omol", 0, ETHANOL),
        forces(slices, "omol", 0, ETHANOL),
    ):
        assert np.abs(other - right).max() > 0.01 * rms


def test_the_command_merges_for_a_structure(shared_data: Path, tmp_path: Path) -> None:
    file, _ = golden(shared_data, "uma11_L2M2")
    write(tmp_path / "two.xyz", molecule("CH3CH2OH") + molecule("CH3OCH3"))
    arguments = ["import", "fairchem", str(file), "-o", str(tmp_path / "out.pt"), "--dataset"]
    result = CliRunner().invoke(app, [*arguments, "omol", "--structure", str(tmp_path / "two.xyz"), "--charge", "1"])
    assert result.exit_code == 0, result.output
    assert "for 3 elements" in result.output
    assert "charge 1, spin 1, for C2OH6 alone" in result.output.replace("C2O1H6", "C2OH6").replace("C2H6O1", "C2OH6")
    result = CliRunner().invoke(app, [*arguments, "omat", "--structure", str(tmp_path / "two.xyz"), "--spin", "2"])
    assert "the dataset omat has neither charges nor spins" in result.output
    result = CliRunner().invoke(app, [*arguments, "omat"])
    assert "--structure FILE" in str(result.exception)
