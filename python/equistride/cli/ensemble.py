"""``equistride ensemble``: several potentials in one file that knows its uncertainty."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from equistride.cli.artifact_options import Description, Output


def ensemble(
    artifacts: Annotated[list[Path], typer.Argument(help="Two potentials or more, of one configuration.")],
    output: Output,
    description: Description = "",
) -> None:
    """Join potentials: mean energy and forces, and the members' disagreement as the uncertainty of each force."""
    from equistride.artifact.ensemble import combine

    metadata = combine(artifacts, output, description=description)
    typer.echo(
        f"{output}: ensemble of {metadata.members} {metadata.architecture} potentials,"
        f" {metadata.num_parameters:,} parameters, {metadata.dtype}"
    )
