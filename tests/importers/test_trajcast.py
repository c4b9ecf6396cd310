"""What ``equistride import trajcast`` takes and what it refuses, with upstream's files written from a network of ours."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from ase.data import atomic_masses
from torch import Tensor
from trajcast_systems import CUTOFF, STRIDE, config, crystal, propagator

from equistride.artifact import load
from equistride.errors import EquistrideError
from equistride.importers.trajcast import SIZES, import_trajcast, read_trajcast, upstream_keys
from equistride.models.trajcast import TrajCast

OWN = config(channels=4, radial_widths=(8, 8), speed_widths=(8, 8))


def theirs() -> tuple[dict[str, Any], dict[str, Tensor], TrajCast]:
    """Return a configuration and a state dict in upstream's form, and the network that they describe."""
    torch.manual_seed(2)
    network = TrajCast(OWN, 2, complete=True).double()
    settings: dict[str, Any] = {key: getattr(OWN, ours) for key, ours in SIZES.items()}
    settings |= {
        "num_chem_elements": 2, "conserve_ang_mom": False, "net_lin_mom": [0.0, 0.0, 0.0], "avg_num_neighbors": 10.0,
        "edge_mlp_kwargs": {"n_neurons": list(OWN.radial_widths), "activation": "silu"},
        "vel_mlp_kwargs": {"n_neurons": list(OWN.speed_widths), "activation": "silu"},
        "nl_gate_kwargs": {"activation_scalars": {"o": "tanh", "e": "silu"}, "activation_gates": {"e": "silu"}},
    }  # fmt: skip
    own = network.state_dict()
    state = {key: own[ours].flatten().clone() for ours, key in upstream_keys(OWN).items()}
    state |= {
        "rms_targets": torch.tensor([0.1, 0.006]), "mean_targets": torch.zeros(2), "avg_num_neighbors": torch.tensor(12.0),
        "_int_out.LinearInit.linear.bias": torch.zeros(0), "_int_out.mp_layer_0.tp_resnet.output_mask": torch.ones(36),
    }  # fmt: skip
    return settings, state, network


def written(folder: Path, settings: object, state: object) -> tuple[Path, Path]:
    """Write the two files."""
    paths = folder / "config.yaml", folder / "state.pt"
    paths[0].write_text(yaml.safe_dump(settings))
    torch.save(state, paths[1])
    return paths


@pytest.mark.parametrize("whole_run", [False, True], ids=["model", "training run"])
def test_a_round_trip_through_upstreams_files(tmp_path: Path, whole_run: bool) -> None:
    settings, state, network = theirs()
    files = written(tmp_path, settings, state)
    elements = {"species": ["O", "Si"]}
    if whole_run:
        mapper = {8: 0, 14: 1}
        files = written(
            tmp_path,
            {"model": settings, "data": {"atom_type_mapper": mapper}},
            {"model": state, "optimizer": {"lr": 0.1}},
        )
        elements = {}
    read = read_trajcast(*files, stride_fs=STRIDE, **elements)
    assert read.network.config == OWN
    assert read.species == ["O", "Si"]
    assert read.masses == [float(atomic_masses[z]) for z in (8, 14)]
    assert (read.rms_displacement, read.rms_velocity) == pytest.approx((0.1, 0.006), rel=1e-7)
    assert read.stride_fs == STRIDE
    frame = crystal()
    expected = network.requires_grad_(False)
    vectors = (
        frame.positions[frame.edge_index[1]] - frame.positions[frame.edge_index[0]] + frame.shifts.double() @ frame.cell
    )
    arguments = (vectors, frame.velocities, frame.species, frame.edge_index)
    assert torch.equal(read.network(*arguments), expected(*arguments))


def test_weights_of_cuequivariance_in_either_shape(tmp_path: Path) -> None:
    """Later versions store a linear's weights as one row."""
    settings, state, network = theirs()
    rows = {k: v[None] if "linear" in k and v.numel() else v for k, v in state.items()}
    tables = {"_int_out.LinearInit.linear.f.tp.f_fx.module.c0": torch.ones(3)}
    files = written(tmp_path, settings | {"o3_backend": "cueq"}, rows | tables)
    read = read_trajcast(*files, stride_fs=STRIDE, species=["O", "Si"])
    own = network.state_dict()
    assert all(torch.equal(value, own[key]) for key, value in read.network.state_dict().items())


def test_metadata_says_where_it_came_from(tmp_path: Path) -> None:
    settings, state, _ = theirs()
    files = written(tmp_path, settings, state)
    path = tmp_path / "out.pt"
    metadata = import_trajcast(
        *files, path, stride_fs=30.0, species=["O", "Si"], masses=[16.0, 28.0], licence="Apache-2.0", tables=1e-5
    )
    assert load(path).metadata == metadata
    assert metadata.masses == [16.0, 28.0]
    assert metadata.periodic == "required"  # it conserves no angular momentum: a model of a crystal
    assert metadata.provenance["imported_from"] == "IBM/trajcast"
    assert metadata.licence == "Apache-2.0"
    assert (metadata.cutoff, metadata.message_passing_steps, metadata.interaction_range) == (CUTOFF, 2, 2 * CUTOFF)


def without(key: str) -> dict[str, Any]:
    return {k: v for k, v in theirs()[0].items() if k != key}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (without("vel_max"), "not a configuration of an EfficientTrajCast model; expected the key vel_max"),
        (["a", "list"], "expected a table of keys; found list"),
        (theirs()[0] | {"max_rotation_order": 9}, "not valid .l_max"),
        (theirs()[0] | {"num_hidden_channels": "many"}, "not valid .channels"),
        (theirs()[0] | {"units": "metal"}, "in units that the import does not know; expected real"),
        (
            theirs()[0] | {"edge_mlp_kwargs": {"n_neurons": [8, 8], "activation": "relu"}},
            "activations that the import does not know",
        ),
        (theirs()[0] | {"num_mp_layers": 3}, "do not fit the configuration; expected _int_out.mp_layer_2"),
        (theirs()[0] | {"num_mp_layers": 1}, "do not fit the configuration; expected no other weights"),
        (theirs()[0] | {"num_hidden_channels": 8}, "do not fit the configuration; expected .* numbers; found"),
    ],
)
def test_configurations_that_do_not_fit_are_refused(tmp_path: Path, settings: object, message: str) -> None:
    files = written(tmp_path, settings, theirs()[1])
    with pytest.raises(EquistrideError, match=message):
        read_trajcast(*files, stride_fs=STRIDE, species=["O", "Si"])


@pytest.mark.parametrize(
    ("species", "masses", "message"),
    [
        ([], [], "elements of the model are not known; expected 2 different symbols .* found none"),
        (["O"], [], "found O;"),
        (["O", "O"], [], "found O, O;"),
        (["O", "Xx"], [], "found O, Xx;"),
        (["O", "Si"], [16.0], "one mass; expected 2; found 1"),
        (["O", "Si"], [16.0, -1.0], "needs a mass above 0"),
    ],
)
def test_elements_must_be_known(tmp_path: Path, species: list[str], masses: list[float], message: str) -> None:
    settings, state, _ = theirs()
    with pytest.raises(EquistrideError, match=message):
        read_trajcast(*written(tmp_path, settings, state), stride_fs=STRIDE, species=species, masses=masses)


class Trap:
    """Whose unpickling would run code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("trapped"),))


def test_weights_that_cannot_be_read_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings, state, _ = theirs()
    files = written(tmp_path, settings, state)

    def message() -> str:
        with pytest.raises(EquistrideError) as caught:
            read_trajcast(*files, stride_fs=STRIDE, species=["O", "Si"])
        return str(caught.value)

    torch.save({"model": Trap()}, files[1])
    assert "is not a state dict; expected tensors by name; found the keys model" in message()
    assert not Path("trapped").exists()
    files[1].write_bytes(pickle.dumps(state, protocol=2)[:500])
    assert "is damaged or no file of this kind" in message()
    torch.save([1, 2], files[1])
    assert "is not a state dict; expected tensors by name; found list" in message()
    torch.save(state | {"_int_out.LinearReadOut.linear.weight": torch.full((2,), math.nan)}, files[1])
    assert "LinearReadOut.linear.weight are not finite" in message()
    torch.save({k: v for k, v in state.items() if k != "rms_targets"}, files[1])
    assert "no scale of the outputs" in message()
    files[1].unlink()
    assert "does not exist" in message()
    files[0].write_text("model: {edge_cutoff: [")
    assert "cannot be read as YAML" in message()
    files[0].unlink()
    assert "does not exist" in message()


def test_the_command(tmp_path: Path) -> None:
    settings, state, _ = theirs()
    files = written(tmp_path, settings, state)
    command = [
        sys.executable,
        "-m",
        "equistride.cli.main",
        "import",
        "trajcast",
        *map(str, files),
        "-o",
        str(tmp_path / "out.pt"),
    ]

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *more], capture_output=True, text=True, timeout=300, check=False)

    done = run("--stride", "30", "--species", "O,Si", "--masses", "15.999,28.085", "--dtype", "float64")
    assert done.returncode == 0, done.stderr
    assert "trajcast propagator of 30 fs for O, Si" in done.stdout
    model = load(tmp_path / "out.pt")
    frame = crystal()
    stride = model.propagate(frame.positions, frame.velocities, frame.species, frame.cell, True)
    assert stride.displacements.shape == (27, 3)
    wrong = {
        "elements of the model are not known": ["--stride", "30"],
        "stride above 0": ["--stride", "-1", "--species", "O,Si"],
        "masses must be numbers": ["--stride", "30", "--species", "O,Si", "--masses", "a,b"],
    }
    for expected, more in wrong.items():
        refused = run(*more)
        assert refused.returncode == 2
        assert refused.stderr.startswith("equistride: ")
        assert expected in refused.stderr
        assert "Traceback" not in refused.stderr


def test_a_propagator_of_ours_is_not_upstreams(tmp_path: Path) -> None:
    settings, _, _ = theirs()
    with pytest.raises(EquistrideError, match="do not fit the configuration; expected _encoding"):
        read_trajcast(*written(tmp_path, settings, propagator().state_dict()), stride_fs=STRIDE, species=["O", "Si"])
