"""Fixes and computes of LAMMPS that change atoms, or ask for energies in their own way: ``pair_style equistride`` beside
LAMMPS's own pair style of the same energy, with the same seeds, takes and refuses the same and prints the same numbers."""

from __future__ import annotations

from pathlib import Path

import lammps_runs as lmp
import lennard_jones
import numpy as np
import pytest

ATOMIC, CHARGED, MOLECULAR = "atomic", "charge", "bond"


def start(style: str = ATOMIC, triclinic: bool = False, before: str = "") -> str:
    """Return 64 atoms of two elements in motion, at 600 K, in a box of 12.8 A."""
    shape = "prism 0 4 0 4 0 4 1 0 0" if triclinic else "block 0 4 0 4 0 4"
    extra = "extra/bond/per/atom 4 extra/special/per/atom 8" if style == MOLECULAR else ""
    bonds = f"bond/types 1 {extra}" if style == MOLECULAR else ""
    return (
        f"units metal\natom_style {style}\natom_modify map yes\nboundary p p p\nlattice sc 3.2\nregion b {shape}\n"
        f"create_box 3 b {bonds}\n{before}create_atoms 1 region b\nset group all type/ratio 2 0.5 41\n"
        "displace_atoms all random 0.2 0.2 0.2 7\nmass 1 15.999\nmass 2 28.085\nmass 3 1.008\n"
        "velocity all create 600 9 loop geom\ntimestep 0.001\nthermo 2\n"
    )


def table(columns: str, first: str = "atoms pe press") -> str:
    return f"thermo_style custom step {first} {columns}\nthermo_modify format float %.17g norm no lost error\n"


def counts(name: str, *places: int) -> str:
    return " ".join(f"f_{name}[{k}]" for k in places)


NVE = "fix n all nve\n"
MONTE_CARLO = {
    "gcmc": start(triclinic=True) + NVE + "group ox type 1\n"
    "fix x ox gcmc 2 20 10 1 4711 600 -0.4 0.3 full_energy group ox overlap_cutoff 1.0\n"
    + table(counts("x", *range(1, 9)))
    + "run 4\nrun 4\n",
    "widom": start()
    + NVE
    + "fix x all widom 2 20 1 4711 600 full_energy\n"
    + table(counts("x", 1, 2, 3))
    + "run 4\nrun 2\n",
    "atom/swap": start()
    + NVE
    + "fix x all atom/swap 2 20 4711 600 ke no types 1 2\n"
    + table(counts("x", 1, 2))
    + "run 6\n",
    "semi-grand": start(triclinic=True)
    + NVE
    + "fix x all atom/swap 2 20 4711 600 semi-grand yes types 1 2 mu 0.0 0.02\n"
    + table(counts("x", 1, 2))
    + "run 6\n",
    "mol/swap": start(MOLECULAR) + NVE + "variable m atom ceil(id/4)\nset group all mol v_m\nspecial_bonds lj 1 1 1\n"
    "fix x all mol/swap 2 20 1 2 4711 600\n" + table(counts("x", 1, 2)) + "run 6\n",
    "charge/regulation": start(CHARGED) + NVE + "set type 1 charge 1\nset type 2 charge -1\n"
    "fix x all charge/regulation 1 2 nevery 2 nmc 20 seed 4711 temp 600 lunit_nm 0.1 pIp -1.3 pIm -1.3 onlysalt yes 1 -1\n"
    + table(counts("x", 1, 2, 7, 8))
    + "run 4\nrun 4\n",
    "hmc": start() + NVE + "timestep 0.024\nfix x all hmc 2 4711 600\n" + table(counts("x", 1, 2)) + "run 8\n",
    "tfmc": start() + "fix x all tfmc 0.1 600 4711\n" + table("") + "run 6\n",
}
TEMPLATES = {
    "pre": "pre\n\n2 atoms\n\nTypes\n\n1 1\n2 2\n",
    "post": "post\n\n2 atoms\n1 bonds\n\nTypes\n\n1 3\n2 2\n\nBonds\n\n1 1 1 2\n",
    "map": "map\n\n2 equivalences\n\nInitiatorIDs\n\n1\n2\n\nEquivalences\n\n1 1\n2 2\n",
}
CHANGES = {
    "deposit": start()
    + NVE
    + "region top block 0 4 0 4 2 4\nfix x all deposit 5 3 2 4711 region top near 1.2 attempt 100 units box\n"
    + table("")
    + "run 8\n",
    "evaporate": start()
    + NVE
    + "region top block 0 4 0 4 2 4\nfix x all evaporate 2 3 top 4711\n"
    + table("f_x")
    + "run 8\n",
    "between runs": start() + NVE + table("") + "run 2\ndelete_atoms random count 5 yes all NULL 7\nrun 2\n"
    "create_atoms 3 single 1.7 1.6 1.5\nset type 1 type/subset 2 5 11\nrun 2\n"
    "neigh_modify every 50 delay 0 check no\natom_modify sort 1 3.0\nrun 4\nreset_atoms id\nreplicate 1 1 2\nrun 2\n",
    "bond/react": start(MOLECULAR)
    + NVE
    + "bond_style zero\nbond_coeff *\nspecial_bonds lj 1 1 1\nmolecule pre pre.txt\nmolecule post post.txt\n"
    "fix x all bond/react react r all 2 0.5 3.0 pre post map.txt\n" + table("f_x[1] bonds") + "run 6\n",
    "absent": start()
    + NVE
    + "region r block 0 2 0 4 0 4\ngroup g region r\nneigh_modify exclude group g all\n"
    + table("")
    + "run 6\nneigh_modify exclude none\nrun 2\n",
}
ASKED = {
    "stress and heat": start(triclinic=True) + NVE + "compute k all ke/atom\ncompute p all pe/atom\n"
    "compute s all stress/atom NULL virial\ncompute c all centroid/stress/atom NULL virial\n"
    "compute h all heat/flux k p s\ncompute hc all heat/flux k p c\ncompute m all reduce max c_s[1] c_s[4] c_c[9] c_p\n"
    + table("c_h[*] c_hc[*] c_m[*] pxx pxy pyz")
    + "run 4\n",
    "numdiff": start(triclinic=True) + NVE + "fix x all numdiff 2 1e-4\nfix y all numdiff/virial 2 1e-4\n"
    "compute m all reduce max f_x[1] f_x[2] f_x[3]\n" + table("c_m[*] f_y[*]") + "run 4\n",
    "minimize": start() + NVE + table("fmax") + "minimize 0 1e-3 20 100\n",
    "respa": start() + "run_style respa 2 2 bond 1 pair 2\n" + NVE + table("") + "run 4\n",
    "balance": start() + "comm_style tiled\n" + NVE + "fix b all balance 2 1.0 rcb\n" + table("") + "run 6\n",
    "born": start(triclinic=True)
    + "compute v all pressure NULL virial\ncompute x all born/matrix numdiff 1e-4 v\n"
    + table("c_x[*]")
    + "run 0\n",
}
JOBS = MONTE_CARLO | CHANGES | ASKED


@pytest.fixture(scope="module", autouse=True)
def _plugin() -> None:
    lmp.require_plugin()


def tables(log: str) -> dict[str, list[list[float]]]:
    """Return the numbers of all tables after each line ``JOB name``."""
    found: dict[str, list[list[float]]] = {}
    rows: list[list[float]] = []
    inside = False
    for line in log.splitlines():
        words = line.split()
        if words[:1] == ["JOB"]:
            rows = found.setdefault(" ".join(words[1:]), [])
        elif words[:1] == ["Step"]:
            inside = True
        elif words[:2] == ["Loop", "time"]:
            inside = False
        elif inside and words and words[0].isdigit():
            rows.append([float(word) for word in words])
    return found


def equistride(folder: Path) -> str:
    """Return the artifact as a pair style."""
    path = lennard_jones.write(folder / "lj.pt")
    return f"pair_style equistride\npair_coeff * * {path} {' '.join(lennard_jones.SPECIES)}\n"


def all_jobs(pair: str, folder: Path, ranks: int) -> dict[str, list[list[float]]]:
    """Run them one after the other."""
    folder.mkdir()
    for name, text in TEMPLATES.items():
        (folder / f"{name}.txt").write_text(text)
    text = "".join(f'clear\nprint "JOB {name}"\n' + job.replace("fix n", pair + "fix n", 1) if "fix n" in job else
                   f'clear\nprint "JOB {name}"\n' + job.replace("thermo_style", pair + "thermo_style", 1)
                   for name, job in JOBS.items())  # fmt: skip
    done = lmp.launch(text, folder, ranks)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return tables((folder / "log.lammps").read_text())


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], dict[str, list[list[float]]]]:
    """The tables of each pair style on one process and on two."""
    folder = tmp_path_factory.mktemp("jobs")
    pairs = {
        "ours": equistride(folder),
        "LAMMPS": lennard_jones.lammps_pair(),
    }
    return {
        (name, ranks): all_jobs(pair, folder / f"{name}{ranks}", ranks)
        for name, pair in pairs.items()
        for ranks in (1, 2)
    }


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("job", JOBS)
def test_the_same_as_lammps(both: dict[tuple[str, int], dict[str, list[list[float]]]], job: str, ranks: int) -> None:
    """Counts of atoms and acceptances, energies and pressures, at each line: rounding alone may differ."""
    ours, theirs = np.array(both["ours", ranks][job]), np.array(both["LAMMPS", ranks][job])
    assert len(theirs) >= 1
    scale = np.abs(theirs).max(0) + 1e-9
    np.testing.assert_allclose(ours / scale, theirs / scale, atol=1e-7)
    if job in MONTE_CARLO and job != "tfmc":
        assert theirs[-1][4:].max() > 0, "nothing was tried"


def test_molecules_come_and_go(tmp_path: Path) -> None:
    """``fix gcmc mol``: a molecule that is tried away has no energy, nor has its inside, which ``intra_energy`` gives back.

    LAMMPS's own potential leaves the inside out by special_bonds; nothing vibrates, so that the counts are the same.
    """
    x6 = (lennard_jones.SIGMA[0] / 2.4) ** 6
    inside = 4.0 * lennard_jones.EPSILON[0] * (x6 * x6 - x6)
    template = (
        "two\n\n2 atoms\n1 bonds\n\nCoords\n\n1 0 0 0\n2 2.4 0 0\n\nTypes\n\n1 1\n2 1\n\nBonds\n\n1 1 1 2\n"
        "\nSpecial Bond Counts\n\n1 1 0 0\n2 1 0 0\n\nSpecial Bonds\n\n1 2\n2 1\n"
    )
    (tmp_path / "two.txt").write_text(template)
    half = start(MOLECULAR).replace("create_atoms 1 region b", "region h block 0 4 0 4 0 2\ncreate_atoms 1 region h")
    found = {}
    for name, pair, energy in (("ours", equistride(tmp_path), inside), ("LAMMPS", lennard_jones.lammps_pair(), 0.0)):
        text = (
            f"{half}{pair}bond_style zero\nbond_coeff *\nspecial_bonds lj 0 1 1\nmolecule two two.txt\ngroup gas empty\n"
            f"fix x gas gcmc 1 10 5 0 4711 600 -0.5 0.3 mol two full_energy overlap_cutoff 1.0 intra_energy {energy:.17g}\n"
            f'print "JOB {name}"\n{table(counts("x", *range(1, 9)), "atoms")}run 40\n'
        )
        done = lmp.launch(text, tmp_path)
        assert done.returncode == 0, done.stdout[-2000:]
        found |= tables((tmp_path / "log.lammps").read_text())
    assert found["ours"] == found["LAMMPS"]
    assert found["ours"][-1][5] > 3  # insertions and deletions that were accepted
    assert found["ours"][-1][7] > 3
