"""How a module of one's own is called: which of its arguments or keys is what, and the code that gives them.

A *call* is found by name (:data:`ROLES`) and, where names leave something open, by the trials of
:mod:`equistride.artifact.own_trials`. From it a method is written that TorchScript compiles and ``torch.export`` traces, so that
there is one way in for both.
"""

from __future__ import annotations

import inspect
import itertools
import linecache
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Optional, get_args, get_origin

import torch
from torch import Tensor, nn

from equistride.errors import EquistrideError
from equistride.models.potential import edge_vectors

ROLES = {
    "vectors": "vectors edge_vectors edge_vec edge_vector r_ij rij _Rij",
    "distances": "distances edge_lengths edge_length edge_weight edge_dist d_ij dist",
    "positions": "positions pos coordinates coords xyz R _positions",
    "types": "species atom_types atom_type types node_types node_type",
    "numbers": "atomic_numbers numbers z Z _atomic_numbers",
    "one_hot": "node_attrs one_hot",
    "edge_index": "edge_index edges",
    "receivers": "receivers idx_i _idx_i",
    "senders": "senders idx_j _idx_j",
    "offsets": "offsets shift_vectors _offsets",
    "whole": "unit_shifts edge_cell_shift cell_shifts cell_shift cell_offsets _cell_offset",
    "shifts": "shifts edge_shifts edge_shift",  # offsets or whole
    "cell": "cell lattice box _cell",
    "batch": "batch idx_m _idx_m",
    "ptr": "ptr",
    "counts": "natoms num_atoms n_atoms _n_atoms",
    "size": "num_nodes",
    "frames": "num_graphs",
    "periodic": "pbc _pbc",
    "off": "training compute_force compute_forces compute_stress compute_virials compute_displacement compute_hessian",
}
"""What the arguments of a forward, or the keys of its dictionary, are called."""
ROLE_OF = {name: role for role, names in ROLES.items() for name in names.split()}
ATOMIC = ("atomic_energies", "atomic_energy", "node_energy", "energies_atomic", "per_atom_energy", "energy_per_atom")
"""What the energies of atoms are called in what a forward returns."""
TOTAL = ("total_energy", "energy", "energies", "E", "y", "out")
"""What the energy of a frame is called."""
GEOMETRY = {"vectors", "distances", "offsets", "whole", "shifts"}

SAME = 1e-6
"""Energies within this share are one."""
Style = Literal["arguments", "dictionary", "object"]


class Bundle(dict[str, Any]):
    """Tensors by key and by attribute, as a dictionary and a ``Data`` of PyTorch Geometric have them; notes what is read."""

    def __init__(self, given: dict[str, Any]) -> None:
        super().__init__(given)
        object.__setattr__(self, "read", set())
        object.__setattr__(self, "written", set())

    def _note(self, key: str) -> None:
        if key in ROLE_OF and key not in self.__dict__["written"]:
            self.__dict__["read"].add(key)

    def __getitem__(self, key: str) -> Any:
        self._note(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        """Return what a dictionary does."""
        self._note(key)
        return super().get(key, default)

    def __getattr__(self, key: str) -> Any:
        if key not in self:
            raise AttributeError(key)
        return self[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.__dict__["written"].add(key)
        super().__setitem__(key, value)

    def __setattr__(self, key: str, value: Any) -> None:
        self[key] = value


class Given(NamedTuple):
    """What a module is given beside the frame: of each element its type and atomic number; its unit of length, as how many of it
    are 1 A; and +1, or -1 for edge vectors from the sender to the receiver."""

    types: list[int]
    numbers: list[int]
    per_angstrom: float
    pointing: float


@dataclass(frozen=True)
class Call:
    """One way of calling a module."""

    style: Style
    names: tuple[str, ...]
    """Arguments or keys that are given."""
    receiver: int = 0
    """Row of its ``edge_index`` that holds the atom which sums over the edge."""
    whole_shifts: bool = True
    """Whether ``shifts`` are whole lattice vectors, and not lengths."""
    sign: int = 1
    """Of the shifts: they are added to the second position less the first, or taken from that."""
    stacked: bool = False
    """Whether the cell has a leading axis of frames."""
    split: bool = False
    """Whether each atom is told to be a frame, so that sums over a frame are energies of atoms."""
    output: str | int | None = None
    """Key, attribute or place of the energy in what it returns."""
    attribute: bool = False
    """Whether that is an attribute."""
    total: bool = False
    """Whether it is one energy for all atoms."""

    @property
    def roles(self) -> set[str]:
        """What the module is given."""
        return {ROLE_OF[name] for name in self.names}

    @property
    def switches(self) -> list[str]:
        """Arguments that are given False: what the module may do beside its energy is turned off."""
        return [name for name in self.names if ROLE_OF[name] == "off"]


def call_of(module: nn.Module) -> Call:
    """Return how a module is called, as far as its signature tells; a dictionary's keys are all that are known.

    Raises
    ------
    EquistrideError
        For an argument that is not known and has no default.
    """
    where = f"{type(module).__name__}.forward"
    signature = inspect.signature(module.forward)
    parameters = [p for p in signature.parameters.values() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    unknown = [p for p in parameters if p.name not in ROLE_OF and p.default is p.empty]
    known = tuple(p.name for p in parameters if p.name in ROLE_OF)
    if len(unknown) == 1 and not [name for name in known if ROLE_OF[name] != "off"]:
        switches = tuple(name for name in known if ROLE_OF[name] == "off")
        try:
            hints = inspect.get_annotations(module.forward.__func__, eval_str=True)  # type: ignore[attr-defined]
        except (NameError, AttributeError, TypeError):
            hints = {}
        hint = hints.get(unknown[0].name)
        tensors = get_origin(hint) is dict and get_args(hint)[1:] == (Tensor,)
        everything = tuple(name for name in ROLE_OF if ROLE_OF[name] != "off")
        return Call("dictionary" if tensors else "object", everything + switches)
    if unknown:
        raise EquistrideError(
            f"the argument {unknown[0].name} of {where} is not known",
            expected="positions, edge_index, shifts and so on, as docs/own-network.md names them", found=str(signature),
            hint="rename it, give it a default, or wrap the module in one with the forward(vectors, species, edge_index)",
        )  # fmt: skip
    if not {ROLE_OF[name] for name in known} & GEOMETRY:
        raise EquistrideError(
            f"{where} takes no edges with their periodic images", expected="edge vectors, or edge_index with shifts",
            found=str(signature), hint="equistride makes the list of neighbours: let the module take it",
        )  # fmt: skip
    return Call("arguments", known)


def _expression(name: str, call: Call) -> str:
    role = ROLE_OF[name]
    frames = "n" if call.split else "1"
    if role == "shifts":
        role = "whole" if call.whole_shifts else "offsets"
    per_frame = "torch.arange({}n{}, device=species.device)"
    return {
        "vectors": "vectors",
        "distances": "torch.linalg.vector_norm(vectors, dim=1)",
        "positions": "positions",
        "types": "self.types.index_select(0, species)",
        "numbers": "self.numbers.index_select(0, species)",
        "one_hot": "self.identity.index_select(0, species)",
        "edge_index": "edge_index" if call.receiver == 0 else "edge_index.flip(0)",
        "receivers": "edge_index[0]",
        "senders": "edge_index[1]",
        "offsets": "offsets",
        "whole": "whole",
        "cell": f"cell.unsqueeze(0).expand({frames}, 3, 3)" if call.stacked else "cell",
        "batch": per_frame.format("", "") if call.split else "torch.zeros_like(species)",
        "ptr": per_frame.format("", " + 1") if call.split else "torch.arange(2, device=species.device) * n",
        "counts": "torch.ones_like(species)" if call.split else "torch.full([1], n, dtype=torch.int64, device=species.device)",
        "size": "n",
        "frames": frames,
        "periodic": f"torch.ones([{frames}, 3], dtype=torch.bool, device=species.device)" if call.stacked
                    else "torch.ones([3], dtype=torch.bool, device=species.device)",
        "off": "False",
    }[role]  # fmt: skip


def source_of(call: Call) -> str:
    """Return the method that gives a module its arguments and takes the energies of atoms [N] from what it returns."""
    given = [name for name in call.names if name not in call.switches]
    lines = [
        "def call(self, positions: Tensor, cell: Tensor, whole: Tensor, offsets: Tensor, vectors: Tensor, species: Tensor,",
        "         edge_index: Tensor) -> Tensor:",
        "    n = species.size(0)",
    ]
    more = "".join(f", {name}=False" for name in call.switches)
    if call.style == "arguments":
        arguments = ", ".join(f"{name}={_expression(name, call)}" for name in given)
        lines.append(f"    out = self.foreign({arguments}{more})")
    else:
        # a dictionary of tensors has no numbers in it
        keys = [n for n in given if call.style == "object" or ROLE_OF[n] not in ("size", "frames")]
        items = ", ".join(f'"{name}": {_expression(name, call)}' for name in keys)
        if call.style == "object":
            lines.append(f"    out = self.foreign(self.bundle({{{items}}}){more})")
        else:
            lines += [f"    data: dict[str, Tensor] = {{{items}}}", f"    out = self.foreign(data{more})"]
    at = f".{call.output}" if call.attribute else "" if call.output is None else f"[{call.output!r}]"
    lines += [f"    energy: Optional[Tensor] = out{at}", "    assert energy is not None"]
    if call.total and not call.split:
        lines.append("    return energy.sum().reshape(1).expand(n) / n")
    else:
        lines.append("    return energy.reshape(-1)")
    return "\n".join(lines) + "\n"


class Adapter(nn.Module):
    """A module of one's own as a network: atomic energies [N] in its unit from edge vectors, or from positions.

    Parameters
    ----------
    said, foreign, given
        How the module is called; the module; what it is given.
    """

    def __init__(self, said: Call, foreign: nn.Module, given: Given) -> None:
        super().__init__()
        self.foreign = foreign
        self.said, self.given = said, given
        self.per_angstrom, self.sign, self.pointing = given.per_angstrom, float(said.sign), float(given.pointing)
        self.register_buffer("types", torch.tensor(given.types, dtype=torch.int64))
        self.register_buffer("numbers", torch.tensor(given.numbers, dtype=torch.int64))
        self.register_buffer("identity", torch.eye(len(given.types), dtype=torch.float64))

    def call(
        self, positions: Tensor, cell: Tensor, whole: Tensor, offsets: Tensor, vectors: Tensor, species: Tensor,
        edge_index: Tensor,
    ) -> Tensor:  # fmt: skip
        """Return what the module makes of them [N]; written for each call."""
        raise NotImplementedError

    def forward(self, vectors: Tensor, species: Tensor, edge_index: Tensor) -> Tensor:
        """Return atomic energies [N], from edge vectors [E, 3] A: where positions are taken, all atoms lie at the origin and
        shifts reach from the one to the other."""
        vectors = vectors * self.per_angstrom
        positions = vectors.new_zeros([species.size(0), 3])
        cell = torch.eye(3, dtype=vectors.dtype, device=vectors.device)
        reach = vectors * self.sign
        return self.call(positions, cell, reach, reach, vectors * self.pointing, species, edge_index)

    def at(self, positions: Tensor, species: Tensor, cell: Tensor, edge_index: Tensor, shifts: Tensor) -> Tensor:
        """Return atomic energies [N], from positions [N, 3] A and whole shifts [E, 3]."""
        positions = positions * self.per_angstrom
        cell = cell * self.per_angstrom
        vectors = edge_vectors(positions, cell, edge_index, shifts)
        whole = shifts.to(positions.dtype) * self.sign
        offsets = edge_vectors(torch.zeros_like(positions), cell, edge_index, shifts) * self.sign
        return self.call(positions, cell, whole, offsets, vectors * self.pointing, species, edge_index)


_numbers = itertools.count()


def adapter(call: Call, foreign: nn.Module, given: Given) -> Adapter:
    """Return the module as a network, called this way."""
    text = source_of(call)
    name = f"<equistride call {next(_numbers)}>"
    # where TorchScript finds the source
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    space: dict[str, Any] = {"torch": torch, "Tensor": Tensor, "Optional": Optional, "__name__": __name__}
    exec(compile(text, name, "exec"), space)
    kind = type("Adapter", (Adapter,), {"call": space["call"], "bundle": staticmethod(Bundle), "__module__": __name__})
    return kind(call, foreign, given)


def with_output(call: Call, out: Any, atoms: int, wanted: str | int | None) -> Call:
    """Return the call with the place of the energy in ``out``, which it returned for ``atoms`` atoms.

    Raises
    ------
    EquistrideError
        Where there is none, or it has neither one number an atom nor one in all.
    """

    def items(value: Any) -> dict[str | int, Any]:
        if isinstance(value, dict):
            return dict(value)
        if isinstance(value, tuple | list) and not hasattr(value, "_fields"):
            return dict(enumerate(value))
        return {name: getattr(value, name) for name in (*ATOMIC, *TOTAL) if getattr(value, name, None) is not None}

    key: str | int | None = None
    attribute = False
    if isinstance(out, Tensor):
        found = out
    else:
        there, attribute = items(out), not isinstance(out, dict | tuple | list) or hasattr(out, "_fields")
        names: list[str | int] = [wanted] if wanted is not None else [*ATOMIC, *TOTAL, 0]
        key = next((name for name in names if isinstance(there.get(name), Tensor)), None)
        if key is None:
            raise EquistrideError(
                "the module returns no energy that is known", expected=wanted or f"one of {', '.join((*ATOMIC, *TOTAL))}",
                found=", ".join(map(str, there)) or type(out).__name__, hint="name it with the option `output`",
            )  # fmt: skip
        found = there[key]
        total = next((there[name] for name in TOTAL if isinstance(there.get(name), Tensor)), None)
        if wanted is None and key in ATOMIC and total is not None and total.numel() == 1 != atoms:
            apart = (found.sum() - total.sum()).abs() / total.abs().sum().clamp(min=1.0)
            if float(apart) > SAME:  # what is kept of atoms is not the whole energy
                key = next(name for name in TOTAL if there.get(name) is total)
                found = total
    if found.numel() not in (atoms, 1):
        raise EquistrideError(
            "the module's energy has a wrong shape", expected=f"[{atoms}] or [{atoms}, 1] for the atoms, or one number",
            found=list(found.shape),
        )  # fmt: skip
    if not found.is_floating_point():
        raise EquistrideError("the module's energy is not a real number", found=found.dtype)
    return replace(call, output=key, attribute=attribute, total=found.numel() == 1)
