"""Labels of a frame as ASE reads them: energy, forces, virial, charge and spin, under the names that programs give them.

Stress is ASE's, dE/d(strain) / volume, positive in tension, in eV/A^3. Virials are those of extended XYZ and MACE,
-volume x stress = -dE/d(strain), in eV. Where a file has both signs wrong, or other units, :mod:`equistride.data.stress_units`
sees it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equistride.errors import EquistrideError, tell

Array = NDArray[np.float64]
VIRIALS = ("REF_virial", "REF_virials", "REF_stress", "virial", "virials", "stress")
"""Names of virials and stresses; the first that a frame has is its label."""
CHARGES = ("charge", "total_charge")
SPINS = ("spin", "multiplicity", "spin_multiplicity", "total_spin")
"""Names of the total charge [e] and of the spin multiplicity, 2 S + 1."""
WEIGHTS = tuple(
    f"{first}{kind}weight" for first in ("config_", "") for kind in ("", "energy_", "forces_", "stress_", "virials_")
)
"""Names of MACE's weights of frames and of their labels."""
UNIT_NAMES = tuple(
    f"{of}unit{s}"
    for of in ("", "energy_", "force_", "forces_", "length_", "position_", "positions_")
    for s in ("", "s")
)
"""Names under which files say the units of their numbers."""
OUR_UNITS = {"ev", "a", "å", "ang", "angstrom", "angstroms", "metal", "ase"}
"""Words of the units that are read, in lower case; of forces two of them with a stroke between."""
MOMENTS = ("magmoms", "initial_magmoms", "magnetic_moments")
SAME = 1e-4
"""Share by which two labels of one thing may differ, as rounding in a file leaves them."""


def virial_of_stress(stress: Array, cell: Array) -> Array:
    """Return the virial [..., 3, 3] (eV) of stresses [..., 6] (xx yy zz yz xz xy) or [..., 3, 3] (eV/A^3, ASE's sign)."""
    if stress.shape[-1] == 6:
        stress = stress[..., [[0, 5, 4], [5, 1, 3], [4, 3, 2]]]
    return -np.abs(np.linalg.det(cell))[..., None, None] * stress


class Labels:
    """Reads the labels of a file's frames, and says once of the file what is not taken.

    Parameters
    ----------
    path
        The file, for messages.
    """

    def __init__(self, path: object) -> None:
        self.path, self.said, self.head = path, set[str](), ""
        self.sources: dict[str, str] = {}  # name of each label in the first frame that has it

    def _tell(self, names: str, what: str) -> None:
        """Say something of some labels, the first time."""
        if names not in self.said:
            self.said.add(names)
            tell(f"{self.path}: {names} {what}")

    def _first(self, place: str, found: Mapping[str, Any], plain: str) -> Any:
        """Return ``REF_plain``, or else ``plain``, or None; say where both are there and differ."""
        first, others = differing(found, (f"REF_{plain}", plain))
        if others:
            self._tell(f"'{first}' and '{plain}'", f"differ, in {place} for one; '{first}' is learnt")
        return None if first is None else found[first]

    def read(self, image: Any, place: str) -> dict[str, Any]:
        """Return energy [eV], forces [N, 3], virial [3, 3] (NaN where there is none), charge and spin (NaN) of an ASE image.

        Raises
        ------
        EquistrideError
            Where there is no energy, or no forces of two atoms or more; or charges and multiplicities are no whole numbers.
        """
        results = {} if image.calc is None else image.calc.results
        found = {**results, **image.arrays, **image.info}
        energy, forces = self._first(place, found, "energy"), self._first(place, found, "forces")
        self._check_units(found, place)
        for name, value in (("energy", energy), ("forces", forces)):
            if value is not None and np.asarray(value).dtype.kind not in "biuf":
                raise EquistrideError(
                    f"'{name}' of {place} of {self.path} is no number", expected="numbers in eV and A, without units",
                    found=str(value)[:80], hint="repair the file",
                )  # fmt: skip
        if forces is None and len(image) == 1:
            forces = np.zeros((1, 3))  # nothing pulls at an atom alone, nor at one among its images
        missing = [name for name, value in (("energy", energy), ("forces", forces)) if value is None]
        if missing:
            raise EquistrideError(
                f"{place} of {self.path} has no {' and no '.join(missing)}",
                expected="energy and forces on every frame, as ASE's SinglePointCalculator and extxyz have them, "
                "or REF_energy and REF_forces",
                found=", ".join(sorted(set(found) - {"numbers", "positions"})) or "positions alone",
                hint="rename the fields of the file",
            )
        self._others(found, place)
        self._mixed(found, place)
        labels = {
            "energy": float(energy),
            "forces": np.array(forces, float),
            "virial": self._virial(image, found, place),
        }
        for name, aliases, lowest in (("charge", CHARGES, -np.inf), ("spin", SPINS, 0)):
            labels[name] = self._whole(found, name, aliases, lowest, place)
        return labels

    def _check_units(self, found: Mapping[str, Any], place: str) -> None:
        """Refuse numbers that a frame says to be in other units than eV and A."""
        for name in UNIT_NAMES:
            value = found.get(name)
            if isinstance(value, str) and not {word.strip().lower() for word in value.split("/")} <= OUR_UNITS:
                raise EquistrideError(
                    f"{place} of {self.path} says {name} {value}", expected="numbers in eV and A",
                    hint="convert the file, and correct what it says of its units",
                )  # fmt: skip

    def _mixed(self, found: Mapping[str, Any], place: str) -> None:
        """Tell of energies and forces that are not of one source: REF_ beside plain ones, in one frame or in two."""
        names: dict[str, str] = {}
        for plain in ("energy", "forces"):
            first, others = differing(found, (f"REF_{plain}", plain))
            if first is not None and (others or not {f"REF_{plain}", plain} <= found.keys()):  # else of either source
                names[plain] = first
        if len({name.startswith("REF_") for name in names.values()}) > 1:
            both = " and ".join(map(repr, names.values()))
            self._tell(both, f"are learnt together, in {place} for one: are both of one source?")
        for plain, name in names.items():
            if (first := self.sources.setdefault(plain, name)) != name:
                both = " and ".join(map(repr, sorted((first, name))))
                self._tell(both, f"stand in different frames and are learnt alike, '{name}' in {place} for one")

    def _others(self, found: Mapping[str, Any], place: str) -> None:
        """Tell of what a frame says of its labels and is not used: weights, levels of theory, the free energy."""
        for name in WEIGHTS:
            if np.size(found.get(name, ())) == 1 and not alike(found[name], 1.0):
                self._tell(
                    f"'{name}'",
                    f"({found[name]} in {place} for one) is not used: all labels count alike, those of 0 too",
                )
        if any(np.any(np.asarray(found.get(name, 0.0), float)) for name in MOMENTS):
            self._tell("magnetic moments", f"(in {place} for one) are not used: no model here knows them")
        head = str(found.get("head", ""))
        self.head = self.head or head
        if head != self.head:
            self._tell(
                "'head'",
                f"is not used: frames of {self.head} and of {head or 'none'} are learnt as one level of theory",
            )
        if "REF_energy" not in found and not alike(found.get("free_energy", found["energy"]), found["energy"]):
            self._tell(
                "'free_energy' and 'energy'",
                f"differ, in {place} for one; 'energy' is learnt, and with smeared electrons the forces belong to the other",
            )

    def _virial(self, image: Any, found: Mapping[str, Any], place: str) -> Array:
        names = [name for name in VIRIALS if name in found]
        nothing = np.full((3, 3), np.nan)
        if not names:
            return nothing
        if not image.pbc.all():
            self._tell(f"'{names[0]}'", "of frames without a box along all axes is not used")
            return nothing
        virials = {}
        for name in names:
            value = np.array(found[name], float)
            if value.size not in (6, 9):
                raise EquistrideError(
                    f"'{name}' of {place} of {self.path} has a wrong shape", expected="3 x 3 numbers, or 6 in ASE's order",
                    found=list(value.shape),
                )  # fmt: skip
            value = value.reshape(3, 3) if value.size == 9 else value.ravel()
            if "stress" in name:
                value = virial_of_stress(value, image.cell.array)
            elif value.size == 6:
                value = value[[[0, 5, 4], [5, 1, 3], [4, 3, 2]]]
            virials[name] = value
        first, others = differing(virials, names)
        for other in others:
            self._tell(
                f"'{first}' and '{other}'",
                f"differ, in {place} for one; '{first}' is learnt (a virial is -volume x stress)",
            )
        return virials[names[0]]

    def _whole(self, found: Mapping[str, Any], what: str, names: tuple[str, ...], lowest: float, place: str) -> float:
        """Return a whole number of the frame, NaN where it has none."""
        given = {name: found[name] for name in names if np.size(found.get(name, ())) == 1}
        name, others = differing(given, names)
        if name is None:
            return np.nan
        value = given[name]
        try:
            number = float(np.asarray(value).item())
        except (TypeError, ValueError):
            number = np.nan
        if not np.isfinite(number) or number != np.round(number) or number < lowest:
            raise EquistrideError(
                f"'{name}' of {place} of {self.path} is no {what} of a system",
                expected="a whole number [e]" if what == "charge" else "a spin multiplicity 2 S + 1, 1 for a singlet",
                found=value,
            )
        if others:
            self._tell(" and ".join(map(repr, given)), f"differ, in {place} for one; '{name}' is taken")
        return number


def differing(found: Mapping[str, Any], names: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return the first of the names that is there (None: none is), and those after it under which something else stands."""
    there = [name for name in names if name in found]
    return next(iter(there), None), [name for name in there[1:] if not alike(found[name], found[there[0]])]


def alike(one: Any, other: Any) -> bool:
    """Tell whether two labels of one thing agree, but for the rounding of a file."""
    one, other = np.asarray(one), np.asarray(other)
    if one.dtype.kind not in "biuf" or other.dtype.kind not in "biuf" or one.size != other.size:
        return False
    one, other = one.astype(float).ravel(), other.astype(float).ravel()
    return bool(np.allclose(one, other, rtol=SAME, atol=SAME * float(np.abs(other).max(initial=1e-12))))
