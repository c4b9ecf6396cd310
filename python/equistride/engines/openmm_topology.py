"""What a model must know of an OpenMM topology or System, and what it refuses."""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import app, unit

from equistride.artifact.metadata import Metadata, metadata_of
from equistride.elements import element_of, species_index
from equistride.errors import EquistrideError

UNSET_BOX = 2 * np.eye(3)
"""nm: a new System's."""


def check_potential(metadata: Metadata, path: Path) -> None:
    """Refuse an artifact that has no forces."""
    if metadata.kind != "potential":
        raise EquistrideError(
            f"{path.name} is a {metadata.kind}, which moves atoms and has no forces",
            expected="a potential",
            hint="use the propagating integrator for it",
        )


def choose_atoms(topology: app.Topology, atoms: Iterable[int] | None) -> list[int]:
    """Return the indices of the atoms that the model sees, checked.

    Parameters
    ----------
    topology
        OpenMM's topology.
    atoms
        Indices, or the topology's own atoms, or None for all.

    Raises
    ------
    EquistrideError
        Where the topology is none or empty, the choice is empty or no indices, or an index is out of range or twice in the list.
    """
    if not isinstance(topology, app.Topology):
        raise EquistrideError(
            "the structure is given by its topology",
            expected="an openmm.app.Topology",
            found=type(topology).__name__,
            hint="give pdb.topology of a PDBFile; of ASE's Atoms, openmm_structure.topology_from_ase makes one",
        )
    count = topology.getNumAtoms()
    if count == 0:
        raise EquistrideError("the topology has no atoms", hint="read the structure into it first")
    if atoms is None:
        return list(range(count))
    chosen = _indices(atoms)
    if not chosen:
        raise EquistrideError("no atoms were chosen for the model", hint="leave atoms out to choose all of them")
    for atom in chosen:
        if not 0 <= atom < count:
            raise EquistrideError("an atom is not in the topology", expected=f"0 to {count - 1}", found=atom)
    if len(set(chosen)) < len(chosen):
        raise EquistrideError("an atom was chosen twice", hint="give each index once")
    return chosen


def _indices(atoms: object) -> list[int]:
    """Return whole numbers as they are, and refuse all else, flags too."""
    try:
        given = [] if isinstance(atoms, str) else list(atoms)  # type: ignore[call-overload]
        if isinstance(atoms, str) or any(np.asarray(atom).dtype == np.bool_ for atom in given):
            raise TypeError
        return [atom.index if isinstance(atom, app.topology.Atom) else operator.index(atom) for atom in given]
    except TypeError:
        raise EquistrideError(
            "the atoms of a model are given by their indices",
            expected="a list of whole numbers, or None for all atoms",
            found=repr(atoms)[:80],
        ) from None


def element_symbols(topology: app.Topology, atoms: Sequence[int], known: Sequence[str]) -> list[str]:
    """Return the element symbols of the chosen atoms; deuterium is hydrogen.

    Parameters
    ----------
    topology
        OpenMM's topology.
    atoms
        Indices as ``choose_atoms`` gives them.
    known
        Element symbols that the model knows.

    Raises
    ------
    EquistrideError
        For an atom without an element and for an element that the model does not know.
    """
    everyone = list(topology.atoms())
    symbols = []
    for index in atoms:
        atom = everyone[index]
        if atom.element is None:
            raise EquistrideError(
                f"atom {index} ({atom.name} of {atom.residue.name}) has no element in the topology",
                hint="an atom whose element the file lacks gets it with atom.element = app.Element.getBySymbol(...); "
                "a virtual site or extra particle, which a model of atoms cannot see, is left out with atoms=...",
            )
        symbols.append(element_of(atom.element.symbol))
    hint = "choose another model, or leave these atoms out with atoms=..."
    species_index(symbols, known, what="the structure", hint=hint)
    return symbols


def formal_charge(topology: app.Topology, atoms: Sequence[int]) -> float | None:
    """Return the sum of the formal charges that the topology gives to chosen atoms; None where it gives none but 0."""
    chosen = set(atoms)
    given = [atom.formalCharge for atom in topology.atoms() if atom.index in chosen and atom.formalCharge]
    return float(sum(given)) if given else None


def has_box(topology: app.Topology, periodic: bool | None, required: bool) -> bool:
    """Tell whether the model shall see a box.

    Parameters
    ----------
    topology
        OpenMM's topology.
    periodic
        The user's wish; None to follow the topology.
    required
        The model was trained on periodic systems alone.

    Raises
    ------
    EquistrideError
        Where a box is wanted or required and the topology has none.
    """
    box = topology.getPeriodicBoxVectors() is not None  # or the System's, see with_box
    wanted = box if periodic is None else bool(periodic)
    hint = "set topology.setPeriodicBoxVectors(...)"
    if wanted and not box:
        raise EquistrideError("periodic=True needs a box, and the topology has none", hint=hint)
    if required and not wanted:
        raise EquistrideError(
            "the model was trained on periodic systems alone, and this one has no box",
            expected="a topology with box vectors",
            found="periodic=False" if box else "a topology without them",
            hint=hint,
        )
    return wanted


def with_box(topology: app.Topology, system: openmm.System | None) -> app.Topology:
    """Return the topology, where it has no box and the System is periodic with the System's."""
    if system is None or topology.getPeriodicBoxVectors() is not None or not system.usesPeriodicBoundaryConditions():
        return topology
    boxed = copy.copy(topology)
    boxed.setPeriodicBoxVectors(system.getDefaultPeriodicBoxVectors())
    return boxed


def bonds_among(topology: app.Topology, atoms: Sequence[int]) -> list[tuple[int, int]]:
    """Return the topology's bonds between chosen atoms."""
    chosen = set(atoms)
    pairs = ((bond.atom1.index, bond.atom2.index) for bond in topology.bonds())
    return [pair for pair in pairs if chosen.issuperset(pair)]


def check_fit(system: openmm.System, topology: app.Topology) -> None:
    """Refuse a System of another number of particles than the topology has atoms."""
    if system.getNumParticles() != topology.getNumAtoms():
        raise EquistrideError(
            "the System does not fit the topology",
            expected=f"{topology.getNumAtoms()} particles",
            found=system.getNumParticles(),
            hint="make the System from this topology; of a mixed System with link atoms, "
            "openmm-ml gives the topology with returnInfo=True",
        )


def check_system(system: openmm.System, topology: app.Topology, atoms: Sequence[int], periodic: bool = True) -> None:
    """Refuse a System in which the model's atoms are not free.

    Raises
    ------
    EquistrideError
        Where System and topology do not fit, nobody gave the System its box, or an atom of the model is constrained.
    """
    check_fit(system, topology)
    box = topology.getPeriodicBoxVectors()
    if periodic and box is not None:
        expected, found = (
            np.array([v.value_in_unit(unit.nanometer) for v in vectors])
            for vectors in (box, system.getDefaultPeriodicBoxVectors())
        )
        if np.array_equal(found, UNSET_BOX) and not np.allclose(expected, UNSET_BOX, rtol=0, atol=1e-3):
            raise EquistrideError(
                "the System has the box that OpenMM gives where none is set",
                expected=f"that of the topology, with edges of {_edges(expected)} nm",
                found=f"{_edges(found)} nm",
                hint="call system.setDefaultPeriodicBoxVectors(*topology.getPeriodicBoxVectors())",
            )
    check_constraints(system, atoms)


def check_constraints(system: openmm.System, atoms: Sequence[int], *, inside: bool = True) -> None:
    """Refuse constraints of the model's atoms: all, or but those ``inside`` the model, which openmm-ml takes away."""
    ours = set(atoms)
    for index in range(system.getNumConstraints()):
        first, second, _ = system.getConstraintParameters(index)
        touched = ours & {first, second}
        if touched and (inside or len(touched) == 1):
            raise EquistrideError(
                f"the distance between particles {first} and {second} is constrained, and the model sees "
                f"{'both' if len(touched) == 2 else f'particle {touched.pop()}'}",
                expected="free atoms, as the model was trained",
                hint="make the System with constraints=None, and with rigidWater=False where the model sees water"
                if inside
                else "choose a region that cuts no constraint, or make the System with constraints=None",
            )


def _edges(box: NDArray[np.float64]) -> str:
    return ", ".join(f"{length:.4g}" for length in np.linalg.norm(box, axis=1))


def propagator_masses(path: Path) -> dict[str, float] | None:
    """Return the masses [amu] of the elements that a propagator was trained with; None for any other file."""
    metadata = metadata_of(path)
    if metadata is None or metadata.kind != "propagator":
        return None
    return dict(zip(metadata.species, metadata.masses, strict=True))


def bare_system(topology: app.Topology, masses: Mapping[str, float] | None = None) -> openmm.System:
    """Return a System with the topology's box and no forces; ``masses`` [amu] by element where they are not OpenMM's."""
    system = openmm.System()
    box = topology.getPeriodicBoxVectors()
    if box is not None:
        system.setDefaultPeriodicBoxVectors(*box)
    for atom in topology.atoms():
        mass = 0.0 if atom.element is None else atom.element.mass
        system.addParticle(mass if masses is None else masses[element_of(atom.element.symbol)])
    return system
