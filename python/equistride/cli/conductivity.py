"""``equistride conductivity``: lattice thermal conductivity."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from equistride.cli import properties


class Solution(StrEnum):
    """How the Boltzmann equation is solved."""

    rta = "rta"
    lbte = "lbte"


@properties.verb
def conductivity(
    run: properties.Run,
    supercell: properties.Supercell = None,
    mesh: Annotated[str, typer.Option(help="Mesh of wave vectors; converge the result with it.")] = "11,11,11",
    temperatures: Annotated[str, typer.Option(help="Temperatures [K].")] = "300",
    method: Annotated[Solution, typer.Option(help="Relaxation times, or the whole linear equation.")] = Solution.rta,
    displacement: Annotated[float, typer.Option(help="Displacement of an atom [A].")] = 0.03,
    pair_cutoff: Annotated[float | None, typer.Option(help="Leave out pairs further apart [A].")] = None,
    isotopes: Annotated[bool, typer.Option("--isotopes", help="Add scattering by natural isotopes.")] = False,
) -> None:
    """Lattice thermal conductivity by phono3py; writes conductivity.json and conductivity.png."""
    from equistride.properties.conductivity import thermal_conductivity
    from equistride.properties.lattice import require
    from equistride.properties.plots import conductivity_plot

    require("phono3py")
    repeats = None if supercell is None else properties.three(supercell, "supercell")
    points, kelvin = properties.three(mesh, "mesh"), properties.numbers(temperatures, "temperatures")
    results = run.each(
        "displacements",
        lambda atoms, calculator, progress: thermal_conductivity(
            atoms,
            calculator,
            supercell=repeats,
            mesh=points,
            temperatures=kelvin,
            method=method.value,
            displacement=displacement,
            pair_cutoff=pair_cutoff,
            isotopes=isotopes,
            progress=progress,
        ),
    )
    for name, found in results.items():
        for kelvin_, (xx, yy, zz, *_) in zip(found.temperatures, found.tensor, strict=True):
            typer.echo(
                f"{name}: {kelvin_:g} K: xx {xx:.2f}, yy {yy:.2f}, zz {zz:.2f} W/m/K ({method.value}, mesh {mesh})"
            )
    extra: dict[str, Any] = {}
    if run.reference is not None:
        one, other = results.values()
        extra["difference_percent"] = [properties.percent(a, b) for a, b in zip(one.mean, other.mean, strict=True)]
        typer.echo(f"difference: {', '.join(f'{d:+.1f} %' for d in extra['difference_percent'])}")
    conductivity_plot(results, run.output / "conductivity.png")
    run.save("conductivity", results, extra)
