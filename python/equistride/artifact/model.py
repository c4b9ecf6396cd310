"""Load an artifact and evaluate it: the Python face of the one C++ model interface."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from ase.data import atomic_numbers, chemical_symbols
from torch import Tensor

import equistride._library  # noqa: F401  (registers torch.classes.equistride)
from equistride.artifact.metadata import Metadata
from equistride.errors import EquistrideError


class Outputs(NamedTuple):
    """What a potential gives: atomic energies [N] eV (float64), forces [N, 3] eV/A, virial [3, 3] eV."""

    atomic_energies: Tensor
    forces: Tensor
    virial: Tensor


class Stride(NamedTuple):
    """What a propagator gives: displacements [N, 3] A and new velocities [N, 3] A/fs."""

    displacements: Tensor
    velocities: Tensor


def _sentence(error: Exception) -> EquistrideError:
    """Turn an error of the native library into one sentence, without its stack."""
    text = str(error).split("\nException raised from")[0].strip()
    lines = [line for line in text.splitlines() if line.strip()]
    return EquistrideError(lines[-1].removeprefix("ValueError: ") if lines else type(error).__name__)


class Model:
    """A loaded artifact.

    Attributes
    ----------
    metadata
        Its :class:`~equistride.artifact.metadata.Metadata`.
    device, dtype
        Where and in which precision it computes.
    """

    def __init__(self, native: Any, device: str, dtype: torch.dtype | None) -> None:
        self.metadata = Metadata.model_validate_json(native.metadata())
        self._native = native
        self.device = torch.device(device)
        self.dtype = dtype or getattr(torch, self.metadata.dtype)
        if device != "cpu" or dtype is not None:
            native.to(device, self.dtype == torch.float64)

    def species_index(self, elements: Sequence[str] | Sequence[int]) -> Tensor:
        """Return the species index [N] (int64) of element symbols or atomic numbers.

        Raises
        ------
        EquistrideError
            For an element that the model does not know.
        """
        symbols = [e if isinstance(e, str) else chemical_symbols[int(e)] for e in elements]
        unknown = sorted(set(symbols) - set(self.metadata.species), key=lambda s: atomic_numbers.get(s, 0))
        if unknown:
            raise EquistrideError(
                f"the model does not know the element {', '.join(unknown)}",
                expected=f"only {', '.join(self.metadata.species)}",
                mend="choose or train a model that has it",
            )
        return torch.tensor([self.metadata.species.index(s) for s in symbols], dtype=torch.int64)

    def _run(self, positions: Any, velocities: Any, species: Any, cell: Any, pbc: Any) -> list[Tensor]:
        positions = torch.as_tensor(positions)
        if positions.dim() != 2 or positions.size(1) != 3 or positions.size(0) == 0:
            found = "an empty system" if positions.numel() == 0 else f"shape {list(positions.shape)}"
            raise EquistrideError("positions must be those of one atom or more", expected="shape [N, 3]", found=found)
        pbc = torch.as_tensor(pbc, dtype=torch.bool).expand(3).contiguous()
        if self.metadata.periodic == "required" and not bool(pbc.all()):
            raise EquistrideError(
                "the model was trained on periodic systems alone",
                expected="a box along all three axes",
                found=f"pbc = {pbc.tolist()}",
                mend="give the structure a cell, or use another model",
            )
        cell = torch.zeros(3, 3, dtype=torch.float64) if cell is None else torch.as_tensor(cell)
        try:
            return self._native.compute(positions, velocities, torch.as_tensor(species), cell, pbc)
        except (RuntimeError, ValueError, IndexError) as error:
            raise _sentence(error) from None

    def compute(self, positions: Any, species: Any, cell: Any = None, pbc: Any = False) -> Outputs:
        """Evaluate a potential.

        Parameters
        ----------
        positions [N, 3], cell [3, 3]
            A; lattice vectors are rows. Array or tensor; atoms may lie outside the cell.
        species [N]
            Species index, from :meth:`species_index`.
        pbc [3] or bool
            Periodic axes.

        Returns
        -------
        Outputs
            Atomic energies [N] eV, forces [N, 3] eV/A, virial [3, 3] eV.

        Raises
        ------
        EquistrideError
            For a propagator, an empty system, positions that are not finite, atoms on top of each other, a missing box.
        """
        if self.metadata.kind != "potential":
            raise EquistrideError(
                "this artifact cannot compute forces", expected="a potential", found=f"a {self.metadata.kind}"
            )
        return Outputs(*self._run(positions, None, species, cell, pbc))

    def propagate(self, positions: Any, velocities: Any, species: Any, cell: Any = None, pbc: Any = False) -> Stride:
        """Advance one stride of a propagator; velocities [N, 3] in A/fs, otherwise as :meth:`compute`."""
        if self.metadata.kind != "propagator":
            raise EquistrideError(
                "this artifact cannot propagate", expected="a propagator", found=f"a {self.metadata.kind}"
            )
        return Stride(*self._run(positions, torch.as_tensor(velocities), species, cell, pbc))


def load(path: str | Path, device: str = "cpu", dtype: torch.dtype | None = None, *, verify: bool = True) -> Model:
    """Load an artifact, check its format and run its reference frame; nothing is unpickled.

    Parameters
    ----------
    path
        File written by ``equistride export``.
    device
        ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.
    dtype
        Precision to compute in; that of the artifact by default.
    verify
        Run the reference frame (a few milliseconds).

    Raises
    ------
    EquistrideError
        Where the file is missing, truncated, something else, newer than this package, or does not reproduce its
        reference outputs.
    """
    if not Path(path).is_file():
        raise EquistrideError(f"the artifact {path} does not exist", mend="write it with `equistride export`")
    try:
        native = torch.classes.equistride.Model(str(path), verify)
    except (RuntimeError, ValueError) as error:
        raise _sentence(error) from None
    return Model(native, device, dtype)
