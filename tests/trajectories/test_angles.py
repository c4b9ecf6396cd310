"""Angles and neighbours in periodic cells."""

import numpy as np
import pytest
from known_systems import STILL, TRICLINIC, gas, shared_data

from equistride.cell import heights, lower_triangular
from equistride.errors import EquistrideError
from equistride.trajectories import Trajectory, angle_distribution, read_trajectory
from equistride.trajectories.periodic import neighbours


def water(cell, corner):
    """One molecule of 104.5 degrees whose oxygen lies at ``corner``."""
    half = np.radians(104.5 / 2)
    arms = 0.96 * np.array([[0, 0, 0], [np.sin(half), np.cos(half), 0], [-np.sin(half), np.cos(half), 0]])
    return Trajectory((arms + corner)[None], ("O", "H", "H"), [0.0], cell)


@pytest.mark.parametrize("corner", [np.zeros(3), TRICLINIC[0], -0.3 * TRICLINIC.sum(axis=0)])
def test_angle_across_the_boundary(corner):
    for cell in (STILL, TRICLINIC):
        run = water(cell, corner)
        if cell.any():
            fractions = run.positions @ np.linalg.inv(cell)
            run = Trajectory((fractions - np.floor(fractions)) @ cell, run.symbols, [0.0], cell)
        angle = angle_distribution(run, "H", "O")
        assert angle.mean == pytest.approx(104.5, abs=1e-4)
        assert angle.per_centre == 1.0
        assert angle.density.sum() == pytest.approx(1.0)


def test_tetrahedron():
    arms = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) * 0.93
    run = Trajectory(np.concatenate([[[0, 0, 0]], arms])[None], ("Si", "O", "O", "O", "O"), [0.0], STILL)
    angle = angle_distribution(run, "O", "Si")
    assert angle.mean == pytest.approx(np.degrees(np.arccos(-1 / 3)))
    assert angle.per_centre == 6.0
    assert angle.spread == pytest.approx(0.0, abs=1e-4)


def test_two_kinds_of_ends():
    run = Trajectory([[[0.0, 0, 0], [1.1, 0, 0], [0, 1.4, 0], [-1.4, 0, 0]]], ("C", "H", "O", "O"), [0.0], STILL)
    angle = angle_distribution(run, "H", "C", "O")
    assert angle.per_centre == 2.0
    assert angle.mean == pytest.approx(135.0)
    assert angle.density[89] + angle.density[90] == pytest.approx(0.5)


@pytest.mark.parametrize("cutoff", [2.0, 5.5, 12.0])
def test_neighbours_equal_brute_force(cutoff):
    run = gas(12, 1, TRICLINIC)
    a, b = run.positions[0, :5] + 40.0, run.positions[0]
    found = neighbours(a, b, TRICLINIC, cutoff)
    shifts = np.stack(np.meshgrid(*(np.arange(-12, 13),) * 3, indexing="ij"), axis=-1).reshape(-1, 3) @ TRICLINIC
    away = b[None, :, None] + shifts - a[:, None, None]
    distance = np.linalg.norm(away, axis=-1)
    expected = np.sort(distance[(distance < cutoff) & (distance > 1e-8)])
    assert np.sort(np.linalg.norm(found[2], axis=1)) == pytest.approx(expected)
    assert (np.diff(found[0]) >= 0).all()


def test_cell_geometry():
    assert heights(np.diag([3.0, 4.0, 5.0])) == pytest.approx([3.0, 4.0, 5.0])
    turned = lower_triangular(TRICLINIC[[2, 0, 1]])[0]
    assert turned @ turned.T == pytest.approx(TRICLINIC[[2, 0, 1]] @ TRICLINIC[[2, 0, 1]].T)
    assert np.triu(turned, 1) == pytest.approx(np.zeros((3, 3)))


def test_quartz_angles():
    """Tetrahedra, and the bridge that the 1990 Vashishta potential gives."""
    run = read_trajectory(shared_data("reference/quartz72_vash1990_300K.npz")).thinned(60)
    inner = angle_distribution(run, "O", "Si")
    assert inner.mean == pytest.approx(109.4, abs=0.3)
    assert inner.per_centre == 6.0
    bridge = angle_distribution(run, "Si", "O")
    assert 135.0 < bridge.mean < 150.0
    assert bridge.per_centre == 1.0


def test_bad_input():
    run = water(STILL, np.zeros(3))
    with pytest.raises(EquistrideError, match=r"no angle O-H-O.*longer cutoff"):
        angle_distribution(run, "O", "H")
    with pytest.raises(EquistrideError, match="has no Si"):
        angle_distribution(run, "O", "Si")
    with pytest.raises(EquistrideError, match="width of a bin"):
        angle_distribution(run, "H", "O", bin_width=0.0)
