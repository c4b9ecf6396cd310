"""Isomers of C4H8O2 in motion: reference data in the form of ISO17, made with GFN2-xTB (tblite)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from equistride.data.frames import Frames
from equistride.data.pairs import join
from equistride.data.tight_binding import MoleculeRun
from equistride.errors import EquistrideError

ISOMERS = {
    "butanoic-acid": "CCCC(=O)O", "isobutyric-acid": "CC(C)C(=O)O", "ethyl-acetate": "CCOC(=O)C",
    "methyl-propanoate": "COC(=O)CC", "propyl-formate": "CCCOC=O", "isopropyl-formate": "CC(C)OC=O",
    "1,4-dioxane": "C1COCCO1", "1,3-dioxane": "C1COCOC1", "acetoin": "CC(O)C(=O)C",
    "4-hydroxy-2-butanone": "CC(=O)CCO", "1-hydroxy-2-butanone": "CCC(=O)CO", "3-hydroxybutanal": "CC(O)CC=O",
    "2-hydroxybutanal": "CCC(O)C=O", "4-hydroxybutanal": "OCCCC=O", "3-hydroxyoxolane": "OC1CCOC1",
    "2-hydroxyoxolane": "OC1CCCO1", "cyclobutane-1,2-diol": "OC1CCC1O", "2-methyl-1,3-dioxolane": "CC1OCCO1",
    "4-methyl-1,3-dioxolane": "CC1COCO1", "methoxyacetone": "COCC(=O)C", "3-methoxypropanal": "COCCC=O",
    "ethoxyacetaldehyde": "CCOCC=O", "but-2-ene-1,4-diol": "OCC=CCO", "oxetane-3-methanol": "OCC1COC1",
    "glycidyl-methyl-ether": "COCC1CO1", "3-hydroxy-2-methylpropanal": "OCC(C)C=O",
}  # fmt: skip
"""The molecules: name and bonds, in SMILES without hydrogen."""
UNKNOWN = (
    "isopropyl-formate",
    "1,3-dioxane",
    "1-hydroxy-2-butanone",
    "cyclobutane-1,2-diol",
    "ethoxyacetaldehyde",
    "glycidyl-methyl-ether",
)
"""Molecules that no training frame is of."""


@dataclass(frozen=True)
class IsomerRecipe:
    """How each molecule's trajectory is made: relaxed, thermalised with Langevin (BAOAB), then followed in NVE, every step kept.

    ``frames`` in one trajectory, ``timestep_fs`` apart; ``test_fraction`` at its end goes to the test frames of known
    molecules, with ``guard`` frames left out before them; ``segment`` frames stay together in training or validation.
    """

    frames: int = 1000
    timestep_fs: float = 1.0
    temperature_K: float = 500.0
    equilibrate_fs: float = 1000.0
    friction_fs: float = 50.0
    test_fraction: float = 0.2
    guard: int = 20
    segment: int = 20
    seed: int = 1


def trajectory(name: str, recipe: IsomerRecipe) -> Frames:
    """Return the trajectory of one isomer: positions, velocities, energies, forces, one frame a step.

    Raises
    ------
    EquistrideError
        Where the name is not known, or a bond breaks on the way.
    """
    if name not in ISOMERS:
        raise EquistrideError(f"there is no isomer {name!r}", expected=", ".join(ISOMERS), found=name)
    rng = np.random.default_rng((recipe.seed, list(ISOMERS).index(name)))
    run = MoleculeRun(
        ISOMERS[name], rng, temperature_K=recipe.temperature_K, timestep_fs=recipe.timestep_fs,
        friction_fs=recipe.friction_fs, name=name,
    )  # fmt: skip
    run.thermalise(recipe.equilibrate_fs)
    return run.follow(recipe.frames)


def generate(
    folder: Path, recipe: IsomerRecipe, names: Sequence[str] | None = None, progress: Callable[[int, int], None] | None = None
) -> dict[str, Frames]:  # fmt: skip
    """Make the trajectories of the isomers that are not there yet, and from all of them the sets of ISO17's form.

    Each molecule has a file, so that a run that was stopped goes on where it was.

    Returns
    -------
    dict
        ``reference`` (training frames of known molecules), ``test_within`` (later frames of them), ``test_other`` (unknown
        molecules), as written to ``folder``; a set without molecules is left out.
    """
    from equistride.data.frames import load

    names = list(names or ISOMERS)
    parts: dict[str, Frames] = {}
    for k, name in enumerate(names):
        path = folder / "molecules" / f"{name}.npz"
        if not path.is_file():
            trajectory(name, recipe).save(path)
        parts[name] = load(path)[0]
        if len(parts[name]) != recipe.frames:
            raise EquistrideError(
                f"{path} is of another recipe", expected=f"{recipe.frames} frames", found=len(parts[name]),
                hint="choose another folder, or delete the file",
            )  # fmt: skip
        if progress is not None:
            progress(k + 1, len(names))
    sets: dict[str, list[Frames]] = {"reference": [], "test_within": [], "test_other": []}
    first_test = round(recipe.frames * (1 - recipe.test_fraction))
    for name, frames in parts.items():
        if name in UNKNOWN:
            sets["test_other"].append(frames)
        else:
            sets["reference"].append(frames[: max(1, first_test - recipe.guard)])
            sets["test_within"].append(frames[first_test:])
    written = {}
    for title, members in sets.items():
        if members:
            written[title] = join([replace(f, segment=np.arange(len(f)) // recipe.segment) for f in members])
            written[title].save(folder / f"{title}.npz")
    return written
