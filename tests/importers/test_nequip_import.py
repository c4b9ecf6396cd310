"""Import of NequIP's checkpoints and packages: its own numbers, and what must be refused.

``nequip-a`` was trained for two epochs (EMA, trainable roots, ZBL, both parities, a network for the read-out), ``nequip-b`` has
random weights, channels by degree, cutoffs by pair and everything by type; benchmarks/nequip_golden.py made the files.
"""

from __future__ import annotations

import copy
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase.data import chemical_symbols
from test_sevennet import largest_errors
from typer.testing import CliRunner

from equistride.artifact import load
from equistride.cli.main import app
from equistride.errors import EquistrideError
from equistride.importers.nequip import Checkpoint, import_nequip, potential_of, read_checkpoint
from equistride.models.serving import plain, serving

FOLDER = Path(__file__).resolve().parents[1] / "data" / "nequip"
STRUCTURES = {"nequip-a": ["alloy", "al8", "slab", "cluster"], "nequip-b": ["alloy", "cluster"]}


@pytest.mark.parametrize("name", ["nequip-a.ckpt", "nequip-a.nequip.zip", "nequip-b.ckpt"])
def test_numbers_are_those_of_nequip(name: str) -> None:
    """To rounding in float64; the averaged weights of a checkpoint are those of its package."""
    stem = name.partition(".")[0]
    golden = dict(np.load(FOLDER / f"{stem}.npz"))
    for structure in STRUCTURES[stem]:  # without a box NequIP gives no virial
        golden.setdefault(f"{structure}/virial", np.full((3, 3), np.nan))
    potential, _ = potential_of(read_checkpoint(FOLDER / name))
    for form in (potential, plain(potential), serving(potential, "float64")):
        errors = largest_errors(form, golden, STRUCTURES[stem])
        assert max(errors.values()) < 1e-12, errors
    errors = largest_errors(serving(potential, "float32"), golden, STRUCTURES[stem])
    assert 0 < errors["forces"] < 1e-5, errors  # of tables alone


def test_averaged_weights_are_not_the_last_ones() -> None:
    content = torch.load(FOLDER / "nequip-a.ckpt", weights_only=True)
    found = read_checkpoint(FOLDER / "nequip-a.ckpt").state
    last = {key.removeprefix("model.sole_model.model.func."): value for key, value in content["state_dict"].items()}
    key = "layer1_convnet.conv.linear_2.weight"
    assert torch.equal(found[key], content["state_dict"]["ema.ema_weight_11"])
    assert not torch.equal(found[key], last[key])
    assert torch.equal(found["per_type_energy_scale_shift.scales"], last["per_type_energy_scale_shift.scales"])


def test_a_whole_file_of_nequip_train(shared_data: Path) -> None:
    """As it was written, with optimiser and loops."""
    folder = shared_data / "golden-foreign"
    if not (folder / "nequip-a.ckpt").is_file():
        pytest.skip("no golden files of NequIP")
    potential, _ = potential_of(read_checkpoint(folder / "nequip-a.ckpt"))
    golden = dict(np.load(folder / "nequip-a.npz"))
    golden.setdefault("cluster/virial", np.full((3, 3), np.nan))
    errors = largest_errors(potential, golden, STRUCTURES["nequip-a"])
    assert max(errors.values()) < 1e-12, errors


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_artifact_computes_the_same(tmp_path: Path, dtype: str) -> None:
    golden, path = np.load(FOLDER / "nequip-a.npz"), tmp_path / "model.pt"
    metadata = import_nequip(FOLDER / "nequip-a.ckpt", path, dtype=dtype, licence="CC-BY-4.0")
    assert metadata.species == ["Al", "Au", "Cu"]
    assert metadata.architecture == "nequip"
    assert (metadata.message_passing_steps, metadata.interaction_range) == (3, 12.0)
    assert metadata.weights["program"] == "NequIP 0.19.1"
    assert metadata.limits.shortest_bond == (pytest.approx(0.2) if dtype == "float32" else None)
    model, bound = load(path), 1e-11 if dtype == "float64" else 2e-5
    for name in STRUCTURES["nequip-a"]:
        symbols = [chemical_symbols[z] for z in golden[f"{name}/numbers"]]
        out = model.compute(
            golden[f"{name}/positions"], model.species_index(symbols), golden[f"{name}/cell"], golden[f"{name}/pbc"]
        )
        np.testing.assert_allclose(out.atomic_energies.numpy(), golden[f"{name}/energies"], rtol=0, atol=bound)
        np.testing.assert_allclose(out.forces.numpy(), golden[f"{name}/forces"], rtol=0, atol=bound)


def test_some_elements_are_the_same_for_these() -> None:
    checkpoint = read_checkpoint(FOLDER / "nequip-b.ckpt")
    golden = np.load(FOLDER / "nequip-b.npz")
    whole, _ = potential_of(checkpoint)
    small, config = potential_of(checkpoint, ["Cu", "Au"])
    assert small.species == ["Au", "Cu"]
    assert config.pair_cutoffs == ((4.5, 4.5), (4.2, 4.5))
    positions = torch.tensor(golden["cluster/positions"])
    edges = torch.tensor([[0, 0, 1, 1, 2, 2], [1, 2, 0, 2, 0, 1]])
    vectors = positions[edges[1]] - positions[edges[0]]
    kinds = {model: torch.tensor([model.species.index(s) for s in ("Au", "Cu", "Cu")]) for model in (whole, small)}
    found = [model.atomic_energies(vectors, kinds[model], edges) for model in (whole, small)]
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-13)


def changed(name: str = "nequip-b.ckpt", **choices: Any) -> Checkpoint:
    """Return a checkpoint with other arguments of its builder."""
    whole = read_checkpoint(FOLDER / name)
    return Checkpoint(whole.config | choices, dict(whole.state), whole.data, whole.versions)


def test_fields_of_the_whole_system_are_chosen_at_import() -> None:
    """A level of theory, as models of several data sets have it: constant columns of the embedding."""
    fielded = changed(categorical_graph_field_embed=[{"field": "level", "num_features": 2, "min": 3, "max": 4}])
    table = torch.tensor([[0.5, 1.0], [-1.0, 2.0]])
    fielded.state["type_embed.categorical_graph_field_embed_modules.level.weight"] = table
    with pytest.raises(
        EquistrideError, match=r"a field whose value must be chosen, level; .* from 3 to 4; found none; choose"
    ):
        potential_of(fielded)
    with pytest.raises(EquistrideError, match="no such field; expected level; found charge"):
        potential_of(fielded, fields={"charge": 1})
    with pytest.raises(EquistrideError, match="do not fit the network"):  # its maps read five features, not seven
        potential_of(fielded, fields={"level": 4})


@pytest.mark.parametrize(
    ("choices", "reason"),
    [
        ({"convnet_nonlinearity_type": "norm"}, "another non-linearity than gates; expected gate; found norm"),
        ({"convnet_resnet": True}, "residual layers"),
        ({"convnet_nonlinearity_gates": {"e": "ssp", "o": "tanh"}}, "activations that the import does not know"),
        ({"pair_potential": {"_target_": "nequip.nn.pair_potential.LennardJones"}}, "expected ZBL; found LennardJones"),
        ({"pair_potential": {"_target_": "x.ZBL", "units": "real"}}, "energies in other units than eV"),
        ({"readout_mlp_hidden_layers_depth": 1, "readout_mlp_nonlinearity": "mish"}, r"does not know \(read-out\)"),
        ({"_target_": "nequip.model.PresetNequIPGNNModel", "preset": "XS"}, "a preset that the import does not know"),
        ({"num_layers": 4}, "do not fit the network; expected 1260 numbers; found 500"),
        ({"num_features": 9}, "do not fit the network"),
        ({"l_max": "two"}, "configuration cannot be read"),
        ({"type_names": ["a", "b", "c"]}, "elements of the model's types are not known; .* name them"),
        ({"avg_num_neighbors": None}, "by how many neighbours"),
    ],
)
def test_networks_of_other_kinds_are_refused(choices: dict[str, Any], reason: str) -> None:
    with pytest.raises(EquistrideError, match=reason) as refusal:
        potential_of(changed(**choices))
    assert "EquistrideError" not in str(refusal.value)  # one sentence, not one inside another


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("allegro.model.AllegroModel", "of an Allegro model"),
        ("nequip.model.ModelFromCheckpoint", r"made from another file \(ModelFromCheckpoint\)"),
        ("mace.Model", "a model that the import does not know; expected NequIPGNNModel .*; found mace.Model"),
    ],
)
def test_other_builders_are_refused_by_name(tmp_path: Path, target: str, reason: str) -> None:
    content = torch.load(FOLDER / "nequip-b.ckpt", weights_only=True)
    content["hyper_parameters"]["model"]["_target_"] = target
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(EquistrideError, match=reason):
        read_checkpoint(tmp_path / "other.ckpt")


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.ckpt"
    torch.save({"model": {}}, path)
    with pytest.raises(EquistrideError, match=r"not a checkpoint of NequIP; expected the keys .* found the keys model"):
        read_checkpoint(path)
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    with pytest.raises(EquistrideError, match="is a compiled model"):
        read_checkpoint(path)
    with zipfile.ZipFile(FOLDER / "nequip-a.nequip.zip") as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, b"a: [" if name.endswith("config.yaml") else old.read(name))
    with pytest.raises(EquistrideError, match="broken configuration"):
        read_checkpoint(path)
    averaged = torch.load(FOLDER / "nequip-a.ckpt", weights_only=True)
    averaged["state_dict"].pop("ema.ema_weight_20")
    torch.save(averaged, path)
    with pytest.raises(
        EquistrideError, match="averaged weights that do not fit its network; expected 21 tensors; found 20"
    ):
        read_checkpoint(path)


def test_old_symbols_of_a_package_follow_from_its_e3nn() -> None:
    """It does not hold them: paths such as (1, 2, 2) had the opposite sign before 0.5."""
    new, old = changed("nequip-a.nequip.zip"), changed("nequip-a.nequip.zip")
    old.versions = dict(old.versions) | {"e3nn": "0.4.4"}
    weights = [
        potential_of(copy.deepcopy(c))[0].network.layers[1].messages.network.layers[-1].weight for c in (new, old)
    ]
    assert torch.equal(weights[0].abs(), weights[1].abs())
    assert not torch.equal(weights[0], weights[1])


def test_the_command(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    arguments = [
        "import",
        "nequip",
        str(FOLDER / "nequip-b.ckpt"),
        "-o",
        str(path),
        "--elements",
        "Cu",
        "--species",
        "Al,Au,Cu",
    ]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "nequip potential for 1 elements" in result.output
    assert "licence: not stated in the file; ask its authors" in result.output
    assert load(path).metadata.species == ["Cu"]
