"""``equistride train``: fit a network to reference data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train(
    config: Annotated[Path, typer.Argument(help="YAML configuration.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key.key=value, over the file.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Run folder; runs/NAME by default.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    progress: Annotated[bool, typer.Option(help="Show a progress bar.")] = True,
) -> None:
    """Train a network from a configuration file; Ctrl-C keeps the last checkpoint."""
    from equistride.training.config import load_config
    from equistride.training.run import train as run

    settings = load_config(config, overrides)
    folder = output or Path("runs") / settings.name
    results = run(settings, config.parent, folder, resume=resume, progress=progress)
    units = {"energy": "meV/atom", "force": "meV/A", "virial": "meV/atom"}
    for key, value in results.items():
        unit = "% of the rms" if key.endswith("_percent") else units[key.split("_")[1]]
        typer.echo(f"{key.removesuffix('_percent').replace('_', ' ')}: {value:.3f} {unit}")
    typer.echo(f"checkpoint: {folder / 'checkpoints' / 'last.ckpt'}")
