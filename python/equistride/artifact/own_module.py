"""Anybody's own network made into an artifact: :func:`export_module`."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from equistride import __version__
from equistride.artifact.archive import save
from equistride.artifact.metadata import Container, Metadata, check_precision
from equistride.artifact.own_call import Adapter, Given
from equistride.artifact.own_program import Padded, program_of, require_scripted
from equistride.artifact.own_search import by_edges, find_call
from equistride.artifact.own_trials import (
    BOUND,
    Found,
    Lab,
    holds_for_empty,
    jump_at_cutoff,
    look,
    require_float32,
    require_sound,
)
from equistride.elements import atomic_numbers_of
from equistride.errors import EquistrideError, tell
from equistride.models.potential import ConservativePotential
from equistride.units import ANGSTROM_PER_NM, BOHR, EV_PER_KCAL_MOL, EV_PER_KJ_MOL, HARTREE

ENERGY = {"eV": 1.0, "meV": 1e-3, "kcal/mol": EV_PER_KCAL_MOL, "kJ/mol": EV_PER_KJ_MOL, "Ha": HARTREE}
"""Units of energy, in eV."""
LENGTH = {"A": 1.0, "nm": ANGSTROM_PER_NM, "bohr": BOHR}
"""Units of length, in A."""


class WholePotential(nn.Module):
    """A potential around a network that looks at all atoms: its gradient is taken to positions, and to a strain for the virial.

    Parameters
    ----------
    network, scale, references
        The network; energy of its unit, and of each element [eV].
    """

    def __init__(self, network: Adapter, scale: float, references: list[float]) -> None:
        super().__init__()
        self.network, self.scale, self.references = network, scale, references

    def forward(
        self, positions: Tensor, species: Tensor, cell: Tensor, edge_index: Tensor, shifts: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return atomic energies [N] eV, forces [N, 3] eV/A and virial [3, 3] eV, of the contract's arguments."""
        leaf = positions.detach().requires_grad_(True)
        strain = torch.zeros(3, 3, dtype=cell.dtype, device=cell.device).requires_grad_(True)
        places = leaf + torch.matmul(leaf, strain)
        box = cell + torch.matmul(cell, strain)
        energies = self.network.at(places, species, box, edge_index, shifts).double() * self.scale
        of_places, of_strain = torch.autograd.grad([energies.sum()], [leaf, strain], allow_unused=True)
        if of_places is None:
            of_places = torch.zeros_like(leaf)
        if of_strain is None:
            of_strain = torch.zeros_like(strain)
        each = [torch.full([1], e, dtype=torch.float64, device=energies.device) for e in self.references]
        return energies.detach() + torch.cat(each).index_select(0, species), -of_places, -of_strain


def _unit(table: dict[str, float], name: str, what: str) -> float:
    if name not in table:
        raise EquistrideError(f"the unit of {what} is not known", expected=", ".join(table), found=name)
    return table[name]


def _given(
    module: Any, species: Sequence[str] | None, cutoff: float | None, per_angstrom: float
) -> tuple[list[str], float]:
    """Return the elements, and the cutoff in A; what is not given is taken from the module."""
    symbols = list(species if species is not None else getattr(module, "species", None) or [])
    if not symbols or not all(isinstance(symbol, str) for symbol in symbols):
        raise EquistrideError("the elements of the module are not known", expected="symbols in the order of its types",
                              found=symbols or None, hint="give species=[...] (--species H,C,O)")  # fmt: skip
    if cutoff is None:
        own = getattr(module, "cutoff", None)
        cutoff = None if own is None else float(own) / per_angstrom
    if cutoff is None or not cutoff > 0:
        raise EquistrideError("the cutoff of the module is not known", expected="a length above 0 [A]", found=cutoff,
                              hint="give cutoff=... (--cutoff)")  # fmt: skip
    return symbols, float(cutoff)


def export_module(
    module: nn.Module, output: str | Path, *, species: Sequence[str] | None = None, cutoff: float | None = None,
    types: Sequence[int] | None = None, energy: str = "eV", length: str = "A", references: Sequence[float] | None = None,
    result: str | int | None = None, toward: Literal["sender", "receiver"] | None = None, dtype: str = "float32",
    container: Container = "torchscript", name: str = "", description: str = "", licence: str = "",
    cite: Sequence[str] | None = None, allow_nonconservative: bool = False,
) -> Metadata:  # fmt: skip
    """Write any module that gives energies as an artifact.

    How it is called is found by the names of its arguments, or of the keys that it reads, and by trials; forces and virial are
    the gradient of its energy. Whether its atoms may be divided among processes is found by trials too.

    Parameters
    ----------
    module
        Trained; see ``docs/own-network.md`` for what it may take and return.
    output
        File to write.
    species
        Element symbols; the module's attribute ``species`` where left out.
    cutoff
        Of the list of neighbours [A]; the module's attribute ``cutoff``, in its unit, where left out.
    types
        [S] what the module is given for each element; where left out its atomic number, for an argument of that name, and else
        its place in ``species``.
    energy, length
        Units of the module: ``"eV"``, ``"meV"``, ``"kcal/mol"``, ``"kJ/mol"``, ``"Ha"``; ``"A"``, ``"nm"``, ``"bohr"``.
    references
        [S] energy of each element that is added to its atoms [eV].
    result
        Key, attribute or place of the energy in what the module returns, where names do not tell.
    toward
        Whether edge vectors point to the sender (r_j - r_i at the receiver i) or to the receiver; only for modules that take
        edge vectors and tell left from right.
    dtype, container, description, licence
        As for :func:`equistride.artifact.export.export`.
    name, cite
        Name of the architecture, the class where left out; what to cite.
    allow_nonconservative
        Also a module whose energy jumps at the cutoff; its metadata say so.

    Returns
    -------
    Metadata
        What the file says of itself.

    Raises
    ------
    EquistrideError
        For a module that cannot be called, is not compiled, or whose energy is not a differentiable function of the atoms'
        relative places.
    """
    check_precision(dtype)
    per_angstrom = 1.0 / _unit(LENGTH, length, "length")
    scale = _unit(ENERGY, energy, "energy")
    symbols, radius = _given(module, species, cutoff, per_angstrom)
    numbers = atomic_numbers_of(symbols, "the module").tolist()
    added = [0.0] * len(symbols) if references is None else [float(e) for e in references]
    if len(added) != len(symbols):
        raise EquistrideError("each element needs one reference energy", expected=len(symbols), found=len(added))
    module = copy.deepcopy(module).cpu().double().eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)

    lab = Lab(len(symbols), radius)
    if types is not None and len(types) != len(symbols):
        raise EquistrideError("each element needs one type of the module", expected=len(symbols), found=len(types))
    kinds = None if types is None else [int(kind) for kind in types]
    pointing = -1.0 if toward == "receiver" else 1.0
    given = Given(kinds or list(range(len(symbols))), kinds or numbers, per_angstrom, pointing)
    network = find_call(module, lab, given, result)
    require_sound(network, lab)
    if toward is None and "vectors" in network.said.roles:
        _require_mirrored(network, lab)
    require_float32(network, lab)
    caveats = []
    jump = jump_at_cutoff(network, lab)
    if jump > 1e3 * BOUND:
        caveats = [f"the energy jumps by {jump:.1g} of its scale where a neighbour crosses the cutoff"]
        if not allow_nonconservative:
            raise EquistrideError(
                f"the module cannot conserve energy: {caveats[0].removeprefix('the ')}", expected="an envelope that ends at 0",
                hint="multiply what an edge sends by a function that goes to 0 at the cutoff, or allow it "
                "(--allow-nonconservative)",
            )  # fmt: skip

    edges, reason = by_edges(network, lab)
    found = Found(why_not=reason) if edges is None else look(edges, lab)
    potential: nn.Module
    if edges is not None and not found.why_not:
        program = program_of(edges, lab)
        if not isinstance(program, Padded) and not holds_for_empty(edges, lab):
            program = Padded(program, 0.5 * radius)
        potential = ConservativePotential(program, symbols, radius, scale, added)
    else:
        tell(f"atoms of this model cannot be divided among processes: {found.why_not}")
        potential = WholePotential(network, scale, added)
        require_scripted(potential, module)
    metadata = Metadata(
        kind="potential", architecture=name or type(module).__name__, description=description, species=symbols,
        cutoff=radius, message_passing_steps=found.steps, dtype=dtype,  # type: ignore[arg-type]
        global_sums=int(bool(found.why_not)), conservative=not caveats, caveats=caveats,
        num_parameters=sum(p.numel() for p in module.parameters()),
        provenance={"equistride": __version__, "torch": torch.__version__}, licence=licence, references=list(cite or []),
        weights={"program": type(module).__module__},
    )  # fmt: skip
    return save(potential, metadata, Path(output), container)


def _require_mirrored(network: Adapter, lab: Lab) -> None:
    """Ask which way edge vectors point where it makes a difference."""
    frame = lab.blob
    with torch.no_grad():
        mirrored = frame._replace(positions=-frame.positions)
        apart = abs(float(network.at(*frame).sum() - network.at(*mirrored).sum()))
    if apart > 10 * BOUND * lab.scale(network):
        raise EquistrideError(
            "the module's energy is another in a mirror, so it matters which way its edge vectors point",
            expected="toward='sender' for r_j - r_i at the receiver i, or toward='receiver'", found="neither was said",
            hint="say it (--toward)",
        )  # fmt: skip
