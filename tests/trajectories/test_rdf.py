"""Radial distribution functions of systems whose answer is known."""

import numpy as np
import pytest
from known_systems import STILL, TRICLINIC, gas, shared_data

from equistride.errors import EquistrideError
from equistride.trajectories import (  # fmt: skip
    Trajectory,
    coordination_number,
    radial_distribution,
    radial_distributions,
    rdf_difference,
    rdf_noise,
    read_trajectory,
)
from equistride.trajectories import rdf as module

ORTHORHOMBIC = np.diag([11.0, 9.0, 10.0])


@pytest.mark.parametrize("cell", [ORTHORHOMBIC, TRICLINIC])
@pytest.mark.parametrize("r_max", [3.5, 7.0])
def test_ideal_gas_is_flat(cell, r_max):
    """Inside half the cell (mdtraj) and beyond it (all images)."""
    run = gas(120, 120, cell)
    rdf = radial_distribution(run, "Ar", "Ar", r_max=r_max, bin_width=0.25)
    outer = rdf.r > 1.0
    expected = 1.0 - 1.0 / 120
    assert np.abs((rdf.g[outer] - expected) / rdf.error[outer]).max() < 6.0
    assert rdf.g[outer].mean() == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("cell", [ORTHORHOMBIC, TRICLINIC, TRICLINIC[[1, 2, 0]], -TRICLINIC])
def test_mdtraj_and_images_agree(cell, monkeypatch):
    """Any orientation and handedness of the cell, positions far outside it."""
    run = gas(40, 12, cell, symbols=["Si"] * 15 + ["O"] * 25)
    far = Trajectory(run.positions + 30.0 * cell.sum(axis=0), run.symbols, run.time, run.cell)
    for pair in run.pairs:
        fast = radial_distribution(far, *pair, r_max=3.0, bin_width=0.1, blocks=3)
        monkeypatch.setattr(module, "_MOST_PAIRS", 0)
        full = radial_distribution(run, *pair, r_max=3.0, bin_width=0.1, blocks=3)
        monkeypatch.undo()
        # float32 may move a pair across the edge of a bin.
        counted = 12 * full.density * 4 / 3 * np.pi * 3.0**3 * run.symbols.count(pair[0])
        assert rdf_difference(fast, full) < 4.0 / counted + 1e-9


def test_shells_of_a_cubic_lattice():
    """Simple cubic, spacing 3: 6 neighbours at 3, 12 at 3 sqrt 2, 8 at 3 sqrt 3, 6 at 6 (beyond the cell's
    half of 4.5).
    """
    grid = np.stack(np.meshgrid(*(np.arange(3),) * 3, indexing="ij"), axis=-1).reshape(1, -1, 3) * 3.0
    run = Trajectory(grid, ("Ar",) * 27, [0.0], 9.0 * np.eye(3))
    rdf = radial_distribution(run, "Ar", "Ar", r_max=6.52, bin_width=0.04)
    number = rdf.running_number
    for radius, count in ((2.9, 0), (3.2, 6), (4.4, 18), (5.4, 26), (6.3, 32)):
        assert number[np.searchsorted(rdf.r, radius)] == pytest.approx(count, abs=1e-9)
    shell = coordination_number(rdf)
    assert shell.number == pytest.approx(6.0)
    assert 3.0 < shell.radius < 4.2
    assert rdf.first_peak == pytest.approx(3.0, abs=0.04)
    assert np.isnan(rdf.error).all()


def test_one_atom_sees_its_images():
    run = Trajectory(np.zeros((1, 1, 3)), ("Al",), [0.0], 2.5 * np.eye(3))
    rdf = radial_distribution(run, "Al", "Al", r_max=4.0, bin_width=0.1)
    assert rdf.running_number[np.searchsorted(rdf.r, 3.0)] == pytest.approx(6.0)


def test_unlike_pair_counts_both_ways():
    """Rock salt, 2 A apart: 6 chlorine around sodium."""
    grid = np.stack(np.meshgrid(*(np.arange(4),) * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    symbols = tuple("Na" if s % 2 == 0 else "Cl" for s in grid.sum(axis=1))
    run = Trajectory(2.0 * grid[None], symbols, [0.0], 8.0 * np.eye(3))
    rdf = radial_distribution(run, "Na", "Cl", r_max=3.9)
    assert coordination_number(rdf).number == pytest.approx(6.0)


def test_difference_and_noise():
    run, other = gas(60, 60, ORTHORHOMBIC, seed=10), gas(60, 60, ORTHORHOMBIC, seed=11)
    a, b = (radial_distribution(t, "Ar", "Ar", bin_width=0.2) for t in (run, other))
    assert rdf_difference(a, a) == 0.0
    assert rdf_difference(a, b) == pytest.approx(rdf_noise(a, b), rel=0.6)
    with pytest.raises(EquistrideError, match="different grids"):
        rdf_difference(a, radial_distribution(run, "Ar", "Ar", bin_width=0.1))


def test_all_pairs():
    run = gas(30, 4, ORTHORHOMBIC, symbols=["O"] * 20 + ["Si"] * 10)
    assert list(radial_distributions(run)) == [("Si", "Si"), ("Si", "O"), ("O", "O")]


def test_quartz():
    run = read_trajectory(shared_data("reference/quartz72_vash1990_300K.npz")).thinned(200)
    rdf = radial_distribution(run, "Si", "O")
    assert rdf.first_peak == pytest.approx(1.61, abs=0.02)
    assert coordination_number(rdf).number == pytest.approx(4.0, abs=0.005)
    assert coordination_number(radial_distribution(run, "O", "Si")).number == pytest.approx(2.0, abs=0.005)


def test_water_bonds():
    run = read_trajectory(shared_data("reference/water64_qtip4pf_300K.npz")).thinned(100)
    rdf = radial_distribution(run, "O", "H")
    assert coordination_number(rdf).number == pytest.approx(2.0, abs=0.005)
    assert rdf.first_peak == pytest.approx(0.96, abs=0.03)


def test_bad_input():
    run = gas(10, 2, ORTHORHOMBIC)
    with pytest.raises(EquistrideError, match=r"has no Xe.*one of Ar"):
        radial_distribution(run, "Ar", "Xe")
    with pytest.raises(EquistrideError, match="bin_width"):
        radial_distribution(run, "Ar", "Ar", bin_width=0.0)
    with pytest.raises(EquistrideError, match="bin_width"):
        radial_distribution(run, "Ar", "Ar", r_max=-1.0)
    with pytest.raises(EquistrideError, match="needs a periodic box"):
        radial_distribution(Trajectory(run.positions, run.symbols, run.time, STILL), "Ar", "Ar")
    big = gas(500, 1, ORTHORHOMBIC)
    with pytest.raises(EquistrideError, match="far beyond the cell"):
        radial_distribution(big, "Ar", "Ar", r_max=200.0)
    empty = radial_distribution(Trajectory(np.zeros((1, 1, 3)), ("Ar",), [0.0], ORTHORHOMBIC), "Ar", "Ar")
    with pytest.raises(EquistrideError, match="no peak"):
        coordination_number(empty)
