"""``equistride elastic``: elastic constants and the moduli of a polycrystal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from equistride.cli import properties


def elastic(
    artifact: properties.Artifact,
    structure: properties.Structure,
    output: properties.Output = Path("elastic"),
    strain: Annotated[float, typer.Option(help="Amplitude of the strains.")] = 0.002,
    relax: properties.Relaxed = True,
    max_force: properties.Force = 1e-4,
    reference: properties.Reference = None,
    device: properties.Device = "cpu",
) -> None:
    """Elastic constants from the stress of twelve small strains, with the atoms relaxed in each."""
    import numpy as np

    from equistride.properties.elastic import VOIGT, elastic_constants
    from equistride.properties.plots import elastic_plot

    results = properties.by_potential(
        lambda atoms, calculator, progress: elastic_constants(
            atoms, calculator, strain=strain, max_force=max_force, progress=progress
        ),
        "strains", artifact, structure, reference, device, relax, max_force,
    )  # fmt: skip
    output.mkdir(parents=True, exist_ok=True)
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
    if reference is not None:
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
    elastic_plot(results, output / "elastic.png")
    properties.save(output, "elastic", structure, {k: r.summary() for k, r in results.items()}, extra)
