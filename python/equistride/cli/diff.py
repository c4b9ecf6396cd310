"""``equistride diff``: two models, or one in two engines, on the same frames."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from equistride.cli.artifact_options import Trust
from equistride.errors import EquistrideError, printable

if TYPE_CHECKING:
    from equistride.comparison.compare import Comparison
    from equistride.comparison.difference import Difference
    from equistride.comparison.evaluation import Side

COLUMNS = 80
WORTH = 28
"""Columns of a value in the table of metadata."""


def diff(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="A [B] [STRUCTURE]...", help="One or two artifacts, then structures or trajectories."),
    ],
    engine: Annotated[
        list[str] | None, typer.Option(help="ase (by default), openmm or lammps; once for both, or for A and for B.")
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(help="float32 or float64; once for both, or for A and for B; the artifact's own."),
    ] = None,
    most: Annotated[int, typer.Option(min=1, help="Frames of each file at most, evenly spread.")] = 10,
    topology: Annotated[Path | None, typer.Option(help="Structure with the elements, for DCD and XTC.")] = None,
    temperature: Annotated[float, typer.Option(help="Propagators: velocities where a frame has none [K].")] = 300.0,
    seed: Annotated[int, typer.Option(min=1, help="Propagators: seed of those velocities.")] = 1,
    device: Annotated[str, typer.Option(help="Where the networks run: cpu, cuda.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    trust: Trust = False,
) -> None:
    """Compare two models, or one in two engines: energies, forces and stresses, or strides, and what the files say of themselves.
    Without a structure on the frames of the artifacts' own tests."""
    from equistride.comparison.compare import check_kinds, compare, frames_for

    first, second, structures = _sides(files, engine or [], precision or [], device)
    check_kinds(first, second)
    frames = frames_for(first, second, structures, most, topology)
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=as_json, transient=True) as bar:
        task = bar.add_task("frames", total=len(frames))
        result = compare(first, second, frames, temperature=temperature, seed=seed, tick=lambda: bar.advance(task))
    if as_json:
        typer.echo(json.dumps(result.summary(), indent=1))
    else:
        _show(result)


def _sides(files: list[Path], engines: list[str], precisions: list[str], device: str) -> tuple[Side, Side, list[Path]]:
    """Tell artifacts from structures, and give each side its engine and precision."""
    from equistride.artifact.metadata import metadata_of, precision_name
    from equistride.artifact.model import load
    from equistride.comparison.evaluation import Side
    from equistride.simulation.settings import Settings

    pairs = {"--engine": engines or ["ase"], "--precision": precisions or [""]}
    for option, given in pairs.items():
        if len(given) > 2:
            raise EquistrideError(f"there are two sides to {option}", expected="one or two", found=len(given))
    apart = any(len(set(given)) == 2 for given in pairs.values())
    models = [files[0]]
    if len(files) > 1 and (not apart or metadata_of(files[1]) is not None):
        models.append(files[1])
    elif not apart:
        raise EquistrideError(
            "there is nothing to compare with", expected="two artifacts, or two engines or precisions", found=str(files[0]),
            hint="give --engine openmm --engine lammps, say",
        )  # fmt: skip
    sides = []
    for k, model in enumerate((models[0], models[-1])):
        metadata = metadata_of(model) or load(model).metadata  # which says why it is no artifact
        words: dict[str, Any] = {"engine": pairs["--engine"][min(k, len(pairs["--engine"]) - 1)]}
        Settings(**words)  # which knows the engines
        precision = precision_name(pairs["--precision"][min(k, len(pairs["--precision"]) - 1)] or None)
        if metadata.kind == "propagator" and precision is not None:
            raise EquistrideError("a propagator runs in its own precision", hint="leave --precision out")
        sides.append(Side(model, metadata, words["engine"], precision, device))
    return sides[0], sides[1], files[len(models) :]


def _show(result: Comparison) -> None:
    for letter, side in (("A", result.first), ("B", result.second)):
        typer.echo(f"{letter}  {side.path}  ({side.engine}, {side.precision or side.metadata.dtype})")
    if result.contract:
        typer.echo(f"\n {'metadata':22}{'A':{WORTH}} B")
        for name, a, b in result.contract:
            cells = [textwrap.wrap(_text(value), WORTH - 1) or ["-"] for value in (a, b)]
            for k in range(max(map(len, cells))):
                left, right = (cell[k] if k < len(cell) else "" for cell in cells)
                typer.echo(f" {'' if k else name:22}{left:{WORTH}} {right}".rstrip())
    elif result.first.path != result.second.path:
        typer.echo("\nthe metadata are the same")
    atoms = sum(len(frame.atoms) for frame in result.frames)
    count = len(result.frames)
    typer.echo(f"\n{count} frame{'s' if count > 1 else ''}, {atoms} atoms")
    typer.echo(f" {'B - A':14}{'in':9}{'largest':>10}{'rms':>10}{'rms of A':>11}  largest at")
    for d in result.differences:
        typer.echo(f" {d.name:14}{d.unit:9}{d.largest:10.2e}{d.rms:10.2e}{d.scale:11.3g}  {_place(d)}")
    for d in result.differences:
        if d.by_element is not None and len(d.by_element) > 1:
            parts = [f"{s} {value:.2e}" for s, value in sorted(d.by_element.items(), key=lambda item: -item[1])]
            typer.echo("\n".join(textwrap.wrap(f"rms of {d.name} by element: {', '.join(parts)}", COLUMNS - 1,
                                               initial_indent=" ", subsequent_indent="   ")))  # fmt: skip
    if result.first.metadata.kind == "potential" and not any(d.name == "stress" for d in result.differences):
        typer.echo(" stress: not compared (no box, or an engine that gives none)")


def _text(value: object) -> str:
    """Return a value of the metadata in a line."""
    text = " ".join(map(str, value)) if isinstance(value, list) else "-" if value is None else str(value)
    return printable(text)


def _place(d: Difference) -> str:
    atom = f"atom {d.atom} ({d.element}), " if d.atom is not None else ""
    component = f"{d.component}, " if d.component is not None else ""
    return f"{atom}{component}{d.frame}"
