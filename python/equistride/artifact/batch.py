"""Many frames in one call, and the methods that a module may offer beside ``forward``.

The contract's ``forward`` returns one virial, that of the whole graph, so a joined graph of many frames cannot be told apart
by it. What tells them apart is the gradient to each edge vector. A module may offer

- ``atomic_energies(vectors [E, 3], species [N], edge_index [2, E]) -> [N]`` eV: differentiable in the edge vectors. With it the
  frames are joined, one backward gives the gradients, and energies, forces and virials are summed frame by frame.
- ``uncertainty(positions, species, cell, edge_index, shifts) -> [N]`` eV/A: ensembles only.

Every potential written by :mod:`equistride.artifact.export` has the first. It is trusted only after it has reproduced
``forward`` on the reference structure; a module without it, or one whose forces are not that gradient, is run frame by frame.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from equistride.artifact.archive import open_script
from equistride.artifact.frames import BatchOutputs, Frame, Outputs
from equistride.artifact.reference import TOLERANCE, reference_structure
from equistride.errors import EquistrideError
from equistride.graph import neighbor_list
from equistride.models.potential import edge_vectors, forces_from_edges

SUSPICIOUS = 0.1
"""Atoms nearer than this [A] are left to the native checks, which know what to say of them."""


class Script:
    """The module of an artifact in Python, for the methods that the native interface does not call.

    Parameters
    ----------
    path
        The artifact, already loaded and checked by the native interface.
    device, dtype
        Where and in which precision it computes.
    """

    def __init__(self, path: Path, device: torch.device, dtype: torch.dtype) -> None:
        try:
            module = open_script(path)
        except (RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise EquistrideError(
                f"the artifact {path} cannot be read again ({reason})", hint="keep the file"
            ) from None
        self._module = module.to(device=device, dtype=dtype).eval()
        self.device, self.dtype = device, dtype

    def has(self, method: str) -> bool:
        """Whether the module offers a method."""
        return method in self._module._c._method_names()

    def __call__(self, method: str, *arguments: Tensor) -> Tensor:
        """Call a method of the module."""
        # the profiling executor would compile anew whenever the number of edges changes
        with torch.jit.optimized_execution(False):
            return getattr(self._module, method)(*arguments)

    def place(self, values: Tensor) -> Tensor:
        """Return a tensor on the module's device; real numbers in its precision, and outside inference mode."""
        values = values.to(self.device, self.dtype) if values.is_floating_point() else values.to(self.device)
        return values.clone() if values.is_inference() else values

    def graph(self, frame: Frame, cutoff: float) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return the arguments of ``forward`` for a checked frame: positions, species, cell, edge_index, shifts."""
        positions, species, cell = (self.place(part) for part in frame[:3])
        return positions, species, cell, *neighbor_list(positions, cell, frame.pbc.to(self.device), cutoff)

    def uncertainty(self, frame: Frame, cutoff: float) -> Tensor | None:
        """Return the uncertainty [N] of a checked frame in eV/A; None where atoms are on top of each other."""
        with torch.inference_mode(False), torch.enable_grad():
            positions, species, cell, edges, shifts = self.graph(frame, cutoff)
            if too_close(edge_vectors(positions, cell, edges, shifts)):
                return None
            return self("uncertainty", positions, species, cell, edges, shifts).detach()


def too_close(vectors: Tensor) -> bool:
    """Whether an edge [E, 3] is so short that the native checks shall see the frame."""
    return len(vectors) > 0 and bool((vectors.square().sum(1) < SUSPICIOUS**2).any())


class Batch:
    """Joins the graphs of many frames into one call of a module.

    Parameters
    ----------
    script, cutoff
        The module and its cutoff [A].
    """

    def __init__(self, script: Script, cutoff: float) -> None:
        self._script, self._cutoff = script, cutoff
        self._agrees: bool | None = None

    def agrees(self, compute: Callable[..., Outputs], num_species: int) -> bool:
        """Whether the module can be run so, and gives what ``compute`` gives (tried once, on the reference structure)."""
        if self._agrees is None:
            self._agrees = self._script.has("atomic_energies") and self._reproduces(compute, num_species)
        return self._agrees

    def _reproduces(self, compute: Callable[..., Outputs], num_species: int) -> bool:
        positions, species, cell = reference_structure(num_species, self._cutoff)
        pbc = torch.ones(3, dtype=torch.bool)
        expected = compute(positions, species, cell, pbc)
        try:
            found = self.evaluate([Frame(positions, species, cell, pbc)])
        except (RuntimeError, ValueError):
            return False  # a module of somebody else may take other arguments
        if found is None:
            return False
        tolerance = TOLERANCE["float64" if self._script.dtype == torch.float64 else "float32"]
        pairs = zip((found.atomic_energies, found.forces, found.virials[0]), expected, strict=True)
        return all(float((a - b).abs().max()) <= tolerance * max(1.0, float(b.abs().max())) for a, b in pairs)

    def evaluate(self, frames: Sequence[Frame]) -> BatchOutputs | None:
        """Evaluate checked frames at once; None where one of them needs the native checks."""
        script = self._script
        with torch.inference_mode(False), torch.enable_grad():
            counts = torch.tensor([len(frame.positions) for frame in frames])
            all_species, all_edges, all_vectors, edges_of = [], [], [], []
            first = 0
            for frame in frames:
                try:
                    positions, species, cell, edges, shifts = script.graph(frame, self._cutoff)
                except EquistrideError:
                    return None
                all_vectors.append(edge_vectors(positions, cell, edges, shifts))
                all_species.append(species)
                all_edges.append(edges + first)
                edges_of.append(edges.size(1))
                first += len(positions)
            vectors = torch.cat(all_vectors).detach().requires_grad_(True)
            if too_close(vectors):
                return None
            edges = torch.cat(all_edges, 1)
            energies = script("atomic_energies", vectors, torch.cat(all_species), edges).double()
            if vectors.size(0):
                (gradient,) = torch.autograd.grad([energies.sum()], [vectors])
            else:
                gradient = torch.zeros_like(vectors)
        if gradient is None or not bool(torch.isfinite(energies).all() & torch.isfinite(gradient).all()):
            return None
        vectors, energies = vectors.detach(), energies.detach()
        number = len(frames)
        of_atom = torch.repeat_interleave(torch.arange(number), counts).to(script.device)
        of_edge = torch.repeat_interleave(torch.arange(number), torch.tensor(edges_of)).to(script.device)
        outer = -(vectors[:, :, None] * gradient[:, None, :])
        return BatchOutputs(
            energies.new_zeros(number).index_add(0, of_atom, energies),
            energies,
            forces_from_edges(gradient, edges, first),
            outer.new_zeros(number, 3, 3).index_add(0, of_edge, outer),
        )


def separate(parts: Sequence[Outputs]) -> BatchOutputs:
    """Join the outputs of frames that were evaluated one by one."""
    return BatchOutputs(
        torch.stack([part.atomic_energies.double().sum() for part in parts]),
        torch.cat([part.atomic_energies for part in parts]),
        torch.cat([part.forces for part in parts]),
        torch.stack([part.virial for part in parts]),
    )
