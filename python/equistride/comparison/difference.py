"""How far two sides are apart, where most, and in what their contracts differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equistride.artifact.metadata import Metadata
from equistride.comparison.evaluation import UNITS
from equistride.comparison.frames import Frame

Array = NDArray[np.float64]
AXES = "xyz"
UNCOMPARED = ("provenance", "digest")
"""Fields that differ between any two files and say nothing of the model."""


@dataclass(frozen=True)
class Difference:
    """The difference of one quantity over all frames.

    Attributes
    ----------
    name, unit
        ``energy``, ``force``, ``stress``, ``displacement`` or ``velocity``.
    largest
        Largest: of energies per atom, of the lengths of an atom's vectors, of a component of the stress.
    rms
        Over frames (energies) or components (all others).
    scale
        Rms of the first side's values; of energies, of what they are beside their mean over the frames.
    frame
        Where the largest is: name of the frame.
    atom, element
        The atom's index and element; None for what belongs to a frame.
    component
        Of the stress: ``xy``, say.
    by_element
        Rms of the components of each element's atoms.
    """

    name: str
    unit: str
    largest: float
    rms: float
    scale: float
    frame: str
    atom: int | None = None
    element: str | None = None
    component: str | None = None
    by_element: Mapping[str, float] | None = None


def differences(
    frames: Sequence[Frame], first: Sequence[Mapping[str, Array]], second: Sequence[Mapping[str, Array]]
) -> list[Difference]:
    """Compare what two sides gave for the same frames; quantities that one of them lacks in all frames are left out."""
    found = []
    for name, unit in UNITS.items():
        rows = [k for k, (a, b) in enumerate(zip(first, second, strict=True)) if name in a and name in b]
        if rows:
            deltas = [second[k][name] - first[k][name] for k in rows]
            found.append(_difference(name, unit, [frames[k] for k in rows], deltas, [first[k][name] for k in rows]))
    return found


def _rms(values: Array) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def _difference(name: str, unit: str, frames: list[Frame], deltas: list[Array], values: list[Array]) -> Difference:
    everything = np.concatenate([d.ravel() for d in deltas])
    level = np.concatenate([v.ravel() for v in values])
    scale = _rms(level - level.mean() if name == "energy" else level)
    per_atom = deltas[0].shape[-1] == 3 and name != "stress"
    sizes = [np.linalg.norm(d, axis=1) if per_atom else np.abs(d).ravel() for d in deltas]
    sizes = [np.where(np.isnan(s), np.inf, s) for s in sizes]  # worse than any number
    worst = int(np.argmax([s.max() for s in sizes]))
    place = int(np.argmax(sizes[worst]))
    here = frames[worst]
    common = (name, unit, float(sizes[worst][place]), _rms(everything), scale, here.name)
    if not per_atom:
        return Difference(*common, component=AXES[place // 3] + AXES[place % 3] if name == "stress" else None)
    symbols = np.concatenate([frame.atoms.get_chemical_symbols() for frame in frames])
    of_all = np.concatenate(deltas)
    by_element = {str(s): _rms(of_all[symbols == s]) for s in sorted(set(symbols))}
    return Difference(*common, atom=place, element=here.atoms.get_chemical_symbols()[place], by_element=by_element)


def contract_differences(first: Metadata, second: Metadata) -> list[tuple[str, Any, Any]]:
    """Return the fields of the metadata that differ, with both values; of nested ones their parts (``limits.shortest_bond``)."""
    return list(_differing(first.model_dump(mode="json"), second.model_dump(mode="json")))


def _differing(first: dict[str, Any], second: dict[str, Any], above: str = "") -> list[tuple[str, Any, Any]]:
    rows = []
    for name in dict.fromkeys([*first, *second]):
        a, b = first.get(name), second.get(name)
        if name in UNCOMPARED or a == b:
            continue
        if isinstance(a, dict) and isinstance(b, dict):
            rows += _differing(a, b, f"{above}{name}.")
        else:
            rows.append((above + name, a, b))
    return rows
