"""``equistride data md17``, ``isomers`` and ``molecule``: molecules for the training with pairs of frames."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from equistride.cli import outputs
from equistride.errors import EquistrideError

if TYPE_CHECKING:
    from equistride.data.frames import Frames


def md17(
    source: Annotated[
        str, typer.Argument(help="md17/ethanol, rmd17/aspirin, iso17 ..., or a file as it was published.")
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", callback=outputs.folder, help="Folder for the npz files.")
    ] = Path("data"),
    segment: Annotated[
        int | None, typer.Option(min=1, help="Cut trajectories into segments of so many frames; one is never split.")
    ] = None,
    guard: Annotated[int, typer.Option(min=0, help="Frames left out between segments.")] = 0,
    drop: Annotated[
        list[Path] | None, typer.Option(help="Drop frames that are in this file too; may be given again.")
    ] = None,
    keep: Annotated[
        list[Path] | None, typer.Option(help="Refuse the data where a frame is in this file too; may be given again.")
    ] = None,
) -> None:
    """MD17, revised MD17 and ISO17 from their public sources, in eV and A, with time stamps and without overlap."""
    from equistride.data.md17 import cut, read_published, refuse_overlap, without

    for path in _published(source, output):
        for k, frames in enumerate(read_published(path)):
            others = [f for other in drop or [] for f in read_published(other)]
            before = len(frames)
            frames = without(frames, others)
            if not len(frames):
                raise EquistrideError(f"every frame of {path} is in the files to drop", hint="choose other files")
            for other in keep or []:
                refuse_overlap([(str(other), f) for f in read_published(other)[:1]] + [(str(path), frames)])
            if segment is not None:
                frames = cut(frames, segment, guard)
            target = output / (f"{path.stem}.npz" if k == 0 else f"{path.stem}-{k + 1}.npz")
            if target.resolve() == path.resolve():
                target = output / f"{path.stem}-eV.npz"
            frames.save(target)
            typer.echo(
                f"{target}: {_summary(frames)}{f', {before - len(frames)} left out' if before > len(frames) else ''}"
            )


def _summary(frames: Frames) -> str:
    """Say how many frames there are and whether they can be paired."""
    atoms = f"{len(frames)} frames of {len(frames.numbers)} atoms"
    if frames.time_fs is None or frames.segment is None:
        return f"{atoms}, no time stamps"
    pairs = int((frames.segment[1:] == frames.segment[:-1]).sum())
    return f"{atoms}, {pairs} consecutive pairs"


def _published(source: str, output: Path) -> list[Path]:
    """Return the published files: those given, or those downloaded to ``output/published``."""
    from equistride.data.download import SOURCES, download, known_source
    from equistride.data.md17 import ISO17_SPLITS, unpack_iso17

    path = Path(source)
    if path.is_file():
        return unpack_iso17(path, output / "published") if path.name.endswith(".tar.gz") else [path]
    if source not in SOURCES and path.suffix:
        raise EquistrideError(
            f"the data file {source} does not exist", expected=f"a file, or one of {', '.join(SOURCES)}"
        )
    wanted, folder = known_source(source), output / "published"
    databases = [folder / f"{name}.db" for name in ISO17_SPLITS]
    if source == "iso17" and all(p.is_file() for p in databases):
        return databases
    with Progress(TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()) as bar:
        task = bar.add_task(wanted.file, total=None)
        bar.console.print(f"{wanted.url}\n{wanted.citation}")
        path = download(wanted, folder, lambda done, total: bar.update(task, completed=done, total=total))
    return unpack_iso17(path, folder) if source == "iso17" else [path]


def isomers(
    output: Annotated[
        Path, typer.Option("-o", "--output", callback=outputs.folder, help="Folder for the npz files.")
    ] = Path("data/isomers"),
    frames: Annotated[int, typer.Option(min=50, help="Frames of each molecule, 1 fs apart.")] = 1000,
    temperature: Annotated[float, typer.Option(min=1.0, help="K.")] = 500.0,
    molecule: Annotated[list[str] | None, typer.Option(help="Isomer by name; all 26 by default.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of start structures and velocities.")] = 1,
) -> None:
    """Molecular dynamics of isomers of C4H8O2 with GFN2-xTB, in ISO17's form; a stopped run goes on where it was."""
    from equistride.data.isomers import ISOMERS, IsomerRecipe, generate

    recipe = IsomerRecipe(frames=frames, temperature_K=temperature, seed=seed)
    with counting_bar("molecules") as bar:
        task = bar.add_task("isomers", total=len(molecule or ISOMERS))
        sets = generate(output, recipe, molecule, lambda done, total: bar.update(task, completed=done, total=total))
    for name, made in sets.items():
        typer.echo(f"{output / f'{name}.npz'}: {_summary(made)}")


def molecule(
    smiles: Annotated[
        str, typer.Argument(help="Its bonds, as in CCO: C, N, O, F, no hydrogen, rings in Kekule's form.")
    ],
    stride_fs: Annotated[float, typer.Option(min=1e-3, help="Time between the frames of a segment.")],
    output: Annotated[Path, typer.Option("-o", "--output", callback=outputs.new_file, help="npz file to write.")],
    temperature: Annotated[float, typer.Option(min=1.0, help="K.")] = 300.0,
    walks: Annotated[int, typer.Option(min=1, help="Walks, each from a start of its own.")] = 10,
    segments: Annotated[int, typer.Option(min=1, help="Segments of a walk.")] = 100,
    frames: Annotated[int, typer.Option(min=2, help="Frames of a segment.")] = 11,
    timestep_fs: Annotated[float, typer.Option(min=1e-3, help="Time step; it must divide the stride.")] = 0.5,
    seed: Annotated[int, typer.Option(min=0, help="Of start structures, velocities and noise.")] = 1,
) -> None:
    """Segments of a molecule's motion with GFN2-xTB, energy conserved in each; a stopped run goes on after its last walk."""
    from equistride.data.molecule import MoleculeRecipe, write

    recipe = MoleculeRecipe(
        smiles, stride_fs, temperature_K=temperature, walks=walks, segments=segments, frames=frames, timestep_fs=timestep_fs,
        seed=seed,
    )  # fmt: skip
    with counting_bar("walks") as bar:
        task = bar.add_task(smiles, total=walks)
        made = write(recipe, output, lambda done, total: bar.update(task, completed=done, total=total))
    typer.echo(f"{output}: {_summary(made)}")


def counting_bar(what: str) -> Progress:
    """Return a bar that counts to the end."""
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(what), TimeRemainingColumn()
    )
