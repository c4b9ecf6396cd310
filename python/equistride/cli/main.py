"""The command ``equistride``: one verb a file."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from typing import Any

import typer
from typer.core import TyperGroup

from equistride import __version__
from equistride.cli import (
    bench,
    conductivity,
    data,
    demo,
    diff,
    distil,
    doctor,
    elastic,
    ensemble,
    eos,
    export,
    import_,
    inspect,
    phonons,
    relax,
    report,
    run,
    sign,
    system,
    train,
    validate,
)
from equistride.errors import EquistrideError, Notice

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
"""Errors of the system that are about a file also where they do not name it."""


def about_file(error: OSError) -> EquistrideError | None:
    """Return the sentence for a file that the system refuses to read or write; None for an error of another kind."""
    name = error.filename2 or error.filename
    if error.errno is None or not (isinstance(name, str | bytes | os.PathLike) or error.errno in FULL):
        return None
    what = "a file" if name is None else os.fsdecode(name)
    return EquistrideError(f"{what} cannot be read or written ({error.strerror})", hint="check the path and the disk")


class Verbs(TyperGroup):
    """All verbs. A file that cannot be read or written is a user's error; Ctrl-C ends with one sentence and status 130.

    A verb that is stopped may say what is left of its work: ``raise KeyboardInterrupt("2 results are in out.json")``.
    """

    def invoke(self, ctx: Any) -> Any:
        """Run a verb."""
        try:
            return super().invoke(ctx)
        except OSError as error:
            said = about_file(error) if error.errno != errno.EPIPE else None
            if said is None:
                raise
            raise said from error
        except KeyboardInterrupt as stop:
            print("; ".join(["equistride: stopped", *map(str, stop.args)]), file=sys.stderr)
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=Verbs,
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
app.command()(distil.distil)
app.command()(export.export)
app.command()(ensemble.ensemble)
app.command()(system.system)
app.command()(inspect.inspect)
app.command()(sign.sign)
app.command()(sign.verify)
app.command()(validate.validate)
app.command()(diff.diff)
app.command()(relax.relax)
app.command()(eos.eos)
app.command()(elastic.elastic)
app.command()(phonons.phonons)
app.command()(conductivity.conductivity)
app.command()(report.report)
app.command()(bench.bench)
app.command()(run.run)
app.command()(demo.demo)
app.command()(doctor.doctor)


def _show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
    """Print a notice as a sentence, and every other warning as Python does."""
    if issubclass(category, Notice):
        print(f"equistride: note: {message}", file=sys.stderr)
    else:
        _plainly(message, category, *place, **more)


_plainly = warnings.showwarning


def main() -> None:
    """Run the command line; a user's error is one sentence on stderr and exit status 2."""
    warnings.showwarning = _show
    try:
        app()
    except EquistrideError as error:
        print(f"equistride: {error}", file=sys.stderr)
        sys.exit(2)
    except ImportError as error:  # a torch without its libraries, say
        if (error.name or "").partition(".")[0] == "equistride":
            raise
        print(
            f"equistride: a package cannot be imported ({error}); `equistride doctor` says what is there and what to do",
            file=sys.stderr,
        )
        sys.exit(2)
    except KeyboardInterrupt:
        print("equistride: stopped", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
