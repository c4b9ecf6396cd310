"""``equistride conductivity``: lattice thermal conductivity."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from equistride.cli.properties import (
    Artifact,
    Device,
    Force,
    Output,
    Reference,
    Relaxed,
    Structure,
    Supercell,
    at_rest,
    numbers,
    percent,
    potentials,
    progress,
    save,
    three,
)


class Solution(StrEnum):
    """How the Boltzmann equation is solved."""

    rta = "rta"
    lbte = "lbte"


def conductivity(
    artifact: Artifact,
    structure: Structure,
    output: Output = Path("conductivity"),
    supercell: Supercell = None,
    mesh: Annotated[str, typer.Option(help="Mesh of wave vectors; converge the result with it.")] = "11,11,11",
    temperatures: Annotated[str, typer.Option(help="Temperatures [K].")] = "300",
    method: Annotated[Solution, typer.Option(help="Relaxation times, or the whole linear equation.")] = Solution.rta,
    displacement: Annotated[float, typer.Option(help="Displacement of an atom [A].")] = 0.03,
    pair_cutoff: Annotated[float | None, typer.Option(help="Leave out pairs further apart [A].")] = None,
    isotopes: Annotated[bool, typer.Option("--isotopes", help="Add scattering by natural isotopes.")] = False,
    relax: Relaxed = True,
    max_force: Force = 1e-4,
    reference: Reference = None,
    device: Device = "cpu",
) -> None:
    """Lattice thermal conductivity by phono3py; writes conductivity.json and conductivity.png."""
    from equistride.analysis.conductivity import thermal_conductivity
    from equistride.analysis.lattice import require
    from equistride.analysis.property_plots import conductivity_plot
    from equistride.data.structures import read_atoms

    require("phono3py")
    repeats = None if supercell is None else three(supercell, "supercell")
    points, kelvin = three(mesh, "mesh"), numbers(temperatures, "temperatures")
    atoms, results = read_atoms(structure), {}
    with progress() as stage:
        for name, calculator in potentials(artifact, reference, device).items():
            start = at_rest(atoms, calculator, relax, max_force, stage(f"{name}: relaxation"))
            results[name] = thermal_conductivity(
                start, calculator, supercell=repeats, mesh=points, temperatures=kelvin, method=method.value,
                displacement=displacement, pair_cutoff=pair_cutoff, isotopes=isotopes,
                progress=stage(f"{name}: displacements"),
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
        extra["difference_percent"] = [percent(a, b) for a, b in zip(one.mean, other.mean, strict=True)]
        typer.echo(f"difference: {', '.join(f'{d:+.1f} %' for d in extra['difference_percent'])}")
    conductivity_plot(results, output / "conductivity.png")
    save(output, "conductivity", structure, {k: r.summary() for k, r in results.items()}, extra)
