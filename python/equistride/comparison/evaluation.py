"""One model on one frame in one engine: energy, forces and stress, or a stride."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from equistride.artifact.metadata import Metadata
from equistride.data.stress_units import GPA
from equistride.simulation.run import prepared, start
from equistride.simulation.settings import EngineName, Settings

Array = NDArray[np.float64]

UNITS = {"energy": "eV/atom", "force": "eV/A", "stress": "GPa", "displacement": "A", "velocity": "A/fs"}
"""What is compared, and in what."""


@dataclass(frozen=True)
class Side:
    """One side of a comparison: an artifact, the engine that runs it, and the precision (None: the artifact's own)."""

    path: Path
    metadata: Metadata
    engine: EngineName = "ase"
    precision: str | None = None
    device: str = "cpu"

    def settings(self, temperature: float, seed: int) -> Settings:
        """Return those that move nothing but one stride of a propagator."""
        propagates = self.metadata.kind == "propagator"
        more: dict[str, Any] = {"ensemble": "nve" if propagates else "minimise", "timestep_fs": self.metadata.stride_fs}
        return Settings(
            engine=self.engine, precision=self.precision, device=self.device, temperature=temperature, seed=seed, **more
        )


def placed(atoms: Atoms, side: Side, temperature: float, seed: int) -> Atoms:
    """Return a frame as every engine takes it: turned so that its cell is lower triangular; for a propagator with velocities,
    drawn at ``temperature`` [K] where the frame has none."""
    return prepared(atoms, side.metadata, side.settings(temperature, seed))


def evaluate(side: Side, atoms: Atoms) -> dict[str, Array]:
    """Return what the model gives for a placed frame.

    Parameters
    ----------
    side
        Model and engine.
    atoms
        From :func:`placed`.

    Returns
    -------
    dict
        Of a potential: ``energy`` [1] eV/atom, ``force`` [N, 3] eV/A, and with a box ``stress`` [3, 3] GPa (positive under
        tension), but not by OpenMM, which gives none. Of a propagator: ``displacement`` [N, 3] A, ``velocity`` [N, 3] A/fs.

    Raises
    ------
    EquistrideError
        Whatever the engine refuses.
    """
    settings = side.settings(300.0, 1)
    engine = start(side.path, side.metadata, prepared(atoms, side.metadata, settings), settings)
    if side.metadata.kind == "propagator":
        engine.step(1)
        moment = engine.moment()
        return {"displacement": moment.positions - atoms.positions, "velocity": moment.velocities}
    found = {"energy": np.array([engine.moment().potential / len(atoms)]), "force": engine.forces()}
    stress = engine.stress() if atoms.pbc.all() else None
    return found if stress is None else found | {"stress": stress * GPA}
