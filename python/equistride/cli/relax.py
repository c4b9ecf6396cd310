"""``equistride relax``: a structure where forces and stress vanish."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from equistride.cli import properties


@partial(properties.verb, relaxes_first=False)
def relax(
    run: properties.Run,
    fixed_cell: Annotated[bool, typer.Option("--fixed-cell", help="Relax the atoms alone.")] = False,
    pressure: Annotated[float, typer.Option(help="External pressure [GPa].")] = 0.0,
    steps: Annotated[int, typer.Option(min=1, help="Most steps.")] = 500,
    symmetry: Annotated[bool, typer.Option("--symmetry", help="Keep the space group.")] = False,
    keep_fixed: Annotated[
        bool, typer.Option("--keep-fixed", help="Hold the atoms that the file fixes (selective dynamics, move_mask).")
    ] = False,
) -> None:
    """Relax a structure, its cell with it; writes relaxed.extxyz, relax.json, relax.png."""
    import ase.io

    from equistride.properties.plots import relaxation_plot
    from equistride.properties.relax import relax as relaxation

    results = run.each(
        "relaxation",
        lambda atoms, calculator, progress: relaxation(
            atoms, calculator, cell="fixed" if fixed_cell or atoms.cell.rank < 3 else "all", pressure=pressure,
            max_force=run.max_force, steps=steps, symmetry=symmetry, progress=progress,
        ),
        keep_fixed=keep_fixed,
    )  # fmt: skip
    for name, found in results.items():
        a, b, c, *angles = found.atoms.cell.cellpar()
        typer.echo(f"{name}: {found.energy:.6f} eV after {found.steps} steps, largest force {found.max_force:.1e} eV/A")
        if found.max_force > run.max_force and found.atoms.constraints:
            typer.echo("  that force is on an atom which the file fixes; the others are relaxed")
        if found.atoms.cell.rank == 3:
            typer.echo(f"  a, b, c {a:.4f}, {b:.4f}, {c:.4f} A; angles {', '.join(f'{x:.2f}' for x in angles)}")
    path = run.output / "relaxed.extxyz"
    ase.io.write(path, results[run.artifact.stem].atoms, format="extxyz")
    relaxation_plot(results, run.output / "relax.png")
    typer.echo(f"structure: {path}")
    run.save("relax", results)
