"""``equistride eos``: energy against volume, equilibrium volume, bulk modulus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from equistride.cli import properties


def eos(
    artifact: properties.Artifact,
    structure: properties.Structure,
    output: properties.Output = Path("eos"),
    span: Annotated[float, typer.Option(help="Volumes go from 1 - span to 1 + span.")] = 0.06,
    points: Annotated[int, typer.Option(help="Number of volumes.")] = 9,
    relax: properties.Relaxed = True,
    max_force: properties.Force = 1e-4,
    reference: properties.Reference = None,
    device: properties.Device = "cpu",
) -> None:
    """Fit the Birch-Murnaghan equation of state; atoms and the cell's shape are relaxed at each volume."""
    from equistride.properties.eos import equation_of_state
    from equistride.properties.plots import eos_plot

    results = properties.by_potential(
        lambda atoms, calculator, progress: equation_of_state(
            atoms, calculator, span=span, points=points, max_force=max_force, progress=progress
        ),
        "volumes", artifact, structure, reference, device, relax, max_force,
    )  # fmt: skip
    output.mkdir(parents=True, exist_ok=True)
    for name, found in results.items():
        typer.echo(
            f"{name}: V0 {found.volume / found.atoms:.4f} A^3/atom, B {found.bulk_modulus:.2f} GPa, "
            f"B' {found.derivative:.2f}, residual {1000 * found.residual / found.atoms:.4f} meV/atom"
        )
    extra = {}
    if reference is not None:
        one, other = results.values()
        extra["difference_percent"] = {
            "volume": properties.percent(one.volume, other.volume),
            "bulk_modulus": properties.percent(one.bulk_modulus, other.bulk_modulus),
        }
    eos_plot(results, output / "eos.png")
    properties.save(output, "eos", structure, {k: r.summary() for k, r in results.items()}, extra)
