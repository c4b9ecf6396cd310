"""Import of checkpoints of IBM/trajcast: their YAML and state dict, written with e3nn or cuEquivariance.

Both back ends keep their trained weights under the same keys and in the same order (checked against cuequivariance 0.1.0, the
version that upstream pins); they differ in features' layout and in tables, neither of which is read here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from ase.data import atomic_masses, atomic_numbers, chemical_symbols
from pydantic import ValidationError
from torch import Tensor

from equistride.artifact.metadata import Container, Metadata
from equistride.artifact.propagators import save_propagator
from equistride.errors import EquistrideError, not_valid
from equistride.importers.foreign import kind_of, read_file
from equistride.models.propagator import Propagator
from equistride.models.trajcast import TrajCast, TrajCastConfig

SIZES = {
    "edge_cutoff": "cutoff",
    "vel_max": "max_speed",
    "num_mp_layers": "num_layers",
    "max_rotation_order": "l_max",
    "num_hidden_channels": "channels",
    "num_edge_rbf": "num_radial",
    "num_vel_rbf": "num_speed",
    "num_edge_poly_cutoff": "envelope_exponent",
}
"""Keys of upstream's YAML and ours."""
GATES = {"activation_scalars": {"o": "tanh", "e": "silu"}, "activation_gates": {"e": "silu"}}


def read_yaml(path: Path) -> tuple[dict[str, Any], dict[int, int]]:
    """Return the part of upstream's YAML that describes the model, and its table from atomic number to species index.

    Raises
    ------
    EquistrideError
        Where the file is missing, no YAML, or lacks what an EfficientTrajCast model needs.
    """
    path = Path(path)
    if not path.is_file():
        raise EquistrideError(f"the configuration {path} does not exist", hint="give upstream's YAML file")
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise EquistrideError(f"{path} cannot be read as YAML ({str(error).splitlines()[0]})") from None
    if not isinstance(content, dict):
        raise EquistrideError(
            f"{path} is not a configuration of TrajCast", expected="a table of keys", found=type(content).__name__
        )
    model = content.get("model", content)
    missing = [key for key in (*SIZES, "num_chem_elements") if not isinstance(model, dict) or key not in model]
    if missing:
        raise EquistrideError(
            f"{path} is not a configuration of an EfficientTrajCast model",
            expected=f"the key {missing[0]}",
            found=", ".join(map(str, model)) if isinstance(model, dict) else type(model).__name__,
            hint="give the YAML file that belongs to the weights",
        )
    data = content.get("data")
    mapper = data.get("atom_type_mapper") if isinstance(data, dict) else None
    return model, {int(k): int(v) for k, v in (mapper or {}).items()}


def read_state(path: Path) -> dict[str, Tensor]:
    """Return upstream's state dict: tensors alone, no code runs; a training checkpoint's ``model`` is taken.

    Raises
    ------
    EquistrideError
        Where the file is missing, no such file, or a pickled model.
    """
    hint = "save model.state_dict() with upstream's code and import that"
    state = read_file(path, hint)
    for key in ("model", "state_dict"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise EquistrideError(
            f"{path} is not a state dict", expected="tensors by name", found=kind_of(state), hint=hint
        )
    return {str(key).removeprefix("module."): value for key, value in state.items()}


def read_config(model: Mapping[str, Any], state: Mapping[str, Tensor]) -> TrajCastConfig:
    """Return our configuration of upstream's ``model``; the weights say by how many neighbours sums are divided.

    Raises
    ------
    EquistrideError
        For an option that changes the network and that we do not have.
    """
    gates = model.get("nl_gate_kwargs", GATES)
    activations = [{**GATES, **gates}[key] for key in GATES]
    networks = [model.get(key) or {} for key in ("edge_mlp_kwargs", "vel_mlp_kwargs")]
    if activations != list(GATES.values()) or any(network.get("activation", "silu") != "silu" for network in networks):
        raise EquistrideError(
            "the checkpoint has activations that the import does not know", expected="silu, and tanh for odd scalars",
            found=f"{activations}, {[n.get('activation') for n in networks]}", hint="no other way: train the model anew",
        )  # fmt: skip
    if model.get("units", "real") != "real":
        raise EquistrideError("the checkpoint is in units that the import does not know", expected="real (A, fs)",
                              found=model["units"])  # fmt: skip
    neighbours = state.get("avg_num_neighbors", torch.tensor(float(model.get("avg_num_neighbors", 10.0))))
    values: dict[str, Any] = {ours: model[theirs] for theirs, ours in SIZES.items()}
    try:
        return TrajCastConfig(
            **values,
            avg_num_neighbors=float(neighbours),
            radial_widths=tuple(networks[0].get("n_neurons", ())),
            speed_widths=tuple(networks[1].get("n_neurons", ())),
        )
    except ValidationError as error:
        raise not_valid("the configuration's network is not valid", error) from None


def upstream_keys(config: TrajCastConfig) -> dict[str, str]:
    """Return the name in upstream's state dict of each parameter of a complete :class:`TrajCast`."""
    names = {
        "lengths.roots": "_encoding.EdgeLengthEncoding.radial_basis.bessel_roots",
        "speeds.mix": "_encoding.VelocityNormEncoding.element_tp.weight",
        "start.weight": "_int_out.LinearInit.linear.weight",
        "compression.weight": "_int_out.LinearCompression.linear.weight",
        "readout.weight": "_int_out.LinearReadOut.linear.weight",
    }
    for k in range(config.num_layers):
        ours, theirs = f"layers.{k}.", f"_int_out.mp_layer_{k}."
        names[ours + "contraction.weight"] = theirs + "linear_contraction.weight"
        names[ours + "update.weight"] = theirs + "linear_updates.weight"
        names[ours + "residual.weight"] = theirs + "tp_resnet.weight"
        for i in range(len(config.radial_widths) + 1):
            names[f"{ours}messages.network.layers.{i}.weight"] = f"{theirs}edge_mlp.layer{i}.weight"
        for i in range(len(config.speed_widths) + 1):
            names[f"{ours}speed_network.layers.{i}.weight"] = f"{theirs}vel_mlp.layer{i}.weight"
    return names


def build_network(config: TrajCastConfig, num_species: int, state: Mapping[str, Tensor]) -> TrajCast:
    """Return the complete network with upstream's weights, in double precision.

    Raises
    ------
    EquistrideError
        Where weights are missing, left over, of another size, or not finite.
    """
    network = TrajCast(config, num_species, complete=True).double()
    names = upstream_keys(config)
    hint = "give the YAML file that belongs to these weights"
    trained = {key for key, value in state.items() if key.endswith((".weight", ".bias")) and value.numel() > 0}
    missing, unknown = sorted(set(names.values()) - set(state)), sorted(trained - set(names.values()))
    if missing or unknown:
        raise EquistrideError(
            "the weights do not fit the configuration",
            expected=f"{missing[0]}" if missing else "no other weights",
            found="none" if missing else unknown[0],
            hint=hint,
        )
    own = network.state_dict()
    for ours, theirs in names.items():
        if state[theirs].numel() != own[ours].numel():
            raise EquistrideError(
                f"the weights {theirs} do not fit the configuration", expected=f"{own[ours].numel()} numbers",
                found=state[theirs].numel(), hint=hint,
            )  # fmt: skip
        if not bool(torch.isfinite(state[theirs]).all()):
            raise EquistrideError(
                f"the weights {theirs} are not finite", hint="the training diverged: give an earlier file"
            )
    network.load_state_dict({ours: state[theirs].reshape(own[ours].shape) for ours, theirs in names.items()})
    return network


def read_trajcast(
    config: Path, state: Path, *, stride_fs: float, species: Sequence[str] = (), masses: Sequence[float] = ()
) -> Propagator:
    """Read upstream's files as a propagator with the complete network, in double precision.

    Parameters
    ----------
    config, state
        Upstream's YAML (of the model or of the training run) and state dict.
    stride_fs
        The stride of its training data [fs]; upstream does not store it.
    species
        Element symbols in the order of the species index; from the YAML's ``atom_type_mapper`` where left out.
    masses
        Masses of the training data [amu], one an element; standard atomic weights where left out.

    Raises
    ------
    EquistrideError
        Where the files cannot be read, do not fit each other, or elements are missing.
    """
    model, mapper = read_yaml(config)
    weights = read_state(state)
    settings = read_config(model, weights)
    count = int(model["num_chem_elements"])
    symbols = list(species) or [chemical_symbols[z] for z in sorted(mapper, key=lambda z: mapper[z])]
    if len(symbols) != count or len(set(symbols)) != count or not set(symbols) <= set(chemical_symbols[1:]):
        raise EquistrideError(
            "the elements of the model are not known", expected=f"{count} different symbols in the order of its training",
            found=", ".join(symbols) or "none", hint="name them, as in --species O,Si",
        )  # fmt: skip
    if masses and len(masses) != count:
        raise EquistrideError("each element needs one mass", expected=count, found=len(masses))
    network = build_network(settings, count, weights)
    scales = weights.get("rms_targets", torch.as_tensor(model.get("rms_targets", [])))
    if scales.numel() != 2:
        raise EquistrideError(
            "the weights have no scale of the outputs",
            expected="rms_targets with 2 numbers",
            found=f"{scales.numel()} numbers",
            hint="save the state dict of the model that was trained",
        )
    rms = [float(value) for value in scales.double().flatten()]
    return Propagator(
        network,
        symbols,
        [float(m) for m in masses] or [float(atomic_masses[atomic_numbers[s]]) for s in symbols],
        settings.cutoff,
        stride_fs,
        (rms[0], rms[1]),
        keep_spin=bool(model.get("conserve_ang_mom", False)),
    )


def import_trajcast(
    config: Path, state: Path, output: Path, *, stride_fs: float, species: Sequence[str] = (), masses: Sequence[float] = (),
    dtype: str = "float32", tables: float | None = None, description: str = "", licence: str = "",
    container: Container = "torchscript",
) -> Metadata:  # fmt: skip
    """Turn a checkpoint of IBM/trajcast into an artifact; arguments of :func:`read_trajcast` and ``save_propagator``.

    A model that does not conserve angular momentum was trained on periodic systems, and is refused elsewhere.
    """
    propagator = read_trajcast(config, state, stride_fs=stride_fs, species=species, masses=masses)
    provenance = {
        "imported_from": "IBM/trajcast",
        "config_sha256": hashlib.sha256(Path(config).read_bytes()).hexdigest(),
        "weights_sha256": hashlib.sha256(Path(state).read_bytes()).hexdigest(),
    }
    return save_propagator(
        propagator, output, dtype=dtype, tables=tables, periodic=not propagator.keep_spin, licence=licence,
        description=description or f"TrajCast for {', '.join(propagator.species)}, {stride_fs:g} fs a stride",
        provenance=provenance, container=container,
    )  # fmt: skip
