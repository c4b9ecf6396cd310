"""What every test may ask for: shared reference data, quartz, a potential with random weights, its artifact."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from ase import Atoms
from random_models import Graph, graph_of, random_potential, write_artifact

from equistride.data.quartz import quartz
from equistride.models.potential import ConservativePotential

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the source tree."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of shared reference data; tests that need it are skipped where it is missing."""
    path = Path(os.environ.get("EQUISTRIDE_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no shared data in {path}; set EQUISTRIDE_SHARED_DATA to its folder")
    return path


@pytest.fixture
def double_by_default() -> Iterator[None]:
    """e3nn rounds its constants and generators to the default precision."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture(scope="session")
def quartz_atoms() -> Atoms:
    """72 atoms of quartz, displaced by 0.05 A rms along each axis."""
    atoms = quartz((2, 2, 2))
    atoms.rattle(0.05, seed=3)
    return atoms


@pytest.fixture(scope="session")
def quartz_graph(quartz_atoms: Atoms) -> Graph:
    """The same as a potential's arguments, at a cutoff of 4 A."""
    positions, cell = torch.tensor(quartz_atoms.positions), torch.tensor(quartz_atoms.cell.array)
    return graph_of(positions, torch.tensor(quartz_atoms.numbers == 14).long(), cell)


@pytest.fixture(scope="session")
def potential() -> ConservativePotential:
    """A random potential, float64; not to be changed."""
    return random_potential()


@pytest.fixture(scope="session")
def random_artifact64(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact of ``potential`` in double precision."""
    return write_artifact(random_potential(), tmp_path_factory.mktemp("artifact") / "random64.pt", "float64")


@pytest.fixture(scope="session")
def random_artifact32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact of ``potential`` in single precision."""
    return write_artifact(random_potential(), tmp_path_factory.mktemp("artifact") / "random32.pt", "float32")
