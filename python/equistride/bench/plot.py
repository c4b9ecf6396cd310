"""A plot of time per atom and step against the number of atoms."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from equistride.bench.results import read
from equistride.errors import EquistrideError
from equistride.writing import whole_file

FORMATS = (".png", ".svg", ".pdf")


def plot(paths: Iterable[Path], output: Path) -> None:
    """Draw the results of one or more files; a line for each model and family of systems.

    Parameters
    ----------
    paths
        Files of ``equistride bench --outfile``.
    output
        ``.png``, ``.svg`` or ``.pdf``.

    Raises
    ------
    EquistrideError
        Where the files hold no dynamics, or the picture cannot be written there.
    """
    if output.suffix not in FORMATS:
        raise EquistrideError(
            "the format of the plot is not known", expected=" or ".join(FORMATS), found=output.suffix or "none"
        )
    if not output.parent.is_dir():
        raise EquistrideError(f"the folder {output.parent} does not exist", hint="make it first")
    lines: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for path in paths:
        for result in read(path)["results"]:
            if "error" in result or result["kind"] == "kernels":
                continue
            on_gpu = result["device"] != "cpu"
            figure = result["us_per_atom_step" if on_gpu else "cpu_us_per_atom_step"]
            where = "GPU" if on_gpu else "CPU time"
            label = (
                f"{result['model']}, {result['system'].partition('-')[0]} ({result['step_fs']:g} fs a step, {where})"
            )
            lines[label].append((result["atoms"], figure))
    if not lines:
        raise EquistrideError("the files hold no potential and no propagator to plot", hint="run such tests first")
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 4.0), layout="constrained")
    for label, points in sorted(lines.items()):
        atoms, times = zip(*sorted(points), strict=True)
        axes.plot(atoms, times, "o-", label=label, markersize=4, linewidth=1.4)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("atoms")
    axes.set_ylabel("microseconds an atom and step")
    axes.grid(True, which="both", linewidth=0.3, alpha=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    with whole_file(output) as partial:
        figure.savefig(partial, dpi=160)
    pyplot.close(figure)
