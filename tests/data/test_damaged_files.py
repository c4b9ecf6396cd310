"""Files that are damaged or odd give one sentence or are read; nothing in them runs (hypothesis: 200 cases of each kind)."""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase
import ase.io
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from equistride.data.structures import read_atoms
from equistride.data.trajectories import read_motion
from equistride.errors import EquistrideError
from equistride.training.config import load_config
from equistride.trajectories import read_state_csv

h5py = pytest.importorskip("h5py")

ATOMS = ase.Atoms("SiO2", [[0, 0, 0], [1.6, 0, 0], [-1.6, 0, 0.1]], cell=[7.0, 8.0, 9.0], pbc=True)
CONFIG = "name: toy\nmodel: {architecture: esen, cutoff: 4.0, channels: 16}\ndata:\n  files: [a.npz]\ntrainer:\n  steps: 10\n"
TABLE = '#"Step","Time (ps)","Potential Energy (kJ/mole)"\n1,0.001,-3.0\n2,0.002,-3.1\n3,0.003,--\n'
DUMP = "".join(
    f"ITEM: UNITS\nmetal\nITEM: TIME\n{0.001 * k}\nITEM: TIMESTEP\n{k}\nITEM: NUMBER OF ATOMS\n2\nITEM: BOX BOUNDS pp pp pp\n"
    f"0 9\n0 9\n0 9\nITEM: ATOMS id element x y z vx vy vz\n1 Si 0 0 {k} 1 0 0\n2 O 2 0 0 0 1 0\n"
    for k in range(3)
)
WORDS = st.sampled_from(
    ["nan", "inf", "-1", "1e400", "9" * 40, "", "[/b]", "\x00", "é", "null", "true", "--", "{}", "[1,2", "*a",
     "&a [*a]", "- -", ": "]
) | st.text(max_size=6)  # fmt: skip
EDITS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 30), WORDS), min_size=1, max_size=3)
CASES = settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def edited(text: str, edits: list[tuple[float, int, str]]) -> str:
    """Put words in the place of some signs."""
    for place, length, word in edits:
        begin = round(place * len(text))
        text = text[:begin] + word + text[begin + length :]
    return text


def tried(read: Callable[[Path], Any], path: Path) -> None:
    """Read; a refusal is one line that names the file or what is in it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            read(path)
        except EquistrideError as refused:
            if len(str(refused).splitlines()) != 1:
                raise AssertionError(f"several lines: {refused}") from refused


STRUCTURES = {"extxyz": "a.xyz", "vasp": "POSCAR", "proteindatabank": "a.pdb"}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Good structures by their formats."""
    folder = tmp_path_factory.mktemp("structures")
    for form, name in STRUCTURES.items():
        ase.io.write(folder / name, ATOMS, format=form)
    return {form: (folder / name).read_text() for form, name in STRUCTURES.items()}


@pytest.mark.parametrize("form", STRUCTURES)
@CASES
@given(edits=EDITS)
@example(edits=[(0.273, 15, "9" * 40)])  # so many columns
@example(edits=[(0.130859375, 1, "")])  # a row of a POSCAR's cell that is another's
def test_structures(tmp_path: Path, texts: dict[str, str], form: str, edits: list[tuple[float, int, str]]) -> None:
    path = tmp_path / STRUCTURES[form]
    path.write_text(edited(texts[form], edits), errors="replace")
    tried(read_atoms, path)


@CASES
@given(edits=EDITS)
@example(edits=[(0.5, 0, ".")])  # a key with a dot in it
@example(edits=[(0.28, 5, "[/b]")])  # an architecture that is a list
def test_configurations(tmp_path: Path, edits: list[tuple[float, int, str]]) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(edited(CONFIG, edits), errors="replace")
    tried(load_config, path)
    path.write_text(CONFIG)
    tried(lambda p: load_config(p, [f"trainer.steps={edits[0][2]}"]), path)


@CASES
@given(edits=EDITS)
def test_dumps_and_tables(tmp_path: Path, edits: list[tuple[float, int, str]]) -> None:
    path = tmp_path / "run.dump"
    path.write_text(edited(DUMP, edits), errors="replace")
    tried(read_motion, path)
    table = tmp_path / "run.csv"
    table.write_text(edited(TABLE, edits), errors="replace")
    tried(read_state_csv, table)


def npz(path: Path) -> None:
    np.savez(path, numbers=[14, 8], positions=np.arange(18.0).reshape(3, 2, 3), time_fs=[0.0, 1.0, 2.0])


def hdf5(path: Path) -> None:
    """As mdtraj's reporter writes it."""
    atoms = [{"index": k, "name": s, "element": s} for k, s in enumerate(("Si", "O"))]
    topology = {"chains": [{"index": 0, "residues": [{"index": 0, "name": "X", "atoms": atoms}]}], "bonds": []}
    with h5py.File(path, "w") as file:
        file["coordinates"] = np.arange(18.0, dtype=np.float32).reshape(3, 2, 3)
        file["time"] = np.arange(3.0)
        file["topology"] = np.array([json.dumps(topology).encode()])


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Good trajectories by their names."""
    folder = tmp_path_factory.mktemp("trajectories")
    npz(folder / "a.npz")
    hdf5(folder / "a.h5")
    ase.io.write(folder / "a.traj", [ATOMS] * 3)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["a.npz", "a.traj", "a.h5"])
@CASES
@given(place=st.floats(0, 1), length=st.sampled_from([0, 1, 8, 512]), put=st.binary(max_size=12))
def test_trajectories(
    tmp_path: Path, contents: dict[str, bytes], name: str, place: float, length: int, put: bytes
) -> None:
    path, data = tmp_path / name, contents[name]
    begin = round(place * len(data))
    path.write_bytes(data[:begin] + put + data[begin + length :])
    tried(read_motion, path)


class Harm:
    """What runs where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def test_pickles_in_attributes_stay_closed(tmp_path: Path) -> None:
    """PyTables, mdtraj's reader of HDF5, would unpickle them as it opens the file."""
    path, marker = tmp_path / "a.h5", tmp_path / "ran"
    hdf5(path)
    with h5py.File(path, "r+") as file:
        for node in (file, file["coordinates"], file["topology"]):
            for name in ("TITLE", "CLASS", "units", "conventions"):
                node.attrs[name] = np.bytes_(pickle.dumps(Harm(marker), 0))
    assert len(read_motion(path)) == 3
    assert not marker.exists()
    np.savez(tmp_path / "a.npz", numbers=np.array([Harm(marker)] * 2), positions=np.zeros((2, 2, 3)))
    with pytest.raises(EquistrideError, match="cannot be read"):
        read_motion(tmp_path / "a.npz")
    assert not marker.exists()


def test_hdf5_that_points_elsewhere_or_is_too_large(tmp_path: Path) -> None:
    other, path = tmp_path / "other.h5", tmp_path / "a.h5"
    hdf5(other)
    hdf5(path)
    with h5py.File(path, "r+") as file:
        del file["coordinates"]
        file["coordinates"] = h5py.ExternalLink("other.h5", "/coordinates")
    with pytest.raises(EquistrideError, match=r"'coordinates' of a.h5 is a link; expected an array"):
        read_motion(path)
    with h5py.File(path, "r+") as file:
        del file["coordinates"]
        file.create_dataset("coordinates", (10**7, 2, 3), "f8", compression="gzip")
    with pytest.raises(EquistrideError, match="is larger than its file can hold"):
        read_motion(path)
    with h5py.File(path, "r+") as file:
        del file["coordinates"]
        file["coordinates"] = np.zeros((3, 5, 3))
    with pytest.raises(EquistrideError, match=r"does not fit its topology and frames; expected shape \[3, 2, 3\]"):
        read_motion(path)
    with h5py.File(path, "r+") as file:
        del file["topology"]
        file["topology"] = ["{}"]  # its heap, damaged, can keep libhdf5 searching without end
    with pytest.raises(EquistrideError, match="holds values of varying length"):
        read_motion(path)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{c}: &{c} [{','.join(['*' + p] * 9)}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True)),
        "x: &x [*x]\n", "x: &x {y: *x}\n",
    ],
    ids=["bomb", "circle", "circle of keys"],
)  # fmt: skip
def test_yaml_without_an_end(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG + text)
    with pytest.raises(EquistrideError, match="its aliases make more than 100000 values of it, or a circle"):
        load_config(path)
