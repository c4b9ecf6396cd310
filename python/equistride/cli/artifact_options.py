"""What the verbs that write an artifact share: their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from equistride.cli import outputs

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
