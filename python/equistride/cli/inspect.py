"""``equistride inspect``: what a file says of itself."""

from __future__ import annotations

import hashlib
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from equistride.cli.artifact_options import Trust
from equistride.errors import EquistrideError, printable

WIDEST = 120
"""Columns; longer lines are hard to read."""
MOST_LINES = 3
"""Of a value on the screen; all of it is in ``--all``."""


def inspect(
    artifact: Annotated[Path, typer.Argument(help="Artifact to look at.")],
    provenance: Annotated[
        bool, typer.Option("--provenance", help="Also where weights and data came from, with their hashes.")
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="All fields of the metadata, whole.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the metadata as JSON.")] = False,
    verify: Annotated[
        str | None, typer.Option(metavar="SHA256", help="What the file's hash must be, as whoever made it says.")
    ] = None,
    trust: Trust = False,
) -> None:
    """Print what an artifact says of itself, after its self-test: a screen, or more where asked."""
    from equistride.artifact import load
    from equistride.artifact.summary import summary

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
    columns = min(shutil.get_terminal_size().columns, WIDEST)
    typer.echo(artifact)
    fields = metadata.model_dump(mode="json")
    if everything:
        typer.echo("\n".join(_tree(fields, columns)))
    else:
        rows = summary(metadata)
        if rows[-1][0] == "not shown":
            hint = "--all" if provenance else "--provenance, --all"
            names = [n for n in rows[-1][1].split(", ") if not (provenance and n == "provenance")]
            rows[-1] = ("not shown", f"{', '.join(names)} ({hint})")
        typer.echo("\n".join(line for name, text in rows for line in _row(name, text, columns)))
        if provenance:
            typer.echo("\n".join(_tree({name: fields[name] for name in ("weights", "provenance")}, columns)))
    typer.echo(f" SHA-256      {found}")


def _row(name: str, text: str, columns: int) -> list[str]:
    lines = textwrap.wrap(printable(text), max(20, columns - 14)) or [""]
    if len(lines) > MOST_LINES:
        more = " ... (--all)"
        lines = [*lines[: MOST_LINES - 1], lines[MOST_LINES - 1][: max(20, columns - 14) - len(more)] + more]
    return [f" {name:13}{lines[0]}", *(" " * 14 + line for line in lines[1:])]


def _tree(fields: dict[str, Any], columns: int, depth: int = 1) -> Iterator[str]:
    """Yield a line a value, nothing cut: what is named below what names it."""
    indent = " " * depth
    for name, value in fields.items():
        if isinstance(value, dict) and value:
            yield f"{indent}{printable(name)}"
            yield from _tree(value, columns, depth + 2)
            continue
        text = ", ".join(map(printable, value)) if isinstance(value, list) else printable(value)
        yield from textwrap.wrap(
            f"{printable(name)}: {text}", columns, initial_indent=indent, subsequent_indent=indent + "  ",
            break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip
