"""What a LAMMPS input may say beside ``pair_style equistride`` and ``fix equistride/propagate``: used, told, or refused in one
sentence. Each row of the section LAMMPS in docs/inputs.md is here or in the other tests of LAMMPS."""

from __future__ import annotations

from pathlib import Path

import lammps_runs as lmp
import lennard_jones
import numpy as np
import pytest
import toy_propagator
from lammps_runs import crystal
from random_models import random_potential, write_artifact
from test_lammps_beside_lj import start, tables

from equistride import artifact
from equistride.importers.fairchem import import_fairchem

FAIRCHEM = Path(__file__).resolve().parents[1] / "data" / "fairchem"
ELEMENTS = " ".join(lennard_jones.SPECIES)
LJ = lennard_jones.lammps_pair()


@pytest.fixture(scope="module", autouse=True)
def _plugin() -> None:
    lmp.require_plugin()


@pytest.fixture(scope="module")
def potential(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lennard_jones.write(tmp_path_factory.mktemp("lj") / "lj.pt")


def ours(path: Path, words: str = "", elements: str = ELEMENTS) -> str:
    return f"pair_style equistride {words}\npair_coeff * * {path} {elements}\n"


def energies(texts: list[str], folder: Path, ranks: int = 1) -> tuple[list[float], str]:
    """Run inputs one after the other; return the last potential energy of each, and the output."""
    ending = "thermo_style custom step pe\nthermo_modify format float %.17g\nrun 0\n"
    done = lmp.launch("".join(f'clear\nprint "JOB {k}"\n{text}{ending}' for k, text in enumerate(texts)), folder, ranks)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    found = tables((folder / "log.lammps").read_text())
    return [found[str(k)][-1][1] for k in range(len(texts))], done.stdout


@pytest.mark.parametrize("ranks", [1, 2])
def test_atoms_kept_from_all_others_are_not_there(tmp_path: Path, ranks: int) -> None:
    """A message-passing potential with references: the energy of the rest, as if they had been deleted; and it is told."""
    path = write_artifact(random_potential(), tmp_path / "random.pt", "float64")
    model = ours(path, elements="O Si O")
    group = "group g id 3 17 18 40\n"
    texts = [
        start() + group + model + "neigh_modify exclude group g all\n",
        start() + group + model + "delete_atoms group g compress no\n",
        start() + group + model,
    ]
    (kept, deleted, whole), said = energies(texts, tmp_path, ranks)
    assert kept == pytest.approx(deleted, rel=1e-12)
    assert abs(whole - kept) > 1.0
    assert said.count("the model does not see the atoms that `neigh_modify exclude` keeps from all others") == 1


def test_several_pair_styles(potential: Path, tmp_path: Path) -> None:
    """Sums, scaled sums and types that are not seen, as LAMMPS's own potential of the same energy has them."""
    lj = f"lj/cut {lennard_jones.CUTOFF}"
    own = [line.split() for line in LJ.splitlines()[1:]]

    def coefficients(name: str, types: tuple[str, ...] = ("1", "2", "3")) -> str:
        return "".join(
            f"pair_coeff {' '.join(w[1:3])} {name} {' '.join(w[3:])}\n" for w in own if {*w[1:3]} <= {*types}
        )

    theirs = start() + LJ
    newton = (
        start(before="newton off\n")
        .replace("units metal\n", "units metal\nnewton off\n")
        .replace("newton off\ncreate", "create")
    )
    mixed = (
        "pair_style hybrid {0} "
        + lj
        + "\n{1}"
        + "".join(f"pair_coeff {' '.join(w[1:3])} lj/cut {' '.join(w[3:])}\n" for w in own if "2" in w[1:3])
    )
    first = f"pair_coeff * * equistride {potential}"
    texts = [
        theirs,
        newton + ours(potential),
        start() + f"pair_style hybrid/overlay equistride {lj}\n{first} {ELEMENTS}\n" + coefficients("lj/cut"),
        start() + f"pair_style hybrid/scaled 0.5 equistride 0.25 {lj}\n{first} {ELEMENTS}\n" + coefficients("lj/cut"),
        start() + mixed.format("equistride", f"{first} O NULL H\n"),
        start()
        + f"pair_style hybrid/overlay equistride equistride\n{first.replace('equistride', 'equistride 1', 1)} {ELEMENTS}\n"
        f"{first.replace('equistride', 'equistride 2', 1)} {ELEMENTS}\n",
        start("charge") + "set type 1 charge 0.5\n" + ours(potential),
    ]
    (true, *found), said = energies(texts, tmp_path)
    np.testing.assert_allclose(found, true * np.array([1, 2, 0.75, 1, 2, 1]), rtol=1e-12)
    assert said.count("the model does not see the charges of atoms") == 1


TOLD = {
    "special_bonds": (
        start("bond") + "bond_style zero\nbond_coeff *\ncreate_bonds single/bond 1 1 2\n",
        "",
        "the model sees all pairs, whatever special_bonds says",
    ),
    "mass": (start() + "mass 2 12.0\n", "", "atom type 2 is Si to the model, but its mass, 12 amu, is that of O"),
    "heat flux": (
        start() + "compute k all ke/atom\ncompute p all pe/atom\ncompute s all stress/atom NULL virial\n"
        "compute h all heat/flux k p s\n",
        "",
        "use `compute centroid/stress/atom`",
    ),
    "gcmc": (
        start() + "fix x all gcmc 2 1 1 1 4711 600 -0.4 0.3 full_energy group all\n",
        "",
        "compare energies of different compositions",
    ),
}


def test_told(potential: Path, tmp_path: Path) -> None:
    """One sentence each; none where nothing is odd."""
    _, said = energies([text + ours(potential, words) for text, words, _ in TOLD.values()], tmp_path)
    for name, (_, _, sentence) in TOLD.items():
        assert said.count(sentence) == 1, name
    assert "WARNING: the model" not in energies([start() + ours(potential)], tmp_path)[1]


REFUSED = {
    "keyword": (
        "",
        "skin 2",
        "the keyword skin is not known; expected one of device, ghost, precision, uncertainty_threshold, "
        "min_distance, on_bound, charge, spin, check",
    ),
    "twice": ("", "check on check off", "the keyword check is there twice; give it once"),
    "no value": ("", "check on device", "the keyword device has no value"),
    "charge": ("", "charge 1", "the model knows no charge and no spin"),
    "bound": ("", "min_distance -1", "a value of min_distance is wrong; expected a number from 0 on; found -1"),
    "far": ("", "min_distance 99", "min_distance is as far as the model sees; expected less than its cutoff"),
    "no bound": ("", "on_bound warn", "`on_bound` is that of `min_distance` and `uncertainty_threshold`"),
    "answer": ("", "min_distance 1 on_bound shout", "the value of on_bound is not known; expected one of stop, warn"),
    "types": ("neigh_modify exclude type 1 2\n", "", "cannot leave out pairs; take out `neigh_modify exclude`"),
    "groups": (
        "group g id 1:9\nneigh_modify exclude group g g\n",
        "",
        "cannot leave out pairs; take out `neigh_modify exclude`",
    ),
    "include": (
        "group g id 1:9\natom_modify first g\nneigh_modify include g\n",
        "",
        "take out `atom_modify first`, `neigh_modify include`",
    ),
    "local strain": (
        "fix x all numdiff/virial 1 1e-4\n",
        "ghost local",
        "of which `ghost local` has none; use `ghost exchange`",
    ),
    "respa": ("run_style respa 2 2 inner 1 4.0 5.0 outer 2\n", "", "does not support rRESPA inner/middle/outer"),
    "null": ("", "NULL", "atom type 2 has no element (NULL); expected one of"),
}


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("case", REFUSED)
def test_refused(potential: Path, tmp_path: Path, case: str, ranks: int) -> None:
    """Before the first step."""
    before, words, sentence = REFUSED[case]
    elements = "O NULL H" if words == "NULL" else ELEMENTS
    text = start() + before + ours(potential, words.replace("NULL", ""), elements) + "run 0\n"
    assert sentence in lmp.refused(text, tmp_path, ranks)


def test_pairs_given_to_another_style(potential: Path, tmp_path: Path) -> None:
    """``hybrid`` with the pair of two seen types in another style, which the model would compute too."""
    text = (
        start() + f"pair_style hybrid equistride lj/cut 4.0\npair_coeff * * equistride {potential} {ELEMENTS}\n"
        "pair_coeff 1 2 lj/cut 0.01 2.0\nrun 0\n"
    )
    said = lmp.refused(text, tmp_path)
    assert "pair_coeff gives the pair of atom types 1 and 2 to another style" in said


def test_newton_off_and_dimensions(potential: Path, tmp_path: Path) -> None:
    """Forces on ghosts must be sent home; atoms have three coordinates."""
    newton = start().replace("units metal\n", "units metal\nnewton off\n") + ours(potential) + "run 0\n"
    assert "expected `newton on`; found `newton off`" in lmp.refused(newton, tmp_path, 2)
    flat = "dimension 2\n" + start().replace("0 4 0 4 0 4", "0 4 0 4 -0.1 0.1").replace("lattice sc", "lattice sq")
    flat = flat.replace("random 0.2 0.2 0.2", "random 0.2 0.2 0.0").replace("units metal\n", "units metal\n")
    assert "expected `dimension 3`" in lmp.refused(flat + ours(potential) + "run 0\n", tmp_path)


PROPAGATOR = {
    "gcmc": (
        "fix x all gcmc 2 1 1 1 4711 600 -0.4 0.3 full_energy group all\n",
        "",
        "fix x (gcmc) goes by energies, and a stride knows none",
    ),
    "exclude": ("group g id 1:9\nneigh_modify exclude group g all\n", "", "a stride moves all atoms, also those that"),
    "respa": ("run_style respa 2 2 pair 1\n", "", "a stride needs `run_style verlet`"),
    "twice": ("", "seed 1 seed 2", "the keyword seed is there twice; give it once"),
    "minimize": ("", "minimize", "so that `minimize` moves nothing"),
}


@pytest.mark.parametrize("case", PROPAGATOR)
def test_refused_with_a_propagator(tmp_path: Path, case: str) -> None:
    """What goes by energies or forces, which a stride has not."""
    before, words, sentence = PROPAGATOR[case]
    path = toy_propagator.write_propagator(tmp_path / "p.pt")
    text = (
        start() + f"{before}timestep {toy_propagator.STRIDE / 1000}\n"
        f"fix p all equistride/propagate {path} O Si H {words.replace('minimize', '')}\n"
    )
    assert sentence in lmp.refused(text + ("minimize 0 0 1 1\n" if words == "minimize" else "run 1\n"), tmp_path)


def test_told_with_a_propagator(tmp_path: Path) -> None:
    """Forces that move nothing, and energies that are none."""
    path = toy_propagator.write_propagator(tmp_path / "p.pt")
    text = (
        start()
        + f"timestep {toy_propagator.STRIDE / 1000}\nfix p all equistride/propagate {path} O Si H\nrun 1\n"
        + LJ
        + "run 1\n"
    )
    done = lmp.launch(text, tmp_path)
    assert done.returncode == 0, done.stdout[-2000:]
    assert done.stdout.count("a stride knows no energy: `pe` and `press` in the output are kinetic") == 1
    assert done.stdout.count("a stride knows no forces: those of the pair style move no atom") == 1


def test_total_charge(tmp_path: Path) -> None:
    """The energy is that of the model itself at this charge and multiplicity, and the log has both."""
    path = tmp_path / "omol.pt"
    import_fairchem(FAIRCHEM / "L2M2_omol.pt", path, dtype="float64")
    atoms = crystal()
    lmp.write_data(atoms, tmp_path / "data.lmp")
    texts = [
        lmp.head(f"equistride {words}", f"* * {path} Si O") + "thermo_modify norm no\n"
        for words in ("", "charge 1 spin 2")
    ]
    (neutral, charged), said = energies(texts, tmp_path)
    model = artifact.load(path, charge=1, spin=2)
    species = model.species_index(atoms.get_chemical_symbols())
    true = float(model.compute(atoms.positions, species, atoms.cell.array, atoms.pbc).atomic_energies.sum())
    assert charged == pytest.approx(true, rel=1e-12)
    assert abs(neutral - charged) > 1e-6
    assert "total charge 1 e, spin multiplicity 2" in said
    assert "total charge 0 e" in said
    assert "the charge is out of range" in lmp.refused(texts[1].replace("charge 1", "charge 0.5") + "run 0\n", tmp_path)
