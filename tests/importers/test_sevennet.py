"""Import of SevenNet's checkpoints: its own numbers, and what must be refused.

Networks in tests/data/nequip have random weights; benchmarks/nequip_golden.py made them with sevenn 0.13.0. Released potentials
are tried where ``sevenn`` is installed.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase.data import chemical_symbols
from random_models import graph_of
from typer.testing import CliRunner

from equistride.artifact import load
from equistride.cli.main import app
from equistride.errors import EquistrideError
from equistride.graph import neighbor_list
from equistride.importers.sevennet import (
    RELEASED,
    Checkpoint,
    find_checkpoint,
    import_sevennet,
    potential_of,
    read_checkpoint,
)
from equistride.models.potential import ConservativePotential
from equistride.models.serving import plain, serving

FOLDER = Path(__file__).resolve().parents[1] / "data" / "nequip"
SMALL = FOLDER / "sevennet-c.pth"
STRUCTURES = ["copper", "ethanol", "nacl", "water"]
INSTALLED = {"7net-0": "", "7net-0_22may2024": "", "7net-l3i5": "", "7net-mf-0": "PBE"}


def changed(**choices: Any) -> Checkpoint:
    """Return the small checkpoint with other choices in its configuration."""
    whole = read_checkpoint(SMALL)
    return Checkpoint(whole.config | choices, whole.state)


def largest_errors(potential: ConservativePotential, golden: Any, names: list[str]) -> dict[str, float]:
    """Return the largest deviations of atomic energies [eV], forces [eV/A] and virials [eV]."""
    worst = {"energies": 0.0, "forces": 0.0, "virial": 0.0}
    for name in names:
        positions, cell = torch.tensor(golden[f"{name}/positions"]), torch.tensor(golden[f"{name}/cell"])
        symbols = [chemical_symbols[z] for z in golden[f"{name}/numbers"]]
        species = torch.tensor([potential.species.index(s) for s in symbols])
        pbc = torch.tensor(golden[f"{name}/pbc"])
        outputs = potential(positions, species, cell, *neighbor_list(positions, cell, pbc, potential.cutoff))
        for key, found in zip(worst, outputs, strict=True):
            worst[key] = max(worst[key], float(np.abs(found.numpy() - golden[f"{name}/{key}"]).max()))
    return worst


@pytest.mark.parametrize("name", ["sevennet-c", "sevennet-d"])
def test_numbers_are_those_of_sevennet(name: str) -> None:
    """Both parities, self-connections, biases, irreps inferred, XPLOR, a network for the read-out; to rounding in float64."""
    potential, _ = potential_of(read_checkpoint(FOLDER / f"{name}.pth"))
    for form in (potential, plain(potential), serving(potential, "float64")):
        errors = largest_errors(form, np.load(FOLDER / f"{name}.npz"), STRUCTURES)
        assert max(errors.values()) < 1e-12, errors


def test_tables_have_a_break_where_xplor_begins() -> None:
    """Without it a spline cannot follow: its error would stay at 1e-5 of the largest force."""
    potential, config = potential_of(read_checkpoint(FOLDER / "sevennet-d.pth"))
    assert config.switch == 4.0
    served = serving(potential, "float32").double()
    for layer in served.network.layers:
        table = layer.messages.convolution.table
        assert table.kink == 4.0
        assert abs((table.kink - table.start) / table.step % 1 - 0.5) > 0.5 - 1e-9  # it is a knot
    errors = largest_errors(served, np.load(FOLDER / "sevennet-d.npz"), STRUCTURES)
    assert errors["forces"] < 5e-6, errors


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "7net-l3i5" else name for name in INSTALLED]
)
def test_released_potentials(name: str, shared_data: Path) -> None:
    """Old and new 3j symbols, XPLOR, harmonics with lengths, modals."""
    path = installed(name)
    modal = INSTALLED[name]
    potential, _ = potential_of(read_checkpoint(path), modal=modal)
    stem = {"7net-0": "7net-0_11jul2024"}.get(name, name) + (f"-{modal}" if modal else "")
    golden = np.load(shared_data / "golden-foreign" / f"{stem}.npz")
    names = sorted({key.partition("/")[0] for key in golden})
    errors = largest_errors(potential, golden, names)
    assert max(errors.values()) < 1e-11, errors  # energies of some 10 eV leave 1e-14 of themselves
    assert len(potential.species) == 89


def installed(name: str) -> Path:
    path = find_checkpoint_or_none(name)
    if path is None:
        pytest.skip("sevenn is not installed (pip install --no-deps sevenn)")
    return path


def find_checkpoint_or_none(name: str) -> Path | None:
    try:
        return find_checkpoint(name)
    except EquistrideError:
        return None


def test_the_artifact_computes_the_same(tmp_path: Path) -> None:
    golden = np.load(SMALL.with_suffix(".npz"))
    path = tmp_path / "model.pt"
    metadata = import_sevennet(SMALL, path, elements=["Cl", "Na"], dtype="float64", licence="MIT")
    assert metadata.species == ["Na", "Cl"]
    assert metadata.message_passing_steps == 3
    assert metadata.capabilities.decomposable
    assert metadata.capabilities.padded
    assert metadata.weights["licence"] == "MIT"
    assert metadata.weights["program"] == "SevenNet 0.13.0"
    model = load(path)
    symbols = [chemical_symbols[z] for z in golden["nacl/numbers"]]
    out = model.compute(golden["nacl/positions"], model.species_index(symbols), golden["nacl/cell"], True)
    np.testing.assert_allclose(out.atomic_energies.numpy(), golden["nacl/energies"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(out.forces.numpy(), golden["nacl/forces"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(out.virial.numpy(), golden["nacl/virial"], rtol=0, atol=1e-11)


def test_served_in_float32_from_tables(tmp_path: Path) -> None:
    """2e-5 eV/A: rounding and tables together."""
    golden = np.load(SMALL.with_suffix(".npz"))
    metadata = import_sevennet(SMALL, tmp_path / "model.pt", dtype="float32")
    assert metadata.fused
    assert metadata.spline_error is not None
    assert 0 < metadata.spline_error < 1e-6
    assert metadata.limits.shortest_bond == pytest.approx(0.2)
    model = load(tmp_path / "model.pt")
    for name in STRUCTURES:
        symbols = [chemical_symbols[z] for z in golden[f"{name}/numbers"]]
        out = model.compute(
            golden[f"{name}/positions"], model.species_index(symbols), golden[f"{name}/cell"], golden[f"{name}/pbc"]
        )
        np.testing.assert_allclose(out.forces.numpy(), golden[f"{name}/forces"], rtol=0, atol=2e-5)


def modal_checkpoint() -> Checkpoint:
    """Return the small checkpoint made to read two modals everywhere, with weights of its own for them."""
    generator = torch.Generator().manual_seed(1)
    flags = dict.fromkeys(
        (
            "use_modal_node_embedding",
            "use_modal_self_inter_intro",
            "use_modal_self_inter_outro",
            "use_modal_output_block",
        ),
        True,
    )
    made = changed(
        use_modality=True, _modal_map={"A": 0, "B": 1}, use_modal_wise_shift=True, use_modal_wise_scale=False, **flags
    )
    for key in list(made.state):
        if key.endswith(("onehot_to_feature_x.linear.weight", "reduce_input_to_hidden.linear.weight")):
            width = 6 if "onehot" in key else 3
        elif key.endswith(("self_interaction_1.linear.weight", "self_interaction_2.linear.weight")):
            width = made.state[key.replace("weight", "bias")].numel()
        else:
            continue
        made.state[key] = torch.cat([made.state[key], torch.randn(2 * width, generator=generator)])
    shift = made.state["rescale_atomic_energy.shift"]
    made.state["rescale_atomic_energy.shift"] = torch.stack([shift, shift + 1.0])
    return made


def test_a_modal_is_chosen_at_import() -> None:
    made = modal_checkpoint()
    golden = np.load(SMALL.with_suffix(".npz"))
    energies = []
    for modal in "AB":
        potential, config = potential_of(made, modal=modal)
        assert config.bias
        positions = torch.tensor(golden["water/positions"])
        species = torch.tensor([potential.species.index(chemical_symbols[z]) for z in golden["water/numbers"]])
        energies.append(potential(*graph_of(positions, species, None, potential.cutoff))[0])
    difference = (energies[1] - energies[0]).numpy()
    assert np.all(np.abs(difference - 1.0) > 1e-4)  # of the shift, and of the weights that read the modal
    with pytest.raises(
        EquistrideError, match="trained on several sets of labels; expected A, B; found no choice; choose"
    ):
        potential_of(made)
    with pytest.raises(EquistrideError, match="does not know this modal; expected A, B; found C"):
        potential_of(made, modal="C")
    with pytest.raises(EquistrideError, match="the checkpoint has no modals"):
        potential_of(changed(), modal="A")


def test_the_opposite_sign_of_old_symbols_is_seen() -> None:
    """The same network, as an e3nn before 0.5 would have written it."""
    old = read_checkpoint(SMALL)
    expected, _ = potential_of(copy.deepcopy(old))
    for key in [k for k in old.state if k.endswith(("_w3j_1_1_1", "_w3j_1_2_2", "_w3j_2_2_1"))]:
        old.state[key] = -old.state[key]
    flipped, _ = potential_of(old)
    weights = [p.network.layers[1].messages.network.layers[-1].weight for p in (expected, flipped)]
    assert torch.equal(weights[0].abs(), weights[1].abs())
    assert not torch.equal(weights[0], weights[1])
    key = "1_convolution.convolution._compiled_main_left_right._w3j_1_1_1"
    old.state[key] = old.state[key] + 0.1
    with pytest.raises(EquistrideError, match="not those of e3nn"):
        potential_of(old)


@pytest.mark.parametrize(
    ("choices", "reason"),
    [
        ({"_model_type": "D3"}, "another kind of model"),
        ({"interaction_type": "mace"}, "an interaction that the import does not know; expected nequip; found mace"),
        ({"act_gate": {"e": "ssp", "o": "tanh"}}, "activations that the import does not know"),
        ({"act_radial": "ssp"}, "an activation that the import does not know"),
        ({"radial_basis": {"radial_basis_name": "chebyshev"}}, "a radial basis that the import does not know"),
        ({"cutoff_function": {"cutoff_function_name": "cos"}}, "an envelope that the import does not know"),
        ({"self_connection_type": "MACE"}, "a self-connection that SevenNet does not have"),
        ({"readout_as_fcn": True, "readout_fcn_activation": "mish"}, "readout_activation"),
        ({"num_convolution_layer": 2}, "weights that the import does not know"),
        ({"num_convolution_layer": 4}, "do not fit the network; expected 1404 numbers; found 108"),
        ({"channel": 7}, "do not fit the network; expected .* numbers; found"),
        ({"lmax": "many"}, "configuration cannot be read"),
        ({"lmax": 9}, "l_max"),
        ({"_type_map": {}}, "no table of elements"),
    ],
)
def test_networks_of_other_kinds_are_refused(choices: dict[str, Any], reason: str) -> None:
    with pytest.raises(EquistrideError, match=reason):
        potential_of(changed(**choices))


def test_weights_that_are_unknown_or_not_finite_are_refused() -> None:
    left = changed()
    left.state["d3.coefficients"] = torch.ones(3)
    with pytest.raises(EquistrideError, match=r"weights that the import does not know; .* found d3\.coefficients"):
        potential_of(left)
    broken = changed()
    broken.state["0_self_interaction_1.linear.weight"] = torch.full((36,), torch.nan)
    with pytest.raises(EquistrideError, match="not finite"):
        potential_of(broken)
    with pytest.raises(EquistrideError, match="does not know the element Xe; expected H, C"):
        potential_of(changed(), ["O", "Xe"])


def test_leftovers_of_other_kernels_are_no_weights() -> None:
    """A run with cuEquivariance leaves tables and no 3j symbols."""
    foreign = changed()
    expected, _ = potential_of(changed())
    for key in [k for k in foreign.state if "_w3j_" in k]:
        foreign.state.pop(key)
    early = Checkpoint(foreign.config | {"version": "0.10.1"}, dict(foreign.state))
    with pytest.raises(EquistrideError, match="no 3j symbols, whose signs early versions chose otherwise"):
        potential_of(early)
    foreign.state["1_convolution.convolution.f.tp.f_fx.module.c0"] = torch.ones(3)
    foreign.state["1_self_interaction_1.linear.weight"] = foreign.state["1_self_interaction_1.linear.weight"][None]
    found, _ = potential_of(foreign)
    assert all(
        torch.equal(a, b) for a, b in zip(expected.state_dict().values(), found.state_dict().values(), strict=True)
    )


def test_the_command_says_where_the_weights_come_from(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    arguments = ["import", "sevennet", str(SMALL), "-o", str(path), "--elements", "Cu", "--licence", "MIT"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "nequip potential for 1 elements" in result.output
    assert "weights: SevenNet 0.13.0, sevennet-c.pth; licence: MIT" in result.output


def test_names_are_looked_for_and_nothing_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "sevenn"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    target = package / "pretrained_potentials" / RELEASED["0"]
    target.parent.mkdir(parents=True)
    target.write_bytes(SMALL.read_bytes())
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_checkpoint("7net-0") == target
    assert find_checkpoint("SevenNet-0_11Jul2024") == target
    assert find_checkpoint("a/file.pth") == Path("a/file.pth")
    with pytest.raises(EquistrideError, match="7net-omat is not on this machine; expected the file"):
        find_checkpoint("7net-omat")
    with pytest.raises(EquistrideError, match="7net-l3i5 is not on this machine; expected an installed sevenn"):
        find_checkpoint("7net-l3i5")


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save({"state_dict": {}}, path)
    with pytest.raises(
        EquistrideError, match=r"not a checkpoint of SevenNet; expected the keys .* found the keys state_dict"
    ):
        read_checkpoint(path)
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(EquistrideError, match=r"found torch\.nn\.modules\.linear\.Linear"):
        read_checkpoint(path)
