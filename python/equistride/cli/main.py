"""The command ``equistride``: one verb a file."""

from __future__ import annotations

import sys

import typer

from equistride import __version__
from equistride.cli import (
    bench,
    conductivity,
    data,
    demo,
    elastic,
    ensemble,
    eos,
    export,
    import_,
    inspect,
    phonons,
    relax,
    report,
    system,
    train,
    validate,
)
from equistride.errors import EquistrideError

app = typer.Typer(
    help="Run trained equivariant networks, fast and safely, in OpenMM and LAMMPS.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"equistride {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


app.add_typer(data.app, name="data")
app.add_typer(import_.app, name="import")
app.command()(train.train)
app.command()(export.export)
app.command()(ensemble.ensemble)
app.command()(system.system)
app.command()(inspect.inspect)
app.command()(validate.validate)
app.command()(relax.relax)
app.command()(eos.eos)
app.command()(elastic.elastic)
app.command()(phonons.phonons)
app.command()(conductivity.conductivity)
app.command()(report.report)
app.command()(bench.bench)
app.command()(demo.demo)


def main() -> None:
    """Run the command line; a user's error is one sentence on stderr and exit status 2."""
    try:
        app()
    except EquistrideError as error:
        print(f"equistride: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("equistride: stopped", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
