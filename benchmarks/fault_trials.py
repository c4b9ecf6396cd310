"""The trials of benchmarks/faults.py: for each area how many, and what is tried.

An area's function is given an empty folder and returns the trial: a function of a random generator that returns an outcome or
raises what a user would see.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import pickle
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import fault_inputs as good
import numpy as np
import torch
from fault_attacks import ATTACKS

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from file_limit import file_limit

MARKER = Path(os.environ.get("TMPDIR", "/tmp")) / f"faults-marker-{os.getuid()}"
"""A file that is there once code of an input has run."""
Trial = Callable[[np.random.Generator], str]
SAME = 2e-6
"""Share of the largest force by which forces may differ."""


def _same(found: Any, wanted: Any) -> str:
    found, wanted = np.asarray(found, float), np.asarray(wanted, float)
    if found.shape != wanted.shape:
        return "wrong"
    return "right" if np.abs(found - wanted).max() <= SAME * np.abs(wanted).max() else "wrong"


def _forces(path: Path) -> np.ndarray:
    from equistride.artifact import load

    return load(path).compute(good.positions(), good.SYMBOLS).forces.numpy()


def artifacts(folder: Path) -> Trial:
    """Damage an artifact, load it and evaluate."""
    source, target = good.artifact(folder), folder / "damaged.pt"
    data, wanted = source.read_bytes(), _forces(source)

    def trial(rng: np.random.Generator) -> str:
        target.write_bytes(good.damaged(data, rng))
        return _same(_forces(target), wanted)

    return trial


def metadata(folder: Path) -> Trial:
    """Edit a field of the metadata; four in five of the files are sealed anew, and then what they say is what they are."""
    from typer.testing import CliRunner

    from equistride.artifact.archive import DIGEST
    from equistride.cli.main import app

    source, target = good.artifact(folder), folder / "edited.pt"
    with zipfile.ZipFile(source) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith("extra/metadata.json")]
        before = json.loads(archive.read(name))
        (seal,) = [archive.read(n) for n in archive.namelist() if n.endswith(DIGEST)]
    wanted = _forces(source)

    def trial(rng: np.random.Generator) -> str:
        text = json.dumps(good.other_field(before, rng)).encode()
        content = good.resealed(source, lambda n, data: text if n == "extra/metadata.json" else data)
        anew = rng.random() < 0.8
        target.write_bytes(content)
        if not anew:
            target.write_bytes(_with_record(content, DIGEST, seal))
        shown = CliRunner().invoke(app, ["inspect", str(target)])
        if shown.exception is not None and not isinstance(shown.exception, SystemExit):
            raise shown.exception
        found = _same(_forces(target), wanted)
        return "right" if anew else found

    return trial


def _with_record(content: bytes, name: str, record: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(target, "w") as new:
        for n in old.namelist():
            new.writestr(n, record if n.endswith(name) else old.read(n))
    return target.getvalue()


def attacks(folder: Path) -> Trial:
    """Load, inspect or run a file whose code does more than compute."""
    from equistride.artifact import load

    source, target = good.artifact(folder), folder / "attack.pt"

    def trial(rng: np.random.Generator) -> str:
        name = sorted(ATTACKS)[int(rng.integers(len(ATTACKS)))]
        target.write_bytes(ATTACKS[name](source, MARKER))
        verify = bool(rng.integers(2))
        load(target, verify=verify).compute(good.positions(), good.SYMBOLS)
        unread = name == "pickle as reference" and not verify
        return "right" if unread else "wrong"  # nothing else of the kind may be loaded

    return trial


def checkpoints(folder: Path) -> Trial:
    """Damage a checkpoint of training."""
    from equistride.artifact.checkpoint import read_checkpoint

    data, target = good.checkpoint(), folder / "last.ckpt"
    target.write_bytes(data)
    wanted = read_checkpoint(target)["state_dict"]["model.w"]

    def trial(rng: np.random.Generator) -> str:
        target.write_bytes(good.damaged(data, rng))
        return "right" if torch.equal(read_checkpoint(target)["state_dict"]["model.w"], wanted) else "wrong"

    return trial


def _trajectory(ending: str, text: bool = False) -> Callable[[Path], Trial]:
    def area(folder: Path) -> Trial:
        from equistride.trajectories import read_trajectory

        source = good.trajectories(folder)[ending]
        target = folder / f"damaged{ending}"
        before = read_trajectory(source)
        content, readable = source.read_bytes(), source.read_text() if text else ""

        def trial(rng: np.random.Generator) -> str:
            if text and rng.random() < 0.8:
                target.write_text(good.edited(readable, rng))
                read_trajectory(target)  # plain text has no checksum: an edited number is another number
                return "right"
            target.write_bytes(good.damaged(content, rng))
            after = read_trajectory(target)
            if ending == ".npz":  # its records have checksums
                count = min(before.frames, after.frames)
                return _same(after.positions[:count], before.positions[:count])
            return "right" if np.isfinite(after.positions).all() else "wrong"

        return trial

    return area


def pickles(folder: Path) -> Trial:
    """HDF5 trajectories and npz files with pickles that run code where they are read."""
    import h5py

    from equistride.data.trajectories import read_motion

    source = good.trajectories(folder)[".h5"].read_bytes()

    harm = pickle.dumps(good.Harm(MARKER), 0)

    def trial(rng: np.random.Generator) -> str:
        if rng.random() < 0.3:
            target = folder / "pickled.npz"
            np.savez(
                target, numbers=np.array([good.Harm(MARKER)] * 3), positions=np.zeros((2, 3, 3)), time_fs=np.arange(2.0)
            )
        else:
            target = folder / "pickled.h5"
            target.write_bytes(source)
            with h5py.File(target, "r+") as file:
                place = [file, file["coordinates"], file["topology"], file["time"]][int(rng.integers(4))]
                for key in ("CLASS", "TITLE", "units", "conventions", "FILTERS", "program")[: int(rng.integers(1, 7))]:
                    place.attrs[key] = np.bytes_(harm)
        read_motion(target)
        return "right"

    return trial


def tables(folder: Path) -> Trial:
    """Edit or damage what StateDataReporter wrote."""
    from equistride.trajectories import read_state_csv

    text, target = good.state_table(), folder / "run.csv"

    def trial(rng: np.random.Generator) -> str:
        if rng.random() < 0.7:
            target.write_text(good.edited(text, rng))
        else:
            target.write_bytes(good.damaged(text.encode(), rng))
        read_state_csv(target, ensemble="NVE")
        return "right"

    return trial


def configurations(folder: Path) -> Trial:
    """Edit a configuration; bombs and circles of YAML among it."""
    from equistride.training.config import load_config

    text, target = good.config(), folder / "config.yaml"
    bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(98 + k)}: &{chr(98 + k)} [{','.join(['*' + chr(97 + k)] * 10)}]\n" for k in range(12)
    )
    extra = [bomb, "x: &x [*x]\n", "x: &x {y: *x}\n", "x: " + "[" * 3000, "x: " + "9" * 5000, "? [1]\n: 2\n", "<<: 3\n"]

    def trial(rng: np.random.Generator) -> str:
        changed = good.edited(text, rng)
        if rng.random() < 0.2:
            changed += extra[int(rng.integers(len(extra)))]
        target.write_text(changed)
        words = [f"trainer.steps={good.ODD[int(rng.integers(len(good.ODD)))]}"] if rng.random() < 0.3 else None
        load_config(target, words)
        return "right"

    return trial


def _new_folders(folder: Path) -> Iterator[Path]:
    """Make a folder for each trial."""
    for number in itertools.count(1):
        place = folder / str(number)
        place.mkdir()
        yield place


def full_disks(folder: Path) -> Trial:
    """Write with a limit of file size, where an older file is and where none is."""
    from equistride.engines.openmm_export import write_torchforce
    from equistride.training.checkpoints import CheckpointFiles
    from equistride.trajectories import read_trajectory, write_report

    (folder / "in").mkdir()
    source = good.artifact(folder / "in")
    run = read_trajectory(good.trajectories(folder / "in")[".npz"])
    state = {"global_step": 1, "equistride": {}, "state_dict": {"model.w": torch.ones(200, 30)}}
    writers: dict[str, Callable[[Path], Any]] = {
        "pair.pt": lambda p: good.artifact(p.parent),
        "force.pt": lambda p: write_torchforce(source, p, good.SYMBOLS, periodic=False),
        "last.ckpt": lambda p: CheckpointFiles().save_checkpoint(state, p),
        "run.npz": lambda p: good.frames().save(p),
        "report.html": lambda p: write_report(p, title="x", subtitle="", trajectory=run, segments=[]),
    }
    places = _new_folders(folder)

    def trial(rng: np.random.Generator) -> str:
        place = next(places)
        name = sorted(writers)[int(rng.integers(len(writers)))]
        old = rng.random() < 0.5
        if old:
            (place / name).write_bytes(b"old")
        before = {p.name: p.read_bytes() for p in place.iterdir()}
        with file_limit(int(rng.integers(0, 3000))):
            try:
                writers[name](place / name)
            except OSError as error:
                now = {p.name: p.read_bytes() for p in place.iterdir()}
                if now != before:
                    return "lost"
                raise error
        return "right"  # small enough

    return trial


def kills(folder: Path) -> Trial:
    """SIGKILL at a random moment while checkpoints and frames are written without end; the newest must be whole."""
    from equistride.artifact.checkpoint import read_checkpoint
    from equistride.data.frames import load

    program = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "import fault_inputs as good, torch\nfrom pathlib import Path\n"
        "from equistride.training.checkpoints import CheckpointFiles\n"
        "place, k, frames = Path(sys.argv[1]), 0, good.frames(200)\nwhile True:\n"
        "    k += 1\n    w = {'model.w': torch.full((300, 300), float(k))}\n"
        "    CheckpointFiles().save_checkpoint({'global_step': k, 'equistride': {}, 'state_dict': w}, place / 'last.ckpt')\n"
        "    frames.save(place / 'run.npz')\n    print(k, flush=True)\n"
    )
    places = _new_folders(folder)

    def trial(rng: np.random.Generator) -> str:
        place = next(places)
        words = [sys.executable, "-c", program, str(place), str(Path(__file__).parent)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            last = [int(writer.stdout.readline()) for _ in range(2)][-1]
            time.sleep(float(rng.random()) * 0.3)
            writer.send_signal(signal.SIGKILL)
            last = max([last, *map(int, writer.stdout.read().split())])
        found = read_checkpoint(place / "last.ckpt")
        before = read_checkpoint(place / "previous.ckpt")
        whole = bool((found["state_dict"]["model.w"] == found["global_step"]).all())
        if not (whole and found["global_step"] >= last and before["global_step"] >= last - 1):
            return "lost"
        return "right" if len(load(place / "run.npz")[0]) == 200 else "lost"

    return trial


def steps(folder: Path) -> Trial:
    """Set an atom to where it cannot be, or NaN, in OpenMM; the error must leave all as it was, and the run must go on."""
    import openmm

    from equistride.engines.openmm import create_system

    source = good.artifact(folder)
    topology = good.topology()
    system = create_system(source, topology)
    start = good.positions() / 10

    def arrays(context: openmm.Context) -> tuple[np.ndarray, np.ndarray]:
        state = context.getState(positions=True, velocities=True)
        return state.getPositions(asNumpy=True)._value, state.getVelocities(asNumpy=True)._value

    def fresh() -> openmm.Context:
        platform = openmm.Platform.getPlatformByName("Reference")
        context = openmm.Context(system, openmm.VerletIntegrator(0.002), platform)
        context.setPositions(start)
        context.setVelocitiesToTemperature(100, 3)
        return context

    unbroken = fresh()
    unbroken.getIntegrator().step(6)
    wanted = arrays(unbroken)

    def trial(rng: np.random.Generator) -> str:
        context = fresh()
        context.getIntegrator().step(3)
        x, v = arrays(context)
        bad = [x.copy(), v.copy()]
        which, atom, axis = int(rng.integers(2)), int(rng.integers(6)), int(rng.integers(3))
        values = [np.nan, np.inf, -np.inf] + ([1e300, 1e12] if which == 0 else [])
        bad[which][atom, axis] = values[int(rng.integers(len(values)))]
        context.setPositions([openmm.Vec3(*row) for row in bad[0]])
        context.setVelocities([openmm.Vec3(*row) for row in bad[1]])
        before = arrays(context)
        try:
            context.getIntegrator().step(1)
            return "wrong"
        except openmm.OpenMMException as error:
            if not all(np.array_equal(a, b, equal_nan=True) for a, b in zip(before, arrays(context), strict=True)):
                return "lost"
            if context.getStepCount() != 3:
                return "lost"
            context.setPositions(x)
            context.setVelocities(v)
            context.getIntegrator().step(3)
            if not all(np.array_equal(a, b) for a, b in zip(wanted, arrays(context), strict=True)):
                return "lost"
            raise error

    return trial


def systems(folder: Path) -> Trial:
    """Damage what the XML of a System says of our force, and read it: OpenMM's own parser reads the rest."""
    import openmm

    from equistride.engines.openmm import create_system

    topology = good.topology()
    text = openmm.XmlSerializer.serialize(create_system(good.artifact(folder), topology))
    start = good.positions() / 10

    def forces(xml: str) -> np.ndarray:
        system = openmm.XmlSerializer.deserialize(xml)
        platform = openmm.Platform.getPlatformByName("Reference")
        context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
        context.setPositions(start)
        return context.getState(forces=True).getForces(asNumpy=True)._value  # type: ignore[no-any-return]

    wanted = forces(text)

    def trial(rng: np.random.Generator) -> str:
        tree = ElementTree.fromstring(text)
        ours = next(force for force in tree.iter("Force") if "model" in force.attrib)
        nodes = list(ours.iter())
        node = ours if rng.random() < 0.3 else nodes[int(rng.integers(len(nodes)))]
        of_model = node is ours and rng.random() < 0.5
        names = ["model"] if of_model else sorted(node.attrib)
        if not names or rng.random() < 0.1:  # an element is gone, or there twice
            kept = [child for child in node if rng.random() < 0.7]
            node[:] = kept + kept[: int(rng.integers(2))]
        else:
            name = names[int(rng.integers(len(names)))]
            changed = good.damaged(node.attrib[name].encode(), rng).decode(errors="replace")
            node.set(name, "".join(c for c in changed if c.isprintable()))
        found = forces(ElementTree.tostring(tree, encoding="unicode"))
        if found.shape != wanted.shape or not np.isfinite(found).all():
            return "wrong"
        return _same(found, wanted) if of_model else "right"

    return trial


AREAS: dict[str, tuple[int, Callable[[Path], Trial]]] = {
    "artifact, damaged": (500, artifacts),
    "artifact, a field edited": (650, metadata),
    "artifact, hostile code": (60, attacks),
    "checkpoint, damaged": (900, checkpoints),
    "npz": (500, _trajectory(".npz")),
    "LAMMPS dump": (500, _trajectory(".dump", text=True)),
    "extended XYZ": (400, _trajectory(".extxyz", text=True)),
    "ASE .traj": (250, _trajectory(".traj")),
    "HDF5": (250, _trajectory(".h5")),
    "pickles in HDF5 and npz": (60, pickles),
    "state table": (400, tables),
    "configuration": (500, configurations),
    "System XML": (150, systems),
    "full disk": (120, full_disks),
    "SIGKILL": (20, kills),
    "OpenMM step": (100, steps),
}
