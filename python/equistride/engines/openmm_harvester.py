"""Watch the uncertainty of an ensemble in an OpenMM run, keep the frames that it knows least, and stop before it is lost."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from openmm import unit

from equistride.artifact import Model, load
from equistride.engines.openmm_topology import element_symbols
from equistride.errors import EquistrideError
from equistride.units import ANGSTROM_PER_NM, FS_PER_PS


class TooUncertain(EquistrideError):
    """A run was stopped because the ensemble no longer knows the forces."""


class Harvester:
    """A reporter for ``openmm.app.Simulation`` that writes uncertain frames to a file, and can stop the run.

    Every ``interval`` steps the ensemble is asked how far its members disagree about the force on each atom
    (:meth:`equistride.artifact.Model.uncertainty`, about the cost of one more step). Where the most uncertain atom reaches the
    threshold, the frame is appended to the file: positions, box, elements, the ensemble's energy, forces and stress, the array
    ``force_uncertainty`` [N] eV/A, and ``step``, ``time_fs`` and ``max_force_uncertainty``. The forces are the ensemble's own:
    label the frames anew before training on them.

    Parameters
    ----------
    file
        Where frames are appended, in extended XYZ.
    threshold
        Uncertainty of the most uncertain atom from which on a frame is written [eV/A].
    interval
        Steps between looks.
    stop
        Uncertainty from which on the run is stopped with :class:`TooUncertain` [eV/A], the frame written first; None never to
        stop.
    artifact
        The ensemble, by its path or loaded; by default that of the System's own force (which the plugin backend can tell).

    Attributes
    ----------
    steps, uncertainties
        Steps at which it looked, and the largest uncertainty [eV/A] at each.
    frames
        Frames written.
    """

    def __init__(
        self,
        file: str | os.PathLike[str],
        threshold: float,
        interval: int,
        *,
        stop: float | None = None,
        artifact: str | os.PathLike[str] | Model | None = None,
    ) -> None:
        self.file = Path(file)
        if not self.file.absolute().parent.is_dir():
            raise EquistrideError(f"the folder of {self.file} does not exist", hint="make it first")
        for name, value in (("threshold", threshold), ("stop", stop)):
            if value is not None and not (np.isfinite(value) and value > 0):
                raise EquistrideError(
                    f"the {name} of a harvester must be an uncertainty above 0",
                    expected="a number in eV/A",
                    found=value,
                )
        if interval < 1:
            raise EquistrideError(
                "the interval of a harvester must be positive", expected="1 step or more", found=interval
            )
        self.threshold, self.interval, self.stop = threshold, interval, stop
        self.steps: list[int] = []
        self.uncertainties: list[float] = []
        self.frames = 0
        self._artifact = artifact
        self._watched: _Watched | None = None

    def describeNextReport(self, simulation: Any) -> dict[str, Any]:
        """Tell OpenMM when the next look is due and what it needs."""
        steps = self.interval - simulation.currentStep % self.interval
        return {"steps": steps, "periodic": False, "include": ["positions"]}

    def report(self, simulation: Any, state: openmm.State) -> None:
        """Look at one frame; write it, and stop, where the ensemble disagrees too much.

        Raises
        ------
        TooUncertain
            Where the uncertainty reaches ``stop``.
        EquistrideError
            Where the System has no ensemble.
        """
        if self._watched is None:
            self._watched = _watch(simulation, self._artifact)
        atoms = self._watched.atoms(state)
        model = self._watched.model
        species = model.species_index(atoms.get_chemical_symbols())
        frame = (atoms.positions, species, atoms.cell.array, atoms.pbc)
        uncertainty = model.uncertainty(*frame).double().cpu().numpy()
        largest = float(uncertainty.max())
        self.steps.append(simulation.currentStep)
        self.uncertainties.append(largest)
        stopping = self.stop is not None and largest >= self.stop
        if largest < self.threshold and not stopping:
            return
        outputs = model.compute(*frame)
        results: dict[str, Any] = {
            "energy": float(outputs.atomic_energies.double().sum()),
            "forces": outputs.forces.double().cpu().numpy(),
        }
        if atoms.pbc.all():
            results["stress"] = -outputs.virial.double().cpu().numpy() / atoms.cell.volume
        atoms.calc = SinglePointCalculator(atoms, **results)
        atoms.arrays["force_uncertainty"] = uncertainty
        atoms.info |= {
            "step": simulation.currentStep,
            "time_fs": state.getTime().value_in_unit(unit.picosecond) * FS_PER_PS,
            "max_force_uncertainty": largest,
        }
        write(self.file, atoms, format="extxyz", append=True)
        self.frames += 1
        if stopping:
            atom = int(uncertainty.argmax())
            raise TooUncertain(
                f"the ensemble no longer knows the force on atom {self._watched.particles[atom]}"
                f" ({atoms.symbols[atom]}) at step {simulation.currentStep}",
                expected=f"less than {self.stop:g} eV/A",
                found=f"{largest:.3g} eV/A",
                hint=f"label the frames in {self.file}, train on them and start again",
            )


class _Watched:
    """The part of a System that an ensemble sees."""

    def __init__(self, model: Model, symbols: list[str], particles: list[int], periodic: bool) -> None:
        self.model, self.symbols, self.particles, self.periodic = model, symbols, particles, periodic

    def atoms(self, state: openmm.State) -> Atoms:
        positions = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer) * ANGSTROM_PER_NM
        cell = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer) * ANGSTROM_PER_NM
        box = np.asarray(cell) if self.periodic else np.zeros((3, 3))
        return Atoms(self.symbols, positions[self.particles], cell=box, pbc=self.periodic)


def _watch(simulation: Any, artifact: str | os.PathLike[str] | Model | None) -> _Watched:
    """Find what the ensemble of a simulation sees, and the ensemble itself where none is given."""
    force = _own_force(simulation.system)
    if artifact is None and force is None:
        raise EquistrideError(
            "the System has no force of the compiled plugin that could tell its model",
            hint="give the Harvester the ensemble with artifact=...",
        )
    if isinstance(artifact, Model):
        model = artifact
    elif artifact is not None:
        model = load(os.fspath(artifact))
    else:
        model = _model_of(force)
    if model.metadata.members < 2:
        raise EquistrideError(
            "the System's model has no uncertainty" if artifact is None else "this artifact has no uncertainty",
            expected="an ensemble",
            found="one set of weights",
            hint="join artifacts with `equistride ensemble`, or give an ensemble with artifact=...",
        )
    if force is not None:
        count = simulation.system.getNumParticles()
        return _Watched(
            model,
            force.getElements(),
            force.getParticles() or list(range(count)),
            force.usesPeriodicBoundaryConditions(),
        )
    everyone = list(range(simulation.topology.getNumAtoms()))
    symbols = element_symbols(simulation.topology, everyone, model.metadata.species)
    return _Watched(model, symbols, everyone, simulation.system.usesPeriodicBoundaryConditions())


def _own_force(system: openmm.System) -> Any:
    try:
        from equistride.engines.openmm_force import Force
    except ImportError:
        return None
    ours = [Force.cast(force) for force in system.getForces() if Force.isinstance(force)]
    return next((force for force in ours if force.isArtifact()), None)


def _model_of(force: Any) -> Model:
    wish = force.getProperties()
    device = wish.get("device", "auto")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = {"single": torch.float32, "double": torch.float64}.get(wish.get("precision", "auto"))
    return load(force.getModel(), device, dtype)
