"""Compiled artifacts where atoms are divided among processes, and under the propagating integrator."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import lammps_runs as lmp
import numpy as np
import pytest
from ase import Atoms
from lammps_runs import crystal
from propagated import bulk, context_of
from random_models import CUTOFF, random_potential
from torch._inductor import config as inductor
from trajcast_systems import STRIDE, propagator

from equistride.artifact import load
from equistride.artifact.export import save_potential
from equistride.artifact.propagators import save_propagator
from equistride.models.esen import ESENConfig

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not hasattr(inductor.cpp, "march"), reason="torch before 2.13 compiles for no given instruction set"
    ),
    pytest.mark.skipif(
        shutil.which(os.environ.get("CXX", "g++")) is None, reason="there is no C++ compiler: install g++"
    ),
]
SIZES = {"cutoff": CUTOFF, "num_layers": 2, "channels": 4, "hidden_channels": 4, "edge_channels": 4}


@pytest.fixture(scope="module")
def potential(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers, so that features are exchanged."""
    path = tmp_path_factory.mktemp("potential") / "toy.pt2"
    save_potential(
        random_potential(2, **SIZES), ESENConfig.model_validate(SIZES), path, dtype="float64", fused=True, provenance={},
        container="aoti",
    )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def strides(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One propagator in both containers."""
    folder = tmp_path_factory.mktemp("strides")
    save_propagator(propagator(), folder / "p.pt", dtype="float64", tables=1e-6)
    save_propagator(propagator(), folder / "p.pt2", dtype="float64", tables=1e-6, container="aoti")
    return [folder / "p.pt", folder / "p.pt2"]


def corner() -> Atoms:
    """Three atoms in a corner of a large box: most processes have none."""
    return Atoms("SiOO", positions=[[1, 1, 1], [2.5, 1.2, 1], [1, 1.4, 2.6]], cell=[30, 30, 30], pbc=True)


@pytest.mark.parametrize(("ranks", "ghosts"), [(1, "auto"), (2, "exchange"), (2, "wide"), (4, "exchange")])
@pytest.mark.parametrize("build", [crystal, corner])
def test_lammps_divides_a_compiled_potential(potential: Path, tmp_path: Path, ranks: int, ghosts: str, build) -> None:  # type: ignore[no-untyped-def]
    lmp.require_plugin()
    atoms, model = build(), load(potential, trust_compiled=True)
    found = lmp.once(potential, atoms, tmp_path, f"ghost {ghosts} trust yes", ranks)
    kinds = model.species_index(atoms.get_chemical_symbols())
    expected = model.compute(atoms.positions, kinds, atoms.cell.array, True)
    assert np.abs(found.forces - expected.forces.numpy()).max() < 1e-9
    assert np.abs(found.energies - expected.atomic_energies.numpy()).max() < 1e-9


def test_lammps_divides_compiled_strides(strides: list[Path], tmp_path: Path) -> None:
    """On two processes as in TorchScript's on one, momentum kept among all atoms."""
    lmp.require_plugin()
    from test_lammps_propagate import crystal as moving
    from test_lammps_propagate import script

    ends = []
    for ranks, path in zip((1, 2), strides, strict=True):
        folder = tmp_path / str(ranks)
        folder.mkdir()
        ends.append(lmp.run(moving(), script(path, 1, "trust yes", stride=STRIDE), folder, ranks))
    assert np.abs(ends[0].positions - ends[1].positions).max() < 1e-9
    assert np.abs(ends[0].velocities - ends[1].velocities).max() < 1e-9


def test_the_integrator_takes_the_same_strides(strides: list[Path]) -> None:
    ends = []
    for path in strides:
        context = context_of(path, bulk(), seed=3, trust_compiled=True)
        context.getIntegrator().step(1)
        ends.append(context.getState(positions=True).getPositions(asNumpy=True)._value)
    assert np.abs(ends[0] - ends[1]).max() < 1e-8  # nm
