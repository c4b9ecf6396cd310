"""What trained models see of an OpenMM System, found in its forces, also in those inside others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import openmm
import torch

from equistride.artifact import Model, load
from equistride.engines.openmm_python import computation_of
from equistride.errors import EquistrideError

try:
    from equistride.engines.openmm_force import Force
except ImportError:  # the plugin was not built
    Force = None  # type: ignore[assignment, misc]


@dataclass
class Region:
    """The particles that one force shows its model."""

    force: Any
    """A ``Force`` or ``Computation`` of ours; None for another program's PythonForce."""
    particles: list[int]
    symbols: list[str] | None
    """None where the force does not tell."""
    periodic: bool
    parameters: list[str] = field(default_factory=list)
    """Names of the Context's parameters for charge and spin, where it has them."""

    def model(self) -> Model | None:
        """Return the force's own model, loaded; None where it cannot be had."""
        if Force is not None and isinstance(self.force, Force):
            wish = self.force.getProperties()
            device = wish["device"]
            if device == "auto":
                device = "cuda" if torch.cuda.is_available() else "cpu"
            dtype = {"single": torch.float32, "double": torch.float64}.get(wish["precision"])
            return load(self.force.getModel(), device, dtype)
        return self.force.model if self.force is not None else None


def plugin_force(force: openmm.Force) -> Force | None:
    """Return a force of the plugin as what it is, however it was got; None for any other."""
    return Force.cast(force) if Force is not None and Force.isinstance(force) else None


def forces_of(system: openmm.System) -> Iterator[openmm.Force]:
    """Give the forces of a System and those inside others: of a CustomCVForce, an ATMForce."""
    pending = list(system.getForces())
    for force in pending:
        yield force
        if isinstance(force, openmm.CustomCVForce):
            pending += [force.getCollectiveVariable(k) for k in range(force.getNumCollectiveVariables())]
        elif isinstance(force, openmm.ATMForce):
            pending += [force.getForce(k) for k in range(force.getNumForces())]


def regions_of(system: openmm.System) -> list[Region]:
    """Return what each model of ours sees; where there is none, what other programs' PythonForces on some particles see."""
    ours, foreign = [], []
    everyone = list(range(system.getNumParticles()))
    for force in forces_of(system):
        if isinstance(force, openmm.PythonForce):
            particles = list(force.getParticles())
            found = computation_of(force)
            if found is not None:
                ours.append(Region(found, particles or everyone, found.symbols, found.periodic))
            elif particles:
                foreign.append(Region(None, particles, None, force.usesPeriodicBoundaryConditions()))
        elif (cast := plugin_force(force)) is not None and cast.isArtifact():
            names = [cast.getGlobalParameterName(k) for k in range(cast.getNumGlobalParameters())]
            ours.append(Region(cast, cast.getParticles() or everyone, cast.getElements(),
                               cast.usesPeriodicBoundaryConditions(), names))  # fmt: skip
    return ours or foreign


def check_seen_once(system: openmm.System, atoms: Iterable[int]) -> None:
    """Refuse a region of which a model of ours sees atoms already: their energy would count twice.

    Raises
    ------
    EquistrideError
        With the first of these atoms.
    """
    wanted = set(atoms)
    for region in regions_of(system):
        both = wanted & set(region.particles) if region.force is not None else set()
        if both:
            raise EquistrideError(
                "a model of the System sees atoms of this region already, whose energy would count twice",
                expected="regions without an atom in common", found=f"atom {min(both)} in both",
                hint="choose other atoms; where two models are meant to be added, add create_force(...) to the System yourself",
            )  # fmt: skip


def parameter_names(system: openmm.System) -> set[str]:
    """Return the names of all parameters that forces of a System give its Context."""
    names: set[str] = set()
    for force in forces_of(system):
        if isinstance(force, openmm.PythonForce):
            names |= set(force.getGlobalParameters())
            continue
        known = plugin_force(force) or force
        if hasattr(known, "getGlobalParameterName"):
            names |= {known.getGlobalParameterName(k) for k in range(known.getNumGlobalParameters())}
    return names
