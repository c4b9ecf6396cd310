"""openmm-ml: ``MLPotential("equistride", modelPath="model.pt")``.

openmm-ml makes the factory when it is imported, so this module imports nothing heavy before a potential is
made.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from openmmml.mlpotential import MLPotentialImpl, MLPotentialImplFactory

OPTIONS = ("device", "precision", "backend", "periodic", "charge", "spin", "multiplicity", "trust_compiled")
"""Arguments of ``create_force`` that the potential, or the call that makes a System, may be given; multiplicity is the spin's
name in openmm-ml."""
MIXED = ("linkAtomDistances", "mlLongRange")
"""Arguments of openmm-ml's own for mixed Systems, which it hands on to us."""


def _checked(options: dict[str, Any], theirs: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the options of ``create_force`` among ``options``; any other is an error, but ``theirs``."""
    from equistride.errors import EquistrideError

    unknown = sorted(set(options) - {*OPTIONS, *theirs})
    if unknown:
        mixed = unknown[0] in MIXED
        raise EquistrideError(
            f"the argument {unknown[0]} of an equistride potential is not known" + mixed * " but to createMixedSystem",
            expected=", ".join(OPTIONS),
        )
    spins = {name: options[name] for name in ("spin", "multiplicity") if options.get(name) is not None}
    if len(set(spins.values())) > 1:
        raise EquistrideError(
            "spin and multiplicity are two names of one number", expected="one of them, or the same", found=spins
        )
    chosen = {key: value for key, value in options.items() if key in OPTIONS and key != "multiplicity"}
    return chosen | ({"spin": next(iter(spins.values()))} if spins else {})


class EquistrideFactory(MLPotentialImplFactory):
    """What openmm-ml finds under the name ``equistride``."""

    def createImpl(self, name: str, **args: Any) -> MLPotentialImpl:
        """Return the potential for ``modelPath``; other arguments are those of ``create_force``.

        Raises
        ------
        EquistrideError
            For a missing path, a file that is no potential, and an argument that is not known.
        """
        from equistride.artifact.metadata import metadata_of
        from equistride.engines.openmm import path_of
        from equistride.errors import EquistrideError

        path = args.pop("modelPath", None)
        if path is None:
            raise EquistrideError(
                f"MLPotential('{name}') needs an artifact",
                hint=f"call MLPotential('{name}', modelPath='model.pt')",
            )
        path = path_of(path)
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "does not exist"
            raise EquistrideError(f"the artifact {path} {what}", hint="check modelPath")
        options = _checked(args)
        metadata = metadata_of(path)
        if metadata is None or metadata.kind != "potential":
            raise EquistrideError(
                f"{path} is no potential of equistride",
                expected="an artifact that `equistride export` or `equistride import` wrote",
                found="another file" if metadata is None else f"a {metadata.kind}",
            )
        return EquistrideImpl(path, options)


class EquistrideImpl(MLPotentialImpl):
    """A trained potential as openmm-ml's implementation.

    Parameters
    ----------
    path, options
        The artifact, and arguments of ``create_force``.
    mixed
        The System of the force field that the region is cut out of: what openmm-ml hands to ``addForces`` may be an empty
        one, whose forces become collective variables.
    """

    def __init__(self, path: Path, options: dict[str, Any], mixed: Any = None) -> None:
        self.path, self.options, self.mixed = path, options, mixed
        self.company: Any = None  # of the force that was made

    def addForces(self, topology: Any, system: Any, atoms: Iterable[int] | None, forceGroup: int, **args: Any) -> None:
        """Add the force; options given here go before those of the potential."""
        from equistride.engines.openmm import Company, create_force, name_apart
        from equistride.engines.openmm_topology import check_fit, choose_atoms, with_box

        options = self.options | _checked(args, MIXED if self.mixed is not None else ())
        surroundings = system if self.mixed is None else self.mixed
        if system.getNumParticles():
            check_fit(system, topology)
        force = create_force(
            self.path, with_box(topology, surroundings), atoms=atoms, force_group=forceGroup, **options
        )
        name_apart(force, surroundings)
        self.company = Company(force, topology, choose_atoms(topology, atoms))
        system.addForce(force)
        if self.mixed is None:
            self.company.join(system)

    def createMixedSystem(self, topology: Any, system: Any, atoms: list[int], forceGroup: int, interpolate: bool,
                          embedding: str, returnInfo: bool = False, **args: Any) -> Any:  # fmt: skip
        """Check what openmm-ml was given, and let its mechanical embedding do the rest.

        Raises
        ------
        EquistrideError
            Where System and topology do not fit, a constraint crosses the region's boundary, or ``linkAtomDistances`` names
            another pair of atoms than a bond that crosses it.
        """
        from openmmml.embeddings.mechanicalembedding import MechanicalEmbedding

        from equistride.artifact.metadata import metadata_of
        from equistride.engines.openmm_regions import check_seen_once
        from equistride.engines.openmm_topology import check_constraints, check_fit, choose_atoms, element_symbols

        _checked(args, MIXED)
        check_fit(system, topology)
        region = choose_atoms(topology, atoms)
        metadata = metadata_of(self.path)
        element_symbols(topology, region, metadata.species if metadata else [])
        check_constraints(system, region, inside=False)
        check_seen_once(system, region)
        _check_links(topology, region, args.get("linkAtomDistances", ()))
        potential = EquistrideImpl(self.path, self.options, mixed=system)
        made = MechanicalEmbedding().createMixedSystem(
            potential, _with_elements(topology), system, region, forceGroup, interpolate, returnInfo=returnInfo, **args
        )
        potential.company.join(made["system"] if returnInfo else made)
        if returnInfo:
            for atom in made["topology"].atoms():
                atom.element = None if isinstance(atom.element, NoElement) else atom.element
        return made

    def getSupportedEmbeddings(self) -> list[str]:
        """Name the embedding that comes by way of us; others come from their plugins."""
        return ["mechanical"]

    def getMLLongRange(self) -> bool:
        """Interactions end at the model's interaction range."""
        return False


class NoElement:
    """What stands for the element of particles that have none, whose number openmm-ml asks for."""

    atomic_number = 0


def _with_elements(topology: Any) -> Any:
    """Return the topology, or where particles outside the region have no element a copy that openmm-ml can take."""
    if all(atom.element is not None for atom in topology.atoms()):
        return topology
    copied = copy.deepcopy(topology)
    for atom in copied.atoms():
        atom.element = atom.element or NoElement()
    return copied


def _check_links(topology: Any, region: list[int], distances: Iterable[tuple[int, int, Any]]) -> None:
    from openmmml.embeddings.utilities import findLinkBonds

    from equistride.errors import EquistrideError

    cut = {frozenset(pair) for pair in findLinkBonds(topology, region)}
    for first, second, _ in distances:
        if frozenset((first, second)) not in cut:
            raise EquistrideError(
                "linkAtomDistances names atoms between which no bond crosses the region's boundary",
                expected="one of " + (", ".join(str(sorted(pair)) for pair in sorted(map(sorted, cut))) or "none"),
                found=[first, second],
            )
