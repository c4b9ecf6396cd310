"""``equistride sign`` and ``equistride verify``: whose file this is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from equistride.cli import outputs

File = Annotated[Path, typer.Argument(help="An artifact, or any other file.")]


def sign(
    file: File,
    key: Annotated[Path, typer.Option("--key", help="Your private key: Ed25519 in PEM, without a password.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", callback=outputs.file, help="The signature; FILE.sig by default.")
    ] = None,
) -> None:
    """Sign a file, so that others can tell that it is yours."""
    from equistride.artifact.signature import sign as write

    typer.echo(f"signature: {write(file, key, output)}")


def verify(
    file: File,
    key: Annotated[Path, typer.Option("--key", help="Public key of whoever made the file: Ed25519 in PEM.")],
    signature: Annotated[Path | None, typer.Option("--signature", help="FILE.sig by default.")] = None,
) -> None:
    """Check a file's signature; nothing of the file runs."""
    from equistride.artifact.signature import verify as check

    check(file, key, signature)
    typer.echo(f"{file}: signed with the key {key}")
