"""A pickled network of MACE: its tensors by name, its parts by class, and what the import does not know of them.

Nothing that a file has is passed over: a tensor that no layer of ours asked for is refused at the end.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any, Final

from e3nn.o3 import Irreps

from equistride.errors import EquistrideError
from equistride.importers.common import StoredWeights, refuse_unless
from equistride.importers.foreign import Record, read_file, tensors_of
from equistride.nn.degrees import NORMALISED_SIGMOID
from equistride.nn.scalar_network import NORMALISED_SILU

MEND: Final = "give a model as mace-torch saves it at the end of a training (.model)"
MODELS: Final = ("MACE", "ScaleShiftMACE")
OTHER_MODELS: Final = {
    "MACELES": "its long-range electrostatics (LES) need sums over all atoms",
    "PolarMACE": "its charges (POLAR) are found by iteration over all atoms",
    "AtomicDipolesMACE": "it gives dipoles and no energy",
    "AtomicDielectricMACE": "it gives dipoles and polarisabilities and no energy",
    "EnergyDipolesMACE": "its dipoles are terms that no engine of ours has",
}
"""Models of mace-torch that are not imported, and why."""
GATED: Final = "RealAgnosticResidualNonLinearInteractionBlock"
INTERACTIONS: Final = (
    "RealAgnosticInteractionBlock",
    "RealAgnosticResidualInteractionBlock",
    "RealAgnosticDensityInteractionBlock",
    "RealAgnosticDensityResidualInteractionBlock",
    GATED,
)
READOUTS: Final = ("NonLinearReadoutBlock", "NonLinearBiasReadoutBlock")
PARTS: Final = {
    "node_embedding", "joint_embedding", "embedding_readout", "radial_embedding", "pair_repulsion_fn",
    "spherical_harmonics", "atomic_energies_fn", "interactions", "products", "readouts", "scale_shift",
}  # fmt: skip
"""Of the whole network."""
TABLES: Final = re.compile(
    r"\.output_mask$|\.conv_tp\.|_w3j_|^num_interactions$|\.bessel_fn\.prefactor$|\.weights_\w+_zeroed$|\.equivariant_nonlin\."
    r"|^spherical_harmonics\.|\.non_linearity\."
)
"""Tensors that follow from sizes."""

refuse_model_unless: Final = partial(refuse_unless, hint=MEND, thing="model")


def irreps_of(record: Any) -> Irreps | None:
    """Return pickled irreps; None where there are none."""
    if not isinstance(record, Record) or record.name != "Irreps" or not record.arguments:
        return None
    blocks = [tuple(block.arguments[0]) for block in record.arguments[0]]
    return Irreps([(int(mul), tuple(int(k) for k in ir.arguments[0])) for mul, ir in blocks])


class MACEFile(StoredWeights):
    """A file of ``torch.save(model)``.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    EquistrideError
        Where the file cannot be read or is of a model that we do not have; so do all methods.
    """

    def __init__(self, path: Path) -> None:
        root = read_file(path, MEND)
        if not isinstance(root, Record) or (root.name not in OTHER_MODELS and not root.origin.startswith("mace.")):
            raise EquistrideError(
                f"{path} is not a model of MACE", expected="a pickled network of mace.modules",
                found=getattr(root, "origin", "") or type(root).__name__, hint=MEND,
            )  # fmt: skip
        if root.name not in MODELS:
            raise EquistrideError(
                f"{path} is a {root.name}, which the import does not know", expected=" or ".join(MODELS),
                hint=OTHER_MODELS.get(root.name, MEND),
            )  # fmt: skip
        super().__init__(tensors_of(root), MEND, "model")
        self.root = root
        self.check()

    def number(self, name: str) -> float:
        """Return a tensor of one number."""
        value = self.tensor(name)
        refuse_model_unless(value.numel() == 1, f"a {name} of several numbers", "one", value.numel())
        return float(value)

    def skip(self, prefix: str) -> None:
        """Count all tensors of a part as read: they do not reach the energy."""
        self.read |= {name for name in self.state if name.startswith(prefix)}

    def parts(self, name: str) -> list[Record]:
        """Return the members of a list of modules."""
        found = self.root.attribute(name)
        members = found.state.get("_modules", {}) if isinstance(found, Record) and isinstance(found.state, dict) else {}
        refuse_model_unless(
            bool(members) and all(isinstance(m, Record) for m in members.values()), f"no {name}", "a list", "none"
        )
        return list(members.values())

    def sequence(self, name: str) -> list[int]:
        """Return the numbers of the linear layers in a sequence of Linear, LayerNorm, SiLU, ..., Linear."""
        found = [k for k in range(0, 48, 3) if f"{name}.net.{k}.weight" in self.state]
        refuse_model_unless(len(found) >= 2, f"no network {name}", "two linear layers or more", len(found))
        return found

    def check(self) -> None:
        """Refuse parts that the import does not know, by their names."""
        root = self.root
        modules = set(root.state.get("_modules", {})) if isinstance(root.state, dict) else set()
        unknown = sorted(modules - PARTS)
        refuse_model_unless(
            not unknown, f"a part that the import does not know ({', '.join(unknown)})",
            "energies of MACE alone", getattr(root.attribute(unknown[0]), "origin", "") if unknown else "",
        )  # fmt: skip
        refuse_model_unless(
            not root.attribute("use_so3"),
            "features without parity (use_so3), which the import does not know",
            False,
            True,
        )
        harmonics = root.attribute("spherical_harmonics")
        normal = [
            (harmonics.attribute(k) if isinstance(harmonics, Record) else None) for k in ("normalize", "normalization")
        ]
        refuse_model_unless(normal in ([True, "component"], [None, None]), "other harmonics", "component", normal)
        for part in self.parts("interactions"):
            refuse_model_unless(
                part.name in INTERACTIONS, f"interactions that the import does not know ({part.name})",
                ", ".join(INTERACTIONS), part.name,
            )  # fmt: skip
            if part.name == GATED:
                self._check_gate(part.attribute("equivariant_nonlin"))
        for part in self.parts("products"):
            refuse_model_unless(
                part.name == "EquivariantProductBasisBlock", "products that the import does not know",
                "EquivariantProductBasisBlock", part.name,
            )  # fmt: skip
        self._check_acceleration()
        self._check_readouts()
        basis = root.attribute("radial_embedding").attribute("bessel_fn")
        refuse_model_unless(
            basis.name == "BesselBasis", "a radial basis that the import does not know", "Bessel", basis.name
        )
        for name in ("radial_embedding.bessel_fn.r_max", "radial_embedding.cutoff_fn.r_max"):
            if name in self.state:
                same = abs(self.number(name) - self.number("r_max")) < 1e-6
                refuse_model_unless(same, "two cutoffs", self.number("r_max"), self.number(name))

    def _check_acceleration(self) -> None:
        """Refuse weights in the layout of cuEquivariance."""
        for part in [*self.parts("interactions"), *self.parts("products")]:
            config = part.attribute("cueq_config")
            ours = not isinstance(config, Record) or not config.attribute("enabled")
            contraction = part.attribute("symmetric_contractions")
            if isinstance(contraction, Record):
                ours = ours and contraction.origin.startswith("mace.")
            if not ours:
                raise EquistrideError(
                    "the model has its weights in the layout of cuEquivariance", expected="e3nn's, in which mace-torch saves",
                    hint="convert it with mace_cueq_to_e3nn, which comes with mace-torch",
                )  # fmt: skip

    def _check_gate(self, gate: Any) -> None:
        found = {"scalars": gate.attribute("_scalar_cst"), "gates": gate.attribute("_gate_cst")}
        for name, part in (("scalars", "act_scalars"), ("gates", "act_gates")):  # e3nn's, of earlier versions
            if isinstance(gate.attribute(part), Record):
                found[name] = next(iter(_factors(gate.attribute(part))), None)
        fine = all(
            isinstance(found[name], float) and abs(found[name] - expected) < 1e-6
            for name, expected in (("scalars", NORMALISED_SILU), ("gates", NORMALISED_SIGMOID))
        )
        refuse_model_unless(fine, "a gate with other functions than SiLU and the sigmoid", "these", found)

    def _check_readouts(self) -> None:
        readouts, layers = self.parts("readouts"), len(self.parts("interactions"))
        kinds = [part.name for part in readouts]
        refuse_model_unless(
            kinds[-1] in READOUTS and set(kinds[:-1]) <= {"LinearReadoutBlock"} and len(kinds) in (1, layers),
            "read-outs that the import does not know", f"one linear a layer, or none, and in the last {' or '.join(READOUTS)}",
            ", ".join(kinds),
        )  # fmt: skip
        factors = _factors(readouts[-1].attribute("non_linearity"))
        refuse_model_unless(
            all(abs(f - NORMALISED_SILU) < 1e-6 for f in factors), "a read-out with another function than SiLU",
            NORMALISED_SILU, factors,
        )  # fmt: skip


def _factors(activation: Any) -> list[float]:
    """Return the factors of the functions in e3nn's Activation."""
    acts = activation.attribute("acts") if isinstance(activation, Record) else None
    members = acts.state["_modules"].values() if isinstance(acts, Record) else []
    return [float(act.attribute("cst")) for act in members if isinstance(act, Record)]
