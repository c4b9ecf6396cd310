"""HDF5 files of mdtraj's reporter, read array by array.

Not with PyTables, as mdtraj does: that unpickles what a file brings in its attributes, and so runs its code. Nor is another file
opened that this one points to.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from equistride.errors import EquistrideError

EXPANSION, FREE = 1000, 10**8
"""An array may be larger than its file by this factor, for compression, and by this many bytes."""


def most_bytes(path: Path) -> int:
    """Return how many bytes an array of a file may have; a damaged file can announce any number."""
    return EXPANSION * path.stat().st_size + FREE


def read_arrays(path: Path) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Read a trajectory.

    Returns
    -------
    dict
        ``coordinates`` [F, N, 3] nm, and ``time`` [F] ps, ``velocities`` [F, N, 3] nm/ps, ``cell_lengths`` [F, 3] nm and
        ``cell_angles`` [F, 3] degrees where they are there.
    list
        Element symbol ("" for none) and name of each atom.

    Raises
    ------
    EquistrideError
        For what is no such file, or points to another.
    """
    most = most_bytes(path)
    with _opened(path) as file:
        names = ("coordinates", "time", "velocities", "cell_lengths", "cell_angles", "topology")
        found = {name: _array(file, name, path, most) for name in names if name in file}
    for name in ("coordinates", "topology"):
        if name not in found:
            raise EquistrideError(
                f"{path.name} is no trajectory of mdtraj",
                expected=f"an array {name!r}",
                hint="write it with HDF5Reporter",
            )
    (text,) = found.pop("topology").reshape(-1)
    tree = json.loads(text)
    atoms = [atom for chain in tree["chains"] for residue in chain["residues"] for atom in residue["atoms"]]
    atoms.sort(key=lambda atom: int(atom["index"]))
    arrays = {name: np.asarray(values, np.float64) for name, values in found.items()}
    frames = arrays["coordinates"].shape[:1]
    rows = {"time": ()} | {name: (3,) for name in ("cell_lengths", "cell_angles")}
    for name, values in arrays.items():
        shape = (*frames, *rows.get(name, (len(atoms), 3)))
        if values.shape != shape:
            raise EquistrideError(
                f"{name!r} of {path.name} does not fit its topology and frames", expected=f"shape {list(shape)}",
                found=f"shape {list(values.shape)}",
            )  # fmt: skip
    return arrays, [(str(atom.get("element") or ""), str(atom["name"])) for atom in atoms]


def _opened(path: Path) -> Any:
    import h5py  # which the readers of other files need not wait for

    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise EquistrideError(
            f"{path.name} cannot be opened as HDF5", found=" ".join(str(error).split())[:200],
            hint="HDF5 keeps its index anywhere, so that a file that was not closed or was cut cannot be read in part: let "
            "long runs write XTC, DCD or NetCDF",
        ) from error  # fmt: skip


def _array(file: Any, name: str, path: Path, most: int) -> Any:
    import h5py

    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise EquistrideError(f"{name!r} of {path.name} is a link", expected="an array", hint="write the file again")
    data = file[name]
    if not isinstance(data, h5py.Dataset) or data.external or data.is_virtual:
        raise EquistrideError(f"{name!r} of {path.name} is no array of this file", hint="write the file again")
    if data.dtype.kind == "O":  # libhdf5 can search a damaged heap of such values without end
        raise EquistrideError(
            f"{name!r} of {path.name} holds values of varying length", expected="numbers, or text of one length",
            hint="write the file with mdtraj's HDF5Reporter or HDF5TrajectoryFile",
        )  # fmt: skip
    if data.nbytes > most:
        raise EquistrideError(
            f"{name!r} of {path.name} is larger than its file can hold",
            expected=f"at most {most} bytes",
            found=data.nbytes,
        )
    return data[()]
