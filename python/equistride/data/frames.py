"""Labelled frames of one composition, and the files they come from."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from equistride.data.labels import CHARGES, SPINS, Labels, differing
from equistride.data.structures import read_images
from equistride.errors import EquistrideError, reading, tell
from equistride.units import EV_PER_KCAL_MOL, EV_PER_KJ_MOL
from equistride.writing import write_arrays

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
        Optional; the virial is -dE/d(strain) = -volume x stress [eV].
    charge [F], spin [F]
        Optional: total charge [e] and spin multiplicity; NaN on frames that have none.
    segment [F], time_fs [F]
        Frames of one segment are consecutive in one trajectory; a pair never crosses two segments.
    temperature_K [F], total_energy [F]
        Optional facts of the run that made the frames.
    masses [N]
        Optional, amu: those of the run, where it moved the atoms with others than the standard ones.
    row [F]
        Place of each frame in the file that it was read from, for messages; it is not saved.
    """

    numbers: NDArray[np.int64]
    positions: Array
    cell: Array
    pbc: NDArray[np.bool_]
    energy: Array
    forces: Array
    velocities: Array | None = None
    virial: Array | None = None
    charge: Array | None = None
    spin: Array | None = None
    segment: NDArray[np.int64] | None = None
    time_fs: Array | None = None
    temperature_K: Array | None = None
    total_energy: Array | None = None
    masses: Array | None = None
    row: NDArray[np.int64] | None = None

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
                "frames of different atoms cannot be joined", hint="give each composition a file of its own"
            )
        joined: dict[str, object] = {name: getattr(first, name) for name in _OF_ATOMS}
        for f in dataclasses.fields(Frames):
            if f.name not in joined:
                values = [getattr(p, f.name) for p in parts]
                joined[f.name] = None if any(v is None for v in values) else np.concatenate(values)
        return Frames(**joined)  # type: ignore[arg-type]

    def save(self, path: Path) -> None:
        """Write a compressed npz file; it appears whole or not at all. Labels that no frame has are left out."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        names = [f.name for f in dataclasses.fields(self) if f.name != "row"]
        arrays = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        for name in ("energy", "forces"):
            if np.isnan(arrays[name]).all():
                del arrays[name]
        write_arrays(path, arrays)


_OF_ATOMS = ("numbers", "pbc", "masses")
"""What all frames have in common."""


def _equal(one: Array | None, other: Array | None) -> bool:
    return (one is None and other is None) or (one is not None and other is not None and np.array_equal(one, other))


_ALIASES = {
    "numbers": ("numbers", "z", "nuclear_charges"), "positions": ("positions", "R", "coords"),
    "energy": ("REF_energy", "energy", "E", "energies"), "forces": ("REF_forces", "forces", "F"),
    "virial": ("REF_virial", "REF_virials", "virial", "virials"), "charge": CHARGES, "spin": SPINS,
    "time_fs": ("time_fs", "time"), "temperature_K": ("temperature_K", "temperature"),
}  # fmt: skip
"""Names of arrays in npz files, all of which are read, the first that is there."""
ENERGY_UNITS = {"eV": 1.0, "kcal/mol": EV_PER_KCAL_MOL, "kJ/mol": EV_PER_KJ_MOL}
"""eV; the units that a file may name in ``e_unit``."""
_PUBLISHED = {"theory", "md5", "old_indices", "old_energies"}
"""Arrays that the published files of MD17 and rMD17 have beside their frames; both are in kcal/mol."""


def _energy_unit(arrays: Mapping[str, Any], path: Path, assumed: str | None) -> float:
    """Return the unit of an npz file's energies in eV: as it says, or as its names for the arrays tell."""
    if "e_unit" in arrays:
        value = arrays["e_unit"].item()
        name = (value.decode() if isinstance(value, bytes) else str(value)).split("/Ang")[0]
        if name not in ENERGY_UNITS:
            raise EquistrideError(
                f"the energy unit of {path} is not known", expected=", ".join(ENERGY_UNITS), found=name
            )
        return ENERGY_UNITS[name]
    foreign = {"E", "F", "energies", "coords"} & set(arrays)
    if not foreign:
        return 1.0
    if _PUBLISHED & set(arrays):
        return EV_PER_KCAL_MOL
    if assumed is None:
        raise EquistrideError(
            f"{path} has the names of MD17 ({', '.join(sorted(foreign))}), whose unit is kcal/mol, and does not say its own",
            expected=f"e_unit = {' or '.join(ENERGY_UNITS)}",
            hint="add e_unit to the file, or name its arrays energy and forces, in eV and eV/A",
        )
    return ENERGY_UNITS[assumed]


def _named(arrays: Mapping[str, Any], names: Sequence[str], path: Path) -> Any:
    """Return the array under the first of its names that is there; say where two are there and differ."""
    first, others = differing(arrays, names)
    for other in others:
        tell(f"{path}: the arrays '{first}' and '{other}' differ; '{first}' is taken")
    return None if first is None else arrays[first]


def _from_npz(path: Path, labelled: bool, assumed: str | None) -> list[Frames]:
    with np.load(path, allow_pickle=False) as z:
        keys = set(z.files)
        named = {name: _named(z, aliases, path) for name, aliases in _ALIASES.items()}
        needed = ("numbers", "positions", "energy", "forces") if labelled else ("numbers", "positions")
        missing = [n for n in needed if named[n] is None]
        if missing:
            raise EquistrideError(
                f"{path} lacks the arrays {missing}",
                expected="numbers (or z), positions (or R), energy (or E), forces (or F)",
                found=sorted(keys),
                hint="rename the arrays of the file",
            )
        shape = np.shape(named["positions"])
        number = shape[0] if shape else 0
        labels = named["energy"] is not None or named["forces"] is not None
        unit = _energy_unit(z, path, assumed) if labels else 1.0
        for name, unlabelled in (("energy", shape[:1]), ("forces", shape)):
            if named[name] is None:
                named[name] = np.full(unlabelled, np.nan)
        cell = z["cell"] if "cell" in keys else np.zeros((3, 3))
        if np.shape(cell)[-2:] != (3, 3):
            raise EquistrideError(
                f"the array 'cell' of {path} has a wrong shape", expected="lattice vectors as rows, [3, 3] or [F, 3, 3]",
                found=list(np.shape(cell)), hint="of three lengths make a diagonal matrix",
            )  # fmt: skip
        _check_numbers(named["numbers"], path)
        optional = {k: np.asarray(z[k], float) for k in ("velocities", "total_energy", "masses") if k in keys}
        if named["virial"] is not None:
            optional["virial"] = named["virial"].astype(float)
        if named["time_fs"] is not None and named["time_fs"].ndim == 1:
            optional["time_fs"] = named["time_fs"].astype(float)
        for name in ("temperature_K", "charge", "spin"):
            if named[name] is not None:
                optional[name] = np.broadcast_to(np.squeeze(named[name]), (number,)).astype(float)
        if {"stress", "REF_stress"} & keys and named["virial"] is None and labelled:
            tell(
                f"the array 'stress' of {path} is not read, as its unit and sign are not known; training on it needs "
                "'virial' [F, 3, 3] = -volume x stress in eV"
            )
        pbc = z["pbc"] if "pbc" in keys else np.full(3, bool(np.any(cell)))
        return [Frames(
            numbers=named["numbers"].astype(np.int64),
            positions=named["positions"].astype(float),
            energy=unit * np.asarray(named["energy"], float).reshape(number),
            forces=unit * named["forces"].astype(float),
            cell=np.broadcast_to(cell, (number, 3, 3)).astype(float),
            pbc=np.broadcast_to(pbc, 3).astype(bool) if np.ndim(pbc) == 0 else pbc.astype(bool),
            segment=z["segment"].astype(np.int64) if "segment" in keys else None,
            row=np.arange(number), **optional)]  # fmt: skip


def _check_numbers(numbers: Any, path: Path) -> None:
    """Refuse atomic numbers that are not one whole number an atom."""
    if np.ndim(numbers) != 1:
        raise EquistrideError(
            f"the atomic numbers of {path} are not those of one composition", expected="one an atom, [N]",
            found=list(np.shape(numbers)), hint="write frames of other atoms into files of their own",
        )  # fmt: skip
    wrong = numbers.dtype.kind not in "iuf" or np.any(numbers != np.round(numbers))
    if wrong:
        raise EquistrideError(f"the atomic numbers of {path} must be whole numbers", found=str(numbers[:9])[:80])


def _of_row(row: Any) -> Any:
    """Return the image of a row of an ASE database, with what else was written of it."""
    image = row.toatoms()
    written = dict(row.data) | row.key_value_pairs
    if not written.get("charge"):  # ASE's own key, 0 where atoms have no initial charges
        written.pop("charge", None)
    image.info |= written
    return image


def _from_ase(images: Iterable[Any], path: Path) -> list[Frames]:
    """Group ASE images by composition and periodicity."""
    groups: dict[tuple[object, ...], list[tuple[int, Any, dict[str, Any]]]] = {}
    reader = Labels(path)
    for place, image in enumerate(images):
        member = (place, image, reader.read(image, f"frame {place}"))
        groups.setdefault((tuple(image.numbers), tuple(image.pbc)), []).append(member)
    result = []
    for (numbers, pbc), members in groups.items():
        rows, pictures, labels = zip(*members, strict=True)
        optional = {name: np.stack([label[name] for label in labels]) for name in ("virial", "charge", "spin")}
        result.append(
            Frames(
                numbers=np.array(numbers, np.int64),
                pbc=np.array(pbc, bool),
                positions=np.stack([i.positions for i in pictures]),
                cell=np.stack([i.cell.array for i in pictures]),
                energy=np.array([label["energy"] for label in labels]),
                forces=np.stack([label["forces"] for label in labels]),
                row=np.array(rows),
                **{name: None if np.isnan(values).all() else values for name, values in optional.items()},
            )
        )
    return result


def _check_shapes(frames: Frames, path: Path) -> None:
    """Every array must fit the number of frames and atoms; an error names the first that does not."""
    number, atoms = len(frames), len(frames.numbers)
    vectors, matrices, scalars = (number, atoms, 3), (number, 3, 3), (number,)
    shapes = {"numbers": (atoms,), "masses": (atoms,), "pbc": (3,), "cell": matrices, "virial": matrices}
    shapes |= dict.fromkeys(("positions", "forces", "velocities"), vectors)
    shapes |= dict.fromkeys(
        ("energy", "charge", "spin", "segment", "time_fs", "temperature_K", "total_energy", "row"), scalars
    )
    for name, shape in shapes.items():
        value = getattr(frames, name)
        if value is not None and value.shape != shape:
            what = f"the array {name!r} of {path} does not fit the others"
            raise EquistrideError(what, expected=f"shape {list(shape)}", found=f"shape {list(value.shape)}")
    strange = frames.numbers[(frames.numbers < 1) | (frames.numbers >= len(chemical_symbols))]
    if len(strange):
        raise EquistrideError(
            f"{path} has an atomic number of no element", expected=f"1 to {len(chemical_symbols) - 1}", found=strange[0]
        )


def check_finite(frames: Frames, path: Path, names: Sequence[str]) -> None:
    """Refuse NaN and infinite values in the arrays of these names; an error names the frame in its file."""
    for name in names:
        values = getattr(frames, name)
        if values is not None:
            bad = ~np.isfinite(values).reshape(len(frames), -1).all(1)
            _refuse(np.asarray(bad), frames, f"{path} has a NaN or infinite value in {name!r}", "drop that frame")


def _check_values(frames: Frames, path: Path, labelled: bool) -> None:
    """Every number must be finite, but for virials, of which frames may have none, and every periodic box have a volume."""
    check_finite(frames, path, ("positions", "cell", "energy", "forces") if labelled else ("positions", "cell"))
    if frames.virial is not None:
        labels = frames.virial.reshape(len(frames), -1)
        bad = ~np.isfinite(labels).all(1) & ~np.isnan(labels).all(1)
        _refuse(
            np.asarray(bad),
            frames,
            f"{path} has a NaN or infinite value in 'virial'",
            "drop it, or make all nine NaN: no label",
        )
    volume = np.abs(np.linalg.det(frames.cell))
    _refuse(
        np.asarray((volume < 1e-9) & bool(frames.pbc.all())),
        frames,
        f"{path} has a box without a volume",
        "give its three lattice vectors, or pbc = F F F",
    )


def _check_electrons(frames: Frames, path: Path) -> None:
    """Tell of a multiplicity that the number of electrons does not allow: the one is odd where the other is even."""
    if frames.spin is None:
        return
    electrons = frames.numbers.sum() - (0.0 if frames.charge is None else np.nan_to_num(frames.charge))
    wrong = (frames.spin > 0) & ((electrons + frames.spin) % 2 == 0)
    if wrong.any():
        k = int(np.argmax(wrong))
        tell(
            f"{path}: frame {k if frames.row is None else frames.row[k]} has {np.broadcast_to(electrons, len(frames))[k]:g} "
            f"electrons and a spin multiplicity of {frames.spin[k]:g}, which cannot be; is it 2 S + 1?"
        )


def tell_broken_off(path: Path, count: int) -> None:
    """Say that a file ends within a frame."""
    tell(f"{path.name} breaks off after {count} whole frames, as an interrupted run leaves it; these are read")


def _refuse(bad: NDArray[np.bool_], frames: Frames, what: str, hint: str) -> None:
    if bad.any():
        first = int(np.argmax(bad))
        raise EquistrideError(f"{what}, frame {first if frames.row is None else frames.row[first]}", hint=hint)


def load(path: str | Path, *, labelled: bool = True, energy_unit: str | None = None) -> list[Frames]:
    """Read labelled frames from npz, extxyz or an ASE database; one entry a composition.

    Names of labels are those of :mod:`equistride.data.labels`.

    Parameters
    ----------
    path
        ``.npz`` with the arrays of :class:`Frames`, ``.xyz``/``.extxyz``, or ``.db``. MD17's and rMD17's names are known too,
        with the unit that ``e_unit`` names or kcal/mol of their published files. Of ASE's files stresses become virials.
    labelled
        Energies and forces are needed; without, an npz file may lack them (then they are NaN).
    energy_unit
        Of an npz file with MD17's names that does not say its own; without it such a file is refused.

    Raises
    ------
    EquistrideError
        Where the file is missing, of another type, truncated, lacks labels or holds a NaN.
    """
    path = Path(path)
    if not path.is_file():
        raise EquistrideError(f"the data file {path} does not exist", hint="check data.files in the config")
    with reading(path, path.suffix or "frames"):
        return _checked(path, labelled, energy_unit)


def _checked(path: Path, labelled: bool, energy_unit: str | None) -> list[Frames]:
    if path.suffix == ".npz":
        groups = _from_npz(path, labelled, energy_unit)
    elif path.suffix in (".xyz", ".extxyz"):
        groups = _from_ase(read_images(path, "extxyz"), path)
    elif path.suffix == ".db":
        import ase.db

        groups = _from_ase((_of_row(row) for row in ase.db.connect(path).select()), path)
    else:
        raise EquistrideError(
            f"the data file {path} has an unknown type", expected=".npz, .extxyz, .xyz or .db", found=path.suffix
        )
    for frames in groups:
        if not len(frames):
            raise EquistrideError(f"{path} holds no frames")
        _check_shapes(frames, path)
        _check_values(frames, path, labelled)
        _check_electrons(frames, path)
    if not groups:
        raise EquistrideError(f"{path} holds no frames")
    return groups
