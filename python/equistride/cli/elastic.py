"""``equistride elastic``: elastic constants and the moduli of a polycrystal."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from equistride.cli import properties


@properties.verb
def elastic(
    run: properties.Run,
    strain: Annotated[float, typer.Option(help="Amplitude of the strains.")] = 0.002,
) -> None:
    """Elastic constants from the stress of twelve small strains, with the atoms relaxed in each."""
    import numpy as np

    from equistride.properties.elastic import VOIGT, elastic_constants
    from equistride.properties.plots import elastic_plot

    results = run.each(
        "strains",
        lambda atoms, calculator, progress: elastic_constants(
            atoms, calculator, strain=strain, max_force=run.max_force, progress=progress
        ),
    )
    for name, found in results.items():
        typer.echo(f"{name}: C in GPa, order {' '.join(VOIGT)}")
        for row in found.constants:
            typer.echo("  " + " ".join(f"{c:8.2f}" for c in row))
        means = found.averages()
        typer.echo(
            f"  Hill's means: bulk {means['bulk_hill']:.2f}, shear {means['shear_hill']:.2f}, "
            f"Young {means['young_hill']:.2f} GPa, Poisson's ratio {means['poisson_hill']:.3f}; "
            f"{'stable' if found.stable else 'NOT stable'}"
        )
    extra: dict[str, Any] = {}
    if run.reference is not None:
        one, other = results.values()
        largest = np.abs(other.constants).max()
        extra["difference_percent"] = {
            f"C{i + 1}{j + 1}": properties.percent(one.constants[i, j], other.constants[i, j])
            for i in range(6)
            for j in range(i, 6)
            if abs(other.constants[i, j]) > 0.01 * largest
        }
        listed = ", ".join(f"{k} {v:+.1f} %" for k, v in extra["difference_percent"].items())
        typer.echo(f"difference: {listed}")
    elastic_plot(results, run.output / "elastic.png")
    run.save("elastic", results, extra)
