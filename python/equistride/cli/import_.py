"""``equistride import``: checkpoints of other packages."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from equistride.cli import dispersion
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
)
from equistride.errors import EquistrideError

if TYPE_CHECKING:
    from equistride.artifact.metadata import Metadata

app = typer.Typer(help="Import checkpoints of other packages.", no_args_is_help=True)


def symbols_of(text: str) -> list[str]:
    """Return the element symbols of an option."""
    return [s.strip() for s in text.split(",") if s.strip()]


def _say(output: Path, metadata: Metadata, d3: str = "", d3_cutoff: float | None = None) -> None:
    """Say what the artifact is, with dispersion added to it where that is asked for."""
    if d3:
        metadata = dispersion.add(output, output, d3, d3_cutoff)
    system = "".join(f", {name} {value:g}" for name, value in metadata.system.items())
    if metadata.composition:
        size = f" with {metadata.composition.atoms} atoms" if metadata.composition.atoms else ""
        system += ", for " + "".join(f"{s}{n}" for s, n in metadata.composition.elements.items()) + size + " alone"
    typer.echo(
        f"{output}: {metadata.architecture} {metadata.kind} for {len(metadata.species)} elements, "
        f"{metadata.num_parameters:,} parameters, {metadata.dtype}{system}"
    )
    licence = metadata.licence or "not stated in the file; ask its authors"
    source = [str(metadata.weights[key]) for key in ("program", "file") if key in metadata.weights]
    typer.echo(f"weights: {', '.join(source)}; licence: {licence}")
    for note in metadata.weights.get("notes", []):
        typer.echo(f"note: {note}")


@app.callback()
def _group() -> None:
    pass


@app.command()
def trajcast(
    config: Annotated[Path, typer.Argument(help="Upstream's YAML, of the model or of the training run.")],
    state: Annotated[Path, typer.Argument(help="Upstream's state dict or training checkpoint.")],
    output: Output,
    stride: Annotated[float, typer.Option(help="Stride of its training data [fs]; upstream's files do not say.")],
    species: Annotated[
        str, typer.Option(help="Elements in the order of its training, as O,Si; from the YAML where it says.")
    ] = "",
    masses: Annotated[
        str, typer.Option(help="Masses of its training data [amu], as 15.999,28.085; standard ones by default.")
    ] = "",
    dtype: Precision = "float32",
    tables: Annotated[
        float | None, typer.Option(help="Replace the bonds' networks by splines with this relative error: faster.")
    ] = None,
    description: Description = "",
    licence: Licence = "",
    container: ContainerOption = "torchscript",
) -> None:
    """Turn a checkpoint of IBM/trajcast into an artifact."""
    from equistride.importers.trajcast import import_trajcast

    try:
        weights = [float(m) for m in masses.split(",") if m.strip()]
    except ValueError:
        raise EquistrideError("the masses must be numbers", expected="as 15.999,28.085", found=masses) from None
    symbols = symbols_of(species)
    metadata = import_trajcast(
        config, state, output, stride_fs=stride, species=symbols, masses=weights, dtype=dtype, tables=tables,
        description=description, licence=licence, container=container,  # type: ignore[arg-type]
    )  # fmt: skip
    typer.echo(
        f"{output}: {metadata.architecture} {metadata.kind} of {metadata.stride_fs:g} fs for {', '.join(metadata.species)}, "
        f"{metadata.num_parameters:,} parameters, {metadata.dtype}"
    )


@app.command()
def fairchem(
    checkpoint: Annotated[Path, typer.Argument(help="eSEN or UMA checkpoint of fairchem-core, of version 2 or 1.")],
    output: Output,
    elements: Annotated[
        str, typer.Option(help="Elements to keep, as H,C,N,O: a smaller, faster model; all by default.")
    ] = "",
    dataset: Annotated[str, typer.Option(help="Which dataset's energies, where it was trained on several.")] = "",
    charge: Annotated[int, typer.Option(help="Total charge [e], for models that know it.")] = 0,
    spin: Annotated[
        int | None, typer.Option(help="Spin multiplicity; 0: not given. 1 for OMol models and 0 for others by default.")
    ] = None,
    structure: Annotated[
        Path | None,
        typer.Option(help="UMA: a system of the composition to merge its experts for; the file holds for no other."),
    ] = None,
    unmerged: Annotated[
        bool,
        typer.Option("--unmerged", help="A model of several of UMA's datasets was trained with one set of weights."),
    ] = False,
    dtype: Precision = "float32",
    description: Description = "",
    licence: Licence = "",
    allow_nonconservative: AllowNonconservative = False,
    plain: Plain = False,
    container: ContainerOption = "torchscript",
) -> None:
    """Turn an eSEN or UMA checkpoint of fairchem-core into an artifact; fairchem is not needed, and no code of the file runs."""
    from equistride.data.structures import read_atoms
    from equistride.importers.fairchem import import_fairchem

    composition = read_atoms(structure).symbols.formula.count() if structure else None
    metadata = import_fairchem(
        checkpoint, output, elements=symbols_of(elements), dataset=dataset, charge=charge, spin=spin,
        composition=composition, unmerged=unmerged, dtype=dtype, description=description, licence=licence,
        allow_nonconservative=allow_nonconservative, fused=not plain, container=container,  # type: ignore[arg-type]
    )  # fmt: skip
    _say(output, metadata)


Elements = Annotated[str, typer.Option(help="Elements to keep, as O,Si: a smaller, faster model; all by default.")]


@app.command()
def sevennet(
    checkpoint: Annotated[
        str, typer.Argument(help="Checkpoint of SevenNet (.pth), or a name that an installed sevenn has, as 7net-0.")
    ],
    output: Output,
    elements: Elements = "",
    modal: Annotated[
        str, typer.Option(help="Which labels to reproduce, as PBE, where it was trained on several.")
    ] = "",
    dtype: Precision = "float32",
    description: Description = "",
    licence: Licence = "",
    plain: Plain = False,
    container: ContainerOption = "torchscript",
    d3: D3 = "",
    d3_cutoff: D3Cutoff = None,
) -> None:
    """Turn a checkpoint of SevenNet into an artifact; SevenNet is not needed, and no code of the file runs."""
    from equistride.importers.sevennet import import_sevennet

    dispersion.check(d3, d3_cutoff, container)
    metadata = import_sevennet(
        checkpoint, output, elements=symbols_of(elements), modal=modal, dtype=dtype, description=description,
        licence=licence, fused=not plain, container=container,  # type: ignore[arg-type]
    )  # fmt: skip
    _say(output, metadata, d3, d3_cutoff)


@app.command()
def nequip(
    checkpoint: Annotated[
        Path, typer.Argument(help="Lightning checkpoint (.ckpt) or package (.nequip.zip) of NequIP.")
    ],
    output: Output,
    elements: Elements = "",
    species: Annotated[str, typer.Option(help="Element of each type, as C,H,O, where the file does not say.")] = "",
    field: Annotated[
        list[str] | None, typer.Option(help="Value of a field of the whole system that the model reads, as level=2.")
    ] = None,
    dtype: Precision = "float32",
    description: Description = "",
    licence: Licence = "",
    plain: Plain = False,
    container: ContainerOption = "torchscript",
    d3: D3 = "",
    d3_cutoff: D3Cutoff = None,
) -> None:
    """Turn a checkpoint or package of NequIP into an artifact; NequIP is not needed, and no code of the file runs."""
    from equistride.importers.nequip import import_nequip

    fields = {}
    for text in field or []:
        name, _, value = text.partition("=")
        if not value.strip().lstrip("-").isdigit():
            raise EquistrideError("a field needs a whole number", expected="as level=2", found=text)
        fields[name.strip()] = int(value)
    dispersion.check(d3, d3_cutoff, container)
    metadata = import_nequip(
        checkpoint, output, elements=symbols_of(elements), species=symbols_of(species), fields=fields, dtype=dtype,
        description=description, licence=licence, fused=not plain, container=container,  # type: ignore[arg-type]
    )  # fmt: skip
    _say(output, metadata, d3, d3_cutoff)


@app.command()
def mace(
    model: Annotated[Path, typer.Argument(help="Model of MACE (.model), as mace-torch saves it.")],
    output: Output,
    elements: Elements = "",
    head: Annotated[str, typer.Option(help="Which labels to reproduce, where it was trained on several.")] = "",
    dtype: Precision = "float32",
    description: Description = "",
    licence: Licence = "",
    allow_nonconservative: AllowNonconservative = False,
    plain: Plain = False,
    container: ContainerOption = "torchscript",
    d3: D3 = "",
    d3_cutoff: D3Cutoff = None,
) -> None:
    """Turn a model of MACE into an artifact; mace-torch is not needed, and no code of the file runs."""
    from equistride.importers.mace import import_mace

    dispersion.check(d3, d3_cutoff, container)
    if not licence and sys.stdin.isatty():
        licence = typer.prompt(
            "Licence of the weights, which no file of MACE says (ASL: not to be passed on)", default=""
        )
    metadata = import_mace(
        model, output, elements=symbols_of(elements), head=head, dtype=dtype, description=description, licence=licence,
        allow_nonconservative=allow_nonconservative, fused=not plain, container=container,  # type: ignore[arg-type]
    )  # fmt: skip
    _say(output, metadata, d3, d3_cutoff)
