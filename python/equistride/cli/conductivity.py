"""``equistride conductivity``: lattice thermal conductivity."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from equistride.cli import properties


class Solution(StrEnum):
    """How the Boltzmann equation is solved."""

    rta = "rta"
    lbte = "lbte"


def conductivity(
    artifact: properties.Artifact,
    structure: properties.Structure,
    output: properties.Output = Path("conductivity"),
    supercell: properties.Supercell = None,
    mesh: Annotated[str, typer.Option(help="Mesh of wave vectors; converge the result with it.")] = "11,11,11",
    temperatures: Annotated[str, typer.Option(help="Temperatures [K].")] = "300",
    method: Annotated[Solution, typer.Option(help="Relaxation times, or the whole linear equation.")] = Solution.rta,
    displacement: Annotated[float, typer.Option(help="Displacement of an atom [A].")] = 0.03,
    pair_cutoff: Annotated[float | None, typer.Option(help="Leave out pairs further apart [A].")] = None,
    isotopes: Annotated[bool, typer.Option("--isotopes", help="Add scattering by natural isotopes.")] = False,
    relax: properties.Relaxed = True,
    max_force: properties.Force = 1e-4,
    reference: properties.Reference = None,
    device: properties.Device = "cpu",
) -> None:
    """Lattice thermal conductivity by phono3py; writes conductivity.json and conductivity.png."""
    from equistride.properties.conductivity import thermal_conductivity
    from equistride.properties.lattice import require
    from equistride.properties.plots import conductivity_plot

    require("phono3py")
    repeats = None if supercell is None else properties.three(supercell, "supercell")
    points, kelvin = properties.three(mesh, "mesh"), properties.numbers(temperatures, "temperatures")
    results = properties.by_potential(
        lambda atoms, calculator, progress: thermal_conductivity(
            atoms, calculator, supercell=repeats, mesh=points, temperatures=kelvin, method=method.value,
            displacement=displacement, pair_cutoff=pair_cutoff, isotopes=isotopes, progress=progress,
        ),
        "displacements", artifact, structure, reference, device, relax, max_force,
    )  # fmt: skip
    output.mkdir(parents=True, exist_ok=True)
    for name, found in results.items():
        for kelvin_, (xx, yy, zz, *_) in zip(found.temperatures, found.tensor, strict=True):
            typer.echo(
                f"{name}: {kelvin_:g} K: xx {xx:.2f}, yy {yy:.2f}, zz {zz:.2f} W/m/K ({method.value}, mesh {mesh})"
            )
    extra: dict[str, Any] = {}
    if reference is not None:
        one, other = results.values()
        extra["difference_percent"] = [properties.percent(a, b) for a, b in zip(one.mean, other.mean, strict=True)]
        typer.echo(f"difference: {', '.join(f'{d:+.1f} %' for d in extra['difference_percent'])}")
    conductivity_plot(results, output / "conductivity.png")
    properties.save(output, "conductivity", structure, {k: r.summary() for k, r in results.items()}, extra)
