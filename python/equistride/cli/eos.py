"""``equistride eos``: energy against volume, equilibrium volume, bulk modulus."""

from __future__ import annotations

from typing import Annotated

import typer

from equistride.cli import properties


@properties.verb
def eos(
    run: properties.Run,
    span: Annotated[float, typer.Option(help="Volumes go from 1 - span to 1 + span.")] = 0.06,
    points: Annotated[int, typer.Option(help="Number of volumes.")] = 9,
) -> None:
    """Fit the Birch-Murnaghan equation of state; atoms and the cell's shape are relaxed at each volume."""
    from equistride.properties.eos import equation_of_state
    from equistride.properties.plots import eos_plot

    results = run.each(
        "volumes",
        lambda atoms, calculator, progress: equation_of_state(
            atoms, calculator, span=span, points=points, max_force=run.max_force, progress=progress
        ),
    )
    for name, found in results.items():
        typer.echo(
            f"{name}: V0 {found.volume / found.atoms:.4f} A^3/atom, B {found.bulk_modulus:.2f} GPa, "
            f"B' {found.derivative:.2f}, residual {1000 * found.residual / found.atoms:.4f} meV/atom"
        )
    extra = {}
    if run.reference is not None:
        one, other = results.values()
        extra["difference_percent"] = {
            "volume": properties.percent(one.volume, other.volume),
            "bulk_modulus": properties.percent(one.bulk_modulus, other.bulk_modulus),
        }
    eos_plot(results, run.output / "eos.png")
    run.save("eos", results, extra)
