"""``equistride validate``: is an artifact right?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def validate(
    artifact: Annotated[Path, typer.Argument(help="Artifact to check.")],
    structure: Annotated[
        Path | None, typer.Option(help="Structure to check it on; its reference frame by default.")
    ] = None,
) -> None:
    """Check forces and virial against finite differences, symmetries, and float32 against float64."""
    from rich.console import Console
    from rich.table import Table

    from equistride.artifact.validate import validate as run

    checks = run(artifact, structure)
    table = Table(title=str(artifact), title_justify="left")
    for column in ("check", "error", "bound", "in", ""):
        table.add_column(column, justify="right" if column in ("error", "bound") else "left")
    for check in checks:
        verdict = "[green]pass[/green]" if check.passed else "[red]FAIL[/red]"
        table.add_row(check.name, f"{check.error:.1e}", f"{check.bound:.0e}", check.unit, verdict)
    Console().print(table)
    if not all(c.passed for c in checks):
        raise typer.Exit(1)
