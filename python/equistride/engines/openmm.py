"""Run a trained potential or propagator in OpenMM.

``create_system`` makes a whole System from a topology; ``create_force`` makes the force alone, to be added to
a System of one's own; ``TrajCastIntegrator`` moves atoms by a propagator, without forces. Three ways run a potential, and
give the same numbers:

- ``plugin``: our compiled force, ``equistride.engines.openmm.Force``;
- ``python``: OpenMM's own PythonForce, which needs no compiler;
- ``openmm-torch``: the genuine TorchForce, where it is installed and was built for the torch that runs. It runs the plain
  network, without fused kernels: ten times slower.
"""

from __future__ import annotations

import contextlib
import importlib.util
import operator
import os
import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import openmm
from openmm import app, unit

from equistride.artifact.metadata import metadata_of, precision_name
from equistride.artifact.system import no_system
from equistride.engines.charge_spin import System, tell_impossible, whole
from equistride.engines.guard import Guard
from equistride.engines.openmm_terms import check_terms
from equistride.engines.openmm_topology import (
    bare_system,
    bonds_among,
    check_potential,
    check_system,
    choose_atoms,
    element_symbols,
    formal_charge,
    has_box,
    propagator_masses,
    with_box,
)
from equistride.errors import EquistrideError, tell

if TYPE_CHECKING:
    from equistride.engines.openmm_force import Force, PropagatorMark
    from equistride.engines.openmm_harvester import Harvester
    from equistride.engines.openmm_integrator import GuardReporter, TrajCastIntegrator

Backend = Literal["auto", "plugin", "python", "openmm-torch"]
BACKENDS: tuple[Backend, ...] = ("auto", "plugin", "python", "openmm-torch")
PROPERTY = {None: "auto", "float32": "single", "float64": "double"}
"""Precisions as OpenMM's users name them in the properties of a force."""

__all__ = [
    "Backend",
    "Force",
    "Guard",
    "GuardReporter",
    "Harvester",
    "PropagatorMark",
    "TrajCastIntegrator",
    "choose_backend",
    "create_force",
    "create_system",
]


def __getattr__(name: str) -> Any:
    # Whoever asks for these hears why the plugin cannot be had; the python backend works without it.
    if name in ("Force", "PropagatorMark"):
        from equistride.engines import openmm_force

        return getattr(openmm_force, name)
    if name == "Harvester":
        from equistride.engines.openmm_harvester import Harvester

        return Harvester
    if name in ("TrajCastIntegrator", "GuardReporter"):
        from equistride.engines import openmm_integrator

        return getattr(openmm_integrator, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _plugin_built() -> bool:
    return importlib.util.find_spec("equistride._openmm") is not None


def choose_backend(backend: Backend = "auto") -> Backend:
    """Return the way in which a model will run here.

    Parameters
    ----------
    backend
        ``auto`` for the plugin, or where it was not built python; or one of the three.

    Raises
    ------
    EquistrideError
        Where the backend is not known or cannot run here.
    """
    from equistride.engines.openmm_torch import usable, why_not

    if backend not in BACKENDS:
        raise EquistrideError("the backend is not known", expected=" or ".join(BACKENDS), found=backend)
    if backend == "openmm-torch" and not usable():
        raise EquistrideError(f"openmm-torch cannot run here: {why_not()}", hint="use backend='auto'")
    if backend == "plugin" and not _plugin_built():
        raise EquistrideError("the compiled plugin was not built", hint="use backend='python'")
    if backend != "auto":
        return backend
    return "plugin" if _plugin_built() else "python"


def path_of(artifact: object) -> Path:
    """Return the path of an artifact; anything else is an error."""
    if isinstance(artifact, (str, os.PathLike)):
        return Path(artifact)
    raise EquistrideError("a model is given by its file", expected="a path", found=type(artifact).__name__)


def _trust(path: Path, trusted: bool) -> None:
    if trusted:
        from equistride.artifact.native import trust

        trust(path)


def _plain(value: Any) -> Any:
    """Return a charge in e where it is a quantity of charge."""
    charge = unit.is_quantity(value) and value.unit.is_compatible(unit.elementary_charge)
    return value.value_in_unit(unit.elementary_charge) if charge else value


def _group(value: Any) -> int:
    """Return a force group as an int."""
    try:
        group = operator.index(value)
    except TypeError:
        group = -1
    if not 0 <= group <= 31:
        raise EquistrideError("the force group is out of range", expected="0 to 31", found=value)
    return group


def _device(device: object) -> str:
    """Return a device as text; a torch.device will do."""
    name = str(device)
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise EquistrideError(
            "the device of a model is not known", expected="auto, cpu, cuda or cuda:1 and so on", found=repr(device)
        )
    return name


def create_force(
    artifact: str | os.PathLike[str],
    topology: app.Topology,
    *,
    atoms: Iterable[int] | None = None,
    backend: Backend = "auto",
    device: str = "auto",
    precision: Literal["float32", "float64"] | None = None,
    force_group: int = 0,
    periodic: bool | None = None,
    charge: float | None = None,
    spin: float | None = None,
    trust_compiled: bool = False,
) -> openmm.Force:
    """Make a force that runs a trained potential.

    Parameters
    ----------
    artifact
        Path of an equistride artifact of the kind ``potential``.
    topology
        Topology of the System that the force will be added to; gives elements and box.
    atoms
        Indices of the atoms that the model sees (or the topology's own atoms); all where not given. Link atoms, virtual sites
        with an element, are seen like others; OpenMM hands their forces on.
    backend
        See ``choose_backend``.
    device
        ``auto``, ``cpu``, ``cuda``, ``cuda:1`` ... (openmm-torch follows the Context, and takes ``auto`` alone).
    precision
        Of the network; None for the one that the artifact was made for.
    force_group
        Force group, 0 to 31.
    periodic
        Whether the model sees the box; None to follow the topology (``create_system``: or the System, where the topology has
        no box).
    charge, spin
        Total charge [e] and spin multiplicity, for models that know them; by default the sum of the topology's formal charges,
        where it has any, else those of the file. The plugin's force
        has them as global parameters: ``context.setParameter("charge", -1)`` changes them in a run.
    trust_compiled
        Your word for a compiled artifact, which is machine code. XML does not carry it: a process that reads a System with such a
        model must have been given the word before, here, by ``equistride.artifact.load`` or as EQUISTRIDE_TRUST_COMPILED=1.

    Returns
    -------
    openmm.Force
        Energies in kJ/mol, forces in kJ/mol/nm.

    Raises
    ------
    EquistrideError
        For an empty topology, atoms without an element, an element that the model does not know, a model
        that needs a box where there is none, a propagator, a file that is no artifact, or a charge or spin that the model
        does not know.
    """
    path, device = path_of(artifact), _device(device)
    _trust(path, trust_compiled)
    dtype = precision_name(precision)
    force_group, charge, spin = _group(force_group), whole("charge", _plain(charge)), whole("spin", spin)
    chosen = choose_atoms(topology, atoms)
    particles = [] if atoms is None else chosen
    kind = choose_backend(backend)
    if charge is None:
        charge = _charge_of(topology, chosen, path, settable=kind != "openmm-torch")
    _doubt(topology, chosen, path, charge, spin)
    wanted = _Wanted(path, topology, chosen, particles, periodic, device, dtype, charge, spin)
    makers = {"plugin": _plugin_force, "python": _python_force, "openmm-torch": _torch_force}
    force = makers[kind](wanted)
    force.setForceGroup(force_group)
    return force


class _Wanted(NamedTuple):
    """What a force is made of: arguments of ``create_force``, checked."""

    path: Path
    topology: app.Topology
    chosen: list[int]
    particles: list[int]
    periodic: bool | None
    device: str
    dtype: str | None
    charge: float | None
    spin: float | None


def _charge_of(topology: app.Topology, chosen: list[int], path: Path, *, settable: bool) -> float | None:
    """Return the charge that the topology's formal charges make, told; None where it has none or the model cannot be set."""
    from equistride import artifact

    charge = formal_charge(topology, chosen)
    if charge is None:
        return None
    metadata = artifact.load(path, verify=False).metadata  # what files of format 1 do not say is filled in
    said = f"the formal charges of the topology's atoms sum to {charge:g}"
    if metadata.charge_spin == "input" and settable:
        tell(f"{said}, which is taken for the total charge; charge=... goes before it")
        return charge
    own = metadata.system.get("charge")
    if metadata.charge_spin == "none":
        tell(f"{said}, which are set aside: the model knows no charge")
    elif own != charge:
        tell(f"{said}, which are set aside: the model computes with its own charge of {own:g}")
    return None


def _doubt(topology: app.Topology, chosen: list[int], path: Path, charge: float | None, spin: float | None) -> None:
    """Tell of a spin multiplicity that the model's atoms cannot have at their charge, where the model takes both."""
    metadata = metadata_of(path)
    if metadata is None or metadata.charge_spin != "input":
        return
    own = metadata.system
    atoms = list(topology.atoms())
    protons = sum(atoms[k].element.atomic_number for k in chosen if atoms[k].element is not None)
    system = System(own.get("charge") if charge is None else charge, own.get("spin") if spin is None else spin)
    tell_impossible(protons, system)


def _set_system(force: Force, **values: float | None) -> None:
    """Set the defaults of the force's parameters charge and spin, where given; values that its model has fixed must be equal."""
    metadata = force.getMetadata()
    fixed = metadata["system"] if metadata.get("charge_spin") == "fixed" else {}
    known = [force.getGlobalParameterName(k) for k in range(force.getNumGlobalParameters())]
    for name, value in values.items():
        if value is None or fixed.get(name) == value:
            continue
        if fixed:
            raise EquistrideError(
                f"the {name} is fixed in the model of {force.getFile()}", expected=f"{fixed[name]:g}", found=f"{value:g}",
                hint="import or export it for this one",
            )  # fmt: skip
        if name not in known:
            raise no_system(f"the model of {force.getFile()}")
        force.setGlobalParameterDefaultValue(known.index(name), value)


def _plugin_force(wanted: _Wanted) -> openmm.Force:
    from equistride.engines.openmm_force import Force

    path, topology = wanted.path, wanted.topology
    force = Force(path, {"device": wanted.device, "precision": PROPERTY[wanted.dtype]}, particles=wanted.particles)
    if not force.isArtifact():
        raise EquistrideError(
            f"{path.name} is a plain TorchScript module",
            expected="an equistride artifact",
            hint="use equistride.engines.openmm.Force for a module of the TorchForce contract",
        )
    metadata = force.getMetadata()
    force.setElements(element_symbols(topology, wanted.chosen, metadata["species"]))
    force.setBonds(bonds_among(topology, wanted.chosen))
    force.setUsesPeriodicBoundaryConditions(has_box(topology, wanted.periodic, metadata.get("periodic") == "required"))
    _set_system(force, charge=wanted.charge, spin=wanted.spin)
    return force


def _python_force(wanted: _Wanted) -> openmm.Force:
    import torch

    from equistride import artifact
    from equistride.engines.openmm_python import python_force

    path, topology, device = wanted.path, wanted.topology, wanted.device
    metadata = artifact.load(path, verify=False).metadata  # the force runs the self-test
    check_potential(metadata, path)
    symbols = element_symbols(topology, wanted.chosen, metadata.species)
    box = has_box(topology, wanted.periodic, metadata.periodic == "required")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return python_force(path, symbols, wanted.particles, box, device, wanted.dtype, wanted.charge, wanted.spin)


def _torch_force(wanted: _Wanted) -> openmm.Force:
    from equistride.engines.openmm_torch import torch_force

    if wanted.device != "auto" or wanted.charge is not None or wanted.spin is not None:
        raise EquistrideError(
            "openmm-torch runs on the device of the Context, with the charge and spin of the file",
            expected="neither device, charge nor spin",
            hint="use backend='plugin', or write the file with `equistride system`",
        )
    warnings.warn(
        "openmm-torch runs the plain network in torch: without fused kernels it is about ten times slower than "
        "backend='plugin', charge and spin are fixed, and no Harvester can watch it",
        stacklevel=4,
    )
    return torch_force(wanted.path, wanted.topology, wanted.chosen, wanted.periodic, wanted.dtype)


def create_system(
    artifact: str | os.PathLike[str],
    topology: app.Topology,
    *,
    system: openmm.System | None = None,
    atoms: Iterable[int] | None = None,
    backend: Backend = "auto",
    device: str = "auto",
    precision: Literal["float32", "float64"] | None = None,
    force_group: int = 0,
    periodic: bool | None = None,
    charge: float | None = None,
    spin: float | None = None,
    remove_cm_motion: bool = True,
    trust_compiled: bool = False,
) -> openmm.System:
    """Make a System that runs a trained potential; any integrator works with it.

    For a propagator it makes a System without forces and with the masses that the model was trained with, which a
    ``TrajCastIntegrator`` then moves; another integrator is refused, unless you add forces.

    Parameters
    ----------
    artifact, topology, atoms, backend, device, precision, force_group, periodic, charge, spin, trust_compiled
        As for ``create_force``.
    system
        A System to add the force to (it is changed and returned); None to make one with the masses of the
        elements and the topology's box. Its own force field may not act between the model's atoms: for a region of a
        parametrised System use openmm-ml's ``createMixedSystem``.
    remove_cm_motion
        Add a ``CMMotionRemover`` to a new System.

    Returns
    -------
    openmm.System

    Raises
    ------
    EquistrideError
        As ``create_force``; also where the given System does not fit the topology, constrains atoms of the model, or has
        bonds, angles, torsions or pairs of a force field between them.
    """
    path = path_of(artifact)
    _trust(path, trust_compiled)
    masses = propagator_masses(path)
    if masses is not None:
        if system is not None or atoms is not None:
            raise EquistrideError(
                "a propagator moves all atoms of a System and adds no force to it",
                expected="neither system nor atoms",
                hint="give your System and a TrajCastIntegrator to the Simulation",
            )
        element_symbols(topology, choose_atoms(topology, None), list(masses))
        made = _with_remover(bare_system(topology, masses), remove_cm_motion)
        if _plugin_built():
            from equistride.engines.openmm_force import PropagatorMark

            made.addForce(PropagatorMark())
        return made
    chosen = choose_atoms(topology, atoms)
    atoms = None if atoms is None else chosen
    if system is not None:
        from equistride.engines.openmm_regions import check_seen_once

        check_system(system, topology, chosen, periodic is not False)
        check_terms(system, chosen)
        check_seen_once(system, chosen)
    given = system or bare_system(topology)
    force = create_force(
        artifact,
        with_box(topology, system),
        atoms=atoms,
        backend=backend,
        device=device,
        precision=precision,
        force_group=force_group,
        periodic=periodic,
        charge=charge,
        spin=spin,
    )
    name_apart(force, given)
    company = Company(force, topology, chosen)
    given.addForce(force)
    company.join(given)
    # after our force, which looks at each step before anything is changed in it
    return given if system is not None else _with_remover(given, remove_cm_motion)


class Company:
    """What forces other than the plugin's cannot do themselves for the System that they are in.

    OpenMM asks a PythonForce neither for bonds, by which molecules stay whole, nor about its System. So bonds of no strength
    stand beside it, and constraints are looked at when it is first evaluated.

    Parameters
    ----------
    force
        The force, before it is given away.
    topology, chosen
        The topology that the force was made for, and the indices of the atoms that the model sees.
    """

    def __init__(self, force: openmm.Force, topology: app.Topology, chosen: list[int]) -> None:
        from equistride.engines.openmm_regions import plugin_force

        self._group = force.getForceGroup()
        self._bonds = bonds_among(topology, chosen) if plugin_force(force) is None else []
        self._computation = force.getName() if isinstance(force, openmm.PythonForce) else None

    def join(self, system: openmm.System) -> None:
        """Complete the System that the force is in, perhaps inside another force."""
        if self._computation is not None:
            from equistride.engines.openmm_python import hold

            hold(self._computation, system)
        if self._bonds:
            molecules = openmm.CustomBondForce("0")
            molecules.setName("EquistrideMolecules")
            molecules.setForceGroup(self._group)
            for first, second in self._bonds:
                molecules.addBond(first, second)
            system.addForce(molecules)


def name_apart(force: openmm.Force, system: openmm.System) -> None:
    """Rename parameters of our force that another force of the System has already: ``charge_2``, ``spin_2`` and so on."""
    from equistride.engines.openmm_regions import parameter_names, plugin_force

    ours, taken = plugin_force(force), parameter_names(system)
    if ours is None:
        return
    names = [ours.getGlobalParameterName(k) for k in range(ours.getNumGlobalParameters())]
    number, renamed = 1, names
    while not taken.isdisjoint(renamed):
        number += 1
        renamed = [f"{name}_{number}" for name in names]
    for index, name in enumerate(renamed):
        ours.setGlobalParameterName(index, name)


def _register() -> None:
    """Load the plugin, where it was built, so that XmlSerializer reads systems with our forces and integrators."""
    if _plugin_built():
        with contextlib.suppress(ImportError, OSError, openmm.OpenMMException, EquistrideError):
            importlib.import_module("equistride.engines.openmm_force")


def _with_remover(system: openmm.System, remove_cm_motion: bool) -> openmm.System:
    if remove_cm_motion:
        system.addForce(openmm.CMMotionRemover())
    return system


_register()
