"""Write a file for openmm-torch: TorchScript of the TorchForce contract, in torch's own operators or by equistride's library."""

import os
import warnings
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from openmm import app
from torch import Tensor, nn

from equistride import artifact as artifacts
from equistride.artifact.archive import script_of
from equistride.artifact.ensemble import Ensemble
from equistride.artifact.metadata import check_precision
from equistride.engines.openmm_topology import check_potential, choose_atoms, element_symbols, has_box
from equistride.errors import EquistrideError
from equistride.models.potential import ConservativePotential
from equistride.nn.exchange import without_exchange
from equistride.nn.neighbors_reference import neighbors_reference
from equistride.units import ANGSTROM_PER_NM, KJ_MOL_PER_EV
from equistride.writing import write


class PlainPotential(nn.Module):
    """An artifact's module with what it needs around it, in torch's own operators."""

    def __init__(self, model: nn.Module, cutoff: float, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.cutoff, self.dtype = model, float(cutoff), dtype

    def forward(
        self, positions: Tensor, species: Tensor, cell: Tensor, pbc: Tensor, charge: Tensor | None, spin: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return atomic energies [N] eV and forces [N, 3] eV/A; positions [N, 3] and cell [3, 3] in A."""
        if charge is not None or spin is not None:
            raise RuntimeError("charge and spin are fixed in this file; write it with --fused to set them")
        # Atoms that are far from the origin keep their digits in a float32 model.
        if bool(pbc.any()):
            positions = positions - torch.floor(positions @ torch.linalg.inv(cell)) @ cell
        elif positions.dtype != self.dtype:
            positions = positions - positions.mean(0, keepdim=True)
        positions, cell = positions.to(self.dtype), cell.to(self.dtype)
        edge_index, shifts = neighbors_reference(positions, cell, pbc, self.cutoff)
        energies, forces, _ = self.model(positions, species, cell, edge_index, shifts)
        return energies, forces


class NativePotential(nn.Module):
    """The same by equistride's library: ``model`` is a ``torch.classes.equistride.Model`` made of its artifact's bytes."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, positions: Tensor, species: Tensor, cell: Tensor, pbc: Tensor, charge: Tensor | None, spin: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return what :meth:`PlainPotential.forward` does, with this total charge [e] and spin multiplicity where given."""
        self.model.follow(positions)
        if charge is not None and spin is not None:
            self.model.set_system(float(charge), float(spin))
        outputs = self.model.compute(positions, None, species, cell, pbc, True)
        return outputs[0], outputs[1]


class _TorchForce(nn.Module):
    """Units and the choice of atoms around a potential."""

    species: Tensor
    atoms: Tensor

    def __init__(self, potential: nn.Module, species: Tensor, atoms: Tensor) -> None:
        super().__init__()
        self.potential = potential
        self.angstrom_per_nm = float(ANGSTROM_PER_NM)
        self.kj_mol_per_ev = float(KJ_MOL_PER_EV)
        self.register_buffer("species", species)
        self.register_buffer("atoms", atoms)

    def evaluate(
        self, positions: Tensor, cell: Tensor, periodic: bool, charge: Tensor | None, spin: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return energy [kJ/mol] and forces [n, 3] kJ/mol/nm; positions [n, 3] nm, cell [3, 3] A."""
        chosen = positions.detach().index_select(0, self.atoms) * self.angstrom_per_nm
        pbc = torch.full([3], periodic, dtype=torch.bool, device=positions.device)
        energies, forces = self.potential(chosen, self.species, cell, pbc, charge, spin)
        energy = energies.to(torch.float64).sum() * self.kj_mol_per_ev
        forces = forces.to(positions.dtype) * (self.kj_mol_per_ev * self.angstrom_per_nm)
        return energy, torch.zeros_like(positions).detach().index_add(0, self.atoms, forces)


class PeriodicTorchForce(_TorchForce):
    """The contract with a box."""

    def forward(
        self, positions: Tensor, boxvectors: Tensor, charge: Tensor | None = None, spin: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return energy [kJ/mol] and forces [n, 3] kJ/mol/nm; positions [n, 3] and box [3, 3] in nm."""
        return self.evaluate(positions, boxvectors.detach() * self.angstrom_per_nm, True, charge, spin)


class IsolatedTorchForce(_TorchForce):
    """The contract without a box."""

    def forward(
        self, positions: Tensor, charge: Tensor | None = None, spin: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return energy [kJ/mol] and forces [n, 3] kJ/mol/nm from positions [n, 3] in nm."""
        cell = torch.zeros(3, 3, dtype=positions.dtype, device=positions.device)
        return self.evaluate(positions, cell, False, charge, spin)


def write_torchforce(
    artifact: str | os.PathLike[str],
    output: str | os.PathLike[str],
    structure: app.Topology | Sequence[str],
    *,
    periodic: bool | None = None,
    atoms: Iterable[int] | None = None,
    dtype: str | None = None,
    fused: bool = False,
) -> bool:
    """Write a potential as a file that openmm-torch runs.

    Without ``fused`` it needs torch alone, and runs the plain network.

    In OpenMM: ``force = openmmtorch.TorchForce(output); force.setOutputsForces(True)``, and
    ``force.setUsesPeriodicBoundaryConditions(True)`` where this function returned True.

    Parameters
    ----------
    artifact
        Path of an equistride artifact of the kind ``potential``.
    output
        File to write; it appears whole or not at all.
    structure
        The topology that the file is for, or the element symbol of each atom: a TorchForce gets positions
        alone.
    periodic
        Whether the file takes box vectors; None to follow the topology (False for a list of symbols).
    atoms
        Indices of the atoms that the model sees; all where not given.
    dtype
        ``float32``, ``float64``, or None for the artifact's own.
    fused
        Run the artifact by equistride's library, with the numbers and the speed of the plugin. A script then calls
        :func:`equistride.load_operators` before it reads the file; where it does not, torch says
        ``Unknown type name '__torch__.torch.classes.equistride.Model'``. Weights are laid out for the kernels, and the model
        is tested, when the file is read. Of a model with settable charge and spin these are global parameters of the
        force, in this order: ``force.addGlobalParameter("charge", 0)``, ``force.addGlobalParameter("spin", 1)``; without them
        those of the artifact hold.

    Returns
    -------
    bool
        Whether the file takes box vectors.

    Raises
    ------
    EquistrideError
        As ``equistride.engines.openmm.create_force``, and for a model that needs operators which stock torch
        has not.
    """
    path, target = Path(artifact), Path(output)
    if dtype is not None:
        check_precision(dtype)
    precision = None if dtype is None else getattr(torch, dtype)
    # of bytes, the native model can go into the file
    loaded = artifacts.load(path.read_bytes(), dtype=precision) if fused else artifacts.load(path)
    metadata = loaded.metadata
    check_potential(metadata, path)
    topology = structure if isinstance(structure, app.Topology) else _chain(structure)
    chosen = choose_atoms(topology, atoms)
    symbols = element_symbols(topology, chosen, metadata.species)
    metadata.check_composition(symbols)
    required = metadata.periodic == "required"
    if isinstance(structure, app.Topology):
        box = has_box(topology, periodic, required)
    else:
        box = bool(periodic)
        if required and not box:
            raise EquistrideError("the model was trained on periodic systems alone", hint="set periodic=True")
    species = torch.tensor([metadata.species.index(symbol) for symbol in symbols])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # TorchForce loads TorchScript alone
        if fused:
            potential: nn.Module = NativePotential(loaded.native)
        else:
            potential = _in_plain_torch(path, metadata.cutoff, precision or getattr(torch, metadata.dtype))
        kind = PeriodicTorchForce if box else IsolatedTorchForce
        scripted = torch.jit.script(kind(potential, species, torch.tensor(chosen)).eval())
    foreign = sorted(name for name in torch.jit.export_opnames(scripted) if name.startswith("equistride::"))
    if foreign:
        raise EquistrideError(
            f"{path.name} uses operators that openmm-torch has not ({', '.join(foreign)})",
            hint="write the file with --fused, or export the model without fused operators (--plain)",
        )
    content = BytesIO()  # torch's writer ends the process where a disk is full
    torch.jit.save(scripted, content)
    write(target, content.getvalue())
    return box


def _in_plain_torch(path: Path, cutoff: float, dtype: torch.dtype) -> PlainPotential:
    """Return an artifact's module with no operator of ours that torch can do without, frozen."""
    module = script_of(path)
    without_exchange(module)
    model = _plain(module).to(dtype).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return PlainPotential(model, cutoff, dtype)


def _plain(model: Any) -> nn.Module:
    """Return the same potential without fused operators, where it has some: with the network that it keeps for a GPU."""
    if hasattr(model, "members"):
        return Ensemble([_plain(member) for member in model.members.children()])
    network = getattr(model, "network", None)
    if network is None or not hasattr(network, "plain"):
        return model
    return ConservativePotential(network.plain, model.species, model.cutoff, model.scale, model.references)


def _chain(symbols: Sequence[str]) -> app.Topology:
    """Return a topology of one residue with these elements."""
    topology = app.Topology()
    residue = topology.addResidue("X", topology.addChain())
    for symbol in symbols:
        try:
            element = app.Element.getBySymbol(symbol)
        except KeyError:
            raise EquistrideError("an element symbol is not known", expected="H, He, Li ...", found=symbol) from None
        topology.addAtom(symbol, element, residue)
    return topology
