"""``equistride export``: from a checkpoint, or a module of one's own, to the file that engines load."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from equistride.cli import dispersion, outputs
from equistride.cli.artifact_options import (
    D3,
    AllowNonconservative,
    ContainerOption,
    D3Cutoff,
    Description,
    Licence,
    Output,
    Plain,
    Precision,
    tell_unused,
    was_given,
)
from equistride.errors import EquistrideError


class Target(StrEnum):
    """What the file is for."""

    artifact = "artifact"
    openmm = "openmm"


def _figures(assignments: list[str]) -> dict[str, float]:
    figures = {}
    for assignment in assignments:
        name, _, value = assignment.partition("=")
        try:
            figures[name] = float(value)
        except ValueError:
            raise EquistrideError(
                f"--accuracy {assignment!r} is not a figure with a name", expected="NAME=NUMBER", found=assignment
            ) from None
    return figures


def _refuse_artifact(path: Path) -> None:
    """Refuse an artifact where a checkpoint is wanted; what is neither is left to the reader of checkpoints."""
    from equistride.artifact.metadata import metadata_of

    metadata = metadata_of(path)
    if metadata is None:
        return
    kind = metadata.kind
    uses = "engines run it as it is" + (
        ", and --for openmm --structure FILE makes a TorchForce of it" if kind == "potential" else ""
    )
    raise EquistrideError(
        f"{path} is an artifact of a {kind} already",
        expected="a checkpoint of `equistride train`",
        hint=f"{uses}; for another precision or container, export the checkpoint that it was made from",
    )


TEXTS = ("description", "licence", "reference", "accuracy")
POTENTIALS, PROPAGATORS = ("plain", "allow_nonconservative"), ("tables", "shortest")
"""Options for the one alone."""
OTHERS = {
    "target": "--for openmm",
    "structure": "--structure",
    "fused": "--fused",
    "accuracy": "--accuracy",
    "plain": "--plain",
    "weights": "--weights",
}


def _refuse_others(**given: object) -> None:
    """Refuse options that say nothing of a module."""
    for name, value in given.items():
        if value:
            raise EquistrideError(
                "--module writes artifacts of a network as it is", found=OTHERS[name],
                hint="leave it out; `equistride export --for openmm` takes the artifact",
            )  # fmt: skip


def export(
    context: typer.Context,
    output: Output,
    checkpoint: Annotated[
        Path | None, typer.Argument(help="Checkpoint of `equistride train`, or (for openmm and --d3) an artifact.")
    ] = None,
    dtype: Precision = "float32",
    target: Annotated[
        Target, typer.Option("--for", help="artifact: every engine of ours; openmm: a stock TorchForce.")
    ] = Target.artifact,
    structure: Annotated[
        Path | None,
        typer.Option(help="For openmm: the system (PDB or anything ASE reads); a TorchForce knows no elements."),
    ] = None,
    fused: Annotated[
        bool,
        typer.Option(
            "--fused",
            help="For openmm: run by equistride's library; the script calls equistride.load_operators() first.",
        ),
    ] = False,
    description: Description = "",
    licence: Licence = "",
    reference: Annotated[list[str] | None, typer.Option(help="What to cite; may be given again.")] = None,
    accuracy: Annotated[
        list[str] | None, typer.Option(help="A measured error, NAME_UNIT=VALUE; again for more.")
    ] = None,
    allow_nonconservative: AllowNonconservative = False,
    plain: Plain = False,
    container: ContainerOption = "torchscript",
    d3: D3 = "",
    d3_cutoff: D3Cutoff = None,
    tables: Annotated[
        float,
        typer.Option(
            min=0.0,
            help="For propagators: error of the splines that replace the networks of bond lengths (0: keep the networks).",
        ),
    ] = 1e-6,
    shortest: Annotated[
        float, typer.Option(min=0.0, help="For propagators: shortest bond that the splines cover, A.")
    ] = 0.5,
    weights: Annotated[
        Path | None,
        typer.Option(
            callback=outputs.new_file,
            help="Also write the weights alone, with which a later training can begin (initialise_from).",
        ),
    ] = None,
    module: Annotated[
        str | None,
        typer.Option(
            metavar="PLACE:BUILD", help="A network of one's own: package.module or file.py, and what makes it."
        ),
    ] = None,
    species: Annotated[str | None, typer.Option(help="With --module: elements in its order, H,C,O.")] = None,
    cutoff: Annotated[float | None, typer.Option(help="With --module: of its neighbours, A.")] = None,
    types: Annotated[str | None, typer.Option(help="With --module: what it is given for each element, 0,1,2.")] = None,
    energy: Annotated[str, typer.Option(help="With --module: its unit (eV, meV, kcal/mol, kJ/mol, Ha).")] = "eV",
    length: Annotated[str, typer.Option(help="With --module: its unit (A, nm, bohr).")] = "A",
    references: Annotated[
        str | None, typer.Option(help="With --module: energy of each element to be added to its atoms, eV.")
    ] = None,
    result: Annotated[str | None, typer.Option(help="With --module: key of the energy in what it returns.")] = None,
    toward: Annotated[
        str | None, typer.Option(help="With --module: where edge vectors point, sender or receiver.")
    ] = None,
) -> None:
    """Write a trained potential or propagator as one file with its metadata and a self-test."""
    if (checkpoint is None) == (module is None):
        raise EquistrideError(
            "what to export is not clear", expected="a checkpoint, or --module PLACE:BUILD",
            found="neither" if module is None else "both", hint="give one of them",
        )  # fmt: skip
    if module is not None:
        _refuse_others(
            target=target is not Target.artifact, structure=structure, fused=fused, accuracy=accuracy, plain=plain,
            weights=weights,
        )  # fmt: skip
        tell_unused(context, PROPAGATORS, "with --module")
        dispersion.check(d3, d3_cutoff, container)
        from equistride.artifact import export_module
        from equistride.cli.own import built, numbers

        metadata = export_module(
            built(module),
            output,
            species=species.split(",") if species else None,
            cutoff=cutoff,
            types=numbers(types, int, "--types"),
            energy=energy,
            length=length,
            references=numbers(references, float, "--references"),
            result=int(result) if result is not None and result.isdigit() else result,
            toward=toward,  # type: ignore[arg-type]
            dtype=dtype,
            container=container,  # type: ignore[arg-type]
            description=description,
            licence=licence,
            cite=reference,
            allow_nonconservative=allow_nonconservative,
        )
        if d3:
            metadata = dispersion.add(output, output, d3, d3_cutoff)
        steps = metadata.message_passing_steps
        reach = "all atoms, on one process" if metadata.global_sums else f"{steps} sums over neighbours"
        typer.echo(
            f"{output}: {metadata.architecture}, {metadata.num_parameters:,} parameters, {metadata.dtype}, {reach}"
        )
        return
    assert checkpoint is not None
    units = {"energy": None if energy == "eV" else energy, "length": None if length == "A" else length}
    own = {"species": species, "cutoff": cutoff, "types": types, "references": references, "result": result}
    for name, value in (own | units | {"toward": toward}).items():
        if value is not None:
            raise EquistrideError(f"--{name} is for --module", hint="leave it out: a checkpoint says it itself")
    if fused and target is Target.artifact:
        raise EquistrideError(
            "--fused is for --for openmm",
            hint="leave it out: artifacts are fused where the model can be, but for --plain",
        )
    dispersion.check(d3, d3_cutoff, container)
    if d3 and target is not Target.artifact:
        raise EquistrideError("--d3 is for artifacts", hint="add it first, then write a TorchForce of that file")
    if target is Target.artifact:
        from equistride.artifact.checkpoint import write_weights
        from equistride.artifact.export import export as write
        from equistride.artifact.metadata import metadata_of

        if d3 and metadata_of(checkpoint) is not None:
            if weights is not None:
                raise EquistrideError(
                    "--weights takes a checkpoint", hint="leave it out: an artifact has none to begin with"
                )
            tell_unused(context, [*TEXTS, *PROPAGATORS, *POTENTIALS, "dtype"], "where --d3 is added to an artifact")
            found = dispersion.add(checkpoint, output, d3, d3_cutoff)
            typer.echo(f"{output}: {found.architecture} {found.kind}, {found.description}, {found.dtype}")
            return
        _refuse_artifact(checkpoint)
        if weights is not None:
            write_weights(checkpoint, weights)
        metadata = write(
            checkpoint,
            output,
            dtype=dtype,
            description=description,
            licence=licence,
            references=reference,
            accuracy=_figures(accuracy or []),
            allow_nonconservative=allow_nonconservative,
            fused=not plain,
            tables=tables or None,
            shortest=shortest,
            container=container,  # type: ignore[arg-type]
        )
        propagator = metadata.kind == "propagator"
        tell_unused(context, POTENTIALS if propagator else PROPAGATORS, f"for a {metadata.kind}")
        if d3:
            metadata = dispersion.add(output, output, d3, d3_cutoff)
        made_for = metadata.compiled
        typer.echo(
            f"{output}: {metadata.architecture} {metadata.kind}, {metadata.num_parameters:,} parameters, {metadata.dtype}"
            + (
                f", compiled for torch {made_for.torch} on {made_for.machine} {made_for.instruction_set}"
                if made_for
                else ""
            )
        )
        return
    if weights is not None:
        raise EquistrideError("--weights is for artifacts", hint="leave out --for openmm")
    if container != "torchscript":
        raise EquistrideError(
            "--for openmm writes TorchScript and nothing else", found=f"--container {container}", hint="leave it out"
        )
    if structure is None:
        raise EquistrideError(
            "--for openmm needs the system",
            hint="add --structure FILE with the atoms in the order of the topology",
        )
    tell_unused(context, [*TEXTS, *PROPAGATORS, *POTENTIALS], "with --for openmm")
    from equistride.data.structures import read_atoms
    from equistride.engines.openmm_export import write_torchforce

    atoms = read_atoms(structure)
    box = bool(atoms.pbc.all())
    precision = dtype if was_given(context, "dtype") else None
    write_torchforce(checkpoint, output, atoms.get_chemical_symbols(), periodic=box, dtype=precision, fused=fused)
    needs = ", for scripts that call equistride.load_operators() first" if fused else ""
    typer.echo(f"{output}: TorchForce for {len(atoms)} atoms (nm, kJ/mol){needs}")
