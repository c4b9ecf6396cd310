"""Modules by the names that they had until 0.1: imports of those names work for one release more, with a warning."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_TRAJECTORIES = (
    "angles", "msd", "nve_report", "periodic", "picture", "plots", "rdf", "readers", "report", "summary", "temperature",
    "thermo", "trajectory", "vdos",
)  # fmt: skip
MOVED: dict[str, tuple[str, ...]] = {
    "analysis": ("trajectories", "conservation", "series"),
    "analysis.blocks": ("series",),
    **{f"analysis.{name}": (f"conservation.{name}",) for name in ("drift", "nve")},
    **{f"analysis.{name}": (f"properties.{name}",) for name in (
        "conductivity", "elastic", "eos", "lattice", "phonons", "relax"
    )},
    "analysis.property_plots": ("properties.plots",),
    **{f"analysis.{name}": (f"trajectories.{name}",) for name in _TRAJECTORIES},
    "artifact.fairchem_checkpoint": ("importers.fairchem_checkpoint",),
    "artifact.fairchem_import": ("importers.fairchem",),
    "artifact.probes": ("conservation.probes",),
    "artifact.trajcast_import": ("importers.trajcast",),
    "training.frames": ("training.frames_loss",),
}  # fmt: skip
"""Old name -> the modules that hold now what it held, both below ``equistride``."""


class MovedModules(MetaPathFinder, Loader):
    """Imports an old name as a module that looks its attributes up in the new ones."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return how to import an old name; None for every other."""
        package, _, old = fullname.partition(".")
        if package != "equistride" or old not in MOVED:
            return None
        return ModuleSpec(fullname, self, is_package=any(name.startswith(f"{old}.") for name in MOVED))

    def exec_module(self, module: ModuleType) -> None:
        """Warn whoever imports, and forward what is asked of the old module."""
        names = [f"equistride.{new}" for new in MOVED[module.__name__.partition(".")[2]]]
        warnings.warn(
            f"{module.__name__} is now {' and '.join(names)}; the old name goes with the next release",
            DeprecationWarning,
            stacklevel=2,
        )

        def forwarded(name: str) -> Any:
            for new in names:
                found = import_module(new)
                if not name.startswith("__") and hasattr(found, name):
                    return getattr(found, name)
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

        module.__getattr__ = forwarded  # type: ignore[method-assign]
