"""Run a trained potential in ASE: every optimiser, dynamics and tool that takes a calculator."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from equistride.artifact import load
from equistride.artifact.model import Model
from equistride.artifact.system import no_system
from equistride.engines.charge_spin import Chooser, System, said_by, whole
from equistride.errors import EquistrideError


class NoCellError(EquistrideError, PropertyNotImplementedError):
    """A stress was asked for where there is no cell; ASE's own code knows it as a property that is not there."""


def precision(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """Return a precision by its name (``"float32"``, ``"float64"``) or itself; None stays None, the artifact's own.

    Raises
    ------
    EquistrideError
        For any other.
    """
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if dtype is not None and found not in (torch.float32, torch.float64):
        raise EquistrideError("the precision is not known", expected="float32, float64 or None", found=dtype)
    return found


def potential(
    artifact: str | os.PathLike[str] | Model, device: str = "cpu", dtype: torch.dtype | str | None = None,
    charge: float | None = None, spin: float | None = None, trust_compiled: bool = False,
) -> Model:  # fmt: skip
    """Return a loaded artifact that has forces; a Model comes back as it is, also its charge and spin.

    Raises
    ------
    EquistrideError
        For a propagator, a Model on another device or of another precision than are given, and as
        :func:`equistride.artifact.load`.
    """
    if isinstance(artifact, Model):
        model = artifact
        moved = device != "cpu" and torch.device(device).type != model.device.type
        if moved or precision(dtype) not in (None, model.dtype):
            raise EquistrideError(
                "a loaded model keeps its device and precision",
                expected=f"{model.device}, {model.dtype}",
                found=f"{device}, {precision(dtype)}",
                hint="give its file, or load it so",
            )
    else:
        model = load(os.fspath(artifact), device, precision(dtype), charge=charge, spin=spin,
                     trust_compiled=trust_compiled)  # fmt: skip
    if model.metadata.kind != "potential":
        raise EquistrideError(
            f"this artifact is a {model.metadata.kind}, which moves atoms and has no forces",
            expected="a potential",
            hint="choose another artifact",
        )
    return model


class EquistrideCalculator(Calculator):
    """A trained potential as an ASE calculator.

    Gives ``energy`` and ``free_energy`` (the same) [eV], ``energies`` [N] [eV], ``forces`` [N, 3] [eV/A] and, where the
    structure has a cell, ``stress`` [6] [eV/A^3] in ASE's order xx, yy, zz, yz, xz, xy, positive under tension. A repeated
    question about unchanged atoms is answered from ASE's cache. Each call searches the neighbours anew: that costs one or two
    per cent of a network, so there is no skin to set.

    Parameters
    ----------
    artifact
        Path of an artifact of the kind ``potential``, or a loaded :class:`~equistride.artifact.model.Model`.
    device
        ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.
    dtype
        ``"float32"`` or ``"float64"`` (or torch's own); the artifact's own precision by default.
    charge, spin
        Total charge [e] and spin multiplicity, for models that know them; by default those that the structure says
        (``atoms.info["charge"]`` and ``["spin"]``, or the sums of its initial charges and magnetic moments), and where it says
        nothing those of the file. ``set(charge=..., spin=...)`` changes them; no other setting can be changed.
    trust_compiled
        As :func:`equistride.artifact.load` takes it: your word for a file that is machine code.

    Raises
    ------
    EquistrideError
        Where the file is no potential, or another option is given; and, on evaluation, for an element that the model does not
        know, a missing box, positions that are not finite, atoms on top of each other, no atoms, or a charge or spin that
        contradicts another or is no whole number.
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress"]
    name = "equistride"

    def __init__(
        self,
        artifact: str | os.PathLike[str] | Model,
        device: str = "cpu",
        dtype: torch.dtype | str | None = None,
        *,
        charge: float | None = None,
        spin: float | None = None,
        trust_compiled: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        given = {"charge": whole("charge", charge), "spin": whole("spin", spin)}
        self.model = potential(artifact, device, dtype, **given, trust_compiled=trust_compiled)
        self._chooser = Chooser(self.model)
        self._said: System | None = None
        self._species: tuple[bytes, torch.Tensor] | None = None
        self.set(**{name: value for name, value in given.items() if value is not None})

    def set(self, **settings: Any) -> dict[str, Any]:
        """Change charge and spin multiplicity; None for what the structure says, or the model was loaded with.

        Raises
        ------
        EquistrideError
            For another setting, a number that is not whole, and a model that knows neither.
        """
        unknown = sorted(set(settings) - {"charge", "spin"})
        if unknown:
            raise EquistrideError(
                f"the calculator has no setting {unknown[0]}",
                expected="charge, spin",
                hint="device and dtype are given when it is made",
            )
        settings = {name: whole(name, value) for name, value in settings.items()}
        if settings and not self._chooser.knows and any(value is not None for value in settings.values()):
            raise no_system()
        changed = super().set(**settings)
        if changed:
            self.reset()
        return changed

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """Return what changed since the last evaluation, ``info`` where it says another charge or spin."""
        changes = super().check_state(atoms, tol)
        return changes or (["info"] if self.results and self._said != said_by(atoms) else [])

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Evaluate the model on a structure and keep the results, as ASE asks it to."""
        super().calculate(atoms, properties, system_changes)
        atoms = self.atoms
        if not len(atoms):
            raise EquistrideError("the structure has no atoms", expected="one atom or more", found="an empty system")
        whole = atoms.cell.rank == 3
        if "stress" in (properties or ()) and not whole:
            raise NoCellError(
                "a structure without a cell has no stress",
                expected="three lattice vectors",
                found=f"a cell of rank {atoms.cell.rank}",
                hint="ask for energy and forces, or give the structure a cell",
            )
        said = said_by(atoms)
        given = System(self.parameters.get("charge"), self.parameters.get("spin"))
        with self._chooser.using(self._chooser.choose(given, said, int(atoms.numbers.sum()))):
            outputs = self.model.compute(atoms.positions, self._species_of(atoms), atoms.cell.array, atoms.pbc)
        self._said = said
        energies = outputs.atomic_energies.double().cpu().numpy()
        energy = float(energies.sum())
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "energies": energies,
            "forces": outputs.forces.double().cpu().numpy(),
        }
        if whole:
            stress = -outputs.virial.double().cpu().numpy() / atoms.cell.volume
            self.results["stress"] = full_3x3_to_voigt_6_stress(stress)

    def _species_of(self, atoms: Atoms) -> torch.Tensor:
        key = np.ascontiguousarray(atoms.numbers).tobytes()
        if self._species is None or self._species[0] != key:
            self._species = key, self.model.species_index(atoms.numbers.tolist())
        return self._species[1]
