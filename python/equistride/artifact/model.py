"""Load an artifact and evaluate it: the one C++ model interface in Python."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.data import chemical_symbols
from torch import Tensor

from equistride.artifact.metadata import Metadata
from equistride.artifact.native import open_native, sentence
from equistride.artifact.outputs import BatchOutputs, Frame, Outputs, Stride
from equistride.elements import missing_element, species_index
from equistride.errors import EquistrideError


def _array(values: Any, name: str, shape: str) -> Tensor:
    """Return numbers as a tensor; anything else is an error."""
    if hasattr(values, "value_in_unit"):
        found = f"a quantity in {values.unit}"
        raise EquistrideError(f"{name} must be plain numbers", expected="A and fs", found=found)
    try:
        # by way of NumPy, which reads Python's floats in double precision
        tensor = values if isinstance(values, Tensor) else torch.from_numpy(np.array(values, order="C"))
    except (TypeError, ValueError, RuntimeError):
        found = type(values).__name__
        raise EquistrideError(f"{name} must be an array of numbers", expected=f"shape {shape}", found=found) from None
    if tensor.is_complex() or tensor.dtype == torch.bool:
        raise EquistrideError(f"{name} must be real numbers", expected="float32 or float64", found=str(tensor.dtype))
    return tensor.detach()


def _state_of(source: str | Path | bytes | None) -> tuple[int, int] | None:
    """Return what tells a changed file: its size and time."""
    if source is None or isinstance(source, bytes):
        return None
    found = os.stat(source)
    return found.st_size, found.st_mtime_ns


def _symbol(number: int) -> str:
    return chemical_symbols[number] if 0 < number < len(chemical_symbols) else f"atomic number {number}"


def _unpickled(content: bytes, device: str, dtype: torch.dtype, system: dict[str, float]) -> Model:
    model = load(content, device, dtype)
    if system:
        model.set_system(system["charge"], system["spin"])
    return model


class Model:
    """A loaded artifact. It pickles with the file's content, device, precision, charge and spin; copies share it.

    Attributes
    ----------
    metadata
        Its :class:`~equistride.artifact.metadata.Metadata`.
    device, dtype
        Where and in which precision it computes.
    native
        The C++ model.
    """

    def __init__(
        self, native: Any, device: str, dtype: torch.dtype | None, source: str | Path | bytes | None = None
    ) -> None:
        self._source, self._state = source, _state_of(source)
        self.metadata = Metadata.of(native, source if isinstance(source, str | Path) else "the artifact")
        self.native = native
        self.dtype = dtype or getattr(torch, self.metadata.dtype)
        if self.dtype not in (torch.float32, torch.float64):
            raise EquistrideError(
                "the precision is not known", expected="torch.float32 or torch.float64", found=str(dtype)
            )
        try:
            self.device = torch.device(device)
            if device != "cpu" or dtype is not None:
                native.to(device, self.dtype == torch.float64)
        except (RuntimeError, ValueError) as error:
            if self.metadata.compiled:
                raise sentence(error) from None
            reason = str(error).splitlines()[0]
            raise EquistrideError(f"the device {device!r} cannot be used ({reason})", hint="use device='cpu'") from None

    def __copy__(self) -> Model:
        return self

    def __deepcopy__(self, memo: object) -> Model:
        """Copies of what holds a model share it: weights do not change."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        if isinstance(self._source, bytes):
            content = self._source
        elif self._source is None or not os.path.isfile(self._source) or _state_of(self._source) != self._state:
            raise EquistrideError(
                f"the model cannot be pickled: its file {self._source} is no longer what was loaded",
                expected="the same file in its place",
                hint="load it again",
            )
        else:
            content = Path(self._source).read_bytes()
        system = self.metadata.system if self.metadata.charge_spin == "input" else {}
        return _unpickled, (content, str(self.device), self.dtype, system)

    def species_index(self, elements: Sequence[str] | Sequence[int]) -> Tensor:
        """Return the species index [N] (int64) of element symbols or atomic numbers.

        Raises
        ------
        EquistrideError
            For an element that the model does not know, and an atom without one (0 or ``X``).
        """
        nameless = next((k for k, e in enumerate(elements) if e in (0, "X")), None)
        if nameless is not None:
            raise missing_element(f"atom {nameless} of the structure", "X", "give it its element, or leave it out")
        symbols = [e if isinstance(e, str) else _symbol(int(e)) for e in elements]
        hint = "choose or train a model that has them"
        return torch.tensor(species_index(symbols, self.metadata.species, what="the structure", hint=hint))

    def _checked(self, positions: Any, species: Any, cell: Any, pbc: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return positions [N, 3], species [N], cell [3, 3] with zeros along open axes, and pbc [3], or say what is wrong."""
        positions = _array(positions, "positions", "[N, 3]")
        if positions.dim() != 2 or positions.size(1) != 3 or positions.size(0) == 0:
            found = "an empty system" if positions.numel() == 0 else f"shape {list(positions.shape)}"
            raise EquistrideError("positions must be those of one atom or more", expected="shape [N, 3]", found=found)
        species = self._species(species, positions.size(0))
        cell = torch.zeros(3, 3, dtype=torch.float64) if cell is None else _array(cell, "the cell", "[3, 3]")
        if cell.shape != (3, 3):
            raise EquistrideError("the cell must be three lattice vectors, one a row", expected="shape [3, 3]",
                                  found=f"shape {list(cell.shape)}")  # fmt: skip
        pbc = torch.as_tensor(pbc, dtype=torch.bool)
        if pbc.numel() not in (1, 3):
            raise EquistrideError("pbc must be one flag or one an axis", expected="1 or 3 flags", found=pbc.numel())
        pbc = pbc.reshape(-1).expand(3).contiguous()
        if self.metadata.periodic == "required" and not bool(pbc.all()):
            raise EquistrideError(
                "the model was trained on periodic systems alone",
                expected="a box along all three axes",
                found=f"pbc = {pbc.tolist()}",
                hint="give the structure a cell, or use another model",
            )
        # an axis that is open has no lattice vector: propagators keep angular momentum where there is none
        return positions, species, torch.where(pbc.to(cell.device)[:, None], cell, 0.0), pbc

    def _call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the native model; its errors are one sentence."""
        try:
            return getattr(self.native, method)(*arguments)
        except (RuntimeError, ValueError, IndexError, torch.jit.Error) as error:
            raise sentence(error) from None

    def _species(self, values: Any, count: int) -> Tensor:
        """Return species indices, of elements or checked: one an atom, whole numbers, each that of an element of the model."""
        if isinstance(values, (list, tuple, np.ndarray)) and len(values) and all(isinstance(v, str) for v in values):
            values = self.species_index(list(values))
        species = _array(values, "species", f"[{count}]")
        whole = not species.is_floating_point()
        if list(species.shape) != [count] or not whole:
            found = f"{species.dtype} of shape {list(species.shape)}"
            raise EquistrideError(
                "species must be one index an atom", expected=f"int64 of shape [{count}]", found=found
            )
        last = len(self.metadata.species) - 1
        wrong = torch.nonzero((species < 0) | (species > last)).flatten()
        if len(wrong):
            raise EquistrideError(f"the species index of atom {int(wrong[0])} is not one of the model", expected=f"0 to {last}",
                                  found=int(species[wrong[0]]), hint="take it from Model.species_index")  # fmt: skip
        return species.long()

    def compute(self, positions: Any, species: Any, cell: Any = None, pbc: Any = False) -> Outputs:
        """Evaluate a potential.

        Parameters
        ----------
        positions [N, 3], cell [3, 3]
            A; lattice vectors are rows. Array or tensor; atoms may lie outside the cell.
        species [N]
            Species index, from :meth:`species_index`, or element symbols.
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
        self._need_potential()
        positions, *system = self._checked(positions, species, cell, pbc)
        return Outputs(*self._call("compute", positions, None, *system, True))

    def energies(self, positions: Any, species: Any, cell: Any = None, pbc: Any = False) -> Tensor:
        """Return the atomic energies [N] of a potential in eV (float64), for a third of the cost of :meth:`compute`, whose
        arguments and errors these are."""
        self._need_potential()
        positions, *system = self._checked(positions, species, cell, pbc)
        return self._call("compute", positions, None, *system, False)[0]

    def compute_part(self, positions: Any, species: Any, cell: Any = None, pbc: Any = False, *, owned: int) -> Outputs:
        """Evaluate the energy of the first ``owned`` atoms; the others complete their surroundings.

        Parameters
        ----------
        positions, species, cell, pbc
            As for :meth:`compute`.
        owned
            How many atoms, the first ones, the energies are of.

        Returns
        -------
        Outputs
            Atomic energies [owned] eV, forces [N, 3] eV/A on all atoms and virial [3, 3] eV of their sum; float64 on the CPU.

        Raises
        ------
        EquistrideError
            As :meth:`compute`, and for a model that is not decomposable.
        """
        self._need_potential()
        positions, *system = self._checked(positions, species, cell, pbc)
        if not 0 <= owned <= len(positions):
            raise EquistrideError(
                "the number of own atoms is out of range", expected=f"0 to {len(positions)}", found=owned
            )
        return Outputs(*self._call("compute_part", positions, None, *system, owned))

    def compute_batch(self, frames: Sequence[Frame]) -> BatchOutputs:
        """Evaluate many frames, of any sizes, cells and compositions, in one call of the network.

        Their graphs are joined where the model's contract has it ``batched``, which pays for small frames; else they are
        evaluated one by one, with the same results.

        Parameters
        ----------
        frames
            One :class:`Frame` or more.

        Returns
        -------
        BatchOutputs
            Energies [B] eV, atomic energies [N] eV, forces [N, 3] eV/A, virials [B, 3, 3] eV; atoms of all frames in order.

        Raises
        ------
        EquistrideError
            For no frames, and as :meth:`compute`, with the number of the frame.
        """
        self._need_potential()
        checked = []
        for number, frame in enumerate(frames):
            try:
                checked.append(self._checked(*frame))
            except EquistrideError as error:
                raise EquistrideError(f"frame {number}: {error}") from None
        if not checked:
            raise EquistrideError("there are no frames to evaluate", expected="one or more")
        return BatchOutputs(*self._call("compute_batch", *map(list, zip(*checked, strict=True))))

    def uncertainty(self, positions: Any, species: Any, cell: Any = None, pbc: Any = False) -> Tensor:
        """Return how far the members of an ensemble disagree about the force on each atom [N], eV/A.

        The sample standard deviation over the M members, as the rms of its three components, which does not depend on axes:
        ``sqrt(sum_m |F_m - mean F|^2 / (3 (M - 1)))``.

        Parameters
        ----------
        positions, species, cell, pbc
            As for :meth:`compute`.

        Raises
        ------
        EquistrideError
            As :meth:`compute`, and for an artifact that is no ensemble.
        """
        self._need_potential()
        if not self.metadata.capabilities.uncertainty:
            raise EquistrideError(
                "this artifact has no uncertainty",
                expected="an ensemble",
                found=f"{self.metadata.members} set of weights",
                hint="join artifacts with `equistride ensemble`",
            )
        return self._call("uncertainty", *self._checked(positions, species, cell, pbc))

    def set_system(self, charge: float | None = None, spin: float | None = None) -> None:
        """Compute with another total charge [e] or spin multiplicity (0: not given) from now on; as before where left out.

        Raises
        ------
        EquistrideError
            Where the model knows neither, they are fixed in it, or a number is not whole or out of range.
        """
        before = self.metadata.system or {"charge": 0.0, "spin": 0.0}
        given = {"charge": charge, "spin": spin}
        system = {name: float(before[name] if value is None else value) for name, value in given.items()}
        self._call("set_system", system["charge"], system["spin"])
        self.metadata = self.metadata.model_copy(update={"system": system})

    def set_stride(self, stride_fs: float) -> None:
        """Advance by this time [fs] from now on.

        Raises
        ------
        EquistrideError
            Where the model is no propagator, or was not trained for it.
        """
        self._need_propagator()
        self._call("set_stride", float(stride_fs))
        self.metadata = self.metadata.model_copy(update={"stride_fs": self.metadata.stride_near(stride_fs)})

    def _need_propagator(self) -> None:
        if self.metadata.kind != "propagator":
            raise EquistrideError(
                "this artifact cannot propagate", expected="a propagator", found=f"a {self.metadata.kind}"
            )

    def _need_potential(self) -> None:
        if self.metadata.kind != "potential":
            raise EquistrideError(
                "this artifact cannot compute forces", expected="a potential", found=f"a {self.metadata.kind}"
            )

    def propagate(self, positions: Any, velocities: Any, species: Any, cell: Any = None, pbc: Any = False) -> Stride:
        """Advance one stride of a propagator; velocities [N, 3] in A/fs, otherwise as :meth:`compute`."""
        self._need_propagator()
        positions, *system = self._checked(positions, species, cell, pbc)
        return Stride(*self._call("compute", positions, _array(velocities, "velocities", "[N, 3]"), *system, True))


def load(
    source: str | Path | bytes, device: str = "cpu", dtype: torch.dtype | None = None, *, verify: bool = True,
    charge: float | None = None, spin: float | None = None, trust_compiled: bool = False,
) -> Model:  # fmt: skip
    """Load an artifact, hold its metadata against its module and run its self-test.

    Nothing is unpickled, and nothing of a TorchScript file runs before all its code was read. One that was compiled
    (``metadata.compiled``) is machine code, for its own precision alone, and needs your word.

    Parameters
    ----------
    source
        File written by ``equistride export``, or its content.
    device
        ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.
    dtype
        Precision to compute in; that of the artifact by default.
    verify
        Run the self-test (a few milliseconds).
    charge, spin
        Total charge [e] and spin multiplicity to compute with, for models that know them; those of the file by default.
    trust_compiled
        Your word that you trust who made a compiled artifact. It holds for the same bytes until the process ends.

    Raises
    ------
    EquistrideError
        Where the file is missing, truncated, changed, something else, newer than this package, has code that a model may not,
        declares what its module is not, does not reproduce its reference outputs, or is compiled and not trusted.
    """
    model = Model(open_native(source, verify, trust_compiled), device, dtype, source)
    if charge is not None or spin is not None:
        model.set_system(charge, spin)
    return model
