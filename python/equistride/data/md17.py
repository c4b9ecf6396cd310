"""MD17, revised MD17 and ISO17 as they are published, with the time stamps and the checks that pairs of frames need."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equistride.data.frames import Array, Frames, load
from equistride.errors import EquistrideError
from equistride.writing import whole_file

MD17_SPACING_FS = 0.5
"""Time between the frames of MD17's trajectories."""
ISO17_SPLITS = ("reference", "reference_eq", "test_within", "test_other", "test_eq")
"""Databases of ISO17: training and test frames of known molecules are ``reference`` and ``test_within``, unknown molecules
``test_other``."""
_FINGERPRINT_EXTRAS = (
    "lattice",
    "e_unit",
    "E_min",
    "E_max",
    "E_mean",
    "E_var",
    "f_unit",
    "F_min",
    "F_max",
    "F_mean",
    "F_var",
)


def fingerprints(arrays: Any) -> list[str]:
    """Return the fingerprints that sGDML may have given a data set: MD5 of the MD5s of its arrays, older and newer form."""
    keys = [k for k in ("z", "R", "E", "F") if k in arrays]
    found = []
    for chosen in (keys, keys + [k for k in _FINGERPRINT_EXTRAS if k in arrays]):
        digest = hashlib.md5(usedforsecurity=False)
        for key in chosen:
            digest.update(hashlib.md5(np.ascontiguousarray(arrays[key]).tobytes(), usedforsecurity=False).digest())
        found.append(digest.hexdigest())
    return found


def check_fingerprint(arrays: Any, path: Path) -> None:
    """Compare the arrays of an MD17 file with the fingerprint it carries (``md5``); a file without one passes."""
    if "md5" not in arrays:
        return
    wanted = arrays["md5"].item()
    wanted = wanted.decode() if isinstance(wanted, bytes) else str(wanted)
    found = fingerprints(arrays)
    if wanted not in found:
        raise EquistrideError(
            f"the arrays of {path} are not those that were published", expected=f"fingerprint {wanted}", found=found[0],
            hint="download the file again",
        )  # fmt: skip


def read_published(path: str | Path) -> list[Frames]:
    """Read a file as its authors published it: npz of MD17 and rMD17, ASE databases of ISO17.

    MD17's frames get time stamps 0.5 fs apart; those of rMD17 from their numbers in MD17, sorted. Gaps begin new segments, see
    :func:`consecutive`. Frames of ISO17 have no time stamps: its sets leave out steps. Any other npz is read by
    :func:`equistride.data.frames.load`.

    Raises
    ------
    EquistrideError
        Where the file is missing or damaged, or its arrays do not have the fingerprint it carries.
    """
    path = Path(path)
    if not path.is_file():
        raise EquistrideError(f"the data file {path} does not exist", hint="download it, or check its name")
    if path.suffix == ".db":
        return _iso17(path)
    if path.suffix != ".npz":
        raise EquistrideError(
            f"{path} is not of a published form", expected=".npz or .db", found=path.suffix or "no ending"
        )
    frames = load(path, energy_unit="kcal/mol")[0]
    with np.load(path, allow_pickle=False) as arrays:
        keys = set(arrays.files)
        if {"R", "z", "E", "F"} <= keys:
            check_fingerprint(arrays, path)
            return [consecutive(frames, MD17_SPACING_FS)]
        if {"coords", "nuclear_charges"} <= keys:
            if "old_indices" not in keys:
                return [frames]
            number = np.asarray(arrays["old_indices"]).astype(np.int64)
            order = np.argsort(number, kind="stable")
            time: Array = np.asarray(number[order] * MD17_SPACING_FS, float)
            gaps = np.abs(np.diff(time) - MD17_SPACING_FS) > 1e-6
            return [
                replace(frames[order], time_fs=time, segment=np.concatenate([[0], np.cumsum(gaps)]).astype(np.int64))
            ]
        if frames.time_fs is None and "dt_fs" in keys:
            return [consecutive(frames, float(arrays["dt_fs"]))]
    return [frames]


def _iso17(path: Path) -> list[Frames]:
    """Group ISO17's rows by their elements, in the order of the file."""
    import ase.db

    groups: dict[tuple[int, ...], list[Any]] = {}
    try:
        for row in ase.db.connect(path).select(sort="id"):
            if "total_energy" not in row or "atomic_forces" not in row.data:
                return load(path)
            groups.setdefault(tuple(row.numbers.tolist()), []).append(row)
    except EquistrideError:
        raise
    except Exception as error:  # sqlite and ASE raise what they like on damaged files
        raise EquistrideError(f"{path} cannot be read as an ASE database ({error})", hint="unpack it again") from error
    if not groups:
        raise EquistrideError(f"{path} holds no frames")
    return [
        Frames(
            numbers=np.array(numbers, np.int64),
            pbc=np.zeros(3, bool),
            positions=np.stack([row.positions for row in rows]).astype(float),
            cell=np.zeros((len(rows), 3, 3)),
            energy=np.array([row["total_energy"] for row in rows], float),
            forces=np.stack([np.asarray(row.data["atomic_forces"], float) for row in rows]),
        )
        for numbers, rows in groups.items()
    ]


def unpack_iso17(archive: Path, folder: Path) -> list[Path]:
    """Unpack the databases of ISO17 and return their paths; nothing else of the archive is written."""
    wanted = {f"{name}.db" for name in ISO17_SPLITS}
    written = []
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                name = Path(member.name).name
                content = tar.extractfile(member) if member.isfile() and name in wanted else None
                if content is None:
                    continue
                folder.mkdir(parents=True, exist_ok=True)
                with whole_file(folder / name) as partial, partial.open("wb") as f:
                    shutil.copyfileobj(content, f, 1 << 20)
                written.append(folder / name)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise EquistrideError(f"{archive} cannot be unpacked ({error})", hint="download it again") from error
    if not written:
        raise EquistrideError(f"{archive} holds none of ISO17's databases", expected=", ".join(sorted(wanted)))
    return written


def consecutive(frames: Frames, spacing_fs: float) -> Frames:
    """Return the frames with time stamps ``spacing_fs`` apart; where the atoms jump a new segment begins.

    Atoms hardly turn within a femtosecond: a displacement is nearly that before it and that after it. One frame left out doubles
    it. Made for MD17's 0.5 fs; at 1 fs molecules with hydrogen turn so fast that a single missing frame may escape.

    Raises
    ------
    EquistrideError
        Where most frames do not follow each other: then they are no trajectory.
    """
    if spacing_fs <= 0:
        raise EquistrideError("the time between frames must be above 0", expected="fs", found=spacing_fs)
    count = len(frames)
    moved = np.diff(frames.positions, axis=0).reshape(max(0, count - 1), -1)
    square = (moved**2).sum(1)
    product = (moved[1:] * moved[:-1]).sum(1)
    unlike = np.ones((2, len(moved)), bool)  # the displacement before, that after
    if len(moved) > 1:
        unlike[0, 1:] = np.abs(product / square[:-1] - 1.0) > 0.4
        unlike[1, :-1] = np.abs(product / square[1:] - 1.0) > 0.4
    typical = np.array([np.median(square[max(0, k - 5) : k + 6]) for k in range(len(moved))])
    long = (square > 1.5**2 * typical) & (len(moved) > 2)
    jumps = (unlike.all(0) & (len(moved) > 1)) | (unlike.any(0) & long)
    if jumps.sum() > 0.5 * count:
        raise EquistrideError(
            "the frames do not follow each other in time", expected="frames of a trajectory in their order",
            found=f"jumps after {int(jumps.sum())} of {count} frames", hint="use them unpaired",
        )  # fmt: skip
    segment = np.concatenate([[0], np.cumsum(jumps)]).astype(np.int64)
    return replace(frames, time_fs=np.arange(count, dtype=float) * spacing_fs, segment=segment)


def cut(frames: Frames, length: int, guard: int = 0) -> Frames:
    """Cut segments into pieces of ``length`` frames, ``guard`` frames between them left out.

    Pieces go to training, validation or test as a whole, so that both frames of a pair are on one side; the guard keeps the end
    of one from being the neighbour of the next. Shorter rests are dropped.

    Raises
    ------
    EquistrideError
        Where there are no time stamps, or no piece is left.
    """
    if frames.time_fs is None:
        raise EquistrideError(
            "the frames have no time stamps", hint="add them with consecutive(), or read the published file"
        )
    segment = np.zeros(len(frames), np.int64) if frames.segment is None else frames.segment
    picked: list[NDArray[np.int64]] = []
    for name in np.unique(segment):
        rows = np.flatnonzero(segment == name)
        picked += [rows[k : k + length] for k in range(0, len(rows) - length + 1, length + guard)]
    if not picked:
        raise EquistrideError(
            "no piece is long enough", expected=f"{length} frames in a row",
            found=f"{int(np.bincount(np.unique(segment, return_inverse=True)[1]).max())}", hint="cut shorter pieces",
        )  # fmt: skip
    labels = np.repeat(np.arange(len(picked)), length)
    return replace(frames[np.concatenate(picked)], segment=labels)


def overlap(one: Frames, other: Frames, tolerance: float = 1e-3) -> NDArray[np.int64]:
    """Return the numbers of the frames of ``one`` that are in ``other`` too: no coordinate differs by ``tolerance`` [A].

    Frames of other atoms never overlap. Both sets must be in one orientation, as parts of one trajectory are.
    """
    if not np.array_equal(one.numbers, other.numbers):
        return np.zeros(0, np.int64)
    size = one.positions[0].size
    direction = np.random.default_rng(0).normal(size=size)
    direction /= np.linalg.norm(direction)
    key, keys = (f.positions.reshape(len(f), size) @ direction for f in (one, other))
    order = np.argsort(keys)
    reach = tolerance * np.sqrt(size)
    first, last = (np.searchsorted(keys[order], key + sign * reach) for sign in (-1.0, 1.0))
    found = []
    for k in range(len(one)):
        near = order[first[k] : last[k]]
        if len(near) and (np.abs(other.positions[near] - one.positions[k]).max((1, 2)) < tolerance).any():
            found.append(k)
    return np.array(found, np.int64)


def refuse_overlap(sets: Iterable[tuple[str, Frames]]) -> None:
    """Refuse sets of which two share a frame; the error names them.

    Raises
    ------
    EquistrideError
        For the first two sets that share frames.
    """
    seen: list[tuple[str, Frames]] = []
    for name, frames in sets:
        for other, earlier in seen:
            shared = overlap(frames, earlier)
            if len(shared):
                raise EquistrideError(
                    f"{len(shared)} frames of {name} are in {other} too", expected="sets that share no frame",
                    found=f"frames {', '.join(map(str, shared[:5]))}{' ...' if len(shared) > 5 else ''}",
                    hint="drop them with `equistride data md17 --drop`, or choose other frames",
                )  # fmt: skip
        seen.append((name, frames))


def without(frames: Frames, others: Iterable[Frames]) -> Frames:
    """Return the frames that are in none of the others; a frame left out of a trajectory ends a segment."""
    keep = np.ones(len(frames), bool)
    for other in others:
        keep[overlap(frames, other)] = False
    if frames.time_fs is None:
        return frames[keep]
    segment = np.zeros(len(frames), np.int64) if frames.segment is None else frames.segment
    breaks = np.concatenate([[False], np.diff(segment) != 0]) | ~keep
    return replace(frames, segment=np.cumsum(breaks).astype(np.int64))[keep]
