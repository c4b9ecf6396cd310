"""The OpenMM force of the compiled plugin."""

from __future__ import annotations

import io
import json
import operator
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import openmm
import torch

from equistride import _library
from equistride import _openmm as _plugin  # type: ignore[attr-defined]
from equistride.artifact.native import trust
from equistride.errors import EquistrideError

openmm.Platform.loadPluginLibrary(str(_library.LIBRARY_DIR / "libEquistrideOpenMM.so"))
_CUDA = _library.LIBRARY_DIR / "libEquistrideOpenMMCUDA.so"
_PLATFORMS = [openmm.Platform.getPlatform(i).getName() for i in range(openmm.Platform.getNumPlatforms())]
if _CUDA.exists() and "CUDA" in _PLATFORMS:
    openmm.Platform.loadPluginLibrary(str(_CUDA))


def _read(model: str | os.PathLike[str] | bytes | torch.jit.ScriptModule) -> tuple[bytes, str]:
    if isinstance(model, bytes):
        return model, ""
    if isinstance(model, torch.jit.ScriptModule):
        buffer = io.BytesIO()
        torch.jit.save(model, buffer)
        return buffer.getvalue(), ""
    if not isinstance(model, (str, os.PathLike)):
        raise EquistrideError(
            "the model of a force is given by its file",
            expected="a path, the bytes of a file or a scripted module",
            found=type(model).__name__,
            hint="script a torch.nn.Module with torch.jit.script first",
        )
    path = Path(model)
    try:
        return path.read_bytes(), str(path)
    except OSError as error:
        raise EquistrideError(
            f"the model file {path} cannot be read ({error.strerror})", hint="check the path"
        ) from None


class PropagatorMark(openmm.Force):
    """No force: it refuses a Context without forces or ``TrajCastIntegrator``, whose atoms would fly on in straight lines."""

    def __init__(self) -> None:
        self.this = _plugin.new_mark()


class Force(openmm.Force):
    """A force that runs a trained model inside OpenMM, on every platform.

    Two kinds of file are served: an equistride artifact of the kind ``potential``, and a TorchScript module
    that obeys the contract of openmm-torch's ``TorchForce``: ``forward(positions [n, 3] nm[, box [3, 3] nm][,
    each global parameter])`` gives the energy in kJ/mol, or ``(energy, forces [n, 3] kJ/mol/nm)`` with
    ``setOutputsForces(True)``. The methods have TorchForce's names, so this class can stand in for it.

    Parameters
    ----------
    model
        Path of the file, its bytes, or a scripted module.
    properties
        See ``setProperty``.
    elements
        Element symbols, one for each particle that the model sees (artifacts only).
    particles
        Indices of the particles that the model sees; all where not given.
    bonds
        See ``setBonds``.
    periodic
        Whether the model sees the box of the System.
    trust_compiled
        Your word for a compiled artifact, which is machine code.

    Raises
    ------
    EquistrideError
        Where the file is no model, is a propagator, fails its self-test, or does not know an element.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | bytes | torch.jit.ScriptModule,
        properties: Mapping[str, str] | None = None,
        *,
        elements: Sequence[str] | None = None,
        particles: Sequence[int] | None = None,
        bonds: Iterable[tuple[int, int]] = (),
        periodic: bool = False,
        trust_compiled: bool = False,
    ) -> None:
        content, file = _read(model)
        given = dict(properties or {})
        wrong = {k: v for k, v in given.items() if not (isinstance(k, str) and isinstance(v, str))}
        if wrong:
            raise EquistrideError("properties of a force are texts", expected="a name and a text each", found=wrong)
        if trust_compiled:
            trust(content)
        self.this = _plugin.new_force(content, file, given)
        if elements is not None:
            self.setElements(elements)
        if particles is not None:
            self.setParticles(particles)
        self.setBonds(bonds)
        self.setUsesPeriodicBoundaryConditions(periodic)

    @staticmethod
    def isinstance(force: openmm.Force) -> bool:
        """Tell whether a force, as ``System.getForces`` gives it, is one of ours."""
        return bool(_plugin.is_ours(force))

    @staticmethod
    def cast(force: openmm.Force) -> Force:
        """Return our view of a force that ``System.getForces`` or ``XmlSerializer`` gave."""
        _plugin.require(force)
        ours = Force.__new__(Force)
        ours.this = force.this
        return ours

    def getFile(self) -> str:
        """Return the path that the model was read from, empty where there was none."""
        return _plugin.get_file(self)

    def getModel(self) -> bytes:
        """Return the content of the model file."""
        return _plugin.get_model(self)

    def getModule(self) -> torch.jit.ScriptModule:
        """Return the model as a scripted module of its own; a compiled one has none."""
        if self.isArtifact() and self.getMetadata().get("compiled"):
            raise EquistrideError("the model is a compiled program", expected="a TorchScript artifact")
        return torch.jit.load(io.BytesIO(self.getModel()))

    def isArtifact(self) -> bool:
        """Tell whether the model is an equistride artifact (and not a plain module)."""
        return _plugin.is_artifact(self)

    def getMetadata(self) -> dict[str, Any]:
        """Return what the artifact says of itself (``metadata.json``)."""
        return json.loads(_plugin.get_metadata(self))

    def setElements(self, elements: Sequence[str]) -> None:
        """Set the element symbols, one for each particle that the model sees, in their order."""
        _plugin.set_elements(self, [str(element) for element in elements])

    def getElements(self) -> list[str]:
        """Return the element symbols."""
        return _plugin.get_elements(self)

    def setParticles(self, particles: Sequence[int]) -> None:
        """Set the indices of the particles that the model sees; none for all of the System."""
        _plugin.set_particles(self, [operator.index(particle) for particle in particles])

    def getParticles(self) -> list[int]:
        """Return the indices of the particles that the model sees; empty for all of the System."""
        return _plugin.get_particles(self)

    def setBonds(self, bonds: Iterable[tuple[int, int]]) -> None:
        """Set pairs of particles of one molecule, which OpenMM keeps whole in output and barostats scale as one.

        They have no energy. A network of bonds that goes on through the box is left out in a Context.
        """
        _plugin.set_bonds(self, [(operator.index(first), operator.index(second)) for first, second in bonds])

    def getBonds(self) -> list[tuple[int, int]]:
        """Return the pairs of particles of one molecule."""
        return _plugin.get_bonds(self)

    def setUsesPeriodicBoundaryConditions(self, periodic: bool) -> None:
        """Set whether the model sees the box of the System."""
        _plugin.set_periodic(self, bool(periodic))

    def setOutputsForces(self, outputs: bool) -> None:
        """Set whether a plain module returns ``(energy, forces)`` and not the energy alone."""
        _plugin.set_outputs_forces(self, bool(outputs))

    def getOutputsForces(self) -> bool:
        """Tell whether a plain module returns ``(energy, forces)``."""
        return _plugin.get_outputs_forces(self)

    def getNumGlobalParameters(self) -> int:
        """Return the number of global parameters."""
        return _plugin.num_parameters(self)

    def addGlobalParameter(self, name: str, defaultValue: float) -> int:
        """Add a parameter of the Context, a further argument of the plain module; return its index.

        An artifact takes none. One whose model knows charge and spin has both from the start, with the file's values.
        """
        return _plugin.add_parameter(self, name, float(defaultValue))

    def getGlobalParameterName(self, index: int) -> str:
        """Return the name of a global parameter."""
        return _plugin.get_parameter_name(self, index)

    def setGlobalParameterName(self, index: int, name: str) -> None:
        """Rename a global parameter."""
        _plugin.set_parameter_name(self, index, name)

    def getGlobalParameterDefaultValue(self, index: int) -> float:
        """Return the value that a global parameter has in a new Context."""
        return _plugin.get_parameter_default(self, index)

    def setGlobalParameterDefaultValue(self, index: int, defaultValue: float) -> None:
        """Set the value that a global parameter has in a new Context."""
        _plugin.set_parameter_default(self, index, float(defaultValue))

    def addEnergyParameterDerivative(self, name: str) -> None:
        """Ask for the energy's derivative by a global parameter (``State.getEnergyParameterDerivatives``)."""
        _plugin.add_derivative(self, name)

    def getNumEnergyParameterDerivatives(self) -> int:
        """Return the number of parameters by which the energy is differentiated."""
        return _plugin.num_derivatives(self)

    def getEnergyParameterDerivativeName(self, index: int) -> str:
        """Return the name of a parameter by which the energy is differentiated."""
        return _plugin.get_derivative_name(self, index)

    def setProperty(self, name: str, value: str) -> None:
        """Set ``device`` (auto, cpu, cuda, cuda:1 ...) or ``precision`` (auto, single, double).

        ``auto`` means the Context's GPU where there is one, and the precision that the artifact was made for.
        """
        _plugin.set_property(self, name, str(value))

    def getProperties(self) -> dict[str, str]:
        """Return all properties."""
        return _plugin.get_properties(self)
