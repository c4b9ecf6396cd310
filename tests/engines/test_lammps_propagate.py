"""``fix equistride/propagate``: strides in LAMMPS, however the atoms are divided."""

from __future__ import annotations

import re
from pathlib import Path

import lammps_runs as lmp
import numpy as np
import pytest
import torch
import toy_propagator
import trajcast_systems as systems
from ase import Atoms
from numpy.typing import NDArray

from equistride import artifact
from equistride.artifact.propagators import save_propagator
from equistride.data.quartz import quartz

Array = NDArray[np.float64]
STRIDE = 2.0  # fs
MASSES = [15.999, 28.085]  # amu, O and Si as the models have them


@pytest.fixture(scope="module", autouse=True)
def _plugin() -> None:
    lmp.require_plugin()


@pytest.fixture(scope="module")
def propagator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A propagator of random weights that takes small steps."""
    made = systems.propagator(cutoff=3.5, num_layers=2, max_speed=0.2)
    made.species, made.masses, made.stride_fs = ["O", "Si"], MASSES, STRIDE
    path = tmp_path_factory.mktemp("propagator") / "random.pt"
    for _ in range(2):  # then speeds are thermal, so that a guard can mend them
        save_propagator(made, path, dtype="float64", periodic=False)
        atoms = crystal()
        first, after = expected(path, atoms, 0), expected(path, atoms, 1)
        made.rms_displacement *= 5e-3 / float(np.std(after[0] - first[0]))
        made.rms_velocity *= 3.0 / float(np.std(after[1] - after[1].mean(0)))
    return path


def crystal(repeats: tuple[int, int, int] = (2, 2, 2)) -> Atoms:
    """Quartz in motion, with a net momentum; velocities in A/ps."""
    atoms = quartz(repeats)
    atoms.set_cell(atoms.cell.standard_form()[0], scale_atoms=True)
    atoms.info["velocities"] = np.random.default_rng(4).normal(0.3, 3.0, (len(atoms), 3))
    return atoms


def script(path: Path, strides: int, options: str = "", stride: float = STRIDE, before: str = "") -> str:
    """Return an input with the fix."""
    return (
        "units metal\natom_style atomic\nboundary p p p\nread_data data.lmp\n"
        f"mass 1 {MASSES[1]}\nmass 2 {MASSES[0]}\ntimestep {stride / 1000}\n{before}"
        f"fix p all equistride/propagate {path} Si O {options}\n"
        "dump out all custom 1 out.dump id xu yu zu vx vy vz fx fy fz id\n"
        f'dump_modify out sort id format float "%.17g"\nrun {strides}\n'
    )


def expected(path: Path, atoms: Atoms, strides: int) -> tuple[Array, Array]:
    """Return positions and velocities [N, 3] (A, A/ps) after so many strides of the model itself."""
    model = artifact.load(path, dtype=torch.float64)
    species = model.species_index(atoms.get_chemical_symbols())
    x, v = torch.tensor(atoms.positions), torch.tensor(atoms.info["velocities"] / 1000)
    for _ in range(strides):
        out = model.propagate(x, v, species, atoms.cell.array, atoms.pbc)
        x, v = x + out.displacements, out.velocities
    return x.numpy(), v.numpy() * 1000


@pytest.mark.parametrize(
    ("ranks", "ghosts"), [(1, "auto"), (1, "exchange"), (1, "wide"), (2, "auto"), (2, "wide"), (4, "auto")]
)
def test_strides_are_those_of_the_model(propagator: Path, tmp_path: Path, ranks: int, ghosts: str) -> None:
    """Ten strides, positions to 1e-9 A, velocities likewise, and the momentum stays."""
    atoms = crystal()
    found = lmp.run(atoms, script(propagator, 10, f"ghost {ghosts}"), tmp_path, ranks)
    x, v = expected(propagator, atoms, 10)
    np.testing.assert_allclose(found.positions, x, atol=1e-9)
    np.testing.assert_allclose(found.velocities, v, atol=1e-9)
    masses = np.where(atoms.numbers == 14, MASSES[1], MASSES[0])[:, None]
    before, after = (masses * atoms.info["velocities"]).sum(0), (masses * found.velocities).sum(0)
    np.testing.assert_allclose(after, before, rtol=1e-12)


def test_the_thermostat_is_the_same_on_two_ranks(propagator: Path, tmp_path: Path) -> None:
    """One seed, one trajectory; a restart goes on with the same random numbers."""
    atoms, options = crystal(), "temp 300 300 0.005 seed 5"
    one = lmp.run(atoms, script(propagator, 8, options), tmp_path / "one")
    two = lmp.run(atoms, script(propagator, 8, options), tmp_path / "two", 2)
    np.testing.assert_allclose(two.positions, one.positions, atol=1e-9)
    free = lmp.run(atoms, script(propagator, 8), tmp_path / "free")
    rescaled = lmp.run(atoms, script(propagator, 8, options + " friction 0"), tmp_path / "rescaled")
    for other in (free, rescaled):
        assert np.abs(other.velocities - one.velocities).max() > 1e-3
    half = script(propagator, 4, options) + "write_restart half.restart\n"
    lmp.run(atoms, half, tmp_path / "half", 2)
    again = script(propagator, 4, options).replace("read_data data.lmp", "read_restart half.restart")
    resumed = lmp.run(atoms, again, tmp_path / "half", 2)
    np.testing.assert_allclose(resumed.positions, one.positions, atol=1e-9)


def test_the_guard_keeps_the_energy(propagator: Path, random_artifact64: Path, tmp_path: Path) -> None:
    """Each stride's energy change is taken back by the velocities; one rank and two agree."""
    atoms = crystal()
    options = f"guard {random_artifact64} 1"
    one = lmp.run(
        atoms, script(propagator, 3, options + "\nthermo_style custom step f_p[1] f_p[2] f_p[3]"), tmp_path / "a"
    )
    two = lmp.run(atoms, script(propagator, 3, options), tmp_path / "b", 2)
    np.testing.assert_allclose(two.velocities, one.velocities, atol=1e-8)
    assert one.thermo[-1]["f_p[1]"] == 3
    model = artifact.load(random_artifact64, dtype=torch.float64)
    species = model.species_index(atoms.get_chemical_symbols())
    masses = np.where(atoms.numbers == 14, MASSES[1], MASSES[0])[:, None]

    def total(x: Array, v: Array) -> float:
        out = model.compute(x, species, atoms.cell.array, atoms.pbc)
        return float(out.atomic_energies.sum()) + 0.5 * float((masses * v**2).sum()) * 1.0364269656262e-4

    assert total(one.positions, one.velocities) == pytest.approx(
        total(atoms.positions, atoms.info["velocities"]), abs=1e-7
    )


REFUSALS = [
    ("time step", {"stride": 1.0}, "", "the time step is not the model's stride"),
    ("masses", {"before": "mass 1 30.0\n"}, "", "the mass of atom type 1"),
    ("integrator", {"before": "fix n all nve\n"}, "", "moves the atoms too"),
    ("units", {}, "units metal=units lj", "expected metal or real"),
    ("group", {}, "fix p all=group g id 1:9\nfix p g", "expected the group all"),
    ("element", {}, "Si O=Si Xx", "does not know the element Xx"),
    (
        "forces",
        {"before": "fix f all langevin 600 600 0.1 1\n"},
        "",
        "fix f (langevin) acts on forces, and a stride knows",
    ),
    (
        "reset",
        {"before": "fix r all dt/reset 1 1e-5 1 0.001 units box\n"},
        "",
        "the time step is not the model's stride",
    ),
    ("friction", {"options": "friction 1"}, "", "`friction` is the thermostat's, and there is none; add `temp`"),
    ("bound", {"options": "bound 1"}, "", "`bound` is the guard's, and there is none; add `guard`"),
    ("seed", {"options": "seed 1e30"}, "", "expected a whole number up to 9"),
]


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize(("case", "words", "change", "sentence"), REFUSALS, ids=[case[0] for case in REFUSALS])
def test_refusals(
    propagator: Path, tmp_path: Path, ranks: int, case: str, words: dict[str, object], change: str, sentence: str
) -> None:
    """A sentence and a status that is not 0."""
    del case
    text = script(propagator, 5, **words)  # type: ignore[arg-type]
    if change:
        old, new = change.split("=")
        assert old in text
        text = text.replace(old, new)
    lmp.write_data(crystal(), tmp_path / "data.lmp")
    assert sentence in lmp.refused(text, tmp_path, ranks)


def test_atoms_without_ids(propagator: Path, tmp_path: Path) -> None:
    """Noise is drawn by ID."""
    box = "atom_modify id no\nregion b block 0 12 0 12 0 12\ncreate_box 2 b\ncreate_atoms 1 random 20 1 b overlap 2.2\n"
    text = script(propagator, 1, before="velocity all create 300 1 loop geom\n").replace("read_data data.lmp\n", box)
    assert "atoms without IDs would all meet the same noise" in lmp.refused(text, tmp_path)


def test_a_folder_is_no_model(propagator: Path, tmp_path: Path) -> None:
    """On two ranks, which wait for what the first reads."""
    lmp.write_data(crystal(), tmp_path / "data.lmp")
    assert "cannot be read; expected a file of `equistride export`" in lmp.refused(script(tmp_path, 1), tmp_path, 2)
    pair = lmp.head("equistride", f"* * {tmp_path} Si O") + "run 0\n"
    assert "cannot be read; expected a file of `equistride export`" in lmp.refused(pair, tmp_path, 2)


def test_load_may_be_balanced(propagator: Path, tmp_path: Path) -> None:
    """``fix balance`` moves borders between processes, not the box."""
    atoms = crystal()
    balanced = script(propagator, 4, before="fix b all balance 2 1.0 shift z 5 1.0\n")
    one = lmp.run(atoms, script(propagator, 4), tmp_path / "one")
    two = lmp.run(atoms, balanced, tmp_path / "two", 2)
    np.testing.assert_allclose(two.positions, one.positions, atol=1e-9)


def test_a_stride_that_throws_atoms_ends_the_run(propagator: Path, tmp_path: Path) -> None:
    """A network far outside its training data: a sentence in the same stride, and no atom leaves the box."""
    wild = artifact.load(propagator)
    assert wild.metadata.max_speed == 0.2
    atoms = crystal()
    path = toy_propagator.write_propagator(tmp_path / "wild.pt", factor=1e9, free=True)
    lmp.write_data(atoms, tmp_path / "data.lmp")
    text = script(path, 1).replace(f"timestep {STRIDE / 1000}", f"timestep {toy_propagator.STRIDE / 1000}")
    said = lmp.refused(text, tmp_path)
    assert re.search(
        r"atom \d+ would leave the stride at \S+ m/s; expected at most 40000 m/s; the structure is too far", said
    )


def test_kinds_are_not_mixed_up(propagator: Path, random_artifact64: Path, tmp_path: Path) -> None:
    """A potential is no propagator, and the other way round."""
    lmp.write_data(crystal(), tmp_path / "data.lmp")
    assert "expected a propagator" in lmp.refused(script(random_artifact64, 1), tmp_path, 2)
    wrong = lmp.head("equistride", f"* * {propagator} Si O") + "run 0\n"
    assert "expected a potential" in lmp.refused(wrong, tmp_path, 2)


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_nan_start_and_lost_atoms_end_the_run(propagator: Path, tmp_path: Path, ranks: int) -> None:
    """Velocities that are no numbers, and atoms that leave a box that is open at the top."""
    lmp.write_data(crystal(), tmp_path / "data.lmp")
    bad = "variable bad atom exp(1000)-exp(1000)+0*id\nvelocity all set v_bad v_bad v_bad\n"
    said = lmp.refused(script(propagator, 3, before=bad), tmp_path, ranks)
    assert re.search(r"the velocity of atom \d+ is not finite", said)
    fast = "change_box all boundary p p f\nvelocity all set 0 0 150 sum yes\nthermo 1\n"
    assert "Lost atoms: original 72 current" in lmp.refused(script(propagator, 50, before=fast), tmp_path, ranks)
