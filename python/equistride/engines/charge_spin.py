"""Total charge and spin multiplicity of a structure: what it says of them, and a model set to them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms

from equistride.artifact import Model
from equistride.data.labels import CHARGES, SPINS
from equistride.errors import EquistrideError, tell

OTHER_NAMES = {other: names[0] for names in (CHARGES, SPINS) for other in names[1:]}
"""Names that other programs give them in ``atoms.info``."""
WHOLE = 0.01
"""How near to a whole number a sum of atoms' charges or magnetic moments must be: files round each to some digits."""


class System(NamedTuple):
    """Total charge [e] and spin multiplicity; None where not said."""

    charge: float | None = None
    spin: float | None = None


def whole(name: str, value: Any) -> float | None:
    """Return a charge or spin multiplicity of any kind of number as a float; None stays None.

    Raises
    ------
    EquistrideError
        For anything but a whole number.
    """
    if value is None:
        return None
    try:
        number = float(np.asarray(value).item())
    except (TypeError, ValueError):
        number = float("nan")
    if not number.is_integer():
        raise EquistrideError(f"the {name} of a system must be a whole number", found=repr(value)[:80])
    return number


def said_by(atoms: Atoms) -> System:
    """Return what a structure says: ``info["charge"]``, ``info["spin"]`` (the multiplicity), else the sum of its initial
    charges, and of its initial magnetic moments plus one.

    Raises
    ------
    EquistrideError
        Where these contradict each other or are no whole numbers, or ``info`` has only another program's name for them.
    """
    for other, name in OTHER_NAMES.items():
        if other in atoms.info and name not in atoms.info:
            raise EquistrideError(
                f"the structure says {other}, which is not read", expected=f"atoms.info[{name!r}]", found=other
            )
    charge, spin = (whole(name, atoms.info.get(name)) for name in ("charge", "spin"))
    charges, moments = atoms.get_initial_charges(), atoms.get_initial_magnetic_moments()
    if charges.any():
        charge = _agreed("charge", charge, float(charges.sum()), "initial charges")
    if moments.any():
        if moments.ndim > 1:
            raise EquistrideError(
                "magnetic moments in three directions give no spin multiplicity", hint="remove them from the structure"
            )
        spin = _agreed("spin", spin, abs(float(moments.sum())) + 1, "initial magnetic moments")
    return System(charge, spin)


def _agreed(name: str, said: float | None, summed: float, source: str) -> float:
    if abs(summed - (round(summed) if said is None else said)) > WHOLE:
        raise EquistrideError(
            f"the {source} of the structure are of another {name} than "
            + ("a whole one" if said is None else "it says"),
            expected="a whole number" if said is None else f"{said:g}, as in atoms.info",
            found=f"{summed:.6g}",
            hint=f"set atoms.info[{name!r}], and remove the {source} or make them agree",
        )
    return float(round(summed)) if said is None else said


def set_aside(said: System) -> str:
    """Return what is to be told where the model knows no charge and no spin; nothing for a neutral singlet."""
    if said.charge in (None, 0.0) and said.spin in (None, 0.0, 1.0):
        return ""
    known = [f"{name} {value:g}" for name, value in said._asdict().items() if value is not None]
    return f"the model knows no charge and no spin: the structure's {' and '.join(known)} are set aside"


def tell_impossible(protons: int, system: System) -> bool:
    """Tell of a multiplicity that the number of electrons does not allow, the one being odd where the other is even; whether it
    was told. A multiplicity of 0 is not given."""
    charge, spin = system.charge or 0.0, system.spin or 0.0
    if not spin or (protons - charge + spin) % 2:
        return False
    tell(
        f"a system of {protons - charge:g} electrons (charge {charge:g}) has no spin multiplicity of {spin:g}: "
        "give the spin that belongs to its charge"
    )
    return True


def current(model: Model) -> System:
    """Return what a loaded model computes with."""
    return System(model.metadata.system.get("charge", 0.0), model.metadata.system.get("spin", 0.0))


class Chooser:
    """Decides between what was given to an engine, what a structure says, and what its model computes with.

    Parameters
    ----------
    model
        The model of the engine. Others may hold it too: it is set back after each evaluation.
    """

    def __init__(self, model: Model) -> None:
        self.model, self.knows = model, model.metadata.charge_spin != "none"
        self._warned = self._doubted = False

    def choose(self, given: System, said: System, protons: int | None = None) -> System | None:
        """Return what to compute with; None for a model that knows neither. Where the sum of the atomic numbers is given, a spin
        that cannot be is told.

        Raises
        ------
        EquistrideError
            Where both are there and differ.
        """
        if not self.knows:
            self._tell(said)
            return None
        for name, ours, theirs in zip(System._fields, given, said, strict=True):
            if ours is not None and theirs is not None and ours != theirs:
                raise EquistrideError(
                    f"the {name} of the structure is not the one that the engine was given",
                    expected=f"{ours:g}",
                    found=f"{theirs:g}",
                    hint="give it once, or the same twice",
                )
        order = zip(given, said, current(self.model), strict=True)
        chosen = System(*(next(value for value in values if value is not None) for values in order))
        if protons is not None and not self._doubted:
            self._doubted = tell_impossible(protons, chosen)
        return chosen

    def _tell(self, said: System) -> None:
        sentence = set_aside(said)
        if sentence and not self._warned:
            self._warned = True
            warnings.warn(sentence, stacklevel=4)

    @contextmanager
    def using(self, system: System | None) -> Iterator[None]:
        """Have the model compute with a charge and spin."""
        before = current(self.model)
        if system is None or system == before:
            yield
            return
        self.model.set_system(*system)
        try:
            yield
        finally:
            self.model.set_system(*before)
