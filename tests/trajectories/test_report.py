"""The analysis in one pass and its page."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from known_systems import STILL, coloured, gas, shared_data, thermal, walk

from equistride.errors import EquistrideError
from equistride.trajectories import Bounds, Segment, Trajectory, analyse, read_trajectory, write_npz, write_report
from equistride.trajectories.picture import build_scene, draw_scene, scene_data
from equistride.trajectories.report import plus_minus

TIME = np.arange(2000) * 5.0


def segment(name, ensemble, slope=0.0, start=0.0, atoms=9):
    rng = np.random.default_rng(1)
    return Segment(
        name, TIME + start, ensemble, temperature=300.0 + 10.0 * coloured(rng, 2000, 10.0),
        total=-50.0 + 1e-3 * atoms * (slope * TIME / 1000.0 + 0.01 * coloured(rng, 2000, 5.0)),
        speed=12.5, step=np.arange(2000.0),
    )  # fmt: skip


@pytest.fixture
def liquid():
    """A walk in a box with thermal velocities."""
    run = walk(30, 300, 5.0, 0.001, cell=9.0 * np.eye(3))
    symbols = ("O",) * 10 + ("H",) * 20
    warm = thermal(list(symbols), 300, {"O": 300.0, "H": 300.0})
    return Trajectory(run.positions, symbols, run.time, run.cell, velocities=warm.velocities, name="liquid")


def test_drift_is_taken_on_the_last_closed_segment():
    result = analyse(segments=[segment("warm", "NVT", 5.0), segment("run", "NVE", 0.05, 1e4)], atoms=9)
    assert result.drift_segment.name == "run"
    low, high = result.drift.interval
    assert low < 0.05 < high
    assert list(result.temperature) == ["warm", "run"]
    assert result.as_dict()["drift_verdict"] == "pass"


def test_no_closed_segment_is_a_note():
    result = analyse(segments=[segment("warm", "NVT")], atoms=9)
    assert result.drift is None
    assert any("NVE" in note for note in result.notes)


def test_everything_from_a_trajectory(liquid):
    result = analyse(liquid, reference=replace(liquid, name="same"))
    assert set(result.pairs) == {("O", "O"), ("O", "H"), ("H", "H")}
    assert result.worst_rdf.difference == 0.0
    assert result.equipartition.verdict(0.1) == "pass"
    assert set(result.msd) == {"O", "H"}
    assert result.vdos is not None
    json.dumps(result.as_dict(), allow_nan=False)


def test_what_is_missing_becomes_a_note():
    bare = Trajectory(np.random.default_rng(0).random((3, 4, 3)), ("C",) * 4, [0.0, 1.0, 2.0], STILL)
    notes = " ".join(analyse(bare).notes)
    for words in ("no velocities", "no periodic box", "too short for a spectrum", "No drift"):
        assert words in notes


def test_bad_calls():
    with pytest.raises(EquistrideError, match="nothing to analyse"):
        analyse()
    with pytest.raises(EquistrideError, match="number of atoms is unknown"):
        analyse(segments=[segment("a", "NVE")])
    with pytest.raises(EquistrideError, match="share a name"):
        analyse(segments=[segment("a", "NVT"), segment("a", "NVE")], atoms=3)
    with pytest.raises(EquistrideError, match=r"ends in \.html"):
        write_report("report.pdf", title="x", segments=[segment("a", "NVE")], atoms=3)


def page_of(path):
    text = path.read_text(encoding="utf-8")
    # Nothing is fetched: no address outside of SVG's namespaces and metadata.
    outside = re.sub(r'xmlns(:\w+)?="[^"]*"|<metadata>.*?</metadata>', "", text, flags=re.DOTALL)
    assert "http" not in outside
    assert 'src="/' not in outside
    assert len(text) < 3e6
    return text


def test_page_is_one_file_and_says_what_it_should(tmp_path, liquid):
    path = tmp_path / "deep" / "report.html"
    write_report(
        path, viewer=False, title="Water <b>300 K</b>", trajectory=liquid, reference=replace(liquid, name="teacher"),
        segments=[segment("warm", "NVT"), segment("run", "NVE", 0.05, 1e4)], machine="a small machine",
        model={"Name": "toy", "Accuracy": [1, 2]}, settings={"Time step": "1 fs"}, bounds=Bounds(drift=0.2),
    )  # fmt: skip
    text = page_of(path)
    assert "Water &lt;b&gt;300 K&lt;/b&gt;" in text
    for words in (
        "12.5",
        "a small machine",
        "toy",
        "teacher",
        "pass",
        "Radial distribution function O-H",
        "warm",
    ):
        assert words in text
    assert text.count('<svg class="plot"') == 7
    assert "var(--series-0)" in text
    assert "#0a0b" not in text
    facts = json.loads(path.with_suffix(".json").read_text())
    assert facts["speed_ns_per_day"] == 12.5
    assert facts["steps"] == 1999
    assert facts["model"]["Name"] == "toy"
    assert facts["rdf"]["O-H"]["difference_from_reference"] == 0.0


def test_the_same_page_twice(tmp_path, liquid):
    for name in ("a", "b"):
        write_report(tmp_path / f"{name}.html", title="x", trajectory=liquid)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_page_of_energies_alone(tmp_path):
    write_report(tmp_path / "r.html", title="x", segments=[segment("run", "NVE", 3.0)], atoms=9)
    text = page_of(tmp_path / "r.html")
    assert 'class="fail"' in text
    assert "canvas" not in text.split("</style>")[1]


def test_scene_completes_polyhedra_across_the_boundary():
    run = read_trajectory(shared_data("reference/quartz72_vash1990_300K.npz"))
    scene = build_scene(run)
    silicon = {k for k, s in enumerate(scene.symbols) if s == "Si"}
    assert len(silicon) == 24
    bonded = np.bincount(scene.bonds.ravel(), minlength=len(scene.symbols))
    assert all(bonded[k] == 4 for k in silicon)
    assert scene.interval == 30.0
    assert draw_scene(scene, pixels=200)[:4] == b"\x89PNG"


def test_scene_of_molecules_and_of_many_atoms():
    molecule = Trajectory([[[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]], ("O", "H", "H"), [0.0], STILL)
    scene = build_scene(molecule)
    assert sorted(map(sorted, scene.bonds.tolist())) == [[0, 1], [0, 2]]
    assert scene.corners is None
    assert scene_data(scene)["frames"] == 1
    crowd = build_scene(gas(3000, 40, 40.0 * np.eye(3)))
    assert crowd.positions.size <= 90_000


def test_plus_minus():
    assert plus_minus(300.27, 2.17) == "300.3 ± 2.2"
    assert plus_minus(0.04989, 0.00031) == "0.04989 ± 0.00031"
    assert plus_minus(1234.5, 67.0) == "1234 ± 67"
    assert plus_minus(3.0, float("nan")) == "3"
    assert plus_minus(2.5e-6, 1e-7) == "(2.50 ± 0.10)·10⁻⁶"


def test_command(tmp_path, liquid):
    typer_testing = pytest.importorskip("typer.testing")
    import typer

    from equistride.cli.report import report

    app = typer.Typer()
    app.command()(report)
    file = write_npz(tmp_path / "run.npz", liquid)
    page = tmp_path / "page.html"
    (tmp_path / "nve.csv").write_text(
        '#"Time (ps)","Total Energy (kJ/mole)"\n' + "".join(f"{0.01 * k},{-90.0 + 1e-4 * (k % 3)}\n" for k in range(99))
    )
    runner = typer_testing.CliRunner()
    done = runner.invoke(app, [str(file), "-r", str(file), "-o", str(page), "-l", f"{tmp_path / 'nve.csv'}=NVE"])
    assert done.exit_code == 0, done.output
    assert "energy drift" in done.output
    assert page.is_file()
    assert page.with_suffix(".json").is_file()
    wrong = runner.invoke(app, [str(file), "-l", "nve.csv"])
    assert isinstance(wrong.exception, EquistrideError)
    assert "needs its ensemble" in str(wrong.exception)
