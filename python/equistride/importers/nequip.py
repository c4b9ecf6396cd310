"""Import of NequIP's networks (MIT; arXiv 2101.03164), versions 0.13 and later: Lightning checkpoints and packages (.nequip.zip).

A checkpoint's averaged weights are taken where it has some, as NequIP itself does. A package brings along NequIP's own source,
which is not run.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
import yaml
from ase.data import atomic_numbers
from e3nn.o3 import Irrep, Irreps
from torch import Tensor

from equistride.artifact.metadata import Container, Metadata
from equistride.errors import EquistrideError
from equistride.importers.common import (
    StoredWeights,
    averaged,
    config_from,
    layers_of,
    loaded,
    network_from,
    reading_configuration,
    refuse_unknown,
    refuse_unless,
    save_imported,
)
from equistride.importers.e3nn_layers import (
    Paths,
    channels,
    gate_input,
    linear,
    linear_by_species,
    plain_silu,
    put_layer,
    stored_sign,
)
from equistride.importers.foreign import Archive, Record, kind_of, read_file, tensors_of
from equistride.models.nequip import NequIPConfig
from equistride.models.potential import ConservativePotential
from equistride.nn.equivariant import EVEN

MEND: Final = "give a checkpoint of nequip-train (.ckpt) or a package of nequip-package (.nequip.zip)"
BUILDERS: Final = ("NequIPGNNModel", "PresetNequIPGNNModel", "FullNequIPGNNModel")
PRESETS: Final[dict[str, dict[str, Any]]] = {
    "S": {"num_layers": 2, "l_max": 1, "num_features": [128, 64]},
    "M": {"num_layers": 4, "l_max": 2, "num_features": [128, 64, 32]},
    "L": {"num_layers": 6, "l_max": 3, "num_features": [128, 64, 32, 32]},
    "XL": {"num_layers": 6, "l_max": 4, "num_features": [320, 96, 64, 32, 32]},
}
PRESET: Final = {"parity": False, "type_embed_num_features": 32, "radial_mlp_depth": 1, "radial_mlp_width": 128}
START: Final = "type_embed.embed_module.weight"
"""By which the network is found in a state dict."""
TABLES: Final = re.compile(
    r"(output_mask|_w3j_\d_\d_\d|_empty|norm_const|alpha|_rmax_recip|equivariant_nonlin\..*|\.tp\.weight|"
    r"^pair_potential\.atomic_numbers)$"
)
"""Entries that are no trained weights."""
LAYER: Final = r"(?:weights\.)?(\d+)(?:\.weight)?"
"""How the layers of its networks of scalars are called."""
SQRT2: Final = math.sqrt(2.0)
REFERENCES: Final = ["arXiv:2101.03164", "arXiv:2504.16068"]


class Checkpoint(StoredWeights):
    """What a file of NequIP holds: the builder's arguments, weights by name, data's configuration and versions."""

    def __init__(
        self, config: dict[str, Any], state: dict[str, Tensor], data: Mapping[str, Any], versions: Mapping[str, Any]
    ) -> None:
        super().__init__(state, MEND)
        self.config, self.data, self.versions = config, data, versions


def _network_of(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return the tensors of the one network, by names within it."""
    prefixes = {key.removesuffix(START) for key in tensors if key.endswith(START)}
    if len(prefixes) != 1:
        raise EquistrideError(
            f"{path} does not hold one NequIP network",
            expected=f"one {START}",
            found=f"{len(prefixes)} of them",
            hint=MEND,
        )
    (prefix,) = prefixes
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _averaged(state: dict[str, Tensor], averages: Sequence[Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the state with averaged weights, which are listed in the order of the trained ones."""
    untrained = ["pair_potential."]
    if not config.get("bessel_trainable", False):
        untrained.append("bessel_encode.")
    for kind in ("scales", "shifts"):
        if not config.get(f"per_type_energy_{kind}_trainable", False):
            untrained.append(f"per_type_energy_scale_shift.{kind}")
    names = [
        key for key, value in state.items()
        if value.numel() and not TABLES.search(key) and not key.startswith(tuple(untrained))
    ]  # fmt: skip
    return averaged(state, names, averages)


def _read_lightning(path: Path) -> Checkpoint:
    content = read_file(path, MEND)
    hyper = content.get("hyper_parameters") if isinstance(content, Mapping) else None
    if not isinstance(content, Mapping) or not isinstance(hyper, Mapping) or "state_dict" not in content:
        raise EquistrideError(
            f"{path} is not a checkpoint of NequIP", expected="the keys state_dict and hyper_parameters",
            found=kind_of(content), hint=MEND,
        )  # fmt: skip
    tensors = {str(key): value for key, value in content["state_dict"].items() if isinstance(value, Tensor)}
    config, info = hyper.get("model") or {}, hyper.get("info_dict") or {}
    _check_builder(config)
    state = _network_of(tensors, path)
    count = sum(key.startswith("ema.ema_weight_") for key in tensors)
    if count:
        state = _averaged(state, [tensors[f"ema.ema_weight_{k}"] for k in range(count)], config)
    return Checkpoint(dict(config), state, info.get("data") or {}, info.get("versions") or {})


def _resolved(value: Any, root: Any, depth: int = 0) -> Any:
    """Return configuration with references such as ``${a.b}`` filled in; None for what the run computed."""
    if isinstance(value, dict):
        return {key: _resolved(item, root, depth) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolved(item, root, depth) for item in value]
    reference = re.fullmatch(r"\$\{([\w.]+)\}", value) if isinstance(value, str) else None
    if reference is None or depth > 20:
        return None if isinstance(value, str) and "${" in value else value
    found = root
    for key in reference[1].split("."):
        found = found.get(key) if isinstance(found, dict) else None
    return _resolved(found, root, depth + 1)


def _read_package(path: Path, archive: Archive) -> Checkpoint:
    try:
        run = yaml.safe_load(archive.text("model/config.yaml"))
        facts = yaml.safe_load(archive.text("model/package_metadata.txt"))
    except (yaml.YAMLError, RecursionError) as error:
        raise EquistrideError(
            f"the package {path} has a broken configuration ({type(error).__name__})", hint=MEND
        ) from None
    if not isinstance(run, dict) or not isinstance(facts, dict):
        raise EquistrideError(f"the package {path} has a broken configuration", expected="tables of keys", hint=MEND)
    model = archive.unpickle("model/eager_model.pkl", ".data/{}.storage")
    tensors = tensors_of(model) if isinstance(model, Record) else {}
    for name, part in model.items() if isinstance(model, Mapping) else ():
        tensors |= tensors_of(part, f"{name}.") if isinstance(part, Record) else {}
    run = _resolved(run, run)
    config = (run.get("training_module") or {}).get("model") or {}
    _check_builder(config)
    names = facts.get("atom_types")
    names = [names[k] for k in sorted(names)] if isinstance(names, dict) else names
    config = config | ({"type_names": names} if isinstance(names, list) else {})
    return Checkpoint(config, _network_of(tensors, path), run.get("data") or {}, facts.get("versions") or {})


def read_checkpoint(path: Path) -> Checkpoint:
    """Return what a checkpoint or a package of NequIP holds; no code of it runs.

    Raises
    ------
    EquistrideError
        Where the file is missing, cannot be read, or is of another kind.
    """
    archive = Archive(path, MEND)
    if archive.has("model/eager_model.pkl"):
        return _read_package(Path(path), archive)
    compiled = archive.has("constants.pkl") or any("/data/aotinductor/" in name for name in archive.records)
    if compiled:
        raise EquistrideError(
            f"{path} is a compiled model, which cannot be taken apart", expected="what it was compiled from", hint=MEND
        )
    return _read_lightning(Path(path))


def _check_builder(config: Any) -> None:
    target = str(config.get("_target_", "")) if isinstance(config, Mapping) else ""
    name = target.rpartition(".")[2]
    if target.startswith("allegro") or "Allegro" in name:
        raise EquistrideError(
            f"the checkpoint is of an Allegro model ({name})",
            expected="a NequIP model",
            hint="no other way: train a NequIP",
        )
    if name.startswith("ModelFrom") or name == "modify":
        raise EquistrideError(
            f"the checkpoint was made from another file ({name}) and does not say its network's sizes",
            expected=" or ".join(BUILDERS), hint="build a package of it with nequip-package and import the first model's file",
        )  # fmt: skip
    refuse_unless(
        name in BUILDERS, "a model that the import does not know", " or ".join(BUILDERS), target or "none", MEND
    )


def _arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of the fullest builder, lists with an entry a layer."""
    kind = str(config["_target_"]).rpartition(".")[2]
    given = dict(config)
    if kind == "PresetNequIPGNNModel":
        preset = str(given.get("preset", "")).upper()
        refuse_unless(preset in PRESETS, "a preset that the import does not know", ", ".join(PRESETS), preset)
        given = {**PRESET, **PRESETS[preset], **given}
    if kind == "FullNequIPGNNModel":
        return given
    layers, l_max = int(given.get("num_layers", 4)), int(given.get("l_max", 1))
    width = given.get("num_features", 32)
    widths = list(width) if isinstance(width, list | tuple) else [width] * (l_max + 1)
    both = given.get("parity", True)
    hidden = Irreps([(widths[n], (n, p)) for n in range(l_max + 1) for p in (1, -1) if both or p == (-1) ** n])
    return given | {
        "irreps_edge_sh": str(Irreps.spherical_harmonics(l_max)),
        "type_embed_num_features": given.get("type_embed_num_features") or widths[0],
        "feature_irreps_hidden": [str(hidden)] * (layers - 1) + [str(Irreps([(widths[0], EVEN)]))],
        "radial_mlp_depth": [given.get("radial_mlp_depth", 1)] * layers,
        "radial_mlp_width": [given.get("radial_mlp_width", 128)] * layers,
    }


def _check_choices(given: Mapping[str, Any]) -> None:
    """Refuse what changes the network and what we do not have."""
    kind = given.get("convnet_nonlinearity_type", "gate")
    refuse_unless(kind == "gate", "another non-linearity than gates", "gate", kind)
    refuse_unless(not given.get("convnet_resnet", False), "residual layers (convnet_resnet)", "none", "some")
    for key in ("convnet_nonlinearity_scalars", "convnet_nonlinearity_gates"):
        chosen = given.get(key, {"e": "silu", "o": "tanh"})
        refuse_unless(
            dict(chosen) == {"e": "silu", "o": "tanh"}, f"activations that the import does not know ({key})",
            "silu for even and tanh for odd scalars", chosen,
        )  # fmt: skip
    pair = given.get("pair_potential")
    target = str((pair or {}).get("_target_", "none")).rpartition(".")[2]
    refuse_unless(pair is None or target == "ZBL", "a pair potential that the import does not know", "ZBL", target)
    units = (pair or {}).get("units", "metal")
    refuse_unless(units == "metal", "energies in other units than eV", "ZBL in metal units", units)
    readout = given.get("readout_mlp_nonlinearity", "silu")
    hidden = int(given.get("readout_mlp_hidden_layers_depth", 0))
    refuse_unless(
        hidden == 0 or readout in ("silu", None, "None", "null"), "an activation that the import does not know (read-out)",
        "silu or none", readout,
    )  # fmt: skip
    depths = {(d, w) for d, w in zip(given["radial_mlp_depth"], given["radial_mlp_width"], strict=True)}
    refuse_unless(
        len(depths) == 1, "radial networks that differ from layer to layer", "one depth and width", sorted(depths)
    )


def _elements(checkpoint: Checkpoint, named: Sequence[str]) -> list[str]:
    """Return the element of each type."""
    config = checkpoint.config
    types = [str(name) for name in config.get("type_names") or []]
    found = list(named)
    sources: list[Any] = [(config.get("pair_potential") or {}).get("chemical_species")]
    for transform in checkpoint.data.get("transforms") or []:
        if isinstance(transform, Mapping) and str(transform.get("_target_", "")).endswith(
            "ChemicalSpeciesToAtomTypeMapper"
        ):
            sources += [transform.get("chemical_species"), transform.get("chemical_symbols")]
    for source in [*sources, types]:
        if not found and isinstance(source, list) and len(source) == len(types):
            found = [str(symbol) for symbol in source] if set(map(str, source)) <= set(atomic_numbers) else []
    known = len(found) == len(types) > 0 and set(found) <= set(atomic_numbers) and len(set(found)) == len(found)
    if not known:
        raise EquistrideError(
            "the elements of the model's types are not known", expected=f"{len(types)} different symbols, one a type",
            found=", ".join(found or types) or "none", hint="name them in the order of the types, as in --species C,H,O",
        )  # fmt: skip
    return found


def _outputs(inputs: Irreps, hidden: Irreps, harmonics: Irreps) -> Irreps:
    """Return what a layer makes, in NequIP's order: scalars, then gated irreps."""
    reached = {out for _, ir in inputs for _, y in harmonics for out in ir * y}
    kept = [(mul, ir) for mul, ir in hidden if ir in reached]
    return Irreps([p for p in kept if p[1].l == 0] + [p for p in kept if p[1].l > 0]).simplify()


def _neighbors(checkpoint: Checkpoint, kept: Sequence[int], types: Sequence[str]) -> float | list[float]:
    """Return the mean number of neighbours, or that of each type kept."""
    stored = [value for key, value in checkpoint.state.items() if key.endswith("norm_const")]
    value = checkpoint.config.get("avg_num_neighbors")
    if isinstance(value, Mapping):
        numbers = [float(value[name]) for name in types]
    elif isinstance(value, int | float):
        numbers = [float(value)]
    elif stored:  # in float32, of a package whose training data gave it
        numbers = stored[0].double().flatten().pow(-2).tolist()
    else:
        raise EquistrideError("the checkpoint does not say by how many neighbours sums are divided",
                              expected="avg_num_neighbors", found=value)  # fmt: skip
    return numbers[0] if len(numbers) == 1 else [numbers[k] for k in kept]


def _config(
    checkpoint: Checkpoint, given: Mapping[str, Any], features: Sequence[Irreps], kept: list[int]
) -> NequIPConfig:
    recip = checkpoint.tensor("edge_norm._rmax_recip").flatten()
    count = len(checkpoint.config["type_names"])
    cutoff, pairs = float(given["r_max"]), None
    if recip.numel() > 1:
        table = recip.reciprocal().clamp(max=cutoff).view(count, count)
        pairs = table[kept][:, kept].tolist()
    layers = len(features) - 1
    pair = given.get("pair_potential")
    repulsion = None
    if pair is not None:
        coulomb = 2.0 * float(checkpoint.tensor("pair_potential._qqr2exesquare"))  # each of a pair has half
        repulsion = {"exponent": pair.get("polynomial_cutoff_p", 6.0), "coulomb": coulomb}
    deep = given.get("readout_mlp_nonlinearity", "silu") == "silu"
    depth = int(given.get("readout_mlp_hidden_layers_depth", 0)) if deep else 0
    width = given.get("readout_mlp_hidden_layers_width") or features[-1].dim
    return config_from(NequIPConfig, {
        "cutoff": cutoff,
        "num_layers": layers,
        "l_max": Irreps(given["irreps_edge_sh"]).lmax,
        "parity": "both" if given.get("parity", True) else "natural",
        "irreps": [str(Irreps([(mul, ir) for ir, mul in sorted(channels(irreps).items())])) for irreps in features],
        "num_basis": checkpoint.tensor("bessel_encode.bessel_weights").numel(),
        "envelope_exponent": given.get("polynomial_cutoff_p", 6),
        "radial_widths": [given["radial_mlp_width"][0]] * given["radial_mlp_depth"][0],
        "self_connection": [
            "species" if f"layer{t}_convnet.conv.sc.weight" in checkpoint.state else "none" for t in range(layers)
        ],
        "avg_num_neighbors": _neighbors(checkpoint, kept, checkpoint.config["type_names"]),
        "pair_cutoffs": pairs,
        "readout_widths": [width] * depth,
        "repulsion": repulsion,
    })  # fmt: skip


def _embedding(checkpoint: Checkpoint, kept: list[int], fields: Mapping[str, int]) -> Tensor:
    """Return the features of each element kept: of its type, and of what is the same for the whole system."""
    parts = [checkpoint.tensor(START)[kept]]
    specs = checkpoint.config.get("categorical_graph_field_embed") or []
    names = [str(spec["field"]) for spec in specs]
    unknown = [name for name in fields if name not in names]
    refuse_unless(not unknown, "no such field", ", ".join(names) or "none", ", ".join(unknown))
    for spec, name in zip(specs, names, strict=True):
        first, last = int(spec["min"]), int(spec["max"])
        value = fields.get(name)
        refuse_unless(
            value is not None and first <= value <= last, f"a field whose value must be chosen, {name}",
            f"a whole number from {first} to {last}", "none" if value is None else value, f"choose it: --field {name}={first}",
        )  # fmt: skip
        table = checkpoint.tensor(f"type_embed.categorical_graph_field_embed_modules.{name}.weight")
        parts.append(table[int(value or 0) - first].expand(len(kept), -1))
    return torch.cat(parts, 1)


def _put_readout(state: dict[str, Tensor], checkpoint: Checkpoint, config: NequIPConfig) -> None:
    weights = checkpoint.stack("per_atom_energy_readout.mlp_module.mlp", LAYER)
    if config.readout_widths or len(weights) == 1:
        weights = plain_silu(weights, SQRT2)
    else:  # linear layers after one another are one
        product = weights[0]
        for weight in weights[1:]:
            product = product @ weight / math.sqrt(weight.size(0))
        weights = [product]
    for k, weight in enumerate(weights):
        state[f"readout.layers.{k}.weight"] = weight


def _per_type(checkpoint: Checkpoint, name: str, default: float, kept: list[int]) -> Tensor:
    values = checkpoint.find(f"per_type_energy_scale_shift.{name}")
    if values is None:
        return torch.full((len(kept),), default, dtype=torch.float64)
    return values.flatten().expand(len(checkpoint.config["type_names"]))[kept].clone()


def _old_symbols(checkpoint: Checkpoint) -> bool:
    """Whether it was written with an e3nn before 0.5."""
    found = [int(n) for n in re.findall(r"\d+", str(checkpoint.versions.get("e3nn", "0.5")))[:2]]
    return found < [0, 5]


def potential_of(
    checkpoint: Checkpoint,
    elements: Sequence[str] = (),
    *,
    species: Sequence[str] = (),
    fields: Mapping[str, int] | None = None,
) -> tuple[ConservativePotential, NequIPConfig]:
    """Build the potential of a checkpoint, float64, and its configuration.

    Parameters
    ----------
    checkpoint
        Of :func:`read_checkpoint`.
    elements
        Symbols to keep; all that it knows by default.
    species
        Symbol of each of its types, in their order, where the file does not say.
    fields
        Values of the whole system that its embedding reads (a level of theory, ...), by name.

    Raises
    ------
    EquistrideError
        For networks that are not NequIP's, weights that are missing or left over, unknown elements.
    """
    checkpoint.read.clear()
    symbols = _elements(checkpoint, species)
    refuse_unknown(elements, symbols)
    kept = [k for k, symbol in enumerate(symbols) if not elements or symbol in elements]
    with reading_configuration(MEND):
        given = _arguments(checkpoint.config)
        _check_choices(given)
        harmonics = Irreps(given["irreps_edge_sh"])
        attributes = _embedding(checkpoint, kept, fields or {})
        features = [Irreps([(attributes.size(1), EVEN)])]
        for hidden in given["feature_irreps_hidden"]:
            features.append(_outputs(features[-1], Irreps(hidden), harmonics))
        config = _config(checkpoint, given, features, kept)
    names = [symbols[k] for k in kept]
    network = network_from(config, names)
    state: dict[str, Tensor] = {
        "embedding.weight": attributes,
        "basis.frequencies": checkpoint.tensor("bessel_encode.bessel_weights").flatten() * math.pi,
    }
    for t, layer in enumerate(layers_of(network)):
        inputs, outputs, conv = features[t], features[t + 1], f"layer{t}_convnet.conv"
        hidden = gate_input(outputs)
        paths = Paths(inputs, harmonics, [ir for _, ir in hidden], sorted_weights=False)
        own: dict[Irrep, Tensor] = {}
        if config.self_connections[t] == "species":
            own = linear_by_species(checkpoint.tensor(f"{conv}.sc.weight"), inputs, hidden, attributes, f"{conv}.sc")
        down = linear(checkpoint.tensor(f"{conv}.linear_2.weight"), paths.irreps, hidden, f"{conv}.linear_2")
        put_layer(
            state, f"layers.{t}", layer, outputs=outputs, paths=paths, own=own, biases=None,
            up=linear(checkpoint.tensor(f"{conv}.linear_1.weight"), inputs, inputs, f"{conv}.linear_1"),
            down={ir: part / layer.divisor for ir, part in down.items()},
            radial=plain_silu(checkpoint.stack(f"{conv}.edge_mlp.mlp", LAYER), SQRT2),
            sign=stored_sign(checkpoint.state, f"{conv}.tp_scatter.tp", old=_old_symbols(checkpoint)),
        )  # fmt: skip
    _put_readout(state, checkpoint, config)
    state["scales"] = _per_type(checkpoint, "scales", 1.0, kept)
    references = _per_type(checkpoint, "shifts", 0.0, kept)
    checkpoint.refuse_unread(TABLES)
    return loaded(network, state, names, references.tolist()), config


def import_nequip(
    checkpoint: Path, output: Path, *, elements: Sequence[str] = (), species: Sequence[str] = (),
    fields: Mapping[str, int] | None = None, dtype: str = "float32", description: str = "", licence: str = "",
    references: list[str] | None = None, fused: bool = True, container: Container = "torchscript",
) -> Metadata:  # fmt: skip
    """Turn a checkpoint or a package of NequIP into an artifact; NequIP is not needed and no code of the file runs.

    Parameters
    ----------
    checkpoint, output
        Files.
    elements, species, fields
        See :func:`potential_of`.
    dtype
        ``"float32"`` or ``"float64"``: the precision in which engines run it.
    description, licence, references
        For the metadata.
    fused, container
        As for :func:`equistride.artifact.export.export`.

    Returns
    -------
    Metadata
        What the file says of itself.
    """
    content = read_checkpoint(checkpoint)
    potential, config = potential_of(content, elements, species=species, fields=fields)
    return save_imported(
        potential, config, checkpoint, output, program=f"NequIP {content.versions.get('nequip', '')}",
        description=description or f"{Path(checkpoint).name} of NequIP", licence=licence,
        references=references or REFERENCES, dtype=dtype, fused=fused, container=container,
        weights={"fields": dict(fields or {})},
    )  # fmt: skip
