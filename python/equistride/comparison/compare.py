"""The whole comparison: what may be compared, its frames, its result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from equistride.comparison.difference import Difference, contract_differences, differences
from equistride.comparison.evaluation import Side, evaluate, placed
from equistride.comparison.frames import Frame, check_elements, frame_of_test, frames_of_file
from equistride.errors import EquistrideError


@dataclass(frozen=True)
class Comparison:
    """Two sides, the fields in which their metadata differ, the frames, and the differences."""

    first: Side
    second: Side
    contract: list[tuple[str, Any, Any]]
    frames: list[Frame]
    differences: list[Difference]

    def summary(self) -> dict[str, Any]:
        """Return all of it for JSON."""
        sides = [
            {"file": str(s.path), "engine": s.engine, "precision": s.precision or s.metadata.dtype, "device": s.device}
            for s in (self.first, self.second)
        ]
        return {
            "a": sides[0], "b": sides[1],
            "contract": [{"field": name, "a": a, "b": b} for name, a, b in self.contract],
            "frames": [{"name": f.name, "atoms": len(f.atoms)} for f in self.frames],
            "differences": [asdict(d) for d in self.differences],
        }  # fmt: skip


def check_kinds(first: Side, second: Side) -> None:
    """Refuse models that do not answer the same question: of different kinds, or with strides of different lengths."""
    a, b = first.metadata, second.metadata
    if a.kind != b.kind:
        raise EquistrideError(
            f"{first.path} is a {a.kind} and {second.path} a {b.kind}", expected="two models of one kind",
            hint="compare what each of them simulates: equistride run and equistride report",
        )  # fmt: skip
    if a.stride_fs != b.stride_fs:
        raise EquistrideError(
            f"{first.path} and {second.path} have strides of different lengths", expected=f"{a.stride_fs:g} fs twice",
            found=f"{a.stride_fs:g} and {b.stride_fs:g} fs", hint="compare what each of them simulates: equistride run",
        )  # fmt: skip


def frames_for(first: Side, second: Side, files: Sequence[Path], most: int, topology: Path | None) -> list[Frame]:
    """Return the frames of the files, or where there are none those of the artifacts' own tests; each of elements that both know.

    Raises
    ------
    EquistrideError
        For an element that one of the models does not know, and as the readers do.
    """
    sides = [first] if first.path == second.path else [first, second]
    models = [(side.path, side.metadata) for side in sides]
    if files:
        frames = [frame for file in files for frame in frames_of_file(file, most, topology)]
    else:
        if set(first.metadata.species) != set(second.metadata.species):
            raise EquistrideError(
                "the models know different elements", expected=" ".join(first.metadata.species),
                found=" ".join(second.metadata.species), hint="give structures of elements that both know",
            )  # fmt: skip
        frames = [frame_of_test(path, metadata) for path, metadata in models]
    check_elements(frames, models)
    return frames


def compare(
    first: Side, second: Side, frames: Sequence[Frame], *, temperature: float = 300.0, seed: int = 1,
    tick: Callable[[], None] = lambda: None,
) -> Comparison:  # fmt: skip
    """Evaluate both sides on the frames.

    Parameters
    ----------
    first, second
        Models and engines; see :func:`check_kinds`.
    frames
        From :func:`frames_for`.
    temperature, seed
        Of velocities that are drawn for a propagator [K] where a frame has none; both sides get the same.
    tick
        Called after each frame.

    Raises
    ------
    EquistrideError
        As :func:`check_kinds`, and whatever an engine refuses.
    """
    check_kinds(first, second)
    results: tuple[list[Any], list[Any]] = ([], [])
    for frame in frames:
        atoms = placed(frame.atoms, first, temperature, seed)
        for side, found in zip((first, second), results, strict=True):
            try:
                found.append(evaluate(side, atoms))
            except EquistrideError as error:
                raise EquistrideError(f"{side.path} in {side.engine} on {frame.name}: {error}") from None
        tick()
    contract = contract_differences(first.metadata, second.metadata)
    return Comparison(first, second, contract, list(frames), differences(frames, *results))
