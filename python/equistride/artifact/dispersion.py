"""Dispersion of D3(BJ) added to an artifact: the parameters come from tad-dftd3, the energy is computed by the file itself."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch

from equistride.artifact.archive import save, script_of
from equistride.artifact.metadata import Metadata
from equistride.artifact.native import open_native
from equistride.artifact.reference import reference_side
from equistride.elements import atomic_numbers_of
from equistride.errors import EquistrideError
from equistride.models.dispersed import DispersedPotential
from equistride.nn.dispersion import Damping, Dispersion, References
from equistride.units import BOHR, HARTREE

CUTOFF: Final = 40.0 * BOHR
"""A; that of MACE's calculator and torch-dftd."""
WIDTH: Final = 1.0
"""A; over this length before the cutoff pairs are switched off. Other programs cut them off."""
PUBLICATIONS: Final = ("D3: 10.1063/1.3382344", "D3(BJ): 10.1002/jcc.21759")
_MOST_EDGES: Final = 60_000
"""Of the reference frame."""


def _library() -> Any:
    try:
        import tad_dftd3
    except ImportError:
        raise EquistrideError("tad-dftd3 is not installed", hint="pip install 'equistride[dispersion]'") from None
    return tad_dftd3


def damping_of(functional: str) -> Damping:
    """Return the parameters of a functional's D3(BJ) by its name.

    Raises
    ------
    EquistrideError
        Where tad-dftd3 is missing, or does not know the functional or its D3(BJ).
    """
    library = _library()
    try:
        found = library.param.get_functional_params(functional, damping="bj", dtype=torch.float64)
    except (KeyError, ValueError):
        raise EquistrideError(
            "D3(BJ) has no parameters for this functional", expected="that of the training data by its name, as pbe, "
            "r2scan, wb97m", found=functional,
        ) from None  # fmt: skip
    s6, s8, a1, a2 = (float(found[name]) for name in ("s6", "s8", "a1", "a2"))
    return Damping(s6, s8, a1, a2 * BOHR)


def references_of(species: Sequence[str]) -> References:
    """Return what D3 knows of these elements.

    Raises
    ------
    EquistrideError
        Where tad-dftd3 is missing, or D3 does not know an element.
    """
    library = _library()
    from tad_mctc.data import radii

    numbers = torch.as_tensor(atomic_numbers_of(list(species), "the model"))
    reference = library.reference.Reference(dtype=torch.float64)
    known = reference.cn.size(0)
    unknown = [
        s for s, z in zip(species, numbers.tolist(), strict=True) if z >= known or not (reference.cn[z] >= 0).any()
    ]
    if unknown:
        raise EquistrideError("D3 does not know all of the model's elements", found=", ".join(unknown))
    c6 = reference.c6[numbers][:, numbers] * HARTREE * BOHR**6
    return References(
        radii.COV_D3(dtype=torch.float64)[numbers] * BOHR, library.data.R4R2(dtype=torch.float64)[numbers] * BOHR,
        reference.cn[numbers], c6.permute(0, 2, 1, 3).contiguous(),
    )  # fmt: skip


def _spacing(atoms: int, near: float, cutoff: float) -> float:
    """Return a distance of sites [A] at which the network has neighbours, and the frame not too many edges."""
    most = (atoms * 4.2 * cutoff**3 / _MOST_EDGES) ** (1 / 3)
    return max(0.45 * near, most)


def with_dispersion(
    path: str | Path, output: str | Path, functional: str, *, cutoff: float | None = None, width: float = WIDTH
) -> Metadata:
    """Write an artifact with D3(BJ), without its three-body term, added to the energy.

    Parameters
    ----------
    path, output
        The artifact of a potential, and where the new one goes.
    functional
        Name of the functional of the training data, as ``pbe``.
    cutoff
        Of pairs and of coordination numbers [A]; 40 bohr by default. The engines' lists reach as far.
    width
        Over this length before the cutoff both are switched off [A].

    Returns
    -------
    Metadata
        Of the new file.

    Raises
    ------
    EquistrideError
        For propagators, compiled files, potentials that look at all atoms or whose forces are no gradient, those that have D3
        already, and what D3 has no parameters for.
    """
    cutoff = CUTOFF if cutoff is None else cutoff
    metadata = Metadata.of(open_native(path, verify=False), path)
    if metadata.kind != "potential" or not metadata.capabilities.decomposable:
        raise EquistrideError(
            f"dispersion cannot be added to {path}", expected="a potential of atomic energies whose forces are their gradient",
            found=f"a {metadata.kind}{'' if metadata.kind == 'propagator' else ' that is not decomposable'}",
        )  # fmt: skip
    if "dispersion" in metadata.weights:
        raise EquistrideError(f"{path} has dispersion already", found=metadata.weights["dispersion"])
    if metadata.members > 1:
        raise EquistrideError(
            "dispersion is for one potential", found="an ensemble", hint="add it to its members first"
        )
    if not (cutoff - width >= metadata.cutoff and width >= 0):
        raise EquistrideError(
            "dispersion must reach farther than the network",
            expected=f"a cutoff of {metadata.cutoff + width:g} A or more", found=f"{cutoff:g} A",
        )  # fmt: skip
    damping, references = damping_of(functional), references_of(metadata.species)
    module = DispersedPotential(script_of(path), metadata.cutoff, Dispersion(references, damping, cutoff, width))
    facts = {
        "cutoff": cutoff,
        "message_passing_steps": metadata.message_passing_steps + 1,
        "description": f"{metadata.description} + D3(BJ) of {functional}".lstrip(" +"),
        "references": [*metadata.references, *PUBLICATIONS],
        "weights": metadata.weights
        | {
            "dispersion": {
                "method": "D3(BJ), two bodies", "functional": functional, **damping._asdict(), "cutoff_A": cutoff,
                "switched_over_A": width, "parameters": f"tad-dftd3 {version('tad-dftd3')}",
            }
        },
    }  # fmt: skip
    counts = metadata.counts
    atoms = sum(counts) if counts else reference_side(len(metadata.species), None) ** 3
    spacing = _spacing(atoms, metadata.cutoff, cutoff)
    return save(module, metadata.model_copy(update=facts), Path(output), spacing=spacing)
