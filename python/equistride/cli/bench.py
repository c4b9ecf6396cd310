"""``equistride bench``: how fast is it here, and against whom?"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from equistride.cli import outputs
from equistride.cli.artifact_options import Trust
from equistride.errors import EquistrideError


class Style(StrEnum):
    """How results are printed."""

    table = "table"
    simple = "simple"


Files = list[Path] | None


def bench(
    platform: Annotated[str | None, typer.Option(help="OpenMM's: CPU, Reference, CUDA, OpenCL.")] = None,
    test: Annotated[str | None, typer.Option(help="Names with commas between, or all.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="Of the network: float32 or float64; the artifact's by default.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="Time of the steps of a test [s].")] = 10.0,
    device: Annotated[int | None, typer.Option(min=0, help="Number of the GPU.")] = None,
    threads: Annotated[int, typer.Option(help="Threads on the CPU.")] = 1,
    style: Annotated[Style, typer.Option(help="How results are printed.")] = Style.table,
    outfile: Annotated[
        Path | None, typer.Option(callback=outputs.file, help="JSON file, written after each test.")
    ] = None,
    artifact: Annotated[Path | None, typer.Option(help="Model; the released ones by default.")] = None,
    structure: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Your system, of any format that ASE reads; --test names kinds then."),
    ] = None,
    random: Annotated[bool, typer.Option("--random", help="Published architectures with random weights.")] = False,
    peers: Annotated[bool, typer.Option("--peers", help="Run other programs on the same atoms too.")] = False,
    peer_python: Annotated[
        list[str] | None, typer.Option(help="Python of an environment that has peers; may be given again.")
    ] = None,
    names: Annotated[bool, typer.Option("--list", help="Print the names of the tests.")] = False,
    table: Annotated[Files, typer.Option(metavar="FILE", help="Print JSON results as Markdown instead.")] = None,
    plot: Annotated[Files, typer.Option(metavar="FILE", help="Draw JSON results instead (with -o).")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", callback=outputs.file, help="Picture of --plot.")
    ] = None,
    seed: Annotated[int, typer.Option(min=1, help="Seed of velocities and thermostat.")] = 1,
    trust: Trust = False,
) -> None:
    """Measure speed, memory and conservation of models in OpenMM and of the kernels, against the machine's limit and peers."""
    from equistride.artifact import load
    from equistride.bench.catalogue import KINDS, on_structure, select, standard

    if names:
        for kind, text in KINDS.items():
            typer.echo(f"{kind}: {text}")
            typer.echo("    " + ", ".join(t.name for t in standard() if t.kind == kind))
        typer.echo("quartz-N and water-N take other numbers of atoms too (9 n^2 m, and multiples of 3)")
        return
    if table:
        from equistride.bench.results import markdown

        typer.echo(markdown(table), nl=False)
        return
    if plot:
        from equistride.bench.plot import plot as draw

        if output is None:
            raise EquistrideError("--plot needs the name of its picture", hint="add -o figure.png")
        draw(plot, output)
        return
    if output is not None:
        raise EquistrideError("-o names the picture of --plot, which is not given", hint="use --outfile for results")
    from equistride.bench.settings import Settings

    settings = Settings(
        platform=platform, precision=precision, seconds=seconds, device=device,  # type: ignore[arg-type]
        threads=threads, artifact=None if artifact is None else str(artifact), random=random, peers=peers,
        peer_pythons=peer_python or [], seed=seed,
    )  # fmt: skip
    if structure is not None:
        tests = on_structure(structure, test, None if artifact is None else load(artifact, verify=False).metadata.kind)
    else:
        tests = select(test if test is not None or artifact is None else _for_artifact(artifact))
    _measure(tests, settings, style, outfile)


def _for_artifact(path: Path) -> str:
    """Return the test of an artifact where none is named: that of its kind on the system whose elements are nearest to its."""
    from equistride.artifact import load
    from equistride.bench.catalogue import Benchmark
    from equistride.bench.models import check_fits
    from equistride.bench.systems import structure

    metadata = load(path).metadata
    reason: EquistrideError | None = None
    systems = {name: structure(name) for name in ("quartz-576", "water-648", "aspirin")}
    unlike = {name: len(set(metadata.species) ^ set(atoms.get_chemical_symbols())) for name, atoms in systems.items()}
    for system in sorted(systems, key=lambda name: unlike[name]):
        try:
            check_fits(metadata, path.name, system, systems[system])
        except EquistrideError as error:
            reason = reason or error
            continue
        return Benchmark(metadata.kind, system).name
    raise EquistrideError(
        f"no system of the benchmark suits {path.name} ({reason})", hint="give one of your own with --structure FILE"
    )


def _measure(tests: list[Any], settings: Any, style: Style, outfile: Path | None) -> None:
    from equistride.bench.machine import facts, load_average
    from equistride.bench.results import Outfile, as_simple, as_table, header
    from equistride.bench.run import run

    settings.platform_name()
    keeper = None if outfile is None else Outfile(outfile, settings)
    machine = facts()
    versions = ", ".join(f"{name} {number}" for name, number in machine["packages"].items())
    typer.echo(
        f"{machine['processor']}, {settings.threads} of {machine['cores']} cores, load {load_average() or 0:.1f}"
    )
    for gpu in machine["gpus"]:
        typer.echo(gpu)
    typer.echo(versions)
    if style is Style.table:
        typer.echo(header())
    done = failed = 0
    try:
        for result in run(tests, settings):
            if keeper is not None:
                keeper.add(result)
            done += 1
            if "error" in result:
                failed += 1
                typer.echo(f"equistride: {result['error']}", err=True)
                continue
            typer.echo(as_table(result) if style is Style.table else as_simple(result))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_kept(done, len(tests), outfile)) from None
    if failed:
        raise typer.Exit(2)


def _kept(done: int, tests: int, outfile: Path | None) -> str:
    """Say what is left of a run that was stopped."""
    if done == 0:
        return "no test was done" + ("" if outfile is None else f" and {outfile} is as it was")
    results = f"the results of {done} of {tests} tests are"
    return f"{results} printed above alone (--outfile keeps them)" if outfile is None else f"{results} in {outfile}"
