"""Import of SevenNet checkpoints (MIT; 10.1021/acs.jctc.4c00190), versions 0.9 to 0.13: a NequIP with choices of its own.

The released potentials lie inside the wheel ``sevenn`` on PyPI, which is searched where it is installed and never imported.
Weights keep float32's digits; tables and 3j symbols are exact.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import torch
from ase.data import atomic_numbers, chemical_symbols
from e3nn.o3 import Irreps
from torch import Tensor

from equistride.artifact.metadata import Container, Metadata
from equistride.errors import EquistrideError
from equistride.importers.common import (
    StoredWeights,
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
    put_layer,
    stored_sign,
    with_modal,
)
from equistride.importers.foreign import kind_of, read_file
from equistride.models.nequip import NequIPConfig
from equistride.models.potential import ConservativePotential
from equistride.nn.equivariant import EVEN

MEND: Final = "give a checkpoint of SevenNet (.pth), or a name such as 7net-0 with `pip install --no-deps sevenn`"
RELEASED: Final = {
    "0": "SevenNet_0__11Jul2024/checkpoint_sevennet_0.pth",
    "0_11jul2024": "SevenNet_0__11Jul2024/checkpoint_sevennet_0.pth",
    "0_11july2024": "SevenNet_0__11Jul2024/checkpoint_sevennet_0.pth",
    "0_22may2024": "SevenNet_0__22May2024/checkpoint_sevennet_0.pth",
    "l3i5": "SevenNet_l3i5/checkpoint_l3i5.pth",
    "mf-0": "SevenNet_MF_0/checkpoint_sevennet_mf_0.pth",
    "mf-ompa": "SevenNet_MF_ompa/checkpoint_sevennet_mf_ompa.pth",
    "omat": "SevenNet_omat/checkpoint_sevennet_omat.pth",
    "omni": "SevenNet_omni/checkpoint_sevennet_omni.pth",
    "omni-i8": "SevenNet_omni_i8/checkpoint_sevennet_omni_i8.pth",
    "omni-i12": "SevenNet_omni_i12/checkpoint_sevennet_omni_i12.pth",
}
"""Where released checkpoints lie in the wheel's folder ``pretrained_potentials``, or in the folder to which sevenn downloads."""
WITH_WHEEL: Final = ("7net-0", "7net-0_22may2024", "7net-l3i5", "7net-mf-0")
OLD_NAMES: Final = {
    "EdgeEmbedding": "edge_embedding",
    "reducing nn input to hidden": "reduce_input_to_hidden",
    "reducing nn hidden to energy": "reduce_hidden_to_energy",
    "rescale atomic energy": "rescale_atomic_energy",
}
"""Parts that versions before 0.10 called otherwise; those of layers have blanks for underscores."""
MODAL_FLAGS: Final = {
    "onehot_to_feature_x": "use_modal_node_embedding",
    "self_interaction_1": "use_modal_self_inter_intro",
    "self_interaction_2": "use_modal_self_inter_outro",
    "reduce_input_to_hidden": "use_modal_output_block",
}
"""Linear maps that may read which modal it is."""
TABLES: Final = re.compile(
    r"(output_mask|_w3j_\d_\d_\d|equivariant_gate\..*|_convolution\.convolution\..*|linear\.f\..*)$"
)
"""Entries of a state dict that are no weights, those of cuEquivariance, FlashTP and OpenEquivariance among them."""
LICENCE: Final = "MIT (SevenNet, MDIL-SNU)"
REFERENCES: Final = ["10.1021/acs.jctc.4c00190", "arXiv:2101.03164"]


def find_checkpoint(name: str | Path) -> Path:
    """Return the file of a checkpoint: a path, or a released one's name, in an installed ``sevenn`` that is not imported.

    Raises
    ------
    EquistrideError
        Where there is neither.
    """
    path = Path(name)
    key = re.sub(r"^(7net|sevennet)-", "", str(name).lower())
    if path.exists() or key == str(name).lower() or key not in RELEASED:
        return path
    spec = find_spec("sevenn")
    folders = (
        [Path(folder) / "pretrained_potentials" for folder in (spec.submodule_search_locations or [])] if spec else []
    )
    folders.append(Path.home() / ".cache" / "sevennet")
    for folder in folders:
        if (folder / RELEASED[key]).is_file():
            return folder / RELEASED[key]
    inside = str(name).lower() in WITH_WHEEL
    raise EquistrideError(
        f"the checkpoint of {name} is not on this machine",
        expected="an installed sevenn" if inside else "the file that SevenNet's releases on GitHub have",
        hint="`pip install --no-deps sevenn`" if inside or spec is None else "download it and give its path",
    )


def _tidy(key: str) -> str:
    """Return the name that later versions have."""
    part, dot, rest = key.partition(".")
    part = OLD_NAMES.get(part, part)
    if re.match(r"\d+ ", part):
        part = part.replace(" ", "_")
    return part + dot + rest.replace("denumerator", "denominator")


class Checkpoint(StoredWeights):
    """What a file of SevenNet holds."""

    def __init__(self, config: dict[str, Any], state: dict[str, Tensor]) -> None:
        super().__init__(state, MEND)
        self.config = config

    @property
    def version(self) -> tuple[int, ...]:
        """Of the program that wrote it."""
        return tuple(int(n) for n in re.findall(r"\d+", str(self.config.get("version", "0.9")))[:3])


def read_checkpoint(path: Path) -> Checkpoint:
    """Return what a checkpoint of SevenNet holds; no code of it runs.

    Raises
    ------
    EquistrideError
        Where the file is missing, cannot be read, or is of another kind.
    """
    content = read_file(path, MEND)
    if not isinstance(content, Mapping) or not all(
        isinstance(content.get(key), Mapping) for key in ("model_state_dict", "config")
    ):
        raise EquistrideError(
            f"{path} is not a checkpoint of SevenNet", expected="the keys model_state_dict and config",
            found=kind_of(content), hint=MEND,
        )  # fmt: skip
    state = {_tidy(str(key)): value for key, value in content["model_state_dict"].items() if isinstance(value, Tensor)}
    return Checkpoint(dict(content["config"]), state)


def _check_choices(config: Mapping[str, Any]) -> None:
    """Refuse what changes the network and what we do not have."""
    kind = config.get("_model_type", "E3_equivariant_model")
    refuse_unless(kind == "E3_equivariant_model", "another kind of model", "E3_equivariant_model", kind)
    interaction = config.get("interaction_type", "nequip")
    refuse_unless(interaction == "nequip", "an interaction that the import does not know", "nequip", interaction)
    for key in ("act_scalar", "act_gate"):
        chosen = config.get(key, {"e": "silu", "o": "tanh"})
        refuse_unless(
            chosen == {"e": "silu", "o": "tanh"}, f"activations that the import does not know ({key})",
            "silu for even and tanh for odd scalars", chosen,
        )  # fmt: skip
    radial = config.get("act_radial", "silu")
    refuse_unless(radial == "silu", "an activation that the import does not know (act_radial)", "silu", radial)
    basis = config.get("radial_basis", {}).get("radial_basis_name", "bessel")
    refuse_unless(basis == "bessel", "a radial basis that the import does not know", "bessel", basis)
    reduce = config.get("optimize_by_reduce", True)
    refuse_unless(reduce is not False, "the read-out of an early version", "optimize_by_reduce: true", reduce)


def _reached(irreps: Irreps, harmonics: Irreps, l_max: int, even: bool) -> Irreps:
    """Return what the product of features and harmonics reaches, sorted, one channel each."""
    found = {
        out for _, ir in irreps for _, y in harmonics for out in ir * y if out.l <= l_max and (out.p == 1 or not even)
    }
    return Irreps([(1, ir) for ir in sorted(found)])


def _features(config: Mapping[str, Any], harmonics: Irreps) -> tuple[list[Irreps], list[list[Any]]]:
    """Return the irreps of the features, in SevenNet's order, and of each layer's messages."""
    layers = int(config["num_convolution_layer"])
    manual, width = config.get("irreps_manual") or None, int(config.get("channel", 32))
    features = [Irreps(manual[0]) if manual else Irreps([(width, EVEN)])]
    messages = []
    node = config.get("lmax_node", -1)
    l_max = node if node > 0 else config["lmax"]
    for t in range(layers):
        last = t == layers - 1
        if manual:
            out = Irreps(manual[t + 1])
        else:
            reached = _reached(features[-1], harmonics, 0 if last else l_max, last)
            out = Irreps([(width, ir) for _, ir in reached])
        messages.append([ir for _, ir in _reached(features[-1], harmonics, out.lmax, last)])
        features.append(out)
    return features, messages


def _config(checkpoint: Checkpoint, features: Sequence[Irreps], modal: bool) -> NequIPConfig:
    theirs = checkpoint.config
    cutoff, envelope = float(theirs["cutoff"]), theirs.get("cutoff_function", {})
    name = envelope.get("cutoff_function_name", "poly_cut")
    refuse_unless(name in ("poly_cut", "XPLOR"), "an envelope that the import does not know", "poly_cut or XPLOR", name)
    layers = len(features) - 1
    connection = theirs.get("self_connection_type", "nequip")
    kinds = list(connection) if isinstance(connection, list | tuple) else [connection] * layers
    names = {"linear": "linear", "nequip": "species"}
    unknown = [kind for kind in kinds if kind not in names]
    refuse_unless(not unknown, "a self-connection that SevenNet does not have", "nequip or linear", unknown)
    edge = theirs.get("lmax_edge", -1)
    normalized = theirs.get("_normalize_sph", checkpoint.version >= (0, 10))
    fcn = bool(theirs.get("readout_as_fcn", False))
    return config_from(NequIPConfig, {
        "cutoff": cutoff,
        "num_layers": layers,
        "l_max": edge if edge > 0 else theirs["lmax"],
        "parity": "both" if theirs.get("is_parity", True) else "none",
        "irreps": [str(Irreps([(mul, ir) for ir, mul in sorted(channels(irreps).items())])) for irreps in features],
        "num_basis": checkpoint.tensor("edge_embedding.basis_function.coeffs").numel(),
        "envelope": "xplor" if name == "XPLOR" else "polynomial",
        "envelope_exponent": 6 if name == "XPLOR" else int(envelope.get("poly_cut_p_value", 6)),
        "switch": float(envelope["cutoff_on"]) if name == "XPLOR" else None,
        "normalized_harmonics": bool(normalized),
        "radial_widths": list(theirs.get("weight_nn_hidden_neurons", [64, 64])),
        "self_connection": [names[kind] for kind in kinds],
        "avg_num_neighbors": 1.0,  # denominators are in the weights
        "bias": bool(theirs.get("use_bias_in_linear", False)) or modal,
        "readout_widths": list(theirs.get("readout_fcn_hidden_neurons") or [30, 30]) if fcn else [],
        "readout_activation": theirs.get("readout_fcn_activation") or "relu" if fcn else "silu",
    })  # fmt: skip


def _modal(config: Mapping[str, Any], wanted: str) -> tuple[int, int]:
    """Return a modal's number and how many there are; 0 where the checkpoint has none."""
    known = config.get("_modal_map") or {}
    if not config.get("use_modality", False) or not known:
        refuse_unless(not wanted, "no modals", "no --modal", wanted)
        return 0, 0
    if wanted not in known:
        raise EquistrideError(
            "the checkpoint was trained on several sets of labels" if not wanted else "the checkpoint does not know this modal",
            expected=", ".join(known), found=wanted or "no choice", hint="choose one with --modal",
        )  # fmt: skip
    return int(known[wanted]), len(known)


class _Reader:
    """Takes the weights of one modal and some elements out of a checkpoint."""

    def __init__(self, checkpoint: Checkpoint, modal: int, modals: int, kept: Sequence[int], count: int) -> None:
        self.checkpoint, self.modal, self.modals = checkpoint, modal, modals
        self.kept, self.count = list(kept), count

    def reads_modal(self, part: str) -> bool:
        flag = next((flag for name, flag in MODAL_FLAGS.items() if part.endswith(name)), "")
        return self.modals > 1 and bool(self.checkpoint.config.get(flag, False))

    def linear(self, part: str, inputs: Irreps, outputs: Irreps) -> tuple[dict[Any, Tensor], Tensor]:
        """Return a linear map's matrices and what it adds to the even scalars."""
        name, width = f"{part}.linear", sum(mul for mul, ir in outputs if ir == EVEN)
        given = self.checkpoint.find(f"{name}.bias")
        bias = torch.zeros(width, dtype=torch.float64) if given is None else given.flatten()
        flat = self.checkpoint.tensor(f"{name}.weight")
        if not self.reads_modal(part):
            return linear(flat, inputs, outputs, name), bias
        matrices, row = with_modal(
            linear(flat, inputs + Irreps([(self.modals, EVEN)]), outputs, name), self.modals, self.modal
        )
        return matrices, bias + row

    def sign(self, layer: int) -> Callable[[int, int, int], float]:
        """Return by degrees whether the layer's 3j symbols have the opposite sign of ours."""
        known = self.checkpoint.version >= (0, 11)  # and those of kernels that keep no symbols
        return stored_sign(self.checkpoint.state, f"{layer}_convolution.convolution", old=False, needed=not known)

    def scales(self, name: str) -> Tensor:
        """Return scale or shift of each element kept."""
        values = self.checkpoint.tensor(f"rescale_atomic_energy.{name}")
        if self.modals and self.checkpoint.config.get(f"use_modal_wise_{name}", False):
            values = values[self.modal]
        values = values.flatten()
        refuse_unless(
            values.numel() in (1, self.count),
            f"a table {name} that does not fit",
            f"{self.count} numbers",
            values.numel(),
        )
        return values.expand(self.count)[self.kept].clone()


def _elements(config: Mapping[str, Any], wanted: Sequence[str]) -> tuple[list[str], list[int], int]:
    """Return the symbols to keep, by atomic number, their places in the checkpoint, and how many those are."""
    known = {int(z): int(k) for z, k in (config.get("_type_map") or {}).items()}
    refuse_unless(bool(known), "no table of elements", "_type_map", "none")
    symbols = {chemical_symbols[z]: k for z, k in sorted(known.items()) if 0 < z < len(chemical_symbols)}
    refuse_unknown(wanted, list(symbols))
    kept = sorted(set(wanted), key=lambda s: atomic_numbers[s]) or list(symbols)
    return kept, [symbols[symbol] for symbol in kept], max(known.values()) + 1


def _check_all_read(checkpoint: Checkpoint, layers: int) -> None:
    """Refuse weights that nothing here reads."""
    parts = "self_connection_intro|self_interaction_1|self_interaction_2|convolution"
    known = re.compile(
        rf"({'|'.join(str(t) for t in range(layers))})_({parts})\.|edge_embedding\.|onehot_to_feature_x\.|readout_FCN\.|"
        r"reduce_(input_to_hidden|hidden_to_energy)\.|rescale_atomic_energy\."
    )
    left = [k for k, v in checkpoint.state.items() if v.numel() and not known.match(k) and not TABLES.search(k)]
    refuse_unless(not left, "weights that the import does not know", "those of a SevenNet", ", ".join(left[:3]))


def potential_of(
    checkpoint: Checkpoint, elements: Sequence[str] = (), modal: str = ""
) -> tuple[ConservativePotential, NequIPConfig]:
    """Build the potential of a checkpoint, float64, and its configuration.

    Parameters
    ----------
    checkpoint
        Of :func:`read_checkpoint`.
    elements
        Symbols to keep; all that it knows by default.
    modal
        Which of several sets of labels it shall reproduce; needed where there are several.

    Raises
    ------
    EquistrideError
        For networks that are not SevenNet's, weights that are missing or left over, unknown elements or modals.
    """
    theirs = checkpoint.config
    with reading_configuration(MEND):
        _check_choices(theirs)
        parity = -1 if theirs.get("is_parity", True) else 1
        edge = theirs.get("lmax_edge", -1)
        harmonics = Irreps.spherical_harmonics(edge if edge > 0 else theirs["lmax"], parity)
        features, messages = _features(theirs, harmonics)
        number, modals = _modal(theirs, modal)
        config = _config(checkpoint, features, modals > 1)
        species, kept, count = _elements(theirs, elements)
    _check_all_read(checkpoint, config.num_layers)
    network = network_from(config, species)
    reader = _Reader(checkpoint, number, modals, kept, count)
    state: dict[str, Tensor] = {}
    embedding, bias = reader.linear("onehot_to_feature_x", Irreps([(count, EVEN)]), features[0])
    state["embedding.weight"] = embedding[EVEN][kept] + bias
    state["basis.frequencies"] = checkpoint.tensor("edge_embedding.basis_function.coeffs").flatten() * config.cutoff
    attributes = torch.eye(count, dtype=torch.float64)[kept]
    for t, layer in enumerate(layers_of(network)):
        inputs, outputs = features[t], features[t + 1]
        hidden = gate_input(outputs)
        paths = Paths(inputs, harmonics, messages[t], checkpoint.version >= (0, 11) and not _early(theirs))
        up, up_bias = reader.linear(f"{t}_self_interaction_1", inputs, inputs)
        down, down_bias = reader.linear(f"{t}_self_interaction_2", paths.irreps, hidden)
        divisor = float(checkpoint.tensor(f"{t}_convolution.denominator"))
        intro = f"{t}_self_connection_intro"
        if config.self_connections[t] == "linear":
            own, _ = reader.linear(intro, inputs, hidden)
        else:
            product = f"{intro}.fc_tensor_product.weight"
            own = linear_by_species(checkpoint.tensor(product), inputs, hidden, attributes, product)
        put_layer(
            state, f"layers.{t}", layer, outputs=outputs, paths=paths, up=up, own=own, sign=reader.sign(t),
            down={ir: part / divisor for ir, part in down.items()},
            radial=checkpoint.stack(f"{t}_convolution.weight_nn"),
            biases=(up_bias, down_bias) if config.bias else None,
        )  # fmt: skip
    offset = _put_readout(state, reader, features[-1], bool(theirs.get("readout_as_fcn", False)))
    state["scales"] = reader.scales("scale")
    references = reader.scales("shift") + state["scales"] * offset
    return loaded(network, state, species, references.tolist()), config


def _early(config: Mapping[str, Any]) -> bool:
    return ".dev0" in str(config.get("version")) and str(config.get("version")).startswith("0.11.0")


def _put_readout(state: dict[str, Tensor], reader: _Reader, features: Irreps, network: bool) -> float:
    """Put the read-out in our form; return the constant that it adds."""
    if network:
        for k, weight in enumerate(reader.checkpoint.stack("readout_FCN.fcn")):
            state[f"readout.layers.{k}.weight"] = weight
        return 0.0
    hidden, one = Irreps([(features.dim // 2, EVEN)]), Irreps([(1, EVEN)])
    first, bias = reader.linear("reduce_input_to_hidden", features, hidden)
    second, last = reader.linear("reduce_hidden_to_energy", hidden, one)
    state["readout.layers.0.weight"] = first[EVEN] @ second[EVEN] * math.sqrt(features.dim)
    return float(bias @ second[EVEN][:, 0] + last[0])


def import_sevennet(
    checkpoint: str | Path, output: Path, *, elements: Sequence[str] = (), modal: str = "", dtype: str = "float32",
    description: str = "", licence: str = "", references: list[str] | None = None, fused: bool = True,
    container: Container = "torchscript",
) -> Metadata:  # fmt: skip
    """Turn a checkpoint of SevenNet into an artifact; SevenNet is not needed and no code of the file runs.

    Parameters
    ----------
    checkpoint
        A file (.pth), or the name of a released potential, such as ``7net-0``, that an installed ``sevenn`` has.
    output
        Where the artifact goes.
    elements, modal
        See :func:`potential_of`.
    dtype
        ``"float32"`` or ``"float64"``: the precision in which engines run it.
    description, licence, references
        For the metadata; a released potential has its own.
    fused, container
        As for :func:`equistride.artifact.export.export`.

    Returns
    -------
    Metadata
        What the file says of itself.
    """
    path = find_checkpoint(checkpoint)
    content = read_checkpoint(path)
    potential, config = potential_of(content, elements, modal)
    released = str(checkpoint) != str(path)
    called = str(checkpoint) if released else path.stem
    return save_imported(
        potential, config, path, output, program=f"SevenNet {content.config.get('version', '')}",
        description=description or f"{called} of SevenNet{', ' + modal if modal else ''}",
        licence=licence or (LICENCE if released else ""), references=references or REFERENCES, dtype=dtype, fused=fused,
        container=container, weights={"modal": modal},
    )  # fmt: skip
