"""Metadata in a dozen lines for people."""

from __future__ import annotations

import re
from typing import Any

from equistride.artifact.metadata import Metadata, one_of

LEFT_OUT = ("operators", "provenance")
"""Fields of which a summary says little or nothing; all others are in it, as far as they say anything."""


def summary(metadata: Metadata) -> list[tuple[str, str]]:
    """Return names and texts: what the model is, what it takes, what it can do, how good it is, who made it.

    Of fields that the package does not know, and of :data:`LEFT_OUT`, the names alone are in it, last and as "not shown".
    """
    m = metadata
    rows = [
        ("kind", _joined(m.kind, m.architecture, f"{m.num_parameters:,} parameters" if m.num_parameters else "",
                         m.dtype, f"{m.members} members" if m.members > 1 else "")),
        ("description", m.description),
        ("elements", " ".join(m.species) if len(m.species) < 8 else f"{len(m.species)}: {' '.join(m.species)}"),
        ("masses", _joined(*(f"{s} {mass:g}" for s, mass in zip(m.species, m.masses, strict=False))) + " amu" * bool(m.masses)),
        ("stride", _stride(m)),
        ("reach", _reach(m)),
        ("systems", _systems(m)),
        ("limits", _limits(m)),
        ("can", _capabilities(m, True)),
        ("cannot", _capabilities(m, False)),
        ("forces", _forces(m)),
        ("runs by", _runs(m)),
        ("accuracy", _joined(*(f"{name} {value:g}" for name, value in m.accuracy.items()))),
        ("licence", m.licence),
        ("references", "; ".join(m.references)),
        ("weights", _joined(*_scalars(m.weights))),
        ("made by", _maker(m.provenance)),
        ("units", ", ".join(m.units.model_dump().values())),
        ("format", f"{m.format} {m.format_version}" + ("" if m.digest else
                   "; written without hashes of its records: what was edited in it would not be seen")),
    ]  # fmt: skip
    unseen = [name for name in (*LEFT_OUT, *(m.model_extra or {})) if getattr(m, name, None)]
    return [(name, text) for name, text in [*rows, ("not shown", ", ".join(unseen))] if text]


def _joined(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def _stride(m: Metadata) -> str:
    if not m.stride_fs:
        return ""
    fallback = f"{m.stride_fs:g} where nothing is said" if m.strides_fs else ""
    return _joined(f"{one_of(m.strides_fs or [m.stride_fs])} fs", fallback,
                   f"trained on {m.ensemble or 'an ensemble that is not said'}")  # fmt: skip


def _reach(m: Metadata) -> str:
    steps = f"{m.message_passing_steps} message-passing step{'s' if m.message_passing_steps > 1 else ''}"
    if m.interaction_range == "all":
        return f"cutoff {m.cutoff:g} A, {steps}, {m.global_sums} sums over all atoms"
    total = f"{m.interaction_range:g} A in all" if m.interaction_range is not None else ""
    return _joined(f"cutoff {m.cutoff:g} A", steps, total)


def _systems(m: Metadata) -> str:
    values = " and ".join(f"{name} {value:g}" for name, value in m.system.items())
    system = {"none": "", "input": f"{values or 'charge and spin'}, which can be set", "fixed": f"{values} alone"}
    only = "" if m.composition is None else "only " + " ".join(f"{s}{n}" for s, n in m.composition.elements.items())
    if m.composition is not None and m.composition.atoms is not None:
        only += f" of {m.composition.atoms} atoms"
    return _joined(
        "with a box alone" if m.periodic == "required" else "with and without a box", system[m.charge_spin], only
    )


def _limits(m: Metadata) -> str:
    found = m.limits
    return _joined(
        f"atoms {found.shortest_bond:g} A apart or more" if found.shortest_bond else "",
        f"no faster than {found.fastest_atom:g} A/fs" if found.fastest_atom else "",
        f"a box of {found.smallest_box:g} cutoffs or more" if found.smallest_box else "",
    )


def _capabilities(m: Metadata, able: bool) -> str:
    names = {
        "decomposable": "be divided among processes", "padded": "be captured on a GPU", "batched": "take many frames at once",
        "uncertainty": "tell its uncertainty",
    } | ({"angular_momentum": "keep angular momentum"} if m.kind == "propagator" else {})  # fmt: skip
    return _joined(*(text for name, text in names.items() if bool(getattr(m.capabilities, name)) is able))


def _forces(m: Metadata) -> str:
    if m.kind == "propagator":
        return ""
    if m.conservative:
        return "the gradient of a continuous energy"
    return "NOT the gradient of a continuous energy: " + ("; ".join(m.caveats) or "it does not say why")


def _runs(m: Metadata) -> str:
    if m.compiled is not None:
        c = m.compiled
        return f"machine code for torch {c.torch}, {c.machine}, {c.instruction_set}"
    splines = f"splines within {m.spline_error:.1e}" if m.spline_error is not None else ""
    return _joined("TorchScript", "fused operators" if m.fused else "", splines)


def _scalars(facts: dict[str, Any]) -> list[str]:
    """Return the facts without hashes, which are for machines, each behind its name."""
    found = []
    for name, value in facts.items():
        if isinstance(value, dict):
            found.append(f"{name} ({_joined(*_scalars(value))})")
        elif not (isinstance(value, str) and re.fullmatch("[0-9a-f]{32,}", value)):
            found.append(f"{name} {value}")
    return found


def _maker(provenance: dict[str, Any]) -> str:
    by = str(provenance.get("exported_by") or "")
    data = provenance.get("data")
    files = f"{len(data)} data file{'s' if len(data) > 1 else ''}" if isinstance(data, dict) and data else ""
    frames = provenance.get("frames")
    return _joined(by, files, f"{frames:,} frames" if isinstance(frames, int) else "")
