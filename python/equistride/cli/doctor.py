"""``equistride doctor``: what is there, what fits, and what to do about the rest."""

from __future__ import annotations

import sys
from typing import Annotated

import typer


def doctor(
    need: Annotated[
        list[str] | None, typer.Option(help="A part that must be there: gpu, lammps, mpi, compiler. May be repeated.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Look at versions, libraries, plugins, GPUs, MPI, compiler, threads and disk; a sentence of advice for each fault. Status 1
    where something is broken. Where this command itself does not start: python -m equistride.doctor."""
    from equistride.doctor.examine import examine
    from equistride.doctor.screen import as_json as to_json
    from equistride.doctor.screen import healthy, screen

    findings = examine(need or ())
    typer.echo(to_json(findings) if as_json else screen(findings, colour=sys.stdout.isatty()))
    if not healthy(findings):
        raise typer.Exit(1)
