"""``equistride run``: every engine, ensemble and format; a stop that loses nothing, and what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from ase import Atoms, units
from ase.io import read, write

from equistride.data.quartz import quartz
from equistride.errors import EquistrideError
from equistride.simulation import Settings, simulate
from equistride.simulation.checkpoint import read_checkpoint
from equistride.simulation.run import Result
from equistride.simulation.settings import femtoseconds
from equistride.trajectories import read_state_csv, read_trajectory

MODELS = Path(__file__).resolve().parents[2] / "models"
POTENTIAL = MODELS / "quartz-esen" / "quartz-esen.pt"
PROPAGATOR = MODELS / "quartz-trajcast-30fs" / "quartz-trajcast-30fs.pt"
RUN = [sys.executable, "-m", "equistride.cli.main", "run"]


def crystal() -> Atoms:
    """Return 72 atoms of quartz that move at 300 K."""
    atoms = quartz((2, 2, 2))
    rng = np.random.default_rng(3)
    atoms.positions += rng.normal(scale=0.03, size=atoms.positions.shape)
    atoms.set_momenta(rng.normal(size=(len(atoms), 3)) * np.sqrt(atoms.get_masses() * units.kB * 300)[:, None])
    return atoms


@pytest.fixture(scope="module")
def in_ase(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """20 fs of NVE, with which all engines are compared."""
    settings = Settings(engine="ase", ensemble="nve", time_fs=20, every=10, precision="float64")
    return simulate(POTENTIAL, crystal(), settings, tmp_path_factory.mktemp("nve") / "run")


@pytest.fixture(scope="module")
def ideal(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """The lattice at its minimum."""
    settings = Settings(engine="ase", ensemble="minimise", max_force=0.001)
    return simulate(POTENTIAL, quartz((2, 2, 2)), settings, tmp_path_factory.mktemp("ideal") / "run")


@pytest.mark.parametrize("engine", ["openmm", "lammps", "ase"])
def test_engines_agree(engine: str, in_ase: Result, tmp_path: Path) -> None:
    """NVE of one start: after 20 fs positions agree to 5e-8 A, for the engines' constants of nature agree to 1e-7."""
    settings = Settings(engine=engine, ensemble="nve", time_fs=20, every=10, trajectory="extxyz", precision="float64")
    result = simulate(POTENTIAL, crystal(), settings, tmp_path / engine)
    assert result.step == 20
    assert not result.stopped
    assert np.abs(result.last.positions - in_ase.last.positions).max() < 5e-8
    assert result.last.potential + result.last.kinetic == pytest.approx(
        in_ase.last.potential + in_ase.last.kinetic, abs=5e-6
    )
    frames = read_trajectory(result.files["trajectory"])
    assert frames.time.tolist() == [10.0, 20.0]
    assert frames.velocities is not None
    assert frames.energies is not None
    assert np.abs(frames.velocities[-1] - result.last.velocities).max() < 1e-8
    table = read_state_csv(result.files["table"], ensemble="NVE")
    assert table.time.tolist() == [10.0, 20.0]
    assert np.ptp(table.total) < 0.02  # eV, of 72 atoms at 1 fs: the ripple of velocity Verlet


@pytest.mark.parametrize(("engine", "model"), [("openmm", POTENTIAL), ("ase", POTENTIAL), ("openmm", PROPAGATOR),
                                               ("ase", PROPAGATOR)])  # fmt: skip
@pytest.mark.parametrize("form", ["dcd", "xtc"])
def test_going_on_is_the_unbroken_run(engine: str, model: Path, form: str, tmp_path: Path) -> None:
    """A run of 30 steps that was broken after 20 writes the bytes of the unbroken one, its bath's noise included."""
    step = 30.0 if model is PROPAGATOR else 1.0
    make = lambda steps: Settings(engine=engine, time_fs=steps * step, every=5, trajectory=form)  # noqa: E731
    whole = simulate(model, crystal(), make(30), tmp_path / "whole")
    simulate(model, crystal(), make(20), tmp_path / "broken")
    with (tmp_path / "broken" / f"trajectory.{form}").open("ab") as f:
        f.write(b"written after the checkpoint")
    rest = simulate(model, crystal(), make(30), tmp_path / "broken", resume=True)
    assert np.array_equal(whole.last.positions, rest.last.positions)
    for name in ("state.csv", f"trajectory.{form}"):
        one, other = ((tmp_path / run / name).read_bytes() for run in ("whole", "broken"))
        if form == "dcd" and name != "state.csv":
            one, other = one[276:], other[276:]  # the header has the date
        assert one == other
    frames = read_trajectory(rest.files["trajectory"], topology=rest.files["structure"])
    assert frames.frames == 6


def test_lammps_goes_on(tmp_path: Path) -> None:
    """NVE broken after 10 steps: positions as unbroken to 1e-9 A; frames and steps are counted on."""
    make = lambda steps: Settings(engine="lammps", ensemble="nve", time_fs=steps, every=5, precision="float64")  # noqa: E731
    whole = simulate(POTENTIAL, crystal(), make(20), tmp_path / "whole")
    simulate(POTENTIAL, crystal(), make(10), tmp_path / "broken")
    rest = simulate(POTENTIAL, crystal(), make(20), tmp_path / "broken", resume=True)
    assert np.abs(whole.last.positions - rest.last.positions).max() < 1e-9
    assert read_state_csv(rest.files["table"]).time.tolist() == [5.0, 10.0, 15.0, 20.0]


@pytest.mark.parametrize("engine", ["openmm", "lammps"])
def test_constant_pressure(engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The box moves, by less than 5 % in 60 fs."""
    monkeypatch.setattr("equistride.simulation.openmm.BAROSTAT_EVERY", 5)
    settings = Settings(engine=engine, ensemble="npt", time_fs=60, every=20, pressure=5e4)
    result = simulate(POTENTIAL, crystal(), settings, tmp_path)
    change = np.linalg.det(result.last.cell) / crystal().get_volume() - 1
    assert 1e-5 < abs(change) < 0.05
    assert "Box Volume (nm^3)" in result.files["table"].read_text()


def test_strides_at_constant_pressure(tmp_path: Path) -> None:
    """The guard's potential says what a move of the box costs: one run in three engines, and one that is broken goes on."""
    make = lambda engine, strides: Settings(engine=engine, ensemble="npt", time_fs=30 * strides, every=10, pressure=3e4,  # noqa: E731
                                            guard=str(POTENTIAL))  # fmt: skip
    cells = [simulate(PROPAGATOR, crystal(), make(e, 40), tmp_path / e).last.cell for e in ("openmm", "lammps", "ase")]
    strain = (
        np.diag(cells[0]) / np.diag(simulate(PROPAGATOR, crystal(), make("ase", 9), tmp_path / "start").last.cell) - 1
    )
    assert np.abs(strain).max() > 1e-4
    for cell in cells[1:]:
        np.testing.assert_allclose(cell, cells[0], atol=1e-6)
    simulate(PROPAGATOR, crystal(), make("ase", 20), tmp_path / "broken")
    rest = simulate(PROPAGATOR, crystal(), make("ase", 40), tmp_path / "broken", resume=True)
    assert np.array_equal(rest.last.cell, cells[2])


@pytest.mark.parametrize("engine", ["openmm", "lammps", "ase"])
def test_minimisation(engine: str, ideal: Result, tmp_path: Path) -> None:
    """Crystals go back to the lattice: energies of all engines agree to 1e-4 eV, forces are below the bound."""
    settings = Settings(engine=engine, ensemble="minimise", max_force=0.005, precision="float64")
    result = simulate(POTENTIAL, crystal(), settings, tmp_path / "a")
    still = read(result.files["structure"])
    assert still.info["largest_force"] < 0.005 * 3**0.5
    assert result.last.potential == pytest.approx(ideal.last.potential, abs=2e-3)


def _command(folder: Path, *words: str) -> list[str]:
    write(folder / "quartz.cif", quartz((1, 1, 1)))
    return [*RUN, str(POTENTIAL), "quartz.cif", "--supercell", "2", *words]


@pytest.mark.parametrize("words", [[], ["--engine", "lammps", "--processes", "2"]])
def test_stop_keeps_all(words: list[str], tmp_path: Path) -> None:
    """Ctrl-C ends a run with a checkpoint and status 130; --resume counts on from there."""
    command = _command(tmp_path, "--time", "400fs", "--every", "2", "--no-report", *words)
    child = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    table = tmp_path / "run" / "state.csv"
    begun = time.monotonic()
    while not (table.exists() and table.read_text().count("\n") > 2) and child.poll() is None:
        assert time.monotonic() - begun < 200
        time.sleep(0.1)
    child.send_signal(signal.SIGINT)
    out, error = child.communicate(timeout=200)
    assert child.returncode == 130, out + error
    assert "with --resume goes on from step" in out
    step = read_checkpoint(tmp_path / "run").step
    assert 0 < step < 400
    longer = _command(tmp_path, "--time", f"{step + 4}fs", "--every", "2", "--resume", *words)
    done = subprocess.run(longer, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report.html").is_file()  # the first process writes it while the others wait
    assert f"in {step + 4} steps" in done.stdout
    times = read_state_csv(table).time
    assert np.allclose(np.diff(times), 2.0)
    assert times[0] == 2.0


@pytest.mark.parametrize("again", [False, True], ids=["once", "twice"])
def test_a_stop_before_there_is_a_folder(again: bool, tmp_path: Path) -> None:
    """The first Ctrl-C waits for the run and ends it with its first steps, a second one at once; no process is left."""
    words = "--engine", "lammps", "--processes", "2", "--time", "4ps", "--every", "2", "--no-report"
    child = subprocess.Popen(_command(tmp_path, *words), cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 200
    while not psutil.Process(child.pid).children() and child.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    below = psutil.Process(child.pid).children(recursive=True)
    assert not (tmp_path / "run").exists()
    for _ in range(1 + again):
        child.send_signal(signal.SIGINT)
        time.sleep(0.5)
    _, error = child.communicate(timeout=200)
    assert child.returncode == 130, error
    assert not psutil.wait_procs(below, timeout=20)[1]
    assert not (tmp_path / "run" / "stop").exists()
    assert again or 0 < read_checkpoint(tmp_path / "run").step < 4000


def test_isotopes_are_read_back(tmp_path: Path) -> None:
    """Frames and minima keep masses that are not the elements' own, of which momenta make velocities."""
    heavy = quartz((2, 2, 2))
    heavy.set_masses(np.where(heavy.numbers == 8, 18.0, 28.085))
    heavy.set_velocities(np.random.default_rng(1).normal(size=(72, 3)) * 0.005 / units.fs)
    settings = Settings(ensemble="nve", time_fs=2, every=1, trajectory="extxyz")
    result = simulate(POTENTIAL, heavy, settings, tmp_path / "run")
    frames = read_trajectory(result.files["trajectory"])
    assert frames.velocities is not None
    np.testing.assert_allclose(frames.velocities[-1], result.last.velocities, atol=1e-8)
    still = simulate(POTENTIAL, heavy, Settings(engine="ase", ensemble="minimise"), tmp_path / "still")
    assert set(read(still.files["structure"]).get_masses()) == {18.0, 28.085}
    with pytest.raises(EquistrideError, match=r"holds a run \(minimised.extxyz\); choose another folder"):
        simulate(POTENTIAL, heavy, Settings(engine="ase", ensemble="minimise"), tmp_path / "still")


@pytest.mark.parametrize("name", ["state.csv", "trajectory.dcd"])
def test_a_file_that_lost_its_end_is_not_filled_up(name: str, tmp_path: Path) -> None:
    simulate(POTENTIAL, crystal(), Settings(engine="ase", time_fs=4, every=2), tmp_path / "run")
    path = tmp_path / "run" / name
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(EquistrideError, match=f"{name} has lost what was written before the checkpoint; expected"):
        simulate(POTENTIAL, crystal(), Settings(engine="ase", time_fs=8, every=2), tmp_path / "run", resume=True)
    assert b"\0\0\0" not in (tmp_path / "run" / "state.csv").read_bytes()


def test_report_and_molecule(tmp_path: Path) -> None:
    """A command from a file to a report, for a molecule without a box."""
    ethanol = Atoms("CCOH6", [[1.168, -0.394, 0.0], [0.0, 0.559, 0.0], [-1.19, -0.215, 0.0], [-1.946, 0.381, 0.0],
                              [0.042, 1.207, 0.886], [0.042, 1.207, -0.886], [2.115, 0.157, 0.0], [1.14, -1.034, -0.885],
                              [1.14, -1.034, 0.885]])  # fmt: skip
    write(tmp_path / "ethanol.xyz", ethanol)
    model = MODELS / "ethanol-trajcast-7fs" / "ethanol-trajcast-7fs.pt"
    command = [*RUN, str(model), "ethanol.xyz", "--time", "140fs", "--every", "2", "--trajectory", "extxyz"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "0.14 ps in 20 steps" in done.stdout
    assert (tmp_path / "run" / "report.html").is_file()
    assert json.loads((tmp_path / "run" / "report.json").read_text())


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(EquistrideError, match=r"what a move of the box costs; give one with --guard"):
        simulate(PROPAGATOR, crystal(), Settings(ensemble="npt"), tmp_path)
    with pytest.raises(EquistrideError, match="knows no forces"):
        simulate(PROPAGATOR, crystal(), Settings(ensemble="minimise"), tmp_path)
    with pytest.raises(EquistrideError, match="this is a potential; leave --guard out"):
        simulate(POTENTIAL, crystal(), Settings(guard=str(POTENTIAL)), tmp_path)
    with pytest.raises(EquistrideError, match="not a stride of the propagator; expected 30 fs; found 5 fs"):
        simulate(PROPAGATOR, crystal(), Settings(timestep_fs=5.0), tmp_path)
    with pytest.raises(EquistrideError, match="constant pressure is not offered in ASE"):
        simulate(POTENTIAL, crystal(), Settings(engine="ase", ensemble="npt"), tmp_path)
    with pytest.raises(EquistrideError, match="no checkpoint"):
        simulate(POTENTIAL, crystal(), Settings(), tmp_path, resume=True)
    with pytest.raises(EquistrideError, match="the engine is not known"):
        Settings(engine="gromacs")  # type: ignore[arg-type]
    for text in ("10", "ps", "-1ps", "nanps", "1e999ps", "0fs"):
        with pytest.raises(EquistrideError, match="as 10ps"):
            femtoseconds(text, "time")


def test_another_run_is_not_continued(tmp_path: Path) -> None:
    """Settings, model and structure must be those of the checkpoint; a damaged one gives way to the one before."""
    make = lambda steps, **more: Settings(engine="ase", time_fs=steps, every=1, **more)  # noqa: E731
    simulate(POTENTIAL, crystal(), make(2), tmp_path)
    with pytest.raises(EquistrideError, match="holds a run"):
        simulate(POTENTIAL, crystal(), make(2), tmp_path)
    with pytest.raises(EquistrideError, match="another temperature"):
        simulate(POTENTIAL, crystal(), make(3, temperature=200.0), tmp_path, resume=True)
    moved = crystal()
    moved.positions[0, 0] += 1e-6
    with pytest.raises(EquistrideError, match="another structure"):
        simulate(POTENTIAL, moved, make(3), tmp_path, resume=True)
    with pytest.raises(EquistrideError, match="has made its 2 steps"):
        simulate(POTENTIAL, crystal(), make(2), tmp_path, resume=True)
    simulate(POTENTIAL, crystal(), make(3), tmp_path, resume=True)
    last = tmp_path / "checkpoint"
    damaged = bytearray(last.read_bytes())
    damaged[-100] ^= 1
    last.write_bytes(damaged)
    with pytest.warns(Warning, match="damaged"):
        assert read_checkpoint(tmp_path).step == 2
    os.truncate(tmp_path / "checkpoint.previous", 10)
    with pytest.warns(Warning, match="damaged"), pytest.raises(EquistrideError, match="is whole"):
        read_checkpoint(tmp_path)
