"""Fixtures that the engine tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
import toy_artifact
from openmm_systems import CUBIC, TRICLINIC, Structure
from random_models import random_potential, write_artifact
from trajcast_systems import propagator

from equistride.artifact.ensemble import combine
from equistride.artifact.propagators import save_propagator
from equistride.importers.fairchem import import_fairchem


@pytest.fixture(scope="session")
def artifact64(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A double-precision artifact."""
    return toy_artifact.write(tmp_path_factory.mktemp("toy") / "toy64.pt", dtype="float64")


@pytest.fixture(scope="session")
def artifact32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A single-precision artifact."""
    return toy_artifact.write(tmp_path_factory.mktemp("toy") / "toy32.pt", dtype="float32")


@pytest.fixture(scope="session")
def omol(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """A network in double precision that knows charge and spin, with random weights."""
    path = tmp_path_factory.mktemp("omol") / "omol.pt"
    import_fairchem(repository / "tests" / "data" / "fairchem" / "L2M2_omol.pt", path, dtype="float64")
    return path


@pytest.fixture(scope="session")
def hco_ensemble(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two potentials of random weights for molecules of H, C and O, in double precision."""
    folder = tmp_path_factory.mktemp("hco")
    paths = [
        write_artifact(random_potential(k, ["H", "C", "O"], num_layers=1), folder / f"{k}.pt", "float64")
        for k in (0, 1)
    ]
    combine(paths, folder / "ensemble.pt")
    return folder / "ensemble.pt"


@pytest.fixture(scope="session")
def hco(hco_ensemble: Path) -> Path:
    """The first of them."""
    return hco_ensemble.with_name("0.pt")


@pytest.fixture(scope="session")
def propagator64(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A double-precision propagator of random weights."""
    path = tmp_path_factory.mktemp("propagator") / "p64.pt"
    save_propagator(propagator(), path, dtype="float64")
    return path


@pytest.fixture(scope="session")
def propagator32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in single precision."""
    path = tmp_path_factory.mktemp("propagator") / "p32.pt"
    save_propagator(propagator(), path, dtype="float32")
    return path


@pytest.fixture(scope="session")
def crystal_propagator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in double precision, of periodic systems alone."""
    path = tmp_path_factory.mktemp("propagator") / "bulk.pt"
    save_propagator(propagator(), path, dtype="float64", periodic=True)
    return path


@pytest.fixture(scope="session")
def molecule() -> Structure:
    """Twelve atoms without a box."""
    return Structure(12, None)


@pytest.fixture(scope="session")
def crystal() -> Structure:
    """Thirty atoms in an orthorhombic box."""
    return Structure(30, CUBIC)


@pytest.fixture(scope="session")
def skewed() -> Structure:
    """Sixteen atoms in a triclinic box narrower than two cutoffs."""
    return Structure(16, TRICLINIC)
