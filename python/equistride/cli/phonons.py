"""``equistride phonons``: bands, density of states, thermal functions."""

from __future__ import annotations

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
    potentials,
    progress,
    save,
    three,
)


def phonons(
    artifact: Artifact,
    structure: Structure,
    output: Output = Path("phonons"),
    supercell: Supercell = None,
    mesh: Annotated[str, typer.Option(help="Mesh of wave vectors for densities and comparisons.")] = "8,8,8",
    displacement: Annotated[float, typer.Option(help="Displacement of an atom [A].")] = 0.01,
    temperatures: Annotated[str, typer.Option(help="Temperatures of the thermal functions [K].")] = "100,300,500",
    relax: Relaxed = True,
    max_force: Force = 1e-4,
    reference: Reference = None,
    device: Device = "cpu",
) -> None:
    """Phonons by finite displacements; writes phonons.json, phonons.png, and phonopy's own YAML file."""
    from equistride.analysis.lattice import require
    from equistride.analysis.phonons import frequency_error
    from equistride.analysis.phonons import phonons as run
    from equistride.analysis.property_plots import phonon_plot
    from equistride.data.structures import read_atoms

    require("phonopy")
    repeats = None if supercell is None else three(supercell, "supercell")
    points, kelvin = three(mesh, "mesh"), numbers(temperatures, "temperatures")
    atoms, results = read_atoms(structure), {}
    with progress() as stage:
        for name, calculator in potentials(artifact, reference, device).items():
            start = at_rest(atoms, calculator, relax, max_force, stage(f"{name}: relaxation"))
            results[name] = run(
                start,
                calculator,
                supercell=repeats,
                displacement=displacement,
                progress=stage(f"{name}: displacements"),
            )
    output.mkdir(parents=True, exist_ok=True)
    summaries = {name: found.summary(points, kelvin) for name, found in results.items()}
    for name, numbers_ in summaries.items():
        typer.echo(
            f"{name}: {numbers_['lowest_THz']:.3f} to {numbers_['highest_THz']:.3f} THz, "
            f"{100 * numbers_['imaginary_share']:.2g} % imaginary; sum rule {numbers_['sum_rule_eV_per_A2']:.1e} eV/A^2"
        )
        results[name].save(output / f"{name}.phonopy.yaml")
    extra: dict[str, Any] = {}
    if reference is not None:
        one, other = results.values()
        extra["difference_THz"] = error = frequency_error(one, other, points)
        typer.echo(
            f"difference: mean absolute {error['mean_absolute']:.4f} THz, largest {error['largest']:.3f} THz, "
            f"mean {error['mean']:+.4f} THz on the mesh {mesh}"
        )
    phonon_plot({name: (p.bands(), p.density(points)) for name, p in results.items()}, output / "phonons.png")
    save(output, "phonons", structure, summaries, extra)
