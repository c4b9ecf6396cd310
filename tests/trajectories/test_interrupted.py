"""Files of runs that were interrupted are read as far as they go, with a sentence; damaged and wrong ones are refused."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from typer.testing import CliRunner

from equistride.cli.main import app
from equistride.data.engine_files import _dcd_header
from equistride.data.trajectories import Source, read_motion
from equistride.errors import EquistrideError, Notice
from equistride.trajectories.readers import read_trajectory
from equistride.trajectories.thermo import read_state_csv

SYMBOLS = ["O", "H", "H"] * 4
FRAMES, KEPT = 20, 10
PATH = np.random.default_rng(0).normal(size=(FRAMES, 12, 3)).astype(np.float32)
DUMP = """ITEM: UNITS
metal
ITEM: TIME
{time}
ITEM: TIMESTEP
0
ITEM: NUMBER OF ATOMS
2
ITEM: BOX BOUNDS pp pp pp
0 9
0 9
0 9
ITEM: ATOMS id element x y z vx vy vz
1 O {x} 1 1 0.1 0 0
2 D 2 1 1 -0.1 0 0
"""


def write_binary(path: Path) -> None:
    from mdtraj.formats import DCDTrajectoryFile, NetCDFTrajectoryFile, TRRTrajectoryFile, XTCTrajectoryFile

    time, box = np.arange(FRAMES, dtype=np.float32), np.tile(3 * np.eye(3, dtype=np.float32), (FRAMES, 1, 1))
    edges = {"cell_lengths": np.full((FRAMES, 3), 30.0), "cell_angles": np.full((FRAMES, 3), 90.0)}
    if path.suffix == ".dcd":
        with DCDTrajectoryFile(str(path), "w") as handle:
            handle.write(10 * PATH, **edges)
    elif path.suffix == ".nc":
        with NetCDFTrajectoryFile(str(path), "w") as handle:
            handle.write(10 * PATH, time=time, **edges)
    else:
        kind = XTCTrajectoryFile if path.suffix == ".xtc" else TRRTrajectoryFile
        with kind(str(path), "w") as handle:
            handle.write(PATH, time=time, box=box)


def test_a_header_of_dcd_in_the_other_order_of_bytes(tmp_path: Path) -> None:
    """Read in the order of this machine it would announce 335,544,320 frames, and the file would seem cut."""
    path = tmp_path / "run.dcd"
    title = b"Created by OpenMM".ljust(80)
    for order in "<>":
        block = struct.pack(f"{order}i4s3i", 84, b"CORD", 20, 0, 5) + bytes(24) + struct.pack(f"{order}f", 0.02)
        path.write_bytes(block.ljust(96, b"\0") + title.rjust(104))
        frames, every = _dcd_header(path)
        assert frames == 20
        assert every == pytest.approx(5 * 0.02 * 48.88821)


def test_hdf5_that_was_cut_is_refused_with_the_reason(tmp_path: Path) -> None:
    from mdtraj.formats import HDF5TrajectoryFile

    with HDF5TrajectoryFile(str(tmp_path / "run.h5"), "w") as handle:
        handle.write(PATH, time=np.arange(FRAMES, dtype=np.float32))
    content = (tmp_path / "run.h5").read_bytes()
    for kept in (len(content) // 2, 100, 0):
        (tmp_path / "cut.h5").write_bytes(content[:kept])
        with pytest.raises(EquistrideError, match=r"cut\.h5 cannot be opened as HDF5.*let long runs write XTC"):
            read_trajectory(tmp_path / "cut.h5")


@pytest.mark.parametrize("ending", [".xtc", ".trr", ".dcd", ".nc"])
def test_a_file_that_breaks_off(tmp_path: Path, ending: str, recwarn: pytest.WarningsRecorder) -> None:
    write_binary(tmp_path / f"run{ending}")
    whole = read_trajectory(tmp_path / f"run{ending}", topology=SYMBOLS, interval=2.0)
    assert whole.frames == FRAMES
    assert not [w for w in recwarn if issubclass(w.category, Notice)]
    content = (tmp_path / f"run{ending}").read_bytes()
    (tmp_path / f"cut{ending}").write_bytes(content[: int(0.54 * len(content))])
    with pytest.warns(Notice, match=rf"cut\{ending} breaks off after (8|10|11) whole frames"):
        part = read_trajectory(tmp_path / f"cut{ending}", topology=SYMBOLS, interval=2.0)
    np.testing.assert_array_equal(part.positions, whole.positions[: part.frames])
    (tmp_path / f"none{ending}").write_bytes(content[: 60 if ending != ".dcd" else 200])
    with pytest.raises(EquistrideError):
        read_trajectory(tmp_path / f"none{ending}", topology=SYMBOLS, interval=2.0)


def test_an_extended_xyz_file_that_breaks_off(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "run.extxyz", [Atoms(SYMBOLS, p, info={"time": 2.0 * k}) for k, p in enumerate(PATH)])
    text = (tmp_path / "run.extxyz").read_text()
    (tmp_path / "cut.extxyz").write_text(text[: int(0.52 * len(text))])
    with pytest.warns(Notice, match="cut.extxyz breaks off after 10 whole frames"):
        assert read_trajectory(tmp_path / "cut.extxyz").frames == KEPT


@pytest.mark.parametrize("packed", [False, True])
def test_a_dump_that_breaks_off(tmp_path: Path, packed: bool) -> None:
    """Also within its last number, which would be another one."""
    text = "".join(DUMP.format(time=0.005 * k, x=1 + 0.01 * k) for k in range(5))
    for cut in (-1, -6, -len(DUMP) + 40, -len(DUMP) - 1):
        path = tmp_path / ("cut.dump.gz" if packed else "cut.dump")
        path.write_bytes(gzip.compress(text[:cut].encode()) if packed else text[:cut].encode())
        with pytest.warns(Notice, match=r"breaks off after \d whole frames"):
            frames = read_motion(path)
        assert len(frames) in (3, 4)
        assert frames.masses is not None
        np.testing.assert_allclose(frames.masses, [15.999, 2.0141], atol=1e-3)
    if packed:
        path.write_bytes(gzip.compress(text.encode())[:-6])
        with pytest.warns(Notice, match="breaks off after 5 whole frames"):
            assert len(read_motion(path)) == 5
    path = tmp_path / "middle.dump"
    path.write_text(text.replace("2 D 2 1 1", "2 D 2 one 1", 2))
    with pytest.raises(EquistrideError, match=r"is no number in x y z of step 0; found .*'one'"):
        read_motion(path)


@pytest.mark.parametrize("column", ["x", "vx"])
def test_nan_in_a_dump(tmp_path: Path, column: str) -> None:
    """A run that blew up; neither pairs nor a report are made of it."""
    frames = [DUMP.format(time=0.005 * k, x=1 + 0.01 * k) for k in range(5)]
    frames[3] = frames[3].replace("1.03", "nan") if column == "x" else frames[3].replace("-0.1", "-nan")
    (tmp_path / "run.dump").write_text("".join(frames))
    what = "positions" if column == "x" else "velocities"
    arguments = ["data", "pairs", str(tmp_path / "run.dump"), "--stride-fs", "5", "-o", str(tmp_path / "p.npz")]
    done = CliRunner().invoke(app, arguments)
    assert isinstance(done.exception, EquistrideError)
    assert f"has a NaN or infinite value in '{what}', frame 3" in str(done.exception)
    assert not (tmp_path / "p.npz").exists()


def test_deuterium_of_a_topology_keeps_its_mass(tmp_path: Path) -> None:
    write_binary(tmp_path / "run.xtc")
    (tmp_path / "heavy.xyz").write_text("12\n\n" + "".join(f"{s} {k} 0 0\n" for k, s in enumerate(["O", "D", "D"] * 4)))
    for topology in (tmp_path / "heavy.xyz", ["O", "D", "D"] * 4):
        run = read_motion(tmp_path / "run.xtc", Source(topology=topology))
        assert run.numbers[:3].tolist() == [8, 1, 1]
        assert run.masses is not None
        np.testing.assert_allclose(run.masses[:3], [15.999, 2.0141, 2.0141], atol=1e-3)


def test_a_run_that_held_atoms_is_told(tmp_path: Path) -> None:
    from ase.constraints import FixAtoms

    images = [Atoms("H2O", p[:3], info={"time": 1.0 * k}, constraint=FixAtoms([0])) for k, p in enumerate(PATH[:3])]
    ase.io.write(tmp_path / "run.traj", images)
    with pytest.warns(Notice, match="of a run that held 1 of its atoms"):
        read_motion(tmp_path / "run.traj", Source(interval_fs=1.0))


def npz(path: Path, **changes: object) -> Path:
    arrays = {"numbers": [1, 8], "positions": PATH[:, :2], "energy": np.zeros(FRAMES), "forces": 0 * PATH[:, :2]}
    arrays["time_fs"] = np.arange(FRAMES)
    np.savez(path, **{k: v for k, v in (arrays | changes).items() if v is not None})
    return path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"time_fs": None, "stride_fs": [1.0, 2.0]}, "array 'stride_fs' of a.npz is no time between frames"),
        ({"velocities": np.full((FRAMES, 2, 3), np.nan)}, "NaN or infinite value in 'velocities', frame 0"),
        ({"positions": np.array(["a", "b"])}, "cannot be read as .npz"),
        ({"positions": np.array(3.0)}, "cannot be read as .npz"),
        ({"time_fs": np.zeros(FRAMES)}, "time must grow"),
    ],
)
def test_arrays_that_make_no_trajectory(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    with pytest.raises(EquistrideError, match=said):
        read_trajectory(npz(tmp_path / "a.npz", **changes))


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_damaged_archives(tmp_path: Path, damage: str) -> None:
    content = bytearray(npz(tmp_path / "a.npz").read_bytes())
    if damage == "flipped":
        content[len(content) // 3] ^= 0xFF
    (tmp_path / "b.npz").write_bytes({"cut": content[: len(content) // 2], "empty": b""}.get(damage, content))
    done = CliRunner().invoke(app, ["report", str(tmp_path / "b.npz"), "-o", str(tmp_path / "o.html")])
    assert isinstance(done.exception, EquistrideError)
    assert "the file may be truncated" in str(done.exception)


def test_a_log_that_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00\x01" * 30)
    with pytest.raises(EquistrideError, match=r"a\.csv is not text; expected a table of StateDataReporter"):
        read_state_csv(tmp_path / "a.csv")


def test_a_dump_that_ends_in_an_empty_line_is_whole(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    (tmp_path / "whole.dump").write_text(DUMP.format(time=0, x=1.0) + DUMP.format(time=1, x=1.1) + "\n")
    assert len(read_motion(tmp_path / "whole.dump", Source(units="metal", timestep_fs=1.0)).positions) == 2
    assert not [w for w in recwarn if "breaks off" in str(w.message)]
