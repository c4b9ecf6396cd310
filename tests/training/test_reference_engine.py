"""The classical reference: quartz is quartz, labels are derivatives, pairs of (x, v) belong together."""

from __future__ import annotations

import numpy as np
import pytest
from finite_differences import force_on, strain_derivative

from equistride.data.lammps import LammpsRun
from equistride.data.quartz import MASSES, Condition, QuartzRecipe, generate, quartz, repeats_for
from equistride.errors import EquistrideError
from equistride.units import ACCELERATION, BOLTZMANN


def evaluate(positions: np.ndarray, cell: np.ndarray, symbols: list[str]) -> tuple[float, np.ndarray, np.ndarray]:
    run = LammpsRun(positions, cell, symbols, MASSES)
    shot = run.nve(0)
    run.close()
    return shot.energy, shot.forces, shot.virial


def test_structure() -> None:
    atoms = quartz((2, 2, 2))
    assert len(atoms) == 72
    distances = atoms.get_all_distances(mic=True)
    silicon = atoms.numbers == 14
    assert (((distances < 2.0) & (distances > 0)).sum(1)[silicon] == 4).all()
    assert (((distances < 2.0) & (distances > 0)).sum(1)[~silicon] == 2).all()
    bonds = distances[silicon][:, ~silicon]
    np.testing.assert_allclose(bonds[bonds < 2], 1.60, atol=0.03)  # 1.605 and 1.614 A by diffraction
    assert [repeats_for(n) for n in (9, 72, 162, 576, 4374)] == [(1, 1, 1), (2, 2, 2), (3, 3, 2), (4, 4, 4), (9, 9, 6)]
    with pytest.raises(EquistrideError, match="a cell of quartz cannot have 100 atoms"):
        repeats_for(100)


def test_forces_and_virial_are_derivatives_of_the_energy() -> None:
    atoms = quartz((2, 2, 2))
    atoms.rattle(0.05, seed=1)
    symbols = atoms.get_chemical_symbols()
    x, cell = atoms.positions, atoms.cell.array
    _, forces, virial = evaluate(x, cell, symbols)
    for atom, axis in ((0, 0), (30, 2)):
        found = force_on(lambda moved: evaluate(moved, cell, symbols)[0], x, atom, axis, 1e-4)
        assert found == pytest.approx(forces[atom, axis], abs=1e-5)
    for a, b in ((0, 0), (2, 2), (1, 0)):  # lower triangular strains keep the cell in LAMMPS's form
        slope = strain_derivative(lambda moved, box: evaluate(moved, box, symbols)[0], x, cell, a, b)
        assert -slope == pytest.approx(virial[a, b], abs=2e-3)  # of some 10 eV


def test_positions_and_velocities_are_of_one_instant() -> None:
    """Velocity Verlet's identities: v(t) = (x(t+dt) - x(t-dt))/2dt, and F(t)/m = (x(t+dt) - 2x(t) + x(t-dt))/dt^2."""
    atoms = quartz((2, 2, 2))
    symbols = atoms.get_chemical_symbols()
    run = LammpsRun(atoms.positions, atoms.cell.array, symbols, MASSES, timestep_fs=0.5)
    run.thermalise(300.0, 200, damping_fs=100.0, seed=3, fresh=True)
    before, now, after = run.nve(0), run.nve(1), run.nve(1)
    run.close()
    np.testing.assert_allclose((after.positions - before.positions) / 1.0, now.velocities, atol=1e-9)
    mass = np.array([MASSES[s] for s in symbols])[:, None]
    second = (after.positions - 2 * now.positions + before.positions) / 0.25
    np.testing.assert_allclose(
        second, ACCELERATION * now.forces / mass, atol=1e-8
    )  # of 1e-2 A/fs^2; LAMMPS's own constants
    assert np.abs((mass * now.velocities).sum(0)).max() < 1e-9


def test_one_seed_one_trajectory() -> None:
    recipe = QuartzRecipe(72, (Condition(300.0, 1),), frames=3, equilibrate_fs=50.0, decorrelate_fs=20.0, seed=9)
    first, second = (next(generate(recipe))[2] for _ in range(2))
    np.testing.assert_array_equal(first.positions, second.positions)
    np.testing.assert_array_equal(first.velocities, second.velocities)
    assert first.total_energy is not None
    assert np.ptp(first.total_energy) / 72 < 2e-3  # eV/atom over 60 fs


def test_what_lammps_cannot_take() -> None:
    atoms = quartz((2, 2, 2))
    symbols = atoms.get_chemical_symbols()
    with pytest.raises(EquistrideError, match="no potential file"):
        LammpsRun(atoms.positions, atoms.cell.array, symbols, MASSES, potential_file="nothing")
    with pytest.raises(EquistrideError, match="lower triangular"):
        LammpsRun(atoms.positions, atoms.cell.array.T, symbols, MASSES)


def test_langevin_dynamics_keep_the_temperature_however_often_frames_are_taken() -> None:
    """Setting the bath up anew for every frame would lose half the noise of a step each time: 5 % of 10 steps' temperature."""
    atoms = quartz((2, 2, 2))
    run = LammpsRun(atoms.positions, atoms.cell.array, atoms.get_chemical_symbols(), MASSES)
    run.thermalise(300.0, 1000, damping_fs=50.0, seed=5, fresh=True)
    masses = np.array([MASSES[s] for s in atoms.get_chemical_symbols()])[:, None]
    shots = list(run.langevin(300.0, 600, 10, damping_fs=50.0, seed=6))
    run.close()
    kinetic = [0.5 * (masses * s.velocities**2).sum() / ACCELERATION for s in shots]
    assert np.abs([(masses * s.velocities).sum(0) for s in shots]).max() < 1e-9
    # 213 degrees of freedom scatter by 10 %, forgotten within 100 fs or so: 1.3 % of the mean; 1 fs steps cool by half a per cent
    assert 2 * np.mean(kinetic) / (213 * BOLTZMANN) == pytest.approx(300.0, rel=0.035)
