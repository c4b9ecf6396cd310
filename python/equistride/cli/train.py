"""``equistride train``: fit a network to reference data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from equistride.cli import outputs


def train(
    config: Annotated[Path, typer.Argument(help="YAML configuration.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key.key=value, over the file.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", callback=outputs.folder, help="Run folder; runs/NAME by default."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    progress: Annotated[bool, typer.Option(help="Show a progress bar.")] = True,
) -> None:
    """Train a network from a configuration file; Ctrl-C keeps the last checkpoint, SIGTERM writes one."""
    from equistride.training.config import load_config

    settings = load_config(config, overrides)
    folder = output or Path("runs") / settings.name
    outputs.folder(folder)
    try:
        from equistride.training.run import train as run

        results = run(settings, config.parent, folder, resume=resume, progress=progress)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_left(folder / "checkpoints" / "last.ckpt")) from None
    units = {"energy": "meV/atom", "force": "meV/A", "virial": "meV/atom"}
    for key, value in results.items():
        unit = "% of the rms" if key.endswith("_percent") else units[key.split("_")[1]]
        typer.echo(f"{key.removesuffix('_percent').replace('_', ' ')}: {value:.3f} {unit}")
    typer.echo(f"checkpoint: {folder / 'checkpoints' / 'last.ckpt'}")


def _left(checkpoint: Path) -> str:
    """Say what a run that was stopped can go on from."""
    from equistride.artifact.checkpoint import read_checkpoint

    if not checkpoint.is_file():
        return "there is no checkpoint yet, so nothing can be resumed"
    return f"{checkpoint} (step {read_checkpoint(checkpoint)['global_step']}) can be resumed with --resume"
