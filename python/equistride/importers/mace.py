"""Import of MACE models (Batatia et al., arXiv 2206.07697), as mace-torch 0.3 saves them: ``MACE`` and ``ScaleShiftMACE``.

A file of MACE is a pickled network, with classes of mace and e3nn and programs as text in it. None of them is imported and
nothing runs: weights, and the classes' names, are all that is read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from ase.data import chemical_symbols
from e3nn.o3 import Irreps
from torch import Tensor

from equistride.artifact.metadata import Container, Metadata
from equistride.errors import EquistrideError
from equistride.importers.e3nn_layers import Paths, linear, linear_by_species, put
from equistride.importers.foreign import Record, read_file, tensors_of
from equistride.importers.nequip_artifact import check_finite, config_from, loaded, refuse_unless, save_imported
from equistride.models.mace import MACE, MACEConfig, MACELayer, Messages
from equistride.models.potential import ConservativePotential
from equistride.nn.equivariant import natural_irreps, with_channels
from equistride.nn.repulsion import UNIVERSAL, Screening
from equistride.nn.scalar_network import NORMALISED_SILU
from equistride.nn.symmetric_contraction import Bases, SymmetricContraction, symmetrised

MEND: Final = "give a model as mace-torch saves it at the end of a training (.model)"
MODELS: Final = ("MACE", "ScaleShiftMACE")
INTERACTIONS: Final = (
    "RealAgnosticInteractionBlock",
    "RealAgnosticResidualInteractionBlock",
    "RealAgnosticDensityInteractionBlock",
    "RealAgnosticDensityResidualInteractionBlock",
)
COULOMB: Final = 14.3996
"""Of MACE's nuclear repulsion [eV A]."""
BOHR: Final = 0.529
"""Of MACE's screening length [A]."""
RATES: Final = (3.2, 0.9423, 0.4028, 0.2016)
REFERENCES: Final = ["arXiv:2206.07697", "arXiv:2205.06643"]
NO: Final = (None, False)
UNUSED: Final[dict[str, tuple[Any, ...]]] = {
    "use_so3": NO, "use_agnostic_product": NO, "edge_irreps": (None,), "use_edge_irreps_first": NO,
    "use_last_readout_only": NO, "use_embedding_readout": NO, "embedding_specs": (None, {}), "joint_embedding": (None,),
    "embedding_readout": (None,),
}  # fmt: skip
"""Choices of later versions that change the network, and the values with which they do not."""


_refuse_unless: Final = partial(refuse_unless, hint=MEND, thing="model")


class _File:
    """The pickled network: its tensors by name and its parts."""

    def __init__(self, path: Path) -> None:
        root = read_file(path, MEND)
        known = isinstance(root, Record) and root.origin.startswith("mace.")
        if not known:
            raise EquistrideError(
                f"{path} is not a model of MACE", expected="a pickled network of mace.modules",
                found=getattr(root, "origin", "") or type(root).__name__, hint=MEND,
            )  # fmt: skip
        if root.name not in MODELS:
            raise EquistrideError(
                f"{path} is a {root.name}, which the import does not know", expected=" or ".join(MODELS),
                hint="models of charges, dipoles and polarisability have terms that no engine of ours has",
            )  # fmt: skip
        self.root, self.tensors = root, tensors_of(root)

    def tensor(self, name: str) -> Tensor:
        """Return a tensor in double precision."""
        if name not in self.tensors:
            raise EquistrideError("the model lacks weights that its kind needs", expected=name, hint=MEND)
        return self.tensors[name].double()

    def number(self, name: str) -> float:
        """Return a tensor of one number."""
        value = self.tensor(name)
        _refuse_unless(value.numel() == 1, f"a {name} of several numbers", "one", value.numel())
        return float(value)

    def parts(self, name: str) -> list[Record]:
        """Return the members of a list of modules."""
        found = self.root.attribute(name)
        members = found.state.get("_modules", {}) if isinstance(found, Record) and isinstance(found.state, dict) else {}
        _refuse_unless(
            bool(members) and all(isinstance(m, Record) for m in members.values()), f"no {name}", "a list", "none"
        )
        return list(members.values())

    def stack(self, name: str) -> list[Tensor]:
        """Return the layers of a network of scalars."""
        found = [f"{name}.layer{k}.weight" for k in range(16)]
        return [self.tensor(key) for key in found if key in self.tensors] or [self.tensor(found[0])]


def _check_choices(file: _File) -> None:
    for name, values in UNUSED.items():
        found = file.root.attribute(name)
        _refuse_unless(
            any(found is value or found == value for value in values), f"a part that the import does not know ({name})",
            values[-1], getattr(found, "origin", found),
        )  # fmt: skip
    for part in file.parts("interactions"):
        _refuse_unless(
            part.name in INTERACTIONS, f"interactions that the import does not know ({part.name})",
            ", ".join(INTERACTIONS), part.name,
        )  # fmt: skip
    for part in file.parts("products"):
        _refuse_unless(
            part.name == "EquivariantProductBasisBlock", "products that the import does not know",
            "EquivariantProductBasisBlock", part.name,
        )  # fmt: skip
    kinds = [part.name for part in file.parts("readouts")]
    _refuse_unless(
        kinds[-1] == "NonLinearReadoutBlock" and set(kinds[:-1]) <= {"LinearReadoutBlock"} and len(kinds)
        == len(file.parts("interactions")),
        "read-outs that the import does not know", "one linear a layer and a network in the last", ", ".join(kinds),
    )  # fmt: skip
    basis = file.root.attribute("radial_embedding").attribute("bessel_fn")
    _refuse_unless(basis.name == "BesselBasis", "a radial basis that the import does not know", "Bessel", basis.name)
    gate = file.parts("readouts")[-1].attribute("non_linearity")
    acts = gate.attribute("acts").state["_modules"].values() if isinstance(gate, Record) else []
    factors = [act.attribute("cst") for act in acts if isinstance(act, Record)]
    _refuse_unless(
        all(abs(float(f) - NORMALISED_SILU) < 1e-6 for f in factors), "a read-out with another function than SiLU",
        NORMALISED_SILU, factors,
    )  # fmt: skip


def _head(file: _File, wanted: str) -> tuple[int, list[str]]:
    """Return a head's number and the names of all."""
    heads = list(file.root.attribute("heads") or ["Default"])
    if wanted and wanted not in heads:
        raise EquistrideError("the model has no such head", expected=", ".join(map(str, heads)), found=wanted)
    if len(heads) > 1 and not wanted:
        raise EquistrideError(
            "the model was trained on several sets of labels", expected=", ".join(map(str, heads)), found="no choice",
            hint="choose one with --head",
        )  # fmt: skip
    return (heads.index(wanted) if wanted else 0), heads


def _bases(file: _File, layer: int, count: int) -> tuple[Bases, dict[tuple[int, int], Tensor], int]:
    """Return the coupled products of a layer, their weights [S, K, C], and the largest number of factors."""
    bases: dict[tuple[int, int], Any] = {}
    weights: dict[tuple[int, int], Tensor] = {}
    correlation = 0
    for degree in range(count):
        name = f"products.{layer}.symmetric_contractions.contractions.{degree}"
        correlation = max(k for k in range(1, 9) if k == 1 or f"{name}.U_matrix_{k}" in file.tensors)
        for factors in range(1, correlation + 1):
            u = file.tensor(f"{name}.U_matrix_{factors}")
            if u.ndim == factors + 1:  # a scalar's has no axis of its own
                u = u[None]
            _refuse_unless(
                u.ndim == factors + 2 and u.size(0) == 2 * degree + 1, "products of other irreps than 0e, 1o, 2e, ...",
                f"{2 * degree + 1} rows in {name}", tuple(u.shape),
            )  # fmt: skip
            bases[degree, factors] = symmetrised(u)
            part = "weights_max" if factors == correlation else f"weights.{correlation - 1 - factors}"
            weights[degree, factors] = file.tensor(f"{name}.{part}")
    return bases, weights, correlation


def potential_of(path: Path, elements: Sequence[str] = (), head: str = "") -> tuple[ConservativePotential, MACEConfig]:
    """Return the potential of a file of MACE, float64, and its configuration.

    Parameters
    ----------
    path
        File of ``torch.save(model)``.
    elements
        Those to keep; all by default.
    head
        Which set of labels, where there are several.

    Raises
    ------
    EquistrideError
        Where the file cannot be read, or the network is one that we do not have.
    """
    file = _File(Path(path))
    _check_choices(file)
    number, heads = _head(file, head)
    numbers = [int(z) for z in file.tensor("atomic_numbers")]
    symbols = [chemical_symbols[z] if 0 < z < len(chemical_symbols) else "?" for z in numbers]
    unknown = [s for s in elements if s not in symbols]
    if unknown:
        raise EquistrideError("the model does not know an element", expected=", ".join(symbols), found=unknown[0])
    kept = [symbols.index(s) for s in dict.fromkeys(elements)] if elements else list(range(len(symbols)))
    config, bases, weights, screening, radii = _network(file, kept)
    network = MACE(
        config, len(kept), numbers=[numbers[k] for k in kept], radii=radii, bases=bases, screening=screening
    ).double()
    state = _state(file, network, config, kept, weights, number, len(heads))
    scale = shift = torch.zeros(1, dtype=torch.float64)
    if file.root.name == "ScaleShiftMACE":
        scale, shift = (file.tensor(f"scale_shift.{name}").flatten() for name in ("scale", "shift"))
    else:
        scale = scale + 1.0
    alone = file.tensor("atomic_energies_fn.atomic_energies").view(-1, len(numbers))
    references = alone[min(number, alone.size(0) - 1)][kept] + shift[min(number, shift.numel() - 1)]
    factor = float(scale[min(number, scale.numel() - 1)])
    facts = {"scale and shift": torch.stack([scale, shift]), "energies of the elements": references}
    check_finite(facts)
    return loaded(network, state, [symbols[k] for k in kept], references.tolist(), factor), config


def _network(
    file: _File, kept: Sequence[int]
) -> tuple[MACEConfig, list[Bases], list[dict[tuple[int, int], Tensor]], Screening, list[float]]:
    """Return the configuration that the sizes and classes in a file tell, and what goes with it."""
    interactions = file.parts("interactions")
    layers = len(interactions)
    channels = file.tensor("node_embedding.linear.weight").numel() // file.tensor("atomic_numbers").numel()
    prefix = "products.{}.symmetric_contractions.contractions.{}.U_matrix_1"
    counts = [sum(prefix.format(t, k) in file.tensors for k in range(8)) for t in range(layers)]
    _refuse_unless(counts[-1] == 1, "features beside scalars after the last layer", 1, counts[-1])
    _refuse_unless(len(set(counts[:-1])) <= 1, "layers with features of different degrees", "one kind", counts)
    made = [_bases(file, t, count) for t, count in enumerate(counts)]
    inputs = file.tensor(prefix.format(0, 0)).size(-2)
    dense = ["Density" in part.name for part in interactions]
    _refuse_unless(len(set(dense)) == 1, "interactions with and without densities", "one kind", dense)
    for key in ("alpha", "beta"):
        _refuse_unless(
            not any(f"interactions.{t}.{key}" in file.tensors for t in range(layers)), f"a trainable density ({key})",
            "none", key,
        )  # fmt: skip
    embedding = file.root.attribute("radial_embedding")
    transform = embedding.attribute("distance_transform")
    kinds = {"AgnesiTransform": "agnesi", "SoftTransform": "soft"}
    kind = "none" if transform is None else kinds.get(transform.name, "")
    _refuse_unless(kind != "", "a distance transform that the import does not know", ", ".join(kinds), transform)
    parameters = {"none": (), "agnesi": ("a", "p", "q"), "soft": ("alpha",)}[kind]
    config = config_from(MACEConfig, {
        "cutoff": file.number("r_max"),
        "num_layers": layers,
        "l_max": math.isqrt(inputs) - 1,
        "l_features": (counts[0] if layers > 1 else 1) - 1,
        "channels": channels,
        "correlation": [correlation for _, _, correlation in made],
        "num_basis": file.tensor("radial_embedding.bessel_fn.bessel_weights").numel(),
        "envelope_exponent": int(file.number("radial_embedding.cutoff_fn.p")),
        "envelope_last": embedding.attribute("apply_cutoff", True) is False,
        "radial_widths": [w.size(1) for w in file.stack("interactions.0.conv_tp_weights")[:-1]],
        "avg_num_neighbors": [float(part.attribute("avg_num_neighbors", 1.0)) for part in interactions],
        "residual": ["Residual" in part.name for part in interactions],
        "density": dense[0],
        "transform": kind,
        "transform_parameters": [file.number(f"radial_embedding.distance_transform.{p}") for p in parameters],
        "readout_width": file.tensor(f"readouts.{layers - 1}.linear_1.weight").numel()
        // (channels * len(file.root.attribute("heads") or [0])),
        "repulsion_exponent": int(file.number("pair_repulsion_fn.p")) if "pair_repulsion_fn.p" in file.tensors else None,
        "coulomb": COULOMB,
    })  # fmt: skip
    screening, radii = UNIVERSAL, []
    numbers = file.tensor("atomic_numbers").long()[list(kept)]
    for name in ("radial_embedding.distance_transform", "pair_repulsion_fn"):
        if f"{name}.covalent_radii" in file.tensors:
            radii = file.tensor(f"{name}.covalent_radii")[numbers].tolist()
    if config.repulsion_exponent is not None:
        factors = file.tensor("pair_repulsion_fn.c").tolist()
        length = file.number("pair_repulsion_fn.a_prefactor") * BOHR
        screening = Screening(file.number("pair_repulsion_fn.a_exp"), length, tuple(zip(factors, RATES, strict=True)))
    return config, [bases for bases, _, _ in made], [weights for _, weights, _ in made], screening, radii


def _sign(_: int, harmonic: int, __: int) -> float:
    return (-1.0) ** harmonic  # bonds point from the sender to the receiver there


def _state(
    file: _File, network: MACE, config: MACEConfig, kept: Sequence[int], weights: Sequence[dict[tuple[int, int], Tensor]],
    head: int, heads: int,
) -> dict[str, Tensor]:  # fmt: skip
    """Return the weights of our network."""
    count, channels, layers = file.tensor("atomic_numbers").numel(), config.channels, config.num_layers
    picked = list(kept)
    one_hot = torch.eye(count, dtype=torch.float64)[picked]
    state = {
        "embedding.weight": file.tensor("node_embedding.linear.weight").view(count, channels)[picked]
        / math.sqrt(count),
        "radial.basis.frequencies": file.tensor("radial_embedding.bessel_fn.bessel_weights").flatten() * config.cutoff,
    }

    def irreps(degree: int) -> Irreps:
        return with_channels(natural_irreps(degree), channels)

    for t, layer in enumerate(network.layers):
        assert isinstance(layer, MACELayer)
        assert isinstance(layer.messages, Messages)
        assert isinstance(layer.product, SymmetricContraction)
        convolution = layer.messages.convolution
        theirs, ours = f"interactions.{t}", f"layers.{t}"
        inputs, outputs, summed = irreps(config.degrees[t]), irreps(config.degrees[t + 1]), irreps(config.l_max)
        paths = Paths(inputs, config.harmonics, [ir for _, ir in summed], sorted_weights=True)

        def read(name: str, a: Irreps, b: Irreps, part: str = theirs) -> dict[Any, Tensor]:
            return linear(file.tensor(f"{part}.{name}.weight"), a, b, f"{part}.{name}")

        put(state, f"{ours}.up", layer.up, read("linear_up", inputs, inputs))
        down = {ir: part[paths.rows(convolution, ir)] for ir, part in read("linear", paths.irreps, summed).items()}
        number = 1.0 if config.density else config.avg_num_neighbors[t]
        put(state, f"{ours}.down", layer.down, {ir: part * layer.divisor / number for ir, part in down.items()})
        source, target = (inputs, outputs) if layer.residual else (summed, summed)
        flat = file.tensor(f"{theirs}.skip_tp.weight")
        put(state, f"{ours}.own_linear", layer.own_linear, linear_by_species(flat, source, target, one_hot, theirs))
        put(state, f"{ours}.mix", layer.mix, read("linear", outputs, outputs, f"products.{t}"))
        radial = file.stack(f"{theirs}.conv_tp_weights")
        columns, signs = paths.columns(convolution, _sign)
        _refuse_unless(
            radial[-1].size(1) == paths.weights, "radial weights that do not fit", paths.weights, radial[-1].size(1)
        )
        for k, weight in enumerate([*radial[:-1], radial[-1][:, columns] * signs]):
            state[f"{ours}.messages.weights.weights.network.layers.{k}.weight"] = weight
        if config.density:
            state[f"{ours}.density.weights.network.layers.0.weight"] = file.tensor(f"{theirs}.density_fn.layer0.weight")
        state |= {f"{ours}.product.{name}": table for name, table in layer.product.named_buffers()}
        # paths without a product are in the file and count nothing
        state[f"{ours}.product.weight"] = torch.cat(
            [
                weight[picked]
                for key, weight in weights[t].items()
                if weight.size(1) == layer.product.paths_of.get(key, 0)
            ],
            1,
        )
        if t < layers - 1:
            read_out = read("linear", irreps(0), Irreps([(heads, "0e")]), f"readouts.{t}")
            state[f"readouts.{t}.layers.0.weight"] = next(iter(read_out.values()))[:, [head]] * math.sqrt(channels)
    width = config.readout_width
    first = file.tensor(f"readouts.{layers - 1}.linear_1.weight").view(channels, heads * width)
    second = file.tensor(f"readouts.{layers - 1}.linear_2.weight").view(heads * width, heads)
    mine = slice(head * width, (head + 1) * width)
    state[f"readouts.{layers - 1}.layers.0.weight"] = first[:, mine]
    state[f"readouts.{layers - 1}.layers.1.weight"] = second[mine, [head]].view(width, 1) / math.sqrt(heads)
    return state


def import_mace(
    model: Path, output: Path, *, elements: Sequence[str] = (), head: str = "", dtype: str = "float32",
    description: str = "", licence: str = "", references: list[str] | None = None, fused: bool = True,
    container: Container = "torchscript",
) -> Metadata:  # fmt: skip
    """Turn a model of MACE into an artifact; mace-torch is not needed and no code of the file runs.

    Parameters
    ----------
    model
        File of ``torch.save(model)``, as mace-torch writes it at the end of a training.
    output
        Where the artifact goes.
    elements, head
        See :func:`potential_of`.
    dtype
        ``"float32"`` or ``"float64"``: the precision in which engines run it.
    description, licence, references
        For the metadata. Files of MACE do not say their licence; some released ones are for academic use alone.
    fused, container
        As for :func:`equistride.artifact.export.export`.

    Returns
    -------
    Metadata
        What the file says of itself.
    """
    potential, config = potential_of(model, elements, head)
    return save_imported(
        potential, config, Path(model), output, program="mace-torch", version="",
        description=description or f"{Path(model).stem} of MACE{', ' + head if head else ''}", licence=licence,
        references=references or REFERENCES, dtype=dtype, fused=fused, container=container,
        weights={"head": head} if head else {},
    )  # fmt: skip
