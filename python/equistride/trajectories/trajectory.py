"""A trajectory in equistride's units, checked once so that every analysis can trust it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations_with_replacement, pairwise

import numpy as np
from numpy.typing import NDArray

from equistride.cell import has_box
from equistride.elements import atomic_numbers_of
from equistride.errors import EquistrideError
from equistride.series import Floats, check_series


@dataclass(frozen=True)
class Trajectory:
    """Frames of one system.

    Attributes
    ----------
    positions
        [F, N, 3] A, wrapped or unwrapped.
    symbols
        N chemical symbols.
    time
        [F] fs, growing within a piece.
    cell
        [3, 3] or [F, 3, 3] A, lattice vectors as rows; zeros where there is no box.
    velocities
        [F, N, 3] A/fs, or None.
    energies
        [F] potential energies [eV], or None.
    temperature
        [F] K as the engine reported it, or None.
    pieces_of
        [F] int; frames with one number are consecutive, and no time correlation is taken across a change.
        None: one piece.
    masses
        [N] amu; left out or None: the standard atomic weights.
    name
        What to call it in messages and legends.

    Raises
    ------
    EquistrideError
        For wrong shapes, NaN, unknown symbols, or time that does not grow.
    """

    positions: Floats
    symbols: tuple[str, ...]
    time: Floats
    cell: Floats
    velocities: Floats | None = None
    energies: Floats | None = None
    temperature: Floats | None = None
    pieces_of: NDArray[np.int64] | None = None
    masses: Floats = field(default_factory=lambda: np.zeros(0))
    name: str = "trajectory"

    def __post_init__(self) -> None:
        set_ = lambda key, value: object.__setattr__(self, key, value)  # noqa: E731
        positions = check_series(self.positions, f"{self.name}: positions", minimum=1, shape=(None, None, 3))
        frames, atoms = positions.shape[:2]
        if atoms == 0:
            raise EquistrideError(
                f"{self.name} holds no atoms", expected="one atom or more", found=0, hint="read another file"
            )
        set_("positions", positions)
        set_("symbols", tuple(str(s) for s in self.symbols))
        if len(self.symbols) != atoms:
            raise EquistrideError(
                f"{self.name}: symbols and positions disagree",
                expected=f"{atoms} symbols",
                found=len(self.symbols),
                hint="use the topology that the run was written with",
            )
        set_("time", check_series(self.time, f"{self.name}: time", minimum=frames, shape=(frames,)))
        cell = np.asarray(self.cell, dtype=np.float64)
        set_("cell", check_series(cell, f"{self.name}: cell", minimum=1, shape=(
            (frames, 3, 3) if cell.ndim == 3 else (3, 3)
        )))  # fmt: skip
        for key, shape in (
            ("velocities", (frames, atoms, 3)),
            ("energies", (frames,)),
            ("temperature", (frames,)),
        ):
            value = getattr(self, key)
            if value is not None:
                set_(key, check_series(value, f"{self.name}: {key}", minimum=1, shape=shape))
        if self.masses is None or np.size(self.masses) == 0:
            set_("masses", standard_masses(self.symbols))
        else:
            masses = check_series(self.masses, f"{self.name}: masses", minimum=1, shape=(atoms,))
            if masses.min() <= 0.0:
                raise EquistrideError(
                    f"{self.name}: masses must be positive",
                    found=f"{masses.min()} amu",
                    hint="leave massless sites out of the trajectory",
                )
            set_("masses", masses)
        if self.pieces_of is not None:
            set_("pieces_of", np.asarray(self.pieces_of, dtype=np.int64).reshape(frames))
        for part in self.pieces():
            steps = np.diff(self.time[part])
            if len(steps) and (steps.min() <= 0.0 or steps.max() > 1.01 * steps.min()):
                raise EquistrideError(
                    f"{self.name}: time must grow by equal steps within a piece",
                    found=f"steps of {steps.min():.6g} to {steps.max():.6g} fs",
                    hint="split the trajectory where the run was interrupted (pieces_of)",
                )

    @property
    def frames(self) -> int:
        """Number of frames F."""
        return len(self.positions)

    @property
    def atoms(self) -> int:
        """Number of atoms N."""
        return len(self.symbols)

    @property
    def cells(self) -> Floats:
        """[F, 3, 3] A."""
        return np.broadcast_to(self.cell, (self.frames, 3, 3))

    @cached_property
    def periodic(self) -> bool:
        """Whether every frame has a box."""
        return has_box(self.cell)

    @property
    def elements(self) -> tuple[str, ...]:
        """The elements, the rarest first, so that pairs read Si-O and O-H."""
        return tuple(sorted(set(self.symbols), key=lambda e: (self.symbols.count(e), e)))

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Unordered pairs of elements."""
        return tuple(combinations_with_replacement(self.elements, 2))

    @property
    def formula(self) -> str:
        """Number of atoms of each element, such as "Si24 O48"."""
        return " ".join(f"{e}{self.symbols.count(e)}" for e in self.elements)

    @property
    def interval(self) -> float:
        """Time between frames [fs].

        Raises
        ------
        EquistrideError
            Where no piece has two frames.
        """
        for part in self.pieces():
            if part.stop - part.start > 1:
                return float(self.time[part.stop - 1] - self.time[part.start]) / (part.stop - part.start - 1)
        raise EquistrideError(
            f"{self.name} has no two consecutive frames",
            expected="two frames or more",
            found=f"{self.frames} frame(s) in {len(self.pieces())} piece(s)",
            hint="write more frames",
        )

    def pieces(self) -> list[slice]:
        """Runs of consecutive frames."""
        if self.pieces_of is None:
            return [slice(0, self.frames)]
        edges = [0, *(np.flatnonzero(np.diff(self.pieces_of)) + 1).tolist(), self.frames]
        return [slice(a, b) for a, b in pairwise(edges)]

    def indices(self, element: str) -> NDArray[np.int64]:
        """Indices of the atoms of one element.

        Raises
        ------
        EquistrideError
            For an element that the trajectory lacks.
        """
        found = np.flatnonzero(np.array(self.symbols) == element)
        if not len(found):
            raise EquistrideError(
                f"{self.name} has no {element}",
                expected=f"one of {', '.join(self.elements)}",
                found=element,
                hint="name an element that is there",
            )
        return found

    def need_velocities(self, purpose: str) -> Floats:
        """The velocities [F, N, 3] A/fs, or an error that says what they are needed for."""
        if self.velocities is None:
            raise EquistrideError(
                f"{purpose} needs velocities",
                expected=f"velocities in {self.name}",
                found="positions only",
                hint="write velocities (npz or extxyz; DCD and XTC have none)",
            )
        return self.velocities

    def need_box(self, purpose: str) -> Floats:
        """The cells [F, 3, 3] A, or an error that says what they are needed for."""
        if not self.periodic:
            raise EquistrideError(
                f"{purpose} needs a periodic box",
                expected="a cell that spans a volume",
                found=f"none in {self.name}",
                hint="pass the cell of the run",
            )
        return self.cells

    def select(self, frames: slice | NDArray[np.int64]) -> Trajectory:
        """Some of the frames, as a new trajectory; picked frames need not be equally spaced, so each is its
        own piece.
        """
        pick = lambda x: None if x is None else x[frames]  # noqa: E731
        pieces = pick(self.pieces_of) if isinstance(frames, slice) else np.arange(len(self.time[frames]))
        return replace(
            self,
            positions=self.positions[frames],
            time=self.time[frames],
            cell=self.cell[frames] if self.cell.ndim == 3 else self.cell,
            velocities=pick(self.velocities),
            energies=pick(self.energies),
            temperature=pick(self.temperature),
            pieces_of=pieces,
        )

    def thinned(self, most: int) -> Trajectory:
        """At most ``most`` frames, spread over the whole run, for what needs no time correlation."""
        if self.frames <= most:
            return self
        return self.select(np.linspace(0, self.frames - 1, most).round().astype(np.int64))


def standard_masses(symbols: tuple[str, ...]) -> Floats:
    """Standard atomic weights [N] (amu)."""
    from ase.data import atomic_masses

    return np.asarray(atomic_masses[atomic_numbers_of(symbols, "the trajectory")], float)
