"""openmm-ml: ``MLPotential("equistride", modelPath="model.pt")``.

openmm-ml makes the factory when it is imported, so this module imports nothing heavy before a potential is
made.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from openmmml.mlpotential import MLPotentialImpl, MLPotentialImplFactory

OPTIONS = ("device", "precision", "backend", "periodic", "charge", "spin", "trust_compiled")
"""Arguments of ``create_force`` that the potential, or the call that makes a System, may be given."""
THEIRS = ("embedding", "returnInfo", "interpolate")
"""Arguments that are openmm-ml's own."""


def _checked(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of ``create_force`` among ``options``; any other is an error, but openmm-ml's own."""
    from equistride.errors import EquistrideError

    unknown = sorted(set(options) - {*OPTIONS, *THEIRS, "modelPath"})
    if unknown:
        raise EquistrideError(
            f"the argument {unknown[0]} of an equistride potential is not known", expected=", ".join(OPTIONS)
        )
    return {key: value for key, value in options.items() if key in OPTIONS}


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
        if not os.path.isfile(args["modelPath"]):
            raise EquistrideError(f"the artifact {args['modelPath']} does not exist", hint="check modelPath")
        return EquistrideImpl(args["modelPath"], _checked(args))


class EquistrideImpl(MLPotentialImpl):
    """A trained potential as openmm-ml's implementation; ``options`` are those of ``create_force``."""

    def __init__(self, path: str, options: dict[str, Any]) -> None:
        self.path, self.options = path, options

    def addForces(self, topology: Any, system: Any, atoms: Iterable[int] | None, forceGroup: int, **args: Any) -> None:
        """Add the force; options given here go before those of the potential."""
        from equistride.engines.openmm import create_force

        options = self.options | _checked(args)
        system.addForce(create_force(self.path, topology, atoms=atoms, force_group=forceGroup, **options))

    def getMLLongRange(self) -> bool:
        """Interactions end at the model's interaction range."""
        return False
