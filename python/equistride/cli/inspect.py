"""``equistride inspect``: what a file says of itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def inspect(
    artifact: Annotated[Path, typer.Argument(help="Artifact to look at.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the metadata as JSON.")] = False,
) -> None:
    """Print the metadata of an artifact, after its self-test."""
    from rich.console import Console
    from rich.table import Table

    from equistride.artifact import load

    metadata = load(artifact).metadata
    if as_json:
        typer.echo(metadata.model_dump_json(indent=1))
        return
    table = Table(title=str(artifact), show_header=False, title_justify="left")
    units = {"cutoff": "A", "interaction_range": "A", "stride_fs": "fs", "masses": "amu"}
    for key, value in metadata.model_dump(mode="json").items():
        if value in (None, "", [], {}):
            continue
        text = json.dumps(value) if isinstance(value, (dict, list)) else str(value)
        table.add_row(key.replace("_", " "), f"{text} {units.get(key, '')}".strip())
    Console().print(table)
