"""After an error in a watched step of ASE dynamics all is as before it; bounds stop or warn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.md.langevin import Langevin
from ase.md.verlet import VelocityVerlet
from openmm_systems import Structure
from propagated import bulk

from equistride.engines.ase import EquistrideCalculator
from equistride.engines.ase_dynamics import TrajCastDynamics
from equistride.engines.ase_watch import watch
from equistride.errors import EquistrideError, Notice


def verlet(atoms: Atoms) -> VelocityVerlet:
    return VelocityVerlet(atoms, 0.5 * units.fs)


def langevin(atoms: Atoms) -> Langevin:
    return Langevin(atoms, 0.5 * units.fs, temperature_K=300, friction=0.1, rng=np.random.RandomState(4), fixcm=False)


def generator(atoms: Atoms) -> Langevin:
    return Langevin(atoms, 0.5 * units.fs, temperature_K=300, friction=0.1, rng=np.random.default_rng(4), fixcm=False)


def beginning(artifact: Path, crystal: Structure, kind: Callable[[Atoms], Any], **bounds: Any) -> Any:
    atoms = Atoms(crystal.symbols, crystal.positions, cell=crystal.box, pbc=True)
    atoms.calc = EquistrideCalculator(artifact)
    spread = np.sqrt(units.kB * 300 * atoms.get_masses())[:, None]
    atoms.set_momenta(spread * np.random.default_rng(5).normal(size=(len(atoms), 3)))
    made = kind(atoms)
    watch(made, **bounds)
    return made


@pytest.mark.parametrize("kind", [verlet, langevin, generator])
def test_a_step_that_fails_changes_nothing(artifact64: Path, crystal: Structure, kind: Callable[[Atoms], Any]) -> None:
    """A NaN momentum and an atom that flies away; then both runs go on with the same bits."""
    unbroken, broken = (beginning(artifact64, crystal, kind) for _ in range(2))
    for made in (unbroken, broken):
        made.run(2)
    atoms = broken.atoms
    momenta = atoms.get_momenta()
    for bad in (np.nan, 1e300):
        wrong = momenta.copy()
        wrong[3] = bad
        atoms.set_momenta(wrong)
        positions = atoms.positions.copy()
        with pytest.raises(EquistrideError, match=r"atom|finite|box"):
            broken.run(3)
        assert np.array_equal(atoms.positions, positions)
        assert np.array_equal(atoms.get_momenta(), wrong, equal_nan=True)
        assert broken.nsteps == 2
    atoms.set_momenta(momenta)
    for made in (unbroken, broken):
        made.run(3)
    assert np.array_equal(unbroken.atoms.positions, atoms.positions)
    assert np.array_equal(unbroken.atoms.get_momenta(), atoms.get_momenta())


BOUNDS = {
    "max_force": (1e-6, r"the force on atom \d+ is .* eV/A; expected at most 1e-06 eV/A"),
    "max_temperature": (10.0, "the temperature is .* K; expected at most 10 K"),
    "min_distance": (2.0, r"atoms \d+ and \d+ are nearer than 2 A; expected 2 A or more"),
}


@pytest.mark.parametrize("bound", BOUNDS)
def test_bounds_stop_a_run_and_its_frame_is_kept(
    artifact64: Path, crystal: Structure, tmp_path: Path, bound: str
) -> None:
    value, said = BOUNDS[bound]
    file = tmp_path / "broken.xyz"
    made = beginning(artifact64, crystal, verlet, **{bound: value}, broken_frame=file)
    positions, momenta = made.atoms.positions.copy(), made.atoms.get_momenta()
    with pytest.raises(EquistrideError, match=said + f".*{bound}.*; its frame is in {file}"):
        made.run(1)
    assert np.array_equal(made.atoms.positions, positions)
    assert np.array_equal(made.atoms.get_momenta(), momenta)
    frame = ase.io.read(file, format="extxyz")
    assert frame.get_chemical_symbols() == crystal.symbols
    assert not np.allclose(frame.positions, positions, atol=1e-6), "the frame is that of the error"
    assert bound in frame.info["error"]
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("bound", BOUNDS)
def test_bounds_that_warn(artifact64: Path, crystal: Structure, bound: str) -> None:
    value, said = BOUNDS[bound]
    told, plain = (beginning(artifact64, crystal, verlet, **b) for b in ({bound: value, "on_bound": "warn"}, {}))
    with pytest.warns(Notice, match=said + ".*told once") as notices:
        told.run(3)
    assert sum(issubclass(n.category, Notice) for n in notices) == 1
    plain.run(3)
    assert np.array_equal(told.atoms.positions, plain.atoms.positions)


def test_strides(propagator64: Path) -> None:
    """A bound that a stride breaks takes the thermostat's noise back too."""

    def moving(**bounds: Any) -> TrajCastDynamics:
        atoms = bulk()
        made = TrajCastDynamics(atoms, propagator64, thermostat="langevin", seed=3)
        made.set_temperature(300)
        watch(made, **bounds)
        return made

    unbroken, broken = moving(), moving(max_temperature=1.0)
    before = broken.atoms.positions.copy()
    with pytest.raises(EquistrideError, match="the temperature is"):
        broken.run(1)
    assert np.array_equal(broken.atoms.positions, before)
    del broken.step  # nobody watches any longer
    for made in (unbroken, broken):
        made.run(3)
    assert np.array_equal(unbroken.atoms.positions, broken.atoms.positions)
    with pytest.raises(EquistrideError, match="the atoms have no calculator"):
        watch(broken, max_force=10)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"max_force": -1}, "max_force is no bound; expected a number, 0"),
        ({"min_distance": np.nan}, "min_distance is no bound"),
        ({"max_temperature": "hot"}, "max_temperature is no bound"),
        ({"on_bound": "shout"}, "on_bound is not known; expected stop or warn; found shout"),
    ],
)
def test_refusals(artifact64: Path, crystal: Structure, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(EquistrideError, match=said):
        beginning(artifact64, crystal, verlet, **wrong)
    made = beginning(artifact64, crystal, verlet)
    with pytest.raises(EquistrideError, match="watched already"):
        watch(made)
