"""The conservation test passes a sound potential, fails each known fault and names it, in either engine."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from faulty_potentials import CAP, FAULTS, argon, write_argon
from random_models import random_potential, write_artifact

from equistride.artifact import load
from equistride.artifact.structure import structure_of
from equistride.conservation.nve import Conservation, Setting, conservation, start_of
from equistride.conservation.probes import WORK_BOUND, line_jumps, loop_work, probe
from equistride.data.quartz import quartz
from equistride.engines.ase import EquistrideCalculator
from equistride.engines.nve import ASEVerlet, OpenMMVerlet
from equistride.errors import EquistrideError
from equistride.importers.sevennet import import_sevennet
from equistride.trajectories.nve_report import write_conservation

# argon is slow: 10 fs is to it what 1 fs is to quartz
SETTING = Setting(temperature=40.0, time=8.0, timestep=5.0, timesteps=(2.5, 5.0, 10.0))
CAUSES = {"direct": "direct forces", "envelope": "no envelope at the cutoff", "cap": "neighbour cap"}


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("argon")
    return {fault: write_argon(folder / f"{fault}.pt", fault) for fault in FAULTS}


def outcome(path: Path, setting: Setting = SETTING) -> Conservation:
    calculator = EquistrideCalculator(path)
    result = conservation(argon(), calculator, ASEVerlet(calculator), setting)
    result.findings = probe(calculator.model, structure_of(argon(), calculator.model))
    return result


def test_a_sound_potential_passes(artifacts: dict[str, Path], tmp_path: Path) -> None:
    result = outcome(artifacts["none"])
    assert result.passed, result.summary()
    assert result.causes == result.notes == []
    assert result.verdict().startswith("pass")
    assert result.drift is not None
    assert result.exponent is not None
    assert abs(result.drift.slope) < 0.002  # meV/atom/ps
    assert abs(result.exponent.value - 2) < 0.05
    # relaxed atoms take half of the kinetic energy into their bonds
    assert result.temperature == pytest.approx(20.0, abs=4.0)
    write_conservation(result, tmp_path / "out", title="argon", settings={"Engine": "ase"})
    stored = json.loads((tmp_path / "out" / "nve.json").read_text())
    assert stored["passed"] is True
    assert stored["exponent"] == pytest.approx(result.exponent.value)
    assert {p.name for p in (tmp_path / "out").iterdir()} >= {"nve.json", "nve.npz", "nve.png", "report.html"}
    with np.load(tmp_path / "out" / "nve.npz") as z:
        assert len(z["drift_time_fs"]) == SETTING.drift_steps + 1


@pytest.mark.parametrize("fault", ["direct", "envelope", "cap"])
def test_a_fault_fails_and_is_named(artifacts: dict[str, Path], fault: str) -> None:
    result = outcome(artifacts[fault], replace(SETTING, time=3.0))
    assert not result.passed
    assert not result.drift_passed or not result.exponent_passed, "the run itself shows it, not the probes alone"
    assert result.causes == [CAUSES[fault]]
    assert CAUSES[fault] in result.verdict()
    if fault == "cap":
        remarks = " ".join(finding.remark for finding in result.findings)
        assert f"neighbour {CAP} and {CAP + 1}" in remarks


@pytest.mark.parametrize(
    ("switch", "cause"),
    [
        ({}, None),
        ({"forces": "direct"}, "direct forces"),
        ({"max_neighbors": 12}, "neighbour cap"),
        ({"envelope": "off"}, "no envelope at the cutoff"),
    ],
)
def test_ablated_networks_are_told_apart(tmp_path: Path, switch: dict[str, object], cause: str | None) -> None:
    """The eSEN network with one change each, by probes of the file alone, on quartz."""
    model = load(write_artifact(random_potential(1, **switch), tmp_path / "esen.pt", "float64"))
    findings = probe(model, structure_of(quartz(), model))
    assert {finding.cause for finding in findings if not finding.passed} == ({cause} if cause else set())
    if cause == "neighbour cap":
        assert any("neighbour 12 and 13" in finding.remark for finding in findings)


def test_the_loop_tells_a_gradient(artifacts: dict[str, Path]) -> None:
    atoms = argon()
    atoms.rattle(0.1, seed=1)
    structure = structure_of(atoms, load(artifacts["none"]))
    assert loop_work(load(artifacts["none"]), structure) < 1e-7
    assert loop_work(load(artifacts["direct"]), structure) > 1e-5
    # a sum over points of the circle that has converged, so the work is the forces' own
    assert loop_work(load(artifacts["direct"]), structure, most=32) == pytest.approx(
        loop_work(load(artifacts["direct"]), structure), rel=0.01
    )


def test_the_loop_takes_more_points_where_forces_have_kinks(tmp_path: Path) -> None:
    """XPLOR's envelope is smooth but for its curvature: 32 points say work where there is none."""
    checkpoint = Path(__file__).resolve().parents[1] / "data" / "nequip" / "sevennet-d.pth"
    import_sevennet(checkpoint, tmp_path / "xplor.pt", elements=["Mg", "O"], dtype="float64")
    model = load(tmp_path / "xplor.pt")
    atoms = bulk("MgO", "rocksalt", 4.4, cubic=True)
    atoms.rattle(0.05, seed=1)
    structure = structure_of(atoms, model)
    assert loop_work(model, structure, most=32) > 5 * WORK_BOUND
    assert loop_work(model, structure) < WORK_BOUND


def test_a_jump_is_found_where_it_is(artifacts: dict[str, Path]) -> None:
    """Two atoms; the second leaves the cutoff after 0.07 A, where the pair energy without envelope is known."""
    model = load(artifacts["envelope"])
    pair = Atoms("Ar2", [[0, 0, 0], [5.33, 0, 0]])
    (jump,), spike = line_jumps(model, structure_of(pair, model), 1, np.array([2.0, 0, 0]))
    six = (3.4 / 5.4) ** 6
    assert jump.place == pytest.approx(0.07, abs=1e-8)
    assert jump.energy == pytest.approx(4 * 0.0104 * (six - six * six), rel=1e-6)
    assert jump.cause == "no envelope at the cutoff"
    assert spike > 100
    sound = load(artifacts["none"])
    assert line_jumps(sound, structure_of(pair, sound), 1, np.array([1.0, 0, 0]))[0] == []


def test_engines_agree_step_by_step(artifacts: dict[str, Path]) -> None:
    """Velocity Verlet in OpenMM and ASE from one start, in a skewed cell that OpenMM needs turned."""
    atoms = argon()
    atoms.set_cell(atoms.cell.array @ np.array([[1.0, 0.05, 0.02], [-0.03, 1, 0], [0.02, 0.1, 1]]), scale_atoms=True)
    calculator = EquistrideCalculator(artifacts["none"])
    start, _ = start_of(atoms, calculator, SETTING)
    assert abs(start.get_momenta().sum(0)).max() < 1e-12
    here = np.array(list(ASEVerlet(calculator)(start, 5.0, 40, 4)))
    there = np.array(list(OpenMMVerlet(artifacts["none"], atoms)(start, 5.0, 40, 4)))
    assert here[:, 0] == pytest.approx(there[:, 0])
    assert here[-1, 0] == 200.0
    # constants of ASE and OpenMM differ in the eighth digit
    assert np.abs(here[:, 1:] - there[:, 1:]).max() < 1e-6 * np.abs(here[:, 1:]).max()


def test_a_run_that_is_stopped_keeps_what_it_has(artifacts: dict[str, Path]) -> None:
    """Ctrl-C in the drift run ends it with a verdict on the samples so far; before that there is nothing to keep."""
    calculator = EquistrideCalculator(artifacts["none"])
    steps = sum(SETTING.scaling_steps(dt) for dt in SETTING.timesteps)
    for last, keeps in ((steps + 400, True), (steps + 20, False), (5, False)):
        seen = [0]

        def stop(more: int, seen: list[int] = seen, last: int = last) -> None:
            seen[0] += more
            if seen[0] > last:
                raise KeyboardInterrupt

        if not keeps:
            with pytest.raises(KeyboardInterrupt):
                conservation(argon(), calculator, ASEVerlet(calculator), SETTING, tick=stop)
            continue
        result = conservation(argon(), calculator, ASEVerlet(calculator), SETTING, tick=stop)
        assert result.drift is not None
        assert result.drift.span < 0.5 * SETTING.time
        assert any("stopped after 2" in note for note in result.notes), result.notes


class Stiff(Calculator):
    """Springs so stiff that 1 fs is too long."""

    implemented_properties = ["energy", "forces"]

    def calculate(self, atoms: Atoms, properties: list[str], changes: list[str] = all_changes) -> None:
        super().calculate(atoms, properties, changes)
        far = atoms.positions - atoms.positions.mean(0)
        if not np.isfinite(far).all() or abs(far).max() > 1e6:
            raise EquistrideError("the position of atom 0 is not finite")
        self.results = {"energy": float(5e3 * (far**2).sum()), "forces": -1e4 * far}


def test_a_run_that_breaks_off_is_a_failure() -> None:
    calculator = Stiff()
    setting = Setting(time=0.5, timesteps=(0.25, 0.5, 1.0), timestep=1.0)
    atoms = Atoms("He2", [[0, 0, 0], [1e-3, 0, 0]])
    result = conservation(atoms, calculator, ASEVerlet(calculator), setting)
    assert not result.passed
    assert result.drift is None
    assert any("1 fs broke off" in note and "not finite" in note for note in result.notes)
    assert "shorter time step" in result.verdict()
    assert json.loads(json.dumps(result.summary()))["drift_meV_per_atom_per_ps"] is None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"timesteps": (1.0, 1.0, 2.0)}, "three different time steps"),
        ({"timesteps": (-1.0, 1.0, 2.0)}, "three different time steps"),
        ({"time": 0.1}, "too short for a drift; expected 200 steps or more; found 100"),
        ({"temperature": -3.0}, "temperature of the test must be positive"),
        ({"timestep": float("nan")}, "timestep of the test must be positive"),
    ],
)
def test_settings_that_make_no_test(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(EquistrideError, match=said):
        Setting(**wrong)  # type: ignore[arg-type]


def test_structures_that_make_no_test(artifacts: dict[str, Path]) -> None:
    calculator = EquistrideCalculator(artifacts["none"])
    for atoms, said in (
        (Atoms("Ar", [[0, 0, 0]]), "single atom"),
        (Atoms("NeAr", [[0, 0, 0], [0, 0, 4.0]]), "does not know: Ne"),
        (Atoms("Ar2", [[0, 0, 0], [0, 0, 0]]), "on top of each other"),
    ):
        with pytest.raises(EquistrideError, match=said):
            conservation(atoms, calculator, ASEVerlet(calculator), SETTING)
    with pytest.raises(EquistrideError, match="periodic along all axes or none"):
        OpenMMVerlet(artifacts["none"], Atoms("Ar2", [[0, 0, 0], [0, 0, 4]], cell=[9, 9, 9], pbc=[1, 1, 0]))


@pytest.mark.slow
def test_the_released_quartz_model_conserves(repository: Path) -> None:
    """72 atoms, 2 ps, in OpenMM: minutes."""
    path = repository / "models" / "quartz-esen" / "quartz-esen.pt"
    atoms = quartz((2, 2, 2))
    calculator = EquistrideCalculator(path, dtype=torch.float64)
    result = conservation(atoms, calculator, OpenMMVerlet(path, atoms), Setting(time=2.0, drift_bound=0.02))
    assert result.drift_passed
    assert result.exponent_passed
