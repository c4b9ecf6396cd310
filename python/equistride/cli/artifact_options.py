"""What the verbs that read or write an artifact share: their options."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from equistride.cli import outputs
from equistride.errors import tell


def _trust(context: typer.Context, wanted: bool) -> None:
    """Give the word for the verb's artifacts, and take it back when it has ended."""
    before = os.environ.get(TRUST)
    if wanted and before is None:
        os.environ[TRUST] = "1"
        context.call_on_close(lambda: os.environ.pop(TRUST, None))


TRUST = "EQUISTRIDE_TRUST_COMPILED"
"""Variable of the environment that says the same for every way in."""
Trust = Annotated[
    bool, typer.Option("--trust", callback=_trust, help="You trust who made a compiled artifact: it is machine code.")
]
Output = Annotated[Path, typer.Option("-o", "--output", callback=outputs.file, help="File to write.")]
Precision = Annotated[str, typer.Option(help="float32 or float64.")]
Description = Annotated[str, typer.Option(help="One line for the metadata.")]
Licence = Annotated[str, typer.Option(help="Licence of the weights.")]
AllowNonconservative = Annotated[
    bool,
    typer.Option("--allow-nonconservative", help="Also a model with direct forces, a neighbour cap or no envelope."),
]
ContainerOption = Annotated[
    str,
    typer.Option(
        "--container",
        help="torchscript: runs everywhere; aoti: compiled for this machine's CPU, which takes a minute and a C++ compiler.",
    ),
]
Plain = Annotated[bool, typer.Option("--plain", help="Potentials: torch's own operators alone, slower on a CPU.")]
D3 = Annotated[
    str, typer.Option("--d3", help="Add D3(BJ) dispersion with the parameters of this functional, as pbe (tad-dftd3).")
]
D3Cutoff = Annotated[
    float | None,
    typer.Option(
        "--d3-cutoff", help="Where dispersion ends [A]; 40 bohr by default. The cost grows with its third power."
    ),
]


def was_given(context: typer.Context, name: str) -> bool:
    """Whether an option is on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def tell_unused(context: typer.Context, names: Iterable[str], where: str) -> None:
    """Tell of options that were given on the command line and do nothing here."""
    for name in names:
        if was_given(context, name):
            tell(f"--{name.replace('_', '-')} has no effect {where}")
