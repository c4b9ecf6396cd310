"""The whole way, with networks of a few thousand weights: what comes out, that a broken run ends as an unbroken one, refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution

from equistride.artifact import load
from equistride.artifact.checkpoint import read_checkpoint
from equistride.data.frames import load as load_frames
from equistride.data.quartz import quartz
from equistride.data.silicon import silicon
from equistride.distillation import Distillation, Settings, teacher_of, walks
from equistride.distillation.comparison import student_run
from equistride.distillation.run import Outcome
from equistride.errors import EquistrideError
from equistride.simulation import Settings as Simulation
from equistride.simulation import simulate
from equistride.training.propagator import PropagatorModule
from equistride.writing import locked

MODELS = Path(__file__).resolve().parents[2] / "models"
SMALL = ["model.num_layers=1", "model.channels=4", "model.l_max=1", "model.radial_widths=[8]"]
SETTINGS = Settings(
    supercell=(1, 1, 1), stride_fs=20.0, walks=4, steps=32, frames=110, strides=40, temperatures=(300.0, 500.0)
)  # fmt: skip


@pytest.fixture(autouse=True)
def _short_walks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Walks of a third of a picosecond."""
    monkeypatch.setattr(walks, "EQUILIBRATE_FS", 100.0)
    monkeypatch.setattr(walks, "DECORRELATE_FS", 20.0)
    monkeypatch.setattr(walks, "SEGMENTS", 3)


def distil(folder: Path, *, settings: Settings = SETTINGS, teacher: str = "Si.sw", atoms: Atoms | None = None,
           overrides: list[str] = SMALL, **more: Any) -> Outcome:  # fmt: skip
    return Distillation(
        atoms or silicon(a=5.5), teacher_of(teacher), settings, folder, overrides=overrides, **more
    ).run()


def contents(folder: Path) -> dict[str, Any]:
    """Return what a distillation ended with: weights, the artifact's bytes, runs, and all entries but the time they took."""
    plan = json.loads((folder / "plan.json").read_text())
    plan.pop("seconds")
    plan.pop("teacher_s")
    plan["walks"].pop("expected_s")
    weights = read_checkpoint(folder / "training-3" / "checkpoints" / "last.ckpt")["state_dict"]
    artifact = load(folder / "si-trajcast.pt")
    return {
        "plan": plan,
        "weights": {name: value.numpy().tobytes() for name, value in weights.items()},
        "metadata": artifact.metadata.model_dump_json(),
        "config": (folder / "config.yaml").read_text() + (folder / "config-3.yaml").read_text(),
        "student": (folder / "comparison" / "rollout" / "trajectory.extxyz").read_text(),
        "teacher": load_frames(folder / "comparison" / "teacher-1.npz")[0].positions.tobytes(),
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unbroken distillation of eight atoms of silicon."""
    folder = tmp_path_factory.mktemp("whole") / "si"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("EQUILIBRATE_FS", 100.0), ("DECORRELATE_FS", 20.0), ("SEGMENTS", 3)):
            patch.setattr(walks, name, value)
        distil(folder, licence="MIT", references=["somebody 1985"])
    return folder


def test_what_comes_out(whole: Path, tmp_path: Path) -> None:
    """The relaxed crystal, an artifact that says what it is, a card and a report with the figures of the plan."""
    from equistride.data.structures import read_atoms

    # of LAMMPS's own minimum; forces below 1e-3 eV/A and stresses of 1e-3 eV an atom leave 1e-3 A
    assert read_atoms(whole / "relaxed.extxyz").cell.array[0, 0] == pytest.approx(5.431, abs=1e-3)
    artifact, plan = load(whole / "si-trajcast.pt"), json.loads((whole / "plan.json").read_text())
    metadata = artifact.metadata
    assert (metadata.kind, metadata.stride_fs, metadata.licence) == ("propagator", 20.0, "MIT")
    moved = simulate(whole / "si-trajcast.pt", silicon(2, a=5.431), Simulation(time_fs=100.0, every=5), tmp_path)
    assert moved.step == 5  # eight cells of what it learned from
    assert metadata.description == "Si8 after Si.sw, 300 K, 20 fs a stride"
    assert metadata.accuracy["displacement_mae_percent_of_rms"] == pytest.approx(
        plan["trained"]["test_displacement_percent"], abs=1e-3
    )
    frames = load_frames(whole / "data" / "train.npz")[0]
    assert len(frames) == 4 * 4 * walks.FRAMES  # walks, segments with the one from rest
    # the first segment of a walk begins at rest, with twice the kinetic energy
    assert np.abs(frames.positions[0] - frames.positions[0].round(6)).max() < 1e-6
    assert set(frames.temperature_K) == {300.0, 500.0}
    card = (whole / "README.md").read_text()
    assert f"| all atoms | {plan['trained']['test_displacement_percent']:.2f} % |" in card
    assert "It learned from Si.sw" in card
    assert "All 10 checks" in card
    assert "Do not use it as it is" in card  # so few steps teach next to nothing
    assert plan["faults"]
    corrected = load_frames(whole / "data" / "corrections-1.npz")[0]
    assert len(corrected) == plan["corrections-1"] * walks.FRAMES > 0
    assert (whole / "report.html").is_file()
    assert plan["figures"]["frames"] == [40, 110]
    assert plan["runs"]["rollout"] == {"steps": 40, "failure": ""}
    # the teacher's own motion: 110 frames of 8 atoms at 300 K are some 30 independent ones, an error of 8 %
    assert plan["figures"]["teacher"]["T"][0] == pytest.approx(300.0, rel=0.25)


def raising_at(count: int, error: type[BaseException] = KeyboardInterrupt) -> Callable[..., None]:
    """Return a callback that stops what calls it the so-manieth time."""
    calls = [0]

    def tick(*_: Any) -> None:
        calls[0] += 1
        if calls[0] == count:
            raise error("stopped")

    return tick


def test_killed_in_every_stage_it_ends_the_same(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped while it relaxes, samples, walks, trains and compares, each time in the midst: the same bits at the end."""
    folder = tmp_path / "si"
    stopped = []
    for stage, count in (("relaxation", 2), ("spectrum", 50), ("walks", 3), ("corrections", 8), ("comparison", 105)):
        seen = raising_at(count)

        def progress(name: str, *_: Any, stage: str = stage, seen: Callable[..., None] = seen) -> None:
            if name == stage:
                seen()

        if stage in (
            "corrections",
            "comparison",
        ):  # before them a part of the training, the first between two checkpoints
            with monkeypatch.context() as patch:
                patch.setattr(
                    PropagatorModule, "on_train_batch_end", raising_at(7 if stage == "corrections" else 2, RuntimeError)
                )
                with pytest.raises(RuntimeError, match="stopped"):
                    distil(folder, licence="MIT", references=["somebody 1985"])
        with pytest.raises(KeyboardInterrupt):
            distil(folder, licence="MIT", references=["somebody 1985"], progress=progress)
        stopped.append(len(list(folder.rglob("*"))))
    assert stopped == sorted(stopped)
    assert (folder / "comparison" / "teacher-0.npz").is_file()
    assert not (folder / "comparison" / "teacher-1.npz").exists()
    distil(folder, licence="MIT", references=["somebody 1985"])
    one, other = contents(whole), contents(folder)
    assert one.keys() == other.keys()
    for name in one:
        assert one[name] == other[name], name


def test_what_is_whole_is_not_done_again(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same call on a whole folder evaluates the teacher once, to check it, and changes no file's content."""
    before = {p: p.read_bytes() for p in whole.rglob("*") if p.is_file()}
    seen: list[str] = []
    distil(whole, licence="MIT", references=["somebody 1985"], progress=lambda stage, *_: seen.append(stage))
    assert seen == []
    assert {p: p.read_bytes() for p in whole.rglob("*") if p.is_file()} == before


def test_another_distillation_is_refused(whole: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    with pytest.raises(EquistrideError, match="had another stride; give what it was begun with"):
        distil(whole, settings=replace(SETTINGS, stride_fs=10.0))
    with pytest.raises(EquistrideError, match="had another teacher"):
        distil(whole, teacher="Si.tersoff")
    with pytest.raises(EquistrideError, match="had another structure"):
        distil(whole, atoms=silicon(a=5.4))
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(EquistrideError, match="is not empty"):
        distil(tmp_path)
    with locked(whole), pytest.raises(EquistrideError, match="another process is writing into"):
        distil(whole)


def test_what_was_refused_may_be_told_otherwise(tmp_path: Path) -> None:
    """A key that is no key is refused before any work, and a stride that is too long in a folder that takes another."""
    from dataclasses import replace

    folder = tmp_path / "si"
    with pytest.raises(EquistrideError, match=r"unknown key 'model\.chanels'"):
        distil(folder, overrides=["model.chanels=4"])
    for key, hint in (("trainer.steps=7", "give --steps"), ("data={files: [mine.npz]}", "makes its data itself")):
        with pytest.raises(EquistrideError, match=f"a distillation sets .* itself; found .*{hint}"):
            distil(folder, overrides=[key])
    assert not (folder / "relaxed.extxyz").exists()
    long = replace(SETTINGS, stride_fs=100.0)
    with pytest.raises(EquistrideError, match=r"a stride of 100 fs is too long: the fastest vibration, 1[789]"):
        distil(folder, settings=long)
    with pytest.raises(KeyboardInterrupt):
        distil(folder, progress=lambda stage, *_: raising_at(1)() if stage == "walks" else None)
    assert json.loads((folder / "plan.json").read_text())["stride"]["stride_fs"] == 20.0


def test_a_potential_of_a_calculator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copper under EMT, a calculator of ASE, taught to a small NequIP with virials from strained cells; its energy is kept."""
    from equistride.distillation import run, validation

    monkeypatch.setattr(validation, "NVE_PS", 1.0)
    monkeypatch.setattr(run, "SAMPLES", (100, 100))
    settings = Settings(
        student="nequip", supercell=(1, 1, 1), stride_fs=20.0, walks=4, steps=12, frames=20, strides=12,
        temperatures=(300.0,), timestep_fs=4.0, cutoff=4.0,
    )  # fmt: skip
    small = ["model.num_layers=1", "model.channels=4", "model.l_max=1", "model.radial_widths=[8]"]
    outcome = distil(tmp_path / "cu", settings=settings, teacher="ase.calculators.emt:EMT",
                     atoms=bulk("Cu", cubic=True), overrides=small)  # fmt: skip
    metadata = load(outcome.files["artifact"]).metadata
    assert (metadata.kind, metadata.architecture) == ("potential", "nequip")
    frames = load_frames(tmp_path / "cu" / "data" / "train.npz")[0]
    assert frames.virial is not None
    assert np.isfinite(frames.virial).all()
    assert len(np.unique(frames.cell[:, 0, 0])) == 2  # one walk of four is strained
    assert outcome.found["trained"].keys() >= {"test_force_mae", "test_energy_mae", "test_virial_mae"}
    # any network of ours is smooth; a tiny one too keeps its energy
    assert abs(outcome.found["conserved"]["drift_meV_per_atom_per_ps"]) < 0.5
    card = outcome.files["card"].read_text()
    assert "| force |" in card
    assert "At constant energy" in card


def test_an_artifact_guards_what_it_taught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The teacher's total energy is watched along the strides of a student that has learned next to nothing."""
    from equistride.distillation import run, stride, validation

    for name, value in (("EQUILIBRATE_FS", 20.0), ("DECORRELATE_FS", 4.0), ("SEGMENTS", 1)):
        monkeypatch.setattr(walks, name, value)
    monkeypatch.setattr(validation, "GUARDED", 63)
    monkeypatch.setattr(run, "SAMPLES", (100, 100))
    monkeypatch.setattr(stride, "SEEN", 0.05)
    settings = Settings(
        supercell=(1, 1, 1), stride_fs=4.0, walks=4, steps=5, frames=10, strides=10, temperatures=(300.0,), timestep_fs=2.0,
        budget_s=60.0,
    )  # fmt: skip
    outcome = distil(
        tmp_path / "si", settings=settings, teacher=str(MODELS / "silicon-esen" / "silicon-esen.pt"), atoms=silicon()
    )
    guarded = outcome.found["guarded"]
    assert guarded["strides"] > 0
    assert "the teacher as guard every 10 strides" in outcome.files["card"].read_text()


@pytest.mark.parametrize(("temperature", "least", "most"), [(3000.0, 0, 1), (1100.0, 2, 60)])
def test_a_run_that_fails_says_after_how_many_strides(
    tmp_path: Path, temperature: float, least: int, most: int
) -> None:
    """Quartz that is heated until its propagator covers it no longer, at once or by and by: as many strides as were shown."""
    shown = [0]
    strides = Simulation(
        time_fs=9000.0, timestep_fs=30.0, every=1, trajectory="extxyz", temperature=temperature, seed=1
    )
    start = quartz((2, 2, 2))
    MaxwellBoltzmannDistribution(start, temperature_K=300, rng=np.random.default_rng(1))
    propagator = MODELS / "quartz-trajcast-30fs" / "quartz-trajcast-30fs.pt"
    found = student_run(propagator, start, strides, tmp_path / "run", lambda done, _: shown.append(done))
    assert found["failure"]
    assert least <= found["steps"] == max(shown) <= most
