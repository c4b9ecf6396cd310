"""openmm-ml: ``MLPotential("equistride", modelPath="model.pt")``.

openmm-ml makes the factory when it is imported, so this module imports nothing heavy before a potential is
made.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from openmmml.mlpotential import MLPotentialImpl, MLPotentialImplFactory


class EquistrideFactory(MLPotentialImplFactory):
    """What openmm-ml finds under the name ``equistride``."""

    def createImpl(self, name: str, **args: Any) -> MLPotentialImpl:
        """Return the potential for ``modelPath``; other arguments are those of ``create_force``."""
        from equistride.errors import EquistrideError

        if "modelPath" not in args:
            raise EquistrideError(
                f"MLPotential('{name}') needs an artifact",
                hint=f"call MLPotential('{name}', modelPath='model.pt')",
            )
        return EquistrideImpl(args["modelPath"])


class EquistrideImpl(MLPotentialImpl):
    """A trained potential as openmm-ml's implementation."""

    def __init__(self, path: str) -> None:
        self.path = path

    def addForces(self, topology: Any, system: Any, atoms: Iterable[int] | None, forceGroup: int, **args: Any) -> None:
        """Add the force; ``device``, ``precision``, ``backend`` and ``periodic`` as for ``create_force``."""
        from equistride.engines.openmm import create_force

        options = {key: args[key] for key in ("device", "precision", "backend", "periodic") if key in args}
        force = create_force(self.path, topology, atoms=atoms, force_group=forceGroup, **options)
        system.addForce(force)

    def getMLLongRange(self) -> bool:
        """Interactions end at the model's interaction range."""
        return False
