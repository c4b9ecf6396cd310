"""The loop of a simulation: steps, frames, checkpoints, and a stop that loses nothing."""

from __future__ import annotations

import hashlib
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import write as write_atoms
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary, ZeroRotation, force_temperature

from equistride.artifact.metadata import Metadata, metadata_of
from equistride.artifact.model import load
from equistride.data.structures import columns_of
from equistride.engines.charge_spin import System, said_by, set_aside
from equistride.engines.nve import standard
from equistride.errors import EquistrideError, tell
from equistride.simulation.checkpoint import Checkpoint, read_checkpoint
from equistride.simulation.engine import Engine, Moment
from equistride.simulation.files import Files, run_files
from equistride.simulation.settings import Settings
from equistride.writing import locked, whole_file

CHUNK = 10
"""Most steps between looks at the wish to stop."""
FRAMES_A_CHECKPOINT = 10
"""Frames between checkpoints."""
STOP = "stop"
"""A file of this name in the folder asks for a stop."""

MINIMISED = "minimised.extxyz"
"""What a minimisation writes."""
MOST_STEPS = 10_000
"""Of a minimisation."""
Report = Callable[[float, Moment, float], None]
"""Told the simulated time [fs], the moment and the speed [ns/day] at each frame."""


@dataclass(frozen=True)
class Result:
    """How a simulation ended: its settings with the time step used, steps made, whether it was stopped before its end, the last
    moment, the speed [ns/day], files by name, what the model says of itself, and the engine, in whose ``moment`` many processes
    meet."""

    settings: Settings
    step: int
    stopped: bool
    last: Moment
    speed: float
    files: dict[str, Path]
    metadata: Metadata
    engine: Engine

    @property
    def leads(self) -> bool:
        """Whether this process writes."""
        return self.engine.leads


def simulate(
    model: Path,
    structure: Atoms,
    settings: Settings,
    folder: Path,
    *,
    resume: bool = False,
    report: Report | None = None,
) -> Result:
    """Run a simulation into a folder: trajectory, ``structure.pdb``, ``state.csv``, and checkpoints.

    A first SIGINT or SIGTERM ends it after a few steps with a checkpoint, from which ``resume`` goes on.

    Parameters
    ----------
    model
        Artifact of a potential or a propagator.
    structure
        Atoms; velocities that they bring are used, else they are drawn at the temperature, without momentum; of a potential at
        twice the temperature, half of which goes into the bonds of a structure at rest.
    settings
        What to do. A propagator's stride takes the place of the time step.
    folder
        Made where it is missing.
    resume
        Go on from the checkpoint in the folder; settings, model and structure must be the same, but the run may be longer.
    report
        Called at each frame on the process that writes.

    Raises
    ------
    EquistrideError
        For a folder that holds another run, settings that do not fit the model, and whatever the engine refuses.
    """
    metadata = metadata_of(model) or load(model).metadata  # which says why it is no artifact
    settings = _fitting(settings, metadata)
    _check_box(structure, settings)
    atoms = prepared(structure, metadata, settings)
    said = asdict(settings) | {
        "model": hashlib.sha256(model.read_bytes()).hexdigest(),
        "structure": digest_of(structure),
        "guard": hashlib.sha256(Path(settings.guard).read_bytes()).hexdigest() if settings.guard else None,
    }
    past = _past(folder, settings, said) if resume else None
    engine = start(model, metadata, atoms, settings)
    if past is not None:
        engine.restore(past.state, past.step)
    elif engine.leads:
        _fresh(folder, settings)
    with locked(folder) if engine.leads else nullcontext():
        if settings.ensemble == "minimise":
            paths = _minimise(engine, atoms, settings, folder)
            return Result(settings, 0, False, engine.moment(), 0.0, paths, metadata, engine)
        files = None
        if engine.leads:
            files = Files(folder, atoms, settings, metadata.kind == "potential", past.sizes if past else {})

        def keep(step: int) -> None:
            state = engine.state()
            if files is not None:
                Checkpoint(step, said, files.sizes(), state).save(folder)

        with _stoppable(folder, engine.leads) as wished:
            made = _advance(engine, settings, past.step if past else 0, files, keep, wished, report)
        return Result(settings, *made, run_files(folder, settings), metadata, engine)


def _fitting(settings: Settings, metadata: Metadata) -> Settings:
    if metadata.kind == "potential":
        if settings.guard is not None:
            raise EquistrideError(
                "a guard watches over a propagator, and this is a potential", hint="leave --guard out"
            )
        return settings
    if settings.ensemble == "minimise":
        raise EquistrideError("a propagator knows no forces, so that there is not an energy",
                              expected="--ensemble nvt, nve or npt", found=settings.ensemble)  # fmt: skip
    if settings.ensemble == "npt" and settings.guard is None:
        raise EquistrideError("a propagator knows no forces, so that a potential must say what a move of the box costs",
                              hint="give one with --guard")  # fmt: skip
    if settings.precision is not None:
        raise EquistrideError("a propagator runs in its own precision", hint="leave --precision out")
    if settings.timestep_fs is None:
        return replace(settings, timestep_fs=metadata.stride_fs)
    return replace(settings, timestep_fs=metadata.stride_near(settings.timestep_fs))


def _check_box(structure: Atoms, settings: Settings) -> None:
    """Refuse a pressure without a box; tell of a time that is no whole number of steps."""
    if settings.ensemble == "npt" and not structure.pbc.all():
        raise EquistrideError("a pressure needs a box that is periodic along all three axes", expected="--ensemble nvt or nve",
                              found=f"npt with pbc {structure.pbc.tolist()}")  # fmt: skip
    made = settings.steps * settings.step_fs
    if settings.ensemble != "minimise" and abs(made - settings.time_fs) > 1e-6 * settings.time_fs:
        tell(
            f"a time of {settings.time_fs:g} fs is {settings.steps} steps of {settings.step_fs:g} fs: {made:g} fs are run"
        )


def prepared(structure: Atoms, metadata: Metadata, settings: Settings) -> Atoms:
    """Return the atoms as every engine takes them: turned, with the propagator's masses, with velocities."""
    atoms = standard(structure)
    if metadata.charge_spin == "none" and (sentence := set_aside(said_by(atoms))):
        tell(sentence)
        atoms.info = {key: value for key, value in atoms.info.items() if key not in System._fields}
        for name in ("initial_charges", "initial_magmoms"):
            atoms.arrays.pop(name, None)
    if metadata.kind == "propagator":
        velocities, mass = atoms.get_velocities(), dict(zip(metadata.species, metadata.masses, strict=True))
        atoms.set_masses(
            [mass.get(s, m) for s, m in zip(atoms.get_chemical_symbols(), atoms.get_masses(), strict=True)]
        )
        atoms.set_velocities(velocities)
    if settings.ensemble == "minimise" or structure.get_momenta().any():
        return atoms
    warm = settings.temperature
    if metadata.kind == "potential":
        warm *= 2.0
        tell(f"velocities are drawn at {warm:g} K: half of that goes into the bonds of a structure at rest")
    MaxwellBoltzmannDistribution(atoms, temperature_K=warm, rng=np.random.default_rng(settings.seed))
    if len(atoms) > 2:
        Stationary(atoms)
        if not atoms.pbc.any():
            ZeroRotation(atoms)
        # ASE counts 3N degrees of freedom
        force_temperature(atoms, warm * (len(atoms) - 1) / len(atoms), unit="K")
    return atoms


def start(model: Path, metadata: Metadata, atoms: Atoms, settings: Settings) -> Engine:
    """Return the engine of the settings with prepared atoms and the model in it."""
    if settings.engine == "openmm":
        from equistride.simulation.openmm import OpenMMEngine

        return OpenMMEngine(model, metadata, atoms, settings)
    if settings.engine == "lammps":
        from equistride.simulation.lammps import LammpsEngine

        return LammpsEngine(model, metadata, atoms, settings)
    from equistride.simulation.ase import ASEEngine

    return ASEEngine(model, metadata, atoms, settings)


def digest_of(atoms: Atoms) -> str:
    """Return the SHA-256 of what a structure is: atoms, cell, masses, momenta, charge and spin."""
    parts = [atoms.numbers, atoms.positions, np.array(atoms.cell), atoms.pbc, atoms.get_masses(), atoms.get_momenta()]
    system = repr(tuple(said_by(atoms))).encode()
    return hashlib.sha256(b"".join(np.ascontiguousarray(p).tobytes() for p in parts) + system).hexdigest()


def _past(folder: Path, settings: Settings, said: dict[str, Any]) -> Checkpoint:
    past = read_checkpoint(folder)
    other = settings.differing(past.settings) + [
        k for k in ("model", "structure", "guard") if said[k] != past.settings.get(k)
    ]
    if other:
        raise EquistrideError(
            f"the run in {folder} had another {', '.join(name.replace('_fs', '') for name in other)}",
            hint="give what it was begun with, or run it anew into another folder",
        )
    if past.step >= settings.steps:
        raise EquistrideError(
            f"the run in {folder} has made its {past.step} steps", hint="give a longer --time to go on from there"
        )
    return past


def _fresh(folder: Path, settings: Settings) -> None:
    """Make the folder; refuse one that holds a run."""
    paths, minimise = run_files(folder, settings), settings.ensemble == "minimise"
    made = [folder / MINIMISED] if minimise else [paths["table"], paths["trajectory"]]
    there = [path.name for path in made if path.exists()]
    if there:
        hint = "choose another folder" if minimise else "go on with --resume, or choose another folder"
        raise EquistrideError(f"{folder} holds a run ({', '.join(there)})", hint=hint)
    folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def _stoppable(folder: Path, leads: bool) -> Iterator[Callable[[], bool]]:
    """Turn the first SIGINT or SIGTERM into a wish, as the file ``stop`` is one; a second signal acts at once."""
    if leads:
        (folder / STOP).unlink(missing_ok=True)
    wished = [False]
    before: dict[int, Any] = {}

    def wish(number: int, frame: Any) -> None:
        wished[0] = True
        signal.signal(number, before[number])

    try:
        for number in (int(signal.SIGINT), int(signal.SIGTERM)):
            before[number] = signal.signal(number, wish)
    except ValueError:  # not in the main thread: whoever called sees to stops
        pass
    try:
        yield lambda: wished[0] or (folder / STOP).exists()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if leads:
            (folder / STOP).unlink(missing_ok=True)


def _advance(
    engine: Engine, settings: Settings, step: int, files: Files | None, keep: Callable[[int], None],
    wished: Callable[[], bool], report: Report | None,
) -> tuple[int, bool, Moment, float]:  # fmt: skip
    """Go on from ``step``; return the last step, whether that is before the end, its moment, and the speed [ns/day]."""
    first, begun, stopped, moment = step, time.perf_counter(), False, engine.moment()
    speed = lambda: (step - first) * settings.step_fs * 1e-6 * 86400 / (time.perf_counter() - begun)  # noqa: E731
    while step < settings.steps and not stopped:
        count = min(CHUNK, settings.every - step % settings.every, settings.steps - step)
        engine.step(count)
        step += count
        stopped = engine.agree(wished())
        due, last = step % settings.every == 0, stopped or step == settings.steps
        if due or last:
            moment = engine.moment()
        if due and files is not None:
            files.write(moment, step)
            if report is not None:
                report(step * settings.step_fs, moment, speed())
        if last or step % (FRAMES_A_CHECKPOINT * settings.every) == 0:
            keep(step)
    return step, stopped and step < settings.steps, moment, speed()


def _minimise(engine: Engine, atoms: Atoms, settings: Settings, folder: Path) -> dict[str, Path]:
    engine.minimise(settings.max_force, MOST_STEPS)
    moment, force = engine.moment(), float(np.linalg.norm(engine.forces(), axis=1).max())
    if force > settings.max_force * np.sqrt(3):
        tell(f"the minimisation ended at a largest force of {force:.3g} eV/A; expected {settings.max_force:g}")
    path = folder / MINIMISED
    if engine.leads:
        frame = atoms.copy()  # with its masses, charge and spin
        frame.set_cell(moment.cell)
        frame.positions = moment.positions
        frame.info.update(energy=moment.potential, largest_force=force)
        with whole_file(path) as partial:
            write_atoms(partial, frame, format="extxyz", columns=columns_of(frame))
    return {"structure": path}
