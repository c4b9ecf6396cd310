"""Labelled frames of one composition, and the files they come from."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from equistride.errors import EquistrideError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Frames:
    """F frames of the same N atoms; angstrom, eV, fs.

    Attributes
    ----------
    numbers [N]
        Atomic numbers.
    positions [F, N, 3], cell [F, 3, 3], pbc [3]
        Cell rows are lattice vectors, zeros where there is none.
    energy [F], forces [F, N, 3]
        Labels; NaN where a label is missing.
    velocities [F, N, 3], virial [F, 3, 3]
        Optional; the virial is -dE/d(strain) [eV].
    segment [F], time_fs [F]
        Frames of one segment are consecutive in one trajectory; a pair never crosses two segments.
    temperature_K [F], total_energy [F]
        Optional facts of the run that made the frames.
    masses [N]
        Optional, amu: those of the run, where it moved the atoms with others than the standard ones.
    """

    numbers: NDArray[np.int64]
    positions: Array
    cell: Array
    pbc: NDArray[np.bool_]
    energy: Array
    forces: Array
    velocities: Array | None = None
    virial: Array | None = None
    segment: NDArray[np.int64] | None = None
    time_fs: Array | None = None
    temperature_K: Array | None = None
    total_energy: Array | None = None
    masses: Array | None = None

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: NDArray[np.int64] | NDArray[np.bool_] | slice) -> Frames:
        """Select frames by a slice, a mask or an index array."""
        picked = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        for name, value in picked.items():
            if name not in _OF_ATOMS and value is not None:
                picked[name] = value[index]
        return Frames(**picked)

    @staticmethod
    def concatenate(parts: Sequence[Frames]) -> Frames:
        """Join frames of the same atoms; an optional array is kept only where every part has it."""
        if not parts:
            raise EquistrideError("there are no frames to join", expected="one part or more", found=0)
        first = parts[0]
        same = [np.array_equal(p.numbers, first.numbers) and _equal(p.masses, first.masses) for p in parts]
        if not all(same):
            raise EquistrideError(
                "frames of different atoms cannot be joined", mend="give each composition a file of its own"
            )
        joined: dict[str, object] = {name: getattr(first, name) for name in _OF_ATOMS}
        for f in dataclasses.fields(Frames):
            if f.name not in joined:
                values = [getattr(p, f.name) for p in parts]
                joined[f.name] = None if any(v is None for v in values) else np.concatenate(values)
        return Frames(**joined)  # type: ignore[arg-type]

    def save(self, path: Path) -> None:
        """Write a compressed npz file; it appears whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial.npz")
        arrays = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if getattr(self, f.name) is not None}
        np.savez_compressed(partial, **arrays)
        os.replace(partial, path)


_OF_ATOMS = ("numbers", "pbc", "masses")
"""What all frames have in common."""


def _equal(one: Array | None, other: Array | None) -> bool:
    return (one is None and other is None) or (one is not None and other is not None and np.array_equal(one, other))


_ALIASES = {"numbers": ("numbers", "z", "nuclear_charges"), "positions": ("positions", "R", "coords"),
            "energy": ("energy", "E", "energies"), "forces": ("forces", "F")}  # fmt: skip


def _from_npz(path: Path, labelled: bool) -> list[Frames]:
    with np.load(path, allow_pickle=False) as z:
        keys = set(z.files)
        named = {name: next((z[a] for a in aliases if a in keys), None) for name, aliases in _ALIASES.items()}
        needed = ("numbers", "positions", "energy", "forces") if labelled else ("numbers", "positions")
        missing = [n for n in needed if named[n] is None]
        if missing:
            raise EquistrideError(
                f"{path} lacks the arrays {missing}",
                expected="numbers (or z), positions (or R), energy (or E), forces (or F)",
                found=sorted(keys),
                mend="rename the arrays of the file",
            )
        shape = np.shape(named["positions"])  # type: ignore[arg-type]
        number = shape[0] if shape else 0
        for name, unlabelled in (("energy", shape[:1]), ("forces", shape)):
            if named[name] is None:
                named[name] = np.full(unlabelled, np.nan)
        cell = z["cell"] if "cell" in keys else np.zeros((3, 3))
        optional = {k: np.asarray(z[k], float) for k in ("velocities", "virial", "total_energy", "masses") if k in keys}
        if "time_fs" in keys and z["time_fs"].ndim == 1:
            optional["time_fs"] = z["time_fs"]
        if "temperature_K" in keys:
            optional["temperature_K"] = np.broadcast_to(z["temperature_K"], (number,)).copy()
        return [Frames(
            numbers=named["numbers"].astype(np.int64),  # type: ignore[union-attr]
            positions=named["positions"].astype(float),  # type: ignore[union-attr]
            energy=np.asarray(named["energy"], float).reshape(number),
            forces=named["forces"].astype(float),  # type: ignore[union-attr]
            cell=np.broadcast_to(cell, (number, 3, 3)).astype(float),
            pbc=z["pbc"].astype(bool) if "pbc" in keys else np.full(3, bool(np.any(cell))),
            segment=z["segment"].astype(np.int64) if "segment" in keys else None, **optional)]  # fmt: skip


def _from_ase(images: Iterable[object]) -> list[Frames]:
    """Group ASE images by composition and periodicity."""
    groups: dict[tuple[object, ...], list[object]] = {}
    for image in images:
        groups.setdefault((tuple(image.numbers), tuple(image.pbc)), []).append(image)  # type: ignore[attr-defined]
    result = []
    for (numbers, pbc), members in groups.items():
        energies, forces = [], []
        for image in members:
            calculator = image.calc  # type: ignore[attr-defined]
            if calculator is None or "energy" not in calculator.results or "forces" not in calculator.results:
                raise EquistrideError(
                    "a frame has no energy or no forces",
                    expected="energy and forces on every frame",
                    mend="write them with ASE's SinglePointCalculator or as extxyz fields",
                )
            energies.append(calculator.results["energy"])
            forces.append(calculator.results["forces"])
        result.append(
            Frames(
                numbers=np.array(numbers, np.int64),
                pbc=np.array(pbc, bool),
                positions=np.stack([i.positions for i in members]),  # type: ignore[attr-defined]
                cell=np.stack([i.cell.array for i in members]),  # type: ignore[attr-defined]
                energy=np.array(energies, float),
                forces=np.stack(forces),
            )
        )
    return result


def _check_shapes(frames: Frames, path: Path) -> None:
    """Every array must fit the number of frames and atoms; an error names the first that does not."""
    number, atoms = len(frames), len(frames.numbers)
    vectors, matrices, scalars = (number, atoms, 3), (number, 3, 3), (number,)
    shapes = {"numbers": (atoms,), "masses": (atoms,), "pbc": (3,), "cell": matrices, "virial": matrices}
    shapes |= dict.fromkeys(("positions", "forces", "velocities"), vectors)
    shapes |= dict.fromkeys(("energy", "segment", "time_fs", "temperature_K", "total_energy"), scalars)
    for name, shape in shapes.items():
        value = getattr(frames, name)
        if value is not None and value.shape != shape:
            what = f"the array {name!r} of {path} does not fit the others"
            raise EquistrideError(what, expected=f"shape {list(shape)}", found=f"shape {list(value.shape)}")


def load(path: str | Path, *, labelled: bool = True) -> list[Frames]:
    """Read labelled frames from npz, extxyz or an ASE database; one entry a composition.

    Parameters
    ----------
    path
        ``.npz`` with the arrays of :class:`Frames` (MD17's names are known too), ``.xyz``/``.extxyz``, or ``.db``.
    labelled
        Energies and forces are needed; without, an npz file may lack them (then they are NaN).

    Raises
    ------
    EquistrideError
        Where the file is missing, of another type, truncated, lacks labels or holds a NaN.
    """
    path = Path(path)
    if not path.is_file():
        raise EquistrideError(f"the data file {path} does not exist", mend="check data.files in the config")
    try:
        if path.suffix == ".npz":
            groups = _from_npz(path, labelled)
        elif path.suffix in (".xyz", ".extxyz"):
            import ase.io

            groups = _from_ase(ase.io.iread(path, index=":", format="extxyz"))
        elif path.suffix == ".db":
            import ase.db

            groups = _from_ase(row.toatoms() for row in ase.db.connect(path).select())
        else:
            raise EquistrideError(
                f"the data file {path} has an unknown type", expected=".npz, .extxyz, .xyz or .db", found=path.suffix
            )
    except EquistrideError:
        raise
    except Exception as error:  # the readers raise what they like on damaged files
        raise EquistrideError(
            f"{path} cannot be read as {path.suffix} ({type(error).__name__}: {error})",
            mend="the file may be truncated; copy or make it again",
        ) from error
    for frames in groups:
        if not len(frames):
            raise EquistrideError(f"{path} holds no frames")
        _check_shapes(frames, path)
        for name in ("positions", "energy", "forces") if labelled else ("positions",):
            if not np.isfinite(getattr(frames, name)).all():
                bad = int(np.argwhere(~np.isfinite(getattr(frames, name)))[0][0])
                raise EquistrideError(
                    f"{path} has a NaN or infinite value in {name!r}, frame {bad}", mend="drop that frame"
                )
    if not groups:
        raise EquistrideError(f"{path} holds no frames")
    return groups
