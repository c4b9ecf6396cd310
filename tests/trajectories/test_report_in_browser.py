"""The report in headless Chromium: plots and the viewer are there, the console is empty, nothing is asked of another host."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from headless import NAMES, SCHEMES, chromium, opened

from equistride.data.quartz import quartz
from equistride.trajectories import write_report
from equistride.trajectories.trajectory import Trajectory
from equistride.trajectories.viewer import viewer_data, viewer_script


def vibrating(frames: int = 30, spread: float = 3.0) -> Trajectory:
    """Return quartz in which every atom swings about its place, and drifts out of the cell."""
    atoms, rng = quartz((2, 2, 2)), np.random.default_rng(1)
    time = 5.0 * np.arange(frames)
    speeds = rng.normal(scale=0.01, size=(len(atoms), 3))
    swing = np.sin(0.02 * time)[:, None, None] * speeds / 0.02
    drift = np.array([spread / time[-1], 0.0, 0.0])
    return Trajectory(
        positions=atoms.positions + swing + time[:, None, None] * drift, symbols=tuple(atoms.get_chemical_symbols()),
        time=time, cell=atoms.cell.array, velocities=np.cos(0.02 * time)[:, None, None] * speeds + drift, name="quartz",
    )  # fmt: skip


def in_browser(page: Path, folder: Path, *options: str, scheme: str = "light") -> tuple[str, list[str]]:
    """Open a page; skip where there is no browser."""
    browser = chromium()
    if browser is None:
        pytest.skip(f"there is no Chromium ({', '.join(NAMES)}) on PATH")
    return opened(browser, page, folder, *options, scheme=scheme)


def test_plots_and_viewer(tmp_path: Path) -> None:
    if not viewer_script():
        pytest.skip("chemiscope is not installed")
    page = tmp_path / "report.html"
    write_report(page, title="Quartz", trajectory=vibrating())
    shown, console = in_browser(page, tmp_path / "profile", "--enable-unsafe-swiftshader", "--dump-dom")
    assert console == []
    assert 'data-viewer="ready"' in shown
    assert shown.count('<svg class="plot"') >= 4


def test_without_webgl_the_picture_stays(tmp_path: Path) -> None:
    if not viewer_script():
        pytest.skip("chemiscope is not installed")
    page = tmp_path / "report.html"
    write_report(page, title="Quartz", trajectory=vibrating())
    shown, _ = in_browser(page, tmp_path / "profile", "--disable-gpu", "--disable-3d-apis", "--dump-dom")
    assert 'data-viewer="none"' in shown
    assert 'id="still"' in shown


def test_without_the_package_today_s_picture(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    write_report(page, title="Quartz", trajectory=vibrating(), viewer=False)
    assert page.stat().st_size < 1e6
    shown, console = in_browser(page, tmp_path / "profile", "--dump-dom")
    assert console == []
    assert '<canvas id="scene"' in shown
    assert 'id="still"' not in shown  # the script drew the scene


@pytest.mark.parametrize("scheme", SCHEMES)
def test_it_prints(tmp_path: Path, scheme: str) -> None:
    page, printed = tmp_path / "report.html", tmp_path / "report.pdf"
    write_report(page, title="Quartz", trajectory=vibrating(), viewer=False)
    in_browser(page, tmp_path / "profile", f"--print-to-pdf={printed}", scheme=scheme)
    assert printed.read_bytes().startswith(b"%PDF")


def test_paths_are_whole_and_begin_in_the_cell() -> None:
    run = vibrating(spread=30.0)
    found = viewer_data(run)
    frames = found["structures"]
    assert isinstance(frames, list)
    assert len(frames) == 30
    path = np.array([[frame[axis] for axis in "xyz"] for frame in frames]).transpose(0, 2, 1)
    assert np.abs(np.diff(path, axis=0)).max() < 30.0 / 29 + 0.6  # A; no jump by a lattice vector, which is 9.8
    inside = path[0] @ np.linalg.inv(np.array(frames[0]["cell"]).reshape(3, 3))
    assert inside.min() > -1e-3
    assert inside.max() < 1.0 + 1e-3
    times = found["properties"]["time"]["values"]  # type: ignore[index]
    assert times[1] == pytest.approx(0.005)


def test_large_systems_have_few_frames() -> None:
    atoms = np.random.default_rng(1).uniform(0, 90, size=(40_000, 3))
    run = Trajectory(np.stack([atoms] * 5), ("Ar",) * 40_000, np.arange(5.0), 90.0 * np.eye(3))
    assert len(viewer_data(run)["structures"]) == 1  # type: ignore[arg-type]
