"""Find the way in which a module of one's own is called, and its energies of atoms."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from typing import Any

import torch
from torch import nn

from equistride.artifact.own_call import Adapter, Bundle, Call, Given, adapter, call_of, with_output
from equistride.artifact.own_trials import (
    BOUND,
    Lab,
    apart,
    energies_at,
    energies_by_edges,
    frame_of,
    not_alone,
    random,
    receiver_of,
    require_repeatable,
)
from equistride.errors import EquistrideError


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"


def _place(error: Exception) -> str:
    """Return the file and line of the module that raised."""
    trace, place = error.__traceback__, ""
    while trace is not None:
        code = trace.tb_frame.f_code
        if "equistride" not in code.co_filename and f"torch{'/'}" not in code.co_filename:
            place = f"{code.co_filename}, line {trace.tb_lineno}"
        trace = trace.tb_next
    return place


def _by_lattice_vectors(network: Adapter, lab: Lab) -> float:
    """Return the change of energies when atoms move by whole lattice vectors."""
    whole = torch.round(4 * random(len(lab.box.species), 3, seed=3))
    frame = lab.box
    other = frame_of(frame.positions + whole @ frame.cell, frame.species, lab.cutoff, frame.cell)
    energies = energies_at(network)
    return apart(energies(frame).sum(), energies(other).sum()) / lab.scale(network)


def find_call(module: nn.Module, lab: Lab, given: Given, output: str | int | None) -> Adapter:
    """Return a module with the way of calling it under which its energies repeat along a lattice.

    Raises
    ------
    EquistrideError
        Where there is none.
    """
    first = call_of(module)
    roles = first.roles
    ways = [
        (True, False) if "shifts" in roles else (True,),
        (1, -1) if roles & {"shifts", "whole", "offsets"} else (1,),
    ]
    ways.append((False, True) if roles & {"cell", "periodic"} else (False,))
    problem: Exception | None = None
    drifted = math.inf
    for whole, sign, stacked in product(*ways):
        call = replace(first, whole_shifts=bool(whole), sign=sign, stacked=bool(stacked))
        try:
            network = _settled(call, module, lab, given, output)
            require_repeatable(network, lab)
            drift = _by_lattice_vectors(network, lab)
        except EquistrideError:
            raise
        except Exception as error:  # whatever a module of somebody else raises
            problem = problem or error
            continue
        if drift < BOUND:
            return network
        drifted = min(drifted, drift)
    name = type(module).__name__
    if problem is not None and drifted == math.inf:
        place = _place(problem)
        raise EquistrideError(
            f"{name} cannot be evaluated ({_reason(problem)}{', ' + place if place else ''})",
            expected=f"a forward that takes {', '.join(first.names[:12])} as docs/own-network.md says",
            hint="mend it, or wrap it in a module with the forward(vectors, species, edge_index)",
        ) from problem
    raise EquistrideError(
        f"the energy of {name} changes when atoms move by whole lattice vectors",
        expected="edge vectors pos[j] - pos[i] + shifts", found=f"a change of {drifted:.1g} of the energy's scale",
        hint="let its edge vectors hold the shifts",
    )  # fmt: skip


def _settled(call: Call, module: nn.Module, lab: Lab, given: Given, output: str | int | None) -> Adapter:
    """Return the module called this way, with the keys that it reads alone and with the place of its energy."""

    def run(call: Call) -> tuple[Any, set[str]]:
        read: set[str] = set()
        seen: list[Any] = []

        class Watched(nn.Module):
            def forward(self, *arguments: Any, **named: Any) -> Any:
                out = module(*arguments, **named)
                seen.append(out)
                read.update(*(a.__dict__["read"] for a in arguments if isinstance(a, Bundle)))
                return torch.zeros(len(lab.box.species))

        plain = replace(call, output=None, attribute=False, total=False)
        if plain.style == "dictionary":
            plain = replace(plain, style="object")
        adapter(plain, Watched(), given).at(*lab.box)
        return seen[0], read

    out, read = run(call)
    if call.style != "arguments":
        call = replace(call, names=tuple(n for n in call.names if n in read or n in call.switches))
    call = with_output(call, out, len(lab.box.species), output)
    return adapter(call, module, given)


def _again(network: Adapter, **changes: Any) -> Adapter:
    """Return the same module, called in another way."""
    return adapter(replace(network.said, **changes), network.foreign, network.given)


def _same(network: Adapter, other: Adapter, lab: Lab) -> bool:
    """Whether energies from edge vectors, under ``other``, are those from positions."""
    scale, expected_at = lab.scale(network), energies_at(network)
    try:
        for frame in (lab.box, lab.moved, lab.blob):
            found, expected = energies_by_edges(other, frame), expected_at(frame).sum()
            if len(found) != len(frame.species) or not apart(found.sum(), expected) <= BOUND * scale:
                return False
    except Exception:  # whatever a module of somebody else raises
        return False
    return True


def by_edges(network: Adapter, lab: Lab) -> tuple[Adapter | None, str]:
    """Return the module as one that takes edge vectors and gives energies of atoms, or None and why it is none."""
    if network.said.total:
        if not {"batch", "ptr"} & network.said.roles:
            return None, "it gives one energy for all atoms and takes no batch"
        ways = [_again(network, split=True, stacked=stacked) for stacked in (network.said.stacked, True)]
        split = next((way for way in ways if _same(network, way, lab)), None)
        if split is None:
            return None, "it gives one energy for all atoms, which are not sums over frames of atoms"
        network = split
    elif not _same(network, network, lab):
        return None, "it needs positions, and not edge vectors alone"
    try:
        receiver = receiver_of(network)
    except Exception as error:
        return None, f"it does not take a frame with one edge ({_reason(error)})"
    if receiver is None:
        return None, not_alone(network, lab) or "an edge counts for both of its atoms, or for none"
    if receiver == 0:
        return network, ""
    if "edge_index" not in network.said.roles:
        return None, "it sums over edges at the sender"
    flipped = _again(network, receiver=1, sign=-network.said.sign)
    if receiver_of(flipped) != 0 or not _same(network, flipped, lab):
        return None, "it sums over edges at the sender"
    return flipped, ""
