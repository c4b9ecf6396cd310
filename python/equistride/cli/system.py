"""``equistride system``: another charge or spin for a model that knows them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from equistride.cli.artifact_options import Output


def system(
    artifact: Annotated[Path, typer.Argument(help="Artifact whose model knows charge and spin.")],
    output: Output,
    charge: Annotated[int | None, typer.Option(help="Total charge [e]; as before where left out.")] = None,
    spin: Annotated[
        int | None, typer.Option(help="Spin multiplicity, 1 for a singlet; as before where left out.")
    ] = None,
) -> None:
    """Write an artifact that computes with another total charge or spin multiplicity."""
    from equistride.artifact.system import with_system

    values = with_system(artifact, output, charge=charge, spin=spin).system
    typer.echo(f"{output}: charge {values['charge']:g}, spin multiplicity {values['spin']:g}")
