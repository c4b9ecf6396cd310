"""Import of MACE models (Batatia et al., arXiv 2206.07697), as mace-torch 0.3 saves them: ``MACE`` and ``ScaleShiftMACE``.

A file of MACE is a pickled network, with classes of mace and e3nn and programs as text in it. None of them is imported and
nothing runs: weights, and the classes' names, are all that is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from ase.data import chemical_symbols

from equistride.artifact.export import require_conservative
from equistride.artifact.metadata import Container, Metadata
from equistride.errors import EquistrideError
from equistride.importers.common import check_finite, loaded, reading_configuration, refuse_unknown, save_imported
from equistride.importers.mace_file import MEND, TABLES, MACEFile
from equistride.importers.mace_file import refuse_model_unless as refuse_unless
from equistride.importers.mace_network import describe
from equistride.importers.mace_weights import Weights
from equistride.models.mace import MACE
from equistride.models.mace_config import MACEConfig
from equistride.models.potential import ConservativePotential

REFERENCES: Final = ["arXiv:2206.07697", "arXiv:2205.06643"]
SYSTEM: Final = {"charge": 0.0, "spin": 1.0}
"""What MACE takes where a structure says nothing."""


def _head(file: MACEFile, wanted: str) -> tuple[int, list[str]]:
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
    with reading_configuration(MEND):
        file = MACEFile(Path(path))
        number, heads = _head(file, head)
        numbers = [int(z) for z in file.tensor("atomic_numbers")]
        symbols = [chemical_symbols[z] if 0 < z < len(chemical_symbols) else "?" for z in numbers]
        refuse_unknown(elements, symbols, "model")
        kept = [symbols.index(s) for s in dict.fromkeys(elements)] if elements else list(range(len(symbols)))
        described = describe(file, kept)
    scale, shift = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    if file.root.name == "ScaleShiftMACE":
        scale, shift = (file.tensor(f"scale_shift.{name}").flatten() for name in ("scale", "shift"))
    alone = file.tensor("atomic_energies_fn.atomic_energies").view(-1, len(numbers))
    references = alone[min(number, alone.size(0) - 1)][kept] + shift[min(number, shift.numel() - 1)]
    check_finite({"scale": scale, "shift": shift, "energies of the elements": references})
    factor = float(scale[min(number, scale.numel() - 1)])
    refuse_unless(factor != 0.0, "a scale of 0, with which there is no network", "another", 0.0)
    network = MACE(
        described.config, len(kept), numbers=[numbers[k] for k in kept], radii=described.radii, bases=described.bases,
        screening=described.screening,
    ).double()  # fmt: skip
    state = Weights(file, described, kept, number, len(heads), factor).state(network)
    file.refuse_unread(TABLES)
    potential = loaded(network, state, [symbols[k] for k in kept], references.tolist(), factor)
    if described.config.features:
        network.set_system(SYSTEM["charge"], SYSTEM["spin"])
    return potential, described.config


def import_mace(
    model: Path, output: Path, *, elements: Sequence[str] = (), head: str = "", dtype: str = "float32",
    description: str = "", licence: str = "", references: list[str] | None = None, fused: bool = True,
    allow_nonconservative: bool = False, container: Container = "torchscript",
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
    allow_nonconservative
        Import a model whose bond weights end with a step at the cutoff, too; its metadata say so.
    fused, container
        As for :func:`equistride.artifact.export.export`.

    Returns
    -------
    Metadata
        What the file says of itself.
    """
    potential, config = potential_of(model, elements, head)
    require_conservative(config, model, allow_nonconservative)
    return save_imported(
        potential, config, Path(model), output, program="mace-torch",
        description=description or f"{Path(model).stem} of MACE{', ' + head if head else ''}", licence=licence,
        references=references or REFERENCES, dtype=dtype, fused=fused, container=container,
        weights={"head": head}, system=SYSTEM if config.features else None,
    )  # fmt: skip
