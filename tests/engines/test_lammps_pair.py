"""``pair_style equistride``: the same numbers as the model itself, however the atoms are divided."""

from __future__ import annotations

import re
from pathlib import Path

import lammps_runs as lmp
import numpy as np
import pytest
import torch
from ase import Atoms
from lammps_runs import crystal, once
from numpy.typing import NDArray
from random_models import random_potential, write_artifact

from equistride import artifact
from equistride.artifact.ensemble import combine
from equistride.models.esen_fused import fuse
from equistride.models.potential import ConservativePotential
from equistride.units import EV_PER_ANGSTROM3_IN_BAR

Array = NDArray[np.float64]
BAR = EV_PER_ANGSTROM3_IN_BAR

# LAMMPS's kT and ours are the same at rest: pressures below are the virial's alone.


@pytest.fixture(scope="module", autouse=True)
def _plugin() -> None:
    lmp.require_plugin()


def expected(path: Path, atoms: Atoms) -> artifact.Outputs:
    """Evaluate the artifact itself."""
    model = artifact.load(path, dtype=torch.float64)
    return model.compute(
        atoms.positions, model.species_index(atoms.get_chemical_symbols()), atoms.cell.array, atoms.pbc
    )


def pressure(frame: lmp.Frame) -> Array:
    """Return the pressure tensor [3, 3] in bar."""
    t = frame.thermo[-1]
    xx, yy, zz, xy, xz, yz = (t[k] for k in ("Pxx", "Pyy", "Pzz", "Pxy", "Pxz", "Pyz"))
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


@pytest.mark.parametrize(
    ("ranks", "ghosts"), [(1, "auto"), (1, "exchange"), (1, "wide"), (2, "auto"), (2, "wide"), (4, "exchange")]
)
def test_agrees_with_the_model(random_artifact64: Path, tmp_path: Path, ranks: int, ghosts: str) -> None:
    """Energies to 1e-12 relative, forces to 1e-10 eV/A, pressure likewise."""
    atoms = crystal()
    found, true = once(random_artifact64, atoms, tmp_path, f"ghost {ghosts}", ranks), expected(random_artifact64, atoms)
    assert found.energies == pytest.approx(true.atomic_energies.numpy(), rel=1e-12)
    assert found.thermo[-1]["PotEng"] == pytest.approx(float(true.atomic_energies.sum()), rel=1e-12)
    np.testing.assert_allclose(found.forces, true.forces.numpy(), atol=1e-10)
    virial = true.virial.numpy() / atoms.get_volume() * BAR
    np.testing.assert_allclose(pressure(found), virial, atol=1e-9 * np.abs(virial).max())
    assert "atom type 1: Si" in found.log


@pytest.mark.parametrize(("ranks", "ghosts"), [(1, "exchange"), (2, "exchange"), (2, "wide")])
def test_a_network_in_one_operator(tmp_path: Path, ranks: int, ghosts: str) -> None:
    """Features go between processes inside of it, forward and backward; in double precision, to see that to rounding."""
    made, atoms = random_potential(), crystal()
    served = ConservativePotential(fuse(made.network, 1e-3), made.species, made.cutoff, made.scale, made.references)
    assert served.network.one_operator
    path = write_artifact(served, tmp_path / "one.pt", "float64")
    found, true = once(path, atoms, tmp_path, f"ghost {ghosts}", ranks), expected(path, atoms)
    assert found.energies == pytest.approx(true.atomic_energies.numpy(), rel=1e-12)
    np.testing.assert_allclose(found.forces, true.forces.numpy(), atol=1e-10)


def test_ranks_without_atoms(random_artifact64: Path, tmp_path: Path) -> None:
    """Where all atoms lie in one half, the other rank still takes part."""
    atoms = crystal()
    atoms = atoms[atoms.get_scaled_positions()[:, 0] < 0.45]
    atoms.cell[0] *= 2.0
    found = once(random_artifact64, atoms, tmp_path, "ghost exchange", 4, "")
    true = expected(random_artifact64, atoms)
    assert found.thermo[-1]["PotEng"] == pytest.approx(float(true.atomic_energies.sum()), rel=1e-12)
    np.testing.assert_allclose(found.forces, true.forces.numpy(), atol=1e-10)


def test_pressure_is_the_slope_of_the_energy(random_artifact64: Path, tmp_path: Path) -> None:
    """P = -dE/dV by a fourth-order difference in the volume, to 1e-6."""
    atoms = crystal()
    measured = once(random_artifact64, atoms, tmp_path / "0", "", 2).thermo[-1]["Press"]
    energy = {}
    for step in (-2, -1, 1, 2):
        scaled = atoms.copy()
        scaled.set_cell(atoms.cell * (1 + 1e-3 * step) ** (1 / 3), scale_atoms=True)
        energy[step] = once(random_artifact64, scaled, tmp_path / str(step)).thermo[-1]["PotEng"]
    slope = (8 * (energy[1] - energy[-1]) - (energy[2] - energy[-2])) / (12e-3 * atoms.get_volume())
    assert measured == pytest.approx(-slope * BAR, rel=1e-6)


def test_stress_of_atoms_adds_up(random_artifact64: Path, tmp_path: Path) -> None:
    """Six and nine components: the sum over the atoms is the pressure times the volume, on two ranks."""
    extra = (
        "compute s all stress/atom NULL virial\ncompute c all centroid/stress/atom NULL virial\n"
        "compute s6 all reduce sum c_s[1] c_s[2] c_s[3] c_s[4] c_s[5] c_s[6]\n"
        "compute s9 all reduce sum c_c[1] c_c[2] c_c[3] c_c[4] c_c[5] c_c[6] c_c[7] c_c[8] c_c[9]\n"
        "thermo_style custom step pe press pxx pyy pzz pxy pxz pyz vol c_s6[*] c_s9[*]\n"
        "thermo_modify format float %.17g norm no\n"
    )
    found = once(random_artifact64, crystal(), tmp_path, "", 2, extra)
    t, total = found.thermo[-1], pressure(found) * found.thermo[-1]["Volume"]
    order = [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2), (1, 0), (2, 0), (2, 1)]
    scale = np.abs(total).max()
    for k, (a, b) in enumerate(order):
        if k < 6:
            assert -t[f"c_s6[{k + 1}]"] == pytest.approx(total[a, b], abs=1e-9 * scale)
        assert -t[f"c_s9[{k + 1}]"] == pytest.approx(total[a, b], abs=1e-9 * scale)


def test_real_units(random_artifact64: Path, tmp_path: Path) -> None:
    """kcal/mol instead of eV."""
    atoms = crystal()
    script = lmp.head("equistride precision float64", f"* * {random_artifact64} Si O", "real") + lmp.OUTPUT + "run 0\n"
    found, true = lmp.run(atoms, script, tmp_path), expected(random_artifact64, atoms)
    factor = 96.48533212331 / 4.184
    assert found.thermo[-1]["PotEng"] == pytest.approx(factor * float(true.atomic_energies.sum()), rel=1e-10)
    np.testing.assert_allclose(found.forces, factor * true.forces.numpy(), rtol=1e-9, atol=1e-9)


def test_overlay_adds_its_forces(random_artifact64: Path, tmp_path: Path) -> None:
    """Under hybrid/overlay with ZBL the energies and forces are the sums."""
    atoms = crystal()
    both = lmp.head(
        "hybrid/overlay equistride precision float64 zbl 2.0 3.0",
        f"* * equistride {random_artifact64} Si O\npair_coeff 1 1 zbl 14 14\npair_coeff 1 2 zbl 14 8\npair_coeff 2 2 zbl 8 8",
    )
    alone = lmp.head("zbl 2.0 3.0", "1 1 14 14\npair_coeff 1 2 14 8\npair_coeff 2 2 8 8")
    sum_ = lmp.run(atoms, both + lmp.OUTPUT + "run 0\n", tmp_path / "both", 2)
    zbl = lmp.run(atoms, alone + lmp.OUTPUT + "run 0\n", tmp_path / "zbl")
    true = expected(random_artifact64, atoms)
    total = float(true.atomic_energies.sum()) + zbl.thermo[-1]["PotEng"]
    assert sum_.thermo[-1]["PotEng"] == pytest.approx(total, rel=1e-11)
    np.testing.assert_allclose(sum_.forces, true.forces.numpy() + zbl.forces, atol=1e-9)


def test_dynamics_on_two_ranks_follows_one(random_artifact64: Path, tmp_path: Path) -> None:
    """Hot atoms migrate between ranks; 30 steps stay together, and a restart goes on from the middle."""
    atoms = crystal()
    start = (
        lmp.head("equistride precision float64", f"* * {random_artifact64} Si O")
        + "timestep 0.0005\nvelocity all create 2000 7 mom yes rot no dist gaussian loop geom\nfix n all nve\n"
    )
    one = lmp.run(atoms, start + lmp.OUTPUT + "run 30\n", tmp_path / "one")
    two = lmp.run(atoms, start + lmp.OUTPUT + "run 15\nwrite_restart half.restart\nrun 15\n", tmp_path / "two", 2)
    np.testing.assert_allclose(two.positions, one.positions, atol=1e-9)
    again = (
        "read_restart half.restart\nfix n all nve\nthermo_style custom step pe press\n"
        "thermo_modify format float %.17g\n" + lmp.OUTPUT + "run 15\n"
    )
    done = lmp.launch(again, tmp_path / "two", 2)
    assert done.returncode == 0, done.stdout[-2000:]
    resumed = lmp.read(tmp_path / "two", len(atoms))
    np.testing.assert_allclose(resumed.positions, two.positions, atol=1e-9)


def test_minimise_rerun_and_barostat(random_artifact64: Path, tmp_path: Path) -> None:
    """What a potential must serve: minimise lowers the energy, a rerun repeats it, fix npt runs."""
    script = (
        lmp.head("equistride precision float64", f"* * {random_artifact64} Si O")
        + "minimize 0 1e-3 5 20\nreset_timestep 0\nvelocity all create 300 7\ntimestep 0.0005\n"
        "fix p all npt temp 300 300 0.05 tri 0 0 0.5\ndump out all custom 1 out.dump id type x y z\n"
        'dump_modify out sort id format float "%.17g"\nthermo 1\nrun 3\nunfix p\nundump out\n'
        "rerun out.dump dump x y z box yes replace yes\n"
    )
    lmp.write_data(crystal(), tmp_path / "data.lmp")
    done = lmp.launch(script, tmp_path, 2)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-1000:]
    tables = (tmp_path / "log.lammps").read_text().split("Step ")[1:]
    energies = [[float(line.split()[1]) for line in table.splitlines()[1:] if line.split()[:1] and line.split()[0].isdigit()]
                for table in tables]  # fmt: skip
    assert energies[0][-1] < energies[0][0]
    np.testing.assert_allclose(energies[2], energies[1], rtol=1e-11)


REFUSALS = [
    ("units real-ish", "units lj", "expected metal or real"),
    ("unknown element", "Si Xx", "does not know the element Xx"),
    ("missing element", "Si", "the number of elements in pair_coeff is wrong"),
    ("missing file", "nowhere.pt Si O", "cannot be read"),
    ("keyword", "equistride skin 2", "the keyword skin is not known"),
    ("exclusion", "neigh_modify exclude type 1 2", "cannot leave out pairs; take out `neigh_modify exclude`"),
]


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize(("case", "change", "sentence"), REFUSALS, ids=[case for case, _, _ in REFUSALS])
def test_refusals(random_artifact64: Path, tmp_path: Path, ranks: int, case: str, change: str, sentence: str) -> None:
    """A sentence and a status that is not 0, soon."""
    del case
    script = lmp.head("equistride", f"* * {random_artifact64} Si O") + "run 0\n"
    if change.startswith("units"):
        script = script.replace("units metal", change)
    elif change.startswith("equistride"):
        script = script.replace("pair_style equistride", f"pair_style {change}")
    elif change.startswith("neigh"):
        script = script.replace("run 0", f"{change}\nrun 0")
    elif change.startswith("nowhere"):
        script = script.replace(f"{random_artifact64} Si O", change)
    else:
        script = script.replace("Si O", change)
    lmp.write_data(crystal(), tmp_path / "data.lmp")
    assert sentence in lmp.refused(script, tmp_path, ranks)


def test_mixed_up_elements_are_noticed(random_artifact64: Path, tmp_path: Path) -> None:
    """A warning, as masses may be set at will; none where the order is right, nor for heavy hydrogen's like."""
    atoms = crystal()
    wrong = lmp.head("equistride", f"* * {random_artifact64} O Si") + lmp.OUTPUT + "run 0\n"
    assert (
        "atom type 1 is O to the model, but its mass, 28.085 amu, is that of Si" in lmp.run(atoms, wrong, tmp_path).log
    )
    for change in ("", "mass 2 17.99916\n"):
        assert "is that of" not in once(random_artifact64, atoms, tmp_path / "right", extra=change).log


def test_a_style_that_is_given_again_and_a_restart_from_elsewhere(random_artifact64: Path, tmp_path: Path) -> None:
    """New options hold for the model that was given before; a restart whose model is not found wants pair_coeff again."""
    atoms = crystal()
    exact = once(random_artifact64, atoms, tmp_path / "exact").thermo[-1]["PotEng"]
    local = tmp_path / "run" / "local.pt"
    local.parent.mkdir()
    local.write_bytes(random_artifact64.read_bytes())
    first = lmp.head("equistride precision float32", "* * local.pt Si O") + "run 0\nwrite_restart a.restart\n"
    again = lmp.run(atoms, first + "pair_style equistride precision float64\n" + lmp.OUTPUT + "run 0\n", local.parent)
    rounded, double = (row["PotEng"] for row in (again.thermo[0], again.thermo[-1]))
    assert double == pytest.approx(exact, rel=1e-12)
    assert 1e-12 < abs(rounded - exact) < 1e-3
    there = tmp_path / "there"
    there.mkdir()
    (there / "a.restart").write_bytes((local.parent / "a.restart").read_bytes())
    head = "atom_modify map yes\nread_restart a.restart\nthermo_modify format float %.17g norm no\n"
    assert "All pair coeffs are not set" in lmp.refused(head + "run 0\n", there)
    named = (
        head + f"pair_coeff * * {random_artifact64} Si O\nthermo_style custom step pe\nthermo_modify norm no\nrun 0\n"
    )
    done = lmp.launch(named, there)
    assert done.returncode == 0, done.stdout
    assert (
        "the restart file's model was not read; give pair_coeff again: the model file local.pt cannot be read"
        in done.stdout
    )


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("velocity all set v_bad v_bad v_bad", r"the position of atom \d+ is not finite"),
        ("set atom 5 z v_bad", "Non-numeric atom coords"),  # LAMMPS sees to it itself
    ],
    ids=["velocity", "position"],
)
def test_a_nan_start_ends_the_run(
    random_artifact64: Path, tmp_path: Path, ranks: int, what: str, sentence: str
) -> None:
    """Velocities or a position that are no numbers: a sentence, and no rank hangs."""
    script = (
        lmp.head("equistride", f"* * {random_artifact64} Si O")
        + f"fix n all nve\nvariable bad atom exp(1000)-exp(1000)+0*id\n{what}\nrun 5\n"
    )
    lmp.write_data(crystal(), tmp_path / "data.lmp")
    said = lmp.refused(script, tmp_path, ranks)
    assert re.search(sentence, said)


@pytest.mark.parametrize("ranks", [1, 2])
def test_lost_atoms_end_the_run(random_artifact64: Path, tmp_path: Path, ranks: int) -> None:
    """Atoms fly out of a box that is open at the top; LAMMPS counts them and all ranks stop."""
    script = (
        lmp.head("equistride", f"* * {random_artifact64} Si O")
        + "change_box all boundary p p f\nfix n all nve\nvelocity all set 0 0 500\ntimestep 0.001\nthermo 1\nrun 50\n"
    )
    lmp.write_data(crystal(), tmp_path / "data.lmp")
    assert "Lost atoms: original 72 current" in lmp.refused(script, tmp_path, ranks)


@pytest.fixture(scope="module")
def unsure(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two potentials of random weights, which disagree about everything."""
    folder = tmp_path_factory.mktemp("unsure")
    members = [write_artifact(random_potential(seed), folder / f"{seed}.pt", "float64") for seed in (0, 1)]
    combine(members, folder / "ensemble.pt")
    return folder / "ensemble.pt"


@pytest.mark.parametrize(
    ("ranks", "bound", "sentence"),
    [
        (1, "min_distance 2", r"atoms \d+ and \d+ are 1\.\d+ A apart; expected min_distance, 2 A, or more"),
        (2, "min_distance 2", r"atoms \d+ and \d+ are 1\.\d+ A apart; expected min_distance, 2 A, or more"),
        (
            1,
            "uncertainty_threshold 1e-6",
            r"disagree about the force on atom \d+; expected at most 1e-06 eV/A; found \d",
        ),
    ],
)
def test_bounds_stop_or_warn(unsure: Path, tmp_path: Path, ranks: int, bound: str, sentence: str) -> None:
    """Quartz has bonds of 1.6 A. What is told changes no number."""
    style = lmp.head(f"equistride precision float64 {bound}", f"* * {unsure} Si O")
    atoms = crystal()
    lmp.write_data(atoms, tmp_path / "data.lmp")
    assert re.search(sentence, lmp.refused(style + "run 0\n", tmp_path, ranks))
    warned = style.replace(bound, f"{bound} on_bound warn") + "fix n all nve\n" + lmp.OUTPUT + "run 3\n"
    told = lmp.run(atoms, warned, tmp_path / "told", ranks)
    assert 1 <= len(re.findall(sentence + ".*; told once", told.log)) <= ranks
    plain = lmp.run(atoms, warned.replace(f"{bound} on_bound warn", ""), tmp_path / "plain", ranks)
    assert np.array_equal(told.forces, plain.forces)
    assert "told once" not in plain.log


def test_lammps_watches_forces_and_temperature(repository: Path, random_artifact64: Path, tmp_path: Path) -> None:
    """As docs/lammps.md has it, but at every step. A cold crystal breaks neither bound."""
    page = (repository / "docs" / "lammps.md").read_text()
    watch = "".join(re.findall(r"^(?:variable .*equal|fix .*halt) .*\n", page, re.MULTILINE))
    watch = watch.replace("halt 10", "halt 1")
    assert watch.count("\n") == 4
    style = lmp.head("equistride precision float64", f"* * {random_artifact64} Si O") + "fix n all nve\n"
    lmp.run(crystal(), style + watch + lmp.OUTPUT + "run 2\n", tmp_path / "calm")
    lmp.write_data(crystal(), tmp_path / "data.lmp")
    hot, low = watch + "velocity all create 9000 1\n", watch.replace("> 50.0", "> 0.001")
    for fix, broken in (("cold", hot), ("calm", low)):
        assert f"Fix halt condition for fix-id {fix}" in lmp.refused(style + broken + "run 5\n", tmp_path)


@pytest.mark.parametrize("ranks", [1, 2])
def test_another_lammps_is_refused(
    random_artifact64: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ranks: int
) -> None:
    """A plugin that says it was built for an earlier update: a sentence, no styles, no crash."""
    from equistride.lammps import plugin_directory
    from equistride.lammps.host import installed_host

    version = installed_host().version.encode()
    library = (Path(plugin_directory()) / "equistrideplugin.so").read_bytes()
    assert version in library
    folder = tmp_path / "other"
    folder.mkdir()
    for file in Path(plugin_directory()).parent.glob("*.so"):
        (tmp_path / file.name).symlink_to(file)  # where the plugin looks for them
    (folder / "equistrideplugin.so").write_bytes(library.replace(version, version[:-1] + b"0"))
    monkeypatch.setenv("LAMMPS_PLUGIN_PATH", str(folder))
    lmp.write_data(crystal(), tmp_path / "data.lmp")
    monkeypatch.setattr(lmp, "LMP", [str(Path(installed_host().headers).parents[1] / "lmp")])
    monkeypatch.setenv("LD_LIBRARY_PATH", str(installed_host().mpi_headers.parent / "lib"))
    script = lmp.head("equistride", f"* * {random_artifact64} Si O") + "run 0\n"
    said = lmp.refused(script, tmp_path, ranks)
    assert "it was built for another LAMMPS" in said
