"""One run in LAMMPS and in OpenMM: thermostats, guard, open systems, restarts, on any number of processes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lammps_runs as lmp
import numpy as np
import pytest
import torch
import toy_artifact
import toy_propagator
from ase import Atoms
from numpy.typing import NDArray
from openmm import Context
from propagated import angular_momentum, context_of, masses_of, moving
from torch import Tensor
from toy_metadata import toy_metadata
from toy_propagator import MAX_SPEED, STRIDE

from equistride.artifact.export import save
from equistride.engines.barostat import Barostat
from equistride.engines.guard import Guard, GuardStatistics
from equistride.engines.openmm import TrajCastIntegrator

Array = NDArray[np.float64]
COUNTS = ["checks", "violations", "largest_change", "strides", "corrected", "rejected", "refused", "evaluations"]


@pytest.fixture(scope="module", autouse=True)
def _plugin() -> None:
    lmp.require_plugin()


@pytest.fixture(scope="module")
def flight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_propagator.write_flight(tmp_path_factory.mktemp("toy") / "flight.pt")


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_propagator.write_flight(tmp_path_factory.mktemp("toy") / "spoilt.pt", factor=1.05)


@pytest.fixture(scope="module")
def potential(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_artifact.write(tmp_path_factory.mktemp("toy") / "potential.pt", dtype="float64")


def bulk() -> Atoms:
    """36 atoms in an orthorhombic box."""
    grid = np.array([[x, y, z] for x in range(4) for y in range(3) for z in range(3)], float)
    positions = 2.0 * grid + np.random.default_rng(2).normal(1.0, 0.05, grid.shape)
    symbols = ["Si" if site.sum() % 2 else "O" for site in grid]
    return Atoms(symbols, positions=positions, cell=[8.0, 6.0, 6.0], pbc=True)


def molecule() -> Atoms:
    """14 atoms without a box, which LAMMPS has in the middle of a large one."""
    made = bulk()[:14]
    made.pbc = False
    made.positions += 10.0 - made.positions.mean(0)
    made.set_cell([20.0, 20.0, 20.0])
    return made


class Both:
    """A run of OpenMM, and the same in LAMMPS."""

    def __init__(self, artifact: Path, atoms: Atoms, folder: Path, **options: Any) -> None:
        free = atoms.copy()
        if not free.pbc.any():
            free.set_cell(None)
        self.artifact, self.atoms, self.folder = artifact, atoms.copy(), folder
        self.made: Context = context_of(artifact, free, **options)
        self.start()

    def set_velocities(self, velocities: Array) -> None:
        """Begin with these [N, 3] (A/fs) less their momentum, which OpenMM's System would take out."""
        masses = masses_of(self.made)
        self.made.setVelocities((velocities - (masses * velocities).sum(0) / masses.sum()) * 100)
        self.start()

    def start(self) -> None:
        """LAMMPS begins where OpenMM is now."""
        now = moving(self.made)
        self.atoms.positions[:] = now.positions
        self.atoms.info["velocities"] = now.velocities * 1000

    def script(self, strides: int, options: str) -> str:
        boundary = "p p p" if self.atoms.pbc.any() else "f f f"
        return (
            f"units metal\natom_style atomic\nboundary {boundary}\nread_data data.lmp\n"
            f"mass 1 28.085\nmass 2 15.999\ntimestep {STRIDE / 1000}\n"
            f"fix p all equistride/propagate {self.artifact} Si O {options}\n"
            "dump out all custom 1 out.dump id xu yu zu vx vy vz fx fy fz id\n"
            'dump_modify out sort id format float "%.17g"\n'
            f"thermo_style custom step {' '.join(f'f_p[{k}]' for k in range(1, 15))} lx ly lz xy xz yz\n"
            f"thermo_modify format float %.17g\nrun {strides}\n"
        )

    def compare(self, strides: int, options: str, ranks: int, tolerance: float = 1e-10) -> lmp.Frame:
        """Run both, and compare positions (A) and velocities (A/ps)."""
        self.made.getIntegrator().step(strides)
        found = lmp.run(self.atoms, self.script(strides, options), self.folder, ranks)
        end = moving(self.made)
        np.testing.assert_allclose(found.positions, end.positions, atol=tolerance, rtol=0)
        np.testing.assert_allclose(found.velocities, end.velocities * 1000, atol=1e3 * tolerance, rtol=0)
        return found

    @property
    def statistics(self) -> GuardStatistics:
        return TrajCastIntegrator.cast(self.made.getIntegrator()).getGuardStatistics()


THERMOSTATS = {
    "csvr": ("thermostat csvr", {"tau": 0.01}),
    "langevin": ("thermostat langevin", {"tau": 0.01}),
    "langevin+csvr": ("friction 5", {"tau": 0.01, "friction": 5.0}),
}


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("kind", THERMOSTATS)
def test_one_seed_one_trajectory(flight: Path, tmp_path: Path, kind: str, ranks: int) -> None:
    """100 strides of each thermostat, by noise and rescaling of one seed (25 where four processes share few cores)."""
    words, options = THERMOSTATS[kind]
    strides = 25 if ranks == 4 and kind != "langevin+csvr" else 100
    both = Both(flight, bulk(), tmp_path, thermostat=kind, temperature=350, seed=7, **options)
    start = both.atoms.positions.copy()
    found = both.compare(strides, f"temp 350 350 0.01 seed 7 {words}", ranks)
    assert np.abs(found.positions - start).max() > 0.003 * strides


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_an_open_molecule_keeps_its_angular_momentum(flight: Path, tmp_path: Path, ranks: int) -> None:
    """Also under thermostats, and where some processes have no atoms; that of the start is not zero."""
    both = Both(flight, molecule(), tmp_path, thermostat="langevin+csvr", seed=3, tau=0.01)
    spun = moving(both.made)
    arms = spun.positions - spun.positions.mean(0)
    both.set_velocities(spun.velocities + np.cross([1e-4, -2e-4, 3e-4], arms))
    masses = masses_of(both.made)
    before = angular_momentum(moving(both.made), masses)
    found = both.compare(40, "temp 300 300 0.01 seed 3", ranks)
    end = moving(both.made)._replace(positions=found.positions, velocities=found.velocities / 1000)
    np.testing.assert_allclose(angular_momentum(end, masses), before, rtol=1e-9)
    assert np.abs(before).min() > 0.01


@pytest.mark.parametrize(
    ("axes", "skew", "ranks"),
    [("xyz", 0.0, 1), ("xyz", 1.5, 2), ("xy,z", 1.5, 1), ("xy,z", 0.0, 2), ("x,y,z", 0.0, 1), ("x,y,z", 1.5, 4)],
)
def test_a_barostat_moves_one_box(
    flight: Path, potential: Path, tmp_path: Path, axes: Any, skew: float, ranks: int
) -> None:
    """Moves of the box along one axis and several are those of OpenMM, and so are the atoms, unwrapped."""
    atoms = bulk()
    atoms.set_cell([[8, 0, 0], [skew, 6, 0], [0.5 * skew, -skew, 6]], scale_atoms=True)
    guard, barostat = Guard(potential, every=3, bound=math.inf), Barostat(20000.0, every=2, axes=axes)
    both = Both(flight, atoms, tmp_path, seed=7, tau=0.01, guard=guard, barostat=barostat)
    words = f"temp 300 300 0.01 seed 7 guard {potential} 3 bound none press 20000 2 axes {axes}"
    found = both.compare(24, words, ranks).thermo[-1]
    box = moving(both.made).box
    names, entries = ("Lx", "Ly", "Lz", "Xy", "Xz", "Yz"), ((0, 1, 2, 1, 2, 2), (0, 1, 2, 0, 0, 1))
    np.testing.assert_allclose([found[name] for name in names], box[entries], rtol=1e-12, atol=1e-12)
    strain = np.diag(box) / np.diag(atoms.cell.array) - 1
    assert np.abs(strain).max() > 1e-3
    assert np.ptp(strain[:2]) < 1e-12 or axes == "x,y,z"
    done = TrajCastIntegrator.cast(both.made.getIntegrator()).getBarostatStatistics()
    assert (found["f_p[13]"], found["f_p[14]"]) == (done.moves, done.taken) == (12, done.taken)
    assert done.taken > 0


GUARDS = {
    "correct": ("bound 1e-4", {"bound": 0.1}),
    "reject": ("bound 1e-4 mode reject substep 0.5", {"bound": 0.1, "mode": "reject", "substep": 0.5}),
    "midpoint": ("bound 0 mode midpoint", {"bound": 0.0, "mode": "midpoint"}),
    "rescale": ("bound none rescale yes", {"bound": math.inf, "rescale": True}),
}


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("mode", GUARDS)
def test_guards(spoilt: Path, potential: Path, tmp_path: Path, mode: str, ranks: int) -> None:
    """Each mode repairs what it repairs in OpenMM, counts alike, and takes over a stride that the network refuses."""
    words, options = GUARDS[mode]
    both = Both(spoilt, bulk(), tmp_path, thermostat=None, guard=Guard(potential, every=2, **options))
    velocities = moving(both.made).velocities.copy()
    velocities[0] *= 1.01 * MAX_SPEED / np.linalg.norm(velocities[0])
    both.set_velocities(velocities)
    found = both.compare(6, f"guard {potential} 2 {words}", ranks, tolerance=1e-9)
    theirs = both.statistics
    assert theirs.refused >= 1
    assert mode == "rescale" or theirs.violations >= 1
    for k, name in enumerate(COUNTS, 1):
        value = getattr(theirs, name) / (1000 if name == "largest_change" else 1)
        assert found.thermo[-1][f"f_p[{k}]"] == pytest.approx(value, rel=1e-6), name


@pytest.mark.parametrize(
    "words",
    [
        "temp 300 300 0.01 seed 5",
        "",
        "temp 300 500 0.02 thermostat langevin",
        "temp 300 300 0.01 press 20000 2 axes x,y,z",
    ],
)
def test_a_restart_repeats_every_bit(spoilt: Path, potential: Path, tmp_path: Path, words: str) -> None:
    """Positions, velocities and statistics; the guard keeps the energy of the start. Two runs are one."""
    both = Both(spoilt, bulk(), tmp_path, thermostat=None)
    text = both.script(10, f"{words} guard {potential} 2 bound 0.01 rescale yes")
    if "500" in words:  # the temperature is that of the whole run
        text = text.replace("run 10", "run 10 start 0 stop 10")
    whole = lmp.run(both.atoms, text, tmp_path / "whole")
    first = text.replace("run 10", "run 3") + text[text.index("run 10") :].replace("run 10", "run 3")
    lmp.run(both.atoms, first + "write_restart half.restart\n", tmp_path / "half")
    again = text.replace("read_data data.lmp", "read_restart half.restart").replace("run 10", "run 4")
    resumed = lmp.run(both.atoms, again, tmp_path / "half")
    assert np.array_equal(resumed.positions, whole.positions)
    assert np.array_equal(resumed.velocities, whole.velocities)
    assert [resumed.thermo[-1][f"f_p[{k}]"] for k in (*range(1, 8), 13, 14)] == [
        whole.thermo[-1][f"f_p[{k}]"] for k in (*range(1, 8), 13, 14)
    ]
    assert whole.thermo[-1]["f_p[4]"] == 10
    other = again.replace(" rescale yes", "").replace(f"guard {potential} 2 bound 0.01", "")
    said = "add `guard`" if "press" in words else "one of them has a guard"
    assert said in lmp.refused(other, tmp_path / "half")


def test_velocities_from_outside_make_a_new_start(spoilt: Path, potential: Path, tmp_path: Path) -> None:
    """The energy that rescaling keeps is that of the velocities which the input set last."""
    both = Both(spoilt, bulk(), tmp_path, thermostat=None)
    text = both.script(5, f"guard {potential} 1 bound none rescale yes")
    once = lmp.run(both.atoms, text, tmp_path / "once")
    hot = "compute t all temp\nvelocity all scale 900 temp t\nrun 5\n"
    twice = lmp.run(both.atoms, text + hot, tmp_path / "twice")
    kinetic = [float((run.velocities**2).sum()) for run in (once, twice)]
    assert kinetic[1] > 1.5 * kinetic[0]


class EnergyAlone(toy_artifact.PairPotential):
    """The toy potential with a gradient that is not finite in systems larger than that of the self-test."""

    def atomic_energies(self, vectors: Tensor, species: Tensor, edge_index: Tensor) -> Tensor:
        """Return energies [N]."""
        r = torch.linalg.vector_norm(vectors, dim=1)
        i, j = species[edge_index[0]], species[edge_index[1]]
        x = r / self.cutoff
        envelope = torch.where(x < 1.0, 1.0 - 10.0 * x**3 + 15.0 * x**4 - 6.0 * x**5, torch.zeros_like(x))
        stretch = torch.exp(-1.8 * (r - self.radius[i] - self.radius[j]))
        pair = 0.5 * torch.sqrt(self.depth[i] * self.depth[j]) * (stretch * stretch - 2.0 * stretch) * envelope
        if species.size(0) > 20:
            pair = pair + torch.sqrt(0.0 * r)
        return torch.zeros(species.size(0), dtype=vectors.dtype).index_add(0, edge_index[0], pair)


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_guard_that_corrects_asks_for_energies_alone(
    spoilt: Path, potential: Path, tmp_path: Path, ranks: int
) -> None:
    """A potential whose gradient would end the run."""
    metadata = toy_metadata(toy_artifact.SPECIES, toy_artifact.CUTOFF)
    save(EnergyAlone(toy_artifact.CUTOFF, torch.float64), metadata, tmp_path / "energy.pt")
    both = Both(spoilt, bulk(), tmp_path, thermostat=None, guard=Guard(potential, every=1, bound=0.1))
    both.compare(3, f"guard {tmp_path / 'energy.pt'} 1 bound 1e-4", ranks, tolerance=1e-9)
    assert both.statistics.corrected == 3


REFUSALS = {
    "pressure without a guard": ("temp 300 300 0.01 press 1 10", "by a temperature; add `guard`"),
    "pressure without a thermostat": ("guard {p} 1 press 1 10", "by a temperature; add `temp`"),
    "axes without a pressure": (
        "guard {p} 1 temp 300 300 0.01 axes xyz",
        "`axes` is the barostat's, and there is none",
    ),
    "axes": ("guard {p} 1 temp 300 300 0.01 press 1 10 axes zyx", "axes of a barostat are not known"),
    "mode": ("guard {p} 1 mode mend", "the mode of a guard is not known"),
    "rescale": ("guard {p} 1 rescale maybe", "the value of rescale is not known; expected one of yes, no"),
    "substep": ("guard {p} 1 substep 0", "the substep of a guard makes no sense"),
    "nobody": ("mode reject", "`mode` is the guard's, and there is none; add `guard`"),
    "thermostat": ("temp 300 300 0.1 thermostat nose", "the value of thermostat is not known"),
    "friction": ("temp 300 300 0.1 thermostat csvr friction 1", "`friction` is that of langevin+csvr; found csvr"),
    "ghost": ("ghost near", "the value of ghost is not known; expected one of auto, local, wide, exchange"),
    "word": ("guards {p} 1", "the keyword guards is not known"),
    "guard": ("guard {a} 1", "a guard needs the energy of a potential; found a propagator"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(flight: Path, potential: Path, tmp_path: Path, case: str) -> None:
    """Words that are not known or do not go together."""
    words, sentence = REFUSALS[case]
    both = Both(flight, bulk(), tmp_path, thermostat=None)
    lmp.write_data(both.atoms, tmp_path / "data.lmp")
    assert sentence in lmp.refused(both.script(1, words.format(p=potential, a=flight)), tmp_path)
