"""What a trajectory accepts, and what the readers make of files."""

import ase
import ase.io
import ase.units
import numpy as np
import pytest
from ase import Atoms
from known_systems import STILL, TRICLINIC, gas, oscillators, shared_data
from mdtraj.formats import XTCTrajectoryFile

from equistride.data.frames import load
from equistride.errors import EquistrideError, Notice
from equistride.trajectories import Segment, Trajectory, read_state_csv, read_trajectory, segment_of, write_npz
from equistride.units import EV_PER_KJ_MOL

CRYSTAL = ["Si"] * 3 + ["O"] * 6


def test_a_trajectory_knows_itself():
    run = gas(9, 5, TRICLINIC, symbols=CRYSTAL)
    assert (run.frames, run.atoms, run.periodic, run.interval) == (5, 9, True, 1.0)
    assert run.elements == ("Si", "O")
    assert run.pairs == (("Si", "Si"), ("Si", "O"), ("O", "O"))
    assert run.formula == "Si3 O6"
    assert run.masses[0] == pytest.approx(28.085)
    assert run.cells.shape == (5, 3, 3)
    assert run.indices("O").tolist() == [3, 4, 5, 6, 7, 8]
    assert not gas(9, 5, TRICLINIC).velocities


def test_pieces_and_selection():
    run = oscillators([5.0], 4.0, 10, pieces=3)
    assert run.pieces() == [slice(0, 10), slice(10, 20), slice(20, 30)]
    assert run.interval == 4.0
    assert run.select(slice(5, 15)).pieces() == [slice(0, 5), slice(5, 10)]
    thin = run.thinned(4)
    assert thin.frames == 4
    assert thin.time[-1] == run.time[-1]
    assert len(thin.pieces()) == 4
    assert run.thinned(100) is run


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"positions": np.zeros((0, 2, 3))}, "positions is too short"),
        ({"positions": np.zeros((3, 0, 3))}, "holds no atoms"),
        ({"positions": np.zeros((3, 2))}, "positions has the wrong shape"),
        ({"positions": np.full((3, 2, 3), np.nan)}, "NaN or infinity"),
        ({"symbols": ("Ar",)}, "symbols and positions disagree"),
        ({"symbols": ("Ar", "Q1")}, "has elements that do not exist; found Q1"),
        ({"time": [0.0, 1.0]}, "time"),
        ({"time": [0.0, 1.0, 1.0]}, "grow by equal steps"),
        ({"time": [0.0, 1.0, 3.0]}, "grow by equal steps"),
        ({"cell": np.zeros((2, 3, 3))}, "cell has the wrong shape"),
        ({"velocities": np.zeros((3, 1, 3))}, "velocities has the wrong shape"),
        ({"masses": [1.0, 0.0]}, "masses must be positive"),
        ({"energies": [1.0, np.inf, 2.0]}, "energies holds NaN"),
    ],
)
def test_bad_trajectories(changes, words):
    good = {"positions": np.zeros((3, 2, 3)), "symbols": ("Ar", "Ar"), "time": [0.0, 1.0, 2.0], "cell": STILL}
    Trajectory(**good)
    with pytest.raises(EquistrideError, match=words):
        Trajectory(**(good | changes))


def test_one_frame_has_no_interval():
    with pytest.raises(EquistrideError, match="no two consecutive frames"):
        _ = gas(3, 1, TRICLINIC).interval


def test_npz_with_time_stamps_of_data_sets(tmp_path):
    """As ``equistride data`` writes them."""
    x = np.random.default_rng(1).normal(size=(4, 2, 3))
    np.savez(tmp_path / "run.npz", numbers=[8, 14], positions=x, time_fs=[0.0, 2.0, 4.0, 6.0], segment=[0, 0, 1, 1])
    back = read_trajectory(tmp_path / "run.npz")
    np.testing.assert_array_equal(back.time, [0.0, 2.0, 4.0, 6.0])


def test_npz_of_earlier_releases(tmp_path):
    """They wrote time and temperature; what is written now is what training reads."""
    old = {"numbers": [8, 14], "positions": np.random.default_rng(1).normal(size=(2, 2, 3))}
    np.savez(tmp_path / "run.npz", **old, time=[0.0, 2.0], temperature=[300.0, 310.0])
    run = read_trajectory(tmp_path / "run.npz")
    assert (run.time.tolist(), run.temperature.tolist()) == ([0.0, 2.0], [300.0, 310.0])
    (frames,) = load(write_npz(tmp_path / "new.npz", run), labelled=False)
    assert (frames.time_fs.tolist(), frames.temperature_K.tolist()) == ([0.0, 2.0], [300.0, 310.0])
    with np.load(tmp_path / "new.npz") as written:
        assert {"time_fs", "temperature_K"} <= set(written.files)
        assert not {"time", "temperature", "energy", "forces"} & set(written.files)


def test_npz_round_trip(tmp_path):
    run = oscillators([5.0], 4.0, 10, pieces=2)
    back = read_trajectory(write_npz(tmp_path / "run.npz", run))
    assert back.positions == pytest.approx(run.positions)
    assert back.velocities == pytest.approx(run.velocities)
    assert back.pieces() == run.pieces()
    assert back.name == "run"


def test_shared_arrays():
    run = read_trajectory(shared_data("reference/quartz72_vash1990_300K.npz"))
    assert (run.frames, run.formula, run.interval, len(run.pieces())) == (1100, "Si24 O48", 30.0, 100)


def test_extended_xyz(tmp_path):
    frames = []
    for k in range(4):
        atoms = ase.Atoms("OH2", positions=np.random.default_rng(k).random((3, 3)), cell=TRICLINIC, pbc=True)
        atoms.set_velocities(np.full((3, 3), 0.02) / ase.units.fs)
        atoms.info["time"] = 2.0 * k
        frames.append(atoms)
    ase.io.write(tmp_path / "water.extxyz", frames)
    run = read_trajectory(tmp_path / "water.extxyz")
    assert run.interval == 2.0
    assert run.cell[0] == pytest.approx(TRICLINIC)
    assert run.velocities == pytest.approx(np.full((4, 3, 3), 0.02), rel=1e-6)
    for atoms in frames:
        del atoms.info["time"]
    ase.io.write(tmp_path / "untimed.extxyz", frames)
    with pytest.raises(EquistrideError, match="does not tell the time"):
        read_trajectory(tmp_path / "untimed.extxyz")
    assert read_trajectory(tmp_path / "untimed.extxyz", interval=5.0).interval == 5.0


def test_dcd_and_xtc_of_openmm(tmp_path):
    """Units, cell and time survive OpenMM's own reporters."""
    openmm = pytest.importorskip("openmm")
    app = pytest.importorskip("openmm.app")
    from openmm import unit

    cell = np.array([[1.2, 0, 0], [-0.4, 1.1, 0], [0.3, 0.2, 1.0]])
    topology = app.Topology()
    residue = topology.addResidue("SIO", topology.addChain())
    for symbol in CRYSTAL:
        topology.addAtom(symbol, app.Element.getBySymbol(symbol), residue)
    topology.setPeriodicBoxVectors(cell * unit.nanometer)
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors(*(openmm.Vec3(*row) for row in cell))
    for symbol in CRYSTAL:
        system.addParticle(app.Element.getBySymbol(symbol).mass)
    simulation = app.Simulation(
        topology,
        system,
        openmm.VerletIntegrator(0.5 * unit.femtosecond),
        openmm.Platform.getPlatform("Reference"),
    )
    start = np.random.default_rng(0).random((9, 3))
    simulation.context.setPositions(start)
    simulation.context.setVelocities(np.full((9, 3), 1.0))
    simulation.reporters += [
        app.DCDReporter(str(tmp_path / "run.dcd"), 4, enforcePeriodicBox=False),
        app.XTCReporter(str(tmp_path / "run.xtc"), 4, enforcePeriodicBox=False),
        app.StateDataReporter(
            str(tmp_path / "run.csv"), 4, step=True, time=True, potentialEnergy=True, kineticEnergy=True,
            totalEnergy=True, temperature=True, speed=True,
        ),
    ]  # fmt: skip
    simulation.step(20)
    simulation.reporters.clear()
    for ending, error in (("dcd", 2e-5), ("xtc", 0.006)):
        run = read_trajectory(tmp_path / f"run.{ending}", topology=CRYSTAL)
        assert run.interval == pytest.approx(2.0, rel=1e-5)
        assert run.cells[0] == pytest.approx(10.0 * cell, abs=1e-4)
        # 1 nm/ps is 0.01 A/fs.
        assert run.positions[4] == pytest.approx(10.0 * start + 20 * 0.5 * 0.01, abs=error)
    state = read_state_csv(tmp_path / "run.csv", ensemble="nve")
    assert state.ensemble == "NVE"
    assert state.time == pytest.approx([2.0, 4.0, 6.0, 8.0, 10.0])
    mass = 3 * 28.0855 + 6 * 15.99943
    assert state.total == pytest.approx(np.full(5, 0.5 * 3.0 * mass * EV_PER_KJ_MOL), rel=1e-5)
    assert state.step[-1] == 20


def test_readers_refuse(tmp_path):
    with pytest.raises(EquistrideError, match="does not exist"):
        read_trajectory(tmp_path / "none.npz")
    for name in ("run.trj", "run.dcd", "run.npz", "run.extxyz", "run.xtc"):
        (tmp_path / name).write_text("nonsense")
    with pytest.raises(EquistrideError, match="not of a known type"):
        read_trajectory(tmp_path / "run.trj")
    with pytest.raises(EquistrideError, match=r"cannot be read as \.dcd"):
        read_trajectory(tmp_path / "run.dcd")
    for name in ("run.dcd", "run.xtc", "run.npz", "run.extxyz"):
        with pytest.raises(EquistrideError, match="cannot be read as"):
            read_trajectory(tmp_path / name, topology=CRYSTAL)
    np.savez(tmp_path / "half.npz", numbers=[1])
    with pytest.raises(EquistrideError, match="lacks the arrays"):
        read_trajectory(tmp_path / "half.npz")
    np.savez(tmp_path / "timeless.npz", numbers=[1], positions=np.zeros((2, 1, 3)))
    with pytest.raises(EquistrideError, match="time between frames"):
        read_trajectory(tmp_path / "timeless.npz")


@pytest.mark.parametrize("name", ["notes.md", "notes.pdb", "notes.txt"])
def test_a_topology_that_is_none(tmp_path, name):
    """Beside the symbols themselves and the PDB file of the run, which are read."""
    positions = np.random.default_rng(1).random((3, 2, 3)).astype(np.float32)
    with XTCTrajectoryFile(str(tmp_path / "run.xtc"), "w") as handle:
        handle.write(positions, time=np.arange(3.0), box=np.tile(np.eye(3), (3, 1, 1)))
    (tmp_path / name).write_text("# Notes\n\nNothing that is a structure.\n")
    with pytest.raises(EquistrideError, match=rf"{name} (cannot be read as a structure|holds no atoms)"):
        read_trajectory(tmp_path / "run.xtc", topology=tmp_path / name)
    ase.io.write(tmp_path / "run.pdb", Atoms("SiO", [[0, 0, 0], [0, 0, 1.6]]))
    for good in (tmp_path / "run.pdb", ("Si", "O")):
        assert read_trajectory(tmp_path / "run.xtc", topology=good).symbols == ("Si", "O")


HEADER = '#"Step","Time (ps)","Total Energy (kJ/mole)","Temperature (K)","Speed (ns/day)"\n'


def test_state_table(tmp_path):
    file = tmp_path / "nve.csv"
    file.write_text(HEADER + "10,0.01,-96.485,300,--\n20,0.02,-96.485,302,4.5\n30,0.03,-96.485,304,5.5\n40,0.0")
    with pytest.warns(Notice, match="breaks off in its last line"):
        state = read_state_csv(file)
    assert state.name == "nve"
    assert state.total == pytest.approx([-1.0] * 3, rel=1e-4)
    assert state.temperature.tolist() == [300.0, 302.0, 304.0]
    assert state.speed == 5.0
    assert state.span == pytest.approx(0.02)
    assert len(state.cut(15.0, 25.0).time) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not a state-data table"),
        ("Step,Energy\n1,2\n", "not a state-data table"),
        (HEADER, "time is too short"),
        (HEADER + "10,0.01\n20,0.02,1,2,3\n", "line 2 is broken"),
        (HEADER + "10,0.01,nan,300,1\n", "total holds NaN"),
        (HEADER + "10,0.01,word,300,1\n", "must hold numbers"),
        ("Time (ps)\n\n0.1\n0.2\n0.2\n", "times of bad.csv do not grow; .* found 0.2 ps a second time"),
    ],
)
def test_bad_state_tables(tmp_path, text, words):
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(EquistrideError, match=words):
        read_state_csv(tmp_path / "bad.csv")


def test_segments():
    segment = Segment("run", [0.0, 1.0], "nvt", potential=[1.0, 2.0], kinetic=[3.0, 4.0])
    assert segment.total.tolist() == [4.0, 6.0]
    assert segment.ensemble == "NVT"
    with pytest.raises(EquistrideError, match="segment run: kinetic has the wrong shape"):
        Segment("run", [0.0, 1.0], kinetic=[1.0])
    assert segment_of(oscillators([5.0], 4.0, 10, pieces=2)) is None
    own = segment_of(oscillators([5.0], 4.0, 10), ensemble="NVE")
    assert own.kinetic.shape == own.temperature.shape == (10,)
    assert own.total is None
