"""Energy terms of a force field between atoms that a model sees: with the model they would count twice."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import openmm

from equistride.errors import EquistrideError

BONDED = {
    openmm.HarmonicBondForce: ("getNumBonds", "getBondParameters", 2),
    openmm.HarmonicAngleForce: ("getNumAngles", "getAngleParameters", 3),
    openmm.PeriodicTorsionForce: ("getNumTorsions", "getTorsionParameters", 4),
    openmm.RBTorsionForce: ("getNumTorsions", "getTorsionParameters", 4),
}
"""Kind of force -> how to count its terms, how to read one, and the particles that a term begins with."""


def _zero(value: object) -> bool:
    return float(getattr(value, "_value", value)) == 0.0  # type: ignore[arg-type]


def _bonded(force: openmm.Force, atoms: Collection[int]) -> int:
    """Count terms between chosen atoms alone that have an energy: of a bond or angle its last number, k, is not 0."""
    count, read, particles = BONDED[type(force)]
    found = 0
    for index in range(getattr(force, count)()):
        term = getattr(force, read)(index)
        strengths = term[particles:] if isinstance(force, openmm.RBTorsionForce) else term[-1:]
        found += all(p in atoms for p in term[:particles]) and not all(map(_zero, strengths))
    return found


def _maps(force: openmm.CMAPTorsionForce, atoms: Collection[int]) -> int:
    terms = (force.getTorsionParameters(k)[1:] for k in range(force.getNumTorsions()))
    return sum(all(p in atoms for p in term) for term in terms)


def _pairs(force: openmm.NonbondedForce, atoms: Sequence[int]) -> int:
    """Count pairs of chosen atoms with a charge or Lennard-Jones energy, exceptions as the force has them."""
    charged, sticky = set(), set()
    for atom in atoms:
        charge, _, epsilon = force.getParticleParameters(atom)
        if not _zero(charge):
            charged.add(atom)
        if not _zero(epsilon):
            sticky.add(atom)
    sizes = (len(charged), len(sticky), len(charged & sticky))
    charges, dispersion, both = (n * (n - 1) // 2 for n in sizes)
    found = charges + dispersion - both
    chosen = set(atoms)
    for index in range(force.getNumExceptions()):
        first, second, product, _, epsilon = force.getExceptionParameters(index)
        if first in chosen and second in chosen:
            found -= {first, second} <= charged or {first, second} <= sticky
            found += not (_zero(product) and _zero(epsilon))
    return found


def terms_inside(system: openmm.System, atoms: Sequence[int]) -> Iterator[str]:
    """Tell which terms of a System act between the chosen atoms alone: bonds, angles, torsions and pairs of force fields.

    Custom forces are left out: they are as often a bias that the user wants.
    """
    chosen = set(atoms)
    for force in system.getForces():
        if type(force) in BONDED:
            count = _bonded(force, chosen)
        elif isinstance(force, openmm.CMAPTorsionForce):
            count = _maps(force, chosen)
        elif isinstance(force, openmm.NonbondedForce):
            count = _pairs(force, atoms)
        else:
            continue
        if count:
            yield f"{count} of {force.getName()}"


def check_terms(system: openmm.System, atoms: Sequence[int]) -> None:
    """Refuse a System whose force field has an energy between atoms of the model.

    Raises
    ------
    EquistrideError
        With the kinds of terms.
    """
    found = list(terms_inside(system, atoms))
    if found:
        raise EquistrideError(
            "the System's own force field acts between atoms of the model, whose energy would count twice",
            expected="none of its terms inside the model's region",
            found=", ".join(found),
            hint="let openmm-ml take them out: MLPotential('equistride', modelPath=...).createMixedSystem(topology, "
            "system, atoms); where both are meant, add create_force(...) to the System yourself",
        )
