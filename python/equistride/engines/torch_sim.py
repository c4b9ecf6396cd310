"""Run a trained potential in torch-sim: many systems at once (extra ``torch-sim``)."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor

from equistride.artifact import BatchOutputs, Frame, Model
from equistride.artifact.system import no_system
from equistride.engines.ase import potential
from equistride.engines.charge_spin import Chooser, System, whole
from equistride.errors import EquistrideError

try:
    from torch_sim.models.interface import ModelInterface
except ImportError as error:
    raise EquistrideError(
        f"torch-sim cannot be imported ({error})", hint="install it with pip install 'equistride[torch-sim]'"
    ) from None


class EquistrideModel(ModelInterface):
    """A trained potential as a torch-sim model: one call of the network for all systems of a state.

    Gives ``energy`` [B] eV, ``energies`` [N] eV, ``forces`` [N, 3] eV/A and ``stress`` [B, 3, 3] eV/A^3 (positive under tension),
    in the state's precision.

    Parameters
    ----------
    artifact
        Path of an artifact of the kind ``potential``, or a loaded :class:`~equistride.artifact.model.Model`.
    device
        ``"cpu"``, ``"cuda"``, or a torch.device.
    dtype
        ``torch.float32`` or ``torch.float64``; the artifact's own by default. States must have the same, or for a model in
        float32 float64, which keeps the digits of atoms far from the origin.
    charge, spin
        Total charge [e] and spin multiplicity of every system, for models that know them; by default those that the state says
        (``charge`` and ``spin`` [B], of which 0 says nothing), else those of the file.
    compute_forces, compute_stress
        Whether these are among the results; both cost nothing more than the energy. Stress needs a cell.
    trust_compiled
        As :func:`equistride.artifact.load` takes it: your word for a file that is machine code.

    Raises
    ------
    EquistrideError
        Where the file is no potential; and, on evaluation, for an element that the model does not know, a missing box, positions
        that are not finite, atoms on top of each other, or a stress without a cell.
    """

    def __init__(
        self,
        artifact: str | os.PathLike[str] | Model,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | str | None = None,
        *,
        compute_forces: bool = True,
        compute_stress: bool = True,
        charge: float | None = None,
        spin: float | None = None,
        trust_compiled: bool = False,
    ) -> None:
        super().__init__()
        self._given = System(whole("charge", charge), whole("spin", spin))
        self.model = potential(artifact, str(device), dtype, *self._given, trust_compiled=trust_compiled)
        self._chooser = Chooser(self.model)
        if self._given != System() and not self._chooser.knows:
            raise no_system()
        self._device, self._dtype = self.model.device, self.model.dtype
        self._compute_forces, self._compute_stress = compute_forces, compute_stress
        self._memory_scales_with = "n_atoms_x_density"

    @property
    def compute_stress(self) -> bool:
        """Whether stresses are among the results."""
        return self._compute_stress

    @compute_stress.setter
    def compute_stress(self, wanted: bool) -> None:
        self._compute_stress = wanted

    @property
    def compute_forces(self) -> bool:
        """Whether forces are among the results."""
        return self._compute_forces

    @compute_forces.setter
    def compute_forces(self, wanted: bool) -> None:
        self._compute_forces = wanted

    def forward(self, state: Any, **_: Any) -> dict[str, Tensor]:
        """Evaluate all systems of a state.

        Parameters
        ----------
        state
            A torch-sim ``SimState``, or a dictionary with its positions [N, 3] A, cell [B, 3, 3] A (lattice vectors as columns,
            as torch-sim has them), atomic_numbers [N], pbc, and system_idx [N] (one system where it is missing).

        Returns
        -------
        dict of Tensor
            energy, energies, and as wanted forces and stress.
        """
        positions, cells, numbers, owner, pbc = _parts(state)
        if torch.finfo(positions.dtype).eps > torch.finfo(self._dtype).eps:
            raise EquistrideError(
                "the state has less than the model's precision",
                expected=self._dtype,
                found=positions.dtype,
                hint="make the state with dtype=model.dtype",
            )
        counts = torch.bincount(owner, minlength=len(cells)).tolist()
        volumes = torch.linalg.det(cells).abs()
        if self._compute_stress and bool((volumes == 0).any()):
            raise EquistrideError(
                "a system without a cell has no stress",
                expected="three lattice vectors",
                found=f"a volume of 0 for system {int(torch.nonzero(volumes == 0)[0])}",
                hint="set compute_stress=False",
            )
        species = self.model.species_index(numbers.tolist()).to(positions.device)
        atoms = zip(positions.split(counts), species.split(counts), cells, strict=True)
        frames = [Frame(r, z, cell, pbc) for r, z, cell in atoms]
        protons = [int(part.sum()) for part in numbers.split(counts)] if self._chooser.knows else [0] * len(cells)
        said = zip(_said(state, len(cells)), protons, strict=True)
        outputs = self._compute(frames, [self._chooser.choose(self._given, system, z) for system, z in said])
        results = {"energy": outputs.energies, "energies": outputs.atomic_energies}
        if self._compute_forces:
            results["forces"] = outputs.forces
        if self._compute_stress:
            results["stress"] = -outputs.virials.double() / volumes.double()[:, None, None]
        return {name: values.to(positions.dtype) for name, values in results.items()}

    def _compute(self, frames: list[Frame], systems: list[System | None]) -> BatchOutputs:
        """Evaluate frames in as few calls of the network as they have charges and spins."""
        parts: dict[int, tuple[Tensor, ...]] = {}
        for system in dict.fromkeys(systems):
            chosen = [k for k, other in enumerate(systems) if other == system]
            with self._chooser.using(system):
                found = self.model.compute_batch([frames[k] for k in chosen])
            if len(chosen) == len(frames):
                return found
            counts = [len(frames[k].positions) for k in chosen]
            split = (found.energies.split(1), found.atomic_energies.split(counts), found.forces.split(counts),
                     found.virials.split(1))  # fmt: skip
            parts |= dict(zip(chosen, zip(*split, strict=True), strict=True))
        return BatchOutputs(
            *(torch.cat(values) for values in zip(*(parts[k] for k in range(len(frames))), strict=True))
        )


def _said(state: Any, count: int) -> list[System]:
    """Return the charge and spin multiplicity that a state has for each of its systems; 0 says nothing."""

    def values(name: str) -> list[float | None]:
        value = state.get(name) if isinstance(state, dict) else getattr(state, name, None)
        if value is None:
            return [None] * count
        numbers = torch.as_tensor(value).reshape(-1).tolist()
        if len(numbers) not in (1, count):
            raise EquistrideError(f"a state has one {name} a system", expected=count, found=len(numbers))
        return [whole(name, number) or None for number in numbers * (count // len(numbers))]

    return [System(charge, spin) for charge, spin in zip(values("charge"), values("spin"), strict=True)]


def _parts(state: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Any]:
    """Return positions [N, 3], cells [B, 3, 3] (vectors as rows), atomic numbers [N], system of each atom [N], pbc."""

    def part(name: str) -> Any:
        value = state.get(name) if isinstance(state, dict) else getattr(state, name, None)
        if value is None and name != "system_idx":
            raise EquistrideError(f"the state lacks {name}", hint="make it with torch_sim.io.atoms_to_state")
        return value

    positions, owner, pbc = part("positions"), part("system_idx"), part("pbc")
    if owner is None:
        owner = torch.zeros(len(positions), dtype=torch.int64, device=positions.device)
    if not len(positions):
        raise EquistrideError("the state has no atoms", expected="one atom or more", found="an empty system")
    if bool((owner[1:] < owner[:-1]).any()):
        raise EquistrideError(
            "the atoms of a state must be ordered by system", hint="make it with torch_sim.io.atoms_to_state"
        )
    cells = part("cell").reshape(-1, 3, 3).mT
    flags = pbc if isinstance(pbc, bool) else torch.as_tensor(pbc, dtype=torch.bool).cpu()
    return positions.detach(), cells.detach().contiguous(), part("atomic_numbers"), owner, flags
