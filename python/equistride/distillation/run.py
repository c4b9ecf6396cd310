"""The whole way from a structure and a teacher to a student with its card: stages, each of which is done once."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from equistride.distillation import (
    comparison,
    corrections,
    crystal,
    learning,
    network,
    plan,
    speed,
    stride,
    validation,
    walks,
)
from equistride.distillation.card import card
from equistride.distillation.ledger import Ledger
from equistride.distillation.settings import Settings
from equistride.distillation.teacher import Teacher
from equistride.errors import EquistrideError
from equistride.simulation.run import digest_of
from equistride.trajectories.trajectory import Trajectory
from equistride.writing import locked, write

SAMPLE_FS = 2.0
"""Between frames of the run whose spectrum is read: frequencies to 250 THz."""
SAMPLES = (300, 1000)
"""Frames of that run: at least, and where the budget has room."""
SPECTRUM = 0.12
"""Share of the budget for it."""
FREE = {
    "stride_fs": "stride", "student": "stride", "walks": "walks", "strain": "walks", "budget_s": "walks", "steps": "work",
    "frames": "work", "strides": "work", "cutoff": "work", "overrides": "work",
}  # fmt: skip
"""What may still be told otherwise in a folder, until the entry that uses it is there; all else until the teacher's is."""
TRAIN = "data/train.npz"
Progress = Callable[[str, float, float], None]
"""Told the stage, what is done of it and its total."""


@dataclass(frozen=True)
class Outcome:
    """What a distillation ends with: its files by name, and all that was decided and found."""

    files: dict[str, Path]
    found: dict[str, Any]


class Distillation:
    """One folder's way.

    Parameters
    ----------
    structure, teacher, settings
        What is distilled.
    folder
        Where all goes; it is made.
    name
        Of the artifact.
    overrides
        ``key.key=value`` over the training's configuration.
    command
        For the card.
    licence, references
        For the artifact's metadata.
    progress
        Told how far each stage is.
    say
        Told in a sentence what was decided.
    """

    def __init__(
        self, structure: Atoms, teacher: Teacher, settings: Settings, folder: Path, *, name: str = "",
        overrides: list[str] | None = None, command: str = "equistride distil", licence: str = "",
        references: list[str] | None = None, progress: Progress | None = None, say: Callable[[str], None] | None = None,
    ) -> None:  # fmt: skip
        self.structure, self.teacher, self.settings, self.folder = structure, teacher, settings, folder
        self.name = name or f"{structure.get_chemical_formula(empirical=True).lower()}-{settings.student}"
        self.overrides, self.command, self.licence = overrides or [], command, licence
        self.references, self._progress = references or [], progress or (lambda *_: None)
        self._say = say or (lambda _: None)
        self.step_fs = settings.step_fs(structure.get_chemical_symbols())
        self.files = {
            "artifact": folder / f"{self.name}.pt", "card": folder / "README.md", "report": folder / "report.html",
            "config": folder / "config.yaml", "plan": folder / "plan.json",
        }  # fmt: skip

    def run(self) -> Outcome:
        """Go the whole way, or what is left of it.

        Raises
        ------
        EquistrideError
            For a structure, a teacher or a stride that cannot work, another distillation's folder, and one that another process
            works in.
        KeyboardInterrupt
            On a stop; what was made stays, and the same call goes on.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder):
            crystal.check(self.structure, self.teacher)
            self.ledger = Ledger(self.files["plan"])
            self._begin()
            if "work" not in self.ledger:  # what the user set over the configuration is refused before the work
                self._configured(self.structure, self.settings.stride_fs or stride.LONGEST_FS, 1000, 1000)
            self.ledger.once("teacher", lambda: {"name": self.teacher.name})
            atoms = self._at_rest()
            motion = self._motion(atoms)
            chosen = self.ledger.once("stride", lambda: self._stride(motion))
            self._say(f"{atoms.get_chemical_formula()} at rest; stride {chosen['stride_fs']:g} fs: {chosen['why']}")
            self._data_and_plan(atoms, chosen["stride_fs"])
            self._learn(atoms, chosen["stride_fs"])
            self._validate(atoms, chosen["stride_fs"])
            return Outcome(self.files, self._entries())

    def _tick(self, stage: str) -> Callable[[int, int], None]:
        return lambda done, total: self._progress(stage, done, total)

    def _begin(self) -> None:
        """Write what is distilled into the folder, or compare with what was."""
        path = self.folder / "distil.json"
        said: dict[str, Any] = json.loads(json.dumps({
            "structure": digest_of(self.structure),
            "teacher": [self.teacher.name, self.teacher.digest], "name": self.name, "overrides": self.overrides,
            **asdict(self.settings),
        }))  # fmt: skip
        if path.is_file():
            before = json.loads(path.read_text())
            other = sorted(key for key in said if before.get(key) != said[key])
            if not any(FREE.get(key, "teacher") in self.ledger for key in other):
                write(path, json.dumps(said, indent=1) + "\n")
                other = []
            if other:
                raise EquistrideError(
                    f"the distillation in {self.folder} had another {', '.join(k.removesuffix('_fs') for k in other)}",
                    hint="give what it was begun with, or choose another folder",
                )
            return
        if any(self.folder.iterdir()):
            raise EquistrideError(f"{self.folder} is not empty", hint="choose a new folder, or that of a distillation")
        write(path, json.dumps(said, indent=1) + "\n")

    def _at_rest(self) -> Atoms:
        path = self.folder / "relaxed.extxyz"
        tick = self._tick("relaxation")
        self.ledger.once(
            "relaxation", lambda: len(crystal.relaxed(self.structure, self.teacher, self.settings, path, tick))
        )
        atoms = crystal.relaxed(self.structure, self.teacher, self.settings, path, tick)
        return crystal.repeated(atoms, self.settings)

    def _motion(self, atoms: Atoms) -> stride.Motion:
        step_s = self.ledger.once("teacher_s", lambda: speed.of_teacher(self.teacher, atoms, self.settings))
        found = self.ledger.once("motion", lambda: stride.motion_of(self._sampled(atoms, step_s)).as_dict())
        return stride.Motion(**found)

    def _sampled(self, atoms: Atoms, step_s: float) -> Trajectory:
        """Return an NVE run of the teacher with frames close together."""
        every = max(1, round(SAMPLE_FS / self.step_fs))
        room = SPECTRUM * self.settings.budget / (every * step_s)
        count = int(np.clip(room - walks.EQUILIBRATE_FS / SAMPLE_FS, *SAMPLES))
        run, shots = self.teacher.run(atoms, self.step_fs), []
        try:
            run.thermalise(
                self.settings.temperature, 0, damping_fs=walks.DAMPING_FS, seed=self.settings.seed, fresh=True
            )
            steps = round(min(walks.EQUILIBRATE_FS, count * SAMPLE_FS) / self.step_fs)
            walks.equilibrate(run, self.settings.temperature, steps, self.settings.seed)
            for k in range(count):
                shots.append(run.nve(every))
                self._progress("spectrum", k + 1, count)
        finally:
            run.close()
        return Trajectory(
            positions=np.stack([s.positions for s in shots]), velocities=np.stack([s.velocities for s in shots]),
            symbols=tuple(atoms.get_chemical_symbols()), time=every * self.step_fs * np.arange(count),
            cell=crystal.box_of(atoms), masses=atoms.get_masses(), name="teacher",
        )  # fmt: skip

    def _stride(self, motion: stride.Motion) -> dict[str, Any]:
        found, why = stride.choose(motion, self.step_fs, self.settings.stride_fs)
        return {"stride_fs": found, "why": why}

    def _data_and_plan(self, atoms: Atoms, stride_fs: float) -> None:
        """Make the walks, and fix how much work follows."""
        steps, step_s = round(stride_fs / self.step_fs), self.ledger["teacher_s"]
        count = self.ledger.once("walks", lambda: plan.walks(self.settings, step_s, steps, self.step_fs))["walks"]
        data = self.folder / "data"

        def make() -> int:
            walks.make(self.teacher, atoms, self.settings, stride_fs, count, data, self._tick("walks"))
            return count

        self.ledger.once("data", make)

        def work() -> dict[str, Any]:
            s = self.settings
            if s.steps and s.frames and s.strides:
                every = max(5, s.steps // 50)
                states = plan.states_of(s, step_s, steps)
                return asdict(plan.Work(s.steps, every, s.frames, s.strides, states, 0.0, 0.0, 0.0))
            measured = speed.of_student(self._configured(atoms, stride_fs, 1000, 1000), self.folder)
            return asdict(plan.work(s, self.ledger.spent, step_s, steps, *measured))

        fixed = self.ledger.once("work", work)
        left = sum(fixed[f"{name}_s"] for name in ("training", "comparison", "strides"))
        about = f"; about {left / 60:.0f} min for all, measured here" if left else ""
        self._say(
            f"{count} walks, {fixed['steps']} steps of training, {fixed['frames']} frames of the teacher and "
            f"{fixed['strides']} of the student to compare{about}"
        )

    def _configured(
        self, atoms: Atoms, stride_fs: float, steps: int, every: int, part: int = 0, files: tuple[str, ...] = (TRAIN,)
    ) -> Any:
        """Write the training's configuration, or that of a part of it, and return it."""
        virials = bool(atoms.pbc.any()) and "stress" in self.teacher.calculator.implemented_properties
        liquid = "motion" in self.ledger and self.ledger["motion"]["liquid"]
        tree = network.configuration(
            self.name, atoms, self.settings, stride_fs, steps, every, virials, part, files, liquid=liquid
        )
        path = self.folder / f"config-{part + 1}.yaml" if part else self.files["config"]
        # each later part begins with the weights of the one before
        overrides = [text for text in self.overrides if not (part and text.startswith("initialise_from="))]
        return network.written(tree, path, overrides)

    def _learn(self, atoms: Atoms, stride_fs: float) -> None:
        """Train, a propagator in parts with corrections between them, and write the artifact."""
        work, files = self.ledger["work"], [TRAIN]
        ends = [work["steps"]]
        if self.settings.strides_through:
            ends = [
                round(work["steps"] * sum(p.share for p in network.PARTS[: k + 1])) for k in range(len(network.PARTS))
            ]
        about = f"{atoms.get_chemical_formula()} after {self.teacher.name}, {self.settings.temperature:g} K"
        about += f", {stride_fs:g} fs a stride" if self.settings.strides_through else ""
        for part, (first, end) in enumerate(pairwise([0, *ends])):
            run = self.folder / network.folder_of(part)
            last = end == ends[-1]
            config = self._configured(
                atoms, stride_fs, max(1, end - first), work["checkpoint_every"], part, tuple(files)
            )
            tick = self._tick("training" if not part else f"training, part {part + 1}")
            errors = self.ledger.once(
                "trained" if last else f"trained_{part + 1}", partial(learning.learn, config, self.folder, run, tick)
            )
            if last:
                self.ledger.once("artifact", partial(
                    learning.write_artifact, config, self.folder, run, self.files["artifact"], errors, description=about,
                    licence=self.licence, references=self.references,
                ))  # fmt: skip
                return
            name, apart = f"corrections-{part + 1}", network.PARTS[part + 1].apart
            if self.ledger.once(name, partial(self._correct, config, run, errors, atoms, stride_fs, name, apart)):
                files.append(f"data/{name}.npz")

    def _correct(
        self, config: Any, run: Path, errors: dict[str, float], atoms: Atoms, stride_fs: float, name: str, apart: int
    ) -> int:
        """Let the student of a part of the training stride, and the teacher go on from there; return the segments made."""
        folder = self.folder / name
        draft = folder / "student.pt"
        folder.mkdir(exist_ok=True)
        if not draft.is_file():
            learning.write_artifact(config, self.folder, run, draft, errors)
        return corrections.made(
            draft, self.teacher, atoms, self.settings, stride_fs, self.ledger["work"]["states"], apart, folder / "strides",
            self.folder / "data" / f"{name}.npz", self._tick("corrections"),
        )  # fmt: skip

    def _validate(self, atoms: Atoms, stride_fs: float) -> None:
        """Compare with the teacher, and write report and card."""
        artifact, work, ledger = self.files["artifact"], self.ledger["work"], self.ledger
        start = comparison.start_of(self.folder / "data" / "test.npz", atoms)
        ledger.once("checks", lambda: validation.checks(artifact, start))
        place = self.folder / "comparison"

        def taught() -> Trajectory:
            return comparison.teacher_run(
                self.teacher, start, self.settings, stride_fs, work["frames"], place, self._tick("comparison")
            )

        ledger.once("comparison", lambda: taught().frames)
        runs = ledger.once("runs", lambda: self._strides(artifact, start, stride_fs, work["strides"], place))
        if self.settings.strides_through and self.teacher.artifact is not None:
            guard = self.teacher.artifact
            ledger.once("guarded", lambda: validation.guarded(artifact, guard, start, self._tick("guard")))
        if not self.settings.strides_through:
            T, seed = self.settings.temperature, self.settings.seed
            ledger.once("conserved", lambda: validation.conserved(artifact, atoms, T, seed))
        tables = {
            "model": {
                "file": artifact.name,
                "teacher": self.teacher.name,
                "parameters": ledger["artifact"]["parameters"],
            },
            "settings": {"stride": f"{stride_fs:g} fs", "why": ledger["stride"]["why"], "command": self.command},
        }
        title = f"{self.name}: {atoms.get_chemical_formula()} after {self.teacher.name}"
        if runs["rollout"]["steps"] >= 10 * (1 if self.settings.strides_through else round(stride_fs / self.step_fs)):
            ledger.once("figures", lambda: validation.reported(
                place / "rollout", taught(), self.files["report"], title, tables
            ))  # fmt: skip
        ledger.once("faults", lambda: validation.faults(self.settings, self._entries()))
        formula = self.structure.get_chemical_formula(empirical=True)
        write(self.files["card"], card(self.name, formula, self.command, self.settings, self._entries()))

    def _strides(self, artifact: Path, start: Atoms, stride_fs: float, strides: int, place: Path) -> dict[str, Any]:
        """Run the student; each run begins where the last ended."""
        made: dict[str, Any] = {}
        for name, simulation in comparison.simulations(self.settings, stride_fs, strides, self.step_fs):
            made[name] = comparison.student_run(artifact, start, simulation, place / name, self._tick("student"))
            if made[name]["failure"]:
                break
            start = validation.last_frame(place / name, start)
        return made

    def _entries(self) -> dict[str, Any]:
        return {**self.ledger.entries, "step_fs": self.step_fs}
