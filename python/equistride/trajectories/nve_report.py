"""What the conservation test found, as files: JSON, the energies, a picture, and the page on the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from equistride.conservation.drift import MEV_PER_EV
from equistride.conservation.nve import Conservation
from equistride.trajectories.report import write_report
from equistride.trajectories.summary import Bounds
from equistride.trajectories.thermo import Segment
from equistride.units import BOLTZMANN, FS_PER_PS
from equistride.writing import whole_file, write, write_arrays

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def write_conservation(
    result: Conservation, folder: Path, *, title: str, settings: dict[str, object] | None = None
) -> None:
    """Write ``nve.json``, ``nve.npz``, ``nve.png`` and, where the drift run ended well, ``report.html``.

    Parameters
    ----------
    result
        From :func:`equistride.conservation.nve.conservation`.
    folder
        Made as needed.
    title, settings
        For the page: its heading, and how the run was made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "nve.json", json.dumps(result.summary() | {"settings": settings or {}}, indent=1) + "\n")
    arrays: dict[str, Any] = {}
    for name, (time, potential, kinetic) in result.series.items():
        key = name.replace(" ", "_")
        arrays |= {f"{key}_time_fs": time, f"{key}_potential_eV": potential, f"{key}_kinetic_eV": kinetic}
    write_arrays(folder / "nve.npz", arrays)
    _picture(result, folder / "nve.png", title)
    if "drift" not in result.series:
        return
    time, potential, kinetic = result.series["drift"]
    segment = Segment(
        name="NVE",
        ensemble="NVE",
        time=time,
        potential=potential,
        kinetic=kinetic,
        temperature=2 * kinetic / ((3 * result.atoms - 3) * BOLTZMANN),
    )
    write_report(
        folder / "report.html",
        title=title,
        subtitle=result.verdict(),
        segments=[segment],
        atoms=result.atoms,
        steps=result.setting.drift_steps,
        settings=settings,
        bounds=Bounds(drift=result.setting.drift_bound),
    )


def _picture(result: Conservation, path: Path, title: str) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    left.set(xlabel="time / ps", ylabel="change of total energy / (meV/atom)")
    if "drift" in result.series:
        time, potential, kinetic = result.series["drift"]
        total = (potential + kinetic) * (MEV_PER_EV / result.atoms)
        left.plot(time / FS_PER_PS, total - total[0], linewidth=0.6)
    _scaling(result, right)
    figure.suptitle(f"{title}: {result.verdict()}", fontsize=10)
    with whole_file(path) as partial:
        figure.savefig(partial, dpi=150)


def _scaling(result: Conservation, axes: Axes) -> None:
    axes.set(xlabel="time step / fs", ylabel="rms energy error / (meV/atom)")
    if not result.fluctuations:
        return
    steps, errors = (np.array(list(values), float) for values in (result.fluctuations, result.fluctuations.values()))
    axes.loglog(steps, errors, "o")
    axes.loglog(steps, errors[-1] * (steps / steps[-1]) ** 2, "--", linewidth=0.8, label="dt²")
    if result.exponent is not None:
        fit = result.exponent.prefactor * steps**result.exponent.value
        axes.loglog(steps, fit, linewidth=0.8, label=f"dt^{result.exponent.value:.2f}")
    axes.legend(frameon=False)
