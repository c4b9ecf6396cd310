"""Write a file for openmm-torch: TorchScript of the TorchForce contract with torch's own operators alone."""

import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from openmm import app
from torch import Tensor, nn

from equistride import artifact as artifacts
from equistride.artifact.archive import open_script
from equistride.artifact.ensemble import Ensemble
from equistride.engines.openmm_topology import choose_atoms, element_symbols, has_box
from equistride.errors import EquistrideError
from equistride.models.potential import ConservativePotential
from equistride.nn.exchange import without_exchange
from equistride.nn.neighbors_reference import neighbors_reference
from equistride.units import ANGSTROM_PER_NM, KJ_MOL_PER_EV


class _TorchForce(nn.Module):
    """Units, neighbours and the choice of atoms around an artifact's module."""

    species: Tensor
    atoms: Tensor

    def __init__(self, model: nn.Module, species: Tensor, atoms: Tensor, cutoff: float, dtype: torch.dtype) -> None:
        super().__init__()
        self.model = model
        self.cutoff = float(cutoff)
        self.dtype = dtype
        self.angstrom_per_nm = float(ANGSTROM_PER_NM)
        self.kj_mol_per_ev = float(KJ_MOL_PER_EV)
        self.register_buffer("species", species)
        self.register_buffer("atoms", atoms)

    def evaluate(self, positions: Tensor, cell: Tensor, pbc: Tensor) -> tuple[Tensor, Tensor]:
        """Return energy [kJ/mol] and forces [n, 3] kJ/mol/nm; positions [n, 3] nm, cell [3, 3] A."""
        chosen = positions.detach().index_select(0, self.atoms) * self.angstrom_per_nm
        # Atoms that are far from the origin keep their digits in a float32 model.
        if bool(pbc.any()):
            chosen = chosen - torch.floor(chosen @ torch.linalg.inv(cell)) @ cell
        elif chosen.dtype != self.dtype:
            chosen = chosen - chosen.mean(0, keepdim=True)
        chosen, cell = chosen.to(self.dtype), cell.to(self.dtype)
        edge_index, shifts = neighbors_reference(chosen, cell, pbc, self.cutoff)
        energies, forces, _ = self.model(chosen, self.species, cell, edge_index, shifts)
        energy = energies.to(torch.float64).sum() * self.kj_mol_per_ev
        forces = forces.to(positions.dtype) * (self.kj_mol_per_ev * self.angstrom_per_nm)
        return energy, torch.zeros_like(positions).detach().index_add(0, self.atoms, forces)


class PeriodicTorchForce(_TorchForce):
    """The contract with a box."""

    def forward(self, positions: Tensor, boxvectors: Tensor) -> tuple[Tensor, Tensor]:
        """Return energy [kJ/mol] and forces [n, 3] kJ/mol/nm; positions [n, 3] and box [3, 3] in nm."""
        cell = boxvectors.detach() * self.angstrom_per_nm
        pbc = torch.ones(3, dtype=torch.bool, device=positions.device)
        return self.evaluate(positions, cell, pbc)


class IsolatedTorchForce(_TorchForce):
    """The contract without a box."""

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return energy [kJ/mol] and forces [n, 3] kJ/mol/nm from positions [n, 3] in nm."""
        cell = torch.zeros(3, 3, dtype=positions.dtype, device=positions.device)
        pbc = torch.zeros(3, dtype=torch.bool, device=positions.device)
        return self.evaluate(positions, cell, pbc)


def write_torchforce(
    artifact: str | os.PathLike[str],
    output: str | os.PathLike[str],
    structure: app.Topology | Sequence[str],
    *,
    periodic: bool | None = None,
    atoms: Iterable[int] | None = None,
    dtype: str | None = None,
) -> bool:
    """Write a potential as a file that openmm-torch runs where equistride is not installed.

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
    metadata = artifacts.load(path).metadata
    if metadata.kind != "potential":
        raise EquistrideError(
            f"{path.name} is a {metadata.kind}, which has no forces",
            expected="a potential",
            hint="run it with the propagating integrator",
        )
    if dtype not in (None, "float32", "float64"):
        raise EquistrideError("the precision is not known", expected="float32 or float64", found=dtype)
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
    precision = getattr(torch, dtype or metadata.dtype)
    species = torch.tensor([metadata.species.index(symbol) for symbol in symbols])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # TorchForce loads TorchScript alone
        loaded = open_script(path)
        without_exchange(loaded)
        model = _plain(loaded).to(precision).eval()
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        kind = PeriodicTorchForce if box else IsolatedTorchForce
        scripted = torch.jit.script(kind(model, species, torch.tensor(chosen), metadata.cutoff, precision).eval())
    foreign = sorted(name for name in torch.jit.export_opnames(scripted) if name.startswith("equistride::"))
    if foreign:
        raise EquistrideError(
            f"{path.name} uses operators that openmm-torch has not ({', '.join(foreign)})",
            hint="export the model without fused operators (--plain)",
        )
    partial = target.with_name(target.name + ".partial")
    try:
        torch.jit.save(scripted, str(partial))
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    return box


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
