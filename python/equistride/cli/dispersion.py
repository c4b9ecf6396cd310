"""What ``export`` and ``import`` share of ``--d3``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from equistride.errors import EquistrideError

if TYPE_CHECKING:
    from equistride.artifact.metadata import Metadata


def check(functional: str, cutoff: float | None, container: str) -> None:
    """Refuse, before anything is written, what cannot be added."""
    if not functional:
        if cutoff is not None:
            raise EquistrideError("--d3-cutoff is for --d3", hint="name a functional with --d3, or leave it out")
        return
    if container != "torchscript":
        raise EquistrideError(
            "--d3 writes TorchScript and nothing else", found=f"--container {container}", hint="leave one of them out"
        )
    from equistride.artifact.dispersion import damping_of

    damping_of(functional)


def add(source: Path, output: Path, functional: str, cutoff: float | None) -> Metadata:
    """Write ``source`` with dispersion to ``output``; where that fails and they are one, the file goes."""
    from equistride.artifact.dispersion import with_dispersion

    try:
        metadata = with_dispersion(source, output, functional, cutoff=cutoff)
    except EquistrideError:
        if source == output:
            output.unlink()
        raise
    pairs = round(4 / 3 * 3.14159 * metadata.cutoff**3 * 0.08, -2)
    typer.echo(
        f"dispersion: D3(BJ) of {functional}, two bodies, within {metadata.cutoff:.4g} A: some {pairs:,.0f} neighbours of each "
        "atom in a crystal, which cost time and memory; --d3-cutoff says otherwise"
    )
    return metadata
