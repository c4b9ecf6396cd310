"""Watch the uncertainty of an ensemble in an OpenMM run, keep the frames that it knows least, and stop before it is lost."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
import openmm
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from numpy.typing import NDArray
from openmm import unit

from equistride.artifact import Model, load
from equistride.engines.charge_spin import Chooser, System
from equistride.engines.openmm_regions import Region, regions_of
from equistride.engines.openmm_topology import choose_atoms, element_symbols
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
    label the frames anew before training on them. It watches what the System's models see, also by way of openmm-ml and inside a
    CustomCVForce or ATMForce; each of several regions has frames of its own, numbered by ``region``.

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
        The ensemble, by its path or loaded; by default those of the System's own forces.
    atoms
        Indices of the atoms to watch; by default those of the System's own forces, or all where it has none.

    Attributes
    ----------
    steps, uncertainties
        Steps at which it looked, and the largest uncertainty [eV/A] of all regions at each.
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
        atoms: Iterable[int] | None = None,
    ) -> None:
        self.file = Path(file)
        if not self.file.absolute().parent.is_dir():
            raise EquistrideError(f"the folder of {self.file} does not exist", hint="make it first")
        if self.file.is_dir():
            raise EquistrideError(f"{self.file} is a folder", expected="a file that frames are appended to")
        for name, value in (("threshold", threshold), ("stop", stop)):
            if value is not None and not (np.isfinite(value) and value > 0):
                raise EquistrideError(
                    f"the {name} of a harvester must be an uncertainty above 0",
                    expected="a number in eV/A",
                    found=value,
                )
        if not isinstance(interval, SupportsIndex) or operator.index(interval) < 1:
            raise EquistrideError(
                "the interval of a harvester must be positive", expected="1 step or more", found=interval
            )
        self.threshold, self.interval, self.stop = threshold, operator.index(interval), stop
        self.steps: list[int] = []
        self.uncertainties: list[float] = []
        self.frames = 0
        self._artifact = artifact
        self._atoms = None if atoms is None else list(atoms)
        self._watched: list[_Watched] = []

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
        if not self._watched:
            self._watched = _watch(simulation, self._artifact, self._atoms)
        looks = [watched.look(simulation.context, state) for watched in self._watched]
        self.steps.append(simulation.currentStep)
        self.uncertainties.append(max(float(uncertainty.max()) for _, uncertainty in looks))
        for number, (watched, (atoms, uncertainty)) in enumerate(zip(self._watched, looks, strict=True)):
            largest = float(uncertainty.max())
            if largest < self.threshold and not self._stops(largest):
                continue
            watched.evaluate(atoms)
            atoms.arrays["force_uncertainty"] = uncertainty
            atoms.info |= {
                "step": simulation.currentStep,
                "time_fs": state.getTime().value_in_unit(unit.picosecond) * FS_PER_PS,
                "max_force_uncertainty": largest,
            } | ({"region": number} if len(looks) > 1 else {})
            write(self.file, atoms, format="extxyz", append=True)
            self.frames += 1
        watched, (atoms, uncertainty) = max(zip(self._watched, looks, strict=True), key=lambda look: look[1][1].max())
        if self._stops(float(uncertainty.max())):
            atom = int(uncertainty.argmax())
            raise TooUncertain(
                f"the ensemble no longer knows the force on atom {watched.particles[atom]}"
                f" ({atoms.symbols[atom]}) at step {simulation.currentStep}",
                expected=f"less than {self.stop:g} eV/A",
                found=f"{uncertainty.max():.3g} eV/A",
                hint=f"label the frames in {self.file}, train on them and start again",
            )

    def _stops(self, uncertainty: float) -> bool:
        return self.stop is not None and uncertainty >= self.stop


class _Watched:
    """The part of a System that an ensemble sees."""

    def __init__(self, model: Model, symbols: list[str], region: Region) -> None:
        self.model, self.symbols, self.particles, self.periodic = model, symbols, region.particles, region.periodic
        self._parameters = region.parameters if model.metadata.charge_spin == "input" else []
        self._chooser = Chooser(model)
        self._system: System | None = None  # of the Context, at the last look

    def look(self, context: openmm.Context, state: openmm.State) -> tuple[Atoms, NDArray[np.float64]]:
        """Return the region's atoms and the uncertainty of the force on each [n], eV/A."""
        if self._parameters:
            self._system = System(*(context.getParameter(name) for name in self._parameters))
        positions = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer) * ANGSTROM_PER_NM
        cell = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer) * ANGSTROM_PER_NM
        box = np.asarray(cell) if self.periodic else np.zeros((3, 3))
        atoms = Atoms(self.symbols, positions[self.particles], cell=box, pbc=self.periodic)
        with self._chooser.using(self._system):
            return atoms, self.model.uncertainty(*self._frame(atoms)).double().cpu().numpy()

    def evaluate(self, atoms: Atoms) -> None:
        """Give atoms the ensemble's energy, forces and, in a box, stress."""
        with self._chooser.using(self._system):
            outputs = self.model.compute(*self._frame(atoms))
        results: dict[str, Any] = {
            "energy": float(outputs.atomic_energies.double().sum()),
            "forces": outputs.forces.double().cpu().numpy(),
        }
        if atoms.pbc.all():
            results["stress"] = -outputs.virial.double().cpu().numpy() / atoms.cell.volume
        atoms.calc = SinglePointCalculator(atoms, **results)

    def _frame(self, atoms: Atoms) -> tuple[Any, ...]:
        species = self.model.species_index(atoms.get_chemical_symbols())
        return atoms.positions, species, atoms.cell.array, atoms.pbc


def _watch(simulation: Any, artifact: str | os.PathLike[str] | Model | None, atoms: list[int] | None) -> list[_Watched]:
    """Find what the ensembles of a simulation see, and the ensembles themselves where none is given."""
    system, topology = simulation.system, simulation.topology
    regions = regions_of(system)
    if artifact is None and all(region.force is None for region in regions):
        raise EquistrideError(
            "the System has no force of ours that could tell its model",
            hint="give the Harvester the ensemble with artifact=...",
        )
    given = artifact if artifact is None or isinstance(artifact, Model) else load(os.fspath(artifact))
    periodic = any(region.periodic for region in regions) if regions else system.usesPeriodicBoundaryConditions()
    if atoms is not None:
        chosen = choose_atoms(topology, atoms)
        owner = _owner(regions, chosen)
        force, parameters = (owner.force, owner.parameters) if owner else (None, [])
        regions = [Region(force, chosen, None, periodic, parameters)]
    elif not regions:
        regions = [Region(None, list(range(topology.getNumAtoms())), None, periodic)]
    pairs = [(given or region.model(), region) for region in regions]
    ensembles = [(model, region) for model, region in pairs if model is not None and model.metadata.members > 1]
    if not ensembles:
        raise EquistrideError(
            "the System's model has no uncertainty" if artifact is None else "this artifact has no uncertainty",
            expected="an ensemble",
            found="one set of weights",
            hint="join artifacts with `equistride ensemble`, or give an ensemble with artifact=...",
        )
    return [
        _Watched(model, region.symbols or element_symbols(topology, region.particles, model.metadata.species), region)
        for model, region in ensembles
    ]


def _owner(regions: list[Region], atoms: list[int]) -> Region | None:
    """Return what the force sees that sees the chosen atoms, else the first."""
    seen = [region for region in regions if set(atoms) <= set(region.particles)] or regions
    return seen[0] if seen else None
