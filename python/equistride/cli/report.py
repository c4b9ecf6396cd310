"""``equistride report``: one page on a trajectory, beside a reference where there is one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from equistride.cli import outputs

if TYPE_CHECKING:
    from equistride.trajectories.thermo import Segment

Reference = Annotated[Path | None, typer.Option("-r", "--reference", help="Trajectory to compare with.")]
Output = Annotated[Path, typer.Option("-o", "--output", callback=outputs.new_file, help="The HTML file.")]
Topology = Annotated[Path | None, typer.Option("-t", "--topology", help="PDB or other structure, for DCD and XTC.")]
Log = Annotated[
    list[str] | None,
    typer.Option("-l", "--log", help="State data of a stretch, as FILE=ENSEMBLE (nve.csv=NVE); may be repeated."),
]


def report(
    trajectory: Annotated[Path, typer.Argument(help="Trajectory: .npz, .extxyz, .dcd or .xtc.")],
    reference: Reference = None,
    output: Output = Path("report.html"),
    topology: Topology = None,
    reference_topology: Annotated[Path | None, typer.Option(help="Structure for a DCD or XTC reference.")] = None,
    interval: Annotated[float | None, typer.Option(min=0, help="Time between frames [fs], if not in the file.")] = None,
    log: Log = None,
    ensemble: Annotated[str, typer.Option(help="Ensemble of the trajectory, where there is no log.")] = "",
    title: Annotated[str, typer.Option(help="Heading; the trajectory's name otherwise.")] = "",
    machine: Annotated[str, typer.Option(help="The machine that ran it, in words.")] = "",
    speed: Annotated[float | None, typer.Option(min=0, help="Speed [ns/day].")] = None,
    drift_bound: Annotated[float, typer.Option(min=0, help="Largest drift that passes [meV/atom/ps].")] = 0.1,
    rdf_bound: Annotated[float, typer.Option(min=0, help="Largest difference of an RDF that passes.")] = 0.02,
    r_max: Annotated[float | None, typer.Option(min=0, help="Longest distance of the RDFs [A].")] = None,
) -> None:
    """Analyse a trajectory and write one HTML page, with the numbers as JSON beside it."""
    from equistride.trajectories import Bounds, read_trajectory, segment_of, write_report

    run = read_trajectory(trajectory, topology=topology, interval=interval)
    other = None
    if reference is not None:
        same = reference_topology or (topology if reference.suffix.lower() in (".dcd", ".xtc", ".trr", ".nc") else None)
        other = read_trajectory(reference, topology=same, interval=interval)
    segments = [_segment(text) for text in log or []]
    if not segments:
        own = segment_of(run, ensemble=ensemble)
        segments = [] if own is None else [own]
    result = write_report(
        output,
        title=title or run.name,
        subtitle=f"{run.formula}, {run.frames} frames" + (f"; compared with {other.name}" if other else ""),
        trajectory=run,
        reference=other,
        segments=segments,
        machine=machine,
        speed=speed,
        settings={"Trajectory": trajectory.name, "Reference": reference.name if reference else None},
        bounds=Bounds(drift=drift_bound, rdf=rdf_bound),
        r_max=r_max,
    )
    if result.drift is not None:
        low, high = result.drift.interval
        verdict = result.drift.verdict(result.bounds.drift)
        interval_text = f"95 % interval {low:+.4g} to {high:+.4g}"
        typer.echo(f"energy drift: {result.drift.slope:+.4g} meV/atom/ps ({interval_text}): {verdict}")
    for name, mean in result.temperature.items():
        typer.echo(f"temperature, {name}: {mean.value:.1f} +- {mean.error:.1f} K")
    if (worst := result.worst_rdf) is not None:
        typer.echo(f"largest RDF difference: {100 * (worst.difference or 0.0):.2f} % ({'-'.join(worst.rdf.pair)})")
    for note in result.notes:
        typer.echo(f"note: {note}")
    typer.echo(f"report: {output}    numbers: {output.with_suffix('.json')}")


def _segment(text: str) -> Segment:
    from equistride.errors import EquistrideError
    from equistride.trajectories import read_state_csv

    file, sign, ensemble = text.rpartition("=")
    if not sign or ensemble.upper() not in ("NVE", "NVT", "NPT"):
        raise EquistrideError(
            "a log needs its ensemble",
            expected="FILE=NVE, FILE=NVT or FILE=NPT",
            found=text,
            hint="write nve.csv=NVE, say",
        )
    return read_state_csv(file, ensemble=ensemble)
