"""Tests of 72 atoms in this process: the figures agree with each other; what does not fit is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from ase import Atoms
from ase.build import bulk

from equistride.artifact import load
from equistride.artifact.propagators import build_propagator, save_propagator
from equistride.bench import dynamics, foreign, kernels, models, peers
from equistride.bench.catalogue import Benchmark, on_structure, parse
from equistride.bench.models import Chosen, check_fits, choose, released
from equistride.bench.peers import python_with
from equistride.bench.plot import plot
from equistride.bench.results import Outfile, as_simple, as_table, markdown, read
from equistride.bench.run import prepare
from equistride.bench.settings import Settings
from equistride.data.quartz import quartz
from equistride.errors import EquistrideError
from equistride.models.trajcast import TrajCastConfig

QUICK = Settings(seconds=0.2)


@pytest.fixture(scope="module")
def propagator_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small propagator of random weights."""
    path = tmp_path_factory.mktemp("propagator") / "small.pt"
    config = TrajCastConfig.model_validate(
        {
            "cutoff": 4.0,
            "max_speed": 0.05,
            "avg_num_neighbors": 16.0,
            "num_layers": 2,
            "channels": 8,
            "radial_widths": (16,),
            "speed_widths": (16,),
        }
    )
    facts = {
        "species": ["O", "Si"],
        "masses": [15.999, 28.085],
        "stride_fs": 20.0,
        "rms_displacement": 0.01,
        "rms_velocity": 1e-3,
    }
    torch.manual_seed(0)
    save_propagator(build_propagator(config, facts), path, tables=1e-5)
    return path


@pytest.fixture(scope="module")
def potential_result(random_artifact32: Path) -> dict[str, Any]:
    """The figures of a small potential, treated as a trained one."""
    return dynamics.measure(
        parse("potential-quartz-72"), Chosen(random_artifact32, "small", True), Settings(seconds=0.5)
    )


@pytest.fixture(scope="module")
def kernel_result() -> dict[str, Any]:
    return kernels.measure(parse("kernels-quartz-72"), QUICK)


def agree(result: dict[str, Any]) -> None:
    """What must hold between the figures of any run."""
    steps, atoms, wall, cpu = (result[k] for k in ("steps", "atoms", "wall_seconds", "cpu_seconds"))
    assert steps >= 3
    assert result["ns_per_day"] == pytest.approx(steps * result["step_fs"] * 1e-6 * 86400 / wall, rel=1e-12)
    assert result["atom_steps_per_second"] == pytest.approx(atoms * steps / wall, rel=1e-12)
    assert result["us_per_atom_step"] * result["atom_steps_per_second"] == pytest.approx(1e6, rel=1e-12)
    assert result["cpu_us_per_atom_step"] == pytest.approx(1e6 * cpu / (atoms * steps), rel=1e-12)
    assert cpu > 0
    assert result["peak_MiB"] >= result["baseline_MiB"] > 10
    assert sum(result["stage_share"].values()) == pytest.approx(1.0)
    assert min(result["stage_share"].values()) >= 0
    # the counted work cannot be done faster than the machine's matrix product
    assert 0 < result["share_of_limit"] < 1
    limit = result["flops_per_step"] / (result["gemm_gflops"] * 1e9)
    assert result["share_of_limit"] == pytest.approx(limit / (cpu / steps), rel=1e-9)


def test_a_potential(potential_result: dict[str, Any]) -> None:
    agree(potential_result)
    assert potential_result["step_fs"] == 1.0
    assert potential_result["atoms"] == 72
    assert potential_result["wall_seconds"] >= 0.5
    low, high = potential_result["drift_interval"]
    assert low <= potential_result["drift_meV_per_atom_per_ps"] <= high
    # velocity Verlet under soft random weights: the energy moves by far less than the kinetic energy, 80 meV an atom
    assert potential_result["fluctuation_meV_per_atom"] < 4.0
    assert potential_result["stage_share"]["model"] > 0.5


def test_a_propagator(propagator_file: Path) -> None:
    result = dynamics.measure(parse("propagator-quartz-72"), Chosen(propagator_file, "small", False), QUICK)
    agree(result)
    assert result["step_fs"] == 20.0
    assert "temperature_K" not in result  # of random weights it would mean nothing


def test_random_weights_where_nothing_was_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"cutoff": 4.0, "num_layers": 1, "channels": 8, "hidden_channels": 8, "edge_channels": 8}
    monkeypatch.setattr(models, "POTENTIAL", models.POTENTIAL.model_copy(update=small))
    test = parse("potential-aspirin")
    chosen = choose(test, None, random=False, precision=None, scratch=tmp_path)
    assert not chosen.trained
    assert "random weights" in chosen.title
    again = choose(test, None, random=False, precision=None, scratch=tmp_path)
    assert again == chosen
    result = dynamics.measure(test, chosen, QUICK)
    agree(result)
    assert result["step_fs"] == 0.5
    assert "drift_interval" not in result
    assert "random weights" in as_table(result)


def test_a_structure_of_ones_own(random_artifact32: Path, tmp_path: Path) -> None:
    """A file's atoms, with a model or with random weights for its elements; its name stands in the tables."""
    quartz((2, 2, 1)).write(tmp_path / "my-quartz.cif")
    alloy = bulk("Cu", cubic=True) * (2, 2, 2)
    alloy.symbols[::4] = "Au"
    alloy.write(tmp_path / "alloy.extxyz")
    (given,) = on_structure(tmp_path / "my-quartz.cif", None, "potential")
    result = dynamics.measure(given, Chosen(random_artifact32, "small", True), QUICK)
    agree(result)
    assert (result["name"], result["system"]) == ("potential-my-quartz.cif", "my-quartz.cif")
    assert result["atoms"] == 36
    tests = on_structure(tmp_path / "alloy.extxyz", "potential,propagator", None)
    for test in tests:
        chosen = choose(test, None, random=False, precision=None, scratch=tmp_path)
        assert load(chosen.path).metadata.species == ["Cu", "Au"]
    found = kernels.measure(Benchmark("kernels", tests[0].system), QUICK)  # 42 neighbours within 5 A in copper
    assert (found["atoms"], found["edges"]) == (32, 32 * 42)
    with pytest.raises(EquistrideError, match=r"alloy\.extxyz has elements that small does not know: Au, Cu"):
        check_fits(load(random_artifact32).metadata, "small", tests[0].title, alloy)


def test_released_models_are_found_by_kind(repository: Path) -> None:
    folder = [repository / "models"]
    for kind in ("potential", "propagator"):
        path = released(kind, "quartz", folder)
        assert path is not None
        assert load(path, verify=False).metadata.kind == kind
    assert released("potential", "unobtainium", folder) is None


def test_kernels(kernel_result: dict[str, Any]) -> None:
    rows = {row["title"]: row for row in kernel_result["kernels"]}
    assert list(rows) == [
        "neighbor list",
        "convolution",
        "convolution, forward and backward",
        "edge block, forward and backward",
    ]
    for row in rows.values():
        assert 0 < row["share_of_limit"] < 1.1  # the limit is measured too
        assert row["cpu_us_per_atom"] == pytest.approx(1e6 * row["cpu_seconds"] / 72, rel=1e-12)
        assert row["ns_per_edge"] * kernel_result["edges"] == pytest.approx(1e9 * row["cpu_seconds"], rel=1e-12)
    assert rows["neighbor list"]["bound_by"] == "memory"
    assert rows["edge block, forward and backward"]["bound_by"] == "arithmetic"


def test_peers_are_run_or_named_as_missing(kernel_result: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row for row in kernel_result["kernels"] if row["title"] == "neighbor list"]
    monkeypatch.setattr(peers, "LISTS", ("ase", "nobody"))
    monkeypatch.setitem(foreign.PEERS, "nobody", ("a-package-that-nobody-wrote", foreign.ase))
    there, missing = peers.of_kernels(parse("kernels-quartz-72"), rows, QUICK)
    assert there["peer"] == "ase"
    assert there["ratio"] == pytest.approx(there["cpu_seconds"] / rows[0]["cpu_seconds"], rel=1e-12)
    assert there["ratio"] > 5  # ASE's list is in Python
    assert missing == {"peer": "nobody", "against": "neighbor list", "missing": "not installed"}


def test_nothing_is_installed_under_a_foolish_name() -> None:
    assert python_with("a-package-that-nobody-wrote", []) is None


def test_an_artifact_of_the_other_kind(propagator_file: Path, tmp_path: Path) -> None:
    with pytest.raises(EquistrideError, match="is a propagator; expected a potential"):
        choose(parse("potential-quartz-72"), propagator_file, random=False, precision=None, scratch=tmp_path)


def test_an_artifact_without_the_elements(random_artifact32: Path, tmp_path: Path) -> None:
    settings = Settings(artifact=str(random_artifact32))
    with pytest.raises(EquistrideError, match=r"water-192 has elements that .* does not know: H; expected O, Si"):
        prepare([Benchmark("potential", "water-192")], settings, tmp_path)


def test_a_system_that_is_too_small(random_artifact32: Path) -> None:
    metadata = load(random_artifact32).metadata
    cell = Atoms("SiO2", [[0, 0, 0], [1.6, 0, 0], [0, 1.6, 0]], cell=[3.5, 8, 8], pbc=True)
    with pytest.raises(EquistrideError, match=r"too small for small.*found 3.50 A"):
        check_fits(metadata, "small", "quartz-9", cell)


def test_a_propagator_in_another_precision(propagator_file: Path) -> None:
    settings = Settings(seconds=0.1, precision="float64")
    said = "was exported in float32.*export it again with --dtype float64"
    with pytest.raises(EquistrideError, match=said):  # an option of the verb export
        dynamics.measure(parse("propagator-quartz-72"), Chosen(propagator_file, "small", True), settings)


def test_results_go_through_json(
    potential_result: dict[str, Any], kernel_result: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "out.json"
    keeper = Outfile(path, QUICK)
    assert not path.exists()
    for number, result in enumerate((potential_result, kernel_result), 1):
        keeper.add(result)
        assert len(json.loads(path.read_text())["results"]) == number
    content = read(path)
    assert content["results"] == [potential_result, kernel_result]
    assert content["settings"] | {"peer_pythons": []} == QUICK.summary()  # paths of one machine stay there
    assert {"processor", "packages", "load_average", "cores", "gpus"} <= content["machine"].keys()
    table = markdown([path])
    assert f"{potential_result['ns_per_day']:.3g}" in table
    assert "edge block, forward and backward" in table
    widths = {
        line.count("|") for block in table.split("\n\n") for line in block.splitlines() if line.startswith("| quartz")
    }
    assert widths == {10, 7}
    assert f"ns_per_day: {potential_result['ns_per_day']:.6g}" in as_simple(potential_result)
    plot([path], tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_a_file_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for path, said in (
        (tmp_path, "is a folder"),
        (tmp_path / "file" / "out.json", "does not exist"),
        (Path("/proc/out.json"), "cannot be written"),  # where nobody may make a file
    ):
        with pytest.raises(EquistrideError, match=said):
            Outfile(path, QUICK)
    Outfile(tmp_path / "other.json", QUICK)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("no json", "not a JSON file"),
        ("[]", "holds no benchmark"),
        ('{"format": "equistride-bench", "version": 99, "results": []}', "newer"),
    ],
)
def test_files_that_hold_no_results(content: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(EquistrideError, match=said):
        read(path)


def test_pictures_that_cannot_be_drawn(kernel_result: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    Outfile(path, QUICK).add(kernel_result)
    with pytest.raises(EquistrideError, match="no potential and no propagator"):
        plot([path], tmp_path / "figure.png")
    with pytest.raises(EquistrideError, match="format of the plot"):
        plot([path], tmp_path / "figure.doc")
