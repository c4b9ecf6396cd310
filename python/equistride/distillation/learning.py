"""The student learns: ``equistride train`` on the walks, going on from its checkpoint where it was broken off, and the export."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from equistride.artifact.checkpoint import LAST, PREVIOUS
from equistride.artifact.export import export
from equistride.data.frames import load
from equistride.training.config import AnyConfig, PropagatorConfig
from equistride.training.run import train

NEAREST, WITHIN = 0.75, 0.33
"""Down to that share of the shortest bond of the data, and of the cutoff, a propagator's tables cover bonds: the frame by which
files are tested has bonds of 0.37 cutoffs."""
TABLES = 1e-4
"""Relative error of those tables."""


def learn(config: AnyConfig, root: Path, output: Path, progress: Callable[[int, int], None]) -> dict[str, float]:
    """Train, or go on; return the errors on frames that were held back and on walks that were never seen.

    Parameters
    ----------
    config, root, output
        The configuration, the folder of the distillation, and that of the run in it.
    progress
        Told steps done and steps in all.
    """
    begun = any((output / "checkpoints" / name).is_file() for name in (LAST, PREVIOUS))
    return train(config, root, output, resume=begun, progress=False, tick=progress)


def shortest_bond(path: Path) -> float:
    """Return the shortest distance [A] between two atoms in the frames of a file."""
    from ase import Atoms

    shortest = np.inf
    for frames in load(path, labelled=False):
        for k in range(0, len(frames), max(1, len(frames) // 50)):
            atoms = Atoms(frames.numbers, frames.positions[k], cell=frames.cell[k], pbc=frames.pbc)
            if len(atoms) > 1:
                distances = atoms.get_all_distances(mic=bool(frames.pbc.any()))
                shortest = min(shortest, float(distances[~np.eye(len(atoms), dtype=bool)].min()))
    return shortest


def write_artifact(
    config: AnyConfig, root: Path, run: Path, output: Path, errors: dict[str, float], *, description: str = "",
    licence: str = "", references: list[str] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Export the last checkpoint of a run with its errors; return what matters of its metadata."""
    accuracy = {
        name.removeprefix("test_"): round(value, 4) for name, value in errors.items() if name.startswith("test_")
    }
    more: dict[str, Any] = {}
    if isinstance(config, PropagatorConfig):
        accuracy = {f"{name.removesuffix('_percent')}_mae_percent_of_rms": value for name, value in accuracy.items()}
        bond = min(shortest_bond(root / file) for file in config.data.files)
        more = {"tables": TABLES, "shortest": round(min(NEAREST * bond, WITHIN * config.model.cutoff), 2)}
    else:
        units = {"energy": "meV_per_atom", "force": "meV_per_A", "virial": "meV_per_atom"}
        accuracy = {f"{name}_{units[name.removesuffix('_mae')]}": value for name, value in accuracy.items()}
    metadata = export(
        run / "checkpoints" / LAST, output, description=description, licence=licence,
        references=references or None, accuracy=accuracy, **more,
    )  # fmt: skip
    return {
        "parameters": metadata.num_parameters, "species": list(metadata.species), "cutoff": metadata.cutoff,
        "layers": metadata.message_passing_steps, "precision": metadata.dtype, "accuracy": accuracy,
    }  # fmt: skip
