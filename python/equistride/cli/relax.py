"""``equistride relax``: a structure where forces and stress vanish."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from equistride.cli.properties import Artifact, Device, Force, Output, Reference, Structure, potentials, progress, save


def relax(
    artifact: Artifact,
    structure: Structure,
    output: Output = Path("relax"),
    fixed_cell: Annotated[bool, typer.Option("--fixed-cell", help="Relax the atoms alone.")] = False,
    pressure: Annotated[float, typer.Option(help="External pressure [GPa].")] = 0.0,
    max_force: Force = 1e-4,
    steps: Annotated[int, typer.Option(min=1, help="Most steps.")] = 500,
    symmetry: Annotated[bool, typer.Option("--symmetry", help="Keep the space group.")] = False,
    reference: Reference = None,
    device: Device = "cpu",
) -> None:
    """Relax a structure, its cell with it; writes relaxed.extxyz, relax.json, relax.png."""
    import ase.io

    from equistride.data.structures import read_atoms
    from equistride.properties.plots import relaxation_plot
    from equistride.properties.relax import relax as run

    atoms = read_atoms(structure)
    calculators = potentials(artifact, reference, device)
    results = {}
    with progress() as stage:
        for name, calculator in calculators.items():
            results[name] = run(
                atoms, calculator, cell="fixed" if fixed_cell or atoms.cell.rank < 3 else "all", pressure=pressure,
                max_force=max_force, steps=steps, symmetry=symmetry, progress=stage(f"{name}: relaxation"),
            )  # fmt: skip
    output.mkdir(parents=True, exist_ok=True)
    for name, found in results.items():
        a, b, c, *angles = found.atoms.cell.cellpar()
        typer.echo(f"{name}: {found.energy:.6f} eV after {found.steps} steps, largest force {found.max_force:.1e} eV/A")
        if found.atoms.cell.rank == 3:
            typer.echo(f"  a, b, c {a:.4f}, {b:.4f}, {c:.4f} A; angles {', '.join(f'{x:.2f}' for x in angles)}")
    path = output / "relaxed.extxyz"
    ase.io.write(path, results[artifact.stem].atoms, format="extxyz")
    relaxation_plot(results, output / "relax.png")
    typer.echo(f"structure: {path}")
    save(output, "relax", structure, {k: r.summary() for k, r in results.items()})
