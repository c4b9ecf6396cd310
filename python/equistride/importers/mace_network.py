"""What network a file of MACE holds: sizes and choices, from its classes and the shapes of its tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from e3nn.o3 import Irreps
from torch import Tensor

from equistride.importers.common import config_from
from equistride.importers.foreign import Record
from equistride.importers.mace_file import GATED, MACEFile, irreps_of
from equistride.importers.mace_file import refuse_model_unless as refuse_unless
from equistride.models.mace_config import MACEConfig
from equistride.nn.equivariant import natural_irreps, with_channels
from equistride.nn.repulsion import UNIVERSAL, Screening
from equistride.nn.symmetric_contraction import Bases, symmetrised

COULOMB: Final = 14.3996
"""Of MACE's nuclear repulsion [eV A]."""
BOHR: Final = 0.529
"""Of MACE's screening length [A]."""
RATES: Final = (3.2, 0.9423, 0.4028, 0.2016)
NUMBERS: Final = {"total_charge": "charge", "total_spin": "spin"}
"""Of the whole system, as MACE names them and as we do."""
TRANSFORMS: Final = {"AgnesiTransform": "agnesi", "SoftTransform": "soft"}


class Described(NamedTuple):
    """What a file says of its network.

    ``bases`` and ``weights`` of the products [S or 1, K, C], layer by layer; ``screening`` of the repulsion; ``radii`` of the
    elements [A]; ``sent`` the irreps that neighbours send in each layer, ``last`` the largest degree after the last one, both as
    the file has them.
    """

    config: MACEConfig
    bases: list[Bases]
    weights: list[dict[tuple[int, int], Tensor]]
    screening: Screening
    radii: list[float]
    sent: list[Irreps]
    last: int


def _products(file: MACEFile, layer: int, count: int) -> tuple[Bases, dict[tuple[int, int], Tensor], int]:
    """Return the coupled products of a layer, their weights [S, K, C], and the largest number of factors."""
    bases: dict[tuple[int, int], Any] = {}
    weights: dict[tuple[int, int], Tensor] = {}
    correlation = 0
    for degree in range(count):
        name = f"products.{layer}.symmetric_contractions.contractions.{degree}"
        correlation = max(k for k in range(1, 9) if k == 1 or f"{name}.U_matrix_{k}" in file.state)
        for factors in range(1, correlation + 1):
            u = file.tensor(f"{name}.U_matrix_{factors}")
            if u.ndim == factors + 1:  # a scalar's has no axis of its own
                u = u[None]
            refuse_unless(
                u.ndim == factors + 2 and u.size(0) == 2 * degree + 1, "products of other irreps than 0e, 1o, 2e, ...",
                f"{2 * degree + 1} rows in {name}", tuple(u.shape),
            )  # fmt: skip
            bases[degree, factors] = symmetrised(u)
            part = "weights_max" if factors == correlation else f"weights.{correlation - 1 - factors}"
            weights[degree, factors] = file.tensor(f"{name}.{part}")
    return bases, weights, correlation


def _sent(file: MACEFile, part: Record, features: Irreps) -> Irreps:
    """Return the irreps that neighbours send in an interaction."""
    sent = irreps_of(part.attribute("edge_irreps")) or features
    irreps = [ir for _, ir in sent]
    refuse_unless(
        irreps == natural_irreps(len(irreps) - 1),
        "messages of other irreps than 0e, 1o, 2e, ...",
        "all up to one",
        sent,
    )
    return sent


def _feature(name: str, spec: Any) -> dict[str, Any]:
    """Return how a number of the system is embedded."""
    kinds = ("categorical", "continuous")
    given = spec if isinstance(spec, dict) else {}
    known = (
        name in NUMBERS and given.get("per") == "graph" and given.get("type") in kinds and given.get("in_dim", 1) == 1
    )
    refuse_unless(
        known, f"an embedding that the import does not know ({name})", "total_charge and total_spin, one number a system",
        f"{given.get('type')} per {given.get('per')}",
    )  # fmt: skip
    feature = {"name": NUMBERS[name], "width": given["emb_dim"], "bias": given.get("use_bias", True)}
    if given["type"] == "categorical":
        feature |= {"classes": given["num_classes"], "lowest": -int(given.get("offset", 0))}
    return feature


def _divisor(name: str) -> str:
    if name == GATED:
        return "nonlinear"
    return "density" if "Density" in name else "number"


def describe(file: MACEFile, kept: Sequence[int]) -> Described:
    """Return the network of a file, for the elements ``kept`` of those that it has."""
    interactions, root = file.parts("interactions"), file.root
    layers = len(interactions)
    channels = file.tensor("node_embedding.linear.weight").numel() // file.tensor("atomic_numbers").numel()
    prefix = "products.{}.symmetric_contractions.contractions.{}."
    counts = [sum((prefix + "U_matrix_1").format(t, k) in file.state for k in range(8)) for t in range(layers)]
    refuse_unless(all(counts), "no products", "U_matrix_1 in every layer", counts)
    refuse_unless(len(set(counts[:-1])) <= 1, "layers with features of different degrees", "one kind", counts)
    for degree in range(1, counts[-1]):  # no read-out has a use for them
        file.skip(prefix.format(layers - 1, degree))
    made = [_products(file, t, count) for t, count in enumerate([*counts[:-1], 1])]
    inputs = file.tensor((prefix + "U_matrix_1").format(0, 0)).size(-2)
    features = [with_channels(natural_irreps(d - 1), channels) for d in [1, *counts[:-1]]]
    sent = [_sent(file, part, irreps) for part, irreps in zip(interactions, features, strict=True)]
    divisors = [_divisor(part.name) for part in interactions]
    for key in ("alpha", "beta"):
        refuse_unless(
            all(f"interactions.{t}.{key}" not in file.state for t in range(layers) if divisors[t] != "nonlinear"),
            f"a trainable density ({key})", "none", key,
        )  # fmt: skip
    embedding = root.attribute("radial_embedding")
    transform = embedding.attribute("distance_transform")
    kind = "none" if transform is None else TRANSFORMS.get(transform.name, "")
    refuse_unless(
        kind != "",
        "a distance transform that the import does not know",
        ", ".join(TRANSFORMS),
        getattr(transform, "origin", ""),
    )
    parameters = {"none": (), "agnesi": ("a", "p", "q"), "soft": ("alpha",)}[kind]
    readouts = file.parts("readouts")
    last = f"readouts.{len(readouts) - 1}"
    width = file.tensor(f"{last}.linear_1.weight").numel() // (channels * len(root.attribute("heads") or [0]))
    biased = readouts[-1].name == "NonLinearBiasReadoutBlock"
    specs = root.attribute("embedding_specs") if root.attribute("joint_embedding") is not None else None

    def hidden(t: int, name: str) -> list[int]:
        network = f"interactions.{t}.{name}"
        if divisors[t] == "nonlinear":
            return [file.tensor(f"{network}.net.{k}.weight").size(0) for k in file.sequence(network)[:-1]]
        return [w.size(1) for w in file.stack(network)[:-1]]

    widths = [hidden(t, "conv_tp_weights") for t in range(layers)]
    refuse_unless(all(w == widths[0] for w in widths), "radial networks of different sizes", widths[0], widths)
    gated = [t for t, divisor in enumerate(divisors) if divisor == "nonlinear"]
    widths_sent = [[mul for mul, _ in irreps][: len(f)] for irreps, f in zip(sent, features, strict=True)]
    config = config_from(MACEConfig, {
        "cutoff": file.number("r_max"),
        "num_layers": layers,
        "l_max": math.isqrt(inputs) - 1,
        "l_features": (counts[0] if layers > 1 else 1) - 1,
        "channels": channels,
        "sent_channels": None if sent == features else widths_sent,
        "correlation": [correlation for _, _, correlation in made],
        "agnostic": bool(root.attribute("use_agnostic_product")),
        "num_basis": file.tensor("radial_embedding.bessel_fn.bessel_weights").numel(),
        "envelope_exponent": int(file.number("radial_embedding.cutoff_fn.p")),
        "envelope_last": embedding.attribute("apply_cutoff", True) is False,
        "radial_widths": widths[0],
        "density_widths": hidden(gated[0], "density_fn") if gated else [64],
        "divisors": divisors,
        "avg_num_neighbors": [float(part.attribute("avg_num_neighbors", 1.0)) for part in interactions],
        "residual": ["Residual" in part.name for part in interactions],
        "transform": kind,
        "transform_parameters": [file.number(f"radial_embedding.distance_transform.{p}") for p in parameters],
        "readouts": "all" if len(readouts) == layers else "last",
        "readout_widths": [width, width] if biased else [width],
        "readout_bias": biased,
        "features": [_feature(name, spec) for name, spec in specs.items()] if specs else [],
        "start_readout": bool(specs) and root.attribute("embedding_readout") is not None,
        "repulsion_exponent": int(file.number("pair_repulsion_fn.p")) if "pair_repulsion_fn.p" in file.state else None,
        "coulomb": COULOMB,
    })  # fmt: skip
    screening, radii = _spheres(file, config, kept)
    return Described(config, [b for b, _, _ in made], [w for _, w, _ in made], screening, radii, sent, counts[-1] - 1)


def _spheres(file: MACEFile, config: MACEConfig, kept: Sequence[int]) -> tuple[Screening, list[float]]:
    """Return the screening of the nuclear repulsion and the covalent radii of the elements."""
    radii: list[float] = []
    numbers = file.tensor("atomic_numbers").long()[list(kept)]
    for name in ("radial_embedding.distance_transform", "pair_repulsion_fn"):
        if f"{name}.covalent_radii" in file.state:
            found = file.tensor(f"{name}.covalent_radii")[numbers].tolist()
            refuse_unless(radii in ([], found), "two sets of covalent radii", "one", "two")
            radii = found
    if config.repulsion_exponent is None:
        return UNIVERSAL, radii
    factors = file.tensor("pair_repulsion_fn.c").tolist()
    length = file.number("pair_repulsion_fn.a_prefactor") * BOHR
    return Screening(file.number("pair_repulsion_fn.a_exp"), length, tuple(zip(factors, RATES, strict=True))), radii
