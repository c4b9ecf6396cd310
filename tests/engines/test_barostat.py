"""Moves of the box between strides: the ideal gas, one trajectory in all engines, checkpoints, XML, refusals."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import pytest
import torch
import toy_propagator
from ase import Atoms, units
from propagated import context_of, moving, same_bits
from toy_artifact import CUTOFF, SPECIES, PairPotential
from toy_metadata import toy_metadata

from equistride.artifact.export import save
from equistride.data.quartz import quartz
from equistride.engines.ase import EquistrideCalculator
from equistride.engines.ase_dynamics import TrajCastDynamics
from equistride.engines.barostat import Barostat
from equistride.engines.openmm import Guard, TrajCastIntegrator
from equistride.errors import EquistrideError
from equistride.units import BOLTZMANN

BAR = 1 / 1602176.634
"""eV/A^3."""
ROOT = Path(__file__).resolve().parents[2]
STRIDES, GUARD = (
    ROOT / "models/quartz-trajcast-30fs/quartz-trajcast-30fs.pt",
    ROOT / "models/quartz-esen/quartz-esen.pt",
)


@pytest.fixture(scope="module")
def gas(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Free flight, and a potential that is zero everywhere."""
    folder = tmp_path_factory.mktemp("gas")
    nothing = PairPotential(CUTOFF, torch.float64)
    nothing.depth.zero_()
    save(nothing, toy_metadata(SPECIES, CUTOFF, architecture="pair"), folder / "nothing.pt")
    return toy_propagator.write_propagator(folder / "free.pt", free=True), folder / "nothing.pt"


def test_an_ideal_gas_has_its_volumes(gas: tuple[Path, Path]) -> None:
    """N atoms without forces: density V^N exp(-P V / k T), so that <V> = (N + 1) k T / P and var V = (N + 1) (k T / P)^2."""
    free, nothing = gas
    count, temperature, unit = 64, 300.0, 500.0
    pressure = BOLTZMANN * temperature / unit / BAR
    atoms = Atoms(["O"] * count, np.random.default_rng(0).uniform(0, 32, (count, 3)), cell=[32.0] * 3, pbc=True)
    run = TrajCastDynamics(atoms, free, temperature_K=temperature, seed=3, guard=Guard(nothing, every=10**6),
                           barostat=Barostat(pressure, every=1))  # fmt: skip
    run.set_temperature(temperature)
    volumes = []
    for _ in range(8000):
        run.step()
        run.nsteps += 1
        volumes.append(atoms.get_volume())
    found = np.array(volumes[200:])
    # one in twenty moves counts: the mean is uncertain by 1.7 %, the variance by 9 %
    assert found.mean() == pytest.approx((count + 1) * unit, rel=0.05)
    assert found.var() == pytest.approx((count + 1) * unit**2, rel=0.3)
    statistics = run.barostat_statistics()
    assert statistics.moves == 8000
    assert 0.25 < statistics.taken / statistics.moves < 0.85


def pressed(free: Path, nothing: Path, **options: Any) -> openmm.Context:
    atoms = Atoms(["O"] * 8, np.random.default_rng(1).uniform(0, 16, (8, 3)), cell=[16.0] * 3, pbc=True)
    given = {"seed": 4, "guard": Guard(nothing, every=3), "barostat": Barostat(80.0, every=2, axes="xy,z")}
    return context_of(free, atoms, **given | options)


def test_a_checkpoint_goes_on_bit_for_bit(gas: tuple[Path, Path]) -> None:
    """With the box, the size of moves and the random state; OpenMM's XML carries pressure, interval and axes."""
    first, second = pressed(*gas), pressed(*gas)
    first.getIntegrator().step(31)
    second.loadCheckpoint(first.createCheckpoint())
    for made in (first, second):
        made.getIntegrator().step(40)
    assert same_bits(first, second)
    assert np.ptp(np.diag(moving(first).box)) > 1e-6
    xml = openmm.XmlSerializer.serialize(first.getIntegrator())
    assert '<Barostat axes="xy,z" every="2" pressure="80"' in xml
    again = openmm.XmlSerializer.serialize(copy.deepcopy(TrajCastIntegrator.cast(first.getIntegrator())))
    assert again == xml
    with pytest.raises(openmm.OpenMMException, match="one of them has a barostat"):
        pressed(*gas, barostat=None).loadCheckpoint(first.createCheckpoint())


def test_ase_and_openmm_move_one_box(gas: tuple[Path, Path]) -> None:
    made = pressed(*gas)
    start = moving(made)
    atoms = Atoms(["O"] * 8, start.positions, cell=start.box, pbc=True)
    run = TrajCastDynamics(
        atoms, gas[0], seed=4, guard=Guard(gas[1], every=3), barostat=Barostat(80.0, every=2, axes="xy,z")
    )
    atoms.set_velocities(start.velocities / units.fs)
    run.run(20)
    made.getIntegrator().step(20)
    np.testing.assert_allclose(atoms.cell.array, moving(made).box, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(atoms.positions, moving(made).positions, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guard": None}, "goes by the guard's; give a guard"),
        ({"thermostat": None}, "needs the temperature of a thermostat"),
        ({"periodic": False}, "needs a box along all three axes"),
        ({"barostat": 1.0}, "barostat must be a Barostat"),
    ],
)
def test_what_a_barostat_needs(gas: tuple[Path, Path], options: dict[str, Any], message: str) -> None:
    with pytest.raises((EquistrideError, openmm.OpenMMException), match=message):
        pressed(*gas, **options)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pressure": float("nan")}, "pressure of a barostat is not valid"),
        ({"pressure": 1 * openmm.unit.bar}, r"is not valid; expected a number, in bar; .*value_in_unit"),
        ({"every": 0}, "interval of a barostat"),
        ({"axes": "yz,x"}, "axes of a barostat are not known; expected xyz or xy,z or x,y,z"),
    ],
)
def test_settings_that_make_no_sense(values: dict[str, Any], message: str) -> None:
    with pytest.raises(EquistrideError, match=message):
        Barostat(**values)


@pytest.mark.slow
def test_the_virial_agrees_with_the_pressure() -> None:
    """<N k T - dU/d ln V> = P <V> holds at any pressure: quartz in strides of 30 fs under its potential, at 1 GPa."""
    atoms, count = quartz((2, 2, 2)), 72
    run = TrajCastDynamics(atoms, STRIDES, seed=7, guard=Guard(GUARD, every=2), barostat=Barostat(1e4, every=2))
    run.set_temperature(300)
    calculator = EquistrideCalculator(GUARD)
    seen = []
    for k in range(3000):
        run.step()
        run.nsteps += 1
        if k >= 300 and k % 6 == 0:
            atoms.calc = calculator
            seen.append(
                (-np.trace(atoms.get_stress(voigt=False)) / 3 + count * BOLTZMANN * 300 / atoms.get_volume()) / BAR
            )
            atoms.calc = None
    error = np.std(seen) / np.sqrt(len(seen) / 6)  # one in six counts
    assert abs(np.mean(seen) - 1e4) < 4 * error + 500, (np.mean(seen), error)
