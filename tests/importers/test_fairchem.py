"""Import of fairchem's eSEN checkpoints: numbers of fairchem-core 2.24.0 and 1.10.0, and what must be refused.

The checkpoints in tests/data/fairchem have random weights; benchmarks/esen_golden.py made them with fairchem-core.
"""

from __future__ import annotations

import os
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase.data import chemical_symbols
from fairchem_files import FOLDER, changed
from random_models import graph_of
from typer.testing import CliRunner

from equistride.artifact import load
from equistride.artifact.system import with_system
from equistride.cli.main import app
from equistride.errors import EquistrideError
from equistride.importers.fairchem import import_fairchem, potential_of
from equistride.importers.fairchem_checkpoint import read_checkpoint
from equistride.importers.fairchem_config import config_of
from equistride.models.potential import ConservativePotential

NETWORKS = sorted(path.stem for path in FOLDER.glob("*.pt"))
SYSTEMS = ["quartz", "silicon", "ethanol", "aluminium", "salt"]


def golden(name: str) -> Any:
    return np.load(FOLDER / f"{name}.npz")


def imported(name: str) -> ConservativePotential:
    expected = golden(name)
    potential, config = potential_of(read_checkpoint(FOLDER / f"{name}.pt"))
    if config.charge_spin != "off":
        potential.network.set_system(float(expected["charge"]), float(expected["spin"]))
    return potential


def outputs(potential: ConservativePotential, expected: Any, system: str) -> tuple[float, np.ndarray]:
    """Return energy without the elements' references [eV] and forces [eV/A] of a stored structure."""
    dtype = next(potential.parameters()).dtype
    numbers = expected[f"{system}_numbers"]
    positions, cell = (torch.tensor(expected[f"{system}_{k}"]).to(dtype) for k in ("positions", "cell"))
    species = torch.tensor([potential.species.index(chemical_symbols[z]) for z in numbers])
    box = cell if expected[f"{system}_pbc"].all() else None
    energies, forces, _ = potential(*graph_of(positions, species, box, potential.cutoff))
    return float(energies.sum()) - offset(potential, numbers), forces.double().numpy()


def offset(potential: ConservativePotential, numbers: np.ndarray) -> float:
    return sum(potential.references[potential.species.index(chemical_symbols[z])] for z in numbers)


def test_all_published_shapes_are_here() -> None:
    assert len(NETWORKS) == 10
    configs = [
        config_of(read_checkpoint(FOLDER / f"{n}.pt").backbone, 1 if n.startswith("v1") else 2) for n in NETWORKS
    ]
    assert {(c.l_max, c.m_max) for c in configs} == {(2, 2), (3, 2), (4, 2)}
    for key in ("basis", "feed_forward", "activation", "envelope"):
        assert len({getattr(c, key) for c in configs}) == 2, key
    assert {c.charge_spin for c in configs} == {"off", "positional", "table"}


@pytest.mark.parametrize("name", NETWORKS)
def test_energies_and_forces_are_those_of_fairchem(name: str) -> None:
    """1e-10 in float64, of the interaction energy and of the rms force; 1e-5 in float32.

    An S2 grid sees how a bond frame rolls about its bond, at random in fairchem: with 28 points along each angle that is 1e-7.
    """
    potential, expected = imported(name), golden(name)
    single = imported(name).float()
    bound = 3e-7 if "s2" in name else 1e-10
    for system in SYSTEMS:
        numbers = expected[f"{system}_numbers"]
        energy = float(expected[f"{system}_energy"]) - offset(potential, numbers)
        forces = expected[f"{system}_forces"]
        rms = max(float(np.sqrt(np.mean(forces**2))), 0.1)  # a lone atom has none; its bonds have some 0.1 eV/A
        size = max(abs(energy), 0.1 * len(numbers))  # atomic energies of some 0.1 eV may cancel
        found, found_forces = outputs(potential, expected, system)
        # references of some 10 eV an atom leave 1e-14 of themselves
        assert abs(found - energy) < bound * size + 1e-12, system
        assert np.abs(found_forces - forces).max() < bound * rms, system
        found, found_forces = outputs(single, expected, system)
        assert abs(found - energy) < 1e-5 * size, system
        largest = max(float(np.abs(forces).max()), 0.3)
        assert np.abs(found_forces - forces).max() < 1e-5 * largest, system


def test_the_artifact_computes_the_same(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    metadata = import_fairchem(FOLDER / "v1_L3M2_bessel.pt", path, elements=["O", "Si"], dtype="float64")
    expected = golden("v1_L3M2_bessel")
    assert metadata.species == ["O", "Si"]
    assert metadata.conservative
    model = load(path)
    symbols = [chemical_symbols[z] for z in expected["quartz_numbers"]]
    out = model.compute(expected["quartz_positions"], model.species_index(symbols), expected["quartz_cell"], True)
    assert float(out.atomic_energies.sum()) == pytest.approx(float(expected["quartz_energy"]), rel=1e-12)
    np.testing.assert_allclose(out.forces.numpy(), expected["quartz_forces"], rtol=0, atol=1e-11)


def test_charge_and_spin_are_set_as_a_model_is_loaded(tmp_path: Path) -> None:
    expected, path = golden("L2M2_omol"), tmp_path / "omol.pt"
    metadata = import_fairchem(FOLDER / "L2M2_omol.pt", path, dtype="float64")
    assert metadata.system == {"charge": 0.0, "spin": 1.0}  # a neutral singlet, as OMol's users mean
    symbols = [chemical_symbols[z] for z in expected["ethanol_numbers"]]

    def energy(**system: float) -> float:
        model = load(path, **system)
        out = model.compute(expected["ethanol_positions"], model.species_index(symbols))
        return float(out.atomic_energies.sum())

    right = float(expected["ethanol_energy"])
    assert energy(charge=1, spin=2) == pytest.approx(right, rel=1e-12)
    assert abs(energy() - right) > 1e-3
    assert abs(energy(charge=1) - right) > 1e-5  # still a singlet
    other = tmp_path / "cation.pt"
    assert with_system(path, other, charge=1, spin=2).system == {"charge": 1.0, "spin": 2.0}
    path = other
    assert energy() == pytest.approx(right, rel=1e-12)


def test_a_charge_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "omol.pt"
    import_fairchem(FOLDER / "L2M2_omol.pt", path)
    with pytest.raises(
        EquistrideError, match=r"the charge is out of range; expected a whole number from -100 to 100; found 0\.5"
    ):
        load(path, charge=0.5)
    with pytest.raises(EquistrideError, match="spin multiplicity is out of range"):
        with_system(path, tmp_path / "x.pt", spin=-1)
    plain = tmp_path / "plain.pt"
    import_fairchem(FOLDER / "v1_L2M2_gauss_grid.pt", plain)
    with pytest.raises(EquistrideError, match="knows no charge and no spin"):
        load(plain, charge=1)
    with pytest.raises(EquistrideError, match="knows no charge and no spin"):
        import_fairchem(FOLDER / "v1_L2M2_gauss_grid.pt", plain, charge=1)


PUBLISHED = {
    "eSEN-3.2M": 3_199_745, "eSEN-6M": 6_226_689, "eSEN-30M-MP": 30_085_121, "eSEN-30M-OAM": 30_161_153, "eSEN-sm-omol": None,
}  # fmt: skip
"""Parameters of the published networks, as far as they were published."""


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name: str, repository: Path, tmp_path: Path) -> None:
    """Networks of the published sizes (random weights) give fairchem-core's energies and forces, from the artifact too."""
    folder = Path(os.environ.get("EQUISTRIDE_PUBLISHED_GOLDEN", repository / "runs" / "golden"))
    if not (folder / f"{name}.npz").is_file():
        pytest.skip(f"no {name} in {folder}; make it with benchmarks/esen_golden.py --published --output FOLDER")
    expected, path = np.load(folder / f"{name}.npz"), tmp_path / "model.pt"
    kept = ["H", "C", "O", "Na", "Al", "Si", "Cl"]
    system = {"charge": int(expected["charge"]), "spin": int(expected["spin"])} if "omol" in name else {}
    metadata = import_fairchem(folder / f"{name}.pt", path, elements=kept, dtype="float64", **system)
    potential, _ = potential_of(read_checkpoint(folder / f"{name}.pt"))
    count = sum(p.numel() for p in potential.parameters())
    unused = 3 * 128  # rows of an element 0
    assert PUBLISHED[name] is None or count + unused == PUBLISHED[name]
    assert metadata.num_parameters < count  # the rows of other elements are gone
    for dtype, bound in (("float64", 1e-10), ("float32", 1e-5)):
        model = load(path, dtype=getattr(torch, dtype))
        for key in ("quartz", "ethanol", "aluminium"):
            numbers = expected[f"{key}_numbers"]
            out = model.compute(
                expected[f"{key}_positions"], model.species_index([chemical_symbols[z] for z in numbers]),
                expected[f"{key}_cell"], bool(expected[f"{key}_pbc"].all()),
            )  # fmt: skip
            forces = expected[f"{key}_forces"]
            scale = max(float(np.abs(forces).max()), 0.3)
            np.testing.assert_allclose(out.forces.double().numpy(), forces, rtol=0, atol=bound * scale)
            energy = float(out.atomic_energies.double().sum())
            assert energy == pytest.approx(float(expected[f"{key}_energy"]), rel=bound)


def test_models_that_cannot_conserve_energy_need_a_word(tmp_path: Path) -> None:
    for name, cause in (("L2M2_direct", "direct forces"), ("v1_L2M2_no_envelope", "no envelope")):
        with pytest.raises(EquistrideError, match=f"{cause}.*--allow-nonconservative"):
            import_fairchem(FOLDER / f"{name}.pt", tmp_path / "no.pt")
        assert not (tmp_path / "no.pt").exists()
        metadata = import_fairchem(FOLDER / f"{name}.pt", tmp_path / "yes.pt", allow_nonconservative=True)
        assert not metadata.conservative
        assert cause in metadata.caveats[0]


@pytest.mark.parametrize(
    ("backbone", "sentence"),
    [
        ({"num_experts": 32}, "experts of the UMA model have been merged.*expected 32 experts; found one set"),
        ({"norm_type": "layer_norm_sh"}, "a norm that eSEN has not; expected rms_norm_sh"),
        ({"distance_function": "sigmoid"}, "not that of an eSEN .basis"),
        ({"mmax": 3}, "not that of an eSEN .its sizes.; expected .*m_max"),
        ({"num_layers": 3}, "lacks weights.*backbone.blocks.2"),
        ({"sphere_channels": 16}, "do not fit"),
        ({"chg_spin_emb_type": "other"}, "embedding of charge and spin is not known"),
    ],
)
def test_what_is_not_esen_is_refused(backbone: dict[str, Any], sentence: str) -> None:
    with pytest.raises(EquistrideError, match=sentence):
        potential_of(changed("L2M2_spectral", **backbone))


def test_routed_weights_are_refused_whatever_the_configuration_says() -> None:
    checkpoint = changed("L2M2_spectral")
    checkpoint.state["backbone.blocks.0.edge_wise.so2_conv_1.fc_m0.weights"] = torch.zeros(8, 2, 2)
    with pytest.raises(EquistrideError, match="experts that its configuration does not know"):
        potential_of(checkpoint)


def test_datasets_and_elements_are_checked() -> None:
    checkpoint = changed("L2M2_omol")
    with pytest.raises(EquistrideError, match="does not know the element Xe; expected elements from H to K"):
        potential_of(checkpoint, ["H", "Xe"])
    with pytest.raises(EquistrideError, match="the dataset is not known; expected omol; found spice"):
        potential_of(checkpoint, dataset="spice")
    checkpoint.datasets["omat"] = checkpoint.datasets["omol"]
    with pytest.raises(EquistrideError, match="several datasets; expected omol, omat; found no choice"):
        potential_of(checkpoint)
    del checkpoint.datasets["omat"]
    checkpoint.datasets["omol"].force_rmsd = 2.0
    with pytest.raises(EquistrideError, match="forces are not the gradient of its energy"):
        potential_of(checkpoint, dataset="omol")


def test_a_model_trained_by_denoising_keeps_its_bias() -> None:
    """Its backbone embeds forces; without any, the bias of that layer is added to the scalars of all atoms."""
    checkpoint = changed("v1_L3M2_bessel")
    before = potential_of(checkpoint)[0].network.embedding.weight
    bias = torch.linspace(-1, 1, 8)
    checkpoint.state |= {"backbone.force_embedding.weight": torch.zeros(4, 8, 1), "backbone.force_embedding.bias": bias}
    after = potential_of(checkpoint)[0].network.embedding.weight
    assert torch.allclose(after - before, bias.double().expand(19, 8), rtol=0, atol=1e-6)


class Trap:
    """Runs code where a file that holds it is unpickled carelessly."""

    ran = False

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return spring, ("boom",)


def spring(_: str) -> None:
    Trap.ran = True


def test_no_code_of_a_checkpoint_runs(tmp_path: Path) -> None:
    """Foreign functions and classes become inert objects, also where they hide among the weights."""
    content = torch.load(FOLDER / "v1_L2M2_gauss_grid.pt", weights_only=False)
    content["config"]["cmd"] = Trap()
    content["val_metrics"] = Trap()
    path = tmp_path / "trap.pt"
    torch.save(content, path)
    torch.load(path, weights_only=False)
    assert Trap.ran  # the trap works
    Trap.ran = False
    checkpoint = read_checkpoint(path)
    assert not Trap.ran
    potential_of(checkpoint)


def test_a_checkpoint_with_plain_dictionaries_is_read(tmp_path: Path) -> None:
    """fairchem pickles its own dataclass; what the configurations are made of is left to whoever saved them."""
    module = types.ModuleType("fairchem_like")

    class MLIPInferenceCheckpoint:
        pass

    MLIPInferenceCheckpoint.__module__, MLIPInferenceCheckpoint.__qualname__ = (
        "fairchem_like",
        "MLIPInferenceCheckpoint",
    )
    module.MLIPInferenceCheckpoint = MLIPInferenceCheckpoint
    original = read_checkpoint(FOLDER / "L2M2_spectral.pt")
    box = MLIPInferenceCheckpoint()
    energy = {
        "property": "energy",
        "datasets": ["omat"],
        "normalizer": {"mean": 0.0, "rmsd": 1.5},
        "element_references": None,
    }
    box.__dict__ |= {
        "model_config": {"backbone": original.backbone}, "model_state_dict": original.state, "ema_state_dict": None,
        "tasks_config": [energy],
    }  # fmt: skip
    sys.modules["fairchem_like"] = module
    try:
        torch.save(box, tmp_path / "plain.pt", pickle_module=pickle)
    finally:
        del sys.modules["fairchem_like"]
    potential, _ = potential_of(read_checkpoint(tmp_path / "plain.pt"))
    assert potential.scale == 1.5
    assert set(potential.references) == {0.0}


def test_other_files_are_refused_with_a_sentence(tmp_path: Path) -> None:
    runner = CliRunner()
    text, foreign = tmp_path / "notes.txt", tmp_path / "weights.pt"
    text.write_text("no checkpoint")
    torch.save({"weights": torch.zeros(3)}, foreign)
    for path, sentence in (
        (tmp_path / "none.pt", "does not exist"),
        (text, "is damaged or no file of this kind"),
        (
            foreign,
            "is not a checkpoint of fairchem-core; expected a model and its configuration; found the keys weights",
        ),
    ):
        result = runner.invoke(app, ["import", "fairchem", str(path), "-o", str(tmp_path / "out.pt")])
        assert isinstance(result.exception, EquistrideError)
        assert sentence in str(result.exception)


def test_the_command_says_what_it_wrote(tmp_path: Path) -> None:
    out = tmp_path / "out.pt"
    arguments = [
        "import",
        "fairchem",
        str(FOLDER / "L2M2_omol.pt"),
        "-o",
        str(out),
        "--elements",
        "H,C,O",
        "--charge",
        "1",
    ]
    result = CliRunner().invoke(app, [*arguments, "--spin", "2"])
    assert result.exit_code == 0, result.output
    assert "esen potential for 3 elements" in result.output
    assert "charge 1, spin 2" in result.output
    result = CliRunner().invoke(app, ["system", str(out), "-o", str(tmp_path / "anion.pt"), "--charge", "-1"])
    assert "charge -1, spin multiplicity 2" in result.output
