"""``equistride inspect``: what a file says of itself."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated

import typer

from equistride.cli.artifact_options import Trust
from equistride.errors import EquistrideError


def inspect(
    artifact: Annotated[Path, typer.Argument(help="Artifact to look at.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the metadata as JSON.")] = False,
    verify: Annotated[
        str | None, typer.Option(metavar="SHA256", help="What the file's hash must be, as whoever made it says.")
    ] = None,
    trust: Trust = False,
) -> None:
    """Print the metadata of an artifact, after its self-test."""
    from rich.console import Console
    from rich.table import Table

    from equistride.artifact import load

    found = ""
    if artifact.is_file() and (verify is not None or not as_json):
        with artifact.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    if verify is not None and artifact.is_file() and found != verify.strip().lower():
        raise EquistrideError(
            f"{artifact} is not the file that you expect", expected=f"the SHA-256 {verify}", found=found,
            hint="take it again from whoever made it",
        )  # fmt: skip
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
    table.add_row("SHA-256 of the file", found)
    if metadata.digest is None:
        table.add_row("note", "written without hashes of its records: what was edited in it would not be seen")
    Console().print(table)
