"""``equistride phonons``: bands, density of states, thermal functions."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from equistride.cli import properties


@properties.verb
def phonons(
    run: properties.Run,
    supercell: properties.Supercell = None,
    mesh: Annotated[str, typer.Option(help="Mesh of wave vectors for densities and comparisons.")] = "8,8,8",
    displacement: Annotated[float, typer.Option(help="Displacement of an atom [A].")] = 0.01,
    temperatures: Annotated[str, typer.Option(help="Temperatures of the thermal functions [K].")] = "100,300,500",
) -> None:
    """Phonons by finite displacements; writes phonons.json, phonons.png, and phonopy's own YAML file."""
    from equistride.properties.lattice import require
    from equistride.properties.phonons import frequency_error
    from equistride.properties.phonons import phonons as lattice_dynamics
    from equistride.properties.plots import phonon_plot

    require("phonopy")
    repeats = None if supercell is None else properties.three(supercell, "supercell")
    points, kelvin = properties.three(mesh, "mesh"), properties.numbers(temperatures, "temperatures")
    results = run.each(
        "displacements",
        lambda atoms, calculator, progress: lattice_dynamics(
            atoms, calculator, supercell=repeats, displacement=displacement, progress=progress
        ),
    )
    summaries = {name: found.summary(points, kelvin) for name, found in results.items()}
    for name, numbers_ in summaries.items():
        typer.echo(
            f"{name}: {numbers_['lowest_THz']:.3f} to {numbers_['highest_THz']:.3f} THz, "
            f"{100 * numbers_['imaginary_share']:.2g} % imaginary; sum rule {numbers_['sum_rule_eV_per_A2']:.1e} eV/A^2"
        )
        results[name].save(run.output / f"{name}.phonopy.yaml")
    extra: dict[str, Any] = {}
    if run.reference is not None:
        one, other = results.values()
        extra["difference_THz"] = error = frequency_error(one, other, points)
        typer.echo(
            f"difference: mean absolute {error['mean_absolute']:.4f} THz, largest {error['largest']:.3f} THz, "
            f"mean {error['mean']:+.4f} THz on the mesh {mesh}"
        )
    phonon_plot({name: (p.bands(), p.density(points)) for name, p in results.items()}, run.output / "phonons.png")
    run.save("phonons", summaries, extra)
