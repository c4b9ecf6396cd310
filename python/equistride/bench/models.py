"""The model of a test: a given artifact, a released one, or a published architecture with random weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_masses, atomic_numbers

from equistride.artifact import load
from equistride.artifact.export import build_potential, save_potential
from equistride.artifact.metadata import Metadata
from equistride.artifact.propagators import build_propagator, save_propagator
from equistride.bench.catalogue import Benchmark
from equistride.bench.systems import split, structure
from equistride.cell import heights
from equistride.elements import species_index
from equistride.errors import EquistrideError
from equistride.graph import neighbor_list
from equistride.models.esen import ESENConfig
from equistride.models.potential import ConservativePotential
from equistride.models.propagator import Propagator
from equistride.models.trajcast import TrajCastConfig

POTENTIAL = ESENConfig.model_validate(
    {"cutoff": 5.0, "num_layers": 2, "channels": 64, "hidden_channels": 64, "edge_channels": 64}
)
"""The eSEN that stands in where no potential was trained."""
PROPAGATOR_CUTOFF = 4.5
"""Cutoff of the published TrajCast where no propagator was trained [A]."""
STRIDES = {True: 5.0, False: 30.0}
"""Strides that random propagators pretend [fs], with and without hydrogen."""
SCALE = 0.02
"""Energy of one unit of a random potential's output [eV]: soft forces, so that no atom runs away."""
TEMPERATURE = 300.0
"""K."""


@dataclass(frozen=True)
class Chosen:
    """The artifact of a test, how the table calls it, and whether it was trained."""

    path: Path
    title: str
    trained: bool


def released(kind: str, family: str, folders: list[Path] | None = None) -> Path | None:
    """Return the released artifact of a kind for a family of systems: ``models/FAMILY-*/*.pt`` here or in the source tree."""
    here = [Path("models"), Path(__file__).resolve().parents[3] / "models"]
    for folder in folders or here:
        for path in sorted(folder.glob(f"{family}-*/{family}-*.pt")):
            try:
                metadata = load(path, verify=False).metadata
            except EquistrideError:
                continue
            if metadata.kind == kind:
                return path
    return None


def choose(test: Benchmark, artifact: Path | None, *, random: bool, precision: str | None, scratch: Path) -> Chosen:
    """Return the model of a test.

    Parameters
    ----------
    test
        Of the kind ``potential`` or ``propagator``.
    artifact
        The user's; it must be of that kind. None for the released one, or random weights where there is none.
    random
        Random weights of the published architectures, also where a model was released.
    precision
        ``float32``, ``float64`` or None: of a random model's file.
    scratch
        Folder for the files of random models.
    """
    family, _ = split(test.system)
    path = artifact or (None if random else released(test.kind, family))
    if path is not None:
        metadata = load(path).metadata
        if metadata.kind != test.kind:
            raise EquistrideError(
                f"{path.name} is a {metadata.kind}",
                expected=f"a {test.kind} for {test.name}",
                hint=f"name tests of the kind {metadata.kind}, or another artifact",
            )
        return Chosen(path, path.stem, True)
    dtype = precision or "float32"
    path = scratch / f"{test.kind}-{family}-{dtype}.pt"
    make = _random_potential if test.kind == "potential" else _random_propagator
    title = make(path, structure(test.smallest().system), dtype)
    return Chosen(path, title, False)


def random_potential(elements: list[str], cutoff: float, seed: int = 1) -> ConservativePotential:
    """Return the stand-in eSEN with another cutoff [A], random weights, double precision."""
    torch.manual_seed(seed)
    config = POTENTIAL.model_copy(update={"cutoff": cutoff})
    facts = {"species": elements, "scale": SCALE, "references": [0.0] * len(elements)}
    return build_potential(config, facts).double()


def _random_potential(path: Path, atoms: Atoms, dtype: str) -> str:
    c = POTENTIAL
    title = f"eSEN {c.num_layers}x{c.channels}, {c.cutoff:g} A, random weights"
    if path.exists():
        return title
    potential = random_potential(_elements(atoms), c.cutoff)
    save_potential(potential, c, path, dtype=dtype, fused=True, provenance={}, description=title)
    return title


def random_propagator(
    elements: list[str], neighbors: float, cutoff: float = PROPAGATOR_CUTOFF, stride_fs: float = 30.0
) -> tuple[Propagator, TrajCastConfig]:
    """Return the published TrajCast with random weights, for ``neighbors`` an atom on average, and its configuration."""
    masses = [float(atomic_masses[atomic_numbers[e]]) for e in elements]
    config = TrajCastConfig.model_validate(
        {"cutoff": cutoff, "max_speed": 8 * thermal_speed(min(masses)), "avg_num_neighbors": neighbors}
    )
    torch.manual_seed(1)
    facts = {
        "species": elements, "masses": masses, "stride_fs": stride_fs, "rms_displacement": 0.05,
        "rms_velocity": 0.5 * thermal_speed(max(masses)),
    }  # fmt: skip
    return build_propagator(config, facts), config


def _random_propagator(path: Path, atoms: Atoms, dtype: str) -> str:
    elements = _elements(atoms)
    edges = neighbor_list(
        torch.tensor(atoms.positions), torch.tensor(atoms.cell.array), bool(atoms.pbc.all()), PROPAGATOR_CUTOFF
    )[0].size(1)
    neighbors = max(1.0, edges / len(atoms))
    propagator, config = random_propagator(elements, neighbors, stride_fs=STRIDES["H" in elements])
    title = f"TrajCast {config.num_layers}x{config.channels}, {config.cutoff:g} A, random weights"
    if not path.exists():
        save_propagator(propagator, path, dtype=dtype, tables=1e-6, description=title)
    return title


def _elements(atoms: Atoms) -> list[str]:
    """Return the elements of a structure in the order of their numbers."""
    return sorted(set(atoms.get_chemical_symbols()), key=lambda symbol: atomic_numbers[symbol])


def thermal_speed(mass: float) -> float:
    """Return the rms of a velocity's component at 300 K [A/fs] for a mass [amu]."""
    from equistride.units import BOLTZMANN, EV_PER_KINETIC

    return float(np.sqrt(BOLTZMANN * TEMPERATURE / (mass * EV_PER_KINETIC)))


def check_fits(metadata: Metadata, title: str, system: str, atoms: Atoms) -> None:
    """Refuse a system with elements that the model does not know, without the box that it needs, or too small for it."""
    hint = "choose tests of another system with --test, or another artifact"
    species_index(atoms.get_chemical_symbols(), metadata.species, what=system, who=title, hint=hint)
    if metadata.periodic == "required" and not atoms.pbc.all():
        raise EquistrideError(
            f"{title} was trained on periodic systems alone, and {system} has no box", hint="choose another test"
        )
    if atoms.pbc.all():
        height = float(heights(atoms.cell.array).min())
        if height < metadata.cutoff:
            raise EquistrideError(
                f"{system} is too small for {title}: atoms would meet their own images",
                expected=f"a cell at least {metadata.cutoff:g} A wide, the cutoff",
                found=f"{height:.2f} A",
                hint="choose a larger system",
            )
